"""What a backup does not hold, and what looks wrong about it; all of it is named."""

from __future__ import annotations

import re

from pgsteward import databases, postgres
from pgsteward.errors import StewardError
from pgsteward.postgres import Connection, Row
from pgsteward.results import Note
from pgsteward.sql import load
from pgsteward.targets import Target

_HARMLESS = re.compile("circular foreign-key constraints")


def absent(relations: list[Row], data_oids: set[int], in_recovery: bool) -> list[Note]:
    """Say which tables' rows the archive does not hold, and why."""
    notes = []
    for row in relations:
        if row["kind"] == "m" or row["oid"] in data_oids:
            continue
        name = postgres.quote_name(row["schema_name"], row["name"])
        if row["kind"] == "f":
            notes.append(Note(name, "a foreign table; its rows live on another server"))
        elif row["extension_name"] is not None and row["condition"] is None:
            made = f"belongs to the extension {row['extension_name']}, which makes it again"
            notes.append(Note(name, f"{made}, without rows that were added to it"))
        elif row["unlogged"] and in_recovery:
            notes.append(Note(name, "an unlogged table, which is empty on a standby"))
        else:
            notes.append(Note(name, "the archive holds no rows of it"))
    return notes


def never_dumped(session: Connection) -> list[Note]:
    """Name what pg_dump leaves out without a word."""
    return [
        Note(
            f"{row['kind']} {postgres.quote_name(row['schema_name'])}.{row['name']}",
            f"pg_dump leaves it out: {row['reason']}",
        )
        for row in session.rows(load("never_dumped"))
    ]


def hidden_mappings(session: Connection) -> list[Note]:
    """Name the user mappings whose options this role may not read: pg_dump leaves them out without a word."""
    why = "its options, if any, can only be read by a superuser: they are not in the backup"
    rows = session.rows(load("hidden_user_mappings"))
    names = [(postgres.quote_name(row["role_name"]), postgres.quote_name(row["server_name"])) for row in rows]
    return [Note(f"user mapping of {role} for {server}", why) for role, server in names]


def findings(stderr: tuple[str, ...]) -> list[Note]:
    """Return pg_dump's warnings that may mean a loss."""
    return [Note("pg_dump", line) for line in stderr if "warning:" in line and not _HARMLESS.search(line)]


def uncovered(target: Target, session: Connection) -> list[str]:
    """Return the server's databases that no target looks after; an empty ``postgres`` is none of them."""
    names = databases.uncovered(target.config, target, session)
    return [name for name in names if name != "postgres" or not _is_empty(session, name)]


def _is_empty(session: Connection, database: str) -> bool:
    try:
        with postgres.connect(session.login.to(database), purpose="backup check") as other:
            return not other.value(load("holds_anything"))
    except StewardError:  # who may not look can't say that it is empty
        return False
