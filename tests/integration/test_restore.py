"""Restores of real databases: equal or refused, with nothing left behind."""

from __future__ import annotations

import hashlib
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pgsteward.backup.catalog import backups
from pgsteward.backup.dump import back_up
from pgsteward.backup.manifest import MANIFEST, backup_prefix
from pgsteward.backup.receipts import read_receipts
from pgsteward.errors import (
    ConfigError,
    DatabaseUnavailable,
    PreconditionError,
    StewardError,
    VerificationFailed,
)
from pgsteward.postgres import compose, connect, identifier, literal
from pgsteward.restore import scratch
from pgsteward.restore.fetch import spool, spool_root
from pgsteward.restore.marks import MARK
from pgsteward.restore.run import restore
from pgsteward.restore.scratch import PREFIX, admin_login, drop_leftovers, leftovers, restore_lock
from pgsteward.restore.statistics import _analyze_each
from pgsteward.results import StepResult
from pgsteward.targets import Target
from tests.integration.backup_targets import backup_folder, make_target, sealed
from tests.servers import Database, Server

HARD = """
CREATE SCHEMA "Odd ""x";
CREATE TYPE "Odd ""x".mood AS ENUM ('sad', 'ok');
CREATE TABLE "Odd ""x"."Order Lines" (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text, mood "Odd ""x".mood, price numeric
);
INSERT INTO "Odd ""x"."Order Lines" (note, mood, price)
SELECT repeat('x', g % 7), 'ok', g / 3.0 FROM generate_series(1, 500) AS g;
CREATE TABLE public.parts (d date, n int) PARTITION BY RANGE (d);
CREATE TABLE public.parts_1 PARTITION OF public.parts FOR VALUES FROM ('2026-01-01') TO ('2026-07-01');
CREATE TABLE public.parts_2 PARTITION OF public.parts DEFAULT;
INSERT INTO public.parts SELECT DATE '2026-01-01' + g, g FROM generate_series(1, 300) AS g;
CREATE MATERIALIZED VIEW "Odd ""x"."Sums" AS SELECT mood, sum(price) FROM "Odd ""x"."Order Lines" GROUP BY 1;
CREATE MATERIALIZED VIEW public.never AS SELECT 1 AS one WITH NO DATA;
CREATE SEQUENCE public.lonely START 42;
COMMENT ON TABLE "Odd ""x"."Order Lines" IS 'it''s odd';
SELECT lo_from_bytea(0, 'a large object')
"""


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def new_name(server: Server) -> Iterator[str]:
    name = f"restored_{uuid.uuid4().hex[:10]}"
    yield name
    server.drop(name)


@pytest.fixture
def target(database: Database, tmp_path: Path) -> Iterator[Target]:
    database.execute(HARD.encode())
    yield make_target(database, tmp_path)
    with database.server.connect() as connection:
        for name in databases_like(database.server, f"{database.name}%"):
            if name != database.name:
                connection.execute(compose("DROP DATABASE IF EXISTS {} WITH (FORCE)", identifier(name)))


def databases_like(server: Server, pattern: str) -> list[str]:
    with server.connect() as connection:
        rows = connection.rows(
            "SELECT datname::text AS name FROM pg_database WHERE datname LIKE %(p)s ORDER BY 1",
            {"p": pattern},
        )
    return [row["name"] for row in rows]


def nothing_left(server: Server) -> bool:
    root = spool_root()
    return databases_like(server, f"{PREFIX}%") == [] and (not root.exists() or list(root.iterdir()) == [])


def change_manifest(target: Target, **changes: Any) -> None:
    backup_id = backups(target).details["backups"][0]["backup_id"]
    path = backup_folder(target, backup_id) / MANIFEST
    path.write_bytes(sealed(path.read_bytes(), **changes))


def test_a_backup_comes_back_as_a_new_database_that_is_equal(target: Target, server: Server) -> None:
    backup_id = back_up(target).details["backup_id"]
    result = restore(target)
    assert result.status == "ok", result
    name = result.details["into"]
    assert name.startswith(f"{target.database}_restore_20")
    assert result.details["backup_id"] == backup_id
    assert result.details["store"] == "disk"
    assert result.details["proof"] == {"level": "full", "relations": 3, "rows": 800, "equal": True}
    assert result.summary.endswith(
        "3 tables and 800 rows compared (full), all equal; 2 materialized views filled anew, not compared."
    )
    assert {"preflight", "create", "load", "analyze", "compare", "swap"} <= set(result.details["phases"])
    with server.connect(name) as connection:
        assert connection.value('SELECT count(*) FROM "Odd ""x"."Order Lines"') == 500
        assert connection.value('SELECT nextval(\'"Odd ""x"."Order Lines_id_seq"\')') == 501
        assert connection.value("SELECT nextval('public.lonely')") == 42
        assert connection.value("SELECT count(*) FROM pg_statistic WHERE starelid = 'parts_1'::regclass") == 2
        comment = connection.value(
            "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()"
        )
        assert comment == f"Restored by pgsteward from backup {backup_id} of {target.database}"
        public = "SELECT has_database_privilege('public', current_database(), 'CONNECT')"
        assert connection.value(public) is True
    assert nothing_left(server)
    assert backups(target).details["backups"][0]["state"] == "proven"


def test_a_copy_of_a_closed_database_stays_closed_and_says_so(
    target: Target, server: Server, new_name: str
) -> None:
    with server.connect() as connection:
        connection.execute(compose("REVOKE CONNECT ON DATABASE {} FROM PUBLIC", identifier(target.database)))
    back_up(target)
    result = restore(target, into=new_name)
    assert "closed to PUBLIC" in result.skipped[0].reason
    with server.connect(new_name) as connection:
        assert not connection.value("SELECT has_database_privilege('public', current_database(), 'CONNECT')")


def test_the_locale_of_the_new_database_is_the_old_ones(
    server: Server, tmp_path: Path, new_name: str
) -> None:
    name = f"latin_{uuid.uuid4().hex[:10]}"
    with server.connect() as connection:
        connection.execute(
            compose(
                "CREATE DATABASE {} TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'",
                identifier(name),
            )
        )
    try:
        latin = Database(server, name)
        latin.execute("CREATE TABLE wörter AS SELECT 'Größe'::text AS wort")
        target = make_target(latin, tmp_path)
        back_up(target)
        assert restore(target, into=new_name).status == "ok"
        with server.connect(new_name) as connection:
            assert connection.value("SHOW server_encoding") == "LATIN1"
            assert connection.value("SELECT wort FROM wörter") == "Größe"
    finally:
        server.drop(name)


def test_a_dry_run_looks_at_everything_and_changes_nothing(target: Target, server: Server) -> None:
    back_up(target)
    before = databases_like(server, "%")
    result = restore(target, dry_run=True)
    assert result.dry_run
    assert result.changed[0].action == "would restore"
    verdicts = {check["check"]: check["verdict"] for check in result.details["preflight"]}
    assert verdicts["files"] == verdicts["extensions"] == verdicts["name"] == verdicts["rights"] == "go"
    assert databases_like(server, "%") == before


@pytest.mark.any_server
@pytest.mark.parametrize("dry_run", [True, False])
def test_a_name_that_exists_is_refused(target: Target, server: Server, dry_run: bool) -> None:
    back_up(target)
    with pytest.raises(PreconditionError, match=r"there is a database .* already"):
        restore(target, into=target.database, dry_run=dry_run)
    assert nothing_left(server)


@pytest.mark.any_server
@pytest.mark.parametrize("into", [f"{PREFIX}mine", "x" * 64])
def test_impossible_names_are_refused(target: Target, into: str) -> None:
    back_up(target)
    with pytest.raises(PreconditionError, match="name:"):
        restore(target, into=into)


@pytest.mark.any_server
def test_a_missing_extension_is_a_no_go_with_its_remedy(target: Target, server: Server) -> None:
    back_up(target)
    change_manifest(target, extensions={"plpgsql": "1.0", "Post GIS": "3.5"})
    with pytest.raises(PreconditionError, match="not installed on this server: Post GIS; install"):
        restore(target)
    assert nothing_left(server)


@pytest.mark.any_server
def test_one_changed_byte_is_refused_by_the_files_name(target: Target, server: Server) -> None:
    backup_id = back_up(target).details["backup_id"]
    for path in sorted((backup_folder(target, backup_id)).rglob("*")):
        if not path.is_file() or path.name == MANIFEST:
            continue
        good = path.read_bytes()
        path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        with pytest.raises(VerificationFailed, match=path.name):
            restore(target)
        path.write_bytes(good)
    assert nothing_left(server)
    assert restore(target, dry_run=True).status == "ok"


@pytest.mark.any_server
def test_a_missing_file_is_refused_by_its_name(target: Target) -> None:
    backup_id = back_up(target).details["backup_id"]
    (backup_folder(target, backup_id) / "dump" / "toc.dat").unlink()
    with pytest.raises(VerificationFailed, match=r"dump/toc\.dat of backup .* is missing"):
        restore(target)


@pytest.mark.any_server
def test_what_there_is_no_backup_of_can_not_be_restored(target: Target) -> None:
    with pytest.raises(PreconditionError, match="there is no complete backup of"):
        restore(target)
    with pytest.raises(PreconditionError, match="no complete backup 20200101T000000Z-000000"):
        restore(target, "20200101T000000Z-000000")
    with pytest.raises(ConfigError, match="is not a backup; write latest, latest-proven or an id"):
        restore(target, "yesterday")


def test_a_copy_that_differs_is_dropped_and_its_table_named(target: Target, server: Server) -> None:
    backup_id = back_up(target).details["backup_id"]
    path = backup_folder(target, backup_id) / MANIFEST
    manifest = json.loads(path.read_text())
    for relation in manifest["proof"]["relations"]:
        if relation["name"] == "Order Lines":
            relation["hash_a"] = "1"
    path.write_bytes(sealed(path.read_bytes(), **manifest))
    with pytest.raises(VerificationFailed, match=r'"Odd ""x"."Order Lines": content differs'):
        restore(target)
    assert nothing_left(server)
    assert backups(target).details["backups"][0]["state"] == "differs"
    (receipt,), damaged = read_receipts(target.store("disk"), target.name, target.database)
    assert (receipt.verdict, damaged) == ("red", [])


@pytest.mark.any_server
def test_receipts_form_a_chain_and_the_newest_decides(target: Target, server: Server, new_name: str) -> None:
    back_up(target)
    restore(target, into=new_name)
    server.drop(new_name)
    restore(target, into=new_name)
    store = target.store("disk")
    keys = [stored.key for stored in store.objects(f"{target.name}/{target.database}/receipts/")]
    receipts, _ = read_receipts(store, target.name, target.database)
    assert [receipt.verdict for receipt in receipts] == ["green", "green"]
    assert receipts[0].previous_sha256 is None
    assert receipts[1].previous_sha256 == hashlib.sha256(store.get_bytes(keys[0])).hexdigest()


@pytest.mark.any_server
@pytest.mark.parametrize("level, status", [("counts", "ok"), ("none", "partial")])
def test_what_was_not_compared_is_not_called_ok(
    database: Database, tmp_path: Path, new_name: str, level: str, status: str
) -> None:
    database.execute("CREATE TABLE t AS SELECT 1 AS a")
    target = make_target(database, tmp_path, backup={"proof": level})
    back_up(target)
    result = restore(target, into=new_name)
    assert result.status == status
    assert result.details["proof"]["level"] == level
    assert (result.details["receipt"] is None) == (level == "none")
    assert bool(result.unknown) == (level == "none")


def test_a_missing_owner_is_degraded_and_named(database: Database, tmp_path: Path, new_name: str) -> None:
    role = f"Owner {uuid.uuid4().hex[:8]}"
    database.execute(compose("CREATE ROLE {}", identifier(role)))
    try:
        database.execute("CREATE TABLE t AS SELECT 1 AS a")
        database.execute(compose("ALTER TABLE t OWNER TO {}", identifier(role)))
        target = make_target(database, tmp_path)
        back_up(target)
        database.execute("ALTER TABLE t OWNER TO CURRENT_USER")
    finally:
        database.execute(compose("DROP OWNED BY {} ", identifier(role)))
        database.execute(compose("DROP ROLE {}", identifier(role)))
    result = restore(target, into=new_name)
    assert result.status == "partial"
    assert any(note.object == "TABLE public.t" and role in note.reason for note in result.skipped), result
    (roles,) = [check for check in result.details["preflight"] if check["check"] == "roles"]
    assert roles["verdict"] == "warning"
    assert role in roles["says"]
    assert result.details["proof"]["equal"] is True


def test_a_view_that_can_not_be_filled_is_degraded_and_named(
    database: Database, tmp_path: Path, new_name: str
) -> None:
    database.execute(
        """
        CREATE TABLE items AS SELECT 1 AS a;
        CREATE FUNCTION how_many() RETURNS bigint LANGUAGE plpgsql
            AS 'BEGIN RETURN (SELECT count(*) FROM public.items); END';
        CREATE MATERIALIZED VIEW "How many" AS SELECT how_many();
        CREATE OR REPLACE FUNCTION how_many() RETURNS bigint LANGUAGE plpgsql
            AS 'BEGIN RETURN (SELECT count(*) FROM items); END'
        """
    )
    target = make_target(database, tmp_path)
    back_up(target)
    result = restore(target, into=new_name)
    assert result.status == "partial"
    assert result.skipped[0].object == 'public."How many"'
    assert "REFRESH it" in result.skipped[0].reason
    assert "could not be filled" in result.summary


def test_an_object_that_is_missing_is_fatal_and_nothing_stays(
    database: Database, tmp_path: Path, server: Server
) -> None:
    database.execute(
        """
        CREATE TABLE items AS SELECT 1 AS a;
        CREATE FUNCTION lucky(int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE
            AS 'BEGIN RETURN EXISTS (SELECT FROM public.items WHERE a = $1); END';
        CREATE INDEX "Lucky ones" ON items (lucky(a));
        CREATE OR REPLACE FUNCTION lucky(int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE
            AS 'BEGIN RETURN EXISTS (SELECT FROM items WHERE a = $1); END'
        """
    )
    target = make_target(database, tmp_path)
    back_up(target)
    before = databases_like(server, "%")
    with pytest.raises(VerificationFailed, match=r"INDEX public\.Lucky ones"):
        restore(target)
    assert databases_like(server, "%") == before


@pytest.mark.any_server
def test_a_failed_copy_is_kept_when_asked_for(database: Database, tmp_path: Path, server: Server) -> None:
    database.execute("CREATE TABLE t AS SELECT 1 AS a")
    target = make_target(database, tmp_path)
    backup_id = back_up(target).details["backup_id"]
    path = backup_folder(target, backup_id) / MANIFEST
    path.write_bytes(sealed(path.read_bytes().replace(b'"rows": 1', b'"rows": 2')))
    with pytest.raises(VerificationFailed, match="has 1 rows, the backup has 2"):
        restore(target, keep_failed=True)
    (left,) = leftovers(server.login)
    assert (left.marked, left.alive, left.backup_id) == (True, False, backup_id)
    assert [item.action for item in drop_leftovers(server.login, dry_run=True).changed] == ["would drop"]
    assert [item.object for item in drop_leftovers(server.login).changed] == [left.database]
    assert nothing_left(server)


class Cancelled(BaseException):
    """How a flow run is cancelled."""


@pytest.mark.parametrize("moment", ["reading the backup", "checking", "loading", "analyzing", "proving"])
def test_a_cancelled_restore_leaves_nothing(target: Target, server: Server, moment: str) -> None:
    back_up(target)
    before = databases_like(server, "%")

    def progress(what: str, done: int = 0, total: int = 0) -> None:
        if what.startswith(moment):
            raise Cancelled

    with pytest.raises(Cancelled):
        restore(target, progress=progress)
    assert databases_like(server, "%") == before
    assert nothing_left(server)


def test_two_restores_at_once_are_refused_and_the_running_ones_database_is_left_alone(
    target: Target, server: Server
) -> None:
    back_up(target)
    admin = admin_login(server.login)
    with restore_lock(admin), connect(admin, purpose="test") as session:
        name = scratch.create(
            session, "0123", "some-backup", {"ENCODING": "UTF8", "LC_COLLATE": "C", "LC_CTYPE": "C"}
        )
        with pytest.raises(PreconditionError, match="another restore run works"):
            restore(target)
        dropped = drop_leftovers(server.login)
        assert [(note.object, note.reason) for note in dropped.skipped] == [
            (name, "a restore is working on it")
        ]
        assert not session.value(
            "SELECT has_database_privilege('public', %(name)s, 'CONNECT')", {"name": name}
        )
    assert [item.object for item in drop_leftovers(server.login).changed] == [name]


def test_what_was_killed_before_it_got_its_mark_is_dropped(server: Server) -> None:
    name = f"{PREFIX}{uuid.uuid4().hex[:12]}"
    with server.connect() as connection:
        connection.execute(
            compose("CREATE DATABASE {} CONNECTION LIMIT {}", identifier(name), literal(scratch.UNMARKED))
        )
    assert [item.object for item in drop_leftovers(server.login).changed] == [name]


def test_a_database_without_our_mark_is_never_dropped(server: Server) -> None:
    name = f"{PREFIX}somebodys"
    other = f"marked_{uuid.uuid4().hex[:8]}"
    server.create(name)
    server.create(other)
    try:
        with server.connect() as connection:
            connection.execute(
                compose(
                    "COMMENT ON DATABASE {} IS 'pgsteward:restore:{}'", identifier(other), identifier("x")
                )
            )
        dropped = drop_leftovers(server.login)
        assert dropped.changed == ()
        assert {note.object for note in dropped.skipped} == {name, other}
        assert databases_like(server, name) == [name]
        with (
            server.connect() as connection,
            pytest.raises(PreconditionError, match="is not a database of a restore"),
        ):
            scratch.drop(connection, other)
    finally:
        server.drop(name)
        server.drop(other)


@pytest.mark.any_server
def test_a_download_of_a_dead_run_is_removed_and_a_living_ones_is_not(server: Server) -> None:
    with spool("alive") as folder:
        dead = spool_root() / "dead"
        dead.mkdir()
        (dead / "in-use.lock").touch()
        (spool_root() / "somebodys").mkdir()
        assert [item.object for item in drop_leftovers(server.login).changed] == ["download dead"]
        assert folder.exists()
        assert (spool_root() / "somebodys").exists()
        assert not dead.exists()
    assert not folder.exists()


@pytest.mark.any_server
@pytest.mark.parametrize("said", [None, "", "other"])
def test_replacing_asks_for_the_name_twice(target: Target, said: str | None) -> None:
    back_up(target)
    with pytest.raises(PreconditionError, match=f"--confirm-database {target.database}"):
        restore(target, replace=True, confirm_database=said, dry_run=said is not None)
    with pytest.raises(PreconditionError, match="leave into='x' out"):
        restore(target, replace=True, confirm_database=target.database, into="x")
    with pytest.raises(PreconditionError, match="only goes with replace"):
        restore(target, confirm_database=target.database)
    planned = restore(target, replace=True, dry_run=True)
    assert planned.changed[0].action == "would replace"


def replaced(target: Target) -> StepResult:
    return restore(target, replace=True, confirm_database=target.database)


def properties(server: Server, name: str) -> list[dict[str, Any]]:
    with server.connect() as connection:
        return connection.rows(
            """
            SELECT pg_get_userbyid(d.datdba)::text AS owner, d.datacl::text AS acl,
                   d.datconnlimit AS connection_limit,
                   shobj_description(d.oid, 'pg_database') AS comment,
                   (SELECT json_agg(json_build_array(s.setrole::regrole::text, s.setconfig)
                                    ORDER BY s.setrole)
                      FROM pg_db_role_setting AS s WHERE s.setdatabase = d.oid) AS settings
              FROM pg_database AS d WHERE d.datname = %(name)s
            """,
            {"name": name},
        )


def test_replacing_keeps_what_belongs_to_the_database_and_can_be_undone(
    target: Target, server: Server, database: Database
) -> None:
    role = f"Owner {uuid.uuid4().hex[:8]}"
    name = identifier(target.database)
    with server.connect() as connection:
        connection.execute(compose("CREATE ROLE {} CREATEDB", identifier(role)))
        for statement in (
            compose("ALTER DATABASE {} OWNER TO {}", name, identifier(role)),
            compose("REVOKE CONNECT ON DATABASE {} FROM PUBLIC", name),
            compose("GRANT CONNECT ON DATABASE {} TO pg_monitor WITH GRANT OPTION", name),
            compose("ALTER DATABASE {} SET search_path TO '$user', public, 'Odd, \"x'", name),
            compose("ALTER DATABASE {} SET work_mem TO '77MB'", name),
            compose("ALTER DATABASE {} SET app.motto TO 'a, b ''c'''", name),
            compose("ALTER DATABASE {} SET temp_tablespaces TO ''", name),
            compose("ALTER ROLE {} IN DATABASE {} SET statement_timeout TO '5s'", identifier(role), name),
            compose("ALTER DATABASE {} CONNECTION LIMIT 42", name),
            compose("COMMENT ON DATABASE {} IS 'it''s production'", name),
        ):
            connection.execute(statement)
    try:
        before = properties(server, target.database)
        back_up(target)
        database.execute('DELETE FROM "Odd ""x"."Order Lines"')
        with database.connect(purpose="application") as application:
            application.execute("SET application_name = 'the application'")
            result = replaced(target)
            with pytest.raises(DatabaseUnavailable):
                application.value("SELECT 1")
        assert result.status == "ok"
        assert result.changed[0].action == "replaced"
        assert properties(server, target.database) == before
        old = result.details["replaced"]
        assert old.startswith(f"{target.database}_before_20")
        aside = properties(server, old)
        assert str(aside[0].pop("comment")).startswith("pgsteward:replaced:{")
        assert aside == [{key: value for key, value in before[0].items() if key != "comment"}]
        count = 'SELECT count(*) FROM "Odd ""x"."Order Lines"'
        assert database.value(count) == 500
        with server.connect() as connection:
            for statement in result.details["undo"].split("\n"):
                connection.execute(statement.replace("%", "%%").encode())
        assert database.value(count) == 0
        assert properties(server, target.database) == before
        undone = old.replace("_before_", "_undone_")
        assert databases_like(server, undone) == [undone]
    finally:
        with server.connect() as connection:
            for existing in databases_like(server, f"{target.database}%"):
                connection.execute(compose("ALTER DATABASE {} OWNER TO CURRENT_USER", identifier(existing)))
                connection.execute(
                    compose("ALTER ROLE {} IN DATABASE {} RESET ALL", identifier(role), identifier(existing))
                )
            connection.execute(compose("DROP ROLE {}", identifier(role)))


def test_clients_that_reconnect_hardly_notice_a_replacement(target: Target, database: Database) -> None:
    back_up(target)
    stop = threading.Event()
    seen: list[float] = []
    odd: list[StewardError] = []

    def client() -> None:
        while not stop.is_set():
            try:
                with connect(database.login, purpose="client") as connection:
                    connection.execute("SET application_name = 'a client'")
                    while not stop.is_set():
                        connection.value('SELECT count(*) FROM "Odd ""x"."Order Lines"')
                        seen.append(time.monotonic())
                        time.sleep(0.005)
            except (DatabaseUnavailable, PreconditionError):
                time.sleep(0.005)
            except StewardError as exc:
                odd.append(exc)

    clients = [threading.Thread(target=client) for _ in range(4)]
    for thread in clients:
        thread.start()
    try:
        _wait_until(lambda: len(seen) >= 100)
        ordinary = max(after - before for before, after in pairwise(sorted(seen)))
        result = replaced(target)
        ended = time.monotonic()
        _wait_until(lambda: max(seen) > ended)
    finally:
        stop.set()
        for thread in clients:
            thread.join()
    assert result.status == "ok"
    assert odd == []
    ordered = sorted(seen)
    gap = max(after - before for before, after in pairwise(ordered))
    # on a machine that is busy with other things, clients have to wait for it as well
    assert gap < 1.0 + 10 * ordinary, f"unreachable for {gap:.2f} s, and {ordinary:.2f} s before"


def _wait_until(there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_subscription_is_left_out_of_a_copy_and_forbids_a_replacement(
    target: Target, database: Database, new_name: str
) -> None:
    name = f"sub_{uuid.uuid4().hex[:8]}"
    database.execute(
        compose(
            "CREATE SUBSCRIPTION {} CONNECTION 'host=127.0.0.1 port=9 dbname=x' PUBLICATION p"
            " WITH (connect = false)",
            identifier(name),
        )
    )
    try:
        back_up(target)
        result = restore(target, into=new_name)
        assert [note.object for note in result.skipped] == [f"subscription {name}"]
        with pytest.raises(PreconditionError, match=f"subscription {name} is in the way"):
            replaced(target)
    finally:
        database.execute(compose("ALTER SUBSCRIPTION {} SET (slot_name = NONE)", identifier(name)))
        database.execute(compose("DROP SUBSCRIPTION {}", identifier(name)))


def test_there_must_be_something_to_replace(target: Target, server: Server, database: Database) -> None:
    back_up(target)
    moved = f"{target.database}_moved"
    with server.connect() as connection:
        connection.execute(
            compose("ALTER DATABASE {} RENAME TO {}", identifier(target.database), identifier(moved))
        )
        try:
            with pytest.raises(PreconditionError, match=r"there is no database .* to replace"):
                replaced(target)
            result = restore(target, into=target.database)
            assert result.status == "ok"
            server.drop(target.database)
        finally:
            connection.execute(
                compose("ALTER DATABASE {} RENAME TO {}", identifier(moved), identifier(target.database))
            )


def test_a_role_without_rights_is_refused_with_the_statement_that_helps(
    target: Target, database: Database, tmp_path: Path
) -> None:
    role = f"poor_{uuid.uuid4().hex[:8]}"
    database.execute(compose("CREATE ROLE {} LOGIN PASSWORD 'secret-of-the-poor'", identifier(role)))
    try:
        back_up(target)
        (tmp_path / "poor").write_text("secret-of-the-poor")
        login = {"conninfo": f"{database.conninfo} user={role}", "password": {"file": str(tmp_path / "poor")}}
        poor = make_target(database, tmp_path, restore=login)
        with pytest.raises(PreconditionError, match=f"ALTER ROLE {role} CREATEDB") as caught:
            restore(poor)
        assert "secret-of-the-poor" not in str(caught.value)
        with pytest.raises(PreconditionError, match="who owns"):
            restore(poor, replace=True, confirm_database=target.database)
    finally:
        database.execute(compose("DROP ROLE {}", identifier(role)))


@pytest.mark.any_server
def test_the_newest_backup_is_latest_and_a_damaged_one_is_told(target: Target, new_name: str) -> None:
    first = back_up(target).details["backup_id"]
    time.sleep(1.1)
    second = back_up(target).details["backup_id"]
    assert restore(target, dry_run=True).details["backup_id"] == second
    store = target.store("disk")
    store.put_bytes(backup_prefix(target.name, target.database, second) + MANIFEST, b"{")
    result = restore(target, into=new_name)
    assert result.details["backup_id"] == first
    assert result.status == "partial"
    assert result.unknown[0].object == second
    with pytest.raises(VerificationFailed, match="is damaged"):
        restore(target, second)


@pytest.mark.any_server
def test_marks_can_be_told_from_other_comments() -> None:
    assert scratch._read_mark("nothing of ours") is None
    assert scratch._read_mark(MARK + "not json") is None
    assert scratch._read_mark(MARK + "[]") is None


@pytest.mark.any_server
@pytest.mark.parametrize(
    "database, suffix, expected",
    [
        pytest.param("app", "_x", "app_x", id="short"),
        pytest.param("a" * 63, "_restore_20261123020000", "a" * 40 + "_restore_20261123020000", id="long"),
        pytest.param("ü" * 31, "_x", "ü" * 30 + "_x", id="never-half-a-letter"),
    ],
)
def test_derived_names_fit(database: str, suffix: str, expected: str) -> None:
    assert scratch.fit_name(database, suffix) == expected


def test_a_table_that_somebody_locks_is_named_and_the_others_are_analyzed(database: Database) -> None:
    database.execute("CREATE TABLE a (i int); CREATE TABLE b (i int)")
    with database.connect() as other, database.connect() as inside, other.transaction():
        other.execute("LOCK TABLE a")
        inside.execute("SET lock_timeout = '100ms'")
        (failed,) = _analyze_each(inside, [("public", "a"), ("public", "b")])
    assert failed.object == "public.a"
    assert "lock timeout" in failed.reason
