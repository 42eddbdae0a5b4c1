"""What is wrong with the indexes that are there, whether anybody declared them or not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pgsteward.audit import ddl
from pgsteward.audit.duplicates import Superfluous, find_superfluous
from pgsteward.audit.foreign_keys import find_unsupported
from pgsteward.audit.invalid import find_invalid
from pgsteward.audit.inventory import ForeignKey, Index, Inventory
from pgsteward.audit.problem import Problem
from pgsteward.audit.required import Required
from pgsteward.audit.sizes import Sizes
from pgsteward.audit.usage import Usage, only_support
from pgsteward.ledger import Ledger
from pgsteward.postgres import Connection
from pgsteward.relations import is_excluded


def find_problems(
    connection: Connection,
    inventory: Inventory,
    measured: Sizes,
    used: Iterable[Usage],
    exclude: Sequence[str],
    required: Sequence[Required],
    ledger: Ledger,
) -> list[Problem]:
    """Return invalid, superfluous and unused indexes, and foreign keys that lack one.

    Args:
        connection: To ask for definitions.
        inventory: All indexes and foreign keys.
        measured: What each one takes.
        used: The verdict on each.
        exclude: Patterns of names that nothing is said about.
        required: What became of the requirements, which are spoken of elsewhere.
        ledger: Gets what was skipped and what is unknown.
    """
    excluded = {
        index.oid
        for index in inventory.indexes
        if is_excluded(exclude, index.schema, index.name)
        or is_excluded(exclude, index.schema, index.table_name)
    }
    if excluded:
        ledger.skip(f"{len(excluded)} indexes", "excluded by index_audit.exclude")
    named = {each.index.oid for each in required if each.index is not None and each.state == "invalid"}
    problems, skipped = find_invalid(connection, inventory, {*named, *excluded})
    ledger.skipped += skipped
    without, unknown = find_unsupported(inventory)
    for key in unknown:
        reason = "whether an index supports it can't be read while its table is locked"
        ledger.doubt(f"{key.table}: {key.name}", reason)
    problems += [
        _unsupported(connection, key, inventory)
        for key in without
        if not (
            is_excluded(exclude, key.schema, key.name) or is_excluded(exclude, key.schema, key.table_name)
        )
    ]
    spoken_of = [usage for usage in used if usage.index.oid not in excluded]
    superfluous = [
        found for found in find_superfluous(inventory, asked_for(required)) if found.index.oid not in excluded
    ]
    going = choose_going(inventory, superfluous, spoken_of)
    again = ddl.definitions(connection, inventory, [index for _, index, _ in going.values()])
    problems += [
        Problem(
            kind,
            index.qualified,
            index.table,
            reason,
            ddl.drop(index),
            again.get(oid, ()),
            measured.indexes.get(oid),
        )
        for oid, (kind, index, reason) in going.items()
    ]
    return problems


def choose_going(
    inventory: Inventory, superfluous: Sequence[Superfluous], used: Iterable[Usage]
) -> dict[int, tuple[str, Index, str]]:
    """Return by OID what could go, all of it together, with kind and reason.

    An unused index stays where it is to take over the work of a superfluous one (of two that are alike the
    planner reads one), or where a foreign key would be left without any.
    """
    going: dict[int, tuple[str, Index, str]] = {
        found.index.oid: (found.kind, found.index, found.reason) for found in superfluous
    }
    heirs = {_whole(found.by, inventory).oid for found in superfluous}
    for usage in used:
        index = usage.index
        if usage.verdict != "unused" or index.oid in going or index.oid in heirs:
            continue
        if not only_support(index, inventory, going):
            going[index.oid] = ("unused", index, usage.why)
    return going


def _whole(index: Index, inventory: Inventory) -> Index:
    """Return the partitioned index that an index is a part of, in the end; of any other itself."""
    while index.parent_oid is not None:
        index = inventory.by_oid[index.parent_oid]
    return index


def asked_for(required: Iterable[Required]) -> set[int]:
    """Return the OIDs of indexes that meet a requirement."""
    return {each.index.oid for each in required if each.index is not None and each.state == "found"}


def _unsupported(connection: Connection, key: ForeignKey, inventory: Inventory) -> Problem:
    definition = ddl.supporting(key, inventory)
    steps = ddl.create(connection, definition, inventory)
    return Problem(
        "foreign key",
        key.name,
        key.table,
        f"no index supports this foreign key: each DELETE in {key.references} reads all of {key.table}",
        tuple(step.statement for step in steps),
        (ddl.drop_made(definition),),
    )
