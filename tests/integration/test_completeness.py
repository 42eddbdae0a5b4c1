from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgsteward import postgres
from pgsteward.backup.dump import back_up
from pgsteward.backup.globals_sql import decompress
from pgsteward.backup.run import back_up_everywhere
from pgsteward.clients import choose_client, find_clients
from pgsteward.pgtools import run_tool
from pgsteward.postgres import Login, compose, identifier
from pgsteward.restore.properties import read_properties
from pgsteward.targets import Target
from tests import servers
from tests.integration.backup_targets import backup_folder, make_target, stored_manifest
from tests.servers import Database, Server


@pytest.fixture
def role(database: Database) -> Iterator[str]:
    """A role with a password and no rights; pg_read_all_data would open pg_authid too."""
    name = f"Reader {uuid.uuid4().hex[:8]}"
    quoted = identifier(name)
    database.execute(compose("CREATE ROLE {} LOGIN PASSWORD 'reader pw'", quoted))
    yield name
    database.execute(compose("DROP OWNED BY {}", quoted))
    database.execute(compose("DROP ROLE {}", quoted))


def script(target: Target, backup_id: str, name: str) -> str:
    return decompress((backup_folder(target, backup_id) / name).read_bytes()).decode()


def test_a_table_that_is_suddenly_empty_is_a_finding_and_the_backup_is_made(
    database: Database, tmp_path: Path
) -> None:
    database.execute("CREATE TABLE kept (a int); INSERT INTO kept SELECT generate_series(1, 1100)")
    database.execute("CREATE TABLE emptied (a int); INSERT INTO emptied SELECT generate_series(1, 5000)")
    target = make_target(database, tmp_path, backup={"compress": "none", "proof": "counts"})
    for _ in range(5):
        assert back_up(target).status == "ok"
    database.execute("DELETE FROM emptied")
    result = back_up_everywhere(target)
    assert result.status == "partial"
    assert result.only_findings
    said = {note.object: note.reason for note in result.findings}
    assert said["public.emptied"].startswith("has no rows now, and had 5,000 or more")
    assert said[database.dbname].startswith("much ")
    manifest = stored_manifest(target, result.details["backup_id"])
    assert any(each.startswith("public.emptied: ") for each in manifest.anomalies)
    assert result.details["anomalies"] == list(manifest.anomalies)


def test_options_that_a_role_may_not_read_are_named(database: Database, tmp_path: Path, role: str) -> None:
    """pg_dump writes such a mapping without its user and password, and says nothing."""
    quoted = identifier(role)
    database.execute("CREATE FOREIGN DATA WRAPPER w")
    database.execute('CREATE SERVER "Far away" FOREIGN DATA WRAPPER w')
    database.execute("CREATE USER MAPPING FOR PUBLIC SERVER \"Far away\" OPTIONS (password 'x')")
    database.execute(compose('GRANT USAGE ON FOREIGN SERVER "Far away" TO {}', quoted))
    database.execute(compose("CREATE USER MAPPING FOR {} SERVER \"Far away\" OPTIONS (password 'y')", quoted))
    assert back_up(make_target(database, tmp_path)).skipped == ()
    target = make_target(database, tmp_path, login=Login(f"{database.conninfo} user='{role}'", "reader pw"))
    made = back_up(target)
    assert made.status == "ok"
    (note,) = made.skipped
    assert note.object == 'user mapping of public for "Far away"'
    assert "not in the backup" in note.reason
    said = f"{note.object}: {note.reason}"
    assert stored_manifest(target, made.details["backup_id"]).not_in_dump == (said,)


def test_databases_that_no_target_covers_are_named(database: Database, tmp_path: Path) -> None:
    with servers.private_database(database.server) as other:
        result = back_up(make_target(database, tmp_path))
        named = result.details["uncovered_databases"]
        assert other.dbname in named
        assert database.dbname not in named
        assert not {"postgres", "template0", "template1"} & set(named)
        stored = stored_manifest(make_target(database, tmp_path), result.details["backup_id"])
        assert list(stored.uncovered_databases) == named
        with database.server.connect() as admin:
            admin.execute("CREATE TABLE somebodys (a int)")
            try:
                again = back_up(make_target(database, tmp_path))
                assert "postgres" in again.details["uncovered_databases"]
            finally:
                admin.execute("DROP TABLE somebodys")


@pytest.mark.parametrize("asked_for", [False, True])
def test_passwords_of_roles_are_in_the_backup_when_asked_for(
    database: Database, role: str, tmp_path: Path, asked_for: bool
) -> None:
    target = make_target(database, tmp_path, backup={"role_passwords": asked_for})
    result = back_up(target)
    assert result.status == "ok"
    backup_id = result.details["backup_id"]
    text = script(target, backup_id, "globals.sql.zst")
    assert f'CREATE ROLE "{role}"' in text
    assert ("SCRAM-SHA-256" in text) == asked_for
    assert stored_manifest(target, backup_id).role_passwords == asked_for
    said = "Passwords are in it." if asked_for else "Passwords are not in the backup"
    assert said in (backup_folder(target, backup_id) / "RESTORE.md").read_text()


def test_a_server_that_keeps_passwords_to_itself_gives_roles_without(
    database: Database, role: str, tmp_path: Path
) -> None:
    login = Login(f"{database.conninfo} user='{role}'", "reader pw")
    target = make_target(database, tmp_path, login=login, backup={"role_passwords": True})
    result = back_up(target)
    assert result.status == "partial"
    assert [note.object for note in result.unknown] == ["passwords of roles"]
    assert "pg_authid" in result.unknown[0].reason
    manifest = stored_manifest(target, result.details["backup_id"])
    assert not manifest.role_passwords
    assert any(each.startswith("passwords of roles: not in the backup") for each in manifest.warnings)
    assert "PASSWORD" not in script(target, manifest.backup_id, "globals.sql.zst")


@pytest.fixture
def second_server(pytestconfig: pytest.Config, tmp_path: Path) -> Iterator[Server]:
    """An empty server of the same version."""
    with servers.running(pytestconfig.getoption("--pg"), tmp_path / "second") as running:
        yield running


def test_an_empty_server_gets_roles_and_database_as_they_were(
    database: Database, second_server: Server, tmp_path: Path
) -> None:
    tail = uuid.uuid4().hex[:8]
    owner, member = f"Owner {tail}", f"member_{tail}"
    name = f"Hard 'name' %s {tail}"
    server = database.server
    locale = postgres.raw(" LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'" if server.version >= 17 else "")
    with server.connect() as admin:
        o, m, d = identifier(owner), identifier(member), identifier(name)
        for statement in (
            compose("CREATE ROLE {} CREATEDB CONNECTION LIMIT 3 VALID UNTIL '2100-01-01'", o),
            compose("CREATE ROLE {} LOGIN NOINHERIT PASSWORD 'never seen'", m),
            compose("GRANT {} TO {} WITH ADMIN OPTION", o, m),
            compose("ALTER ROLE {} SET work_mem = '3MB'", m),
            compose("COMMENT ON ROLE {} IS 'it''s a role'", m),
            compose("CREATE DATABASE {} TEMPLATE template0{}", d, locale),
            compose("ALTER DATABASE {} OWNER TO {}", d, o),
            compose('ALTER DATABASE {} SET search_path = "$user", "A b", public', d),
            compose("ALTER DATABASE {} SET \"DateStyle\" = 'SQL, DMY'", d),
            compose("ALTER ROLE {} IN DATABASE {} SET work_mem = '8MB'", m, d),
            compose("REVOKE ALL ON DATABASE {} FROM PUBLIC", d),
            compose("GRANT CONNECT, TEMPORARY ON DATABASE {} TO {} WITH GRANT OPTION", d, m),
            compose("ALTER DATABASE {} CONNECTION LIMIT 7", d),
            compose("COMMENT ON DATABASE {} IS 'it''s hard'", d),
        ):
            admin.execute(statement)
    try:
        target = make_target(Database(server, name), tmp_path)
        backup_id = back_up(target).details["backup_id"]
        client = choose_client(find_clients(target.settings.client_dirs), server.version * 10_000)
        for part, strict in (("globals.sql.zst", "0"), ("database.sql.zst", "1")):
            path = tmp_path / part
            path.write_text(script(target, backup_id, part))
            run_tool(
                [
                    client.tool("psql"),
                    "--no-psqlrc",
                    f"--set=ON_ERROR_STOP={strict}",
                    f"--dbname={second_server.login.conninfo}",
                    f"--file={path}",
                ],
                env=second_server.login.tool_env(),
            )
        assert described(second_server, name, owner, member) == described(server, name, owner, member)
    finally:
        server.drop(name)
        with server.connect() as admin:
            for each in (member, owner):
                admin.execute(compose("DROP ROLE {}", identifier(each)))


def described(server: Server, name: str, owner: str, member: str) -> dict[str, object]:
    """Return everything about the database and its roles that the two scripts have to bring back."""
    with server.connect() as admin:
        properties = read_properties(admin, name) or {}
        found: dict[str, object] = {
            **properties,
            "acl": sorted(map(str, properties["acl"])),
            "settings": sorted(map(str, properties["settings"])),
            "locale": admin.row(
                "SELECT to_jsonb(d) - '{oid,datdba,dattablespace,datfrozenxid,datminmxid,datacl}'::text[]"
                "    AS locale"
                "  FROM pg_database AS d WHERE datname = %(name)s",
                {"name": name},
            ),
            "roles": admin.rows(
                "SELECT r.rolname, r.rolsuper, r.rolinherit, r.rolcreaterole, r.rolcreatedb, r.rolcanlogin,"
                "       r.rolconnlimit, r.rolvaliduntil, r.rolbypassrls, r.rolconfig,"
                "       shobj_description(r.oid, 'pg_authid') AS comment"
                "  FROM pg_roles AS r WHERE r.rolname = ANY (%(names)s) ORDER BY 1",
                {"names": [owner, member]},
            ),
            "members": admin.rows(
                "SELECT m.roleid::regrole::text AS role, m.member::regrole::text AS member, m.admin_option"
                "  FROM pg_auth_members AS m WHERE pg_get_userbyid(m.roleid) = %(owner)s",
                {"owner": owner},
            ),
        }
    return found
