from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from pgsteward import postgres
from pgsteward.backup import archive, home
from pgsteward.backup.dump import back_up
from pgsteward.backup.figures import Earlier, Figures
from pgsteward.backup.globals_sql import globals_sql
from pgsteward.backup.manifest import MANIFEST, MARK
from pgsteward.backup.proof import read_sequences, take_proof
from pgsteward.backup.proof_compare import compare
from pgsteward.clients import choose_client, find_clients
from pgsteward.errors import PreconditionError, StewardError, StoreFailed, TransientError
from pgsteward.pgtools import run_tool
from pgsteward.postgres import Login
from pgsteward.storage import Store
from tests.integration.backup_targets import (
    backup_folder,
    make_target,
    nothing_left,
    own_sessions,
    stored_manifest,
)
from tests.servers import Database

HARD = """
CREATE SCHEMA "sch ""x";
CREATE TABLE "sch ""x"."Order Lines" (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text, "t" numeric DEFAULT 1.10, m money DEFAULT 3
);
INSERT INTO "sch ""x"."Order Lines" (note) SELECT 'n' || g FROM generate_series(1, 500) AS g;
CREATE TABLE parts (k int, v text) PARTITION BY LIST (k);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1);
CREATE TABLE parts_d PARTITION OF parts DEFAULT;
INSERT INTO parts SELECT g % 3, md5(g::text) FROM generate_series(1, 100) AS g;
CREATE TABLE parent (a int, b int); CREATE TABLE child (b int, c int, a int);
INSERT INTO parent VALUES (1, 2); INSERT INTO child VALUES (1, 2, 3); ALTER TABLE child INHERIT parent;
CREATE TABLE gone_column (a int, b int, c int); ALTER TABLE gone_column DROP b;
INSERT INTO gone_column VALUES (1, 2);
CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TABLE moods (m mood, r regclass);
INSERT INTO moods VALUES ('ok', 'moods'), ('sad', NULL);
CREATE TABLE nothing_in_it (); INSERT INTO nothing_in_it DEFAULT VALUES;
CREATE SEQUENCE "unused ""seq" START 7;
CREATE MATERIALIZED VIEW stale AS SELECT count(*) AS c FROM moods; INSERT INTO moods VALUES (NULL, NULL);
CREATE MATERIALIZED VIEW never AS SELECT 1 AS one WITH NO DATA;
SELECT lo_from_bytea(4711, '\\x010203')
"""


@pytest.fixture
def role(database: Database) -> Iterator[Login]:
    """A role that may connect and nothing more."""
    name = f"Reader {uuid.uuid4().hex[:8]}"
    quoted = postgres.identifier(name)
    database.execute(postgres.compose("CREATE ROLE {} LOGIN PASSWORD 'reader pw'", quoted))
    yield Login(f"{database.conninfo} user='{name}'", "reader pw")
    database.execute(postgres.compose("DROP OWNED BY {}", quoted))
    database.execute(postgres.compose("DROP ROLE {}", quoted))


def test_a_hard_database_is_dumped_restored_and_equal(database: Database, tmp_path: Path) -> None:
    database.execute(HARD)
    target = make_target(database, tmp_path, backup={"compress": "gzip:1"})
    result = back_up(target)
    assert result.status == "ok"
    assert [note.object for note in result.skipped] == ["public.never"]
    backup_id = result.details["backup_id"]
    manifest = stored_manifest(target, backup_id)
    folder = backup_folder(target, backup_id)
    assert not (folder / MARK).exists()
    assert {file.path for file in manifest.files} >= {
        "RESTORE.md",
        "database.sql.zst",
        "globals.sql.zst",
        "dump/toc.dat",
    }
    assert result.examined == len(manifest.proof.relations)  # all but the unpopulated view, and the database
    client = choose_client(find_clients(target.settings.client_dirs), manifest.server.version_num)
    copy = f"copy_{uuid.uuid4().hex[:12]}"
    database.server.create(copy)
    try:
        login = database.server.login.to(copy)
        run_tool(
            [client.tool("pg_restore"), "--exit-on-error", f"--dbname={login.conninfo}", folder / "dump"],
            env=login.tool_env(),
        )
        restored = take_proof(login, "full", snapshot_id=None)
        restored = restored.model_copy(update={"sequences": read_sequences(login)})
        assert compare(manifest.proof, restored) == []
        with postgres.connect(login, purpose="test") as connection:
            connection.execute("UPDATE moods SET m = 'sad' WHERE m = 'ok'")
        changed = take_proof(login, "full", snapshot_id=None).model_copy(
            update={"sequences": restored.sequences}
        )
        assert [each.object for each in compare(manifest.proof, changed)] == ["public.moods"]
    finally:
        database.server.drop(copy)


def test_what_the_archive_says_is_in_the_manifest(database: Database, tmp_path: Path) -> None:
    database.execute(HARD)
    database.execute(
        postgres.compose("ALTER DATABASE {} SET work_mem = '7MB'", postgres.identifier(database.dbname))
    )
    target = make_target(database, tmp_path, backup={"compress": "none", "proof": "counts"})
    result = back_up(target)
    manifest = stored_manifest(target, result.details["backup_id"])
    assert {(s.name, s.last_value, s.is_called) for s in manifest.proof.sequences} == {
        ("Order Lines_id_seq", 500, True),
        ('unused "seq', 7, False),
    }
    assert manifest.proof.schema_sha256 is not None
    assert manifest.snapshot_lsn
    assert str(database.password) not in manifest.to_bytes().decode()
    folder = backup_folder(target, manifest.backup_id) / "dump"
    client = choose_client(find_clients(target.settings.client_dirs), manifest.server.version_num)
    contents = archive.read(client, folder)
    assert b"SET work_mem TO '7MB'" in contents.database_sql
    assert contents.schema_sha256 == archive.schema_sha256(client, folder) == manifest.proof.schema_sha256


def test_contents_that_were_written_again_are_read_again(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.execute(HARD)
    target = make_target(database, tmp_path, backup={"proof": "counts"})
    real, reads = archive.read, 0

    def read(*args: Any) -> archive.Contents:
        nonlocal reads
        reads += 1
        contents = real(*args)
        os.utime(Path(args[1]) / "toc.dat", ns=(reads, reads))
        return contents

    monkeypatch.setattr(archive, "read", read)
    assert back_up(target).status == "ok"
    assert reads == 2


@pytest.mark.any_server
def test_no_more_earlier_backups_are_read_than_the_estimate_needs(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.execute("CREATE TABLE t (id int)")
    target = make_target(database, tmp_path, backup={"proof": "none"})
    made = [back_up(target).details["backup_id"] for _ in range(4)]
    read: list[str] = []
    real = Earlier.read

    def watched(earlier: Earlier, store: Store, backup_id: str) -> Figures:
        read.append(backup_id)
        return real(earlier, store, backup_id)

    monkeypatch.setattr(Earlier, "read", watched)
    told = back_up(target, dry_run=True).details
    assert read == sorted(made, reverse=True)[:3]
    assert "3 newest backups" in told["estimated"]


def test_roles_are_asked_for_after_the_dump_where_no_session_is_left(
    database: Database, role: Login, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.execute("CREATE TABLE t (id int)")
    name = postgres.identifier(role.conninfo.split("'")[1])
    database.execute(postgres.compose("GRANT pg_read_all_data TO {}", name))
    threads: list[str] = []
    real = globals_sql

    def watched(*args: Any, **options: Any) -> bytes:
        threads.append(threading.current_thread().name)
        return real(*args, **options)

    monkeypatch.setattr("pgsteward.backup.dump.globals_sql", watched)
    for limit in (50, 6):  # our own session that holds the lock, four, and one worker
        database.execute(
            postgres.compose("ALTER ROLE {} CONNECTION LIMIT {}", name, postgres.raw(str(limit)))
        )
        result = back_up(make_target(database, tmp_path, login=role, backup={"jobs": 1}))
        assert result.status == "ok", result.summary
    assert threads == ["globals", threading.main_thread().name]


@pytest.mark.contrib
def test_what_an_extension_calls_configuration_is_no_false_alarm(database: Database, tmp_path: Path) -> None:
    """As pg_cron and PostGIS do: pg_dump dumps rows and positions of what is otherwise the extension's."""
    database.execute(
        "CREATE TABLE jobs (a serial); INSERT INTO jobs DEFAULT VALUES;"
        " ALTER EXTENSION pgstattuple ADD TABLE jobs; ALTER EXTENSION pgstattuple ADD SEQUENCE jobs_a_seq;"
        " UPDATE pg_extension SET extconfig = ARRAY['jobs'::regclass, 'jobs_a_seq'::regclass]::oid[],"
        "   extcondition = ARRAY['', ''] WHERE extname = 'pgstattuple'"
    )
    target = make_target(database, tmp_path)
    result = back_up(target)
    assert result.status == "ok"
    assert result.skipped == ()
    proof = stored_manifest(target, result.details["backup_id"]).proof
    assert [(each.name, each.rows) for each in proof.configuration or ()] == [("jobs", 1)]
    assert [(each.name, each.last_value) for each in proof.sequences] == [("jobs_a_seq", 1)]
    assert read_sequences(database.login) == proof.sequences


def test_an_empty_database_is_backed_up(database: Database, tmp_path: Path) -> None:
    result = back_up(make_target(database, tmp_path))
    assert result.status == "ok"
    assert result.details["proof"]["relations"] == 0


def test_a_dry_run_checks_and_dumps_nothing(database: Database, tmp_path: Path) -> None:
    target = make_target(database, tmp_path)
    result = back_up(target, dry_run=True)
    assert result.changed[0].action == "would back up"
    assert nothing_left(target)


def test_a_reader_can_back_up_and_rows_hidden_from_it_are_refused(
    database: Database, role: Login, tmp_path: Path
) -> None:
    database.execute("CREATE TABLE t (a int); INSERT INTO t VALUES (1), (2)")
    name = postgres.identifier(role.conninfo.rpartition("user='")[2].rstrip("'"))
    database.execute(postgres.compose("GRANT pg_read_all_data TO {}", name))
    target = make_target(database, tmp_path, login=role)
    assert back_up(target).status == "ok"
    database.execute("ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON t USING (a = 1)")
    with pytest.raises(PreconditionError, match=r"public\.t: row-level security hides rows"):
        back_up(target)


def _slow_target(database: Database, tmp_path: Path) -> None:
    database.execute(
        "CREATE TABLE big AS SELECT g AS id, repeat(md5(g::text), 4) AS filler"
        " FROM generate_series(1, 400000) AS g"
    )


@pytest.mark.any_server
@pytest.mark.contrib
def test_a_store_that_goes_away_during_the_dump_is_told_as_that(database: Database, tmp_path: Path) -> None:
    """A lost mount takes the folder with it, while pg_dump waits for the rows of a table."""
    database.execute(
        "CREATE TABLE held AS SELECT 1 AS id; ALTER EXTENSION pgstattuple ADD TABLE held;"
        " UPDATE pg_extension SET extconfig = ARRAY['held'::regclass]::oid[],"
        "   extcondition = ARRAY['WHERE pg_advisory_xact_lock_shared(7) IS NOT NULL']"
        " WHERE extname = 'pgstattuple'"
    )
    target = make_target(database, tmp_path, backup={"proof": "none"})

    def take_away(what: str, done: int = 0, total: int = 0) -> None:
        if what.startswith("dumping") and len(list((tmp_path / "store").glob("**/dump/*"))) > 1:
            shutil.rmtree(tmp_path / "store")  # pg_dump has opened the table's file too

    with database.connect() as holder:
        holder.execute("SELECT pg_advisory_lock(7)")
        with pytest.raises(StoreFailed, match="look after the disk or mount"):
            back_up(target, progress=take_away)


def _dump_pids() -> list[int]:
    """Return our own pg_dump leaders."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            if words[0].endswith(b"/pg_dump") and parent == os.getpid():
                found.append(int(entry.name))
    return found


class _Cancelled(BaseException):
    """What Prefect raises in the main thread is no Exception."""


def test_a_cancelled_backup_is_gone_within_ten_seconds(database: Database, tmp_path: Path) -> None:
    _slow_target(database, tmp_path)
    target = make_target(database, tmp_path, backup={"compress": "gzip:9"})

    def cancel(signum: int, frame: object) -> None:
        raise _Cancelled

    def progress(what: str, done: int = 0, total: int = 0) -> None:
        if what.startswith("waiting for the locks of pg_dump"):
            signal.setitimer(signal.ITIMER_REAL, 0.7)

    before = signal.signal(signal.SIGALRM, cancel)
    try:
        with pytest.raises(_Cancelled):
            back_up(target, progress=progress)
        struck = time.monotonic()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert nothing_left(target)
    assert _dump_pids() == []
    _wait_until_alone(database)
    assert time.monotonic() - struck < 10


def _wait_until_alone(database: Database, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while (left := own_sessions(database.server)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []


def _wait_for_a_waiting_dump(database: Database) -> None:
    deadline = time.monotonic() + 60
    while not database.value(
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = 'pgsteward dump' AND wait_event_type = 'Lock')"
    ):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_backup_whose_lock_is_gone_is_not_published(database: Database, tmp_path: Path) -> None:
    database.execute("CREATE TABLE t AS SELECT 1 AS a")
    target = make_target(database, tmp_path)
    outcome: list[StewardError] = []

    def run() -> None:
        with pytest.raises(StewardError) as caught:
            back_up(target)
        outcome.append(caught.value)

    with database.connect(autocommit=False) as holder:
        holder.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        thread = threading.Thread(target=run)
        thread.start()
        _wait_for_a_waiting_dump(database)
        database.execute(
            "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity"
            " WHERE application_name = 'pgsteward lock backup' AND datname = current_database()"
        )
    thread.join()
    assert isinstance(outcome[0], TransientError)
    assert nothing_left(target)


@pytest.mark.any_server
def test_what_is_discarded_is_no_backup_from_the_first_moment_and_marked_to_the_last(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = make_target(database, tmp_path)
    folder = backup_folder(target, back_up(target).details["backup_id"])
    (folder / MARK).write_text("{}")

    def killed(path: Path) -> None:
        raise _Cancelled

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(_Cancelled):
        home.discard(folder)
    assert not (folder / MANIFEST).exists()
    assert (folder / MARK).exists()
    monkeypatch.undo()
    home.discard(folder)
    assert not folder.exists()


@pytest.mark.any_server
@pytest.mark.skipif(sys.platform != "linux", reason="needs loopback ports")
def test_a_run_stays_on_the_server_that_it_began_with(database: Database, tmp_path: Path) -> None:
    """A snapshot of one server means nothing, or something else, on another that the conninfo names."""
    parts = conninfo_to_dict(database.conninfo)
    with socket.create_server(("127.0.0.1", 0)) as first:
        port = first.getsockname()[1]
        ends: list[socket.socket] = []

        def serve_once() -> None:
            client, _ = first.accept()
            first.close()  # whoever comes now has to take the second server of the list
            server = socket.create_connection((str(parts["host"]), int(str(parts["port"]))))
            ends.extend((client, server))
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=pump, args=(source, sink), daemon=True).start()

        def pump(source: socket.socket, sink: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while data := source.recv(1 << 16):
                    sink.sendall(data)
                sink.shutdown(socket.SHUT_WR)

        threading.Thread(target=serve_once, daemon=True).start()
        both = f"{database.conninfo} host=127.0.0.1,{parts['host']} port={port},{parts['port']}"
        target = make_target(database, tmp_path, login=Login(both, database.password))
        with pytest.raises(TransientError, match=f"port {port}"):
            back_up(target)
        for end in ends:
            end.close()
    assert nothing_left(target)


@pytest.mark.any_server
def test_a_backup_killed_in_the_middle_leaves_a_mark_and_no_manifest(
    database: Database, tmp_path: Path
) -> None:
    _slow_target(database, tmp_path)
    target = make_target(database, tmp_path, backup={"compress": "gzip:9"})
    script = (
        "import sys; from pathlib import Path; from pgsteward.config import Config;"
        "from pgsteward.targets import Target; from pgsteward.backup.dump import back_up;"
        "config = Config.model_validate_json(sys.stdin.read());"
        "back_up(Target('app', config.target('app'), config))"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, cwd="/") as process:
        assert process.stdin is not None
        process.stdin.write(target.config.model_dump_json().encode())
        process.stdin.close()
        store = tmp_path / "store"
        deadline = time.monotonic() + 60
        while not list(store.rglob("*.gz")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.kill()
    assert list(store.rglob(MARK))
    assert not list(store.rglob("manifest.json"))
    _wait_until_alone(database)
