"""A dump and a rebuild of ours on one database at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from pgsteward.backup.dump import _attempt as attempt
from pgsteward.backup.dump import back_up
from pgsteward.hold_ups import hold_ups, name_hold_ups
from pgsteward.interlock import dump_is_over, let_builds_finish, may_build
from pgsteward.postgres import Connection
from pgsteward.progress import silent
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
    marks,
    open_snapshot,
    wait_until,
)
from tests.servers import Database

pytestmark = pytest.mark.contrib

REBUILD_WAITS = (
    "SELECT FROM pg_stat_progress_create_index"
    " WHERE datname = current_database() AND phase = 'waiting for old snapshots'"
)
DUMP_ANNOUNCED = (
    "SELECT FROM pg_locks JOIN pg_stat_activity AS a USING (pid)"
    " WHERE locktype = 'advisory' AND mode = 'ShareLock'"
    "   AND a.datname = current_database() AND a.application_name = 'pgsteward lock backup'"
)


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
            wait_until(bloated, DUMP_ANNOUNCED)
            with bloated.connect() as watch:
                table = watch.value("SELECT '\"Order Lines\"'::regclass::oid::int8")
                assert name_hold_ups(hold_ups(watch, table)).startswith("our own backup: ")
            export.execute("ROLLBACK")
    assert backups[0].status == "ok"
    assert not any("is built" in warning for warning in backups[0].details["warnings"])
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
    (warning,) = (each for each in found.details["warnings"] if "is built" in each)
    assert "an index is built beside this dump" in warning
    assert {item.object for item in rebuilds[0].changed} == NAMES
    assert invalid_indexes(bloated) == []


def test_of_two_that_start_at_the_same_moment_the_rebuild_steps_back(
    bloated: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has looked for the other, and seen nobody, when the other one begins."""
    target = bloated_target(bloated, tmp_path, max_wait_s=60)
    rebuild_looked, dump_looked, may_dump, stepped_back = Event(), Event(), Event(), Event()
    backups: list[StepResult] = []
    rebuilds: list[StepResult] = []

    def between_look_and_start() -> None:
        rebuild_looked.set()
        assert dump_looked.wait(60)

    def dump_later(*arguments: Any, **more: Any) -> StepResult:
        dump_looked.set()
        assert may_dump.wait(60)
        return attempt(*arguments, **more)

    def watch(what: str, done: int = 0, total: int = 0) -> None:
        if "for our own backup" in what:
            stepped_back.set()

    before_rebuilds(monkeypatch, between_look_and_start)
    monkeypatch.setattr("pgsteward.backup.dump._attempt", dump_later)
    with in_background(lambda: rebuilds.append(reindex(target, progress=watch))):
        assert rebuild_looked.wait(60)
        with in_background(lambda: backups.append(back_up(target))):
            has_stepped_back = stepped_back.wait(30)
            may_dump.set()
    assert has_stepped_back
    assert not any("is built" in warning for warning in backups[0].details["warnings"])
    assert {item.object for item in rebuilds[0].changed} == NAMES
    assert marks(bloated) == 0


def test_what_has_announced_itself_is_seen_before_it_begins(bloated: Database) -> None:
    with (
        bloated.connect(purpose="lock backup") as dump,
        bloated.connect(purpose="reindex") as first,
        bloated.connect(purpose="index create") as second,
    ):
        assert may_build(first)
        (warning,) = let_builds_finish(dump, 0, silent)
        assert f"pid {first.backend_pid} " in warning
        assert not may_build(second)
        dump_is_over(dump)
        assert may_build(second)
