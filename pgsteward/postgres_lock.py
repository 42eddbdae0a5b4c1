"""One run per database and operation: advisory locks that end with the session that holds them."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator

from pgsteward.errors import PreconditionError, StewardError
from pgsteward.postgres import Connection, Login, connect
from pgsteward.sql import load

LOCK_SPACE = 0x70677374  # "pgst": first key of every advisory lock that pgsteward takes


def lock_key(operation: str) -> int:
    """Return the second advisory lock key of an operation: a signed 32-bit number."""
    key = zlib.crc32(operation.encode())
    return key - (1 << 32) if key >= 1 << 31 else key


def try_lock(connection: Connection, operation: str) -> bool:
    """Take the advisory lock of an operation in this database, or return False at once.

    The blocking form is never used: a session that waits for an advisory lock pins the vacuum horizon.
    """
    return bool(
        connection.value(
            "SELECT pg_try_advisory_lock(%(space)s, %(key)s)",
            {"space": LOCK_SPACE, "key": lock_key(operation)},
        )
    )


@contextlib.contextmanager
def operation_lock(login: Login, operation: str) -> Iterator[Connection]:
    """Hold the one lock that an operation has in one database, on a session of its own.

    Raises:
        PreconditionError: Another run holds it, or a transaction pooler is in between.
    """
    with connect(login, purpose=f"lock {operation}", statement_timeout_s=30) as connection:
        refuse_pooler(connection)
        if not try_lock(connection, operation):
            key = lock_key(operation) & 0xFFFFFFFF
            holder = connection.maybe_row(load("operation_lock_holder"), {"space": LOCK_SPACE, "key": key})
            who = f"pid {holder['pid']}, since {holder['since']}" if holder else "a session that just ended"
            raise PreconditionError(
                f"another {operation} run works on database {connection.dbname} ({who}); wait for it to end"
            )
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
