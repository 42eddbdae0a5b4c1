"""What ends a proof in the middle of a statement, and who is in its way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pgsteward.errors import StewardError
from pgsteward.postgres import Connection
from pgsteward.relations import name_holders
from pgsteward.sql import load


@contextmanager
def watched(connection: Connection, still_wanted: Callable[[], None] | None) -> Iterator[None]:
    """Ask `still_wanted` several times a second; its first error ends the running statement and is raised."""
    if still_wanted is None:
        yield
        return
    over = threading.Event()
    errors: list[StewardError] = []

    def watch() -> None:
        while not over.wait(0.2):
            try:
                still_wanted()
            except StewardError as exc:
                errors.append(exc)
                while not over.wait(0.1):  # again and again: it may be between two statements
                    connection.cancel()
                return

    watcher = threading.Thread(target=watch, name="proof watcher", daemon=True)
    watcher.start()
    try:
        yield
    except StewardError as exc:
        if errors:
            raise errors[0] from exc
        raise
    finally:
        over.set()
        watcher.join()
    if errors:
        raise errors[0]


def queue(connection: Connection, oid: int) -> str:
    """Name who has asked for a table for themselves, as a clause."""
    return f"asked for by {name_holders(connection.rows(load('lock_queue'), {'oid': oid}))}"
