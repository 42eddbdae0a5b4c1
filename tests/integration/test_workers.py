"""Several sessions at work at the same time."""

from __future__ import annotations

import threading
import time

import pytest

from pgsteward.errors import DatabaseUnavailable, QueryFailed
from pgsteward.postgres import Connection
from pgsteward.workers import Workers, share_out
from tests.servers import Database

pytestmark = pytest.mark.any_server


def running(database: Database) -> int:
    return int(
        database.value(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND state = 'active' AND query LIKE '%pg_sleep%'"
            "   AND pid <> pg_backend_pid()"
        )
    )


def sleep(session: Connection, seconds: float) -> int:
    session.value("SELECT pg_sleep(%(seconds)s)", {"seconds": seconds})
    return session.backend_pid


def test_items_are_done_in_as_many_sessions_as_were_asked_for(database: Database) -> None:
    together = threading.Barrier(2, timeout=60)

    def meet(session: Connection, item: int) -> int:
        together.wait()  # never passes if one session did both
        return session.backend_pid

    with Workers(database.connect, 2, meet) as workers:
        for item in range(2):
            assert workers.has_room
            workers.begin(item)
        assert not workers.has_room
        done = dict(workers.next() for _ in range(2))
    assert set(done) == {0, 1}
    assert done[0] != done[1]


def test_an_error_of_the_work_comes_to_whoever_waits_for_it(database: Database) -> None:
    def fail(session: Connection, item: int) -> None:
        session.value("SELECT 1 / %(item)s", {"item": item})

    with Workers(database.connect, 2, fail) as workers:
        workers.begin(0)
        with pytest.raises(QueryFailed, match="division by zero"):
            workers.next()
        assert workers.busy == 0


def test_leaving_early_ends_the_statements_on_the_server(database: Database) -> None:
    began = time.monotonic()

    def be_stopped() -> None:
        with Workers(database.connect, 2, sleep) as workers:
            workers.begin(300)
            workers.begin(300)
            while running(database) < 2:
                assert time.monotonic() - began < 60
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        be_stopped()
    assert running(database) == 0
    assert time.monotonic() - began < 60


def test_where_the_server_has_no_further_session_the_first_does_the_work(database: Database) -> None:
    opened: list[Connection] = []

    def open_one() -> Connection:
        if opened:
            raise DatabaseUnavailable("sorry, too many clients already")
        opened.append(database.connect())
        return opened[0]

    with Workers(open_one, 3, sleep) as workers:
        workers.begin(0)
        workers.begin(0.01)
        assert not workers.has_room
        assert {workers.next()[1] for _ in range(2)} == {opened[0].backend_pid}
    with pytest.raises(DatabaseUnavailable), Workers(open_one, 3, sleep) as workers:
        workers.begin(0)


def ask(session: Connection, statement: bytes) -> int:
    return int(session.value(statement))


def test_what_was_shared_out_comes_back_in_its_order(database: Database) -> None:
    items = [f"SELECT {number}".encode() for number in range(20)]
    opened: list[Connection] = []

    def open_session() -> Connection:
        opened.append(database.connect())
        return opened[-1]

    assert share_out(items, 3, open_session, ask) == list(range(20))
    assert len(opened) == 3
    assert all(session.closed for session in opened)
    assert share_out([], 3, open_session, ask) == []


def test_an_error_ends_the_others_to_whom_work_was_shared_out(database: Database) -> None:
    began = time.monotonic()
    with pytest.raises(QueryFailed, match="division by zero"):
        share_out([b"SELECT count(*) FROM pg_sleep(60)", b"SELECT 1 / 0"], 2, database.connect, ask)
    assert time.monotonic() - began < 30
    assert running(database) == 0
