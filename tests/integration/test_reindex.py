"""Conditional reindex on a real server: what is rebuilt, who stands in the way, what is left behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, LiteralString

import pytest

from pgsteward import reindex as reindexing
from pgsteward.leftovers import drop_leftovers, marks_of
from pgsteward.postgres import Connection
from pgsteward.reindex import Rebuild, reindex
from pgsteward.targets import Target
from tests.integration.backup_targets import make_target
from tests.integration.maintenance import fill_bloated, invalid_indexes, temporary_role
from tests.servers import Database

pytestmark = pytest.mark.contrib

NAMES = {'public."Order Lines_pkey"', 'public."by ""kind"""', f"public.{'l' * 63}"}


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def target(database: Database, tmp_path: Path) -> Target:
    fill_bloated(database)
    return make_target(database, tmp_path, index_bloat={"min_reclaimable": 100_000, "max_wait_s": 1.5})


def marks(database: Database) -> int:
    with database.connect() as connection:
        return len(marks_of(connection).read())


@pytest.fixture
def export(database: Database) -> Iterator[Connection]:
    """Somebody's session; see `begin`."""
    with database.connect(purpose="nightly export", autocommit=False) as session:
        yield session


def begin(export: Connection) -> None:
    """Take a snapshot and a lock on the table, until the session's ROLLBACK."""
    export.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    export.rows('SELECT FROM "Order Lines" LIMIT 1')


@pytest.fixture
def meanwhile(export: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """The export begins when it was seen that nobody is in the way, and no rebuild runs yet."""
    real = reindexing.run_rebuild
    first = iter([True])

    def begun_before(*arguments: Any) -> Rebuild:
        if next(first, False):
            begin(export)
        return real(*arguments)

    monkeypatch.setattr(reindexing, "run_rebuild", begun_before)


def test_bloated_indexes_are_rebuilt_and_the_bytes_are_returned(target: Target, database: Database) -> None:
    found = reindex(target).as_json()
    assert found["status"] == "ok"
    assert {item["object"] for item in found["changed"]} == NAMES
    for item in found["changed"]:
        assert item["action"] == "rebuilt"
        assert item["bytes_after"] < 0.5 * item["bytes_before"]
        assert item["seconds"] > 0
    assert found["bytes_gained"] > 0
    assert invalid_indexes(database) == []
    assert marks(database) == 0
    assert reindex(target).as_json()["changed"] == []


def test_a_dry_run_names_what_would_be_rebuilt_and_who_is_in_the_way(
    target: Target, database: Database
) -> None:
    with database.connect(purpose="report", autocommit=False) as holder:
        holder.rows('SELECT FROM "Order Lines" LIMIT 1')
        found = reindex(target, dry_run=True).as_json()
    assert {item["object"] for item in found["changed"]} == NAMES
    assert {item["action"] for item in found["changed"]} == {"would rebuild"}
    assert "pgsteward report" in found["changed"][0]["held_up_by"][0]
    assert reindex(target, dry_run=True).as_json()["bytes_gained"] == 0


def test_an_old_snapshot_of_somebody_else_skips_by_name_and_leaves_nothing(
    target: Target, database: Database
) -> None:
    database.execute("CREATE TABLE elsewhere (a int)")
    with database.connect(purpose="forgotten report", autocommit=False) as old:
        old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        old.rows("SELECT * FROM elsewhere")
        found = reindex(target)
    assert found.status == "partial"
    assert found.only_findings
    assert {note.object for note in found.skipped} == NAMES
    assert all("forgotten report" in note.reason for note in found.skipped)
    assert invalid_indexes(database) == []
    assert len(reindex(target).changed) == 3


@pytest.mark.usefixtures("meanwhile")
def test_a_rebuild_that_waits_too_long_is_cancelled_and_its_leftover_finished_later(
    target: Target, database: Database, export: Connection
) -> None:
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


BEGUN = """
import sys
from pathlib import Path
from pgsteward import reindex
from pgsteward.targets import load_target

real = reindex.run_rebuild

def held(*arguments):
    print("nobody is in the way", flush=True)
    sys.stdin.readline()
    return real(*arguments)

reindex.run_rebuild = held
reindex.reindex(load_target("app", Path(sys.argv[1])))
"""


def test_a_run_killed_in_the_middle_is_finished_by_the_next(
    target: Target, database: Database, export: Connection, tmp_path: Path
) -> None:
    config = tmp_path / "pgsteward.toml"
    config.write_text(
        f'[stores.disk]\nurl = "file://{tmp_path}/store"\n[targets.app]\n'
        f'conninfo = "{database.conninfo}"\nstores = ["disk"]\n'
        f'password = {{ file = "{tmp_path}/password" }}\n'
        "[targets.app.index_bloat]\nmin_reclaimable = 100000\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", BEGUN, str(config)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == b"nobody is in the way\n"
        begin(export)
        child.stdin.write(b"go on\n")
        child.stdin.flush()
        with database.connect() as watch:
            wait_for: LiteralString = (
                "SELECT FROM pg_stat_activity"
                " WHERE application_name = 'pgsteward reindex' AND wait_event_type = 'Lock'"
            )
            deadline = time.monotonic() + 60
            while not watch.rows(wait_for):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            child.send_signal(signal.SIGKILL)
            child.wait()
            gone = "SELECT FROM pg_stat_activity WHERE application_name LIKE 'pgsteward reindex%'"
            while watch.rows(gone):
                assert time.monotonic() < deadline
                time.sleep(0.1)
    finally:
        child.kill()
        child.communicate()
    assert len(invalid_indexes(database)) == 1
    assert marks(database) == 1
    export.execute("ROLLBACK")
    found = reindex(target)
    assert found.status == "ok"
    assert [item.action for item in found.changed] == ["dropped", "rebuilt", "rebuilt", "rebuilt"]
    assert invalid_indexes(database) == []


@pytest.mark.usefixtures("meanwhile")
def test_being_stopped_ends_the_statement_and_cleans_up(
    target: Target, database: Database, export: Connection
) -> None:
    class Stop(BaseException):
        pass

    def stop_while_waiting(what: str, done: int = 0, total: int = 0) -> None:
        if "waiting" in what:
            export.execute("ROLLBACK")
            raise Stop

    began = time.monotonic()
    with pytest.raises(Stop):
        reindex(target, progress=stop_while_waiting)
    assert time.monotonic() - began < 10
    assert (
        database.rows(
            "SELECT FROM pg_stat_activity WHERE application_name LIKE 'pgsteward reindex%'"
            " AND pid <> pg_backend_pid() AND state = 'active'"
        )
        == []
    )
    drop_leftovers(target)
    assert invalid_indexes(database) == []


def test_a_role_that_could_not_clean_up_is_refused(
    target: Target, database: Database, tmp_path: Path
) -> None:
    with temporary_role(database, "pg_monitor") as login:
        found = reindex(
            make_target(database, tmp_path, login=login, index_bloat={"min_reclaimable": 100_000})
        )
    assert {note.object for note in found.skipped} == NAMES
    assert "GRANT postgres TO" in found.skipped[0].reason
    assert found.changed == ()


def test_the_janitor_touches_only_what_is_known_to_be_ours(target: Target, database: Database) -> None:
    with database.connect() as connection:
        connection.execute('CREATE INDEX "stranger_ccnew2" ON "Order Lines" (kind)')
        connection.execute('CREATE INDEX "healthy_ccnew" ON "Order Lines" (kind)')
        connection.execute(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'stranger_ccnew2'::regclass"
        )
        connection.execute("CREATE TABLE p (a int) PARTITION BY LIST (a)")
        connection.execute("CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1)")
        connection.execute('CREATE INDEX "parent_ccnew" ON ONLY p (a)')
    dropped, notes = drop_leftovers(target)
    assert dropped == []
    assert [note.object for note in notes] == ["public.stranger_ccnew2"]
    assert "not known to be ours" in notes[0].reason
    assert invalid_indexes(database) == ["parent_ccnew", "stranger_ccnew2"]


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
