"""What a store can't hold in one object is refused before the dump starts."""

from __future__ import annotations

from pgsteward.errors import PreconditionError
from pgsteward.postgres import Connection
from pgsteward.report.units import humanize_bytes
from pgsteward.sql import load
from pgsteward.targets import Target

_TEXT = 2
"""Rows written out without compression may take more than in the table, but hardly twice as much."""


def refuse_too_large(target: Target, session: Connection, database_bytes: int, needed_bytes: int) -> None:
    """Make sure that no file of the backup will be larger than an object may be in any of the stores.

    Args:
        target: Whose backup.
        session: To its database; asked for the largest table only where that may matter.
        database_bytes: Size of the database.
        needed_bytes: Estimated size of the backup.

    Raises:
        PreconditionError: One will be; the text says which, and what to do.
    """
    limits = [(store.largest_object_bytes, store.name) for store in target.stores()]
    largest, store = min((limit, name) for limit, name in limits) if limits else (0, "")
    if database_bytes * _TEXT <= largest:
        return
    holds = f"store {store} holds at most {humanize_bytes(largest)} in one object"
    if target.settings.backup.form == "stream":
        if needed_bytes > largest:
            raise PreconditionError(
                f"the stream would have about {humanize_bytes(needed_bytes)}, and {holds}; use mode ="
                ' "directory", which writes a file per table'
            )
        return
    row = session.row(load("largest_table"))
    share = needed_bytes / max(1, database_bytes)
    expected = int(row["size_bytes"] * min(share, 1.0))
    if expected > largest:
        raise PreconditionError(
            f"table {row['name']} would take about {humanize_bytes(expected)} in one file, and {holds}; leave"
            " that store out of this target, compress more, or partition the table"
        )
