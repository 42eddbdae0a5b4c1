"""ANALYZE of what is stale, against a real server."""

from __future__ import annotations

from pathlib import Path

from pgsteward.analyze import analyze_stale
from tests.integration.backup_targets import make_target
from tests.integration.maintenance import facts_of, flush_counters, temporary_role
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
    assert "GRANT" in found.failed[0].reason
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
