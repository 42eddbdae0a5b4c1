"""What can be known of a materialized view's sources, asked of a real server."""

from __future__ import annotations

from pathlib import Path
from typing import LiteralString

import pytest

from pgsteward.matview_changes import look_at, read_sources, why_changed
from pgsteward.matviews import refresh
from pgsteward.postgres import compose, identifier, raw
from tests.integration.backup_targets import make_target
from tests.servers import Database

UNKNOWN = "nothing is known of an earlier refresh"
ODD = "{}:relid 3 \\ :funcid 1299 {NEXTVALUEEXPR}"
"""The name of a column that looks like what is looked for."""


@pytest.fixture
def base(database: Database) -> Database:
    with database.connect() as connection:
        connection.execute("CREATE TABLE base (id int, n numeric, s text, d date, t timestamptz)")
        connection.execute(compose("ALTER TABLE base ADD COLUMN {} int", identifier(ODD)))
        connection.execute("CREATE TABLE closed (id int)")
        connection.execute("ALTER TABLE closed ENABLE ROW LEVEL SECURITY")
        connection.execute("CREATE SEQUENCE counter")
        connection.execute("CREATE VIEW today AS SELECT current_date AS day")
        connection.execute("CREATE FUNCTION moody(int) RETURNS int LANGUAGE sql RETURN $1")
        connection.execute("CREATE FUNCTION mood(int, int) RETURNS int LANGUAGE sql STABLE RETURN $1")
        connection.execute("CREATE OPERATOR <~> (LEFTARG = int, RIGHTARG = int, FUNCTION = mood)")
        connection.execute("CREATE AGGREGATE moods(int) (SFUNC = mood, STYPE = int)")
        connection.execute("CREATE FOREIGN DATA WRAPPER elsewhere")
        connection.execute("CREATE SERVER far FOREIGN DATA WRAPPER elsewhere")
        connection.execute("CREATE FOREIGN TABLE remote (id int) SERVER far")
        connection.execute("CREATE TABLE parts (id int) PARTITION BY RANGE (id)")
        connection.execute("CREATE FOREIGN TABLE p1 PARTITION OF parts FOR VALUES FROM (1) TO (9) SERVER far")
    return database


def judge(database: Database, query: LiteralString) -> str | None:
    """Return what is said of a view with this query that is not known yet."""
    with database.connect() as connection:
        connection.execute(compose("CREATE MATERIALIZED VIEW v AS {} WITH NO DATA", raw(query)))
        oid = connection.value("SELECT 'v'::regclass::oid::int8")
        sources = read_sources(connection, [oid])[oid]
        return why_changed(sources, look_at(connection, sources), None)


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        pytest.param("SELECT now()", "now()", id="stable-function"),
        pytest.param("SELECT random() FROM base", "random()", id="volatile-function"),
        pytest.param("SELECT moody(id) FROM base", "public.moody(", id="own-function"),
        pytest.param("SELECT id FROM base WHERE id <~> 3 = 1", "public.mood(", id="own-operator"),
        pytest.param("SELECT moods(id) FROM base", "public.moods(", id="aggregate"),
        pytest.param("SELECT moods(id) OVER () FROM base", "public.moods(", id="window"),
        pytest.param("SELECT current_date", "CURRENT_DATE", id="current-date"),
        pytest.param("SELECT day FROM today", "CURRENT_DATE", id="in-a-plain-view"),
        pytest.param("SELECT (SELECT current_user FROM base LIMIT 1)", "CURRENT_USER", id="in-a-subquery"),
        pytest.param("WITH w AS (SELECT current_user) SELECT * FROM w, base", "CURRENT_USER", id="in-a-with"),
        pytest.param("SELECT t::text FROM base", "timestamptz_out", id="cast-to-text"),
        pytest.param("SELECT s::timestamptz FROM base", "timestamptz_in", id="cast-from-text"),
        pytest.param("SELECT coalesce(t, t)::text FROM base", "timestamptz_out", id="cast-of-an-expression"),
        pytest.param("SELECT d::timestamptz FROM base", "timestamptz(date)", id="cast-by-function"),
        pytest.param("SELECT nextval('counter') FROM base", "can't be followed", id="nextval"),
        pytest.param("SELECT last_value FROM counter", "sequence", id="sequence"),
        pytest.param("SELECT id FROM base TABLESAMPLE system (10)", "TABLESAMPLE", id="sample"),
        pytest.param("SELECT id FROM remote", "foreign table", id="foreign-table"),
        pytest.param("SELECT id FROM parts", "foreign table", id="foreign-partition"),
        pytest.param("SELECT id FROM closed", "row-level security", id="row-security"),
        pytest.param("SELECT count(*) FROM pg_class", "system catalogs", id="catalog"),
        pytest.param(
            "SELECT table_name::text FROM information_schema.tables",
            "not immutable",
            id="information-schema",
        ),
    ],
)
def test_what_can_change_by_itself_is_never_taken_for_unchanged(
    base: Database, query: LiteralString, reason: str
) -> None:
    said = judge(base, query)
    assert said is not None
    assert reason in said


@pytest.mark.parametrize(
    "query",
    [
        pytest.param("SELECT * FROM base", id="odd-column"),
        pytest.param("SELECT 1 AS one", id="no-table"),
        pytest.param(
            "SELECT id::text, n::text AS a, s::int AS b, s::numeric AS c FROM base", id="exact-casts"
        ),
        pytest.param("SELECT s, count(*), max(d), sum(n) FROM base GROUP BY s ORDER BY 1", id="aggregates"),
        pytest.param(
            "SELECT row_number() OVER (ORDER BY id), lag(n) OVER w FROM base WINDOW w AS (ORDER BY d)",
            id="windows",
        ),
        pytest.param(
            "SELECT upper(s) || 'x', CASE WHEN id IN (1, 2) THEN d + 1 END FROM base b"
            " WHERE EXISTS (SELECT FROM base WHERE id = b.id) AND s LIKE 'a%'",
            id="expressions",
        ),
        pytest.param("SELECT g FROM generate_series(1, 9) AS g JOIN base ON id = g", id="set-function"),
    ],
)
def test_what_depends_on_its_tables_alone_can_be_known(base: Database, query: LiteralString) -> None:
    assert judge(base, query) == UNKNOWN


def test_a_function_that_needs_search_path_is_named_before_it_fails(
    database: Database, tmp_path: Path
) -> None:
    with database.connect() as connection:
        connection.execute("CREATE TABLE base (id int)")
        connection.execute(
            "CREATE FUNCTION total() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM base'"
        )
        connection.execute(
            "CREATE FUNCTION fine() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM public.base'"
        )
        connection.execute(
            "CREATE FUNCTION deep() RETURNS bigint LANGUAGE plpgsql"
            " AS 'BEGIN RETURN (SELECT count(*) FROM base); END'"
        )
        for name in ("total", "fine", "deep"):
            view, function = identifier(f"by_{name}"), identifier(name)
            connection.execute(
                compose("CREATE MATERIALIZED VIEW {} AS SELECT {}() AS n WITH NO DATA", view, function)
            )
    target = make_target(database, tmp_path)
    dry = refresh(target, dry_run=True)
    assert [note.object for note in dry.findings] == ["public.by_total"]
    fix = "ALTER FUNCTION public.total() SET search_path = public, pg_temp"
    assert fix in dry.findings[0].reason
    found = refresh(target)
    if database.server.version >= 17:
        reasons = {note.object: note.reason for note in found.failed}
        assert set(reasons) == {"public.by_total", "public.by_deep"}
        assert fix in reasons["public.by_total"]
        assert "ALTER FUNCTION public.deep()" in reasons["public.by_deep"]
    else:
        assert (found.failed, len(found.changed)) == ((), 3)
        assert [note.object for note in found.findings] == ["public.by_total"]
    for name in ("total", "deep"):
        with database.connect() as connection:
            connection.execute(
                compose("ALTER FUNCTION {}() SET search_path = public, pg_temp", identifier(name))
            )
    healed = refresh(target)
    assert (healed.status, healed.findings) == ("ok", ())
