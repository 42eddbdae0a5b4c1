"""A dump and a rebuild of ours on one database at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pgsteward.backup.dump import back_up
from pgsteward.hold_ups import hold_ups, name_hold_ups
from pgsteward.postgres import Connection
from pgsteward.reindex import reindex
from pgsteward.results import StepResult
from tests.integration.backup_targets import make_target
from tests.integration.maintenance import fill_bloated, invalid_indexes
from tests.integration.rebuilds import (
    NAMES,
    ROWS,
    before_rebuilds,
    bloated_target,
    in_background,
    open_snapshot,
    wait_until,
)
from tests.servers import Database

pytestmark = pytest.mark.contrib

REBUILD_WAITS = (
    "SELECT FROM pg_stat_progress_create_index"
    " WHERE datname = current_database() AND phase = 'waiting for old snapshots'"
)
DUMP_WAITS = "SELECT FROM pg_stat_activity WHERE application_name = 'pgsteward dump waits'"


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def bloated(database: Database) -> Database:
    fill_bloated(database, ROWS)
    return database


@pytest.fixture
def export(bloated: Database) -> Iterator[Connection]:
    with bloated.connect(purpose="nightly export", autocommit=False) as session:
        yield session


def test_a_dump_lets_a_running_rebuild_finish_and_comes_before_the_next(
    bloated: Database, tmp_path: Path, export: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = bloated_target(bloated, tmp_path, max_wait_s=60)
    backups: list[StepResult] = []
    rebuilds: list[StepResult] = []
    before_rebuilds(monkeypatch, lambda: open_snapshot(export))
    with in_background(lambda: rebuilds.append(reindex(target))):
        wait_until(bloated, REBUILD_WAITS)
        with in_background(lambda: backups.append(back_up(target))):
            wait_until(bloated, DUMP_WAITS)
            with bloated.connect() as watch:
                table = watch.value("SELECT '\"Order Lines\"'::regclass::oid::int8")
                assert name_hold_ups(hold_ups(watch, table)).startswith("our own backup: ")
            export.execute("ROLLBACK")
    assert backups[0].status == "ok"
    assert not any("rebuilt" in warning for warning in backups[0].details["warnings"])
    assert {item.object for item in rebuilds[0].changed} == NAMES
    assert rebuilds[0].failed == ()


def test_a_dump_goes_ahead_after_a_while_and_says_so(
    bloated: Database, tmp_path: Path, export: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = bloated_target(bloated, tmp_path, max_wait_s=60)
    hasty = make_target(bloated, tmp_path, backup={"lock_wait_timeout_s": 0.2})
    rebuilds: list[StepResult] = []
    before_rebuilds(monkeypatch, lambda: open_snapshot(export))
    with in_background(lambda: rebuilds.append(reindex(target))):
        wait_until(bloated, REBUILD_WAITS)
        found = back_up(hasty)
        export.execute("ROLLBACK")
    assert found.status == "ok"
    (warning,) = (each for each in found.details["warnings"] if "rebuilt" in each)
    assert "an index is rebuilt beside this dump" in warning
    assert {item.object for item in rebuilds[0].changed} == NAMES
    assert invalid_indexes(bloated) == []
