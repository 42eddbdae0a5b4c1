"""Restores and drills on a server where one is no superuser, and the database is an application's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo

from pgsteward.backup.dump import back_up
from pgsteward.errors import PreconditionError
from pgsteward.postgres import compose, connect, identifier, quote_name
from pgsteward.restore.drill import drill
from pgsteward.restore.preflight import replaceable
from pgsteward.restore.run import restore
from pgsteward.restore.scope import Scope
from pgsteward.restore.table import restore_table
from pgsteward.targets import Target
from tests.integration.backup_targets import make_target
from tests.servers import Database

MADE = """
CREATE SCHEMA "Odd";
CREATE TABLE own (id int PRIMARY KEY);
CREATE TABLE "Odd"."Order Lines" AS SELECT g AS n FROM generate_series(1, 9) AS g;
INSERT INTO own VALUES (1);
CREATE TABLE forced AS SELECT 1 AS a;
ALTER TABLE forced ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
"""


@pytest.fixture
def roles(database: Database) -> Iterator[tuple[str, str, str]]:
    """An application's role, which owns the database and nearly all in it, one that may read, and ours."""
    words = ("App Owner", "reader", "guest", "o'brien")
    owner, reader, guest, ours = (f"{word} {database.dbname}" for word in words)
    with database.connect() as session:
        try:
            for role in (owner, reader, guest):
                session.execute(compose("CREATE ROLE {}", identifier(role)))
            session.execute(
                compose(
                    "CREATE ROLE {} LOGIN CREATEDB PASSWORD 'of-a-test' IN ROLE {}, {}",
                    identifier(ours),
                    identifier(owner),
                    identifier(guest),
                )
            )
            session.execute(
                compose("ALTER DATABASE {} OWNER TO {}", identifier(database.name), identifier(owner))
            )
            session.execute("DROP EXTENSION IF EXISTS pgstattuple")  # only a superuser can restore it
            with session.transaction():
                session.execute(compose("SET LOCAL ROLE {}", identifier(owner)))
                session.execute(MADE)
                session.execute(compose("GRANT SELECT ON own TO {}", identifier(reader)))
                session.execute(
                    compose('GRANT CREATE, USAGE ON SCHEMA "Odd" TO {}', identifier(guest)),
                )
            with session.transaction():
                session.execute(compose("SET LOCAL ROLE {}", identifier(guest)))
                session.execute('CREATE TABLE "Odd".guests (a int); CREATE SEQUENCE "Odd".numbers')
            yield owner, reader, ours
        finally:
            session.execute(compose("ALTER DATABASE {} OWNER TO CURRENT_USER", identifier(database.name)))
            for role in (ours, reader, guest, owner):
                session.execute(compose("DROP OWNED BY {} CASCADE", identifier(role)))
            for row in session.rows(
                "SELECT datname FROM pg_database WHERE datname LIKE %(like)s",
                {"like": f"{database.name}\\_%"},
            ):
                database.server.drop(row["datname"])
            for role in (ours, reader, guest, owner):
                session.execute(compose("DROP ROLE {}", identifier(role)))


@pytest.fixture
def target(database: Database, roles: tuple[str, str, str], tmp_path: Path) -> Target:
    secret = tmp_path / "role"
    secret.write_text("of-a-test")
    conninfo = make_conninfo(database.conninfo, user=roles[2])
    login = {"conninfo": conninfo, "password": {"file": str(secret)}}
    target = make_target(database, tmp_path, backup={"compress": "gzip:1"}, restore=login)
    assert back_up(target).status == "ok"
    return target


def test_what_is_whole_is_called_so(target: Target, database: Database, roles: tuple[str, str, str]) -> None:
    drilled = drill(target, on_server=True)
    assert (drilled.status, drilled.details["verdict"]) == ("ok", "green"), (
        drilled.unknown,
        drilled.failed,
    )
    assert drilled.details["schema_equal"] is True
    made = restore(target, into=f"{database.name}_shape", scope=Scope(schema_only=True))
    assert made.status == "ok", made.as_json()
    with database.server.connect(f"{database.name}_shape") as session:
        owner = "SELECT relowner::regrole::text FROM pg_class WHERE oid = 'public.own'::regclass"
        assert session.value(owner) == f'"{roles[0]}"'
        theirs = session.rows(
            "SELECT relowner::regrole::text AS r FROM pg_class WHERE relname IN ('guests', 'numbers')"
        )
        assert [row["r"] for row in theirs] == [f'"guest {database.dbname}"'] * 2, (
            "its right to make it came later"
        )
        forced = "SELECT relforcerowsecurity FROM pg_class WHERE oid = 'public.forced'::regclass"
        assert session.value(forced) is True, "rows were only shown to the comparison"
    assert restore_table(target, '"Odd"."Order Lines"').details["proof"]["equal"] is True


def test_rows_that_are_hidden_from_their_owner_too_are_refused_where_they_live(
    target: Target, database: Database
) -> None:
    into = f"{database.name}_shape"
    with pytest.raises(PreconditionError, match=r"hides rows of public\.forced .*BYPASSRLS"):
        restore_table(target, "forced")
    assert restore(target, into=into, scope=Scope(tables=("forced",), schema_only=True)).status == "ok"
    with pytest.raises(PreconditionError, match=r"public\.forced, and COPY .*BYPASSRLS"):
        restore(target, into=into, scope=Scope(tables=("forced",), data_only=True))


def test_what_could_be_set_in_one_of_two_restores_is_no_damage(
    target: Target, database: Database, roles: tuple[str, str, str]
) -> None:
    _, reader, _ = roles
    renamed = f"{reader} anew"

    def rename(what: str, done: int = 0, total: int = 0) -> None:
        if what == "comparing the schema":
            database.execute(compose("ALTER ROLE {} RENAME TO {}", identifier(reader), identifier(renamed)))

    result = drill(target, on_server=True, progress=rename)
    database.execute(compose("ALTER ROLE {} RENAME TO {}", identifier(renamed), identifier(reader)))
    assert (result.status, result.failed) == ("unknown", ()), result.failed
    (note,) = [note for note in result.unknown if note.object == "schema"]
    assert "privileges not set" in note.reason


def test_a_member_that_inherits_nothing_is_refused_with_the_grant(
    target: Target, database: Database, roles: tuple[str, str, str]
) -> None:
    """What it gave away it could fill no more."""
    owner, _, ours = (identifier(role) for role in roles)
    if database.server.version >= 16:
        database.execute(compose("GRANT {} TO {} WITH INHERIT FALSE", owner, ours))
        way = compose("GRANT {} TO {} WITH INHERIT TRUE", owner, ours)
    else:
        database.execute(compose("ALTER ROLE {} NOINHERIT", ours))
        way = compose("ALTER ROLE {} INHERIT", ours)
    into = f"{database.name}_alone"
    with pytest.raises(PreconditionError, match="inherits nothing") as refused:
        restore(target, into=into)
    assert way.as_string() in str(refused.value)
    database.execute(way)
    assert restore(target, into=into).status == "ok"


def test_a_setting_that_this_role_may_not_give_is_in_the_way_of_a_swap(
    target: Target, database: Database, roles: tuple[str, str, str]
) -> None:
    name, ours = identifier(database.name), identifier(roles[2])
    database.execute(compose('ALTER DATABASE {} SET "my.Own" = 1', name))
    database.execute(compose("ALTER DATABASE {} SET work_mem = '8MB'", name))

    way = compose('GRANT SET ON PARAMETER my."Own" TO {}', ours)
    with connect(target.login("restore").to("postgres"), purpose="test") as session:
        (check,) = [c for c in replaceable(session, database.name) if c.name == "settings"]
        assert (check.go, check.fix) == ("no-go", way.as_string())
        database.execute(way)
        assert "settings" not in [c.name for c in replaceable(session, database.name)]


def test_roles_that_a_lesser_role_makes_get_what_is_theirs(database: Database, tmp_path: Path) -> None:
    owner, maker = (f"{word} {database.name}" for word in ("New One", "maker"))
    names = {"owner": identifier(owner), "maker": identifier(maker)}
    copy = f"{database.name}_copy"
    (tmp_path / "maker").write_text("of-a-test")
    login = {
        "conninfo": make_conninfo(database.conninfo, user=maker),
        "password": {"file": str(tmp_path / "maker")},
    }
    target = make_target(database, tmp_path, restore=login)
    try:
        database.execute(
            compose("CREATE ROLE {maker} LOGIN CREATEDB CREATEROLE PASSWORD 'of-a-test'", **names)
        )
        database.execute(compose("CREATE ROLE {owner}; GRANT CREATE ON SCHEMA public TO {owner}", **names))
        database.execute(compose("GRANT SET ON PARAMETER log_statement TO {owner}", **names))
        database.execute("DROP EXTENSION IF EXISTS pgstattuple; CREATE TABLE t (a int)")
        database.execute(compose("ALTER TABLE t OWNER TO {owner}", **names))
        assert back_up(target).status == "ok"
        database.execute(compose("REASSIGN OWNED BY {owner} TO CURRENT_USER", **names))
        database.execute(compose("DROP OWNED BY {owner}; DROP ROLE {owner}", **names))
        result = restore(target, into=copy, create_roles=True)
        assert [(note.object, note.reason) for note in result.skipped] == []
        with database.server.connect(copy) as session:
            of = "SELECT relowner::regrole::text FROM pg_class WHERE oid = 'public.t'::regclass"
            assert session.value(of) == quote_name(owner)
        (note,) = result.failed
        assert "log_statement" in note.reason, "which it may not grant"
    finally:
        database.server.drop(copy)
        for name in (owner, maker):
            database.execute(compose("DROP OWNED BY {}", identifier(name)))
            database.execute(compose("DROP ROLE {}", identifier(name)))
