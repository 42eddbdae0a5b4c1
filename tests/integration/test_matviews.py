"""Materialized views, refreshed on a real server."""

from __future__ import annotations

import time
from pathlib import Path
from typing import LiteralString

import pytest
from psycopg.conninfo import conninfo_to_dict

from pgsteward.matviews import refresh
from pgsteward.postgres import compose, identifier
from pgsteward.results import StepResult
from tests.integration.backup_targets import make_target
from tests.integration.maintenance import facts_of, flush_counters, temporary_role, way_out
from tests.servers import Database

ODD = 'z, {1} "2"'


@pytest.fixture
def chain(database: Database) -> Database:
    """An oddly named view, read by another through two plain views, read by a third that fails on demand."""
    with database.connect() as connection:
        connection.execute("CREATE TABLE t (a int PRIMARY KEY)")
        connection.execute("INSERT INTO t SELECT generate_series(1, 100)")
        odd = identifier(ODD)
        connection.execute(compose("CREATE MATERIALIZED VIEW {} AS SELECT * FROM t", odd))
        connection.execute(compose("CREATE VIEW v1 AS SELECT * FROM {}", odd))
        connection.execute('CREATE VIEW "v""2" AS SELECT a FROM v1')
        connection.execute('CREATE MATERIALIZED VIEW a AS SELECT max(a) AS a FROM "v""2"')
        connection.execute("CREATE UNIQUE INDEX ON a (a)")
        connection.execute("CREATE MATERIALIZED VIEW b AS SELECT 1 / (500 - a) AS b FROM a WITH NO DATA")
        connection.execute("CREATE MATERIALIZED VIEW c AS SELECT * FROM b WITH NO DATA")
        connection.execute("CREATE MATERIALIZED VIEW sibling AS SELECT count(*) FROM t")
        connection.execute("INSERT INTO t VALUES (200)")
    return database


def change(database: Database, *statements: LiteralString) -> None:
    with database.connect() as connection:
        for statement in statements:
            connection.execute(statement)
        flush_counters(connection)


def names(found: StepResult) -> list[str]:
    return [item.object for item in found.changed]


def test_views_are_refreshed_after_what_they_read_through_plain_views(
    chain: Database, tmp_path: Path
) -> None:
    found = refresh(make_target(chain, tmp_path))
    assert found.status == "ok"
    order = names(found)
    odd = 'public."z, {1} ""2"""'
    assert order.index(odd) < order.index("public.a") < order.index("public.b") < order.index("public.c")
    modes = {item.object: item.facts["mode"] for item in found.changed}
    assert modes == {
        odd: "exclusive",
        "public.a": "concurrently",
        "public.b": "populate",
        "public.c": "populate",
        "public.sibling": "exclusive",
    }
    assert chain.value("SELECT a FROM a") == 200


def test_a_dry_run_lists_order_and_mode_and_refreshes_nothing(chain: Database, tmp_path: Path) -> None:
    found = refresh(make_target(chain, tmp_path), dry_run=True).as_json()
    assert [(entry["matview"], entry["mode"]) for entry in found["order"]] == [
        (item["object"], item["mode"]) for item in found["changed"]
    ]
    assert facts_of(found, "public.a")["action"] == "would refresh"
    assert chain.value("SELECT a FROM a") == 100


def test_what_reads_a_failed_view_is_skipped_by_name_and_siblings_go_on(
    chain: Database, tmp_path: Path
) -> None:
    chain.execute("INSERT INTO t VALUES (500)")
    found = refresh(make_target(chain, tmp_path))
    assert found.status == "partial"
    assert [note.object for note in found.failed] == ["public.b"]
    assert "division by zero" in found.failed[0].reason
    assert [(note.object, note.reason) for note in found.skipped] == [
        ("public.c", "it reads public.b, which was not refreshed")
    ]
    assert "public.sibling" in names(found)


@pytest.mark.parametrize(
    "index",
    [
        pytest.param("CREATE UNIQUE INDEX ON a (a) WHERE a > 3", id="partial"),
        pytest.param("CREATE UNIQUE INDEX ON a ((a + 1))", id="expression"),
        pytest.param("CREATE INDEX ON a (a)", id="not-unique"),
    ],
)
def test_an_index_that_concurrently_can_not_use_does_not_count(
    database: Database, tmp_path: Path, index: str
) -> None:
    database.execute("CREATE MATERIALIZED VIEW a AS SELECT generate_series(1, 9) AS a")
    with database.connect() as connection:
        connection.execute(index.encode())
    assert refresh(make_target(database, tmp_path)).changed[0].facts["mode"] == "exclusive"
    found = refresh(make_target(database, tmp_path, matviews={"allow_exclusive": False}))
    assert found.status == "skipped"
    assert "no unique index" in found.skipped[0].reason


def test_readers_go_on_during_a_concurrent_refresh_and_a_second_one_waits_in_vain(
    chain: Database, tmp_path: Path
) -> None:
    chain.execute(compose("CREATE UNIQUE INDEX ON {} (a)", identifier(ODD)))
    refresh(make_target(chain, tmp_path))
    change(chain, "INSERT INTO t VALUES (300)")
    target = make_target(chain, tmp_path, matviews={"lock_timeout_s": 0.3})
    with chain.connect(purpose="other refresh", autocommit=False) as other:
        other.execute("REFRESH MATERIALIZED VIEW CONCURRENTLY a")
        assert chain.value("SELECT a FROM a") == 200
        began = time.monotonic()
        found = refresh(target)
    assert time.monotonic() - began < 10
    assert found.failed[0].object == "public.a"
    assert "other refresh" in found.failed[0].reason
    assert {note.object for note in found.skipped} == {"public.b", "public.c"}


def test_a_missing_right_fails_with_the_grant(chain: Database, tmp_path: Path) -> None:
    with temporary_role(chain) as login:
        found = refresh(make_target(chain, tmp_path, login=login))
    assert found.status == "failed"
    assert all(way_out(chain) in note.reason for note in found.failed)


def test_views_that_read_each_other_are_said_to(database: Database, tmp_path: Path) -> None:
    database.execute("CREATE MATERIALIZED VIEW one AS SELECT 1 AS n")
    database.execute("CREATE VIEW between AS SELECT n FROM one")
    database.execute("CREATE MATERIALIZED VIEW two AS SELECT n FROM between")
    database.execute("CREATE VIEW back AS SELECT 2 AS n")
    database.execute("CREATE MATERIALIZED VIEW three AS SELECT n FROM back")
    database.execute("CREATE VIEW front AS SELECT n FROM three")
    database.execute("CREATE MATERIALIZED VIEW four AS SELECT n FROM front")
    database.execute("CREATE OR REPLACE VIEW back AS SELECT n FROM four")
    found = refresh(make_target(database, tmp_path))
    assert found.findings[0].object == "public.four, public.three"
    assert len(found.changed) == 4


def test_without_any_view_the_step_is_skipped(database: Database, tmp_path: Path) -> None:
    found = refresh(make_target(database, tmp_path)).as_json()
    assert (found["status"], found["order"]) == ("skipped", [])


def test_an_excluded_view_is_left_alone(chain: Database, tmp_path: Path) -> None:
    found = refresh(make_target(chain, tmp_path, matviews={"exclude": ["sib*"]}))
    assert found.skipped[0].reason == "excluded by matviews.exclude"
    assert "public.sibling" not in names(found)


CHANGES: dict[str, tuple[LiteralString, ...]] = {
    "insert": ("INSERT INTO base VALUES (7, 'g')",),
    "update": ("UPDATE base SET b = 'z' WHERE a = 1",),
    "delete": ("DELETE FROM base WHERE a = 1",),
    "truncate": ("TRUNCATE base",),
    "rewrite": ("ALTER TABLE base ADD COLUMN c float8 DEFAULT random()",),
    "in-a-partition": ("INSERT INTO parts VALUES (5)",),
    "partition-attached": ("CREATE TABLE p9 PARTITION OF parts FOR VALUES FROM (90) TO (99)",),
    "partition-dropped": ("DROP TABLE p1",),
    "in-an-heir": ("INSERT INTO heir VALUES (8, 'h')",),
    "view-replaced": ("CREATE OR REPLACE VIEW between AS SELECT a FROM base WHERE a > 1",),
    "function-replaced": (
        "CREATE OR REPLACE FUNCTION twice(int) RETURNS int LANGUAGE sql IMMUTABLE RETURN $1 * 3",
    ),
    "counters-reset": ("SELECT pg_stat_reset_single_table_counters('base'::regclass)",),
    "all-counters-reset": ("SELECT pg_stat_reset()",),
    "view-made-anew": (
        "DROP MATERIALIZED VIEW top",
        "DROP MATERIALIZED VIEW mid",
        "CREATE MATERIALIZED VIEW mid AS SELECT 0 AS n",
    ),
}


@pytest.fixture
def quiet(database: Database, tmp_path: Path) -> Database:
    """Two views over everything that can change below a view; refreshed by an earlier run."""
    change(
        database,
        "CREATE TABLE base (a int, b text)",
        "INSERT INTO base VALUES (1, 'a'), (2, 'b')",
        "CREATE TABLE heir () INHERITS (base)",
        "CREATE TABLE parts (a int) PARTITION BY RANGE (a)",
        "CREATE TABLE p1 PARTITION OF parts FOR VALUES FROM (0) TO (90)",
        "CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql IMMUTABLE RETURN $1 * 2",
        "CREATE VIEW between AS SELECT a FROM base",
        "CREATE MATERIALIZED VIEW mid AS SELECT twice(count(*)::int) AS n FROM between,"
        " (SELECT 1 FROM parts) AS p",
        "CREATE UNIQUE INDEX ON mid (n)",
        "CREATE MATERIALIZED VIEW top AS SELECT n + 1 AS n FROM mid",
    )
    target = make_target(database, tmp_path)
    assert names(refresh(target)) == ["public.mid", "public.top"]
    found = refresh(target)
    assert (found.status, found.changed, found.examined) == ("ok", (), 2)
    return database


@pytest.mark.parametrize("statements", [pytest.param(CHANGES[name], id=name) for name in CHANGES])
def test_a_view_is_refreshed_after_anything_below_it_has_changed_and_only_then(
    quiet: Database, tmp_path: Path, statements: tuple[LiteralString, ...]
) -> None:
    target = make_target(quiet, tmp_path)
    change(quiet, *statements)
    assert "public.mid" in names(refresh(target, dry_run=True))
    found = refresh(target)
    assert "public.mid" in names(found)
    assert found.status == "ok"
    again = refresh(target)
    assert (again.status, again.changed) == ("ok", ())
    assert "nothing that it reads has changed" in again.skipped[0].reason
    assert len(names(refresh(target, everything=True))) >= 1


@pytest.mark.parametrize("choice", ["fail", "exclusive"])
def test_duplicate_rows_fail_with_the_row_or_are_tried_with_the_exclusive_lock(
    database: Database, tmp_path: Path, choice: str
) -> None:
    change(
        database,
        "CREATE TABLE base (a int)",
        "INSERT INTO base VALUES (1)",
        "CREATE MATERIALIZED VIEW v AS SELECT a FROM base",
        "CREATE UNIQUE INDEX ON v (a)",
    )
    target = make_target(database, tmp_path, matviews={"on_duplicate_rows": choice})
    assert refresh(target).status == "ok"
    change(database, "INSERT INTO base VALUES (1)")
    found = refresh(target)
    assert found.status == "failed"
    assert ("duplicate rows" if choice == "fail" else "could not create unique index") in found.failed[
        0
    ].reason
    assert "1 rows below it have changed since" in found.failed[0].reason
    assert database.value("SELECT count(*) FROM v") == 1
    change(database, "DELETE FROM base WHERE ctid = (SELECT max(ctid) FROM base)")
    assert refresh(target).status == "ok"


def test_what_a_concurrent_refresh_left_as_it_was_makes_nobody_stale(quiet: Database, tmp_path: Path) -> None:
    change(quiet, "UPDATE base SET b = b WHERE a = 1")
    found = refresh(make_target(quiet, tmp_path))
    assert names(found) == ["public.mid"], "its rows are the same, so the view above has nothing new to read"
    change(quiet, "INSERT INTO base VALUES (3)", "INSERT INTO parts VALUES (1)")
    assert names(refresh(make_target(quiet, tmp_path))) == ["public.mid", "public.top"]
    assert quiet.value("SELECT n FROM top") == quiet.value("SELECT 2 * count(*) + 1 FROM base, parts")


def test_everything_is_refreshed_where_skipping_is_off(quiet: Database, tmp_path: Path) -> None:
    target = make_target(quiet, tmp_path, matviews={"skip_unchanged": False})
    assert names(refresh(target)) == ["public.mid", "public.top"]


def test_views_that_do_not_read_each_other_are_refreshed_at_the_same_time(
    database: Database, tmp_path: Path
) -> None:
    """Each of the two waits for the other one to have begun; alone, neither would end."""
    change(
        database,
        "CREATE SEQUENCE arrived",
        "CREATE FUNCTION meet() RETURNS int LANGUAGE plpgsql AS $$ BEGIN"
        " PERFORM pg_catalog.nextval('public.arrived');"
        " WHILE (SELECT last_value FROM public.arrived) < 2 LOOP PERFORM pg_catalog.pg_sleep(0.01); END LOOP;"
        " RETURN 1; END $$",
        "CREATE MATERIALIZED VIEW one AS SELECT meet() AS n WITH NO DATA",
        "CREATE MATERIALIZED VIEW two AS SELECT meet() AS n WITH NO DATA",
    )
    found = refresh(make_target(database, tmp_path, matviews={"statement_timeout_s": 60}))
    assert (found.status, len(found.changed)) == ("ok", 2)


def test_a_view_that_is_dropped_meanwhile_is_no_failure(database: Database, tmp_path: Path) -> None:
    database.execute("CREATE MATERIALIZED VIEW goes AS SELECT 1 AS a")

    def drop(what: str, done: int = 0, total: int = 0) -> None:
        database.execute("DROP MATERIALIZED VIEW goes")

    found = refresh(make_target(database, tmp_path), progress=drop)
    assert [(note.object, note.reason) for note in found.skipped] == [
        ("public.goes", "it was dropped meanwhile")
    ]


def test_a_role_that_may_make_no_temporary_table_is_told_the_grant(
    database: Database, tmp_path: Path
) -> None:
    database.execute("CREATE MATERIALIZED VIEW mine AS SELECT 1 AS a; CREATE UNIQUE INDEX ON mine (a)")
    with temporary_role(database) as login:
        role = identifier(str(conninfo_to_dict(login.conninfo)["user"]))
        with database.connect() as admin:
            admin.execute(compose("REVOKE TEMPORARY ON DATABASE {} FROM PUBLIC", identifier(database.name)))
            admin.execute(compose("ALTER MATERIALIZED VIEW mine OWNER TO {}", role))
        (note,) = refresh(make_target(database, tmp_path, login=login)).failed
        assert f"GRANT TEMPORARY ON DATABASE {database.name} TO" in note.reason
