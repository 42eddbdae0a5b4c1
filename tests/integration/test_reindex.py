"""Conditional reindex on a real server: what is rebuilt, who stands in the way, what is left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, LiteralString

import pytest
from psycopg.conninfo import conninfo_to_dict

from pgsteward import reindex_memory
from pgsteward.errors import PreconditionError
from pgsteward.leftovers import drop_leftovers
from pgsteward.postgres import Connection, compose, identifier
from pgsteward.reindex import reindex
from pgsteward.reindex_memory import Past
from pgsteward.results import StepResult
from pgsteward.several import over
from pgsteward.targets import Target
from tests import servers
from tests.integration.backup_targets import make_target
from tests.integration.maintenance import facts_of, fill_bloated, invalid_indexes, temporary_role
from tests.integration.rebuilds import (
    LONG,
    NAMES,
    ROWS,
    before_rebuilds,
    bloated_target,
    in_background,
    marks,
    open_snapshot,
    wait_until,
)
from tests.servers import Database

pytestmark = pytest.mark.contrib

ORDERS: LiteralString = 'SELECT FROM "Order Lines" LIMIT 1'


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(scope="module")
def bloated_template(server: servers.Server, template: str) -> str:
    name = "pgsteward_bloated"
    server.create(name, template)
    fill_bloated(Database(server, name), ROWS)
    return name


@pytest.fixture
def database(server: servers.Server, bloated_template: str) -> Iterator[Database]:
    with servers.private_database(server, bloated_template) as private:
        yield private


@pytest.fixture
def target(database: Database, tmp_path: Path) -> Target:
    return bloated_target(database, tmp_path)


@pytest.fixture
def export(database: Database) -> Iterator[Connection]:
    """Somebody's session, which may hold a snapshot until its ROLLBACK."""
    with database.connect(purpose="nightly export", autocommit=False) as session:
        yield session


def test_bloated_indexes_are_rebuilt_and_the_bytes_are_returned(target: Target, database: Database) -> None:
    found = reindex(target).as_json()
    assert found["status"] == "ok"
    assert {item["object"] for item in found["changed"]} == NAMES
    for item in found["changed"]:
        assert item["action"] == "rebuilt"
        assert item["bytes_after"] < 0.5 * item["bytes_before"]
        assert item["seconds"] > 0
        # the new index is in it; full-page images and the table's other writes may be
        assert 0.5 * item["bytes_after"] < item["wal_bytes"] < 3 * item["bytes_after"] + 1_000_000
        assert item["wal_of"] == ("the rebuild" if database.server.version >= 18 else "the whole server")
    assert found["bytes_gained"] > 0
    assert invalid_indexes(database) == []
    assert marks(database) == 0

    memory = reindex_memory.load(target)
    assert set(memory.rebuilds) == NAMES
    for item in found["changed"]:
        (past,) = memory.rebuilds[item["object"]]
        assert (past.bytes_before, past.bytes_after) == (item["bytes_before"], item["bytes_after"])
        assert past.wal_bytes == item["wal_bytes"]
        assert past.seconds == pytest.approx(item["seconds"], abs=1)
    assert reindex(target).as_json()["changed"] == []


def test_a_dry_run_is_the_plan_with_who_is_in_the_way_and_changes_nothing(
    target: Target, database: Database
) -> None:
    with database.connect(purpose="report", autocommit=False) as holder:
        holder.rows(ORDERS)
        found = reindex(target, dry_run=True).as_json()
    assert {item["object"] for item in found["changed"]} == NAMES
    assert {item["action"] for item in found["changed"]} == {"would rebuild"}
    assert "pgsteward report" in found["changed"][0]["held_up_by"][0]
    assert {entry["verdict"] for entry in found["plan"]} == {"tonight"}
    first = found["plan"][0]
    assert first["predicted_seconds"] > 0
    assert first["reclaimable_bytes"] > 100_000
    assert found["learned_from"] == 0
    assert found["disk"].startswith("free in /")
    left_out = {entry["object"].partition(" ")[2]: entry["reason"] for entry in found["left_out"]}
    assert "concurrently" in left_out["indexes of system catalogs"]
    assert reindex(target, dry_run=True).as_json()["bytes_gained"] == 0
    assert reindex_memory.load(target).rebuilds == {}


def test_an_old_snapshot_of_somebody_else_skips_by_name_and_leaves_nothing(
    target: Target, database: Database, export: Connection
) -> None:
    open_snapshot(export)
    found = reindex(target)
    assert found.status == "partial"
    assert found.only_findings
    assert {note.object for note in found.skipped} == NAMES
    assert all("nightly export" in note.reason for note in found.skipped)
    assert invalid_indexes(database) == []
    export.execute("ROLLBACK")
    assert len(reindex(target).changed) == 3


def test_skip_does_not_wait_for_anybody(database: Database, tmp_path: Path, export: Connection) -> None:
    open_snapshot(export)
    began = time.monotonic()
    found = reindex(bloated_target(database, tmp_path, on_blocker="skip", max_wait_s=600))
    assert time.monotonic() - began < 30
    assert len(found.skipped) == 3


def test_wait_outwaits_whoever_is_in_the_way(
    database: Database, tmp_path: Path, export: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited_for: list[str] = []
    before_rebuilds(monkeypatch, lambda: open_snapshot(export))
    began = time.monotonic()

    def let_go(what: str, done: int = 0, total: int = 0) -> None:
        if "waiting for old snapshots (" in what:
            waited_for.append(what)
            if time.monotonic() - began > 3:
                export.execute("ROLLBACK")

    found = reindex(bloated_target(database, tmp_path, on_blocker="wait", max_wait_s=0.1), progress=let_go)
    assert found.status == "ok"
    assert len(found.changed) == 3
    assert "nightly export" in waited_for[0]


def test_a_rebuild_that_waits_too_long_is_cancelled_and_its_leftover_finished_later(
    target: Target, database: Database, export: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin() -> None:
        open_snapshot(export)
        export.rows(ORDERS)  # its lock keeps the leftover, too

    before_rebuilds(monkeypatch, begin)
    found = reindex(target)
    assert found.status in {"failed", "partial"}
    assert "cancelled after waiting" in found.failed[0].reason
    assert "nightly export" in found.failed[0].reason
    (left,) = invalid_indexes(database)
    assert left in found.failed[1].object
    assert "nightly export" in found.failed[1].reason
    assert marks(database) == 1

    export.execute("ROLLBACK")
    dry, _ = drop_leftovers(target, dry_run=True)
    assert [item.action for item in dry] == ["would drop"]
    dropped, notes = drop_leftovers(target)
    assert ([item.action for item in dropped], notes) == (["dropped"], [])
    assert invalid_indexes(database) == []
    assert marks(database) == 0


def test_being_stopped_ends_the_statements_and_cleans_up(
    database: Database, tmp_path: Path, export: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stop(BaseException):
        pass

    def stop_while_waiting(what: str, done: int = 0, total: int = 0) -> None:
        if "waiting for old snapshots" in what:
            export.execute("ROLLBACK")
            raise Stop

    before_rebuilds(monkeypatch, lambda: open_snapshot(export))
    target = bloated_target(database, tmp_path)
    with pytest.raises(Stop):
        reindex(target, progress=stop_while_waiting)
    assert (
        database.rows(
            "SELECT FROM pg_stat_activity WHERE application_name LIKE 'pgsteward reindex%'"
            " AND pid <> pg_backend_pid() AND state = 'active'"
        )
        == []
    )
    drop_leftovers(target)
    assert invalid_indexes(database) == []


def test_time_that_is_over_in_mid_run_ends_it_and_teaches_how_long_it_takes(
    database: Database, tmp_path: Path, export: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_rebuilds(monkeypatch, lambda: open_snapshot(export))
    target = bloated_target(database, tmp_path, max_minutes=3 / 60, max_wait_s=600)
    found = reindex(target)
    assert "the time was over" in found.failed[0].reason
    assert len(found.skipped) == 2
    assert all("it would not be done by" in note.reason for note in found.skipped)
    name = found.failed[0].object
    assert reindex_memory.load(target).unfinished_s(name) > 0
    export.execute("ROLLBACK")
    drop_leftovers(target)
    assert invalid_indexes(database) == []


@pytest.mark.any_server
def test_what_runs_when_the_time_is_over_may_be_let_finish(
    database: Database, tmp_path: Path, export: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_rebuilds(monkeypatch, lambda: open_snapshot(export))
    target = bloated_target(database, tmp_path, max_minutes=3 / 60, max_wait_s=600, at_window_end="finish")
    began = time.monotonic()

    def let_go(what: str, done: int = 0, total: int = 0) -> None:
        if time.monotonic() - began > 5:
            export.execute("ROLLBACK")

    found = reindex(target, progress=let_go)
    assert found.failed == ()
    assert [item.action for item in found.changed] == ["rebuilt"]
    assert len(found.skipped) == 2


@pytest.mark.any_server
def test_a_closed_window_rebuilds_nothing_and_says_when_it_opens(database: Database, tmp_path: Path) -> None:
    hour = datetime.now(UTC) + timedelta(hours=2)
    hours = f"{hour:%H}:00-{hour + timedelta(hours=1):%H}:00"
    found = reindex(bloated_target(database, tmp_path, window=hours))
    assert found.status == "ok"
    assert found.changed == ()
    assert all("the window is closed; it opens at" in note.reason for note in found.skipped)
    assert {note.object for note in found.skipped} == NAMES


@pytest.mark.any_server
@pytest.mark.parametrize("dry_run", [True, False])
def test_a_disk_without_room_is_a_finding(database: Database, tmp_path: Path, dry_run: bool) -> None:
    found = reindex(bloated_target(database, tmp_path, free_disk_bytes=100_000), dry_run=dry_run)
    assert found.only_findings
    assert found.changed == ()
    assert all("of disk beside the old index, and 100 kB are free" in note.reason for note in found.skipped)
    assert found.details["disk"] == "free_disk_bytes"


@pytest.mark.any_server
def test_a_folder_that_is_not_there_stops_before_anything_is_rebuilt(
    database: Database, tmp_path: Path
) -> None:
    with pytest.raises(PreconditionError, match="data_folder"):
        reindex(bloated_target(database, tmp_path, data_folder=str(tmp_path / "elsewhere")))


def test_wal_ends_the_night(database: Database, tmp_path: Path) -> None:
    predicted = [entry["predicted_wal_bytes"] for entry in plan_of(bloated_target(database, tmp_path))]
    found = reindex(bloated_target(database, tmp_path, max_wal_bytes=max(predicted)))
    assert len(found.changed) < 3
    assert any("WAL" in note.reason for note in found.skipped)


def plan_of(target: Target) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = reindex(target, dry_run=True).as_json()["plan"]
    return entries


def test_the_databases_of_a_server_share_what_bounds_a_night(
    server: servers.Server, bloated_template: str, database: Database, tmp_path: Path
) -> None:
    with servers.private_database(server, bloated_template) as other:

        def rebuild(*, dry_run: bool, **limits: Any) -> StepResult:
            target = make_target(
                database,
                tmp_path,
                databases=[database.dbname, other.dbname],
                index_bloat={"min_reclaimable": 100_000},
                reindex=limits,
            )
            return over(target, "reindex", lambda bound: reindex(bound, dry_run=dry_run))

        free = rebuild(dry_run=True).details["plan"]
        assert len(free) == 2 * len(NAMES)
        one_night = sum(each["predicted_wal_bytes"] for each in free) // 2
        for dry_run in (True, False):
            plan = rebuild(dry_run=dry_run, max_wal_bytes=one_night).details["plan"]
            first, second = plan[: len(NAMES)], plan[len(NAMES) :]
            assert {each["verdict"] for each in first} == {"tonight"}
            left = [each for each in second if each["verdict"] == "later"]
            assert left
            assert all("it would write more WAL" in each["reason"] for each in left)


@pytest.mark.any_server
def test_an_index_whose_bloat_came_back_is_left_alone_with_the_likely_cause(
    target: Target, database: Database
) -> None:
    days = [timedelta(days=days) for days in (11, 4)]
    memory = reindex_memory.Memory({})
    for ago in days:
        past = Past(datetime.now(UTC) - ago, 2_000_000, 500_000, 1.0, 500_000)
        memory = reindex_memory.add(target, memory, LONG, past)
    found = reindex(target)
    (note,) = found.skipped
    assert note.object == LONG
    assert "the bloat was soon back after each of its last 2 rebuilds, likely because rows are" in note.reason
    assert len(found.changed) == 2
    assert facts_of(found.as_json(), 'public."by ""kind"""')["bytes_after"] > 0


def test_a_role_that_could_not_clean_up_is_refused(database: Database, tmp_path: Path) -> None:
    roles = ("pg_monitor", "pg_maintain") if database.server.version >= 17 else ("pg_monitor",)
    with temporary_role(database, *roles) as login:
        found = reindex(bloated_target(database, tmp_path, login))
    assert {note.object for note in found.skipped} == NAMES
    for note in found.skipped:
        assert "run: ALTER TABLE " in note.reason
        assert "GRANT" not in note.reason, "a member of a superuser is one"
    assert found.changed == ()
    assert found.only_findings


def test_sessions_that_could_not_drop_a_leftover_rebuild_nothing(target: Target, database: Database) -> None:
    database.execute(
        compose("ALTER DATABASE {} SET default_transaction_read_only = on", identifier(database.dbname))
    )
    with pytest.raises(PreconditionError, match="default_transaction_read_only is on"):
        reindex(target)


def test_a_role_that_sees_little_of_others_still_sees_them_in_the_way(
    database: Database, tmp_path: Path, export: Connection
) -> None:
    """Without pg_read_all_stats there are a pid and a snapshot, and nothing else."""
    with temporary_role(database, "pg_stat_scan_tables") as login:
        with database.connect() as connection:
            role = conninfo_to_dict(login.conninfo)["user"]
            owner = compose('ALTER TABLE "Order Lines" OWNER TO {}', identifier(str(role)))
            connection.execute(owner)
        open_snapshot(export)
        target = bloated_target(database, tmp_path, login, on_blocker="skip")
        found = reindex(target)
        assert found.changed == ()
        assert all(f"would wait for pid {export.backend_pid}" in note.reason for note in found.skipped)
        assert {note.object for note in found.skipped} == NAMES
        export.execute("ROLLBACK")
        assert len(reindex(target).changed) == 3


def test_a_prepared_transaction_on_the_table_is_named(target: Target, database: Database) -> None:
    if database.value("SHOW max_prepared_transactions") == "0":
        pytest.skip("this server allows no prepared transaction")
    with database.connect(autocommit=False) as connection:
        connection.execute('INSERT INTO "Order Lines" VALUES (-1)')
        connection.execute("PREPARE TRANSACTION 'half, done'")
    try:
        found = reindex(target)
        assert all("prepared transaction 'half, done'" in note.reason for note in found.skipped)
        assert len(found.skipped) == 3
    finally:
        database.execute("ROLLBACK PREPARED 'half, done'")


def test_a_prepared_transaction_that_blocks_a_running_rebuild_is_named(
    target: Target, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its session goes on with something else, and is innocent."""
    if database.value("SHOW max_prepared_transactions") == "0":
        pytest.skip("this server allows no prepared transaction")
    with database.connect(purpose="innocent", autocommit=False) as session:

        def prepare() -> None:
            session.execute('INSERT INTO "Order Lines" VALUES (-1)')
            session.execute("PREPARE TRANSACTION 'two'")

        before_rebuilds(monkeypatch, prepare)
        try:
            found = reindex(target)
        finally:
            database.execute("ROLLBACK PREPARED 'two'")
    assert "for prepared transaction 'two'" in found.failed[0].reason
    assert "innocent" not in found.failed[0].reason
    drop_leftovers(target)
    assert invalid_indexes(database) == []


def test_tables_are_worked_on_side_by_side_and_one_table_never_is(
    database: Database, tmp_path: Path, export: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    with database.connect() as connection:
        connection.execute('CREATE TABLE "Other" AS SELECT * FROM generate_series(1, 40000) AS id')
        connection.execute('CREATE INDEX "Other idx" ON "Other" (id)')
        connection.execute('DELETE FROM "Other" WHERE id <= 30000')
        connection.execute('VACUUM "Other"')
    reads = [lambda: export.rows(ORDERS), lambda: export.rows('SELECT FROM "Other" LIMIT 1')]
    if plan_of(bloated_target(database, tmp_path))[0]["table"] == 'public."Other"':
        reads.reverse()
    before_rebuilds(monkeypatch, *reads)
    most: list[list[str]] = []

    def count(what: str, done: int = 0, total: int = 0) -> None:
        running = database.rows(
            "SELECT query FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = 'pgsteward reindex' AND state = 'active'"
        )
        most.append([row["query"] for row in running])
        if len(running) == 2:
            export.execute("ROLLBACK")

    found = reindex(bloated_target(database, tmp_path, parallel_tables=4, max_wait_s=30), progress=count)
    assert found.status == "ok"
    assert len(found.changed) == 4
    assert max(map(len, most)) == 2
    for queries in most:
        assert sum("Other idx" not in query for query in queries) <= 1


def test_a_rebuild_of_somebody_else_on_the_same_table_never_leaves_anything_of_ours(
    target: Target, database: Database, monkeypatch: pytest.MonkeyPatch, export: Connection
) -> None:
    """Two rebuilds on one table deadlock: PostgreSQL ends one of them."""
    with database.connect(purpose="somebody", lock_timeout_s=0) as somebody:
        theirs = compose("REINDEX INDEX CONCURRENTLY {}", identifier("Order Lines_pkey"))
        started = threading.Event()

        def rebuild_as_well() -> None:
            started.wait(30)
            somebody.execute(theirs)

        def ours_waits(what: str, done: int = 0, total: int = 0) -> None:
            if "waiting for writers before build" in what and not started.is_set():
                started.set()
                wait_until(database, THEIRS_WAITS)
                export.execute("ROLLBACK")

        insert = 'INSERT INTO "Order Lines" VALUES (-1)'
        before_rebuilds(monkeypatch, lambda: export.execute(insert))
        with in_background(rebuild_as_well) as errors:
            found = reindex(bloated_target_of(target, max_wait_s=30), progress=ours_waits)
    if errors:  # it was theirs that PostgreSQL has ended
        assert "deadlock" in str(errors[0])
    else:
        assert "deadlock" in found.failed[0].reason
        assert len(found.changed) == 3  # two rebuilt, and one leftover dropped
    assert marks(database) == 0
    theirs_left = [name for name in invalid_indexes(database) if name.startswith("Order Lines_pkey")]
    assert invalid_indexes(database) == theirs_left


THEIRS_WAITS = (
    "SELECT FROM pg_stat_activity WHERE application_name = 'pgsteward somebody' AND wait_event_type = 'Lock'"
)


def bloated_target_of(target: Target, **settings: Any) -> Target:
    reindex_settings = target.settings.reindex.model_copy(update=settings)
    return replace(target, settings=target.settings.model_copy(update={"reindex": reindex_settings}))


def test_application_goes_on_beside_a_rebuild(
    target: Target, database: Database, record_property: Callable[[str, object], None]
) -> None:
    latencies: list[float] = []
    over = threading.Event()

    def write_and_read() -> None:
        with database.connect(purpose="application") as connection:
            number = ROWS
            while not over.is_set():
                number += 1
                began = time.monotonic()
                connection.execute('INSERT INTO "Order Lines" VALUES (%(n)s, 1, %(n)s)', {"n": number})
                connection.rows('SELECT * FROM "Order Lines" WHERE id = %(n)s', {"n": number - 1})
                latencies.append(time.monotonic() - began)

    with in_background(write_and_read) as errors:
        found = reindex(target)
        over.set()
    assert errors == []
    assert len(found.changed) == 3
    assert len(latencies) > 10
    record_property("slowest_of", len(latencies))
    record_property("slowest_s", round(max(latencies), 3))
    assert max(latencies) < 5


def test_exclusion_constraints_and_partitioned_parents_are_left_out_by_name(
    target: Target, database: Database
) -> None:
    with database.connect() as connection:
        connection.execute("CREATE TABLE rooms (during int4range, EXCLUDE USING gist (during WITH &&))")
        connection.execute("CREATE TABLE p (a int) PARTITION BY LIST (a)")
        connection.execute("CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1)")
        connection.execute('CREATE INDEX "parent_ccnew" ON ONLY p (a)')
        if database.server.version >= 18:
            connection.execute("CREATE EXTENSION btree_gist")
            connection.execute(
                "CREATE TABLE prices (id int, during daterange, PRIMARY KEY (id, during WITHOUT OVERLAPS))"
            )
    found = reindex(target)
    assert len(found.changed) == 3
    left_out = {entry["object"]: entry["reason"] for entry in found.as_json()["left_out"]}
    assert "exclusion constraint" in left_out["public.rooms_during_excl"]
    assert "looked at one by one" in left_out["1 index of partitioned tables"]
    if database.server.version >= 18:
        assert "temporal key" in left_out["public.prices_pkey"]
    assert drop_leftovers(target) == ([], [])
    assert invalid_indexes(database) == ["parent_ccnew"]
