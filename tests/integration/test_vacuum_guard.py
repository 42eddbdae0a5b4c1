"""The VACUUM guard against a real server: ages, horizon, locks, autovacuum, time."""

from __future__ import annotations

import re
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pgsteward.children import Children
from pgsteward.demo.server import EmbeddedPostgres
from pgsteward.postgres import compose, identifier, literal
from pgsteward.results import StepResult
from pgsteward.vacuum import vacuum_tables
from tests.faults.clusters import own_cluster
from tests.integration.backup_targets import make_target
from tests.integration.maintenance import facts_of, flush_counters, standby, temporary_role, wait_until
from tests.servers import TEST_SETTINGS, Database, Server

ORDERS = 'public."Order Lines"'
OLD = "autovacuum_freeze_max_age = 100000, autovacuum_enabled = off"
"""Makes a table old after 80,000 transactions; autovacuum itself looks only once a day."""


def guard(database: Database, tmp_path: Path, *, dry_run: bool = False, **settings: Any) -> StepResult:
    login = settings.pop("login", None)
    target = make_target(database, tmp_path, login=login, vacuum=settings)
    return vacuum_tables(target, dry_run=dry_run)


def make_orders(database: Database, options: str = "autovacuum_enabled = off", rows: int = 2_000) -> None:
    with database.connect() as connection:
        connection.execute(f'CREATE TABLE "Order Lines" (id int PRIMARY KEY, t text) WITH ({options})')
        connection.execute(
            """INSERT INTO "Order Lines" SELECT i, 'x' FROM generate_series(1, %(rows)s) AS i""",
            {"rows": rows},
        )


def use_up_transactions(database: Database, number: int = 90_000) -> None:
    """Make everything older: each subtransaction that writes takes a number."""
    block = (
        f"DO $$ BEGIN FOR i IN 1 .. {number} LOOP"
        "  BEGIN INSERT INTO counter VALUES (i); EXCEPTION WHEN division_by_zero THEN END;"
        " END LOOP; END $$"
    )
    with database.connect() as connection:
        connection.execute("CREATE UNLOGGED TABLE counter (i int)")
        connection.execute(block.encode())
        connection.execute("DROP TABLE counter")


def delete_most(database: Database) -> None:
    with database.connect() as connection:
        connection.execute('DELETE FROM "Order Lines" WHERE mod(id, 10) < 7')
        flush_counters(connection)


@contextmanager
def prepared(database: Database) -> Iterator[str]:
    """Leave a prepared transaction behind that has a number, as a forgotten application does."""
    gid = f"it's forgotten {uuid.uuid4()}"
    with database.connect(autocommit=False) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS touched (i int)")
        connection.execute(compose("PREPARE TRANSACTION {}", literal(gid)))
    try:
        yield gid
    finally:
        database.execute(compose("ROLLBACK PREPARED {}", literal(gid)))


@contextmanager
def slot(database: Database) -> Iterator[str]:
    """Leave a slot behind that holds the horizon, as a standby that is gone does."""
    name = f"gone_{uuid.uuid4().hex[:8]}"
    database.rows("SELECT pg_create_physical_replication_slot(%(name)s, true)", {"name": name})
    try:
        with standby(database, name):
            pass
        wait_until(database, "SELECT NOT EXISTS (SELECT FROM pg_replication_slots WHERE active)")
        yield f"inactive replication slot '{name}'"
    finally:
        database.rows("SELECT pg_drop_replication_slot(%(name)s)", {"name": name})


@contextmanager
def old_session(database: Database) -> Iterator[str]:
    """Hold a snapshot."""
    with database.connect(purpose="forgotten report", autocommit=False) as old:
        old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        old.rows("SELECT 1")
        yield "pgsteward forgotten report"


HOLDERS = {
    "session": old_session,
    "prepared transaction": prepared,
    "replication slot": slot,
    "standby feedback": standby,
}


def test_the_oldest_table_is_frozen_long_before_the_server_would(database: Database, tmp_path: Path) -> None:
    make_orders(database, OLD)
    database.execute(f"CREATE TABLE young (i int) WITH ({OLD})")
    assert ORDERS not in {item.object for item in guard(database, tmp_path, dry_run=True).changed}
    use_up_transactions(database)
    database.execute("VACUUM (FREEZE) young")

    dry = guard(database, tmp_path, dry_run=True)
    assert [item.object for item in dry.changed] == [ORDERS]
    assert "transactions old, over 80,000" in dry.changed[0].facts["reason"]

    found = guard(database, tmp_path)
    assert found.status == "ok"
    facts = facts_of(found.as_json(), ORDERS)
    assert facts["xid_age_before"] > 80_000
    assert facts["xid_age_after"] < 50_000
    assert not guard(database, tmp_path, dry_run=True).changed
    assert found.as_json()["xid_age"] > 0
    assert "template0" in {row["name"] for row in found.as_json()["ages"]}


def test_a_toast_table_that_is_older_than_its_table_is_seen(database: Database, tmp_path: Path) -> None:
    make_orders(database, OLD)
    use_up_transactions(database)
    database.execute('VACUUM (FREEZE, PROCESS_TOAST false) "Order Lines"')
    found = guard(database, tmp_path)
    facts = facts_of(found.as_json(), ORDERS)
    assert "of its TOAST table" in facts["reason"]
    assert facts["xid_age_after"] < 50_000


def test_who_keeps_a_table_old_is_named_and_then_it_works(database: Database, tmp_path: Path) -> None:
    make_orders(database, OLD)
    with prepared(database) as gid:
        use_up_transactions(database)
        found = guard(database, tmp_path)
    assert found.status == "partial"
    note = next(note for note in found.findings if note.object == ORDERS)
    assert "its oldest transaction is still" in note.reason
    assert f"prepared transaction {gid!r}" in note.reason
    assert "ROLLBACK PREPARED 'it''s forgotten" in note.reason
    holder = next(each for each in found.as_json()["horizon"] if each["gid"] == gid)
    assert holder["age_xids"] > 80_000
    assert guard(database, tmp_path).status == "ok"


def test_a_horizon_that_is_older_than_the_server_likes_is_no_want_of_rights(
    server: Server, tmp_path: Path
) -> None:
    with own_cluster(server, tmp_path / "own", {"autovacuum_freeze_max_age": "100000"}) as cluster:
        cluster.server.create("shop")
        database = Database(cluster.server, "shop")
        make_orders(database)
        with prepared(database) as gid:
            use_up_transactions(database, 110_000)
            found = guard(database, tmp_path)
    assert not found.failed
    note = next(note for note in found.findings if note.object == ORDERS)
    subject = "oldest xmin" if server.version < 16 else "cutoff for removing and freezing tuples"
    assert note.reason.count(f"{subject} is far in the past") == 1
    assert f"prepared transaction {gid!r}" in note.reason


def use_up_multixacts(database: Database, number: int = 9_000) -> None:
    """Make everything older by multixacts: each lock of a row that another session has locked takes one."""
    block = (
        f"DO $$ BEGIN FOR i IN 1 .. {number} LOOP"
        "  BEGIN PERFORM FROM shared FOR SHARE; RAISE 'again'; EXCEPTION WHEN raise_exception THEN END;"
        " END LOOP; END $$"
    )
    with database.connect(autocommit=False) as other, database.connect() as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS shared (i int)")
        connection.execute("TRUNCATE shared; INSERT INTO shared VALUES (1)")
        other.rows("SELECT FROM shared FOR SHARE")
        connection.execute(block.encode())


def test_a_table_that_is_old_by_multixacts_is_frozen_once_nobody_needs_them(
    database: Database, tmp_path: Path
) -> None:
    make_orders(database, "autovacuum_multixact_freeze_max_age = 10000, autovacuum_enabled = off")
    with database.connect(purpose="forgotten lock", autocommit=False) as holder:
        holder.rows('SELECT FROM "Order Lines" WHERE id = 1 FOR SHARE')
        database.rows('SELECT FROM "Order Lines" WHERE id = 1 FOR SHARE')
        use_up_multixacts(database)
        found = guard(database, tmp_path)
    note = next(note for note in found.findings if note.object == ORDERS)
    assert re.search(r"its oldest multixact is still [89],\d{3} multixacts old", note.reason)
    assert "pgsteward forgotten lock" in note.reason

    after = guard(database, tmp_path)
    assert after.status == "ok"
    facts = facts_of(after.as_json(), ORDERS)
    assert re.search(r"the oldest multixact is [89],\d{3} multixacts old, over 8,000", facts["reason"])
    assert facts["multixact_age_after"] < 1_000
    assert ORDERS not in {item.object for item in guard(database, tmp_path, dry_run=True).changed}


def test_a_logical_slot_keeps_rows_of_catalogs_and_is_blamed_for_no_others(
    server: Server, tmp_path: Path
) -> None:
    with own_cluster(server, tmp_path / "own", {"wal_level": "logical"}) as cluster:
        cluster.server.create("shop")
        database = Database(cluster.server, "shop")
        make_orders(database)
        database.rows("SELECT pg_create_logical_replication_slot('gone', 'pgoutput')")
        with database.connect() as connection:
            connection.execute("CREATE TABLE t (i int)")
            for number in range(200):
                connection.execute(f"ALTER TABLE t ALTER i SET STATISTICS {number}".encode())
        with old_session(database) as name:
            delete_most(database)
            held = guard(database, tmp_path, dead_fraction=0.1)
        freed = guard(database, tmp_path, dead_fraction=0.1)
    reasons = {note.object: note.reason for note in held.findings}
    assert name in reasons[ORDERS]
    assert "slot" not in reasons[ORDERS]
    slot = "inactive replication slot 'gone' (catalogs only)"
    assert slot in reasons["pg_catalog.pg_attribute"]
    reasons = {note.object: note.reason for note in freed.findings}
    assert ORDERS not in reasons
    assert slot in reasons["pg_catalog.pg_attribute"]
    assert "pg_drop_replication_slot('gone')" in reasons["pg_catalog.pg_attribute"]
    assert facts_of(freed.as_json(), ORDERS)["dead_rows_after"] == 0


@pytest.mark.parametrize("kind", HOLDERS)
def test_dead_rows_that_must_stay_are_a_finding_with_who_keeps_them(
    database: Database, tmp_path: Path, kind: str
) -> None:
    make_orders(database)
    with HOLDERS[kind](database) as name:
        delete_most(database)
        found = guard(database, tmp_path)
    assert found.status == "partial"
    note = next(note for note in found.findings if note.object == ORDERS)
    assert "1,400 dead rows can't be removed yet" in note.reason
    assert name in note.reason
    assert kind in {each["kind"] for each in found.as_json()["horizon"]}

    after = guard(database, tmp_path)
    assert after.status == "ok"
    assert facts_of(after.as_json(), ORDERS)["dead_rows_after"] == 0


def test_a_role_that_sees_no_other_session_says_so(database: Database, tmp_path: Path) -> None:
    make_orders(database)
    owner = database.value("SELECT current_user::text")
    assert owner
    with temporary_role(database) as login, database.connect(autocommit=False) as old:
        old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        old.rows("SELECT 1")
        role = database.value("SELECT rolname FROM pg_roles ORDER BY oid DESC LIMIT 1")
        database.execute(compose('ALTER TABLE "Order Lines" OWNER TO {}', identifier(role)))
        delete_most(database)
        found = guard(database, tmp_path, login=login)
        note = next(note for note in found.findings if note.object == ORDERS)
        assert f'GRANT pg_read_all_stats TO "{role}"' in note.reason
        database.execute(compose('ALTER TABLE "Order Lines" OWNER TO {}', identifier(owner)))


def test_dead_rows_count_by_autovacuums_own_rule(database: Database, tmp_path: Path) -> None:
    make_orders(database)
    database.execute('ANALYZE "Order Lines"')
    delete_most(database)
    found = guard(database, tmp_path, dry_run=True)
    assert facts_of(found.as_json(), ORDERS)["reason"].startswith(
        "1,400 dead rows, over 450, and autovacuum is off"
    )
    database.execute('ALTER TABLE "Order Lines" SET (autovacuum_vacuum_threshold = 1400)')
    assert not guard(database, tmp_path, dry_run=True).changed
    database.execute('ALTER TABLE "Order Lines" SET (autovacuum_vacuum_scale_factor = 0)')
    assert not guard(database, tmp_path, dry_run=True).changed
    database.execute('ALTER TABLE "Order Lines" SET (autovacuum_vacuum_threshold = 1399)')
    assert guard(database, tmp_path, dry_run=True).changed


@pytest.mark.pg_min(18)
def test_the_largest_threshold_of_18_counts(database: Database, tmp_path: Path) -> None:
    make_orders(database, "autovacuum_enabled = off, autovacuum_vacuum_scale_factor = 100")
    database.execute('ANALYZE "Order Lines"')
    delete_most(database)
    assert not guard(database, tmp_path, dry_run=True).changed
    database.execute('ALTER TABLE "Order Lines" SET (autovacuum_vacuum_max_threshold = 1000)')
    found = guard(database, tmp_path, dry_run=True)
    assert "over 1,000" in facts_of(found.as_json(), ORDERS)["reason"]


def test_a_table_that_stays_locked_is_named_and_the_others_are_done(
    database: Database, tmp_path: Path
) -> None:
    make_orders(database)
    database.execute('CREATE TABLE aside AS TABLE "Order Lines"')
    delete_most(database)
    with database.connect() as connection:
        connection.execute("DELETE FROM aside")
        flush_counters(connection)
    with database.connect(purpose="migration", autocommit=False) as holder:
        holder.execute('LOCK TABLE "Order Lines"')
        found = guard(database, tmp_path, lock_timeout_s=0.2, parallel_tables=2)
    assert found.status == "partial"
    (note,) = found.failed
    assert note.object == ORDERS
    assert "migration" in note.reason
    assert [item.object for item in found.changed] == ["public.aside"]


def test_a_locked_table_is_waited_for_once_all_others_are_done(database: Database, tmp_path: Path) -> None:
    make_orders(database)
    delete_most(database)
    with database.connect(autocommit=False) as holder:
        holder.execute('LOCK TABLE "Order Lines"')
        began = time.monotonic()
        found = guard(database, tmp_path, lock_timeout_s=4)
        took_s = time.monotonic() - began
    assert [note.object for note in found.failed] == [ORDERS]
    assert 4 <= took_s < 7


def test_a_lock_that_ends_meanwhile_is_waited_for(database: Database, tmp_path: Path) -> None:
    make_orders(database)
    delete_most(database)
    with database.connect(autocommit=False) as holder:
        holder.execute('LOCK TABLE "Order Lines"')
        results: list[StepResult] = []
        run = threading.Thread(target=lambda: results.append(guard(database, tmp_path)))
        run.start()
        wait_until(
            database,
            "SELECT EXISTS (SELECT FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)"
            "                WHERE NOT l.granted AND a.application_name = 'pgsteward vacuum'"
            "                  AND a.datname = current_database())",
        )
        holder.execute("COMMIT")
        run.join()
    assert results[0].status == "ok"


def test_a_run_whose_time_is_over_names_what_is_left_but_does_what_is_old(
    database: Database, tmp_path: Path
) -> None:
    make_orders(database, OLD)
    use_up_transactions(database)
    with database.connect() as connection:
        connection.execute(
            "CREATE TABLE dead WITH (autovacuum_enabled = off) AS SELECT generate_series(1, 900)"
        )
        connection.execute("DELETE FROM dead")
        flush_counters(connection)
    found = guard(database, tmp_path, max_minutes=1e-9)
    assert [item.object for item in found.changed] == [ORDERS]
    assert "900 dead rows" in next(note.reason for note in found.skipped if note.object == "public.dead")


def test_while_our_own_dump_runs_only_old_tables_are_done(database: Database, tmp_path: Path) -> None:
    make_orders(database)
    delete_most(database)
    with database.connect(purpose="snapshot"):
        found = guard(database, tmp_path)
    assert not found.changed
    assert "our own dump" in next(note.reason for note in found.skipped if note.object == ORDERS)


@pytest.fixture
def busy_autovacuum(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A table in which a worker of autovacuum is at work, slowly, on a server of its own."""
    if server.bin_dir is None:
        pytest.skip("needs the programs of a server")
    settings = {**TEST_SETTINGS, "autovacuum_naptime": "1s"}
    with Children() as children:
        own = EmbeddedPostgres(
            tmp_path_factory.mktemp("own"), children, distribution=server.bin_dir, settings=settings
        ).start()
        database = Database(replace(server, login=own.login(), log=own.log), "postgres")
        make_orders(database, "autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1", 50_000)
        delete_most(database)
        wait_until(database, "SELECT EXISTS (SELECT FROM pg_stat_progress_vacuum)")
        yield database


def test_a_running_autovacuum_is_left_alone_and_named(busy_autovacuum: Database, tmp_path: Path) -> None:
    found = guard(busy_autovacuum, tmp_path)
    assert "autovacuum is at it (pid" in next(n.reason for n in found.skipped if n.object == ORDERS)
    assert ORDERS not in {item.object for item in found.changed}


def test_an_old_table_is_done_though_autovacuum_is_at_it(busy_autovacuum: Database, tmp_path: Path) -> None:
    use_up_transactions(busy_autovacuum, 3_000)
    found = guard(busy_autovacuum, tmp_path, freeze_fraction=0.00001)
    assert found.status == "ok"
    assert facts_of(found.as_json(), ORDERS)["xid_age_after"] < 2_000
