"""ANALYZE of what is stale, against a real server."""

from __future__ import annotations

from pathlib import Path
from typing import LiteralString

import pytest
from psycopg.conninfo import conninfo_to_dict

from pgsteward.analyze import analyze_stale
from pgsteward.postgres import compose, identifier
from tests.integration.backup_targets import make_target
from tests.integration.maintenance import facts_of, flush_counters, temporary_role, way_out
from tests.servers import Database


def fill(database: Database) -> None:
    with database.connect() as connection:
        connection.execute('CREATE TABLE "Order Lines" (a int)')
        connection.execute('INSERT INTO "Order Lines" SELECT generate_series(1, 1000)')
        flush_counters(connection)


def test_a_table_that_was_never_analyzed_is_and_then_it_is_fresh(database: Database, tmp_path: Path) -> None:
    fill(database)
    target = make_target(database, tmp_path)
    dry = analyze_stale(target, dry_run=True).as_json()
    assert "never analyzed" in facts_of(dry, 'public."Order Lines"')["reason"]
    assert database.value("SELECT last_analyze FROM pg_stat_user_tables") is None

    found = analyze_stale(target).as_json()
    assert found["status"] == "ok"
    assert facts_of(found, 'public."Order Lines"')["action"] == "analyzed"
    assert database.value("SELECT last_analyze FROM pg_stat_user_tables") is not None
    again = analyze_stale(target)
    assert (again.status, again.changed, again.examined) == ("ok", (), 1)


def test_a_table_goes_stale_by_autovacuums_own_rule(database: Database, tmp_path: Path) -> None:
    fill(database)
    target = make_target(database, tmp_path)
    analyze_stale(target)

    def insert(rows: int) -> None:
        with database.connect() as connection:
            connection.execute(
                'INSERT INTO "Order Lines" SELECT generate_series(1, %(rows)s)', {"rows": rows}
            )
            flush_counters(connection)

    insert(150)  # 50 + 0.1 * 1000: exactly at the edge
    assert analyze_stale(target).changed == ()
    half = make_target(database, tmp_path, analyze={"stale_fraction": 0.5})
    assert len(analyze_stale(half, dry_run=True).changed) == 1
    insert(1)
    assert len(analyze_stale(target, dry_run=True).changed) == 1
    database.execute('ALTER TABLE "Order Lines" SET (autovacuum_analyze_scale_factor = 0.9)')
    assert analyze_stale(target).changed == ()


def test_a_missing_right_fails_loudly_with_the_grant(database: Database, tmp_path: Path) -> None:
    fill(database)
    with temporary_role(database) as login:
        found = analyze_stale(make_target(database, tmp_path, login=login))
    assert found.status == "failed"
    assert way_out(database) in found.failed[0].reason
    assert "Night Watch" in found.failed[0].reason
    assert database.value("SELECT last_analyze FROM pg_stat_user_tables") is None


def test_partitioned_parents_are_analyzed_on_three_levels_once(database: Database, tmp_path: Path) -> None:
    with database.connect() as connection:
        connection.execute("CREATE TABLE p (a int) PARTITION BY RANGE (a)")
        connection.execute("CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (9) PARTITION BY RANGE (a)")
        connection.execute("CREATE TABLE p11 PARTITION OF p1 FOR VALUES FROM (0) TO (9)")
        connection.execute("CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (9) TO (99)")
        connection.execute("INSERT INTO p SELECT mod(i, 99) FROM generate_series(1, 2000) AS i")
        flush_counters(connection)
    target = make_target(database, tmp_path)
    assert analyze_stale(target).status == "ok"
    rows = database.rows(
        "SELECT relname FROM pg_class AS c WHERE relname IN ('p', 'p1', 'p11', 'p2')"
        " AND pg_stat_get_last_analyze_time(c.oid) IS NULL"
    )
    assert rows == []
    assert database.value("SELECT count(*) FROM pg_stats WHERE tablename = 'p' AND inherited") == 1
    assert analyze_stale(target).changed == ()

    with database.connect() as connection:
        connection.execute("INSERT INTO p2 SELECT 10 FROM generate_series(1, 3000)")
        flush_counters(connection)
    stale = {item.object for item in analyze_stale(target).changed}
    assert "public.p" in stale
    assert "public.p11" not in stale
    assert analyze_stale(target).changed == ()


@pytest.fixture
def tree(database: Database, tmp_path: Path) -> Database:
    """A parent with two leaves of 1,000 rows each, all of it analyzed by an earlier run."""
    with database.connect() as connection:
        connection.execute('CREATE TABLE "P" (a int) PARTITION BY RANGE (a)')
        connection.execute('CREATE TABLE p1 PARTITION OF "P" FOR VALUES FROM (0) TO (10)')
        connection.execute('CREATE TABLE p2 PARTITION OF "P" FOR VALUES FROM (10) TO (20)')
        connection.execute('INSERT INTO "P" SELECT i %% 20 FROM generate_series(1, 2000) AS i', {})
        flush_counters(connection)
    assert analyze_stale(make_target(database, tmp_path)).status == "ok"
    return database


def change(database: Database, *statements: LiteralString) -> None:
    with database.connect() as connection:
        for statement in statements:
            connection.execute(statement)
            flush_counters(connection)  # before an ANALYZE counts anew


def test_a_parent_goes_by_what_changed_in_its_leaves_since_its_own_last_analyze(
    tree: Database, tmp_path: Path
) -> None:
    target = make_target(tree, tmp_path)
    assert analyze_stale(target).changed == ()
    insert: LiteralString = "INSERT INTO p2 SELECT 11 FROM generate_series(1, 200)"
    change(tree, "ANALYZE p1", insert, "ANALYZE p2")
    assert analyze_stale(target).changed == (), "200 rows of 2,000 are under the threshold of 270"
    change(tree, "INSERT INTO p2 SELECT 11 FROM generate_series(1, 80)")
    found = analyze_stale(target).as_json()
    assert [item["object"] for item in found["changed"]] == ['public."P"'], "p2's own counters began anew"
    assert "280 rows changed in its partitions" in facts_of(found, 'public."P"')["reason"]
    assert analyze_stale(target).changed == ()


@pytest.mark.parametrize(
    "statements",
    [
        pytest.param(
            (
                "CREATE TABLE p3 (a int)",
                "INSERT INTO p3 SELECT 20 FROM generate_series(1, 400)",
                "ANALYZE p3",
                'ALTER TABLE "P" ATTACH PARTITION p3 FOR VALUES FROM (20) TO (30)',
            ),
            id="attached",
        ),
        pytest.param(('ALTER TABLE "P" DETACH PARTITION p2',), id="detached"),
        pytest.param(
            (
                "SELECT pg_stat_reset_single_table_counters('p2'::regclass)",
                "INSERT INTO p2 VALUES (11)",
                "ANALYZE p2",
            ),
            id="reset",
        ),
    ],
)
def test_a_parent_is_stale_after_its_leaves_were_exchanged(
    tree: Database, tmp_path: Path, statements: tuple[LiteralString, ...]
) -> None:
    target = make_target(tree, tmp_path)
    analyze_stale(target)
    change(tree, *statements)
    assert 'public."P"' in {item.object for item in analyze_stale(target).changed}
    assert analyze_stale(target).changed == ()


@pytest.mark.parametrize(
    ("statement", "table", "what"),
    [
        pytest.param(
            'ALTER TABLE "P" ADD COLUMN "New One" int DEFAULT 3', '"P"', 'column "New One"', id="column"
        ),
        pytest.param("CREATE INDEX by_sum ON p2 ((a + 1))", "p2", "expression of index by_sum", id="index"),
        pytest.param(
            "CREATE STATISTICS pair ON a, (a + 1) FROM p1", "p1", "statistics object pair", id="statistics"
        ),
    ],
)
def test_what_was_added_since_the_last_analyze_gets_statistics(
    tree: Database, tmp_path: Path, statement: LiteralString, table: str, what: str
) -> None:
    target = make_target(tree, tmp_path)
    assert analyze_stale(target).changed == ()
    change(tree, statement)
    dry = analyze_stale(target, dry_run=True).as_json()
    assert facts_of(dry, f"public.{table}")["reason"] == f"no statistics of {what}"
    assert analyze_stale(target).status == "ok"
    assert analyze_stale(target).changed == ()


def test_statistics_that_can_not_be_made_are_said_once_and_not_tried_every_night(
    tree: Database, tmp_path: Path
) -> None:
    target = make_target(tree, tmp_path)
    change(
        tree,
        'ALTER TABLE "P" ADD COLUMN b int',
        "ALTER TABLE p1 ALTER COLUMN b SET STATISTICS 0",
        "CREATE STATISTICS never ON a, b FROM p1",
    )
    found = analyze_stale(target)
    assert found.status == "partial"
    assert "raise the statistics target" in found.findings[0].reason
    assert analyze_stale(target).changed == ()


def test_what_the_time_is_too_short_for_is_named(tree: Database, tmp_path: Path) -> None:
    change(tree, "CREATE TABLE late (a int)")
    found = analyze_stale(make_target(tree, tmp_path, analyze={"max_minutes": 1e-6}))
    assert (found.status, found.changed) == ("partial", ())
    assert "no time was left" in found.skipped[0].reason
    assert "max_minutes" in found.findings[0].reason
    assert tree.value("SELECT last_analyze FROM pg_stat_user_tables WHERE relname = 'late'") is None


def test_an_excluded_table_is_left_alone_by_name(tree: Database, tmp_path: Path) -> None:
    change(tree, "CREATE TABLE late (a int)")
    found = analyze_stale(make_target(tree, tmp_path, analyze={"exclude": ["la*"]}))
    assert (found.status, found.changed) == ("ok", ())
    assert found.skipped[0].reason == "excluded by analyze.exclude"


def test_a_leaf_of_somebody_else_is_named_with_the_grant(tree: Database, tmp_path: Path) -> None:
    with temporary_role(tree) as login, temporary_role(tree) as other:
        owner, stranger = (str(conninfo_to_dict(each.conninfo)["user"]) for each in (login, other))
        for table, role in (("P", owner), ("p1", owner), ("p2", stranger)):
            tree.execute(compose("ALTER TABLE {} OWNER TO {}", identifier(table), identifier(role)))
        change(tree, "INSERT INTO p2 SELECT 11 FROM generate_series(1, 2000)")
        found = analyze_stale(make_target(tree, tmp_path, login=login))
        assert found.status == "partial"
        reasons = " ".join(note.reason for note in found.failed)
        grant = f'GRANT MAINTAIN ON TABLE public.p2 TO "{owner}"' if tree.server.version >= 17 else stranger
        assert grant in reasons
        assert "public.p1" not in reasons


def test_partitions_are_done_where_their_parent_is_somebody_else_s(tree: Database, tmp_path: Path) -> None:
    with temporary_role(tree) as login:
        owner = str(conninfo_to_dict(login.conninfo)["user"])
        for table in ("p1", "p2"):
            tree.execute(compose("ALTER TABLE {} OWNER TO {}", identifier(table), identifier(owner)))
        change(tree, 'INSERT INTO "P" SELECT i % 20 FROM generate_series(1, 2000) AS i')
        target = make_target(tree, tmp_path, login=login)
        for found in (analyze_stale(target, dry_run=True), analyze_stale(target)):
            assert {item.object for item in found.changed} == {"public.p1", "public.p2"}
            assert [note.object for note in found.failed] == ['public."P"']
            assert way_out(tree) in found.failed[0].reason
            assert "along" not in found.summary


def test_a_locked_partition_is_named_and_the_others_are_done(
    tree: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgsteward.analyze._LOCK_TIMEOUT_S", 0.2)
    change(tree, 'INSERT INTO "P" SELECT i % 20 FROM generate_series(1, 2000) AS i')
    target = make_target(tree, tmp_path)
    with (
        tree.connect(purpose="reader", autocommit=False) as reader,
        tree.connect(purpose="migration", autocommit=False) as holder,
    ):
        reader.execute('SELECT FROM ONLY "P"')
        holder.execute("LOCK TABLE p2")
        found = analyze_stale(target)
    assert [item.object for item in found.changed] == ["public.p1"]
    reasons = {note.object: note.reason for note in found.failed}
    assert set(reasons) == {'public."P"', "public.p2"}
    assert "public.p2 below it locked by" in reasons['public."P"']
    for reason in reasons.values():
        assert "pgsteward migration" in reason
        assert "pgsteward reader" not in reason, "it keeps nobody from an ANALYZE"
    assert {item.object for item in analyze_stale(target).changed} >= {'public."P"'}
    assert analyze_stale(target).changed == ()


def test_a_partition_that_is_passed_over_does_not_make_its_parent_stale(
    tree: Database, tmp_path: Path
) -> None:
    change(tree, 'INSERT INTO "P" SELECT i % 20 FROM generate_series(1, 2000) AS i')
    target = make_target(tree, tmp_path)
    with tree.connect(purpose="index build", autocommit=False) as holder:
        holder.execute("LOCK TABLE p2 IN SHARE MODE")
        found = analyze_stale(target)
    assert 'public."P"' in {item.object for item in found.changed}
    assert [note.object for note in found.failed] == ["public.p2"]
    assert "pgsteward index build" in found.failed[0].reason
    assert [item.object for item in analyze_stale(target).changed][-1:] == ["public.p2"]


def test_partitions_of_a_parent_that_came_too_late_are_named(tree: Database, tmp_path: Path) -> None:
    change(tree, 'INSERT INTO "P" SELECT i % 20 FROM generate_series(1, 2000) AS i')
    found = analyze_stale(make_target(tree, tmp_path, analyze={"max_minutes": 1e-6}))
    assert {note.object for note in found.skipped} == {'public."P"', "public.p1", "public.p2"}
    assert "3 left for want of time" in found.summary


def test_a_locked_table_is_named_and_the_others_are_done(database: Database, tmp_path: Path) -> None:
    fill(database)
    database.execute("CREATE TABLE free (a int)")
    with database.connect(purpose="migration", autocommit=False) as holder:
        holder.execute('LOCK TABLE "Order Lines"')
        found = analyze_stale(make_target(database, tmp_path))
    assert found.status == "partial"
    assert [item.object for item in found.changed] == ["public.free"]
    assert "pgsteward migration" in found.failed[0].reason


def test_an_empty_database_is_unknown(database: Database, tmp_path: Path) -> None:
    assert analyze_stale(make_target(database, tmp_path)).status == "unknown"


def test_the_sample_s_table_without_statistics_is_found(sample_database: Database, tmp_path: Path) -> None:
    found = analyze_stale(make_target(sample_database, tmp_path), dry_run=True)
    assert found.status == "ok"
    assert found.changed


def test_a_table_that_is_dropped_meanwhile_is_no_failure(database: Database, tmp_path: Path) -> None:
    database.execute("CREATE TABLE stays AS SELECT generate_series(1, 10) AS i")
    database.execute("CREATE TABLE goes AS SELECT 1 AS i")
    target = make_target(database, tmp_path, analyze={"jobs": 1})

    def drop(what: str, done: int = 0, total: int = 0) -> None:
        database.execute("DROP TABLE IF EXISTS goes")

    found = analyze_stale(target, progress=drop)
    assert [item.object for item in found.changed] == ["public.stays"]
    assert [(note.object, note.reason) for note in found.skipped] == [
        ("public.goes", "it was dropped meanwhile")
    ]


def test_partitions_are_analyzed_by_themselves_where_their_parent_can_not_be(
    tree: Database, tmp_path: Path
) -> None:
    """Before PostgreSQL 18 an ANALYZE of the parent reads foreign partitions too; this one has no handler."""
    with tree.connect() as connection:
        connection.execute("CREATE FOREIGN DATA WRAPPER elsewhere")
        connection.execute("CREATE SERVER far FOREIGN DATA WRAPPER elsewhere")
        connection.execute(
            'CREATE FOREIGN TABLE gone PARTITION OF "P" FOR VALUES FROM (1000) TO (2000) SERVER far'
        )
    change(tree, 'INSERT INTO "P" SELECT mod(i, 20) FROM generate_series(1, 3000) AS i')
    found = analyze_stale(make_target(tree, tmp_path))
    assert {"public.p1", "public.p2"} <= {item.object for item in found.changed}
    if tree.server.version < 18:
        (note,) = found.failed
        assert note.object == 'public."P"'
        assert "along" not in found.summary
