from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgsteward.backup import lock_slots
from pgsteward.backup.dump import back_up
from pgsteward.children import Children
from pgsteward.demo.server import EmbeddedPostgres
from pgsteward.errors import PreconditionError, TransientError
from pgsteward.postgres import connect
from pgsteward.sql import load
from tests.integration.backup_targets import make_target, nothing_left
from tests.servers import TEST_SETTINGS, Database, Server

SMALL = {
    **TEST_SETTINGS,
    "max_locks_per_transaction": "32",
    "max_connections": "20",
    "max_prepared_transactions": "0",
    "max_worker_processes": "0",
    "max_wal_senders": "0",
    "wal_level": "minimal",
    "autovacuum_max_workers": "1",
}
"""Room for 704 locks."""


@pytest.fixture(scope="module")
def small(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the same version with a small lock table."""
    if server.bin_dir is None:
        pytest.skip("a container's lock table can't be made smaller")
    settings = {**SMALL, **({"autovacuum_worker_slots": "1"} if server.version >= 18 else {})}
    folder = tmp_path_factory.mktemp("small")
    with Children() as children:
        running = EmbeddedPostgres(folder, children, distribution=server.bin_dir, settings=settings).start()
        yield Server(running.login(), server.version, server.contrib, running.bin_dir, running.log)


def with_tables(server: Server, dbname: str, count: int) -> Database:
    """Make a database with so many tables, each with an index."""
    server.create(dbname)
    with server.connect(dbname) as connection:
        for start in range(0, count, 50):
            made = "; ".join(
                f"CREATE TABLE t{n} (id int PRIMARY KEY)" for n in range(start, min(start + 50, count))
            )
            connection.execute(made.encode())
    return Database(server, dbname)


def test_a_dump_that_would_fill_the_lock_table_is_refused_with_the_setting_that_is_needed(
    small: Server, tmp_path: Path
) -> None:
    database = with_tables(small, "too_many", 600)
    target = make_target(database, tmp_path)
    with pytest.raises(PreconditionError, match="600 tables") as refused:
        back_up(target)
    assert nothing_left(target)
    told = re.search(r"max_locks_per_transaction = (\d+) \(it is 32\)", str(refused.value))
    assert told
    assert int(told[1]) * 22 >= 600
    with connect(database.login, purpose="test") as session:
        lock_slots.check(session, "full", tables=[("public", "t1")])


def test_a_dump_that_just_fits_is_made_and_proven(small: Server, tmp_path: Path) -> None:
    database = with_tables(small, "just_fits", 240)
    assert back_up(make_target(database, tmp_path)).status == "ok"


def test_locks_that_others_hold_now_are_something_that_may_heal(small: Server) -> None:
    database = with_tables(small, "fits", 250)
    other = with_tables(small, "busy", 400)
    with connect(database.login, purpose="test") as session:
        lock_slots.check(session, "counts")
        with other.connect() as holder, holder.transaction():
            holder.execute(f"LOCK TABLE {', '.join(f't{n}' for n in range(400))}".encode())
            with pytest.raises(TransientError, match="others hold 4"):
                lock_slots.check(session, "counts")
        lock_slots.check(session, "counts")


def test_predicate_locks_have_a_table_of_their_own(database: Database) -> None:
    database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, filler text); ALTER TABLE t ALTER filler SET STORAGE PLAIN"
    )
    database.execute("INSERT INTO t SELECT n, repeat('x', 5000) FROM generate_series(1, 25) AS n")
    nothing = {"schemas": None, "table_schemas": None, "table_names": None}
    with database.connect() as reader, database.connect() as session:
        reader.execute("SET enable_seqscan = off; SET enable_bitmapscan = off")
        reader.execute("BEGIN ISOLATION LEVEL SERIALIZABLE")
        before = session.row(load("lock_slots"), nothing)["held"]
        for n in range(1, 26):
            reader.execute("SELECT filler FROM t WHERE id = %(n)s", {"n": n})
        predicates = "SELECT count(*) FROM pg_locks WHERE mode = 'SIReadLock'"
        assert session.value(predicates) >= 25
        assert session.row(load("lock_slots"), nothing)["held"] < before + 10
