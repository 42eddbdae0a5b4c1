"""Foreign keys without an index: each DELETE of what they refer to reads the whole referring table. Pure."""

from __future__ import annotations

from pgsteward.audit.inventory import ForeignKey, Index, Inventory
from pgsteward.key_indexes import holds_what_refers


def find_unsupported(inventory: Inventory) -> tuple[list[ForeignKey], list[ForeignKey]]:
    """Return the foreign keys without an index, and those of locked tables, of which that isn't known."""
    without: list[ForeignKey] = []
    unknown: list[ForeignKey] = []
    for key in inventory.foreign_keys:
        indexes = inventory.by_table.get(key.table_oid, ())
        if any(supports(index, key) for index in indexes):
            continue
        might = any(not index.is_readable and key.oid in index.looks_up for index in indexes)
        (unknown if might else without).append(key)
    return without, unknown


def supports(index: Index, key: ForeignKey) -> bool:
    """Tell whether the referring rows are found by this index."""
    return key.oid in index.looks_up and index.is_readable and holds_what_refers(index.predicate, key.columns)
