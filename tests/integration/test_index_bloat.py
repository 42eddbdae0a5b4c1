"""Index bloat, measured on a real server and compared with the truth: the size after a rebuild."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgsteward.index_bloat import detect
from pgsteward.postgres import compose, identifier
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
        connection.execute("CREATE INDEX by_hash ON t USING hash (b)")
        connection.execute("CREATE INDEX by_brin ON t USING brin (a)")
        connection.execute("CREATE INDEX by_b ON t (b)")
        connection.execute("CREATE INDEX left_alone ON t (b, a)")
        connection.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'by_b'::regclass")
    target = make_target(database, tmp_path, index_bloat={**SMALL, "exclude": ["public.left_*"]})
    found = detect(target)
    reasons = {note.object: note.reason for note in found.skipped}
    assert "exclusion constraint" in reasons["public.t_r_excl"]
    assert "hash" in reasons["public.by_hash"]
    assert "BRIN" in reasons["public.by_brin"]
    assert "invalid" in reasons["public.by_b"]
    assert "index_bloat.exclude" in reasons["public.left_alone"]
    assert found.examined == 1
    assert found.examined + len(found.skipped) == found.as_json()["total"]


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
    assert len(found.unknown) == 3
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


def test_without_pgstattuple_nothing_is_known_and_the_cure_is_printed(
    database: Database, tmp_path: Path
) -> None:
    fill_bloated(database, 20_000)
    database.execute("DROP EXTENSION IF EXISTS pgstattuple")
    found = detect(make_target(database, tmp_path, index_bloat=SMALL))
    assert found.status == "unknown"
    assert found.examined == 0
    assert "CREATE EXTENSION pgstattuple;" in found.unknown[0].reason
    assert "CREATE EXTENSION pgstattuple;" in found.summary
    assert 'public."Order Lines_pkey"' in {note.object for note in found.unknown}


@pytest.mark.contrib
def test_a_role_that_may_not_measure_gets_unknown_and_the_grant(database: Database, tmp_path: Path) -> None:
    fill_bloated(database, 20_000)
    with temporary_role(database) as login:
        target = make_target(database, tmp_path, login=login, index_bloat=SMALL)
        found = detect(target)
        assert found.status == "unknown"
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
    assert "smaller than min_reclaimable" in found.skipped[0].reason
