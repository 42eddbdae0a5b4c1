"""Restores and drills on a server where one is no superuser, and the database is an application's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo

from pgsteward.backup.dump import back_up
from pgsteward.errors import PreconditionError
from pgsteward.postgres import compose, identifier
from pgsteward.restore.drill import drill
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
"""


@pytest.fixture
def roles(database: Database) -> Iterator[tuple[str, str, str]]:
    """An application's role, which owns the database and all in it, one that may read, and ours."""
    owner, reader, ours = (f"{word} {database.dbname}" for word in ("App Owner", "reader", "o'brien"))
    with database.connect() as session:
        try:
            for role in (owner, reader):
                session.execute(compose("CREATE ROLE {}", identifier(role)))
            session.execute(
                compose(
                    "CREATE ROLE {} LOGIN CREATEDB PASSWORD 'of-a-test' IN ROLE {}",
                    identifier(ours),
                    identifier(owner),
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
            yield owner, reader, ours
        finally:
            session.execute(compose("ALTER DATABASE {} OWNER TO CURRENT_USER", identifier(database.name)))
            for role in (ours, reader, owner):
                session.execute(compose("DROP OWNED BY {} CASCADE", identifier(role)))
            for row in session.rows(
                "SELECT datname FROM pg_database WHERE datname LIKE %(like)s",
                {"like": f"{database.name}\\_%"},
            ):
                database.server.drop(row["datname"])
            for role in (ours, reader, owner):
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
    assert restore_table(target, '"Odd"."Order Lines"').details["proof"]["equal"] is True


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
