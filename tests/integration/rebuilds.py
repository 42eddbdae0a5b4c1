"""Helpers for the tests of rebuilds: targets with small thresholds, somebody in the way, threads."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, LiteralString

import pytest

from pgsteward.errors import StewardError
from pgsteward.leftovers import marks_of
from pgsteward.postgres import Connection, Login
from pgsteward.rebuild import Rebuild, start_rebuild
from pgsteward.targets import Target
from tests.integration.backup_targets import make_target
from tests.servers import Database

ROWS = 60_000
LONG = f"public.{'l' * 63}"
NAMES = {'public."Order Lines_pkey"', 'public."by ""kind"""', LONG}
PATIENCE_S = 60


def bloated_target(database: Database, tmp_path: Path, login: Login | None = None, **settings: Any) -> Target:
    """Return a target whose thresholds the small indexes of `NAMES` are over."""
    reindex = {"max_wait_s": 1.5, **settings}
    return make_target(
        database, tmp_path, login=login, index_bloat={"min_reclaimable": 100_000}, reindex=reindex
    )


def marks(database: Database) -> int:
    """Return how many rebuilds have a mark on disk."""
    with database.connect() as connection:
        return len(marks_of(connection).read())


def wait_until(database: Database, query: LiteralString, *, there: bool = True) -> None:
    """Wait until a query has rows, or has none any more."""
    deadline = time.monotonic() + PATIENCE_S
    with database.connect() as connection:
        while bool(connection.rows(query)) is not there:
            assert time.monotonic() < deadline, query
            time.sleep(0.05)


def open_snapshot(session: Connection) -> None:
    """Begin a transaction that reads nothing of anybody's tables, and holds up every rebuild all the same."""
    session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    session.rows("SELECT FROM pg_class LIMIT 1")


def before_rebuilds(patch: pytest.MonkeyPatch, *actions: Callable[[], object]) -> None:
    """Do something when it was seen that nobody is in the way of the first rebuild, the second, ..."""
    each = iter(actions)

    def begun_before(*arguments: Any) -> Rebuild | None:
        next(each, lambda: None)()
        return start_rebuild(*arguments)

    patch.setattr("pgsteward.reindex_run.start_rebuild", begun_before)


@contextlib.contextmanager
def in_background(work: Callable[[], object]) -> Iterator[list[StewardError]]:
    """Run something in a thread; at the end of the block it must end too. Yields what it was refused with."""
    errors: list[StewardError] = []

    def run() -> None:
        try:
            work()
        except StewardError as exc:
            errors.append(exc)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield errors
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
