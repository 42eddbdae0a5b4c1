"""Definitions that changed under a dump: pg_dump reads some as they are now, not as its snapshot saw them.

What it writes down then fits nothing: a view over a function of another name, rows with a value that their
enum does not have. pg_dump says nothing, and its archive can't be restored.
"""

from __future__ import annotations

from collections.abc import Collection

from pgsteward import postgres
from pgsteward.backup.dump_errors import Rewritten
from pgsteward.backup.filters import Choice
from pgsteward.postgres import Connection, Login, Row
from pgsteward.sql import load

_SHOWN = 8
IN_ROWS = ("enum value",)
"""What is written with each row, and so must stay to the end of a dump."""


def refuse_redefined(
    seen: Connection, login: Login, choice: Choice | None, kinds: Collection[str] | None = None
) -> None:
    """Make sure that nothing was renamed, replaced or dropped that the dump is to hold.

    Args:
        seen: In the dump's snapshot.
        login: The same server, for a look at the present.
        choice: What is dumped; None where everything is.
        kinds: Of ``definitions.sql``; None where all matter.

    Raises:
        Rewritten: Something was.
    """
    filters = {
        "kinds": None if kinds is None else list(kinds),
        "schemas": None if choice is None or choice.all_schemas is None else list(choice.all_schemas),
    }
    replaced = seen.rows(load("definitions"), {**filters, "oids": None})
    if not replaced:
        return
    with postgres.connect(login, purpose="backup check") as session:
        oids = sorted({row["oid"] for row in replaced})
        now = session.rows(load("definitions"), {**filters, "schemas": None, "oids": oids})
    present = {(*_key(row), row["state"]) for row in now}
    changed = [row for row in replaced if (*_key(row), row["state"]) not in present]
    if changed:
        listed = ", ".join(_named(row) for row in changed[:_SHOWN])
        more = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
        raise Rewritten(
            "renamed, replaced or dropped while the dump read them, so that it could not be restored:"
            f" {listed}{more}"
        )


def _key(row: Row) -> tuple[str, int, int, str]:
    return row["kind"], row["oid"], row["part"], row["schema_name"]


def _named(row: Row) -> str:
    if row["kind"] == "schema":
        return f"schema {postgres.quote_name(row['name'])}"
    return f"{row['kind']} {postgres.quote_name(row['schema_name'], row['name'])}"
