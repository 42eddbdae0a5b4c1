"""Which backup is meant: the newest one, the newest proven one, or the newest one of a moment."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from pgsteward.backup.manifest import BACKUP_ID, Manifest
from pgsteward.backup.newest import newest
from pgsteward.errors import ConfigError

LATEST = "latest"
PROVEN = "latest-proven"
WORDS = (LATEST, PROVEN)
"""What may be written for a backup id. Both are whole backups only."""

_NEAREST = 2


def refuse_unknown(what: str, as_of: datetime | None = None) -> None:
    """Make sure that a backup is named in a way that is understood.

    Raises:
        ConfigError: It is neither a word nor an id; or an id, which has a moment of its own.
    """
    if what not in WORDS and not BACKUP_ID.fullmatch(what):
        raise ConfigError(
            f"{what!r} is not a backup; write latest, latest-proven or an id as `pgsteward backups` prints it"
        )
    if as_of is not None and what not in WORDS:
        raise ConfigError(f"as_of chooses a backup, and {what} is one already; leave one of them out")


def parse_instant(text: str, zone: str) -> datetime:
    """Return the moment that is meant, in UTC.

    Args:
        text: ISO 8601, with an offset or without.
        zone: What a moment without an offset is in.

    Raises:
        ConfigError: It is no moment; or that hour is there twice or not at all in the zone.
    """
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ConfigError(
            f"{text!r} is no moment; write it as 2026-11-20T03:00Z, or 2026-11-20T03:00+01:00"
        ) from None
    if found.tzinfo is not None:
        return found.astimezone(UTC)
    there = found.replace(tzinfo=ZoneInfo(zone))
    if there.utcoffset() != there.replace(fold=1).utcoffset():
        raise ConfigError(
            f"{text} is not one moment in {zone}, whose clocks change then; write its offset:"
            f" {found.isoformat(timespec='minutes')}Z is UTC"
        )
    return there.astimezone(UTC)


def moment(manifest: Manifest) -> datetime:
    """Return when a backup saw the database; of one that does not say it, when it began."""
    return manifest.snapshot_at or manifest.started_at


def newest_whole(
    manifests: Collection[Manifest],
    now: datetime,
    as_of: datetime | None = None,
    only: Collection[str] | None = None,
) -> Manifest | None:
    """Return the newest whole backup, if there is one.

    Args:
        manifests: Of one store.
        now: One that is dated later is not meant.
        as_of: It saw the database not after this moment.
        only: It is among these ids.
    """
    fit = [
        manifest
        for manifest in manifests
        if not manifest.partial
        and (only is None or manifest.backup_id in only)
        and (as_of is None or moment(manifest) <= as_of)
    ]
    return newest(fit, now)


def whats_missing(
    what: str, as_of: datetime | None, manifests: Sequence[Manifest], target: str, database: str, where: str
) -> str:
    """Say why no backup fits, which are near, and what to do.

    Args:
        what: One of `WORDS`.
        as_of: As given.
        manifests: All whole backups in all stores.
        target: Whose.
        database: Which one.
        where: The stores.
    """
    proven = what == PROVEN
    whole = sorted({m.backup_id: m for m in manifests if not m.partial}.values(), key=moment)
    kind = "proven backup" if proven else "complete backup"
    text = f"there is no {kind} of {database!r} in {where}"
    if as_of is not None:
        text += f" from {said(as_of)} or before"
        later = [m for m in whole if moment(m) > as_of][:_NEAREST]
        before = [m for m in whole if moment(m) <= as_of][-_NEAREST:] if proven else []
        if near := [*before, *later]:
            text += f"; the nearest: {', '.join(f'{m.backup_id} of {said(moment(m))}' for m in near)}"
    if proven and whole:
        fit = [m for m in whole if as_of is None or moment(m) <= as_of] or whole
        text += (
            "; a backup is proven by a restore from the store that was compared and equal:"
            f" `pgsteward restore {target} {fit[-1].backup_id}` makes one, into a new database"
        )
    return text


def said(instant: datetime) -> str:
    """Return a moment as people and machines read it: whole seconds, rounded up so that it fits."""
    whole = instant.astimezone(UTC)
    if whole.microsecond:
        whole = whole.replace(microsecond=0) + timedelta(seconds=1)
    return f"{whole:%Y-%m-%dT%H:%M:%SZ}"
