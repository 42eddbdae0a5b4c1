"""`indexes --create`: made concurrently, refused where that is not safe, and nothing left behind."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pgsteward import postgres_lock
from pgsteward.audit.ddl import MARK
from pgsteward.errors import PreconditionError
from pgsteward.index_audit import audit
from pgsteward.janitor import clean_up
from pgsteward.postgres import Connection
from pgsteward.postgres_lock import operation_lock
from pgsteward.results import StepResult
from tests.integration.backup_targets import make_target
from tests.integration.maintenance import facts_of, invalid_indexes, temporary_role
from tests.servers import Database

STATUS = {"name": "by_status", "table": "jobs", "columns": ["status"], "where": "status <> 'x'"}
SLUG = {"name": '"by slug"', "table": "jobs", "columns": ["slug"], "unique": True}


@pytest.fixture
def board(database: Database) -> Database:
    with database.connect() as connection:
        connection.execute("CREATE TABLE jobs (id int PRIMARY KEY, status text, slug int)")
        connection.execute("INSERT INTO jobs SELECT i, 'new', i / 2 FROM generate_series(1, 2000) AS i")
    return database


def create(
    board: Database, tmp_path: Path, *required: Any, dry_run: bool = False, **settings: Any
) -> StepResult:
    target = make_target(board, tmp_path, index_audit={"required": list(required), **settings})
    return audit(target, create=True, dry_run=dry_run)


def test_what_is_missing_is_made_and_what_is_not_safe_is_refused_by_name(
    board: Database, tmp_path: Path
) -> None:
    wanted = [STATUS, SLUG, "nowhere"]
    dry = create(board, tmp_path, *wanted, dry_run=True)
    assert dry.dry_run
    (would,) = dry.changed
    assert (would.object, would.action) == ("by_status", "would create")
    assert board.value("SELECT count(*) FROM pg_indexes WHERE indexname = 'by_status'") == 0
    done = create(board, tmp_path, *wanted)
    assert facts_of(done.as_json(), "by_status")["action"] == "created"
    assert done.details["found"] == ["by_status"]
    reasons = {note.object: note.reason for note in done.skipped}
    assert "1,998 rows share their values" in reasons['"by slug"']
    assert "not declared with its table and columns" in reasons["nowhere"]
    assert done.only_findings
    board.execute("DELETE FROM jobs WHERE id %% 2 = 1", {})
    assert create(board, tmp_path, *wanted).details["found"] == ["by_status", '"by slug"']
    assert create(board, tmp_path, STATUS, SLUG).status == "ok"


def test_a_partitioned_table_gets_it_part_by_part_and_goes_on_where_it_was_left(
    database: Database, tmp_path: Path
) -> None:
    with database.connect() as connection:
        connection.execute("CREATE TABLE log (id int, day int) PARTITION BY LIST (day)")
        connection.execute("CREATE TABLE log_1 PARTITION OF log FOR VALUES IN (1)")
        connection.execute("CREATE TABLE log_2 PARTITION OF log FOR VALUES IN (2)")
        connection.execute("CREATE INDEX log_id ON ONLY log (id)")
    entry = {"name": "log_id", "table": "log", "columns": ["id"]}
    done = create(database, tmp_path, entry)
    assert done.details["found"] == ["log_id"], done
    assert len(facts_of(done.as_json(), "log_id")["statements"]) == 4
    assert invalid_indexes(database) == []


def test_a_part_is_an_index_that_can_be_attached(database: Database, tmp_path: Path) -> None:
    with database.connect() as connection:
        connection.execute("CREATE TABLE orders (id int PRIMARY KEY)")
        connection.execute(
            "CREATE TABLE log (id int, day int, buyer int REFERENCES orders) PARTITION BY LIST (day)"
        )
        connection.execute("CREATE TABLE log_1 PARTITION OF log FOR VALUES IN (1)")
        connection.execute("CREATE UNIQUE INDEX own_id ON log_1 (id)")
        connection.execute("CREATE INDEX own_buyer ON log_1 (buyer) INCLUDE (id)")
    done = create(database, tmp_path, {"name": "log_id", "table": "log", "columns": ["id"]})
    assert done.details["found"] == ["log_id"], done
    (lacking,) = [each for each in done.details["problems"] if each["kind"] == "foreign key"]
    for statement in lacking["ddl"]:
        database.execute(statement.encode())
    assert invalid_indexes(database) == []


def test_a_part_has_the_operator_class_and_collation_of_the_whole(database: Database, tmp_path: Path) -> None:
    with database.connect() as connection:
        connection.execute("CREATE TABLE users (name varchar(9) PRIMARY KEY)")
        connection.execute(
            "CREATE TABLE log (day int, who varchar(9) REFERENCES users) PARTITION BY LIST (day)"
        )
        for day, how in enumerate(("text_pattern_ops", 'COLLATE "C"', "DESC")):
            connection.execute(f"CREATE TABLE log_{day} PARTITION OF log FOR VALUES IN ({day})".encode())
            connection.execute(f"CREATE INDEX own_{day} ON log_{day} (who {how})".encode())
    (lacking,) = [
        each for each in create(database, tmp_path).details["problems"] if each["kind"] == "foreign key"
    ]
    for statement in lacking["ddl"]:
        database.execute(statement.encode())
    assert invalid_indexes(database) == []
    attached = database.value(
        "SELECT array_agg(inhrelid::regclass::text) FROM pg_inherits WHERE inhrelid::regclass::text ~ '^own'"
    )
    assert attached == ["own_2"]


def test_a_role_that_does_not_own_the_table_is_told_what_is_missing(board: Database, tmp_path: Path) -> None:
    with temporary_role(board, "pg_read_all_data") as login:
        target = make_target(board, tmp_path, login=login, index_audit={"required": [STATUS]})
        done = audit(target, create=True)
    (skipped,) = [note for note in done.skipped if note.object == "by_status"]
    assert "only the owner of public.jobs may; run: ALTER TABLE public.jobs OWNER TO" in skipped.reason


def test_who_would_hold_it_up_is_named_and_nothing_is_begun(board: Database, tmp_path: Path) -> None:
    with board.connect(autocommit=False, purpose="long report") as holder:
        holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        holder.execute("SELECT count(*) FROM jobs")
        done = create(board, tmp_path, STATUS, max_wait_s=0.5)
        holder.execute("ROLLBACK")
    (failed,) = done.failed
    assert "pgsteward long report" in failed.reason
    assert invalid_indexes(board) == []
    assert done.details["missing"] == ["by_status"]


def test_a_build_that_somebody_holds_up_later_is_cancelled_and_cleaned_up(
    board: Database, tmp_path: Path
) -> None:
    board.execute("INSERT INTO jobs SELECT i, md5(i::text), i FROM generate_series(2001, 150000) AS i")
    stop = threading.Event()

    def hold() -> None:
        """Wait for the build, then write and keep the transaction open."""
        with contextlib.closing(board.connect(autocommit=False)) as holder:
            while not stop.is_set() and not invalid_indexes(board):
                time.sleep(0.001)
            holder.execute("INSERT INTO jobs VALUES (-1, 'held')")
            stop.wait(60)

    holding = threading.Thread(target=hold)
    holding.start()
    try:
        done = create(board, tmp_path, STATUS, max_wait_s=1.0)
    finally:
        stop.set()
        holding.join(60)
    if done.failed:  # the build may have been faster
        assert "cancelled after waiting" in done.failed[0].reason
    left = create(board, tmp_path, STATUS)
    assert left.details["found"] == ["by_status"]
    assert invalid_indexes(board) == []


def test_what_a_killed_run_left_goes_with_the_next_one_but_nothing_else(
    board: Database, tmp_path: Path
) -> None:
    for name in (f"{MARK}00c0ffee", "somebody_elses"):
        board.execute(f"CREATE INDEX {name} ON jobs (slug, id)".encode())
        board.execute(
            f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{name}'::regclass".encode()
        )
    dry = create(board, tmp_path, dry_run=True)
    assert [(item.object, item.action) for item in dry.changed] == [(f"public.{MARK}00c0ffee", "would drop")]
    target = make_target(board, tmp_path, index_audit={})
    with operation_lock(target.login("maintenance"), "index create"):  # of a run that lives
        with pytest.raises(PreconditionError, match="another index create run"):
            audit(target, create=True)
        clean_up(target)
        assert len(invalid_indexes(board)) == 2
    cleaned = clean_up(target)
    assert f"public.{MARK}00c0ffee" in [item.object for item in cleaned.changed]
    assert invalid_indexes(board) == ["somebody_elses"]


def test_what_another_run_made_until_the_lock_was_free_is_not_made_again(
    board: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = postgres_lock.try_lock

    def after_the_other_run(connection: Connection, operation: str) -> bool:
        if operation == "index create":
            board.execute("CREATE INDEX by_status ON jobs (status) WHERE status <> 'x'")
        return take(connection, operation)

    monkeypatch.setattr(postgres_lock, "try_lock", after_the_other_run)
    done = create(board, tmp_path, STATUS)
    assert done.status == "ok", done
    assert done.changed == ()
    assert done.details["found"] == ["by_status"]


def test_what_a_killed_run_had_built_gets_its_name(board: Database, tmp_path: Path) -> None:
    board.execute(f"CREATE INDEX {MARK}00c0ffee ON jobs (status) WHERE status <> 'x'".encode())
    (would,) = create(board, tmp_path, STATUS, dry_run=True).changed
    assert (would.object, would.action) == ("by_status", "would rename")
    done = create(board, tmp_path, STATUS)
    assert [(item.object, item.action) for item in done.changed] == [("by_status", "renamed")]
    assert done.details["found_as"] == {"by_status": "public.by_status"}
    assert done.status == "ok"


def test_a_failing_build_leaves_nothing(board: Database, tmp_path: Path) -> None:
    board.execute("CREATE FUNCTION odd(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1 / ($1 - 500)'")
    entry = {"name": "by_odd", "table": "jobs", "columns": ["odd(slug)"]}
    done = create(board, tmp_path, entry, STATUS)
    (failed,) = done.failed
    assert "division by zero" in failed.reason
    assert done.details["found"] == ["by_status"]
    assert invalid_indexes(board) == []
