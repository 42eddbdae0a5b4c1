from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pgsteward import config as configuration
from pgsteward import state
from pgsteward.backup import upload
from pgsteward.cli import app
from pgsteward.databases import locate
from pgsteward.errors import ConfigError, PartialFailure, QueryFailed
from pgsteward.prefect_project import as_result
from pgsteward.results import Item, NightResult, Note, StepResult, skipped
from pgsteward.targets import load_target

COMMANDS = [
    "nightly",
    "report",
    "backup",
    "backups",
    "verify",
    "upload",
    "prune",
    "receipts",
    "restore",
    "restore-table",
    "undo-restore",
    "drill",
    "janitor",
    "sessions",
    "vacuum",
    "bloat",
    "reindex",
    "indexes",
    "analyze",
    "matviews",
    "init",
    "doctor",
    "accept-store",
    "demo",
    "validate",
    "deploy",
    "up",
]
HEAVY = ("prefect", "boto3", "psycopg", "sqlalchemy", "alembic", "pydantic_settings", "pydantic", "rich")

run = CliRunner()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Two targets whose server nobody listens at."""
    file = tmp_path / "pgsteward.toml"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    write_config(file, port)
    return file


def write_config(file: Path, port: int, targets: tuple[str, ...] = ("app", "shop")) -> None:
    text = f'state_url = "sqlite:///state.db"\n[stores.disk]\nurl = "file://{file.parent}/store"\n'
    for name in targets:
        text += (
            f'[targets.{name}]\nconninfo = "host=127.0.0.1 port={port} dbname={name} user=x"\n'
            'stores = ["disk"]\n[[targets.%s.sessions]]\ntable = "t"\nexpires = "e"\n' % name
        )
    file.write_text(text)


def call(config: Path, *args: str) -> tuple[int, str, str]:
    result = run.invoke(app, ["--config", str(config), *args])
    return result.exit_code, result.stdout, result.stderr


def test_every_command_is_listed_and_nothing_else() -> None:
    shown = [command.name or command.callback.__name__ for command in app.registered_commands]  # type: ignore[union-attr]
    assert sorted(shown) == sorted(COMMANDS)
    text = run.invoke(app, ["--help"]).stdout
    assert all(f" {command} " in text for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    result = run.invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.stdout


def test_the_command_line_starts_without_anything_heavy() -> None:
    code = f"import sys, pgsteward.cli; print([m for m in {HEAVY} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_backup_into_a_folder_needs_nothing_heavy() -> None:
    code = (
        "import sys, pgsteward.cli, pgsteward.several, pgsteward.backup.run, pgsteward.state\n"
        "import pgsteward.config, pgsteward.targets, pgsteward.storage.folder\n"
        "heavy = ['prefect', 'boto3', 'botocore', 'sqlalchemy', 'alembic', 'rich', 'tenacity', 'jinja2']\n"
        "heavy += ['pgsteward.' + name for name in ('backup.upload', 'restore.fetch', 'retention')]\n"
        "print([module for module in heavy if module in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_version_is_printed() -> None:
    result = run.invoke(app, ["--version"])
    assert result.exit_code == 0
    assert result.stdout.strip()


def test_without_a_configuration_the_status_is_2(tmp_path: Path) -> None:
    status, out, err = call(tmp_path / "none.toml", "sessions")
    assert status == 2
    assert out == ""
    assert "pgsteward init" in err


def test_an_unknown_key_is_named_with_its_file(config: Path) -> None:
    config.write_text(config.read_text() + "[targets.app.backup]\njobz = 3\n")
    status, _, err = call(config, "bloat", "app")
    assert status == 2
    assert "targets.app.backup.jobz: unknown key; did you mean 'jobs'?" in " ".join(err.split())


def test_a_target_must_be_named_where_there_are_several(config: Path) -> None:
    status, _, err = call(config, "analyze")
    assert status == 2
    assert "say which target: app, shop" in err


def test_the_only_target_need_not_be_named(config: Path) -> None:
    write_config(config, 1, ("app",))
    status, out, _ = call(config, "analyze", "--json")
    assert status == 1
    assert json.loads(out)["target"] == "app"


@pytest.mark.parametrize("command", ["sessions", "bloat", "reindex", "backup"])
def test_an_unreachable_server_is_a_sentence_and_status_1(config: Path, command: str) -> None:
    status, out, err = call(config, command, "app")
    assert status == 1
    assert out == ""
    assert "Error: no connection to database 'app'" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("command", ["sessions", "bloat", "reindex", "backup"])
def test_json_is_exactly_one_object_also_when_it_failed(config: Path, command: str) -> None:
    status, out, _ = call(config, command, "app", "--json")
    data = json.loads(out)
    assert status == 1
    assert data["step"] == command
    assert data["target"] == "app"
    assert data["status"] == "failed"
    assert data["error"] == "DatabaseUnavailable"
    assert data["failed"][0]["reason"].startswith("no connection")


def test_json_is_one_object_also_for_a_wrong_configuration(config: Path) -> None:
    status, out, _ = call(config, "sessions", "aap", "--json")
    assert status == 2
    assert json.loads(out)["error"] == "ConfigError"


KEYS = {"step", "target", "status", "examined", "changed", "skipped", "unknown", "seconds"}


@pytest.mark.parametrize("command", [*(name for name in COMMANDS if name not in ("demo", "up"))])
def test_json_is_one_object_for_every_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("PGSTEWARD_HOME", str(tmp_path))  # no prefect.yaml in there
    status, out, _ = call(tmp_path / "nowhere.toml", command, "--json")
    data = json.loads(out)
    assert status == 2
    assert set(data) >= KEYS
    assert (data["step"], data["status"]) == (command, "failed")


def test_a_check_of_prefect_yaml_has_the_shape_of_every_other_result() -> None:
    said = {
        "ok": False,
        "file": "/p/prefect.yaml",
        "deployments": 14,
        "findings": [
            {"where": "deployments.nightly.cron", "problem": "five fields", "level": "error"},
            {"where": "deployments.nightly.active", "problem": "leave it out", "level": "hint"},
        ],
    }
    data = as_result("validate", json.dumps(said), 1).as_json()
    assert set(data) >= KEYS
    assert (data["status"], data["examined"], data["file"]) == ("failed", 14, "/p/prefect.yaml")
    assert data["failed"] == [{"object": "deployments.nightly.cron", "reason": "five fields"}]
    assert data["findings"] == [{"object": "deployments.nightly.active", "reason": "leave it out"}]

    data = as_result("deploy", "", 1).as_json()
    assert (data["status"], data["examined"]) == ("failed", 0)
    assert "standard error" in data["failed"][0]["reason"]

    deployed = {"server": "http://s", "pools_created": ["p"], "deployed": ["a/a", "b/b"]}
    data = as_result("deploy", json.dumps(deployed), 0).as_json()
    assert (data["status"], data["examined"], len(data["changed"])) == ("ok", 2, 3)


@pytest.mark.parametrize(
    "args, words",
    [
        (["restore", "app", "--replace"], "--confirm-database app"),
        (["restore", "app", "--replace", "--confirm-database", "other"], "'other' was given"),
        (["restore", "app", "tonight"], "'tonight' is not a backup"),
        (["verify", "app", "20261123"], "'20261123' is not a backup"),
    ],
)
def test_what_can_only_be_a_slip_is_status_2_before_anything_is_asked(
    config: Path, args: list[str], words: str
) -> None:
    status, out, _ = call(config, *args, "--json")
    assert status == 2
    assert words in json.loads(out)["summary"]


@pytest.mark.parametrize(
    "args",
    [
        pytest.param(["restore", "app", "--replace", "--into", "x"], id="into-and-replace"),
        pytest.param(["nonsense"], id="command"),
        pytest.param(["sessions", "app", "--execute"], id="option"),
        pytest.param(["restore", "app", "--confirm-database", "app"], id="confirmation-without-replace"),
        pytest.param(["report", "app", "--format", "pdf"], id="choice"),
    ],
)
def test_misuse_is_status_2(config: Path, args: list[str]) -> None:
    assert call(config, *args)[0] == 2


def outcome(monkeypatch: pytest.MonkeyPatch, result: StepResult | Exception) -> None:
    def operation(target: object, **_: object) -> StepResult:
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr("pgsteward.sessions.clean_sessions", operation)


@pytest.mark.parametrize(
    "status, code", [("ok", 0), ("skipped", 0), ("failed", 1), ("partial", 3), ("unknown", 3)]
)
def test_the_status_decides_the_exit_status(
    config: Path, monkeypatch: pytest.MonkeyPatch, status: Any, code: int
) -> None:
    outcome(monkeypatch, StepResult("sessions", "app", status, 1, summary="sum"))
    found, out, _ = call(config, "sessions", "app")
    assert found == code
    assert out.startswith(status.upper())


def test_skipped_unknown_and_failed_are_printed_with_their_reasons(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = StepResult(
        "sessions",
        "app",
        "partial",
        3,
        changed=(Item('public."Order Lines"', "deleted", {"rows": 1234, "bytes_before": 5_000_000}),),
        skipped=(Note("a", "not now"),),
        unknown=(Note("b", "no right"),),
        failed=(Note("c", "locked"),),
    )
    outcome(monkeypatch, result)
    _, out, _ = call(config, "sessions", "app")
    for words in ("1,234", "5.00 MB", "skipped: a: not now", "unknown: b: no right", "failed: c: locked"):
        assert words in out


def test_what_changed_something_is_in_the_history(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome(monkeypatch, StepResult("sessions", "app", "ok", 1))
    call(config, "sessions", "app")
    outcome(monkeypatch, QueryFailed("no", "42501"))
    call(config, "sessions", "app")
    outcome(monkeypatch, StepResult("sessions", "app", "ok", 1, dry_run=True))
    call(config, "sessions", "app", "--dry-run")
    for odd in (QueryFailed("no", "42501"), skipped("sessions", "app", "no table is configured")):
        outcome(monkeypatch, odd)
        assert json.loads(call(config, "sessions", "app", "--dry-run", "--json")[1])["dry_run"]
    outcome(monkeypatch, ConfigError("no such table"))
    call(config, "sessions", "app")
    with state.open_history(configuration.load(config)) as history:
        assert [(run.status, run.database) for run in history.recent("app")] == [
            ("failed", "app"),
            ("ok", "app"),
        ]


def test_a_history_that_fails_changes_no_exit_status(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (config.parent / "state.db").mkdir()
    outcome(monkeypatch, StepResult("sessions", "app", "ok", 1))
    status, out, err = call(config, "sessions", "app", "--json")
    assert status == 0
    assert json.loads(out)["status"] == "ok"
    assert "missing from the history" in err


def test_a_result_is_printed_before_the_history_is_waited_for(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(state, "remember", stopped)
    outcome(monkeypatch, StepResult("sessions", "app", "ok", 1))
    assert json.loads(call(config, "sessions", "app", "--json")[1])["status"] == "ok"


def test_a_partial_failure_prints_the_report_that_it_carries(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = StepResult("sessions", "app", "partial", 2, failed=(Note("t", "locked"),))
    outcome(monkeypatch, PartialFailure("1 of 2 failed", report))
    status, out, _ = call(config, "sessions", "app")
    assert status == 3
    assert "locked" in out


def test_an_unexpected_error_is_still_one_object(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome(monkeypatch, ZeroDivisionError("a bug"))
    status, out, err = call(config, "sessions", "app", "--json")
    assert status == 1
    assert json.loads(out)["error"] == "ZeroDivisionError"
    assert "please report it" in err


def test_without_a_night_the_report_is_unknown(config: Path) -> None:
    status, out, _ = call(config, "report", "app")
    assert status == 3
    assert "no night is in the history" in out
    status, out, _ = call(config, "report", "app", "--json")
    assert json.loads(out)["status"] == "unknown"


def test_the_report_is_of_the_last_night(config: Path) -> None:
    steps = (StepResult("backup", "app", "failed", 0, failed=(Note("app", "disk full"),)),)
    night = NightResult("app", "app", datetime(2026, 11, 23, 2, tzinfo=UTC), 3.0, steps)
    assert state.remember(configuration.load(config), night)
    assert "backup failed: app: disk full" in call(config, "report", "app")[1]
    assert call(config, "report", "app", "--format", "markdown")[1].startswith("# ❌")
    status, out, _ = call(config, "report", "app", "--json")
    assert status == 0
    assert json.loads(out) == night.as_json()


@pytest.mark.parametrize(
    "args, seen",
    [
        (["app", "latest"], "latest"),
        (["app", "20261123T020000Z-7f3a9c"], "20261123T020000Z-7f3a9c"),
        (["app"], "latest"),
        (["20261123T020000Z-7f3a9c"], "20261123T020000Z-7f3a9c"),
        (["latest"], "latest"),
    ],
)
def test_a_lone_backup_needs_no_target(
    config: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], seen: str
) -> None:
    write_config(config, 1, ("app",))

    def verify(target: Any, backup_id: str, **_: object) -> StepResult:
        return StepResult("verify", target.name, "ok", 1, summary=backup_id)

    monkeypatch.setattr("pgsteward.backup.catalog.verify", verify)
    status, out, _ = call(config, "verify", *args, "--json")
    assert status == 0
    assert json.loads(out)["summary"] == seen


@pytest.mark.parametrize(
    "args, seen",
    [(["latest"], None), (["20261123T020000Z-7f3a9c"], "20261123T020000Z-7f3a9c"), ([], None)],
)
def test_upload_takes_latest_for_the_newest(
    config: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], seen: str | None
) -> None:
    def copy(target: Any, *, backup_id: str | None, **_: object) -> StepResult:
        return StepResult("upload", target.name, "ok", 1, details={"seen": backup_id})

    monkeypatch.setattr(upload, "upload", copy)
    status, out, _ = call(config, "upload", "app", *args, "--json")
    assert (status, json.loads(out)["seen"]) == (0, seen)


def test_what_is_no_backup_is_not_uploaded(config: Path) -> None:
    status, out, _ = call(config, "upload", "app", "yesterday", "--json")
    assert status == 2
    assert "'yesterday' is not a backup" in json.loads(out)["summary"]
    with pytest.raises(ConfigError, match="is not a backup"):
        locate(load_target("app", config), "yesterday")  # what the flow's task asks


@pytest.fixture
def silent_server(tmp_path: Path) -> Iterator[Path]:
    """A configuration whose server takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        file = tmp_path / "pgsteward.toml"
        write_config(file, listener.getsockname()[1], ("app",))
        yield file


def from_a_terminal() -> None:
    """Undo what nohup and background jobs of a shell leave ignored."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_ends_the_operation_in_good_order(
    silent_server: Path, number: signal.Signals, code: int
) -> None:
    argv = [sys.executable, "-m", "pgsteward.cli", "--config", str(silent_server), "sessions", "--json"]
    with subprocess.Popen(
        argv,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=from_a_terminal,
    ) as child:
        wait_for(lambda: connected(child.pid))
        child.send_signal(number)
        out, err = child.communicate(timeout=60)
    assert child.returncode == code, err
    assert "Traceback" not in err
    data = json.loads(out)
    assert data["status"] == "failed"
    assert data["summary"] == f"stopped by {number.name}"


def wait_for(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def connected(pid: int) -> bool:
    """Whether a process has a socket open."""
    folder = f"/proc/{pid}/fd"
    links = []
    for entry in os.listdir(folder):
        try:
            links.append(os.readlink(f"{folder}/{entry}"))
        except OSError:
            continue
    return any(link.startswith("socket:") for link in links)
