"""Which of some backups is the newest one: one rule for whoever asks.

A backup that was made while the clock was ahead is dated in the future. It does not count until its time has
come: till then it would be the newest one, whatever is backed up meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Protocol, TypeVar

from pgsteward.backup.manifest import BACKUP_ID
from pgsteward.results import Note

CLOCKS_DIFFER = timedelta(minutes=5)
"""So much the clock of another machine that makes backups may be ahead of this one's."""


class Dated(Protocol):
    """A backup, or what stands for one."""

    @property
    def backup_id(self) -> str: ...

    @property
    def started_at(self) -> datetime: ...


Backup = TypeVar("Backup", bound=Dated)


def order(backup: Dated) -> tuple[datetime, str]:
    """Return what the newest backup has the most of."""
    return backup.started_at, backup.backup_id


def is_ahead(backup: Dated, now: datetime) -> bool:
    """Tell whether a backup is dated in the future."""
    return backup.started_at > now + CLOCKS_DIFFER


def newest(backups: Iterable[Backup], now: datetime) -> Backup | None:
    """Return the newest one that is not dated in the future; None where there is none."""
    return max((backup for backup in backups if not is_ahead(backup, now)), key=order, default=None)


def ahead(backups: Iterable[Dated], now: datetime) -> list[Note]:
    """Name each backup that is dated in the future."""
    dates = {backup.backup_id: backup.started_at for backup in backups if is_ahead(backup, now)}
    return [
        Note(
            backup_id,
            f"is dated in the future, {date.astimezone(UTC):%Y-%m-%d %H:%M} UTC: a clock was wrong, here or"
            " where it was made. It is not taken for the newest one; name it by its id if it is meant",
        )
        for backup_id, date in sorted(dates.items())
    ]


def newest_ids(folders: Iterable[str], now: datetime) -> list[str]:
    """Return the ids among the folders of a catalog, the newest first, without those of the future."""
    latest = f"{now + CLOCKS_DIFFER:%Y%m%dT%H%M%SZ}~"
    return sorted((name for name in folders if BACKUP_ID.fullmatch(name) and name < latest), reverse=True)
