"""Databases whose settings, encodings and names get in the way of whoever reads them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pgsteward import postgres
from pgsteward.backup.dump import back_up
from pgsteward.errors import PreconditionError, VerificationFailed
from pgsteward.postgres import Login, compose, identifier, raw
from pgsteward.restore.drill import drill
from pgsteward.restore.run import restore
from pgsteward.restore.scope import Scope
from pgsteward.restore.table import restore_table
from tests.faults.scene import until
from tests.integration.backup_targets import make_target, stored_manifest
from tests.servers import Database, Server


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def copy(server: Server) -> Iterator[Database]:
    """A database to restore into, dropped in the end."""
    name = f"copy_{uuid.uuid4().hex[:8]}"
    yield Database(server, name)
    server.drop(name)


SETTINGS = """
CREATE TABLE t (a text, b int[], c date); INSERT INTO t
VALUES ('日本', '{1,NULL}', '2026-02-01'), (NULL, NULL, NULL);
CREATE SEQUENCE "é"; SELECT nextval('"é"');
"""
IN_THE_WAY = (
    "standard_conforming_strings = off",
    "client_encoding = 'LATIN1'",
    "transform_null_equals = on",
    "array_nulls = off",
    "quote_all_identifiers = on",
    "default_transaction_read_only = on",
    "default_transaction_isolation = serializable",
    "default_transaction_deferrable = on",
    "session_replication_role = replica",
    "row_security = off",
    "DateStyle = 'SQL, DMY'",
    "bytea_output = escape",
    "statement_timeout = '3s'",
    "lock_timeout = '1ms'",
    "idle_session_timeout = '3s'",
    "idle_in_transaction_session_timeout = '3s'",
    "search_path = nowhere",
)


def test_settings_of_the_database_change_nothing(database: Database, copy: Database, tmp_path: Path) -> None:
    database.execute(SETTINGS.encode())
    with database.server.connect() as connection:
        for setting in IN_THE_WAY:
            connection.execute(compose("ALTER DATABASE {} SET ", identifier(database.dbname)) + raw(setting))
    target = make_target(database, tmp_path, backup={"compress": "gzip:1", "jobs": 2})
    made = back_up(target)
    assert made.status == "ok", made
    assert [each.name for each in stored_manifest(target, made.details["backup_id"]).proof.sequences] == ["é"]
    restored = restore(target, into=copy.dbname)
    assert restored.status == "ok", restored
    assert restored.details["proof"]["equal"] is True
    assert copy.value("SELECT a FROM t WHERE b IS NOT NULL") == "日本"


EVIL = """
CREATE TABLE t AS SELECT 1 AS a; CREATE TABLE evil.ran (what text);
CREATE VIEW evil.pg_class AS SELECT * FROM pg_catalog.pg_class WHERE false;
CREATE FUNCTION evil.pg_is_in_recovery() RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE FUNCTION evil.set_config(text, text, boolean) RETURNS text LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO evil.ran VALUES ('set_config'); RETURN $2; END $$;
CREATE FUNCTION evil.pg_try_advisory_lock(int, int) RETURNS boolean LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO evil.ran VALUES ('lock'); RETURN true; END $$;
"""


def test_what_is_named_like_a_part_of_postgresql_is_not_taken_for_it(
    database: Database, tmp_path: Path
) -> None:
    database.execute(b"CREATE SCHEMA evil")
    database.execute(EVIL.encode())
    name = identifier(database.dbname)
    with database.server.connect() as connection:
        connection.execute(compose("ALTER DATABASE {} SET search_path = evil, pg_catalog, public", name))
    made = back_up(make_target(database, tmp_path, backup={"compress": "gzip:1"}))
    assert made.status == "ok", made
    assert made.details["proof"]["relations"] == 2
    assert database.value("SELECT count(*) FROM evil.ran") == 0


def test_a_library_that_is_missing_is_named_with_what_to_do(database: Database, tmp_path: Path) -> None:
    name = identifier(database.dbname)
    with database.server.connect() as connection:
        connection.execute(compose("ALTER DATABASE {} SET session_preload_libraries = nothere", name))
    with pytest.raises(PreconditionError, match=r"nothere.*session_preload_libraries.*RESET"):
        back_up(make_target(database, tmp_path))


@pytest.fixture
def encoded(server: Server, request: pytest.FixtureRequest) -> Iterator[Database]:
    """An empty database of the encoding that the test names."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    with server.connect() as connection:
        connection.execute(
            compose(
                "CREATE DATABASE {} TEMPLATE template0 LOCALE 'C' ENCODING {}",
                identifier(name),
                postgres.literal(request.param),
            )
        )
    yield Database(server, name)
    server.drop(name)


@pytest.mark.parametrize("encoded", ["EUC_TW", "LATIN1"], indirect=True)
def test_names_are_read_in_every_encoding(encoded: Database, copy: Database, tmp_path: Path) -> None:
    latin = encoded.value("SHOW server_encoding") == "LATIN1"
    name = "Größe" if latin else "文"
    encoded.execute(compose("CREATE TABLE {} (a serial)", identifier(name)))
    encoded.execute(compose("INSERT INTO {} DEFAULT VALUES", identifier(name)))
    target = make_target(encoded, tmp_path, backup={"compress": "gzip:1"})
    made = back_up(target)
    assert made.status == "ok", made
    positions = stored_manifest(target, made.details["backup_id"]).proof.sequences
    assert [(each.name, each.last_value) for each in positions] == [(f"{name}_a_seq", 1)]
    assert restore(target, into=copy.dbname).status == "ok"
    copy.server.drop(copy.dbname)
    assert restore(target, into=copy.dbname, scope=Scope(tables=(name,), schema_only=True)).status == "ok"
    assert restore(target, into=copy.dbname, scope=Scope(tables=(name,), data_only=True)).status == "ok"
    assert copy.value(compose("SELECT a FROM {}", identifier(name))) == 1
    brought = restore_table(target, name)
    assert (brought.status, brought.details["difference"]["removed"]) == ("ok", 0)


@pytest.mark.parametrize("encoded", ["SQL_ASCII"], indirect=True)
def test_rows_may_be_any_bytes_but_names_must_be_written_down(
    encoded: Database, copy: Database, tmp_path: Path
) -> None:
    encoded.execute("CREATE TABLE \"é\" AS SELECT convert_from('\\xe9ff', 'SQL_ASCII') AS a".encode())
    target = make_target(encoded, tmp_path, backup={"compress": "gzip:1"})
    assert back_up(target).status == "ok"
    assert restore(target, into=copy.dbname).status == "ok"
    brought = restore_table(target, "é").details
    assert (brought["rows"], brought["merge_script"]) == (1, None)
    encoded.execute('DELETE FROM "é"'.encode())
    assert restore_table(target, "é").details["rows_removed"] == [{"row": "(\\xe9\\xff)"}]
    encoded.execute(
        b"DO $$ BEGIN EXECUTE (SELECT string_agg('DROP SCHEMA ' || oid::regnamespace || ' CASCADE', ';')"
        b" FROM pg_namespace WHERE nspname ^@ 'pgsteward_'); END $$"
    )
    encoded.execute(
        b"DO $$ BEGIN EXECUTE 'CREATE TABLE \"' || convert_from('\\xe974', 'SQL_ASCII') || '\" ()'; END $$"
    )
    with pytest.raises(PreconditionError, match=r"public\.\\xe9t.*not UTF-8.*rename"):
        back_up(target)


@pytest.mark.parametrize("encoded", ["LATIN1"], indirect=True)
def test_what_another_encoding_wrote_about_the_database_is_in_the_way_of_a_swap_only(
    encoded: Database, copy: Database, tmp_path: Path
) -> None:
    """Comments and settings are kept in a catalog of all databases, and in the bytes of this one."""
    name = identifier(encoded.dbname)
    encoded.execute(compose("COMMENT ON DATABASE {} IS 'Größe'", name))
    encoded.execute(compose("ALTER DATABASE {} SET app.title = 'Größe'", name))
    encoded.execute("CREATE TABLE t AS SELECT 'é' AS a".encode())
    target = make_target(encoded, tmp_path, backup={"compress": "gzip:1"})
    assert back_up(target).status == "ok"
    assert restore(target, into=copy.dbname).status == "ok"
    with pytest.raises(
        PreconditionError, match=r"its comment, app\.title of .*another encoding.*set them again"
    ):
        restore(target, replace=True, confirm_database=encoded.dbname)


BROKEN = {
    "TABLE DATA a.bad: .* violates check .*reads other tables": """
        CREATE SCHEMA a; CREATE FUNCTION ok(n int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT n > 0';
        CREATE TABLE a.bad (n int CHECK (ok(n))); CREATE TABLE bad (n int); INSERT INTO a.bad VALUES (1);
        INSERT INTO bad VALUES (1);
        CREATE OR REPLACE FUNCTION ok(n int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT n > 10'""",
    "TABLE DATA public.uses: .*does not exist.*relies on search_path.*SET": """
        CREATE TABLE lookup AS SELECT 1 AS k;
        CREATE FUNCTION known(n int) RETURNS bool LANGUAGE sql STABLE AS
            'SELECT EXISTS (SELECT FROM lookup WHERE k = n)';
        CREATE TABLE uses (n int CHECK (known(n))); INSERT INTO uses VALUES (1)""",
    "FK CONSTRAINT public.c c_p_fk: .*triggers were off.*mend them there": """
        CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE c (p int CONSTRAINT c_p_fk REFERENCES p);
        SET session_replication_role = replica; INSERT INTO c VALUES (99)""",
    "INDEX public.u_id: .*pg_amcheck": """
        CREATE TABLE u (id int); INSERT INTO u VALUES (1); CREATE UNIQUE INDEX u_id ON u (id);
        UPDATE pg_index SET indisready = false, indisvalid = false WHERE indexrelid = 'u_id'::regclass;
        INSERT INTO u VALUES (1);
        UPDATE pg_index SET indisready = true, indisvalid = true WHERE indexrelid = 'u_id'::regclass""",
}


@pytest.mark.parametrize("says", BROKEN, ids=["check", "search-path", "foreign-key", "index"])
def test_what_is_broken_in_the_original_is_named_with_what_to_do_there(
    database: Database, tmp_path: Path, says: str
) -> None:
    database.execute(BROKEN[says].encode())
    target = make_target(database, tmp_path, backup={"compress": "gzip:1", "jobs": 2})
    assert back_up(target).status == "ok"
    with pytest.raises(VerificationFailed, match=says):
        restore(target)


@pytest.mark.parametrize("jobs", [1, 2])
def test_rows_that_need_those_of_a_table_after_them_are_loaded_after_it(
    database: Database, copy: Database, tmp_path: Path, jobs: int
) -> None:
    """No archive says what a function looks up, nor how the tables of an extension refer to each other."""
    database.execute(b"""
        CREATE TABLE z AS SELECT i AS k FROM generate_series(1, 30000) AS i;
        CREATE FUNCTION in_z(n int) RETURNS bool LANGUAGE sql
            AS 'SELECT EXISTS (SELECT FROM public.z WHERE k = n)';
        CREATE TABLE y (k int CHECK (in_z(k))); INSERT INTO y VALUES (1);
        CREATE FUNCTION in_y(n int) RETURNS bool LANGUAGE sql
            AS 'SELECT EXISTS (SELECT FROM public.y WHERE k = n)';
        CREATE TABLE x (k int CHECK (in_y(k))); INSERT INTO x VALUES (1)""")
    target = make_target(database, tmp_path, backup={"compress": "gzip:1"})
    assert back_up(target).status == "ok"
    restored = restore(target, into=copy.dbname, jobs=jobs)
    assert restored.status == "ok", restored.as_json()
    assert restored.details["proof"]["equal"] is True


def test_rights_that_met_another_session_are_given_again(
    database: Database, copy: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """So workers lose them to each other; an index that takes its time lets the test be the other one."""
    database.execute(b"""
        CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'; GRANT EXECUTE ON FUNCTION f TO pg_monitor;
        CREATE TABLE t (n int); INSERT INTO t VALUES (1);
        CREATE FUNCTION slow(n int) RETURNS int IMMUTABLE LANGUAGE plpgsql
            AS 'BEGIN PERFORM pg_catalog.pg_sleep(4); RETURN n; END';
        CREATE INDEX ON t (slow(n))""")
    target = make_target(database, tmp_path)
    assert back_up(target).status == "ok"
    with ThreadPoolExecutor(1) as beside:
        met = beside.submit(_grant_until_somebody_waits, database.server)
        restored = restore(target, into=copy.dbname)
    met.result()
    assert restored.status == "ok", restored.as_json()
    assert "tuple concurrently updated" in caplog.text
    assert "pg_monitor=X" in copy.value("SELECT proacl::text FROM pg_proc WHERE proname = 'f'")


def _grant_until_somebody_waits(server: Server) -> None:
    """Change the rights to a function of the scratch database, and commit when a worker waits to do so."""
    with server.connect() as session:
        scratch = "SELECT max(datname) FROM pg_database WHERE datname LIKE 'pgsteward_tmp%'"
        until(lambda: session.value(scratch) is not None, "a scratch database")
        dbname = session.value(scratch)
    with server.connect(dbname) as session, server.connect(dbname) as watch:
        until(lambda: watch.value("SELECT to_regprocedure('public.f()') IS NOT NULL"), "a function")
        with session.transaction():
            session.execute("GRANT EXECUTE ON FUNCTION public.f TO pg_read_all_stats")
            until(lambda: watch.value("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"), "who waits")


def test_what_pg_dump_leaves_out_without_a_word_is_named(database: Database, tmp_path: Path) -> None:
    name = f"left_out_{uuid.uuid4().hex[:8]}"
    database.execute(
        compose(
            "CREATE FUNCTION pg_catalog.{}(int) RETURNS int LANGUAGE sql AS 'SELECT 1';"
            " CREATE TABLE t (a int); CREATE UNIQUE INDEX fine ON t (a); CREATE UNIQUE INDEX broken ON t (a)",
            identifier(name),
        )
    )
    database.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'broken'::regclass")
    made = back_up(make_target(database, tmp_path))
    assert made.status == "ok"
    reasons = {note.object: note.reason for note in made.skipped}
    assert reasons.keys() == {"index public.broken", f"function pg_catalog.{name}(integer)"}
    assert "CONCURRENTLY" in reasons["index public.broken"]


def test_a_role_whose_sessions_are_read_only_is_told_so_before_a_restore(
    database: Database, tmp_path: Path
) -> None:
    role = f"reader_{uuid.uuid4().hex[:8]}"
    database.execute(compose("CREATE ROLE {} LOGIN SUPERUSER PASSWORD 'pw'", identifier(role)))
    try:
        database.execute(compose("ALTER ROLE {} SET default_transaction_read_only = on", identifier(role)))
        target = make_target(database, tmp_path, login=Login(f"{database.conninfo} user={role}", "pw"))
        assert back_up(target).status == "ok"
        with pytest.raises(PreconditionError, match=r"read-only.*default_transaction_read_only"):
            restore(target)
    finally:
        database.execute(compose("DROP ROLE {}", identifier(role)))


def test_an_index_that_relies_on_search_path_leaves_its_table_unknown(
    database: Database, tmp_path: Path
) -> None:
    """The planner puts a function's body in its place, also where only its table is read."""
    database.execute(b"CREATE TABLE lookup AS SELECT 1 AS k; CREATE TABLE t AS SELECT 1 AS a; ANALYZE t")
    function = b"CREATE OR REPLACE FUNCTION known(n int) RETURNS int LANGUAGE sql IMMUTABLE AS"
    database.execute(function + b" 'SELECT n'; CREATE INDEX ON t (known(a)) WHERE known(1) = 1")
    database.execute(function + b" 'SELECT count(*)::int FROM lookup WHERE k = n'")  # as before 17
    made = back_up(make_target(database, tmp_path, backup={"compress": "gzip:1"}))
    assert made.status == "partial"
    (note,) = made.unknown
    assert note.object == "public.t"
    assert "relies on search_path" in note.reason


def test_the_database_that_restores_work_from_can_not_be_replaced(server: Server, tmp_path: Path) -> None:
    target = make_target(Database(server, "postgres"), tmp_path, backup={"compress": "gzip:1"})
    assert back_up(target).status == "ok"
    with pytest.raises(PreconditionError, match=r"restores work from the database 'postgres'.*--into"):
        restore(target, replace=True, confirm_database="postgres")


@pytest.mark.parametrize("made_in", ["it", "another-database"])
@pytest.mark.parametrize("encoded", ["LATIN1"], indirect=True)
def test_a_role_whose_name_is_not_in_utf_8_is_read_and_found(
    encoded: Database, copy: Database, tmp_path: Path, made_in: str
) -> None:
    role = identifier(f"müller_{encoded.dbname}")
    connection = encoded.connect() if made_in == "it" else encoded.server.connect()
    with connection as session:
        session.execute(compose("CREATE ROLE {} NOLOGIN", role))
    owner = f"müller_{encoded.dbname}"
    if made_in != "it":  # in the bytes of UTF-8, which this database takes for LATIN1
        owner = owner.encode().decode("latin-1")
    try:
        encoded.execute("CREATE TABLE t AS SELECT 1 AS a")
        encoded.execute(compose("ALTER TABLE t OWNER TO {}", identifier(owner)))
        target = make_target(encoded, tmp_path, backup={"compress": "gzip:1"})
        back_up(target)
        restored = restore(target, into=copy.dbname)
        part = restore(target, scope=Scope(tables=("t",)), dry_run=True).details["part"]
        assert part["with_rows"] == ["public.t"]
        checks = {check["check"]: check for check in restored.details["preflight"]}
        assert checks["roles"]["verdict"] == "go", checks["roles"]
        drilled = drill(target)
        assert drilled.details["verdict"] == "green", drilled.as_json()
        assert not any("owner not set" in note.reason for note in drilled.findings), drilled.findings
    finally:
        encoded.server.drop(copy.dbname)
        with encoded.connect() as session:
            session.execute("DROP TABLE IF EXISTS t")
            session.execute(compose("DROP ROLE {}", identifier(owner)))
