"""Go or no-go: what this role and this server can't do is said before anything is created."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo

from pgsteward import capacity
from pgsteward.backup import archive as archive_text
from pgsteward.backup.dump import back_up
from pgsteward.clients import Client
from pgsteward.postgres import Connection, Login, compose, connect, identifier, quote_name
from pgsteward.restore import locales, preflight
from pgsteward.restore.checks import Check
from pgsteward.restore.drill import drill
from pgsteward.restore.run import restore
from pgsteward.restore.scope import Scope
from pgsteward.restore.surroundings import Archive, Options, read_archive
from tests.integration.backup_targets import backup_folder, make_target
from tests.servers import Database, Server
from tests.unit.test_manifest import manifest

CONTENT = """
CREATE COLLATION "Mine, all" (provider = libc, locale = 'C');
CREATE TABLE t (a text COLLATE "POSIX", b text COLLATE "Mine, all");
CREATE OPERATOR FAMILY "My ops" USING btree;
CREATE TYPE mine;
CREATE FUNCTION mine_in(cstring) RETURNS mine LANGUAGE internal STRICT AS 'int4in';
CREATE FUNCTION mine_out(mine) RETURNS cstring LANGUAGE internal STRICT AS 'int4out';
CREATE TYPE mine (INPUT = mine_in, OUTPUT = mine_out, LIKE = int4);
CREATE CAST (mine AS int) WITHOUT FUNCTION;
CREATE FUNCTION quiet(int) RETURNS int LANGUAGE sql LEAKPROOF AS 'SELECT $1';
CREATE FUNCTION loud() RETURNS text LANGUAGE sql AS $$SELECT '
    LANGUAGE c LEAKPROOF'$$;
CREATE FUNCTION old_script() RETURNS text LANGUAGE sql AS $$SELECT '
--
-- TOC entry 1 (class 1259 OID 1)
-- Name: x; Type: PUBLICATION; Schema: -; Owner: nobody_such; Tablespace: nowhere
--
SET default_tablespace = nowhere;
GRANT ALL ON t TO nobody_such;
CREATE COLLATION x (provider = libc, locale = ''nowhere'' COLLATE pg_catalog."nowhere");
'$$;
"""


@pytest.fixture
def session(database: Database) -> Iterator[Connection]:
    """As a role that may create databases, and little else."""
    role = f"o'restorer {database.dbname}"
    name = identifier(role)
    database.execute(compose("CREATE ROLE {} LOGIN CREATEDB CONNECTION LIMIT 4 PASSWORD 'x'", name))
    login = Login(make_conninfo(database.server.login.conninfo, user=role), "x")
    try:
        with connect(login, purpose="test") as session:
            yield session
    finally:
        database.execute(compose("DROP ROLE {}", name))


def read_back(database: Database, tmp_path: Path) -> Archive:
    """Return what the archive of a backup says."""
    target = make_target(database, tmp_path, backup={"compress": "gzip:1"})
    backup_id = str(back_up(target).details["backup_id"])
    made = backup_folder(target, backup_id)
    with database.connect() as session:
        client = preflight.choose(target, manifest(), session.server_version)
        return read_archive(client, made / "dump", archive_text.decoder(session, "UTF8"))


def looked_at(
    session: Connection,
    archive: Archive,
    *,
    no_tablespaces: bool = False,
    copies: int = 1,
    new_roles: list[str] | None = None,
) -> dict[str, Check]:
    client = Client(Path("/nowhere"), (17, 10))
    checks = preflight.examine(
        session,
        manifest(database_bytes=10**15),
        archive,
        client,
        into="new",
        replaces=False,
        jobs=1,
        spool=Path.cwd(),
        copies=copies,
        no_tablespaces=no_tablespaces,
        new_roles=new_roles,
    )
    return {check.name: check for check in checks}


def test_what_a_lesser_role_can_not_do_is_said_beforehand(
    database: Database, server: Server, session: Connection, tmp_path: Path
) -> None:
    database.execute(CONTENT)
    archive = read_back(database, tmp_path)
    assert set(archive.superusers) == {
        "operator family My ops",
        "shell type mine",
        "type mine",
        "cast CAST (public.mine AS integer)",
        "function mine_in(cstring)",
        "function mine_out(public.mine)",
        "function quiet(integer)",
    }
    assert (archive.left_out, archive.tablespaces) == ((), frozenset())
    assert archive.roles == archive.owners == {database.value("SELECT current_user")}
    archive = replace(archive, tablespaces=frozenset({"pg_global"}))
    checks = looked_at(session, archive)
    owner = database.value("SELECT current_user")
    assert checks["rights"].go == "warning"
    assert "only a superuser can make what the backup holds" in checks["rights"].says
    assert "shell type mine" in checks["rights"].says
    assert "and 2 more" in checks["rights"].says
    assert (checks["roles"].go, checks["connections"].go) == ("warning", "no-go")
    assert f"is no member of {owner}" in checks["roles"].says
    assert "3 connections are free" in checks["connections"].says
    assert checks["tablespaces"].go == "no-go"
    assert "GRANT CREATE ON TABLESPACE pg_global" in checks["tablespaces"].fix
    assert looked_at(session, archive, no_tablespaces=True)["tablespaces"].go == "go"
    with server.connect() as superuser:
        checks = looked_at(superuser, archive)
    assert {checks[name].go for name in ("rights", "roles", "connections", "tablespaces")} == {"go"}


def test_whom_a_policy_or_a_user_mapping_is_for_has_to_be_there(
    database: Database, server: Server, tmp_path: Path
) -> None:
    policy, mapping = (f'{word} "{database.dbname}"' for word in ("Policy", "Mapping"))
    database.execute(
        "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; CREATE TABLE t (a int)"
    )
    for name in (policy, mapping):
        database.execute(compose("CREATE ROLE {}", identifier(name)))
    database.execute(compose("CREATE POLICY p ON t TO {}, CURRENT_USER USING (true)", identifier(policy)))
    database.execute("CREATE POLICY q ON t USING (true)")
    database.execute(compose("CREATE USER MAPPING FOR {} SERVER s", identifier(mapping)))
    database.execute("CREATE USER MAPPING FOR PUBLIC SERVER s")
    target = make_target(database, tmp_path, backup={"compress": "gzip:1"})
    try:
        archive = read_back(database, tmp_path)
        assert archive.named_roles == {policy, mapping, database.value("SELECT current_user")}
        with server.connect() as session:
            assert looked_at(session, archive)["roles"].go == "go"
    finally:
        for name in (policy, mapping):
            database.execute(compose("DROP OWNED BY {name}; DROP ROLE {name}", name=identifier(name)))
    with server.connect() as session:
        check = looked_at(session, archive)["roles"]
        assert check.go == "no-go"
        assert quote_name(policy) in check.says
        assert quote_name(mapping) in check.says
        assert looked_at(session, archive, new_roles=[policy, mapping])["roles"].go == "go"
    assert drill(target).details["verdict"] == "green"


@pytest.mark.parametrize("again", [False, True], ids=["closed", "opened-again"])
def test_a_database_that_was_closed_stays_so_where_there_is_no_original(
    database: Database, server: Server, tmp_path: Path, again: bool
) -> None:
    name, copy, away = database.name, f"{database.name}_copy", f"{database.name}_away"
    database.execute(compose("REVOKE ALL ON DATABASE {} FROM PUBLIC", identifier(name)))
    database.execute(compose("GRANT TEMPORARY ON DATABASE {} TO PUBLIC", identifier(name)))
    if again:
        database.execute(compose("GRANT CONNECT ON DATABASE {} TO PUBLIC", identifier(name)))
    target = make_target(database, tmp_path, backup={"compress": "gzip:1"})
    back_up(target)
    server.rename(name, away)
    try:
        restore(target, into=copy, scope=Scope(schema_only=True))
        with server.connect(copy) as session:
            assert (
                session.value("SELECT has_database_privilege('public', current_database(), 'CONNECT')")
                is again
            )
    finally:
        server.rename(away, name)
        server.drop(copy)


def test_room_on_one_disk_is_asked_for_everything_that_goes_there(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = Archive(frozenset(), (), {})
    needed = 10**15 + manifest().size_bytes
    with server.connect() as session:
        for copies, free, go in ((1, needed, "go"), (1, needed - 1, "no-go"), (2, needed, "no-go")):
            monkeypatch.setattr(capacity, "free_bytes", lambda folder, free=free: (free, Path.cwd()))
            checks = looked_at(session, archive, copies=copies)
            assert checks["disk of the server"].go == go
            assert checks["disk here"].go == go


@pytest.mark.parametrize(
    "options, go, says",
    [
        pytest.param({"LOCALE": "C"}, "go", "", id="bytes"),
        pytest.param({"LOCALE": "xx_YY.UTF-8"}, "no-go", "no locale xx_YY.UTF-8: ", id="lacking"),
        pytest.param({"LC_COLLATE": "C", "LC_CTYPE": "xx_YY.UTF-8"}, "no-go", "C and xx_YY", id="half-of-it"),
        pytest.param(
            {"LOCALE_PROVIDER": "builtin", "LOCALE": "C", "BUILTIN_LOCALE": "C.NEVER"},
            *("no-go", "no builtin locale C.NEVER"),
            id="a-later-version's",
        ),
    ],
)
def test_a_locale_that_the_server_lacks_is_a_no_go(
    server: Server, options: Options, go: str, says: str
) -> None:
    archive = Archive(frozenset(), (), options)
    with server.connect() as session:
        check = looked_at(session, archive)["collation"]
        assert session.value("SELECT count(*) FROM pg_collation WHERE collname = 'pgsteward'") == 0
    assert check.go == go
    assert says in check.says


def test_collations_of_columns_are_looked_for(database: Database, server: Server, tmp_path: Path) -> None:
    database.execute(CONTENT)
    archive = read_back(database, tmp_path)
    assert archive.named_collations == {"POSIX"}
    assert archive.made_collations == ({"provider": "libc", "locale": "C"},)
    with server.connect() as session:
        assert "collations of columns" not in looked_at(session, archive)
        strange = replace(archive, named_collations=frozenset({"xx_YY", "C"}))
        checks = looked_at(session, strange)
        assert 'this server lacks "xx_YY"' in checks["collations of columns"].says
        made: Options = {"provider": "libc", "locale": "xx_YY.UTF-8", "deterministic": "false"}
        checks = looked_at(session, replace(archive, made_collations=(made,)))
        assert (checks["collation"].go, "locale xx_YY" in checks["collation"].says) == ("no-go", True)
        other = manifest().server.model_copy(update={"encoding": "LATIN1", "collate": "xx", "ctype": "xx"})
        check = locales.examine(
            session,
            manifest(server=other),
            replace(archive, options={}),
            {"read_only": False, "encoding": "UTF8", "collations": ["POSIX"], "libc_version": "1"},
        )[0]
        assert (check.go, "in another encoding" in check.says) == ("unknown", True)
