"""``backup``, ``backups`` and ``verify`` as the real command prints them, with their exit statuses."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pgsteward.backup.catalog import backups
from pgsteward.backup.manifest import MANIFEST, backup_prefix
from pgsteward.backup.receipts import Compared, Receipt, write_receipt
from pgsteward.targets import Target
from tests.integration.backup_targets import make_target, sealed
from tests.servers import Database
from tests.terminal import run_on_a_terminal

pytestmark = pytest.mark.any_server

PAGE = Path(__file__).parents[2] / "docs" / "json.md"
PASSWORD_ENV = "PGSTEWARD_TEST_PASSWORD"


@dataclass(frozen=True, slots=True)
class Shell:
    """The command line with a configuration for one database."""

    database: Database
    folder: Path

    def write(self, *more: str, stores: str = '["disk"]') -> None:
        clients = self.database.server.bin_dir
        (self.folder / "pgsteward.toml").write_text(
            f"""
state_url = "sqlite:///state.db"
[stores.disk]
url = "file://{self.folder}/store"
[stores.far]
url = "file:///proc/no-folder-can-be-made-here"
[targets.app]
conninfo = "{self.database.conninfo}"
password = {{ env = "{PASSWORD_ENV}" }}
stores = {stores}
{f'client_dirs = ["{clients}"]' if clients else ""}
[targets.app.backup]
compress = "none"
{chr(10).join(more)}
"""
        )

    def argv(self, *args: str) -> list[str]:
        return [sys.executable, "-m", "pgsteward.cli", "-c", str(self.folder / "pgsteward.toml"), *args]

    @property
    def env(self) -> dict[str, str]:
        own = {PASSWORD_ENV: self.database.password or "", "XDG_STATE_HOME": str(self.folder / "state")}
        return {**os.environ, **own}

    def call(self, *args: str) -> tuple[int, dict[str, Any]]:
        done = subprocess.run(
            self.argv(*args, "--json"), env=self.env, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    def status(self, *args: str) -> int:
        argv = self.argv(*args)
        return subprocess.run(argv, env=self.env, capture_output=True, timeout=120, check=False).returncode

    def shown(self, *args: str, columns: int) -> list[str]:
        """Return the lines that a terminal of so many columns shows."""
        _, shown = run_on_a_terminal(self.argv(*args), columns=columns, env=self.env, progress=False)
        return shown.splitlines()

    @property
    def target(self) -> Target:
        return make_target(self.database, self.folder)

    def backup_folder(self, backup_id: str) -> Path:
        return self.folder / "store" / backup_prefix("app", self.database.name, backup_id)


@pytest.fixture
def shell(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    database.execute('CREATE TABLE "Order Lines" AS SELECT generate_series(1, 1000) AS a')
    made = Shell(database, tmp_path)
    made.write()
    return made


def documented(title: str) -> set[str]:
    """Return the keys that a section of the page on JSON names."""
    match = re.search(
        rf"^##+ {re.escape(title)}\n(.*?)(?=^##|\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    assert match, f"docs/json.md has no section {title!r}"
    first_cells = re.findall(r"^\| (`.*?) \|", match[1], re.MULTILINE)
    return {key for cell in first_cells for key in re.findall(r"`(\w+)`", cell)}


def test_a_list_tells_age_proof_restores_and_why_each_backup_is_kept(shell: Shell) -> None:
    status, made = shell.call("backup")
    assert (status, made["status"]) == (0, "ok")
    assert set(made) == documented("Every command") | documented("`backup`")
    backup_id = made["backup_id"]

    status, planned = shell.call("backup", "--dry-run")
    assert (status, planned["dry_run"]) == (0, True)
    assert set(planned) == documented("Every command") | documented("`backup --dry-run`")

    status, listed = shell.call("backups")
    assert (status, listed["status"]) == (0, "ok")
    assert set(listed) == documented("Every command") | documented("`backups`")
    (entry,) = listed["backups"]
    assert set(entry) == documented("Each of `backups`")
    assert (entry["backup_id"], entry["state"], entry["last_restore"]) == (backup_id, "complete", None)
    assert 0 <= entry["age_seconds"] < 3600
    _, pruned = shell.call("prune", "--dry-run")
    decided = [{key: d[key] for key in ("store", "keep", "reasons")} for d in pruned["decisions"]]
    assert entry["kept"] == decided, "what prune would say"

    name = f"{shell.database.name}_back"
    try:
        assert shell.call("restore", "--into", name)[0] == 0
    finally:
        shell.database.server.drop(name)
    (entry,) = shell.call("backups")[1]["backups"]
    assert entry["state"] == "proven"
    assert set(entry["last_restore"]) == documented("`last_restore`")
    assert (entry["last_restore"]["verdict"], entry["last_restore"]["into"]) == ("green", name)
    assert "newest proven" in entry["kept"][0]["reasons"]

    status, verified = shell.call("verify", backup_id)
    assert (status, verified["status"]) == (0, "ok")
    assert set(verified) == documented("Every command") | documented("`verify`")


def test_partial_and_damaged_ones_are_named_and_never_ok(shell: Shell) -> None:
    whole = shell.call("backup")[1]["backup_id"]
    shell.write("exclude_table_data = ['public.\"Order Lines\"']")
    status, made = shell.call("backup")
    assert status == 0
    part = made["backup_id"]
    _, listed = shell.call("backups")
    entries = {entry["backup_id"]: entry for entry in listed["backups"]}
    assert entries[whole]["partial"] == []
    assert entries[part]["partial"] == made["partial"] != []
    assert "keep_min" in str(entries[whole]["kept"]), "each kind is counted by itself"

    next((shell.backup_folder(whole) / "dump").glob("[0-9]*.dat")).unlink()
    status, listed = shell.call("backups")
    assert (status, listed["status"]) == (3, "partial")
    damaged = next(entry for entry in listed["backups"] if entry["backup_id"] == whole)
    assert (damaged["state"], damaged["stores"], damaged["damaged_in"]) == ("damaged", [], ["disk"])
    assert damaged["kept"] == []
    assert f"{whole} in disk" in [note["object"] for note in listed["unknown"]]

    manifest = shell.backup_folder(part) / MANIFEST
    manifest.write_bytes(manifest.read_bytes()[:99])
    status, listed = shell.call("backups")
    assert status == 3
    assert {f"{whole} in disk", f"{part} in disk"} == {note["object"] for note in listed["unknown"]}
    assert [note["reason"] for note in listed["findings"]] == ["there is no complete backup of it"]


def test_a_terminal_shows_one_line_a_backup_and_every_id_whole(shell: Shell) -> None:
    backup_id = shell.call("backup")[1]["backup_id"]
    for columns in (100, 160):
        lines = shell.shown("backups", columns=columns)
        assert max(map(len, lines)) <= columns
        (row,) = [line for line in lines if backup_id in line]
        assert all(word in row for word in (" full ", " never ", " disk "))
        assert "kept because" in "".join(lines)
    assert "daily 1/7" in row, "where there is room, the reasons are on the same line"


def test_a_backup_whose_restore_was_not_equal_is_a_finding(shell: Shell) -> None:
    backup_id = shell.call("backup")[1]["backup_id"]
    target = shell.target
    for verdict in ("green", "red"):
        write_receipt(
            target.store("disk"),
            Receipt(
                previous_sha256=None,
                written_at=datetime.now(UTC),
                backup_id=backup_id,
                target="app",
                database=target.database,
                store="disk",
                what="drill",
                into="x",
                server_version="17.1",
                pgsteward_version="0",
                proof=Compared(level="full", relations=1, rows=999, equal=verdict == "green"),
                differences=() if verdict == "green" else ('public."Order Lines": 999 rows, not 1000',),
                verdict="green" if verdict == "green" else "red",
            ),
        )
    status, listed = shell.call("backups")
    assert (status, listed["status"]) == (3, "partial")
    assert listed["backups"][0]["state"] == "differs"
    assert listed["backups"][0]["last_restore"]["what"] == "drill"
    assert "999 rows, not 1000" in listed["findings"][0]["reason"]
    assert any("red" in line and "(drill)" in line for line in shell.shown("backups", columns=160))


def test_a_backup_with_a_future_date_is_kept_and_its_age_is_negative(shell: Shell) -> None:
    backup_id = shell.call("backup")[1]["backup_id"]
    stored = (shell.backup_folder(backup_id) / MANIFEST).read_bytes()
    (shell.backup_folder(backup_id) / MANIFEST).write_bytes(sealed(stored, started_at="2999-01-01T00:00:00Z"))
    (entry,) = backups(shell.target).details["backups"]
    assert entry["age_seconds"] < 0
    assert entry["kept"][0]["reasons"] == ["dated in the future"]


def test_the_exit_status_says_how_it_went(shell: Shell) -> None:
    assert shell.status("backups") == 3, "there is no backup at all"
    assert shell.status("verify") == 1, "and so none to verify"
    assert shell.status("backup") == 0
    assert shell.status("backups") == shell.status("verify") == 0
    assert shell.status("verify", "latest", "--from", "nowhere") == 2
    assert shell.status("verify", "yesterday") == shell.status("backup", "aap") == 2
    assert shell.status("backups", "--nonsense") == 2

    shell.write(stores='["disk", "far"]')
    status, made = shell.call("backup")
    assert (status, made["status"], made["stores"]) == (3, "partial", ["disk"])
    assert [note["object"] for note in made["failed"]] == ["upload to far"]
    status, listed = shell.call("backups")
    assert (status, listed["backups"][0]["stores"]) == (0, ["disk"])

    (shell.backup_folder(made["backup_id"]) / "RESTORE.md").write_text("rm -rf /")
    assert shell.status("verify") == 1
    shell.write('tables = ["public.nothing"]')
    status, failed = shell.call("backup")
    assert (status, failed["status"], failed["error"]) == (1, "failed", "PreconditionError")
    assert set(failed) == documented("Every command") | {"error"}
