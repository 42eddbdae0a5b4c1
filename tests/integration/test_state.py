from __future__ import annotations

from urllib.parse import quote

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from psycopg.conninfo import conninfo_to_dict

from pgsteward.errors import StateFailed
from pgsteward.results import NightResult
from pgsteward.state.engine import open_engine
from pgsteward.state.history import History
from pgsteward.state.tables import metadata
from tests.servers import Database
from tests.unit.test_state import REINDEX, TWO, night

pytestmark = pytest.mark.any_server


def url_of(database: Database, user: str | None = None, password: str | None = None) -> str:
    parts = conninfo_to_dict(database.conninfo)
    name = quote(user or str(parts["user"]))
    secret = quote(password or database.password or "")
    return f"postgresql://{name}:{secret}@{parts['host']}:{parts['port']}/{database.name}"


def test_a_night_comes_back_from_postgresql_as_it_was(database: Database) -> None:
    with History(url_of(database)) as history:
        history.record(night())
        single = history.record(REINDEX, database="intowork")
        assert history.last_night("app") == night()
        assert history.recent("app")[0].id == single
        history.keep("app", "intowork", "analyze", {"public.a": [1, 2]})
        history.keep("app", "intowork", "analyze", {"public.a": {"rows": 3}}, gone=["public.b"])
        assert history.recall("app", "intowork", "analyze") == {"public.a": {"rows": 3}}


def test_everything_lives_in_a_schema_of_its_own(database: Database) -> None:
    with History(url_of(database)):
        pass
    found = database.rows(
        "SELECT DISTINCT schemaname FROM pg_tables"
        " WHERE tablename IN ('runs', 'steps', 'objects', 'step_databases', 'memories', 'alembic_version')"
    )
    assert [row["schemaname"] for row in found] == ["pgsteward"]


def test_the_migrations_make_exactly_the_tables_in_the_code(database: Database) -> None:
    engine = open_engine(url_of(database))
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_instants_are_the_same_whatever_zone_the_role_has(database: Database) -> None:
    url = url_of(database)
    with History(url) as history:
        database.execute("ALTER ROLE postgres SET TimeZone = 'Asia/Tokyo'")
        try:
            history.record(NightResult("app", "shop", TWO, 0.0, ()))
            found = history.last_night("app")
        finally:
            database.execute("ALTER ROLE postgres RESET TimeZone")
    assert found is not None
    assert found.started_at == TWO


def test_a_role_that_may_not_make_a_schema_is_told_what_was_refused(database: Database) -> None:
    role = f"state_{database.name}"
    with database.connect() as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'".encode())
    try:
        with pytest.raises(StateFailed, match="permission denied for database"):
            History(url_of(database, role, "x"))
        database.execute(f"CREATE SCHEMA pgsteward AUTHORIZATION {role}".encode())
        with History(url_of(database, role, "x")) as history:
            history.record(night())
    finally:
        database.execute(f"DROP OWNED BY {role}".encode())
        database.execute(f"DROP ROLE {role}".encode())
