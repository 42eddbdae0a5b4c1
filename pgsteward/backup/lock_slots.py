"""Is there room in the server's lock table? Where a dump fills it, the application's statements fail too."""

from __future__ import annotations

from collections.abc import Collection

from pgsteward.backup.manifest import ProofLevel
from pgsteward.backup.proof import GROUP
from pgsteward.errors import PreconditionError, TransientError
from pgsteward.postgres import Connection
from pgsteward.report.units import plural
from pgsteward.sql import load

CATALOGS = 200
"""Locks that pg_dump and our own sessions hold on the system's catalogs; 136 were counted beside pg_dump."""


def check(
    session: Connection,
    level: ProofLevel,
    *,
    tables: Collection[tuple[str, str]] | None = None,
    schemas: Collection[str] | None = None,
) -> None:
    """Refuse a dump whose locks would not fit beside those that are held now.

    pg_dump locks all tables in its first session. Its workers and the proof lock them once more, which takes
    no further place; the proof, with at most `GROUP` locks at a time, also locks the indexes.

    Args:
        session: To the database.
        level: Of the proof.
        tables: Those of a filtered dump, schema and name; None for all.
        schemas: Those of a filtered dump; None for all.

    Raises:
        PreconditionError: The lock table is too small; the text says what to set.
        TransientError: It is large enough, but others hold too much of it now.
    """
    row = session.row(
        load("lock_slots"),
        {
            "schemas": None if schemas is None else list(schemas),
            "table_schemas": None if tables is None else [schema for schema, _ in tables],
            "table_names": None if tables is None else [name for _, name in tables],
        },
    )
    needed = row["tables"] + CATALOGS + (0 if level == "none" else min(GROUP, row["indexes"]))
    held, setting = row["held"], row["locks_per_process"]
    size = setting * row["processes"]
    what = f"a dump of {plural(row['tables'], 'table')} needs {needed} locks at once"
    enough = -(-(needed + held) // (row["processes"] * 64)) * 64
    if needed > size:
        raise PreconditionError(
            f"{what}, and this server's lock table has room for {size}: set max_locks_per_transaction ="
            f" {enough} (it is {setting}) and restart the server"
        )
    if needed > size - held:
        raise TransientError(
            f"{what}, and others hold {held} of the {size} of this server now; if that stays so, set"
            f" max_locks_per_transaction = {enough} (it is {setting}) and restart the server"
        )
