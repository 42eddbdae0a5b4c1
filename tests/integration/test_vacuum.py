"""VACUUM of what was cleaned, against a real server."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgsteward.errors import ConfigError
from pgsteward.vacuum import vacuum_tables
from tests.integration.backup_targets import make_target
from tests.integration.maintenance import flush_counters, temporary_role, way_out
from tests.servers import Database

SESSIONS = ({"table": 'public."Order Lines"', "expires": "expires"},)


def fill(database: Database) -> None:
    with database.connect() as connection:
        connection.execute('CREATE TABLE "Order Lines" (id int PRIMARY KEY, expires timestamptz)')
        connection.execute('INSERT INTO "Order Lines" SELECT i, now() FROM generate_series(1, 10000) AS i')
        connection.execute('DELETE FROM "Order Lines" WHERE id <= 7000')
        flush_counters(connection)


def test_the_configured_tables_are_vacuumed_and_it_shows(database: Database, tmp_path: Path) -> None:
    fill(database)
    target = make_target(database, tmp_path, sessions=SESSIONS)
    assert vacuum_tables(target, dry_run=True).changed[0].action == "would vacuum"
    assert database.value("""SELECT last_vacuum FROM pg_stat_user_tables""") is None

    found = vacuum_tables(target).as_json()
    assert found["status"] == "ok"
    (item,) = found["changed"]
    assert (item["object"], item["dead_rows_before"], item["dead_rows_after"]) == (
        'public."Order Lines"',
        7000,
        0,
    )
    assert database.value("SELECT last_vacuum FROM pg_stat_user_tables") is not None


def test_a_missing_right_is_a_failure_though_the_server_only_warns(
    database: Database, tmp_path: Path
) -> None:
    fill(database)
    with temporary_role(database) as login:
        found = vacuum_tables(make_target(database, tmp_path, login=login, sessions=SESSIONS))
    assert found.status == "failed"
    assert way_out(database) in found.failed[0].reason
    assert "Night Watch" in found.failed[0].reason


def test_dead_rows_that_stay_are_named_with_who_keeps_them(database: Database, tmp_path: Path) -> None:
    database.execute('CREATE TABLE "Order Lines" (id int PRIMARY KEY, expires timestamptz)')
    database.execute('INSERT INTO "Order Lines" SELECT i, now() FROM generate_series(1, 10000) AS i')
    target = make_target(database, tmp_path)
    with database.connect(purpose="forgotten report", autocommit=False) as old:
        old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        old.rows("SELECT 1")
        with database.connect() as connection:
            connection.execute('DELETE FROM "Order Lines" WHERE id <= 7000')
            flush_counters(connection)
        found = vacuum_tables(target, ['public."Order Lines"'])
    (note,) = found.findings
    assert "7,000 dead rows can't be removed yet" in note.reason
    assert "forgotten report" in note.reason
    assert found.as_json()["horizon"][0]["application_name"] == "pgsteward forgotten report"


def test_no_table_at_all_is_skipped_and_an_unknown_one_refused(database: Database, tmp_path: Path) -> None:
    target = make_target(database, tmp_path, vacuum={"guard": False})
    found = vacuum_tables(target).as_json()
    assert (found["status"], found["horizon"], found["ages"], found["xid_age"]) == ("skipped", [], [], None)
    with pytest.raises(ConfigError, match=r"no table public\.nowhere"):
        vacuum_tables(target, ["public.nowhere"])


def test_every_leaf_of_a_partitioned_table_is_vacuumed(database: Database, tmp_path: Path) -> None:
    database.execute("CREATE TABLE p (a int) PARTITION BY LIST (a)")
    database.execute("CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1)")
    database.execute("CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2)")
    found = vacuum_tables(make_target(database, tmp_path), ["p"])
    assert [item.object for item in found.changed] == ["public.p1", "public.p2"]
