"""Foreign keys without an index: each DELETE of what they refer to reads the whole referring table. Pure."""

from __future__ import annotations

from pgsteward.audit.inventory import ForeignKey, Index, Inventory
from pgsteward.postgres import quote_name

_LOOKS_UP = frozenset({"btree", "hash"})


def find_unsupported(inventory: Inventory) -> tuple[list[ForeignKey], list[ForeignKey]]:
    """Return the foreign keys without an index, and those of locked tables, of which that isn't known."""
    without: list[ForeignKey] = []
    unknown: list[ForeignKey] = []
    for key in inventory.foreign_keys:
        indexes = inventory.by_table.get(key.table_oid, ())
        if any(supports(index, key) for index in indexes):
            continue
        might = any(not i.is_readable and i.is_valid and _begins_with(i, key) for i in indexes)
        (unknown if might else without).append(key)
    return without, unknown


def supports(index: Index, key: ForeignKey) -> bool:
    """Tell whether the referring rows are found by this index: its first columns are the key's, in any order.

    One that leaves out the rows where a column of the key is NULL will do: those refer to nothing.
    """
    if not index.is_valid or not index.is_readable or not _begins_with(index, key):
        return False
    return index.predicate is None or index.predicate in {
        f"({quote_name(c)} IS NOT NULL)" for c in key.columns
    }


def _begins_with(index: Index, key: ForeignKey) -> bool:
    if index.method not in _LOOKS_UP or (index.method == "hash" and len(key.columns) > 1):
        return False
    return {*index.columns[: index.key_count][: len(key.columns)]} == {*key.columns}
