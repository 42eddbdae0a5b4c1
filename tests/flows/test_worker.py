"""Runs of deployments on a worker: schedules, lateness, cancelling, drift."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.check import check
from pgsteward.prefect_stack import PrefectStack
from tests.servers import Database

ROOT = Path(__file__).resolve().parents[2]
NewTarget = Callable[..., str]


def _wait(ready: Callable[[], Any], seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := ready()):
        assert time.monotonic() < deadline, f"did not happen within {seconds:g} s"
        time.sleep(0.2)
    return found


def _sessions(database: Database) -> list[str]:
    """Return who is at work in the database besides the test itself."""
    return [
        f"{row['application_name']}: {row['query']}"
        for row in database.rows(
            "SELECT application_name, query FROM pg_stat_activity"
            " WHERE datname = current_database() AND state = 'active'"
            "   AND application_name <> 'pgsteward test'"
        )
    ]


def _dumps_of(database: Database) -> list[str]:
    """Return the pids of the pg_dump processes that work on the database."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = entry.read_bytes().decode(errors="replace")
            if "pg_dump" in words and database.dbname in words:
                found.append(entry.parent.name)
    return found


def _deployment(stack: PrefectStack, name: str) -> dict[str, Any]:
    found: dict[str, Any] = stack.api.get(f"/deployments/name/{name}/{name}")
    return found


def test_a_schedule_makes_runs_until_it_leaves_the_file_and_is_pruned(
    in_process: PrefectStack, database: Database, new_target: NewTarget, tmp_path: Path
) -> None:
    """Guards the pins: with SQLAlchemy 2.1 Prefect 3.8's server looks fine and never schedules anything."""
    stack = in_process
    assert [entry for entry in check(ROOT / "prefect.yaml") if entry.status != "ok"] == []
    database.execute("CREATE TABLE t AS SELECT 1 AS x")
    shipped = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    entry = next(d for d in shipped["deployments"] if d["name"] == "analyze")
    every_five = {"slug": "often", "interval": 5}
    ours = {**entry, "schedules": [every_five], "parameters": {"target": new_target(database)}}
    file = tmp_path / "prefect.yaml"
    file.write_text(yaml.safe_dump({**shipped, "deployments": [ours]}))
    stack.deploy(file=file, prune=False)
    deployment = _deployment(stack, "analyze")["id"]

    def completed() -> list[dict[str, Any]]:
        runs: list[dict[str, Any]] = stack.api.post(
            "/flow_runs/filter",
            {
                "deployments": {"id": {"any_": [deployment]}},
                "flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}},
            },
        )
        return [run for run in runs if run["auto_scheduled"]]

    try:
        assert _wait(completed, 200)
        wrong = {entry.fix: entry.message for entry in check(ROOT / "prefect.yaml") if entry.status == "fail"}
        assert "analyze/analyze schedule often" in wrong["pgsteward deploy --prune"]
    finally:
        stack.deploy(prune=True)  # the shipped file has no schedule for this one
    assert _deployment(stack, "analyze")["schedules"] == []
    assert [entry for entry in check(ROOT / "prefect.yaml") if entry.status != "ok"] == []


def test_a_run_that_starts_too_late_skips_itself_but_not_the_missing_backup(
    stack: PrefectStack, sample_database: Database, new_target: NewTarget
) -> None:
    target = new_target(sample_database)
    due = datetime.now(UTC) - timedelta(hours=8)

    def late_run() -> Any:
        run = stack.api.post(
            f"/deployments/{_deployment(stack, 'nightly')['id']}/create_flow_run",
            {
                "parameters": {"target": target},
                "state": {"type": "SCHEDULED", "state_details": {"scheduled_time": due.isoformat()}},
            },
        )
        return stack.wait_run(run["id"], 140)

    first = late_run()
    assert (first.type, first.name) == ("COMPLETED", "Completed"), first
    assert "only backup and upload" in first.message
    second = late_run()
    assert (second.type, second.name) == ("COMPLETED", "Skipped"), second
    assert second.message.startswith("late: ")


@pytest.mark.parametrize("operation", ["matviews", "backup"])
def test_cancelling_ends_statements_and_children_within_ten_seconds(
    stack: PrefectStack, database: Database, new_target: NewTarget, operation: str
) -> None:
    database.execute("CREATE TABLE held AS SELECT 1 AS x")
    database.execute('CREATE MATERIALIZED VIEW "Slow One" AS SELECT pg_sleep(120)::text AS x WITH NO DATA')
    with database.connect(autocommit=False) as holder:
        holder.execute("LOCK TABLE held IN ACCESS EXCLUSIVE MODE")  # the dump waits for it
        run = stack.run_deployment(operation, {"target": new_target(database)})
        waiting = "REFRESH" if operation == "matviews" else "LOCK TABLE"
        _wait(lambda: any(waiting in session for session in _sessions(database)), 150)
        assert bool(_dumps_of(database)) == (operation == "backup")
        stack.api.set_state(run, "CANCELLING", "Cancelling")
        _wait(lambda: not _sessions(database) and not _dumps_of(database), 10)
    assert stack.wait_run(run, 60).type == "CANCELLED"


def test_runs_that_a_killed_parent_left_are_healed(stack: PrefectStack, database: Database) -> None:
    run = stack.run_deployment("report", {"target": "unknown"})
    stack.wait_run(run, 150)
    stack.api.set_state(run, "RUNNING", "Running", force=True)
    assert stack.heal() == 1
    assert stack.api.run_state(run).type == "CRASHED"


def test_a_server_that_dies_is_started_again_and_the_run_goes_on(
    stack: PrefectStack, database: Database, new_target: NewTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgsteward.prefect_stack._TOO_SOON_S", 0.0)
    database.execute("CREATE TABLE held AS SELECT 1 AS x")
    with database.connect(autocommit=False) as holder:
        holder.execute("LOCK TABLE held IN ACCESS EXCLUSIVE MODE")  # the dump waits for it
        run = stack.run_deployment("backup", {"target": new_target(database)})
        _wait(lambda: any("LOCK TABLE" in session for session in _sessions(database)), 150)
        assert not stack.revive_server()
        server = stack._server
        assert server is not None
        server.process.kill()
        server.process.wait()
        assert stack.revive_server()
        assert _dumps_of(database)
    assert stack.wait_run(run, 150).type == "COMPLETED"
