"""prefect.yaml, the flows it names, and the check that keeps them together. No server."""

from __future__ import annotations

import inspect
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import Flow
from prefect.client.schemas.objects import FlowRun
from prefect.states import Completed, Failed

from deployments import validate as validator
from deployments.check import check_pins
from deployments.project_file import Deployment, deployments_of, read_file
from flows.conclusion import last_state
from flows.nightly import LOOKING_TASKS, STEP_TASKS, nightly, scheduled_for
from pgsteward.config import load
from pgsteward.errors import (
    ConfigError,
    DatabaseUnavailable,
    LockTimeout,
    PartialFailure,
    PreconditionError,
    StoreUnavailable,
    ToolFailed,
)
from pgsteward.night import NIGHT
from pgsteward.places import CONFIG_ENV
from pgsteward.prefect_project import HOME_ENV, find_project, project_env
from tasks import retry_if_transient
from tasks.backup import back_up
from tasks.restore import restore_backup
from tests.unit.test_report_several import TWELVE

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = deployments_of(read_file(ROOT / "prefect.yaml"))
BY_NAME = {deployment.name: deployment for deployment in SHIPPED}
STEMS = sorted(path.stem for path in (ROOT / "flows").glob("*.py") if path.stem != "__init__")


def named(deployment: Deployment) -> str:
    return deployment.name


@pytest.mark.parametrize("deployment", SHIPPED, ids=named)
def test_every_entrypoint_loads_a_flow_of_the_deployments_name(deployment: Deployment) -> None:
    assert isinstance(deployment.flow, Flow)
    assert deployment.flow.name == deployment.name


def test_the_shipped_file_has_nothing_to_correct() -> None:
    assert validator.validate(ROOT / "prefect.yaml") == []


def test_only_night_and_drill_have_a_schedule_and_it_is_in_utc() -> None:
    scheduled = {d.name: [dict(entry) for entry in d.schedules] for d in SHIPPED if d.schedules}
    assert scheduled == {
        "nightly": [{"slug": "nightly", "cron": "0 2 * * *", "timezone": "UTC"}],
        "drill": [{"slug": "weekly", "cron": "0 9 * * 6", "timezone": "UTC"}],
    }


def test_every_step_of_the_night_is_a_task_and_a_deployment_of_its_own() -> None:
    steps = {step.name for step in NIGHT}
    assert steps == {*STEP_TASKS, *LOOKING_TASKS, "upload"}
    assert steps <= set(BY_NAME)


def test_steps_that_only_look_have_no_dry_run() -> None:
    assert {step.name for step in NIGHT if not step.has_dry_run} == set(LOOKING_TASKS)


@pytest.mark.parametrize("stem", STEMS)
def test_no_flow_module_hides_one_of_the_standard_library(stem: str) -> None:
    assert stem not in sys.stdlib_module_names


def test_flows_and_tasks_share_their_stems() -> None:
    tasks = {path.stem for path in (ROOT / "tasks").glob("*.py")} - {"__init__", "progress"}
    assert tasks == set(STEMS) - {"nightly", "conclusion", "confirmation"}


@pytest.mark.parametrize("deployment", SHIPPED, ids=named)
def test_the_form_explains_every_parameter_and_its_defaults_are_safe(deployment: Deployment) -> None:
    properties = deployment.flow.parameters.properties
    for name, parameter in properties.items():
        assert parameter.get("description"), f"{name} has no help"
        if parameter.get("type") == "boolean":
            assert parameter["default"] is False
    assert next(iter(properties)) == "target"


@pytest.mark.parametrize("deployment", SHIPPED, ids=named)
def test_the_description_says_what_a_dba_asks_first(deployment: Deployment) -> None:
    text = inspect.getdoc(deployment.flow.fn) or ""
    for word in ("**Does**", "**Locks**", "**Cancel**", "**Undo**"):
        assert word in text


@pytest.mark.parametrize(
    ("error", "retried"),
    [
        (DatabaseUnavailable("x"), True),
        (LockTimeout("x"), True),
        (StoreUnavailable("x"), True),
        (ToolFailed("x"), False),
        (PreconditionError("x"), False),
        (TimeoutError("x"), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_only_what_may_heal_is_retried(error: Exception, retried: bool) -> None:
    state: Any = Failed(data=error)
    unused: Any = None
    assert retry_if_transient(unused, unused, state) is retried


def test_a_restore_is_never_retried() -> None:
    assert (restore_backup.retries, back_up.retries) == (0, 3)


def _run(scheduled: datetime | None, run_count: int) -> FlowRun:
    return FlowRun(
        flow_id="00000000-0000-0000-0000-000000000000",
        expected_start_time=scheduled,
        run_count=run_count,
        state=Completed(),
    )


def test_a_night_over_several_databases_fails_with_each_reason_once() -> None:
    with pytest.raises(PartialFailure) as failed:
        last_state(TWELVE.steps, ["history not kept"], TWELVE)
    said = str(failed.value)
    assert said.startswith(
        "history not kept; fleet: 13 databases: 2 failed (identity, mailing), 1 unknown (payroll)"
    )
    assert said.count("GRANT CONNECT ON DATABASE payroll") == 1
    assert "backup failed (identity, mailing: this role can't dump the whole database" in said
    assert "every step unknown (payroll: may not be connected to" in said
    assert failed.value.report is TWELVE


def test_a_run_that_is_started_again_by_hand_is_never_late() -> None:
    due = datetime(2026, 11, 23, 2, 0, tzinfo=UTC)
    assert scheduled_for(_run(due, 1)) == due
    assert scheduled_for(_run(due, 2)) is None
    assert scheduled_for(None) is None


def test_the_nights_form_takes_a_span_of_time() -> None:
    assert nightly.validate_parameters({"max_lateness": "PT2H"})["max_lateness"] == timedelta(hours=2)


GOOD: dict[str, Any] = {
    "name": "nightly",
    "entrypoint": "flows.nightly.nightly",
    "parameters": {"target": "app"},
    "schedules": [{"slug": "nightly", "cron": "0 2 * * *", "timezone": "UTC"}],
    "concurrency_limit": {"limit": 1, "collision_strategy": "ENQUEUE"},
    "work_pool": {"name": "pgsteward"},
}


@pytest.mark.parametrize(
    ("change", "where", "says"),
    [
        pytest.param({"descripton": "x"}, "descripton", "write description", id="unknown-key"),
        pytest.param({"name": None}, "deployments.0", "has no name", id="no-name"),
        pytest.param(
            {"entrypoint": "flows/nightly.py:nightly"}, "entrypoint", "flows.nightly.nightly", id="file"
        ),
        pytest.param({"entrypoint": "flows.nightly.nightle"}, "entrypoint", "can't be loaded", id="no-flow"),
        pytest.param(
            {"entrypoint": "flows.nightly.scheduled_for"}, "entrypoint", "is not a flow", id="function"
        ),
        pytest.param({"parameters": {"taget": "app"}}, "parameters.taget", "write target", id="misspelt"),
        pytest.param(
            {"parameters": {"dry_run": "perhaps"}}, "parameters.dry_run", "perhaps", id="wrong-type"
        ),
        pytest.param(
            {"parameters": {"target": "postgresql://u:p@h/d"}}, "parameters.target", "in clear", id="secret"
        ),
        pytest.param({"schedules": []}, "schedules", "--prune", id="empty-schedules"),
        pytest.param({"schedule": {"cron": "0 2 * * *"}}, "schedule", "old form", id="old-form"),
        pytest.param({"schedules": [{"cron": "0 2 * * *"}]}, "schedules[0]", "slug", id="no-slug"),
        pytest.param(
            {"schedules": [{"slug": "a", "cron": "99 2 * * *"}]}, "schedules[0].cron", "99 2 * * *", id="cron"
        ),
        pytest.param(
            {"schedules": [{"slug": "a", "cron": "0 2 * * *", "timezone": "Europe/Warsow"}]},
            "schedules[0].timezone",
            "Europe/Warsow",
            id="time-zone",
        ),
        pytest.param({"schedules": [{"slug": "a", "interval": -5}]}, "interval", "seconds", id="interval"),
        pytest.param(
            {"schedules": [{"slug": "a", "rrule": "FREQ=SOMETIMES"}]}, "rrule", "SOMETIMES", id="rrule"
        ),
        pytest.param(
            {"schedules": [{"slug": "a", "cron": "0 2 * * *", "interval": 5}]}, "[0]", "exactly one", id="two"
        ),
        pytest.param(
            {"schedules": [{"slug": "a", "interval": 60}, {"slug": "a", "interval": 90}]},
            "schedules",
            "unique",
            id="same-slug",
        ),
        pytest.param({"work_pool": {}}, "work_pool", "name: pgsteward", id="no-pool"),
        pytest.param({"concurrency_limit": 1}, "concurrency_limit", "collision_strategy", id="no-strategy"),
        pytest.param(
            {"concurrency_limit": {"limit": 1, "collision_strategy": "WAIT"}},
            "collision_strategy",
            "ENQUEUE",
            id="strategy",
        ),
        pytest.param(
            {"entrypoint": "flows.restore.restore"}, "schedules", "by hand only", id="restore-at-night"
        ),
    ],
)
def test_what_prefect_would_swallow_is_found(
    tmp_path: Path, change: dict[str, Any], where: str, says: str
) -> None:
    file = tmp_path / "prefect.yaml"
    file.write_text(yaml.safe_dump({"name": "x", "deployments": [{**GOOD, **change}]}))
    found = [entry for entry in validator.validate(file) if entry.level == "error"]
    assert any(where in entry.where and says in entry.problem for entry in found), found


def test_two_deployments_of_one_name_are_found(tmp_path: Path) -> None:
    file = tmp_path / "prefect.yaml"
    file.write_text(yaml.safe_dump({"name": "x", "deployments": [GOOD, GOOD]}))
    assert [entry.where for entry in validator.validate(file)] == ["deployments.nightly/nightly"]


def test_a_local_hour_at_which_clocks_change_is_only_a_hint(tmp_path: Path) -> None:
    file = tmp_path / "prefect.yaml"
    at_two = {"slug": "a", "cron": "30 2 * * *", "timezone": "Europe/Warsaw"}
    file.write_text(yaml.safe_dump({"name": "x", "deployments": [{**GOOD, "schedules": [at_two]}]}))
    assert [entry.level for entry in validator.validate(file)] == ["hint"]


def test_validate_answers_with_an_exit_status_and_one_line_for_each_finding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "pgsteward.toml"
    config.write_text(TARGETS)
    monkeypatch.setenv(CONFIG_ENV, str(config))
    file = tmp_path / "prefect.yaml"
    file.write_text(yaml.safe_dump({"name": "x", "deployments": [{**GOOD, "parameters": {"taget": "app"}}]}))
    assert validator.main([str(file)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "prefect.yaml: deployments.nightly.parameters.taget: nightly has no such parameter; write target"
    ]
    assert validator.main(["--json", str(file)]) == 1
    assert json.loads(capsys.readouterr().out)["ok"] is False
    assert validator.main([str(tmp_path / "none.yaml")]) == 2

    config.unlink()
    file.write_text(yaml.safe_dump({"name": "x", "deployments": [GOOD]}))
    assert validator.main(["--json", str(file)]) == 0
    (hint,) = json.loads(capsys.readouterr().out.partition("\n")[2])["findings"]
    assert "targets and databases were not looked at" in hint["problem"]


TARGETS = """
[stores.disk]
url = "file:///backups"
[targets.app]
conninfo = "host=h dbname=shop"
stores = ["disk"]
[targets.some]
conninfo = "host=h dbname=postgres"
databases = ["shop", "Order Lines"]
stores = ["disk"]
[targets.all]
conninfo = "host=h dbname=postgres"
databases = "*"
exclude_databases = ["test_*"]
stores = ["disk"]
"""


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        pytest.param({"target": "app"}, None, id="there"),
        pytest.param({}, None, id="the-flows-own-default"),
        pytest.param({"target": "aap"}, "did you mean 'app'", id="no-such-target"),
        pytest.param({"target": "app", "database": "shop"}, None, id="its-only-database"),
        pytest.param({"target": "app", "database": "crm"}, "has the database 'shop' only", id="another"),
        pytest.param({"target": "some", "database": "Order Lines"}, None, id="one-of-several"),
        pytest.param(
            {"target": "some", "database": "crm"}, "its databases are shop, Order Lines", id="no-other"
        ),
        pytest.param({"target": "all", "database": "crm"}, None, id="of-all-any-may-be-there"),
        pytest.param(
            {"target": "all", "database": "test_1"}, "exclude_databases has 'test_*'", id="excluded"
        ),
        pytest.param({"target": "{{ $TARGET }}"}, None, id="a-template-is-filled-in-later"),
    ],
)
@pytest.mark.parametrize("place", ["deployment", "schedule"])
def test_targets_and_databases_are_looked_up_in_the_configuration(
    tmp_path: Path, parameters: dict[str, Any], says: str | None, place: str
) -> None:
    file, config = tmp_path / "prefect.yaml", tmp_path / "pgsteward.toml"
    config.write_text(TARGETS)
    schedule = {"slug": "a", "cron": "0 2 * * *", "timezone": "UTC"}
    change: dict[str, Any] = {"parameters": parameters, "schedules": [schedule]}
    if place == "schedule":
        change = {"parameters": {}, "schedules": [{**schedule, "parameters": parameters}]}
    file.write_text(yaml.safe_dump({"name": "x", "deployments": [{**GOOD, **change}]}))
    found = validator.validate(file, load(config))
    assert [entry.level for entry in found] == ([] if says is None else ["hint"])
    assert all(str(says) in entry.problem for entry in found)


@pytest.mark.parametrize(
    ("versions", "failing"),
    [
        (("3.8.8", "0.150.0", "2.0.58"), []),
        (("3.8.8", "0.165.0", "2.0.58"), ["fastapi"]),
        (("3.8.8", "0.150.0", "2.1.9"), ["sqlalchemy"]),
        (("3.9.1", "0.150.0", "2.1.9"), []),
        (("3.7.0", "0.150.0", "2.0.58"), ["prefect"]),
    ],
)
def test_versions_that_break_a_server_are_named(versions: tuple[str, str, str], failing: list[str]) -> None:
    assert [entry.check for entry in check_pins(*versions) if entry.status == "fail"] == failing


def test_the_project_is_found_by_name_then_upwards(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(HOME_ENV, raising=False)
    monkeypatch.chdir(ROOT / "docs")
    assert find_project() == ROOT
    monkeypatch.setenv(HOME_ENV, str(tmp_path))
    with pytest.raises(ConfigError, match="point it at a checkout"):
        find_project()


def test_a_flow_run_gets_an_absolute_path_of_the_configuration(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    env = project_env(ROOT, {CONFIG_ENV: "night.toml", "PATH": "/bin"})
    assert env[CONFIG_ENV] == str(tmp_path / "night.toml")
    assert env[HOME_ENV] == str(ROOT)
