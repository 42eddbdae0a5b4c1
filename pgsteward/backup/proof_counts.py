"""Row counts of many small tables by few statements.

With 20,000 small tables the way to the server and back takes longer than the counting, and pg_dump wants the
same cores.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pgsteward import postgres
from pgsteward.errors import LockTimeout, QueryFailed
from pgsteward.postgres import Connection, Row

TOGETHER = 50
SMALL_PAGES = 128
"""Larger ones are counted one by one: they gain nothing, and each can be named while it is read."""


def count_small(
    connection: Connection, snapshot_id: str | None, todo: Sequence[Row], max_locks: int
) -> dict[int, int]:
    """Count small relations from the beginning of a list, as many as one transaction may lock.

    Args:
        connection: Not in a transaction.
        snapshot_id: The snapshot to count in; None takes one of its own.
        todo: Rows of ``proof_relations``, with ``why_not`` where one need not be read.
        max_locks: On relations and their indexes.

    Returns:
        Rows by oid. Nothing at all where one of them can't be counted: asked one by one, it will be seen
        which, and why.
    """
    small = [
        row
        for row in _within(todo, max_locks)
        if row["why_not"] is None
        and row["populated"]
        and row["pages"] <= SMALL_PAGES
        and not row["condition"]
    ]
    if len(small) < 2:
        return {}
    counted: dict[int, int] = {}
    try:
        with connection.snapshot(snapshot_id):
            for start in range(0, len(small), TOGETHER):
                counted |= _count(connection, small[start : start + TOGETHER])
    except (QueryFailed, LockTimeout):
        return {}
    return counted


def _within(todo: Sequence[Row], max_locks: int) -> Iterator[Row]:
    locks = 0
    for row in todo:
        locks += 1 + row["index_count"]
        if locks > max_locks:
            return
        yield row


def _count(connection: Connection, some: Sequence[Row]) -> dict[int, int]:
    parts = [
        postgres.compose_file(
            "proof_count_labelled",
            oid=postgres.literal(row["oid"]),
            table=postgres.identifier(row["schema_name"], row["name"]),
        )
        for row in some
    ]
    return {row["oid"]: row["row_count"] for row in connection.rows(postgres.join(" UNION ALL ", parts))}
