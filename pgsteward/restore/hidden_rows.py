"""Rows that row-level security hides from who restores: tables may force it on their owners, too."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from pgsteward import sql
from pgsteward.postgres import Login, compose, connect, identifier


@contextlib.contextmanager
def uncovered(login: Login, purpose: str) -> Iterator[None]:
    """Let a block see all rows of a database that is nobody's yet; afterwards tables are as they were.

    Where the block fails they stay so: the database is thrown away then.
    """
    with connect(login, purpose=purpose, lock_timeout_s=30) as session:
        tables = [
            identifier(row["schema_name"], row["name"]) for row in session.rows(sql.load("hidden_rows"))
        ]
        for table in tables:
            session.execute(compose("ALTER TABLE ONLY {} NO FORCE ROW LEVEL SECURITY", table))
        yield
        for table in tables:
            session.execute(compose("ALTER TABLE ONLY {} FORCE ROW LEVEL SECURITY", table))
