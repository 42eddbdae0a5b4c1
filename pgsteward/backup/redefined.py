"""Definitions that changed under a dump: pg_dump reads some as they are now, not as its snapshot saw them.

What it writes down then fits nothing: a view over a function of another name, rows with a value that their
enum does not have. pg_dump says nothing, and its archive can't be restored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pgsteward import postgres
from pgsteward.backup.dump_errors import Rewritten
from pgsteward.backup.filters import Choice
from pgsteward.postgres import Connection, Login, Row
from pgsteward.sql import load

_SHOWN = 8
_IN_ROWS = ("enum value",)
"""What is written with each row, and so must stay to the end of a dump."""


def read_in_rows(seen: Connection, choice: Choice | None) -> list[Row]:
    """Return what must stay as it is to the end of a dump, as its snapshot sees it; for `refuse_changed`.

    Args:
        seen: In the dump's snapshot.
        choice: What is dumped; None where everything is.
    """
    oids = [row["oid"] for row in seen.rows("SELECT oid::int8 AS oid FROM pg_enum")]
    return _read(seen, choice, oids, _IN_ROWS)


def refuse_redefined(seen: Connection, login: Login, choice: Choice | None) -> None:
    """Make sure that nothing was renamed, replaced or dropped that the dump is to hold.

    Args:
        seen: In the dump's snapshot.
        login: The same server, for a look at the present.
        choice: What is dumped; None where everything is.

    Raises:
        Rewritten: Something was.
    """
    refuse_changed(_read(seen, choice, None), login)


def refuse_changed(before: Sequence[Row], login: Login) -> None:
    """Make sure that definitions are still what they were.

    Args:
        before: Of `read_in_rows`.
        login: The same server, for a look at the present.

    Raises:
        Rewritten: One is another, or gone.
    """
    if not before:
        return
    with postgres.connect(login, purpose="backup check") as session:
        now = _read(session, None, sorted({row["oid"] for row in before}))
    present = {(*_key(row), row["state"]) for row in now}
    changed = [row for row in before if (*_key(row), row["state"]) not in present]
    if changed:
        listed = ", ".join(_named(row) for row in changed[:_SHOWN])
        more = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
        raise Rewritten(
            "renamed, replaced or dropped while the dump read them, so that it could not be restored:"
            f" {listed}{more}"
        )


def _read(
    session: Connection, choice: Choice | None, oids: Sequence[int] | None, kinds: Sequence[str] | None = None
) -> list[Row]:
    schemas = None if choice is None else choice.all_schemas
    parameters: dict[str, Any] = {
        "oids": None if oids is None else list(oids),
        "kinds": None if kinds is None else list(kinds),
        "schemas": None if schemas is None else list(schemas),
    }
    found = session.rows(load("definitions"), parameters)
    return found if choice is None else [row for row in found if _is_chosen(row, choice)]


def _is_chosen(row: Row, choice: Choice) -> bool:
    """Tell whether it matters for what is chosen: others' tables may come and go beside it."""
    if choice.tables is None or row["table_name"] is None:
        return True
    return (row["schema_name"], row["table_name"]) in choice.tables


def _key(row: Row) -> tuple[str, int, int, str]:
    return row["kind"], row["oid"], row["part"], row["schema_name"]


def _named(row: Row) -> str:
    if row["kind"] == "schema":
        return f"schema {postgres.quote_name(row['name'])}"
    return f"{row['kind']} {postgres.quote_name(row['schema_name'], row['name'])}"
