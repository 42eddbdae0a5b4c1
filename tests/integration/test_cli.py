"""The command line against a real database: a whole night, and a backup that is told to stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.servers import Database

pytestmark = pytest.mark.any_server

PASSWORD_ENV = "PGSTEWARD_TEST_PASSWORD"
OURS = (
    "SELECT application_name::text AS name FROM pg_stat_activity"
    " WHERE datname = current_database() AND application_name LIKE 'pgsteward%' AND pid <> pg_backend_pid()"
    "   AND application_name <> 'pgsteward test'"
)


@pytest.fixture
def config(sample_database: Database, tmp_path: Path) -> Path:
    clients = f'client_dirs = ["{sample_database.server.bin_dir}"]' if sample_database.server.bin_dir else ""
    file = tmp_path / "pgsteward.toml"
    file.write_text(
        f"""
state_url = "sqlite:///state.db"
[stores.disk]
url = "file://{tmp_path}/store"
[targets.app]
conninfo = "{sample_database.conninfo}"
password = {{ env = "{PASSWORD_ENV}" }}
stores = ["disk"]
{clients}
[[targets.app.sessions]]
table = "public.sessions"
expires = "expires"
[targets.app.index_bloat]
min_reclaimable = "100kB"
"""
    )
    return file


def start(config: Path, database: Database, *args: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "pgsteward.cli", "--config", str(config), *args]
    env = {**os.environ, PASSWORD_ENV: database.password or ""}
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


def call(config: Path, database: Database, *args: str) -> tuple[int, dict[str, Any]]:
    with start(config, database, *args, "--json") as child:
        out, err = child.communicate(timeout=120)
    assert (database.password or "?") not in out + err
    assert out, err
    return child.returncode, json.loads(out)


def wait_for(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_a_night_from_the_shell_and_its_report_in_the_morning(
    config: Path, sample_database: Database
) -> None:
    status, night = call(config, sample_database, "nightly")
    steps = {step["step"]: step for step in night["steps"]}
    assert night["failed"] == []
    assert status == (0 if night["status"] == "ok" else 3)
    assert steps["backup"]["status"] == "ok"
    assert steps["sessions"]["changed"][0]["rows"] > 0

    status, report = call(config, sample_database, "report")
    assert status == 0
    assert report["steps"] == night["steps"]

    status, listed = call(config, sample_database, "backups")
    assert [backup["backup_id"] for backup in listed["backups"]] == [steps["backup"]["backup_id"]]
    assert call(config, sample_database, "verify", steps["backup"]["backup_id"], "--from", "disk")[0] == 0


def test_a_dry_run_changes_nothing_and_is_no_history(config: Path, sample_database: Database) -> None:
    before = sample_database.value("SELECT count(*) FROM public.sessions")
    _, night = call(config, sample_database, "nightly", "--dry-run")
    assert night["dry_run"]
    assert night["failed"] == []
    steps = {step["step"]: step["status"] for step in night["steps"]}
    assert steps["prune"] == "skipped", "nothing can be pruned before there is a backup"
    assert sample_database.value("SELECT count(*) FROM public.sessions") == before
    assert [path for path in (config.parent / "store").rglob("*") if path.is_file()] == []
    status, report = call(config, sample_database, "report")
    assert (status, report["status"]) == (3, "unknown")


def test_a_backup_comes_back_under_another_name(config: Path, sample_database: Database) -> None:
    assert call(config, sample_database, "backup")[0] == 0
    name = f"{sample_database.name}_back"
    try:
        _, result = call(config, sample_database, "restore", "latest", "--from", "disk", "--into", name)
        assert result["failed"] == []
        with sample_database.server.connect(name) as connection:
            assert connection.value("SELECT count(*) FROM public.jobs") == sample_database.value(
                "SELECT count(*) FROM public.jobs"
            )
    finally:
        sample_database.server.drop(name)


def test_a_replacement_wants_the_databases_name(config: Path, sample_database: Database) -> None:
    assert call(config, sample_database, "backup")[0] == 0
    for confirmation in ([], ["--confirm-database", "another"]):
        status, result = call(config, sample_database, "restore", "--replace", *confirmation)
        assert status == 2
        assert result["error"] == "ConfigError"
        assert f"--confirm-database {sample_database.name}" in result["summary"]


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_backup_that_is_told_to_stop_leaves_nothing(
    config: Path, sample_database: Database, number: signal.Signals, code: int
) -> None:
    with sample_database.connect(autocommit=False) as holder:
        holder.execute("LOCK TABLE public.jobs IN ACCESS EXCLUSIVE MODE")
        with start(config, sample_database, "backup", "--json") as child:
            wait_for(
                lambda: bool(
                    holder.value(
                        "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND locktype = 'relation')"
                    )
                )
            )
            told = time.monotonic()
            child.send_signal(number)
            out, err = child.communicate(timeout=60)
        assert time.monotonic() - told < 10
        assert child.returncode == code, err
        assert json.loads(out)["summary"] == f"stopped by {number.name}"
        wait_for(lambda: sample_database.rows(OURS) == [])
    assert [path for path in (config.parent / "store").rglob("*") if path.is_file()] == []


def test_a_shell_deletes_only_what_is_listed_and_over(config: Path, sample_database: Database) -> None:
    status, found = call(config, sample_database, "sessions", "app", "--table", "public.users")
    assert (status, found["error"]) == (2, "ConfigError")
    status, found = call(config, sample_database, "sessions", "app", "--before", "2999-01-01T00:00Z")
    assert status == 1
    assert "lies in the future" in found["summary"]
    config.write_text(
        config.read_text().replace('expires = "expires"', 'expires = "expires"\nmax_share = 0.1')
    )
    status, found = call(config, sample_database, "sessions", "app")
    assert (status, found["rows"]) == (1, 0)
    status, found = call(config, sample_database, "sessions", "app", "--yes", "--table", "sessions")
    assert (status, found["status"]) == (0, "ok")
    assert found["rows"] > 0
    status, found = call(config, sample_database, "vacuum", "app", "--dry-run")
    assert "public.sessions" in {item["object"] for item in found["changed"]}
    assert all(item["action"] == "would vacuum" for item in found["changed"])
