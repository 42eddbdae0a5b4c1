"""Partitions between which a restore moves rows: they are proven together, as one table.

A hash partition key of an enum type places rows by the enum's OIDs, and a restored enum has other ones.
Counts and hash sums add up: the sum over all partitions of the tree must be equal, that of one need not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pgsteward.backup.manifest import Proof, Relation
from pgsteward.postgres import Row


def marked(proof: Proof, moving: Iterable[Row]) -> Proof:
    """Return the proof with the trees named within which rows may move; see ``proof_moving.sql``."""
    tops = {(row["schema_name"], row["name"]): (row["top_schema_name"], row["top_name"]) for row in moving}
    if not tops:
        return proof
    relations = tuple(
        relation.model_copy(update={"moves_within": tops.get(relation.key)}) for relation in proof.relations
    )
    return proof.model_copy(update={"relations": relations})


def added_up(
    expected: Sequence[Relation], actual: Sequence[Relation]
) -> tuple[list[Relation], list[Relation]]:
    """Return both sides with the partitions of each such tree as one relation.

    A tree in which a partition is missing, is not examined or is too many stays as it is: that is the
    difference to be named.
    """
    trees: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for relation in expected:
        if relation.moves_within is not None:
            trees.setdefault(relation.moves_within, set()).add(relation.key)
    sides = []
    there = {relation.key for relation in actual if relation.not_examined is None}
    for side in (expected, actual):
        folded = list(side)
        for top, keys in trees.items():
            whole = [relation for relation in side if relation.key in keys]
            if keys <= there and all(relation.not_examined is None for relation in whole):
                folded = [relation for relation in folded if relation.key not in keys]
                folded.append(_sum(top, whole))
        sides.append(folded)
    return sides[0], sides[1]


def _sum(top: tuple[str, str], relations: Sequence[Relation]) -> Relation:
    hashed = all(relation.hash_a is not None and relation.hash_b is not None for relation in relations)
    return relations[0].model_copy(
        update={
            "schema_name": top[0],
            "name": top[1],
            "rows": sum(relation.rows or 0 for relation in relations),
            "hash_a": str(sum(int(relation.hash_a or 0) for relation in relations)) if hashed else None,
            "hash_b": str(sum(int(relation.hash_b or 0) for relation in relations)) if hashed else None,
        }
    )
