"""Index bloat, measured on a real server and compared with the truth: the size after a rebuild."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgsteward.bloat_order import Memory
from pgsteward.index_bloat import detect, take_census
from pgsteward.ledger import Ledger
from pgsteward.postgres import Connection, compose, identifier, literal, raw
from tests.integration.backup_targets import make_target
from tests.integration.maintenance import fill_bloated, flush_counters, temporary_role
from tests.servers import Database

SMALL = {"min_reclaimable": 100_000}


@pytest.mark.contrib
def test_the_measure_is_within_three_points_of_what_a_rebuild_gives(
    database: Database, tmp_path: Path
) -> None:
    fill_bloated(database)
    found = detect(make_target(database, tmp_path, index_bloat=SMALL)).as_json()
    assert found["status"] == "ok"
    assert found["examined"] == found["total"] == 3
    assert len(found["bloated"]) == 3
    gains = [index["reclaimable_bytes"] for index in found["indexes"]]
    assert gains == sorted(gains, reverse=True)
    database.execute('REINDEX TABLE "Order Lines"')
    for index in found["indexes"]:
        size = database.value("SELECT pg_relation_size(%(name)s::regclass)", {"name": index["index"]})
        assert index["ratio"] == pytest.approx(1 - size / index["bytes"], abs=0.03)


@pytest.mark.contrib
def test_a_queue_whose_old_end_is_deleted_is_bloated_though_its_leaves_are_dense(
    database: Database, tmp_path: Path
) -> None:
    fill_bloated(database)
    found = detect(make_target(database, tmp_path, index_bloat=SMALL)).as_json()
    (key,) = (index for index in found["indexes"] if index["index"] == 'public."Order Lines_pkey"')
    density = database.value("""SELECT avg_leaf_density FROM pgstatindex('"Order Lines_pkey"')""")
    assert density > 85
    assert key["ratio"] > 0.65


@pytest.mark.contrib
def test_what_is_left_out_is_named_with_the_reason(database: Database, tmp_path: Path) -> None:
    with database.connect() as connection:
        connection.execute("CREATE EXTENSION btree_gist")
        connection.execute(
            "CREATE TABLE t (a int PRIMARY KEY, b text, r int4range, EXCLUDE USING gist (r WITH &&))"
        )
        connection.execute("INSERT INTO t SELECT i, i::text FROM generate_series(1, 50000) AS i")
        connection.execute("CREATE INDEX by_brin ON t USING brin (a)")
        connection.execute("CREATE INDEX by_b ON t (b)")
        connection.execute("CREATE INDEX left_alone ON t (b, a)")
        connection.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'by_b'::regclass")
    target = make_target(database, tmp_path, index_bloat={**SMALL, "exclude": ["public.left_*"]})
    found = detect(target)
    reasons = {note.object: note.reason for note in found.skipped}
    assert "exclusion constraint" in reasons["public.t_r_excl"]
    assert "BRIN" in reasons["public.by_brin"]
    assert "invalid" in reasons["public.by_b"]
    assert "index_bloat.exclude" in reasons["public.left_alone"]
    assert found.examined == 1
    assert found.examined + len(reasons.keys() - {"1 tables"}) == found.as_json()["total"]


@pytest.mark.contrib
@pytest.mark.pg_min(18)
def test_a_temporal_primary_key_is_left_out(database: Database, tmp_path: Path) -> None:
    database.execute("CREATE EXTENSION btree_gist")
    database.execute(
        "CREATE TABLE rooms (id int, during daterange, PRIMARY KEY (id, during WITHOUT OVERLAPS))"
    )
    (note,) = detect(make_target(database, tmp_path)).skipped
    assert (note.object, "temporal" in note.reason) == ("public.rooms_pkey", True)


@pytest.mark.contrib
def test_a_locked_index_is_unknown_and_the_others_are_measured(database: Database, tmp_path: Path) -> None:
    fill_bloated(database, 20_000)
    database.execute("CREATE TABLE free (a int PRIMARY KEY)")
    database.execute("INSERT INTO free SELECT generate_series(1, 20000)")
    target = make_target(database, tmp_path, index_bloat={"min_reclaimable": 1})
    with database.connect(purpose="migration", autocommit=False) as holder:
        holder.execute('LOCK TABLE "Order Lines"')
        holder.execute('ALTER TABLE "Order Lines" ALTER COLUMN kind TYPE bigint')
        found = detect(target)
    assert found.status == "partial"
    assert [index["index"] for index in found.details["indexes"]] == ["public.free_pkey"]
    assert {note.object for note in found.unknown} >= {
        'public."Order Lines"',
        'public."Order Lines_pkey"',
        'public."by ""kind"""',
        f"public.{'l' * 63}",
    }
    assert all("migration" in note.reason for note in found.unknown)


@pytest.mark.contrib
def test_a_table_full_of_dead_rows_can_not_be_measured(database: Database, tmp_path: Path) -> None:
    with database.connect() as connection:
        connection.execute("CREATE TABLE t (a int PRIMARY KEY)")
        connection.execute("INSERT INTO t SELECT generate_series(1, 50000)")
        connection.execute("DELETE FROM t WHERE a < 35000")
        flush_counters(connection)
        target = make_target(database, tmp_path, index_bloat=SMALL)
        before = detect(target)
        assert before.status == "partial"
        assert "not measurable before VACUUM" in before.unknown[0].reason
        connection.execute("VACUUM t")
    after = detect(target)
    assert after.status == "ok"
    assert len(after.details["bloated"]) == 1


@pytest.mark.contrib
def test_a_role_that_may_not_measure_gets_unknown_and_the_grant(database: Database, tmp_path: Path) -> None:
    fill_bloated(database, 20_000)
    with temporary_role(database) as login:
        target = make_target(database, tmp_path, login=login, index_bloat=SMALL)
        found = detect(target)
        assert (found.status, found.examined) == ("unknown", 0)
        assert "GRANT pg_stat_scan_tables TO" in found.unknown[0].reason
    with temporary_role(database, "pg_monitor") as login:
        found = detect(make_target(database, tmp_path, login=login, index_bloat=SMALL))
        assert found.status == "ok"
        assert found.examined == 3


@pytest.mark.contrib
def test_pgstattuple_is_found_in_any_schema(database: Database, tmp_path: Path) -> None:
    fill_bloated(database, 20_000)
    database.execute("DROP EXTENSION pgstattuple")
    database.execute(compose("CREATE SCHEMA {}", identifier('Ext, "x"')))
    database.execute(compose("CREATE EXTENSION pgstattuple SCHEMA {}", identifier('Ext, "x"')))
    assert detect(make_target(database, tmp_path, index_bloat=SMALL)).examined == 3


@pytest.mark.contrib
def test_small_indexes_are_counted_not_measured(database: Database, tmp_path: Path) -> None:
    fill_bloated(database, 20_000)
    found = detect(make_target(database, tmp_path))
    assert found.status == "skipped"
    assert found.skipped[0].object == "3 indexes"
    assert "too small to matter" in found.skipped[0].reason


@pytest.mark.contrib
def test_what_one_run_leaves_the_next_one_begins_with(database: Database, tmp_path: Path) -> None:
    with database.connect() as connection:
        for number, rows in enumerate((40_000, 30_000, 20_000, 10_000)):
            name = identifier(f"t{number}")
            connection.execute(
                compose("CREATE TABLE {} AS SELECT generate_series(1, {}) AS a", name, literal(rows))
            )
            connection.execute(compose("CREATE INDEX ON {} (a)", name))
            connection.execute(compose("DELETE FROM {} WHERE a % 2 = 0", name))
        flush_counters(connection)
        connection.execute("VACUUM ANALYZE")
    target = make_target(database, tmp_path, index_bloat={"min_reclaimable": 1, "measure_bytes": 1_000_000})
    first, second, third = (detect(target) for _ in range(3))
    assert [index["index"] for index in first.details["indexes"]] == ["public.t0_a_idx"]
    assert first.summary.startswith("examined 1 of 4 indexes, 0.9 MB of 2.3 MB (3 left for the next run)")
    assert "begins with them" in first.skipped[-1].reason
    assert [index["index"] for index in second.details["indexes"]] == ["public.t1_a_idx", "public.t3_a_idx"]
    assert "public.t2_a_idx" in {index["index"] for index in third.details["indexes"]}
    assert {table["table"] for table in third.details["tables"]} > {"public.t0"}


@pytest.mark.contrib
def test_an_index_larger_than_a_run_may_read_is_estimated_and_named(
    database: Database, tmp_path: Path
) -> None:
    fill_bloated(database, 20_000)
    database.execute("ANALYZE")
    target = make_target(database, tmp_path, index_bloat={"min_reclaimable": 1, "measure_bytes": "500KB"})
    found = detect(target)
    (estimated,) = (index for index in found.details["indexes"] if index["method"] == "estimate")
    assert estimated["index"] == f"public.{'l' * 63}"
    assert estimated["ratio"] == pytest.approx(0.7, abs=0.03)
    (note,) = (note for note in found.unknown if "l" * 63 in note.object)
    assert "measure_bytes" in note.reason


@pytest.mark.contrib
def test_a_run_without_time_knows_nothing(database: Database, tmp_path: Path) -> None:
    fill_bloated(database, 20_000)
    target = make_target(database, tmp_path, index_bloat={"min_reclaimable": 1, "measure_minutes": 1e-9})
    found = detect(target)
    assert (found.status, found.examined, found.details["left"]) == ("unknown", 0, 3)


OTHERS = (
    "CREATE INDEX by_hash ON t USING hash (a)",
    "CREATE INDEX by_gin ON t USING gin (words)",
    "CREATE INDEX by_gist ON t USING gist (at)",
    "CREATE INDEX by_spgist ON t USING spgist (at)",
)


def test_what_has_no_measure_is_compared_with_its_own_history(database: Database, tmp_path: Path) -> None:
    with database.connect() as connection:
        connection.execute("CREATE TABLE t (a int, words int[], at point)")
        for definition in OTHERS:
            connection.execute(definition)
        insert = (
            "INSERT INTO t SELECT i, ARRAY[i, i + 1, i %% 50], point(i %% 211, i %% 97)"
            "  FROM generate_series(%(low)s::int, %(high)s::int) AS i"
        )
        connection.execute(insert, {"low": 1, "high": 20_000})
        connection.execute("VACUUM ANALYZE t")
        target = make_target(database, tmp_path, index_bloat={"min_reclaimable": 1})
        first = detect(target)
        assert (first.status, first.examined) == ("unknown", 0)
        assert all("has none yet" in note.reason for note in first.unknown)
        again = detect(target)
        assert (again.status, again.examined) == ("ok", 4)
        assert again.details["bloated"] == []
        connection.execute("DELETE FROM t WHERE a % 4 > 0")
        flush_counters(connection)
        connection.execute("VACUUM ANALYZE t")
    found = detect(target)
    assert {index["access_method"] for index in found.details["bloated"]} == {"hash", "gin", "gist", "spgist"}
    for index in found.details["bloated"]:
        assert index["method"] == "history"
        assert index["ratio"] == pytest.approx(0.75, abs=0.03)
    database.execute("REINDEX TABLE t")
    rebuilt = detect(target)
    assert (rebuilt.status, rebuilt.details["bloated"]) == ("ok", [])
    database.execute("VACUUM ANALYZE t")  # a GIN index that was just built counts its entries, not its rows
    counted = detect(target)
    assert (counted.status, counted.details["bloated"]) == ("ok", [])


@pytest.mark.contrib
def test_a_table_is_measured_and_the_way_out_is_a_text(database: Database, tmp_path: Path) -> None:
    fill_bloated(database, 20_000)
    with database.connect() as connection:
        connection.execute(
            "CREATE TABLE wide AS SELECT i, repeat('x', 1900) AS w FROM generate_series(1, 400) AS i"
        )
        connection.execute("CREATE TABLE roomy (a int, b text) WITH (fillfactor = 40)")
        connection.execute("INSERT INTO roomy SELECT i, md5(i::text) FROM generate_series(1, 10000) AS i")
        connection.execute(
            "CREATE TABLE evenly AS SELECT i, md5(i::text) AS t FROM generate_series(1, 20000) AS i"
        )
        connection.execute("DELETE FROM evenly WHERE i % 10 < 7")
        connection.execute("VACUUM ANALYZE")
    found = detect(make_target(database, tmp_path, index_bloat=SMALL))
    tables = {table["table"]: table for table in found.details["tables"]}
    bloated = {table["table"]: table["way_out"] for table in found.details["bloated_tables"]}
    assert set(bloated) == {'public."Order Lines"', "public.evenly"}
    assert 'VACUUM FULL public."Order Lines";' in bloated['public."Order Lines"']
    assert not found.findings
    for name, table in tables.items():
        database.execute(compose("VACUUM FULL {}", raw(name)))
        size = database.value("SELECT pg_relation_size(%(name)s::regclass)", {"name": name})
        assert table["ratio"] == pytest.approx(max(1 - size / table["bytes"], 0), abs=0.03), name


@pytest.mark.contrib
@pytest.mark.parametrize(
    "reason", ["not measurable before VACUUM: 42000 dead rows", "lost count of the dead rows"]
)
def test_dead_rows_that_reading_has_removed_still_have_entries(
    database: Database, tmp_path: Path, reason: str
) -> None:
    with database.connect() as connection:
        connection.execute("CREATE TABLE t AS SELECT generate_series(1, 60000) AS a")
        connection.execute("CREATE INDEX ON t (a)")
        connection.execute("VACUUM ANALYZE t")
        connection.execute("DELETE FROM t WHERE a % 10 < 7")
        connection.rows("SELECT count(*) FROM t")  # prunes the pages
        flush_counters(connection)
        if "lost" in reason:
            connection.execute("SELECT pg_stat_reset()")
        assert connection.value("SELECT dead_tuple_count FROM pgstattuple_approx('t')") < 1000
        found = detect(make_target(database, tmp_path, index_bloat=SMALL))
        assert reason in found.unknown[0].reason
        connection.execute("VACUUM t")
    assert detect(make_target(database, tmp_path, index_bloat=SMALL)).status == "ok"


@pytest.mark.contrib
def test_dead_rows_are_counted_where_the_server_has_lost_count(database: Database, tmp_path: Path) -> None:
    with database.connect() as connection:
        connection.execute("CREATE TABLE t AS SELECT generate_series(1, 50000) AS a")
        connection.execute("CREATE INDEX ON t (a)")
        connection.execute("VACUUM ANALYZE t")
        connection.execute("DELETE FROM t WHERE a < 35000")
        flush_counters(connection)
        connection.execute("SELECT pg_stat_reset()")  # as after a crash
    found = detect(make_target(database, tmp_path, index_bloat=SMALL))
    assert "not measurable before VACUUM: 34999 dead rows" in found.unknown[0].reason


@pytest.mark.contrib
def test_who_keeps_dead_rows_is_named(database: Database, tmp_path: Path) -> None:
    with database.connect(purpose="report", autocommit=False) as reader, database.connect() as connection:
        connection.execute("CREATE TABLE t AS SELECT generate_series(1, 50000) AS a")
        connection.execute("CREATE INDEX ON t (a)")
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reader.rows("SELECT count(*) FROM t")
        connection.execute("DELETE FROM t WHERE a < 35000")
        connection.execute("VACUUM (TRUNCATE false) t")
        found = detect(make_target(database, tmp_path, index_bloat=SMALL))
    assert "not measurable before VACUUM" in found.unknown[0].reason
    assert "the oldest snapshot is held by" in found.unknown[0].reason
    assert "pgsteward report" in found.unknown[0].reason


@pytest.mark.contrib
def test_partitions_are_measured_as_leaves_and_others_business_is_left_out(
    database: Database, tmp_path: Path
) -> None:
    with database.connect() as connection, database.connect() as other:
        connection.execute("CREATE TABLE p (a int) PARTITION BY RANGE (a)")
        connection.execute("CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (20000)")
        connection.execute("CREATE TABLE p2 PARTITION OF p DEFAULT")
        connection.execute("CREATE INDEX ON p (a)")
        connection.execute("INSERT INTO p SELECT generate_series(1, 40000)")
        connection.execute("CREATE TABLE never_filled (a int PRIMARY KEY)")
        connection.execute("CREATE TABLE left_alone (a int PRIMARY KEY, b int UNIQUE)")
        other.execute("CREATE TEMPORARY TABLE passing AS SELECT generate_series(1, 40000) AS a")
        other.execute("CREATE INDEX ON passing (a)")
        settings = {"min_reclaimable": 0, "exclude": ["public.left_alone"]}
        found = detect(make_target(database, tmp_path, index_bloat=settings))
    assert {index["index"] for index in found.details["indexes"]} == {
        "public.p1_a_idx",
        "public.p2_a_idx",
        "public.never_filled_pkey",
    }
    excluded = {note.object for note in found.skipped if "index_bloat.exclude" in note.reason}
    assert excluded == {"public.left_alone_pkey", "public.left_alone_b_key"}


@pytest.mark.contrib
def test_the_indexes_of_toast_tables_are_measured_on_request(database: Database, tmp_path: Path) -> None:
    with database.connect() as connection:
        connection.execute('CREATE TABLE "Order Lines" (a int, t text)')
        connection.execute('ALTER TABLE "Order Lines" ALTER COLUMN t SET STORAGE EXTERNAL')
        connection.execute(
            """INSERT INTO "Order Lines" SELECT i, repeat('x', 3000) FROM generate_series(1, 3000) AS i"""
        )
        connection.execute('DELETE FROM "Order Lines" WHERE a < 2000')
        connection.execute('VACUUM "Order Lines"')
    target = make_target(database, tmp_path, index_bloat={"min_reclaimable": 1, "toast": True})
    found = detect(target)
    (index,) = found.details["indexes"]
    assert index["table"] == 'TOAST of public."Order Lines"'
    assert index["ratio"] > 0.5
    assert 'TOAST of public."Order Lines"' in {table["table"] for table in found.details["bloated_tables"]}
    assert detect(make_target(database, tmp_path, index_bloat={"min_reclaimable": 1})).as_json()["total"] == 0


@pytest.mark.contrib
def test_an_extension_without_the_measure_of_tables_still_measures_indexes(
    database: Database, tmp_path: Path
) -> None:
    fill_bloated(database, 20_000)
    database.execute("ALTER EXTENSION pgstattuple DROP FUNCTION pgstattuple_approx(regclass)")
    database.execute("DROP FUNCTION pgstattuple_approx(regclass)")
    found = detect(make_target(database, tmp_path, index_bloat=SMALL))
    assert (found.status, found.examined) == ("partial", 3)
    assert "ALTER EXTENSION pgstattuple UPDATE;" in found.unknown[0].reason


@pytest.mark.contrib
def test_a_partial_gin_is_compared_by_the_rows_that_it_holds(database: Database, tmp_path: Path) -> None:
    target = make_target(database, tmp_path, index_bloat={"min_reclaimable": 1})
    with database.connect() as connection:
        connection.execute("CREATE TABLE t (a int, words int[])")
        connection.execute("INSERT INTO t SELECT i, ARRAY[i, i + 1] FROM generate_series(1, 20000) AS i")
        connection.execute("CREATE INDEX part ON t USING gin (words) WHERE a > 10000")
        for gone, ratio in (("false", None), ("a <= 10000", None), ("a % 4 > 0", 0.75)):
            connection.execute(compose("DELETE FROM t WHERE {}", raw(gone)))
            flush_counters(connection)
            connection.execute("VACUUM ANALYZE t")
            found = detect(target)
            bloated = [index["ratio"] for index in found.details["bloated"]]
            assert bloated == ([] if ratio is None else [pytest.approx(ratio, abs=0.03)])
    with temporary_role(database, "pg_monitor") as login:
        unseen = detect(make_target(database, tmp_path, login=login, index_bloat={"min_reclaimable": 1}))
    assert "permission denied for table t" in unseen.unknown[0].reason


@pytest.mark.contrib
def test_an_index_that_a_rebuild_packs_closer_than_is_measured_says_so(
    database: Database, tmp_path: Path
) -> None:
    with database.connect() as connection:
        connection.execute("CREATE UNLOGGED TABLE t (k int, i int)")
        connection.execute("CREATE INDEX shared ON t (k); CREATE INDEX own ON t (i)")
        connection.execute(
            "INSERT INTO t SELECT abs(hashint4(i)) % 10000, i FROM generate_series(1, 40000) AS i"
        )
        connection.execute("VACUUM ANALYZE t")
    shared, own = sorted(
        detect(make_target(database, tmp_path, index_bloat=SMALL)).details["indexes"],
        key=lambda index: index["index"],
        reverse=True,
    )
    assert "about 4 rows share a key" in shared["note"]
    assert own["note"] == ""
    database.execute("REINDEX INDEX shared")
    size = database.value("SELECT pg_relation_size('shared')")
    assert shared["ratio"] < 1 - size / shared["bytes"] < shared["ratio"] + 0.2


def test_a_database_without_indexes_is_unknown(database: Database, tmp_path: Path) -> None:
    found = detect(make_target(database, tmp_path))
    assert found.status == "unknown"
    assert "no index" in found.unknown[0].reason


SLOW = (
    "ALTER EXTENSION pgstattuple DROP FUNCTION pgstatindex(regclass)",
    "ALTER FUNCTION pgstatindex(regclass) RENAME TO real_pgstatindex",
    """
    CREATE FUNCTION pgstatindex(
        name regclass, OUT index_size bigint, OUT leaf_pages bigint, OUT internal_pages bigint,
        OUT avg_leaf_density float8
    ) LANGUAGE plpgsql AS $$
    BEGIN
        IF name = 't0_a_idx'::regclass THEN PERFORM pg_sleep(60); END IF;
        SELECT r.index_size, r.leaf_pages, r.internal_pages, r.avg_leaf_density
          INTO index_size, leaf_pages, internal_pages, avg_leaf_density
          FROM real_pgstatindex(name) AS r;
    END $$
    """,
)
"""An index that is so large that reading it takes a minute."""


def fill_three(connection: Connection) -> None:
    """Make three tables with an index each, the first one the largest."""
    for number, rows in enumerate((60_000, 50_000, 40_000)):
        name = identifier(f"t{number}")
        connection.execute(
            compose("CREATE TABLE {} AS SELECT generate_series(1, {}) AS a", name, literal(rows))
        )
        connection.execute(compose("CREATE INDEX ON {} (a)", name))
        connection.execute(compose("DELETE FROM {} WHERE a % 2 = 0", name))
    flush_counters(connection)
    connection.execute("VACUUM ANALYZE")


@pytest.mark.contrib
def test_what_others_drop_or_lock_meanwhile_is_named_and_the_rest_is_measured(
    database: Database, tmp_path: Path
) -> None:
    with database.connect(purpose="migration", autocommit=False) as holder:
        with database.connect() as connection:
            fill_three(connection)

        def meddle(what: str, done: int = 0, total: int = 0) -> None:
            if what == "measuring public.t0_a_idx":
                database.execute("DROP INDEX t1_a_idx")
                holder.execute("ALTER TABLE t2 ALTER COLUMN a TYPE bigint")

        found = detect(make_target(database, tmp_path, index_bloat=SMALL), progress=meddle)
    assert [index["index"] for index in found.details["indexes"]] == ["public.t0_a_idx"]
    assert "dropped" in {note.object: note.reason for note in found.skipped}["public.t1_a_idx"]
    assert "pgsteward migration" in {note.object: note.reason for note in found.unknown}["public.t2_a_idx"]


@pytest.mark.contrib
def test_what_takes_longer_than_a_run_is_named_and_does_not_stand_before_the_others_for_ever(
    database: Database, tmp_path: Path
) -> None:
    with database.connect() as connection:
        fill_three(connection)
        for statement in SLOW:
            connection.execute(statement)
    short = make_target(database, tmp_path, index_bloat={**SMALL, "measure_minutes": 2 / 60})
    first = detect(short)
    assert [note.object for note in first.unknown] == ["public.t0_a_idx"]
    assert "longer than measure_minutes" in first.unknown[0].reason
    assert first.details["left"] == 2
    database.execute("DROP FUNCTION pgstatindex(regclass)")
    database.execute("ALTER FUNCTION real_pgstatindex(regclass) RENAME TO pgstatindex")
    order: list[str] = []
    detect(
        make_target(database, tmp_path, index_bloat=SMALL),
        progress=lambda what, done=0, total=0: order.append(what),
    )
    assert order.index("measuring public.t1_a_idx") < order.index("measuring public.t0_a_idx")


@pytest.mark.contrib
def test_a_census_for_rebuilds_begins_with_what_is_known_to_be_bloated(
    database: Database, tmp_path: Path
) -> None:
    with database.connect() as connection:
        fill_three(connection)
        connection.execute("REINDEX INDEX t0_a_idx")
        connection.execute("CREATE TABLE t3 AS SELECT generate_series(1, 90000) AS a")
        connection.execute("CREATE INDEX ON t3 (a)")  # the largest, without statistics: it might be bloated
    detect(make_target(database, tmp_path, index_bloat=SMALL))
    target = make_target(database, tmp_path, index_bloat={**SMALL, "measure_bytes": "1.2MB"})
    ledger = Ledger("reindex", "app")
    census = take_census(
        target.login("maintenance"), target.settings.index_bloat, ledger, memory=Memory(target)
    )
    assert [index.qualified for index in census.measured] == ["public.t1_a_idx"]
    assert census.bloated == census.measured
