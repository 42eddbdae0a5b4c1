"""Drills on real throwaway servers: what is whole is green, what is planted is named, the rest is unknown."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict
from typer.testing import CliRunner

from pgsteward.backup.catalog import backups
from pgsteward.backup.dump import back_up
from pgsteward.backup.globals_sql import GLOBALS, compress, decompress
from pgsteward.backup.manifest import MANIFEST
from pgsteward.backup.receipt_chain import verify_receipts
from pgsteward.backup.receipts import read_receipts
from pgsteward.backup.upload import upload
from pgsteward.children import Children
from pgsteward.cli import app
from pgsteward.demo import server as embedded
from pgsteward.errors import PreconditionError
from pgsteward.pgtools import run_tool
from pgsteward.postgres import connect
from pgsteward.restore import throwaway
from pgsteward.restore.drill import drill
from pgsteward.restore.drills import drill_in_night
from pgsteward.results import StepResult
from pgsteward.retention import prune
from pgsteward.storage.folder import FolderStore
from pgsteward.targets import Target
from tests.integration.backup_targets import (
    backup_folder,
    make_target,
    own_sessions,
    sealed,
    stored_manifest,
)
from tests.integration.old_backups import as_toml
from tests.integration.test_listing import documented
from tests.servers import Bucket, Database, Server


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def target(database: Database, tmp_path: Path) -> Target:
    fill(database)
    return make_target(
        database, tmp_path, drill={"checks": ['SELECT count(*) = 500 FROM "Odd"."Order Lines"']}
    )


def fill(database: Database) -> None:
    with database.connect() as session:
        for statement in (
            'CREATE SCHEMA "Odd"',
            'CREATE TABLE "Odd"."Order Lines" (id int PRIMARY KEY, what text, kind varchar(9) CHECK (kind IN'
            " ('a', 'b')))",
            "INSERT INTO \"Odd\".\"Order Lines\" SELECT i, 'x' || i, 'a' FROM generate_series(1, 500) AS i",
            "CREATE SEQUENCE public.numbers START 7",
            "SELECT nextval('public.numbers')",
            "CREATE VIEW public.v AS SELECT * FROM \"Odd\".\"Order Lines\" WHERE kind IN ('a', 'b')",
            "CREATE MATERIALIZED VIEW public.mv AS SELECT count(*) AS n FROM public.v",
            "CREATE FUNCTION public.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
            'CREATE TRIGGER t BEFORE INSERT ON "Odd"."Order Lines" FOR EACH ROW EXECUTE FUNCTION public.f()',
            "SELECT lo_from_bytea(0, 'a large object')",
        ):
            session.execute(statement)


def verdict(result: StepResult) -> tuple[str, str]:
    return result.details["verdict"], result.status


def nothing_runs(root: Path) -> bool:
    """Tell whether neither a folder nor a server of a drill is left."""
    at_home = not root.is_dir() or not list(root.iterdir())
    cwds = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                cwds.append(str((entry / "cwd").readlink()))
            except OSError:
                continue
    return at_home and not any(str(root) in cwd for cwd in cwds)


def test_what_is_whole_is_green_and_proves_the_backup(target: Target, server: Server) -> None:
    back_up(target)
    result = drill(target)
    assert verdict(result) == ("green", "ok"), result.as_json()
    said = result.as_json()
    assert documented("`drill`") <= set(said)
    assert (said["schema_equal"], said["proof"]["equal"], said["proof"]["rows"]) == (True, True, 500)
    assert said["drill_checks"][0]["result"] is True
    assert said["indexes_checked"] == (1 if server.contrib else None)
    assert {"load", "compare", "server"} <= set(said["phases"])
    assert said["recovery_point_seconds"] < 3600
    (listed,) = backups(target).details["backups"]
    assert (listed["state"], listed["last_restore"]["what"]) == ("proven", "drill")
    assert verify_receipts(target).status == "ok"
    page = target.store("disk").get_bytes(said["receipt"].replace(".json", ".md")).decode()
    assert page.startswith("# Restore drill of")
    assert nothing_runs(throwaway.root())
    assert own_sessions(server) == []


@pytest.mark.any_server
def test_the_stored_object_of_s3_is_decrypted_and_restored(
    database: Database, bucket: Bucket, tmp_path: Path
) -> None:
    from pyrage import x25519

    identity = x25519.Identity.generate()
    (tmp_path / "key.txt").write_text(str(identity))
    fill(database)
    target = make_target(
        database,
        tmp_path,
        bucket=bucket,
        stores=("disk", "s3"),
        backup={"encrypt_to": [str(identity.to_public())]},
        restore={"identity": {"file": str(tmp_path / "key.txt")}},
    )
    back_up(target)
    upload(target)
    result = drill(target, store="s3")
    assert verdict(result) == ("green", "ok"), result.as_json()
    assert result.details["store"] == "s3"
    assert "fetch" in result.details["phases"]  # next to nothing: the server was still being made ready


def test_a_changed_stored_file_is_red_and_freezes_pruning(target: Target) -> None:
    backup_id = back_up(target).details["backup_id"]
    file = next((backup_folder(target, backup_id) / "dump").glob("[0-9]*"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    result = drill(target)
    assert verdict(result) == ("red", "failed")
    assert file.name in result.summary
    (receipt,), _ = read_receipts(target.store("disk"), target.name, target.database)
    assert (receipt.what, receipt.verdict) == ("drill", "red")
    assert "frozen" in prune(target).summary


def forge(target: Target, backup_id: str, change: str, value: Any) -> None:
    path = backup_folder(target, backup_id) / MANIFEST
    manifest = json.loads(path.read_bytes())
    for relation in manifest["proof"]["relations"]:
        if relation["name"] == "Order Lines" and change in relation:
            relation[change] = value
    for sequence in manifest["proof"]["sequences"]:
        if change in sequence:
            sequence[change] = value
    if change in manifest["proof"]:
        manifest["proof"][change] = value
    path.write_bytes(sealed(path.read_bytes(), **manifest))


def put_in_place(target: Target, backup_id: str, data: bytes, *, packed: bool) -> None:
    """Let the largest file of rows be other bytes, and the manifest say that they are what was written."""
    folder = backup_folder(target, backup_id)
    file = max((folder / "dump").glob("[0-9]*"), key=lambda path: path.stat().st_size)
    if packed:  # as this client can
        data = gzip.compress(data) if file.suffix == ".gz" else compress(data)
    file.write_bytes(data)
    stored = (folder / MANIFEST).read_bytes()
    files = json.loads(stored)["files"]
    for each in files:
        if each["path"] == f"dump/{file.name}":
            each |= {"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / MANIFEST).write_bytes(sealed(stored, files=files))


@pytest.mark.parametrize(
    "data, packed",
    [
        pytest.param(b"neither rows nor compressed", False, id="not-compressed"),
        pytest.param(b"one\ttwo\tthree\n\\.\n\n\n", True, id="no-rows"),
        pytest.param(b"1\t\xff\xfe\ta\n\\.\n\n\n", True, id="another-encoding"),
    ],
)
def test_a_load_is_red_only_where_its_words_are_about_the_archive(
    target: Target, data: bytes, packed: bool
) -> None:
    backup_id = back_up(target).details["backup_id"]
    zstd = stored_manifest(target, backup_id).compress.startswith("zstd")
    said = "could not decompress" if zstd and not packed else "invalid "  # gzip takes clear bytes
    put_in_place(target, backup_id, data, packed=packed)
    result = drill(target, on_server=True)
    assert verdict(result) == ("unknown", "unknown"), "somebody else's server: nothing it says is a sign"
    assert said in result.unknown[0].reason
    assert read_receipts(target.store("disk"), target.name, target.database)[0] == []
    result = drill(target)
    assert verdict(result) == ("red", "failed"), result.as_json()
    assert said in result.failed[0].reason
    assert "frozen" in prune(target).summary


def test_a_load_that_failed_for_another_reason_is_unknown(database: Database, tmp_path: Path) -> None:
    with database.connect() as session:
        for statement in (
            "CREATE TABLE lookup AS SELECT 1 AS k",
            "CREATE FUNCTION known(n int) RETURNS bool LANGUAGE sql STABLE AS"
            " 'SELECT EXISTS (SELECT FROM lookup WHERE k = n)'",
            "CREATE TABLE uses (n int CHECK (known(n)))",
            "INSERT INTO uses VALUES (1)",
        ):
            session.execute(statement)
    target = make_target(database, tmp_path)
    back_up(target)
    result = drill(target)
    assert verdict(result) == ("unknown", "unknown"), result.as_json()
    assert "TABLE DATA public.uses" in result.unknown[0].reason
    assert read_receipts(target.store("disk"), target.name, target.database)[0] == []


@pytest.mark.any_server
def test_what_was_found_wrong_is_kept_when_the_drill_ends_early(target: Target) -> None:
    forge(target, back_up(target).details["backup_id"], "rows", 499)

    def end_the_server(what: str, done: int = 0, total: int = 0) -> None:
        if what != "checking indexes":
            return
        pidfile = servers[0].data_dir / "postmaster.pid"
        os.kill(int(pidfile.read_text().split("\n", 1)[0]), signal.SIGQUIT)
        deadline = time.monotonic() + 60
        while pidfile.exists() and time.monotonic() < deadline:
            time.sleep(0.05)

    with throwaway_servers() as servers:
        result = drill(target, progress=end_the_server)
    assert verdict(result) == ("red", "failed"), result.as_json()
    assert result.unknown, "the rest was not looked at"
    (receipt,), _ = read_receipts(target.store("disk"), target.name, target.database)
    assert (receipt.verdict, receipt.what) == ("red", "drill")
    assert '"Odd"."Order Lines"' in receipt.differences[0]
    assert "frozen" in prune(target).summary


@pytest.mark.any_server
def test_a_false_check_of_a_backup_without_proof_leaves_a_red_receipt(
    database: Database, tmp_path: Path
) -> None:
    fill(database)
    target = make_target(database, tmp_path, backup={"proof": "none"}, drill={"checks": ["SELECT false"]})
    back_up(target)
    assert verdict(drill(target)) == ("red", "failed")
    (receipt,), _ = read_receipts(target.store("disk"), target.name, target.database)
    assert (receipt.verdict, receipt.proof.level, receipt.proof.equal) == ("red", "none", False)
    assert "frozen" in prune(target).summary


@pytest.mark.parametrize(
    "change, value, named",
    [
        pytest.param("hash_a", "1", '"Odd"."Order Lines": content differs', id="a-cell"),
        pytest.param("rows", 499, '"Odd"."Order Lines"', id="a-row"),
        pytest.param("last_value", 99, "public.numbers", id="a-position"),
        pytest.param("schema_sha256", "0" * 64, "schema", id="the-schema"),
    ],
)
def test_what_is_not_as_the_proof_says_is_red_and_named(
    target: Target, change: str, value: object, named: str
) -> None:
    forge(target, back_up(target).details["backup_id"], change, value)
    result = drill(target)
    assert verdict(result) == ("red", "failed"), result.as_json()
    assert named in result.summary
    (receipt,), _ = read_receipts(target.store("disk"), target.name, target.database)
    assert (receipt.verdict, receipt.what) == ("red", "drill")
    assert backups(target).details["backups"][0]["state"] == "differs"


@pytest.mark.any_server
def test_a_check_that_is_false_is_red_and_one_that_breaks_is_unknown(
    database: Database, tmp_path: Path
) -> None:
    fill(database)
    back_up(make_target(database, tmp_path))
    wrong = make_target(database, tmp_path, drill={"checks": ["SELECT false"]})
    result = drill(wrong)
    assert verdict(result) == ("red", "failed")
    assert "check 1: SELECT false: is False, not true" in result.summary
    broken = make_target(database, tmp_path, drill={"checks": ["SELECT nowhere FROM nothing"]})
    result = drill(broken)
    assert verdict(result) == ("unknown", "unknown")
    assert "could not be asked" in result.summary
    writes = make_target(
        database, tmp_path, drill={"checks": ['DELETE FROM "Odd"."Order Lines" RETURNING true']}
    )
    assert "read-only" in drill(writes).summary


@pytest.mark.any_server
@pytest.mark.parametrize("lacks", ["programs", "extension", "backup", "key", "room"])
def test_what_could_not_be_tried_is_unknown_and_leaves_no_receipt(
    database: Database, tmp_path: Path, lacks: str
) -> None:
    fill(database)
    target = make_target(database, tmp_path)
    if lacks != "backup":
        backup_id = back_up(target).details["backup_id"]
        path = backup_folder(target, backup_id) / MANIFEST
        manifest = json.loads(path.read_bytes())
        if lacks == "programs":
            manifest["server"]["version_num"] = 990000
        elif lacks == "extension":
            manifest["extensions"]["timescaledb"] = "2.0"
        elif lacks == "key":
            manifest["encryption"] = {"recipients": ["age1x"], "clear_files": "nowhere"}
        elif lacks == "room":
            manifest["database_bytes"] = 10**18
        path.write_bytes(sealed(path.read_bytes(), **manifest))
    result = drill(target)
    assert verdict(result) == ("unknown", "unknown"), result.as_json()
    said = {
        "programs": "no server of PostgreSQL 99 is installed",
        "extension": "not installed on this server: timescaledb",
        "backup": "no complete backup",
        "key": "is encrypted",
        "room": "are needed",
    }
    assert said[lacks] in result.unknown[0].reason
    assert read_receipts(target.store("disk"), target.name, target.database)[0] == []
    assert nothing_runs(throwaway.root())


def test_what_differs_here_and_may_explain_a_failure_is_named(target: Target) -> None:
    backup_id = back_up(target).details["backup_id"]
    path = backup_folder(target, backup_id) / MANIFEST
    extensions = {**json.loads(path.read_bytes())["extensions"], "plpgsql": "0.9"}
    path.write_bytes(sealed(path.read_bytes(), extensions=extensions))
    result = drill(target)
    assert verdict(result) == ("green", "ok"), result.as_json()
    (note,) = [note for note in result.skipped if note.object == "extensions"]
    assert "plpgsql 0.9 is 1.0 here" in note.reason


def test_a_role_that_the_script_lacks_is_named(database: Database, tmp_path: Path) -> None:
    role = f"owner of {database.name}"
    with database.connect() as session:
        session.execute(f'CREATE ROLE "{role}"'.encode())
        session.execute("CREATE TABLE t (a int)")
        session.execute(f'ALTER TABLE t OWNER TO "{role}"'.encode())
    target = make_target(database, tmp_path)
    backup_id = back_up(target).details["backup_id"]
    try:
        assert verdict(drill(target)) == ("green", "ok")
    finally:
        database.execute("DROP TABLE t")
        database.execute(f'DROP ROLE "{role}"'.encode())
    put_script(target, backup_id, compress(b"CREATE ROLE postgres;\nCREATE ROLE other;\n"))
    result = drill(target)
    assert verdict(result) == ("green", "partial")
    assert [note.object for note in result.findings] == [f'role "{role}"']


def test_the_script_of_roles_is_tried_out(database: Database, tmp_path: Path) -> None:
    """A role of a tablespace's, say, that no fresh server would take: named, and the rest is made."""
    role, other = (f"{which} of {database.name}" for which in ("owner", "reader"))
    with database.connect() as session:
        session.execute(f'CREATE ROLE "{role}" CREATEDB'.encode())
        session.execute(f'CREATE ROLE "{other}" LOGIN IN ROLE "{role}"'.encode())
        session.execute("CREATE TABLE t (a int)")
        session.execute(f'ALTER TABLE t OWNER TO "{role}"'.encode())
    seen: list[Any] = []

    def look(what: str, done: int = 0, total: int = 0) -> None:
        if what == "analyzing":
            with connect(servers[0].login(), purpose="test") as session:
                seen.append(session.row(MADE, {"role": role, "other": other}))

    target = make_target(database, tmp_path)
    try:
        backup_id = back_up(target).details["backup_id"]
    finally:
        database.execute("DROP TABLE t")
        database.execute(f'DROP ROLE "{other}", "{role}"'.encode())
    with throwaway_servers() as servers:
        assert verdict(drill(target, progress=look)) == ("green", "ok")
    assert seen == [{"creates": True, "member": True, "superuser": False}]
    made = decompress((backup_folder(target, backup_id) / GLOBALS).read_bytes())
    broken = made.replace(b"CREATEDB", b"VALID UNTIL 'yesterday''s news'")
    put_script(target, backup_id, compress(broken))
    result = drill(target)
    assert verdict(result) == ("green", "partial"), result.as_json()
    reasons = {note.object: note.reason for note in result.findings}
    assert "tried out on a fresh server: could not be created" in reasons[f'role "{role}"']
    put_script(target, backup_id, b"no script at all")
    (note,) = drill(target).findings
    assert note.object == GLOBALS
    assert "could not be run" in note.reason


MADE = """
SELECT r.rolcreatedb AS creates, r.rolsuper AS superuser, pg_has_role(%(other)s, r.oid, 'MEMBER') AS member
  FROM pg_roles AS r
 WHERE r.rolname = %(role)s
"""


@contextlib.contextmanager
def throwaway_servers() -> Iterator[list[throwaway.ThrowawayServer]]:
    """Give the servers of the drills of the block, to be looked at while they run."""
    seen: list[throwaway.ThrowawayServer] = []

    @contextlib.contextmanager
    def kept(*args: Any) -> Iterator[throwaway.ThrowawayServer]:
        with throwaway.throwaway_server(*args) as server:
            seen.append(server)
            yield server

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pgsteward.restore.drill.throwaway_server", kept)
        yield seen


def put_script(target: Target, backup_id: str, script: bytes) -> None:
    """Let a backup's script of roles be another one, and the manifest say that it was written so."""
    folder = backup_folder(target, backup_id)
    (folder / GLOBALS).write_bytes(script)
    stored = (folder / MANIFEST).read_bytes()
    files = json.loads(stored)["files"]
    for file in files:
        if file["path"] == GLOBALS:
            file |= {"size_bytes": len(script), "sha256": hashlib.sha256(script).hexdigest()}
    (folder / MANIFEST).write_bytes(sealed(stored, files=files))


@pytest.mark.contrib
def test_a_matview_over_foreign_tables_asks_nobody(database: Database, tmp_path: Path) -> None:
    here = database.login
    with database.connect() as session:
        for statement in (
            "CREATE EXTENSION postgres_fdw",
            "CREATE TABLE t AS SELECT 1 AS a",
            "CREATE SERVER s FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '"
            + here.conninfo.split("port=")[1].split()[0]
            + f"', dbname '{database.name}')",
            "CREATE USER MAPPING FOR CURRENT_USER SERVER s OPTIONS (user 'postgres', password"
            f" '{here.password}')",
            "CREATE FOREIGN TABLE far (a int) SERVER s OPTIONS (table_name 't')",
            'CREATE MATERIALIZED VIEW "Far away" AS SELECT a FROM far',
            'CREATE MATERIALIZED VIEW further AS SELECT a FROM "Far away"',
            "CREATE MATERIALIZED VIEW near AS SELECT a FROM t",
        ):
            session.execute(statement.encode())
    target = make_target(database, tmp_path)
    back_up(target)
    with database.connect() as session:  # what asks would fail now
        session.execute("DROP TABLE t CASCADE")
    result = drill(target)
    assert verdict(result) == ("green", "ok"), result.as_json()
    left = [note.object for note in result.skipped if "foreign tables" in note.reason]
    assert left == ['public."Far away"', "public.further"]


@pytest.mark.contrib
def test_a_matview_over_dblink_asks_nobody(database: Database, tmp_path: Path) -> None:
    port = database.login.conninfo.split("port=")[1].split()[0]
    far = (
        f"host=127.0.0.1 port={port} dbname={database.name} user=postgres password={database.login.password}"
    )
    with database.connect() as session:
        for statement in (
            "CREATE EXTENSION dblink",
            "CREATE SEQUENCE asked",
            "CREATE VIEW public.v AS SELECT n FROM public.dblink("
            f"'{far}', 'SELECT nextval(''public.asked'')') AS t (n int8)",
            'CREATE MATERIALIZED VIEW "Far away" AS SELECT n FROM public.v',
            'CREATE MATERIALIZED VIEW further AS SELECT n FROM "Far away"',
            "CREATE MATERIALIZED VIEW near AS SELECT 1 AS n",
        ):
            session.execute(statement.encode())
    target = make_target(database, tmp_path)
    back_up(target)
    before = database.value("SELECT last_value FROM asked")
    result = drill(target)
    assert verdict(result) == ("green", "ok"), result.as_json()
    assert database.value("SELECT last_value FROM asked") == before
    left = [note.object for note in result.skipped if "dblink" in note.reason]
    assert left == ['public."Far away"', "public.further"]


def test_a_drill_on_a_server_leaves_nothing_there(target: Target, server: Server) -> None:
    back_up(target)
    result = drill(target, on_server=True)
    assert verdict(result) == ("green", "ok"), result.as_json()
    with server.connect() as session:
        left = session.rows("SELECT datname FROM pg_database WHERE datname LIKE 'pgsteward\\_tmp\\_%%'")
    assert left == []


@pytest.mark.any_server
def test_a_killed_drill_leaves_neither_server_nor_folder(target: Target, tmp_path: Path) -> None:
    """Its server dies with it; its folder goes with the next run."""
    code = (
        "import signal, sys, pathlib\n"
        "from pgsteward.restore.throwaway import throwaway_server\n"
        "with throwaway_server('0123', int(sys.argv[1]), (pathlib.Path(sys.argv[2]),), 1) as server:\n"
        "    print(server.data_dir, flush=True)\n"
        "    signal.pause()\n"
    )
    major = target.settings.client_dirs[0]
    version = run_tool([major / "postgres", "--version"], env={}).stdout.decode().split(")")[1].split(".")[0]
    process = subprocess.Popen(
        [sys.executable, "-c", code, version.strip(), str(major)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    data = Path(process.stdout.readline().strip())
    pid = int((data / "postmaster.pid").read_text().split("\n", 1)[0])
    assert throwaway.remove_dead_servers() == ([], []), "it is alive"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 60
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{pid}")
    assert [folder.name for folder in throwaway.remove_dead_servers(dry_run=True)[0]] == ["0123"]
    assert data.exists()
    removed, left = throwaway.remove_dead_servers()
    assert ([folder.name for folder in removed], left) == (["0123"], [])
    assert not data.exists()
    assert nothing_runs(throwaway.root())


@pytest.mark.any_server
def test_a_night_drills_only_where_it_is_wanted_every_night(database: Database, tmp_path: Path) -> None:
    fill(database)
    weekly = make_target(database, tmp_path)
    back_up(weekly)
    assert (drill_in_night(weekly).status, drill_in_night(weekly).details) == ("skipped", {})
    always = make_target(database, tmp_path, drill={"when": "always"})
    assert drill_in_night(always, dry_run=True).status == "skipped"
    assert read_receipts(always.store("disk"), always.name, always.database)[0] == []
    assert verdict(drill_in_night(always)) == ("green", "ok")


@pytest.mark.any_server
def test_the_exit_status_says_the_verdict(target: Target, tmp_path: Path) -> None:
    config = tmp_path / "pgsteward.toml"
    config.write_text(as_toml(target.config.model_dump(mode="json", exclude_unset=True)))

    def call(*words: str) -> tuple[int, dict[str, Any]]:
        done = CliRunner().invoke(app, ["--config", str(config), "drill", "app", *words, "--json"])
        return done.exit_code, json.loads(done.stdout)

    assert call()[0] == 3, "there is no backup"
    backup_id = back_up(target).details["backup_id"]
    status, said = call(backup_id)
    assert (status, said["verdict"]) == (0, "green")
    forge(target, backup_id, "rows", 499)
    status, said = call("latest", "--from", "disk")
    assert (status, said["verdict"]) == (1, "red")
    assert call("nonsense")[0] == 2


@pytest.mark.parametrize("how", ["variables", "service"])
def test_no_variable_leads_a_drill_to_another_server(
    target: Target, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    back_up(target)
    parts = conninfo_to_dict(server.login.conninfo)
    before = everything(server)
    if how == "service":
        services = tmp_path / "services"
        services.write_text(f"[other]\nhostaddr=127.0.0.1\nport={parts['port']}\nsslmode=require\n")
        others = {"PGSERVICEFILE": str(services), "PGSERVICE": "other"}
    else:
        others = {
            "PGHOST": "127.0.0.1",
            "PGHOSTADDR": "127.0.0.1",
            "PGPORT": str(parts["port"]),
            "PGUSER": "nobody",
            "PGDATABASE": "template1",
            "PGPASSWORD": server.login.password or "",
            "PGCHANNELBINDING": "require",
            "PGSSLMODE": "require",
            "PGGSSENCMODE": "require",
            "PGTARGETSESSIONATTRS": "standby",
        }
    with monkeypatch.context() as patch:
        for name, value in others.items():
            patch.setenv(name, value)
        result = drill(target)
    assert verdict(result) == ("green", "ok"), result.summary
    assert everything(server) == before


def everything(server: Server) -> list[str]:
    with server.connect() as session:
        rows = session.rows("SELECT datname AS n FROM pg_database UNION ALL SELECT rolname FROM pg_roles")
    return sorted(row["n"] for row in rows)


@pytest.mark.any_server
def test_nothing_is_written_to_another_server(
    target: Target, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    back_up(target)
    before = everything(server)
    monkeypatch.setattr(throwaway.ThrowawayServer, "login", lambda self: server.login)
    result = drill(target)
    assert verdict(result) == ("unknown", "unknown")
    assert "not the drill's own" in result.summary
    assert everything(server) == before


@pytest.mark.any_server
def test_a_comma_in_the_path_is_no_list_of_hosts(target: Target, tmp_path: Path) -> None:
    folder = tmp_path / "a,b"
    (folder / "data").mkdir(parents=True)
    with Children() as children:
        programs = target.settings.client_dirs[0]
        server = throwaway.ThrowawayServer(folder, children, distribution=programs)
        with pytest.raises(PreconditionError, match="has a comma"):
            server._launch(Path(programs), 61_000, None)


@pytest.mark.contrib
@pytest.mark.parametrize(
    "does, colour, said",
    [
        pytest.param("RETURN random()::text;", "red", "REINDEX it", id="an-entry-is-missing"),
        pytest.param(
            "IF current_setting('application_name') = 'pgsteward drill' THEN RAISE 'no disk';"
            " END IF; RETURN a::text;",
            "unknown",
            "amcheck could not look at it: no disk",
            id="it-could-not-look",
        ),
    ],
)
def test_only_damage_that_amcheck_names_is_red(
    database: Database, tmp_path: Path, does: str, colour: str, said: str
) -> None:
    with database.connect() as session:
        session.execute("CREATE TABLE t AS SELECT i AS a FROM generate_series(1, 50) AS i")
        body = f"BEGIN {does} END"
        session.execute(
            f"CREATE FUNCTION f(a int) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $f${body}$f$".encode()
        )
        session.execute("CREATE INDEX by_f ON t (public.f(a))")
    target = make_target(database, tmp_path)
    back_up(target)
    result = drill(target)
    assert result.details["verdict"] == colour, result.summary
    (note,) = result.failed if colour == "red" else result.unknown
    assert note.object == "public.by_f"
    assert said in note.reason
    receipts, _ = read_receipts(target.store("disk"), target.name, target.database)
    assert [receipt.verdict for receipt in receipts] == (["red"] if colour == "red" else [])


@pytest.mark.any_server
def test_a_dead_drills_server_that_still_runs_is_named_and_not_removed(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    back_up(target)
    monkeypatch.setattr(embedded, "_wait_for_the_end", partial(embedded._wait_for_the_end, timeout_s=0.1))
    folder = throwaway.root() / "0123"
    data = folder / "server" / "data"
    data.mkdir(parents=True)
    (folder / "in-use.lock").touch()
    with subprocess.Popen(["sleep", "600"], cwd=data) as process:
        try:
            (data / "postmaster.pid").write_text(f"{process.pid}\n")
            result = drill(target)
            assert verdict(result) == ("green", "ok"), result.summary
            (note,) = [note for note in result.skipped if note.object == str(folder)]
            assert f"pid {process.pid}) still runs" in note.reason
            assert data.exists()
        finally:
            process.kill()
    removed, left = throwaway.remove_dead_servers()
    assert (removed, left) == ([folder], [])
    assert not folder.exists()


@pytest.mark.pg_min(15)
def test_a_database_with_tablespaces_is_drilled_without_them(
    database: Database, tmp_path: Path, server: Server
) -> None:
    home, far = (f"{which} {uuid.uuid4().hex[:8]}" for which in ("Home", "Far"))
    with server.connect() as session:
        session.execute("SET allow_in_place_tablespaces = on")
        for space in (home, far):
            session.execute(f"CREATE TABLESPACE \"{space}\" LOCATION ''".encode())
        session.execute(f'ALTER DATABASE "{database.name}" SET TABLESPACE "{home}"'.encode())
    try:
        with database.connect() as session:
            session.execute("CREATE TABLE here AS SELECT i FROM generate_series(1, 9) AS i")
            session.execute(f'CREATE TABLE there (a int) TABLESPACE "{far}"'.encode())
            session.execute(f'ALTER TABLE there ADD PRIMARY KEY (a) USING INDEX TABLESPACE "{far}"'.encode())
        target = make_target(database, tmp_path)
        back_up(target)
        result = drill(target)
        assert verdict(result) == ("green", "ok"), result.summary
    finally:
        database.execute("DROP TABLE IF EXISTS there")
        with server.connect() as session:
            session.execute(f'ALTER DATABASE "{database.name}" SET TABLESPACE pg_default'.encode())
            for space in (home, far):
                session.execute(f'DROP TABLESPACE "{space}"'.encode())


@pytest.mark.pg_min(17)
def test_a_trigger_that_lets_only_some_in_keeps_no_drill_out(database: Database, target: Target) -> None:
    database.execute(
        f"""
        CREATE FUNCTION keep_out() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
            IF current_database() <> '{database.name}' THEN RAISE 'you may not come in'; END IF; END $$;
        CREATE EVENT TRIGGER keep_out ON login EXECUTE FUNCTION keep_out()""".encode()
    )
    back_up(target)
    result = drill(target)
    assert verdict(result) == ("green", "ok"), result.unknown


@pytest.mark.any_server
def test_database_wal_and_download_need_room_together(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, big = 10**6, 10**12
    assert throwaway.settings_for(10**9, 17)["max_wal_size"] == "2048MB"
    assert throwaway.room(tmp_path, small, 0)[0] == 2 * small, "small drills fit on small disks"
    assert throwaway.room(tmp_path, big, 0)[0] == big + 2 * 1024**3
    assert throwaway.room(tmp_path, big, small)[0] == big + 2 * 1024**3 + small
    assert throwaway.room(Path("/proc"), big, small)[0] == big + 2 * 1024**3, "another file system"
    monkeypatch.delenv("TMPDIR", raising=False)  # where the tests' servers may have memory of their own
    path = backup_folder(target, back_up(target).details["backup_id"]) / MANIFEST
    manifest = json.loads(path.read_bytes())
    manifest["files"][0]["size_bytes"] = 10**18
    path.write_bytes(sealed(path.read_bytes(), **manifest))
    monkeypatch.setattr(FolderStore, "local_folder", lambda self, prefix: None)  # as in a store elsewhere
    result = drill(target)
    assert verdict(result) == ("unknown", "unknown")
    assert "are needed for the restored database, its WAL and the download" in result.summary
