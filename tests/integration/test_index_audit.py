"""The index audit on a real server."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from pgsteward.index_audit import audit
from tests.integration.backup_targets import make_target
from tests.servers import Database


@pytest.fixture
def shop(database: Database) -> Database:
    with database.connect() as connection:
        connection.execute('CREATE SCHEMA "My App"')
        connection.execute('CREATE TABLE "My App"."Order Lines" (id int PRIMARY KEY, kind int)')
        connection.execute('CREATE INDEX "by kind" ON "My App"."Order Lines" (kind)')
        connection.execute('CREATE INDEX broken ON "My App"."Order Lines" (kind, id)')
        connection.execute(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = '\"My App\".broken'::regclass"
        )
    return database


def test_required_indexes_are_found_missing_or_invalid(shop: Database, tmp_path: Path) -> None:
    required = ['"Order Lines_pkey"', '"My App"."by kind"', '"My App".broken', "public.nowhere"]
    found = audit(make_target(shop, tmp_path, index_audit={"required": required})).as_json()
    assert found["status"] == "partial"
    assert found["found"] == ['"Order Lines_pkey"', '"My App"."by kind"']
    assert found["missing"] == ["public.nowhere"]
    assert found["invalid"] == ['"My App".broken']
    reasons = {note["object"]: note["reason"] for note in found["findings"]}
    assert "migration creates it" in reasons["public.nowhere"]
    assert 'DROP INDEX CONCURRENTLY "My App".broken' in reasons['"My App".broken']


def test_an_invalid_index_is_a_finding_though_nobody_required_it(shop: Database, tmp_path: Path) -> None:
    found = audit(make_target(shop, tmp_path))
    assert found.only_findings
    assert [note.object for note in found.findings] == ['"My App".broken']


def test_a_complete_set_is_ok(shop: Database, tmp_path: Path) -> None:
    shop.execute('DROP INDEX "My App".broken')
    found = audit(make_target(shop, tmp_path, index_audit={"required": ['"by kind"']}))
    assert found.status == "ok"
    assert found.examined == 3


def test_an_index_under_construction_is_not_a_fault(shop: Database, tmp_path: Path) -> None:
    shop.execute('DROP INDEX "My App".broken')
    shop.execute('INSERT INTO "My App"."Order Lines" SELECT i, i FROM generate_series(1, 1000) AS i')
    with shop.connect(autocommit=False) as holder, shop.connect() as builder:
        holder.execute('INSERT INTO "My App"."Order Lines" VALUES (-1, 1)')
        builder.execute("SET statement_timeout = '20s'")
        building = threading.Thread(
            target=builder.execute, args=('CREATE INDEX CONCURRENTLY slow ON "My App"."Order Lines" (kind)',)
        )
        building.start()
        while not shop.rows("SELECT FROM pg_index WHERE NOT indisvalid"):
            pass
        found = audit(make_target(shop, tmp_path))
        holder.execute("ROLLBACK")
        building.join(20)
    assert found.status == "ok"
    assert "being built now by pid" in found.skipped[0].reason
    assert audit(make_target(shop, tmp_path)).skipped == ()


def test_an_invalid_partitioned_index_is_not_called_broken(shop: Database, tmp_path: Path) -> None:
    shop.execute('DROP INDEX "My App".broken')
    shop.execute("CREATE TABLE p (a int) PARTITION BY LIST (a)")
    shop.execute("CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1)")
    shop.execute("CREATE INDEX parts ON ONLY p (a)")
    found = audit(make_target(shop, tmp_path))
    assert found.status == "ok"
    assert "ATTACH PARTITION" in found.skipped[0].reason


def test_a_database_without_indexes_is_unknown(database: Database, tmp_path: Path) -> None:
    assert audit(make_target(database, tmp_path)).status == "unknown"
