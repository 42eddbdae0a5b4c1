"""Writes a run into an SQLite file that is up to date without SQLAlchemy: its import takes the longest.

Whatever is not as expected is left to `pgsteward.state.history`, which also knows what to say about it.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Mapping
from datetime import UTC
from pathlib import Path
from typing import Any

from pgsteward.errors import StateFailed
from pgsteward.state.entries import BUSY_S, HEAD, VERSION_TABLE, Entries

_SCHEME = "sqlite:///"


def record(url: str, entries: Entries) -> bool:
    """Write a run as SQLAlchemy would; False, and nothing is written, where it has to do that itself.

    Args:
        url: Of the state database, whichever it is.
        entries: Rows of the run.

    Raises:
        StateFailed: Another writer kept the file locked for as long as one waits for it.
    """
    name = url.removeprefix(_SCHEME)
    if not url.startswith(_SCHEME) or "?" in name or name.startswith(("file:", ":")):
        return False
    if entries.run["started_at"].tzinfo is None:
        return False
    began = time.monotonic()
    try:
        file = Path(name).absolute().as_uri()  # mode=rw: a file that is not there has to be made properly
        with contextlib.closing(
            sqlite3.connect(f"{file}?mode=rw", timeout=BUSY_S, uri=True, isolation_level=None)
        ) as connection:
            return _write(connection, entries)
    except sqlite3.Error as exc:
        code = getattr(exc, "sqlite_errorcode", 0)  # Python's own errors have none
        if code & 0xFF == sqlite3.SQLITE_BUSY and time.monotonic() - began > BUSY_S / 2:
            raise StateFailed(f"the history was not written: {exc}") from exc
        return False


def _write(connection: sqlite3.Connection, entries: Entries) -> bool:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("BEGIN IMMEDIATE")  # closed without COMMIT, nothing has happened
    if connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchall() != [(HEAD,)]:  # noqa: S608 - a constant
        return False
    started_at = entries.run["started_at"].astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
    _insert(connection, "runs", {**entries.run, "id": _hex(entries.run["id"]), "started_at": started_at})
    for step, theirs in entries.steps:
        row = {**step, "run_id": _hex(step["run_id"]), "json": json.dumps(step["json"])}
        step_id = _insert(connection, "steps", row)
        for table, found in theirs.items():
            for each in found:
                _insert(connection, table, {**each, "step_id": step_id})
    connection.execute("COMMIT")
    return True


def _insert(connection: sqlite3.Connection, table: str, row: Mapping[str, Any]) -> int | None:
    columns = ", ".join(f'"{name}"' for name in row)
    values = ", ".join(f":{name}" for name in row)
    statement = f'INSERT INTO "{table}" ({columns}) VALUES ({values})'  # noqa: S608 - names of our own
    return connection.execute(statement, row).lastrowid


def _hex(uuid: str) -> str:
    return uuid.replace("-", "")
