"""Invalid indexes: what each one is, and what mends it."""

from __future__ import annotations

from collections.abc import Iterable

from pgsteward.audit import ddl
from pgsteward.audit.inventory import Index, Inventory
from pgsteward.audit.problem import Problem
from pgsteward.leftovers import is_transient_name
from pgsteward.postgres import Connection
from pgsteward.results import Note


def find_invalid(
    connection: Connection, inventory: Inventory, named: Iterable[int]
) -> tuple[list[Problem], list[Note]]:
    """Return invalid indexes that need somebody, and those that don't with the reason.

    Args:
        connection: To ask for definitions.
        inventory: All indexes.
        named: OIDs of those that were spoken of already.
    """
    problems: list[Problem] = []
    skipped: list[Note] = []
    spoken_of = set(named)
    for index in inventory.indexes:
        if index.is_valid or index.oid in spoken_of:
            continue
        if index.builder_pid is not None:
            skipped.append(Note(index.qualified, f"invalid, and being built now by pid {index.builder_pid}"))
        elif index.is_partitioned:
            skipped.append(Note(index.qualified, advice(connection, index, inventory).sentence))
        else:
            problems.append(advice(connection, index, inventory))
    return problems, skipped


def advice(connection: Connection, index: Index, inventory: Inventory) -> Problem:
    """Return what is wrong with an invalid index, and what mends it."""
    if index.is_partitioned:
        return _of_partitions(connection, index, inventory)
    if ddl.is_unfinished(index):
        reason = "an interrupted `indexes --create` left it; its next run, or the janitor, drops it"
        return Problem("invalid", index.qualified, index.table, reason, ddl.drop(index))
    twin = next(
        (
            other
            for other in inventory.by_table[index.table_oid]
            if other.is_valid and other.is_readable and index.is_readable and other.shape == index.shape
        ),
        None,
    )
    reason = "invalid: no query uses it, every write maintains it"
    if twin is not None and is_transient_name(index.name):
        reason += f"; an interrupted rebuild of {twin.qualified} left it"
        return Problem("invalid", index.qualified, index.table, reason, ddl.drop(index))
    how = "" if index.is_exclusion else "CONCURRENTLY "
    mend = f"REINDEX INDEX {how}{index.qualified};"
    if twin is not None:
        reason += f"; {twin.qualified} is the same and valid"
    return Problem(
        "invalid",
        index.qualified,
        index.table,
        f"{reason}; if nobody needs it: {ddl.drop(index)[0]}",
        (mend,),
    )


def _of_partitions(connection: Connection, index: Index, inventory: Inventory) -> Problem:
    """A partitioned index is invalid until each partition has its part: that is how one is made."""
    parts = inventory.parts.get(index.oid, ())
    broken = [part.qualified for part in parts if not part.is_valid]
    if broken:
        reason = f"invalid, as its part {', '.join(broken)} is"
        return Problem("invalid", index.qualified, index.table, reason)
    definition = ddl.definition_of(connection, index)
    steps = () if definition is None else ddl.create(connection, definition, inventory)
    lacking = sum(not step.makes for step in steps)
    reason = (
        f"a partitioned index that was made on its table alone; it is valid once {lacking} more"
        f" {'partition has its' if lacking == 1 else 'partitions have their'} part, made and attached"
    )
    return Problem("invalid", index.qualified, index.table, reason, tuple(step.statement for step in steps))
