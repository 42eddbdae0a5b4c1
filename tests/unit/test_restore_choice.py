"""Which backup is meant by a word and a moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pgsteward.backup.manifest import Manifest
from pgsteward.errors import ConfigError
from pgsteward.restore import choice
from tests.unit.test_manifest import manifest

T = datetime(2026, 11, 20, 3, 0, tzinfo=UTC)
LATER = T + timedelta(days=99)


def backup(hours: int, *, partial: bool = False, waited: timedelta | None = None) -> Manifest:
    """Return one that began some hours after `T`, and saw the database when it had waited."""
    began = T + timedelta(hours=hours)
    return manifest().model_copy(
        update={
            "backup_id": f"{began:%Y%m%dT%H%M%SZ}-aaaaaa",
            "started_at": began,
            "snapshot_at": None if waited is None else began + waited,
            "partial": ("tables: a only",) if partial else (),
        }
    )


@pytest.mark.parametrize(
    "text, zone, expected",
    [
        ("2026-11-20T03:00Z", "Europe/Berlin", T),
        ("2026-11-20T04:00+01:00", "UTC", T),
        ("2026-11-20T03:00", "UTC", T),
        ("2026-11-20T04:00", "Europe/Berlin", T),
        ("2026-11-20 03:00:00", "UTC", T),
        ("2026-11-20", "UTC", T - timedelta(hours=3)),
        pytest.param("2026-10-25T02:30+01:00", "Europe/Berlin", datetime(2026, 10, 25, 1, 30, tzinfo=UTC)),
    ],
)
def test_a_moment_is_read_in_its_own_zone_or_else_in_the_retentions(
    text: str, zone: str, expected: datetime
) -> None:
    assert choice.parse_instant(text, zone) == expected


@pytest.mark.parametrize(
    "text, says",
    [
        ("yesterday", "is no moment; write it as"),
        ("20:00", "is no moment"),
        ("", "is no moment"),
        pytest.param("2026-10-25T02:30", "not one moment in Europe/Berlin", id="twice"),
        pytest.param("2026-03-29T02:30", "not one moment in Europe/Berlin", id="never"),
    ],
)
def test_what_is_no_moment_is_refused(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        choice.parse_instant(text, "Europe/Berlin")


@pytest.mark.parametrize(
    "as_of, expected",
    [
        pytest.param(None, 3, id="newest"),
        pytest.param(T + timedelta(hours=2), 2, id="exactly-at-the-edge-fits"),
        pytest.param(T + timedelta(hours=2) - timedelta(seconds=1), 1, id="a-second-before"),
        pytest.param(T + timedelta(days=9), 3, id="in-the-future"),
        pytest.param(T - timedelta(seconds=1), None, id="before-all"),
    ],
)
def test_the_newest_whole_backup_not_after_the_moment_is_taken(
    as_of: datetime | None, expected: int | None
) -> None:
    backups = [backup(2), backup(0), backup(3), backup(1), backup(4, partial=True), backup(2, partial=True)]
    found = choice.newest_whole(backups, LATER, as_of)
    assert (found and found.backup_id) == (None if expected is None else backup(expected).backup_id)


def test_the_snapshot_counts_and_not_the_start_of_a_backup_that_waited() -> None:
    waited = backup(0, waited=timedelta(minutes=30))
    assert choice.newest_whole([waited], LATER, T + timedelta(minutes=20)) is None
    assert choice.newest_whole([waited], LATER, T + timedelta(minutes=30)) is waited


def test_only_proven_ones_count_where_a_proven_one_is_asked_for() -> None:
    backups = [backup(hours) for hours in range(3)]
    assert choice.newest_whole(backups, LATER, None, {backups[1].backup_id}) is backups[1]
    assert choice.newest_whole(backups, LATER, T, {backups[1].backup_id}) is None


def test_the_error_names_the_nearest_ones_and_what_to_do() -> None:
    backups = [backup(hours) for hours in range(4)]
    said = choice.whats_missing("latest", T - timedelta(hours=1), backups, "app", "db", "disk")
    assert said.startswith("there is no complete backup of 'db' in disk from 2026-11-20T02:00:00Z or before")
    assert f"the nearest: {backups[0].backup_id} of 2026-11-20T03:00:00Z, {backups[1].backup_id}" in said
    assert backups[2].backup_id not in said
    said = choice.whats_missing("latest-proven", T + timedelta(hours=1), backups, "app", "db", "disk")
    assert "no proven backup" in said
    assert f"`pgsteward restore app {backups[1].backup_id}` makes one" in said
    assert choice.whats_missing("latest", None, [], "app", "db", "disk").endswith("of 'db' in disk")


def test_an_id_has_a_moment_of_its_own() -> None:
    choice.refuse_unknown("latest-proven", T)
    choice.refuse_unknown(backup(0).backup_id)
    with pytest.raises(ConfigError, match="is one already"):
        choice.refuse_unknown(backup(0).backup_id, T)
    with pytest.raises(ConfigError, match="is not a backup"):
        choice.refuse_unknown("newest")


def test_a_moment_that_is_printed_finds_its_backup_again() -> None:
    odd = backup(0, waited=timedelta(microseconds=1))
    printed = choice.parse_instant(choice.said(choice.moment(odd)), "UTC")
    assert choice.newest_whole([odd], LATER, printed) is odd
