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


def generated_anew(expected: Proof, actual: Proof) -> list[tuple[str, str]]:
    """Return the tables whose generated columns are other ones than in the backup."""
    wanted, found = added_up(expected.tables, actual.tables)
    there = {each.key: each for each in found if each.generated_a is not None}
    return [
        each.key
        for each in wanted
        if each.generated_a is not None
        and each.key in there
        and (each.generated_a, each.generated_b) != (there[each.key].generated_a, there[each.key].generated_b)
    ]


def _sum(top: tuple[str, str], relations: Sequence[Relation]) -> Relation:
    return relations[0].model_copy(
        update={
            "schema_name": top[0],
            "name": top[1],
            "rows": sum(relation.rows or 0 for relation in relations),
            "hash_a": _added(relation.hash_a for relation in relations),
            "hash_b": _added(relation.hash_b for relation in relations),
            "generated_a": _added(relation.generated_a for relation in relations),
            "generated_b": _added(relation.generated_b for relation in relations),
        }
    )


def _added(hashes: Iterable[str | None]) -> str | None:
    found = list(hashes)
    known = [int(each) for each in found if each is not None]
    return str(sum(known)) if len(known) == len(found) else None
