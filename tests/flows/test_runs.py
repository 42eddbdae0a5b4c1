"""What a person sees of a run: its state, its message, its artifacts."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.blocks.system import Secret as PrefectSecret
from prefect.client.schemas.objects import State

from flows import conclusion
from flows.analyze import analyze
from flows.drill import drill
from flows.nightly import nightly
from flows.report import report
from flows.restore import restore
from flows.retention import prune
from pgsteward.backup.dump import back_up
from pgsteward.config import Secret
from pgsteward.errors import ConfigError, DatabaseUnavailable, PartialFailure, QueryFailed
from pgsteward.prefect_stack import PrefectStack
from pgsteward.results import NightResult, StepResult
from pgsteward.targets import load_target
from tasks import maintenance_task
from tasks.matviews import refresh
from tests.servers import Database

NewTarget = Callable[..., str]


def _artifact(stack: PrefectStack, key: str) -> Any:
    wanted = {"artifacts": {"key": {"any_": [key]}}, "sort": "UPDATED_DESC", "limit": 1}
    found = stack.api.post("/artifacts/filter", wanted)
    return found[0]["data"] if found else None


def _table(stack: PrefectStack, key: str) -> list[dict[str, Any]]:
    data = _artifact(stack, key)
    rows: list[dict[str, Any]] = json.loads(data) if isinstance(data, str) else data
    return rows


def test_a_night_on_the_sample_does_every_step_and_says_so_with_numbers(
    in_process: PrefectStack, sample_database: Database, new_target: NewTarget
) -> None:
    target = new_target(
        sample_database,
        more='[[targets.{name}.sessions]]\ntable = "public.sessions"\nexpires = "expires"',
    )
    state: State[Any] = nightly(target, return_state=True)
    night = state.result(raise_on_failure=False)
    assert state.name == "Completed", state.message
    assert isinstance(night, NightResult)
    assert [step.step for step in night.steps][:5] == ["janitor", "backup", "upload", "drill", "prune"]
    assert night.step("sessions").changed
    page = str(_artifact(in_process, f"night-{target}"))
    assert "sessions" in page
    assert _artifact(in_process, f"night-{target}-table")

    again: State[Any] = report(target, return_state=True)
    assert again.is_completed()


def test_a_drill_that_could_not_be_tried_is_no_green_run_and_one_that_is_whole_is(
    in_process: PrefectStack, sample_database: Database, new_target: NewTarget
) -> None:
    target = new_target(sample_database)
    state: State[Any] = drill(target, return_state=True)
    assert state.is_failed()
    assert "drill unknown" in (state.message or "")
    back_up(load_target(target))
    state = drill(target, return_state=True)
    assert state.is_completed(), state.message
    assert "is proven" in (state.message or "")


def test_a_failed_step_skips_its_dependents_by_name_and_the_report_outlives_the_failure(
    in_process: PrefectStack, sample_database: Database, new_target: NewTarget, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder can be made in here")
    target = new_target(sample_database, store=f"file://{tmp_path}/file/store")
    state: State[Any] = nightly(target, return_state=True)
    assert state.is_failed()
    assert "backup failed" in (state.message or "")
    rows = {row["step"]: row["status"] for row in _table(in_process, f"night-{target}-table")}
    assert rows["backup"] == "failed"
    assert {name for name, status in rows.items() if status == "skipped"} >= {"upload", "prune", "sessions"}
    assert rows["analyze"] in {"ok", "partial"}


def test_a_step_by_hand_that_fails_publishes_first(
    in_process: PrefectStack, database: Database, new_target: NewTarget
) -> None:
    target = new_target(Database(database.server, "no such database"))
    state: State[Any] = analyze(target, return_state=True)
    assert state.is_failed()
    assert "no such database" in (state.message or "")
    assert "no such database" in str(_artifact(in_process, f"analyze-{target}"))


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        pytest.param(DatabaseUnavailable("the server is starting up"), 4, id="may-heal"),
        pytest.param(QueryFailed("division by zero", "22012"), 1, id="will-not-heal"),
    ],
)
def test_a_task_is_tried_again_only_when_that_may_help(
    in_process: PrefectStack, error: Exception, attempts: int
) -> None:
    tried: list[float] = []

    @maintenance_task("fails", timeout=timedelta(minutes=1))
    def fails(target: str) -> StepResult:
        tried.append(time.monotonic())
        raise error

    impatient = fails.with_options(retry_delay_seconds=0, retry_jitter_factor=0)

    @flow
    def tries() -> None:
        impatient("app")

    state: State[Any] = tries(return_state=True)
    assert state.is_failed()
    assert len(tried) == attempts


@pytest.mark.timeout(120, method="thread")  # SIGALRM is Prefect's in this one
def test_a_timeout_ends_the_statement_on_the_server(
    in_process: PrefectStack, database: Database, new_target: NewTarget
) -> None:
    database.execute('CREATE MATERIALIZED VIEW "Slow One" AS SELECT pg_sleep(120)::text AS x WITH NO DATA')
    target = new_target(database)
    hurried = refresh.with_options(timeout_seconds=2)

    @flow
    def refreshes() -> None:
        hurried(target)

    started = time.monotonic()
    state: State[Any] = refreshes(return_state=True)
    assert state.is_failed()
    while _active(database):  # the server notices a moment later
        time.sleep(0.1)
    assert time.monotonic() - started < 60


def _active(database: Database) -> list[str]:
    return [
        str(row["query"])
        for row in database.rows(
            "SELECT query FROM pg_stat_activity"
            " WHERE datname = current_database() AND state = 'active' AND pid <> pg_backend_pid()"
        )
    ]


def test_a_password_may_live_in_a_secret_block(in_process: PrefectStack) -> None:
    PrefectSecret(value="hunter2").save("app-password", overwrite=True)
    assert Secret(prefect_secret="app-password").resolve() == "hunter2"
    with pytest.raises(ConfigError, match="no Prefect Secret block 'nobodys'"):
        Secret(prefect_secret="nobodys").resolve()


def test_a_night_of_several_databases_looks_after_each_and_fails_by_the_name_of_one(
    in_process: PrefectStack, database: Database, sample_database: Database, new_target: NewTarget
) -> None:
    database.execute("CREATE TABLE t AS SELECT 1 AS x")
    names = [database.name, sample_database.name, "dropped"]
    target = new_target(database, more=f"databases = {json.dumps(names)}")
    state: State[Any] = nightly(target, return_state=True)
    assert state.is_failed()
    assert "dropped" in (state.message or "")
    rows = {row["step"]: row["status"] for row in _table(in_process, f"night-{target}-table")}
    assert rows["backup"] == "partial"
    page = str(_artifact(in_process, f"night-{target}"))
    assert all(name in page for name in names)

    one: State[Any] = analyze(target, database=database.name, return_state=True)
    assert one.is_completed(), one.message


def test_a_prune_that_stops_is_a_failed_run_and_the_number_lets_it_go_on(
    in_process: PrefectStack, database: Database, new_target: NewTarget
) -> None:
    name = new_target(
        database,
        more="[targets.{name}.retention]\nkeep_last = 1\nkeep_min = 1\n[targets.{name}.backup]\njobs = 1",
    )
    for _ in range(3):
        back_up(load_target(name))
    stopped: State[Any] = prune(name, return_state=True)
    assert stopped.is_failed()
    assert "2 of 3 backups would go, more than half" in str(stopped.message)
    done: State[Any] = prune(name, yes_remove=2, return_state=True)
    assert done.name == "Completed", done.message
    assert "Removed 2 of 3 backups" in str(done.message)


def test_a_dry_run_by_hand_that_fails_is_kept_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[StepResult] = []

    def write_down(result: StepResult, database: str) -> list[str]:
        kept.append(result)
        return []

    monkeypatch.setattr(conclusion, "_write_down", write_down)

    def gone() -> StepResult:
        raise DatabaseUnavailable("gone")

    with pytest.raises(PartialFailure):
        conclusion.run_steps("app", "", {"backup": gone, "upload": gone}, dry_run=True)
    assert [(step.status, step.dry_run) for step in kept] == [("failed", True), ("skipped", True)]


def test_a_replacing_restore_asks_nobody_before_it_has_looked(
    in_process: PrefectStack, database: Database, new_target: NewTarget
) -> None:
    target = new_target(database)
    state: State[Any] = restore(target, replace=True, return_state=True)
    assert "there is no complete backup" in (state.message or "")
    back_up(load_target(target))
    state = restore(target, replace=True, dry_run=True, return_state=True)
    assert state.name == "Completed", state.message


@pytest.mark.parametrize("right", [True, False])
def test_a_replacing_restore_pauses_until_the_name_is_typed(
    in_process: PrefectStack, database: Database, new_target: NewTarget, right: bool
) -> None:
    stack = in_process
    database.execute(b"CREATE TABLE note AS SELECT 'backed up' AS says")
    target = new_target(database)
    back_up(load_target(target))
    database.execute(b"UPDATE note SET says = 'written later'")
    run = stack.run_deployment("restore", {"target": target, "replace": True})
    _until(lambda: stack.api.run_state(run).type == "PAUSED")
    assert database.value("SELECT says FROM note") == "written later"
    typed = {"confirm_database": database.dbname if right else "postgres"}
    answer = stack.api.post(f"/flow_runs/{run}/resume", {"run_input": typed})
    assert answer["status"] == "ACCEPT", answer
    state = _until(lambda: (now := stack.api.run_state(run)).final and now)
    assert (state.name == "Completed") is right, state.message
    assert database.value("SELECT says FROM note") == ("backed up" if right else "written later")
    if not right:
        assert "'postgres' was given" in state.message


def _until(found: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 180
    while not (it := found()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return it
