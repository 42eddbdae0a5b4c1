"""Bloat where nothing can be measured: estimates by statistics, and what even they can't say."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgsteward.index_bloat import detect
from pgsteward.postgres import compose, identifier
from pgsteward.reindex import reindex
from tests.integration.backup_targets import make_target
from tests.integration.maintenance import flush_counters, temporary_role
from tests.servers import Database

SMALL = {"min_reclaimable": 100_000}


def fill(database: Database) -> None:
    """Make indexes of five kinds, all of them 70 % empty, and one that is full."""
    with database.connect() as connection:
        connection.execute("DROP EXTENSION IF EXISTS pgstattuple")
        connection.execute(
            'CREATE TABLE "Order Lines" (id bigint PRIMARY KEY, kind int, rare int, name text)'
        )
        connection.execute(
            'INSERT INTO "Order Lines" SELECT i, i % 8, CASE WHEN i % 20 = 0 THEN i END, md5(i::text)'
            "  FROM generate_series(1, 60000) AS i"
        )
        connection.execute('CREATE INDEX shared ON "Order Lines" (kind)')
        connection.execute('CREATE INDEX rare ON "Order Lines" (rare)')
        connection.execute('CREATE INDEX two ON "Order Lines" (kind, id)')
        connection.execute('CREATE INDEX upper ON "Order Lines" (upper(name))')
        connection.execute('DELETE FROM "Order Lines" WHERE id % 10 < 7')
        flush_counters(connection)
        connection.execute('VACUUM ANALYZE "Order Lines"')
        connection.execute('CREATE INDEX packed ON "Order Lines" (name, id)')


def test_estimates_are_marked_and_near_the_truth(database: Database, tmp_path: Path) -> None:
    fill(database)
    found = detect(make_target(database, tmp_path, index_bloat=SMALL))
    assert found.status == "partial"
    assert found.unknown[0].object == database.name
    assert "CREATE EXTENSION pgstattuple;" in found.unknown[0].reason
    assert "CREATE EXTENSION pgstattuple;" in found.summary
    reasons = {note.object: note.reason for note in found.unknown}
    assert "share a key" in reasons["public.shared"]
    assert "mostly NULL" in reasons["public.rare"]
    estimated = {index["index"]: index for index in found.details["indexes"]}
    assert set(estimated) == {'public."Order Lines_pkey"', "public.two", "public.upper", "public.packed"}
    assert {index["method"] for index in estimated.values()} == {"estimate"}
    database.execute('REINDEX TABLE "Order Lines"')
    for name, index in estimated.items():
        size = database.value("SELECT pg_relation_size(%(name)s::regclass)", {"name": name})
        assert index["ratio"] == pytest.approx(1 - size / index["bytes"], abs=0.05)


def test_an_estimate_rebuilds_nothing_unless_the_user_says_so(database: Database, tmp_path: Path) -> None:
    fill(database)
    careful = make_target(database, tmp_path, index_bloat=SMALL)
    found = detect(careful)
    assert found.details["bloated"] == []
    assert "3 bloated by estimate" in found.summary
    assert not reindex(careful, dry_run=True).changed
    willing = make_target(database, tmp_path, index_bloat={**SMALL, "rebuild_on_estimate": True})
    assert len(detect(willing).details["bloated"]) == 3
    assert len(reindex(willing, dry_run=True).changed) == 3


def test_a_role_that_sees_no_statistics_knows_nothing(database: Database, tmp_path: Path) -> None:
    fill(database)
    with temporary_role(database, "pg_monitor") as login:
        found = detect(make_target(database, tmp_path, login=login, index_bloat=SMALL))
        assert (found.status, found.examined) == ("unknown", 0)
        reasons = {note.object: note.reason for note in found.unknown}
        assert "GRANT pg_read_all_data TO" in reasons['public."Order Lines_pkey"']
    with temporary_role(database, "pg_monitor", "pg_read_all_data") as login:
        found = detect(make_target(database, tmp_path, login=login, index_bloat=SMALL))
        assert found.examined == 4


def test_a_table_that_was_never_analyzed_is_not_estimable(database: Database, tmp_path: Path) -> None:
    database.execute("DROP EXTENSION IF EXISTS pgstattuple")
    database.execute("CREATE TABLE t (a bigint PRIMARY KEY)")
    database.execute("INSERT INTO t SELECT generate_series(1, 60000)")
    found = detect(make_target(database, tmp_path, index_bloat=SMALL))
    assert found.status == "unknown"
    assert "run ANALYZE" in {note.object: note.reason for note in found.unknown}["public.t_pkey"]


def test_a_schema_that_shadows_the_catalog_changes_no_estimate(database: Database, tmp_path: Path) -> None:
    fill(database)
    plain = detect(make_target(database, tmp_path, index_bloat=SMALL)).details["indexes"]
    with database.connect() as connection:
        connection.execute("CREATE SCHEMA shadow")
        connection.execute("CREATE TABLE shadow.pg_stats (schemaname name, tablename name, attname name)")
        connection.execute("CREATE TABLE shadow.pg_class (oid oid)")
        connection.execute(
            compose(
                "ALTER DATABASE {} SET search_path = shadow, pg_catalog, public", identifier(database.name)
            )
        )
    assert detect(make_target(database, tmp_path, index_bloat=SMALL)).details["indexes"] == plain
