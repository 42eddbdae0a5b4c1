"""Which of some backups is the newest one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pgsteward.backup.newest import ahead, newest, newest_ids
from pgsteward.keep_rules import Backup

NOW = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)


def at(minutes: float, tail: str = "aaaaaa") -> Backup:
    began = NOW + timedelta(minutes=minutes)
    return Backup(f"{began:%Y%m%dT%H%M%SZ}-{tail}", began)


@pytest.mark.parametrize(
    ("minutes", "expected"),
    [
        pytest.param([-60, -30, -90], -30, id="the-last-one"),
        pytest.param([-60, 2], 2, id="clocks-differ-a-little"),
        pytest.param([-60, 5], 5, id="exactly-at-the-edge-counts"),
        pytest.param([-60, 6], -60, id="one-of-the-future-does-not"),
        pytest.param([6, 60], None, id="nothing-else-is-there"),
        pytest.param([], None, id="nothing-at-all"),
    ],
)
def test_the_newest_is_the_last_one_that_is_not_of_the_future(
    minutes: list[float], expected: float | None
) -> None:
    backups = [at(each) for each in minutes]
    found = newest(backups, NOW)
    assert found == (None if expected is None else at(expected))
    assert {note.object for note in ahead(backups, NOW)} == {
        at(each).backup_id for each in minutes if each > 5
    }
    ids = newest_ids([*(backup.backup_id for backup in backups), "receipts"], NOW)
    assert ids == sorted((at(each).backup_id for each in minutes if each <= 5), reverse=True)


def test_the_id_decides_between_two_of_one_moment() -> None:
    assert newest([at(0, "bbbbbb"), at(0, "aaaaaa")], NOW) == at(0, "bbbbbb")
