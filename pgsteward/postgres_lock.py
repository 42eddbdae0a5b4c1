"""One run per database and operation: advisory locks that end with the session that holds them."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator

from pgsteward.errors import PreconditionError, StewardError
from pgsteward.postgres import Connection, Login, Row, compose, connect, raw
from pgsteward.sql import load

LOCK_SPACE = 0x70677374  # "pgst": first key of every advisory lock that pgsteward takes


def lock_key(operation: str) -> int:
    """Return the second advisory lock key of an operation: a signed 32-bit number."""
    key = zlib.crc32(operation.encode())
    return key - (1 << 32) if key >= 1 << 31 else key


def try_lock(connection: Connection, operation: str, *, shared: bool = False) -> bool:
    """Take the advisory lock of an operation in this database, or return False at once.

    The blocking form is never used: a session that waits for an advisory lock pins the vacuum horizon.

    Args:
        connection: The session that holds it, until it ends or `release` is called.
        operation: Whose lock.
        shared: Others may hold it as well, in the same way; where all do, it can always be taken.
    """
    function = raw("pg_try_advisory_lock_shared" if shared else "pg_try_advisory_lock")
    return bool(connection.value(compose("SELECT {}(%(space)s, %(key)s)", function), _numbers(operation)))


def release(connection: Connection, operation: str) -> None:
    """Give back a shared lock."""
    connection.execute("SELECT pg_advisory_unlock_shared(%(space)s, %(key)s)", _numbers(operation))


def holders_of(connection: Connection, operation: str) -> list[Row]:
    """Return the sessions that hold the lock of an operation in this database, oldest first."""
    key = lock_key(operation) & 0xFFFFFFFF
    return connection.rows(load("operation_lock_holders"), {"space": LOCK_SPACE, "key": key})


def _numbers(operation: str) -> dict[str, int]:
    return {"space": LOCK_SPACE, "key": lock_key(operation)}


@contextlib.contextmanager
def operation_lock(login: Login, operation: str, on: str | None = None) -> Iterator[Connection]:
    """Hold the one lock that an operation has in one database, on a session of its own.

    Args:
        login: To the database.
        operation: Its name.
        on: What it is for, where that is more than the database.

    Raises:
        PreconditionError: Another run holds it, or a transaction pooler is in between.
    """
    with connect(login, purpose=f"lock {operation}", statement_timeout_s=30) as connection:
        refuse_pooler(connection)
        if not try_lock(connection, operation):
            held = [f"pid {each['pid']}, since {each['since']}" for each in holders_of(connection, operation)]
            who = held[0] if held else "a session that just ended"
            where = on or f"database {connection.dbname}"
            raise PreconditionError(f"another {operation} run works on {where} ({who}); wait for it to end")
        try:
            yield connection
        finally:
            with contextlib.suppress(StewardError):  # the session is gone, and the lock with it
                connection.execute("SELECT pg_advisory_unlock_all()")  # a busy server sees a session end late


def refuse_pooler(connection: Connection) -> None:
    """Raise when a pooler sits in between: session locks and snapshots break there without an error.

    Raises:
        PreconditionError: The greeting's pid is not the backend's.
    """
    pid = connection.value("SELECT pg_backend_pid()")
    if pid != connection.backend_pid:
        raise PreconditionError(
            "a connection pooler sits between pgsteward and the server (the greeting's pid is"
            f" {connection.backend_pid}, the backend's is {pid}): session locks and snapshots break there;"
            " point conninfo at PostgreSQL itself"
        )
