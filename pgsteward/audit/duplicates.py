"""Indexes that another one makes superfluous: the same again, or the beginning of a longer one.

Pure: only what is in the inventory decides. Careful on purpose: another operator class, collation, order or
predicate makes another index, and one that enforces something is never given up for one that does not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from pgsteward.audit.inventory import Index, Inventory


@dataclass(frozen=True, slots=True)
class Superfluous:
    """An index that could go.

    Attributes:
        by: The one that does its work.
    """

    kind: Literal["duplicate", "redundant"]
    index: Index
    by: Index

    @property
    def reason(self) -> str:
        if self.kind == "duplicate":
            return f"the same as {self.by.qualified}, at the cost of every write"
        return f"{self.by.qualified} begins with the same columns and serves its queries as well"


def find_superfluous(inventory: Inventory, kept: Collection[int] = ()) -> list[Superfluous]:
    """Return every index that could go; never both of a pair.

    Args:
        inventory: All indexes.
        kept: OIDs of indexes that somebody has asked for.
    """
    return [found for indexes in inventory.by_table.values() for found in _of_table(indexes, kept)]


def _of_table(indexes: Sequence[Index], kept: Collection[int]) -> Iterator[Superfluous]:
    usable = [index for index in indexes if index.is_valid and index.is_readable]
    by: dict[int, Index] = {}
    for index in sorted(usable, key=_worth):
        if index.parent_oid is not None or index.is_of_extension or index.oid in kept:
            continue  # a part of a partitioned index can't go alone
        others = [other for other in usable if other.oid != index.oid and other.oid not in by]
        same = [other for other in others if is_duplicate(index, other)]
        longer = [other for other in others if is_prefix(index, other)]
        best = max(same or longer, key=lambda other: len(other.keys), default=None)
        if best is not None:
            by[index.oid] = best
    for index in usable:
        if index.oid in by:
            stays = by[index.oid]
            while stays.oid in by:  # what does its work may have to go as well
                stays = by[stays.oid]
            yield Superfluous("duplicate" if index.shape == stays.shape else "redundant", index, stays)


def _worth(index: Index) -> tuple[object, ...]:
    """Order by what there is to lose: plain ones first, those that others rely on last."""
    return (
        index.constraint_type == "p",
        index.is_referenced,
        index.constraint_name is not None,
        index.is_unique,
        index.is_clustered,
        len(index.keys),
        index.oid * -1,  # of two that are alike the younger one goes
    )


def is_duplicate(index: Index, other: Index) -> bool:
    """Tell whether another index does everything that this one does."""
    return (
        index.shape == other.shape and index.method_options == other.method_options and _may_go(index, other)
    )


def is_prefix(index: Index, other: Index) -> bool:
    """Tell whether a longer B-tree does everything that this one does.

    Its columns begin with this one's, and what this one carries along is in it as well.
    """
    if index.method != "btree" or other.method != "btree":
        return False
    if (index.predicate, index.class_options) != (other.predicate, other.class_options):
        return False
    if len(other.keys) < len(index.keys) or other.keys[: len(index.keys)] != index.keys:
        return False
    if index.shape == other.shape or not index.include <= {*other.columns}:
        return False
    return _may_go(index, other) and (not index.is_unique or len(other.keys) == len(index.keys))


def _may_go(index: Index, other: Index) -> bool:
    """Tell whether nothing but queries relies on an index, or the other one gives it as well."""
    if index.is_replica_identity or index.is_clustered or index.is_referenced or index.is_exclusion:
        return False
    if index.constraint_type == "p":
        return False
    if not index.is_unique:
        return True
    return (
        other.is_unique
        and other.is_immediate >= index.is_immediate
        and other.nulls_not_distinct == index.nulls_not_distinct
    )
