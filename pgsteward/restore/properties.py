"""What belongs to a database as a whole, and to none of its tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pgsteward import sql
from pgsteward.postgres import Connection, Row


def read_properties(session: Connection, database: str) -> Row | None:
    """Return what ``database_properties.sql`` says, as text; None where there is no such database.

    ``unreadable`` names what is not UTF-8: set by a session in a database of another encoding, it can't be
    written from here as it was.
    """
    found = session.maybe_row(sql.load("database_properties"), {"database": database})
    if found is None:
        return None
    unreadable: list[str] = []

    def text(raw: bytes, name: str | None) -> str:
        try:
            return raw.decode()
        except UnicodeDecodeError:
            shown = raw.decode(errors="replace")
            unreadable.append(name or shown.partition("=")[0])
            return shown

    def setting(entry: Mapping[str, Any]) -> dict[str, Any]:
        return {**entry, "setting": text(bytes.fromhex(entry["setting"]), None)}

    comment = found["comment"]
    return {
        **found,
        "comment": None if comment is None else text(bytes(comment), "its comment"),
        "settings": [setting(entry) for entry in found["settings"]],
        "unreadable": unreadable,
    }
