"""Several databases of one server: which ones, side by side, and one result."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from pgsteward import databases, several
from pgsteward.analyze import analyze_stale
from pgsteward.backup.dump import back_up
from pgsteward.backup.manifest import catalog_prefix
from pgsteward.config import Config
from pgsteward.doctor_database import check_databases
from pgsteward.errors import ConfigError, PreconditionError
from pgsteward.index_audit import audit
from pgsteward.night import newest_backup, run_nightly
from pgsteward.postgres import Login, compose, connect, identifier, literal
from pgsteward.results import Note
from pgsteward.sessions import clean_sessions
from pgsteward.targets import Target
from pgsteward.vacuum import vacuum_tables
from tests.integration.backup_targets import make_target, nothing_left
from tests.servers import Database, Server

pytestmark = pytest.mark.any_server

ROLE, PASSWORD = "Fleet Backup", "fleet-in-a-test"
NAMES = ("Order Lines", "a=b 'c'", "prod", "prod-eu")
OTHERS = ("pgsteward_*", "test_*", "postgres", "nobodys")
"""Databases of other tests, and a pattern that matches nothing."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """A server with databases of odd names, and a role that can read them."""

    server: Server
    login: Login
    folder: Path
    made: list[str] = field(default_factory=list)

    def make(self, name: str, template: str = "template0") -> Database:
        self.server.create(name, template)
        self.made.append(name)
        return Database(self.server, name)

    def execute(self, statement: str, *names: str) -> None:
        with self.server.connect() as session:
            session.execute(compose(statement, *map(identifier, names)))

    def target(self, login: Login | None = None, **settings: Any) -> Target:
        return make_target(
            Database(self.server, "postgres"), self.folder, login=login or self.login, **settings
        )

    def write_config(self, **entry: Any) -> Path:
        lines = [f"{key} = {json.dumps(value)}" for key, value in entry.items()]
        if self.server.bin_dir:
            lines.append(f'client_dirs = ["{self.server.bin_dir}"]')
        file = self.folder / "pgsteward.toml"
        file.write_text(
            f'state_url = "sqlite:///state.db"\n[stores.disk]\nurl = "file://{self.folder}/store"\n'
            f'[targets.app]\nconninfo = "{self.login.conninfo}"\npassword = {{ env = "FLEET_PASSWORD" }}\n'
            'stores = ["disk"]\n' + "\n".join(lines) + "\n"
        )
        return file

    def start(self, *args: str) -> subprocess.Popen[str]:
        argv = [sys.executable, "-m", "pgsteward.cli", "-c", str(self.folder / "pgsteward.toml"), *args]
        env = {**os.environ, "FLEET_PASSWORD": self.login.password or ""}
        return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)

    def call(self, *args: str) -> tuple[int, dict[str, Any]]:
        with self.start(*args, "--json") as child:
            out, err = child.communicate(timeout=120)
        assert PASSWORD not in out + err
        return child.returncode, json.loads(out)


@pytest.fixture
def fleet(server: Server, tmp_path: Path) -> Iterator[Fleet]:
    with server.connect() as session:
        session.execute(compose("CREATE ROLE {} LOGIN PASSWORD {}", identifier(ROLE), literal(PASSWORD)))
        session.execute(compose("GRANT pg_read_all_data TO {}", identifier(ROLE)))
    conninfo = connection_of(server.login.conninfo)
    made = Fleet(server, Login(conninfo, PASSWORD), tmp_path)
    try:
        for name in NAMES:
            made.make(name).execute(
                "CREATE TABLE t AS SELECT n, n::text AS v FROM generate_series(1, 50) AS n"
            )
        yield made
    finally:
        with ExitStack() as stack:
            stack.callback(made.execute, "DROP ROLE {}", ROLE)
            for name in made.made:
                stack.callback(server.drop, name)


def connection_of(conninfo: str) -> str:
    from psycopg.conninfo import make_conninfo

    return make_conninfo(conninfo, user=ROLE, dbname="postgres")


def notes(found: list[dict[str, str]]) -> dict[str, str]:
    return {note["object"]: note["reason"] for note in found}


def test_all_of_a_server_are_found_but_for_what_is_said_to_be_left_out(fleet: Fleet) -> None:
    for name in ("closed", "quiet", "pattern_1", "form", "half gone"):
        fleet.make(name)
    fleet.execute("UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'half gone'")  # as a broken DROP
    fleet.execute("REVOKE CONNECT ON DATABASE {} FROM PUBLIC", "closed")
    fleet.execute("ALTER DATABASE {} ALLOW_CONNECTIONS false", "quiet")
    fleet.execute("ALTER DATABASE {} IS_TEMPLATE true", "form")
    try:
        found = databases.find(
            fleet.target(databases="*", exclude_databases=["prod", "patt*", "PROD-EU", *OTHERS])
        )
    finally:
        fleet.execute("ALTER DATABASE {} IS_TEMPLATE false", "form")
    assert found.names == ("Order Lines", "a=b 'c'", "prod-eu")
    assert [note.object for note in found.unknown] == ["closed"]
    assert 'GRANT CONNECT ON DATABASE closed TO "Fleet Backup";' in found.unknown[0].reason
    skipped = {note.object: note.reason for note in found.skipped}
    assert skipped["prod"] == "excluded by 'prod' (exclude_databases)"
    assert skipped["pattern_1"] == "excluded by 'patt*' (exclude_databases)"
    assert skipped["form"] == skipped["template1"] == "a template"
    assert "datallowconn" in skipped["quiet"]
    assert 'DROP DATABASE "half gone" once more' in skipped["half gone"]
    assert skipped["exclude_databases 'nobodys'"] == "matches no database of this server"
    assert skipped["exclude_databases 'PROD-EU'"] == "matches no database of this server"
    assert not {"closed", *found.names} & set(skipped)


def test_each_database_is_a_backup_of_its_own_and_one_failure_stops_no_other(fleet: Fleet) -> None:
    fleet.make("broken").execute("CREATE TABLE hidden (x int); ALTER TABLE hidden ENABLE ROW LEVEL SECURITY")
    fleet.write_config(databases="*", exclude_databases=list(OTHERS))
    status, data = fleet.call("backup", "app")
    assert (status, data["status"]) == (3, "partial")
    entries = {entry["database"]: entry for entry in data["databases"]}
    assert {name for name, entry in entries.items() if entry["status"] == "ok"} == set(NAMES)
    assert all(entries[name]["backup_id"] and entries[name]["proof"]["rows"] == 50 for name in NAMES)
    assert list(notes(data["failed"])) == ["broken"]
    assert "BYPASSRLS" in notes(data["failed"])["broken"]
    assert "backup_id" not in data
    assert notes(data["skipped"])["postgres"] == "excluded by 'postgres' (exclude_databases)"
    for name in NAMES:
        folder = fleet.folder / "store" / catalog_prefix("app", name)
        assert [path.name for path in folder.iterdir()] == [entries[name]["backup_id"]]
    assert not list((fleet.folder / "store" / catalog_prefix("app", "broken")).glob("*/manifest.json"))

    status, data = fleet.call("backups", "app")
    assert {entry["database"] for entry in data["backups"]} == set(NAMES)
    status, data = fleet.call("verify", "app", entries["prod"]["backup_id"])
    assert (status, data["changed"][0]["action"]) == (0, "verified")
    status, data = fleet.call("verify", "app")
    assert (status, len(data["changed"])) == (3, len(NAMES))
    assert notes(data["failed"]) == {"broken": "has no backup in any store"}
    status, data = fleet.call("restore", "app", "--dry-run")
    assert status == 2
    assert "--database NAME" in data["summary"]
    assert "Order Lines" in data["summary"]

    status, data = fleet.call("backup", "app", "--database", "prod")
    assert (status, data["status"]) == (0, "ok")
    assert data["backup_id"]
    assert "databases" not in data
    status, data = fleet.call("backup", "app", "--database", "postgres")
    assert status == 2
    assert "exclude_databases has 'postgres'" in data["summary"]


def test_all_failed_is_status_1_and_a_database_that_is_gone_is_named(fleet: Fleet) -> None:
    fleet.write_config(databases=["no such", "nor this"])
    status, data = fleet.call("backup", "app")
    assert (status, data["status"]) == (1, "failed")
    assert all("no database of this name" in reason for reason in notes(data["failed"]).values())
    assert list(notes(data["failed"])) == ["no such", "nor this"]
    assert nothing_left(fleet.target())


def test_several_run_side_by_side_within_jobs(fleet: Fleet) -> None:
    """Dumps that wait for a lock show how many there are at once; each has one worker."""
    fleet.write_config(databases=list(NAMES), **{"backup.jobs": 2})
    with ExitStack() as held:
        for name in NAMES:
            holder = held.enter_context(Database(fleet.server, name).connect(autocommit=False))
            holder.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        child = held.enter_context(fleet.start("backup", "app", "--json"))
        held.callback(child.kill)
        wait_for(lambda: len(at_work(fleet, "pgsteward dump")) == 2)
        time.sleep(1.0)  # a third would have come by now
        assert len(at_work(fleet, "pgsteward dump")) == 2
        child.send_signal(signal.SIGTERM)
        out, err = child.communicate(timeout=60)
    assert child.returncode == 143, err
    assert json.loads(out)["summary"] == "stopped by SIGTERM"
    wait_for(lambda: not at_work(fleet, "pgsteward"))
    assert nothing_left(fleet.target())
    status, data = fleet.call("backup", "app")
    assert (status, [entry["status"] for entry in data["databases"]]) == (0, ["ok"] * len(NAMES))
    assert [entry["database"] for entry in data["databases"]] == list(NAMES)


def at_work(fleet: Fleet, application: str) -> set[str]:
    with fleet.server.connect() as session:
        rows = session.rows(
            "SELECT datname::text AS name FROM pg_stat_activity"
            " WHERE starts_with(application_name, %(application)s) AND datname = ANY (%(names)s)"
            "   AND application_name <> 'pgsteward test'",
            {"application": application, "names": list(NAMES)},
        )
    return {row["name"] for row in rows}


def wait_for(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def test_a_dropped_database_keeps_its_backups_and_is_named(fleet: Fleet) -> None:
    target = fleet.target(
        databases="*", exclude_databases=list(OTHERS), retention={"keep_last": 1, "keep_min": 1}
    )
    fleet.write_config(databases="*", exclude_databases=list(OTHERS))
    status, first = fleet.call("backup", "app")
    assert status == 0, first
    entry = next(entry for entry in first["databases"] if entry["database"] == "prod-eu")
    fleet.server.drop("prod-eu")
    status, data = fleet.call("backups", "app")
    assert notes(data["skipped"])["prod-eu"] == several.GONE
    assert entry["backup_id"] in {each["backup_id"] for each in data["backups"]}
    status, data = fleet.call("prune", "app")
    assert notes(data["skipped"])["prod-eu"] == several.GONE
    assert databases.locate(target, entry["backup_id"]).database == "prod-eu"
    fleet.execute("ALTER ROLE {} SUPERUSER", ROLE)
    status, data = fleet.call("restore", "app", entry["backup_id"], "--into", "back again")
    fleet.made.append("back again")
    assert (status, data["database"]) == (0, "prod-eu"), data
    assert Database(fleet.server, "back again").value("SELECT count(*) FROM t") == 50
    with pytest.raises(PreconditionError, match="no store of target 'app'"):
        databases.locate(target, "20200101T000000Z-aaaaaa")


def test_an_id_that_two_databases_have_asks_which(fleet: Fleet) -> None:
    target = fleet.target(databases=["prod", "prod-eu"])
    store = target.store("disk")
    twice = "20260101T000000Z-aaaaaa"
    for name in ("prod", "prod-eu"):
        store.put_bytes(f"{catalog_prefix('app', name)}{twice}/manifest.json", b"{}")
    with pytest.raises(ConfigError, match="prod, prod-eu; say which: --database NAME"):
        databases.locate(target, twice)
    assert databases.locate(target, twice, database="prod-eu").database == "prod-eu"
    with pytest.raises(ConfigError, match="--database NAME \\(prod, prod-eu\\)"):
        databases.locate(target, "latest")


def test_tables_and_indexes_are_looked_for_where_they_are(fleet: Fleet) -> None:
    own = fleet.server.login
    with connect(own.to("prod"), purpose="test") as session:
        session.execute("CREATE TABLE gone (expires timestamptz); CREATE INDEX here ON gone (expires)")
        session.execute("INSERT INTO gone SELECT now() - interval '1 day' FROM generate_series(1, 7)")
    settings: dict[str, Any] = {
        "databases": ["prod", "Order Lines"],
        "sessions": [{"table": "public.gone", "expires": "expires", "max_share": 1.0}],
        "index_audit": {
            "required": ["here", "nowhere", {"table": "gone", "columns": ["expires"]}],
            "constraints": [{"table": "elsewhere", "check": "true"}],
        },
    }
    target = fleet.target(own, **settings)
    result = several.over(target, "sessions", clean_sessions)
    assert (result.status, [item.object for item in result.changed]) == ("ok", ["prod: public.gone"])
    assert {note.object: note.reason for note in result.skipped}["Order Lines"].startswith("it has none")
    result = several.over(target, "vacuum", vacuum_tables)
    assert [item.object for item in result.changed] == ["prod: public.gone"]
    result = several.over(target, "indexes", audit)
    assert result.only_findings
    assert [note.object for note in result.findings] == ["nowhere", "elsewhere CHECK (true)"]
    assert Note("Order Lines", "there are no indexes in this database") in result.skipped
    with_typo = fleet.target(own, **{**settings, "sessions": [{"table": "public.gnoe", "expires": "e"}]})
    with pytest.raises(
        ConfigError, match=r"none of the databases prod, Order Lines has a table public\.gnoe"
    ):
        several.over(with_typo, "sessions", clean_sessions)


def test_a_night_looks_after_each_and_prunes_none_whose_backup_failed(fleet: Fleet) -> None:
    own = fleet.server.login
    target = fleet.target(own, databases=["prod", "Order Lines", "dropped"], backup={"jobs": 2})
    assert newest_backup(target) is None
    night = run_nightly(target)
    assert night.database == "prod, Order Lines, dropped"
    backup = night.step("backup")
    assert backup.status == "partial"
    assert [note.object for note in backup.failed] == ["dropped"]
    for step in night.steps:
        states = {e["database"]: e["status"] for e in step.details.get("databases", [])}
        if states and step.step not in ("upload",):
            assert states.get("prod") == states.get("Order Lines") != "failed", step
    pruned = {entry["database"]: entry for entry in night.step("prune").details["databases"]}
    assert pruned["dropped"]["status"] == "failed"
    assert pruned["prod"]["status"] == "ok"

    newest = newest_backup(
        replace(target, settings=target.settings.model_copy(update={"databases": ("prod",)}))
    )
    assert newest is not None
    assert newest_backup(target) is not None
    one = run_nightly(target, database="prod")
    assert one.database == "prod"
    assert one.step("backup").details["backup_id"]
    with_closed = several.over(
        target, "prune", lambda bound: pytest.fail("pruned"), grounds={"prod": "backup failed"}
    )
    assert {n.object: n.reason for n in with_closed.skipped}["prod"] == "backup failed"
    assert {n.object: n.reason for n in with_closed.skipped}["Order Lines"] == several.NEW


def test_databases_that_no_target_covers_are_named(fleet: Fleet) -> None:
    one = fleet.target(databases=["prod"])
    entry = one.settings.model_copy(update={"databases": "*", "exclude_databases": ("a=*",)})
    with fleet.server.connect() as session:
        everything = databases.uncovered(one.config, one, session)
        assert {"prod-eu", "Order Lines", "postgres"} <= set(everything)
        assert "prod" not in everything
        both = Config.model_construct(stores={}, targets={"app": one.settings, "rest": entry})
        assert databases.uncovered(both, one, session) == []
        elsewhere = entry.model_copy(update={"conninfo": "host=elsewhere.example dbname=postgres"})
        apart = Config.model_construct(stores={}, targets={"app": one.settings, "rest": elsewhere})
        assert databases.uncovered(apart, one, session) == everything


def test_without_a_server_the_backups_are_still_listed(fleet: Fleet) -> None:
    target = fleet.target(databases="*")
    target.store("disk").put_bytes(f"{catalog_prefix('app', 'prod')}receipts/x", b"")
    deaf = target.settings.model_copy(update={"conninfo": "host=127.0.0.1 port=1 dbname=postgres"})
    from pgsteward.backup.catalog import backups

    result = several.over_stored(replace(target, settings=deaf), "backups", backups)
    assert result.status == "partial"
    assert result.details["databases"][0]["database"] == "prod"
    assert [note.object for note in result.unknown] == ["databases of the server"]


def test_analyze_works_on_each(fleet: Fleet) -> None:
    result = several.over(fleet.target(fleet.server.login, databases=list(NAMES)), "analyze", analyze_stale)
    assert result.status == "ok"
    assert sorted(item.object for item in result.changed) == sorted(f"{name}: public.t" for name in NAMES)


def test_the_doctor_looks_at_each_database_and_names_those_left_out(fleet: Fleet) -> None:
    fleet.make("closed").execute("CREATE TABLE hidden (x int)")
    fleet.execute("REVOKE CONNECT ON DATABASE {} FROM PUBLIC", "closed")
    Database(fleet.server, "prod").execute("ALTER TABLE t ENABLE ROW LEVEL SECURITY")
    checks = {
        check.check: check
        for check in check_databases(fleet.target(databases="*", exclude_databases=list(OTHERS)))
    }
    assert checks["databases"].message.startswith("4 to look after: Order Lines")
    assert checks["prod: backup rights"].status == "fail"
    assert "BYPASSRLS" in checks["prod: backup rights"].fix
    assert checks["prod-eu: backup rights"].status == "ok"
    assert (checks["database closed"].status, checks["database postgres"].status) == ("unknown", "skipped")
    assert "GRANT CONNECT" in checks["database closed"].message
    assert {name.split(": ")[0] for name in checks if name.endswith(": restore rights")} == set(NAMES)


def test_rows_are_left_out_in_those_databases_that_have_their_table(fleet: Fleet) -> None:
    Database(fleet.server, "prod").execute("CREATE TABLE history_1 AS SELECT 1 AS x")
    patterns = {"exclude_table_data": ["*.history*"]}
    fleet.write_config(
        **{"databases": list(NAMES), "backup.exclude_table_data": patterns["exclude_table_data"]}
    )
    status, data = fleet.call("backup", "app")
    assert (status, data["status"], data["failed"]) == (0, "ok", [])
    assert notes(data["skipped"]) == {"prod: public.history_1": "left out without its rows"}
    status, data = fleet.call("backup", "app", "--database", "prod-eu")
    assert (status, data["skipped"]) == (0, [])
    target = fleet.target(databases=list(NAMES), backup=patterns)
    one = databases.bind(target, "prod-eu")  # as a night of one database has it
    assert several.over(one, "backup", back_up).status == "ok"
    checks = [*check_databases(target), *check_databases(one)]
    assert {check.status for check in checks if check.check.endswith("backup rights")} == {"ok"}

    fleet.write_config(**{"databases": list(NAMES), "backup.exclude_table_data": ["*.histori"]})
    status, data = fleet.call("backup", "app")
    assert status == 2
    assert "'*.histori' matches no table of any of the databases Order Lines, " in data["summary"]
