"""What a proof could not examine, or need not: the reasons, and the proof in a few figures."""

from __future__ import annotations

from typing import Any

from pgsteward import postgres
from pgsteward.backup.manifest import Proof
from pgsteward.backup.proof_large_objects import NO_RIGHT

NOT_POPULATED = "not populated"
LEFT_OUT = "its rows were left out of the dump"
UNLOGGED = "an unlogged table, which is empty on a standby"
NO_SELECT = "our role has no SELECT on it, which pg_dump does not need: a backup has no rows of it"
ON_PURPOSE = frozenset({NOT_POPULATED, LEFT_OUT, UNLOGGED, NO_SELECT})
"""Reasons not to examine a relation that leave nothing unknown: the backup has no rows of it."""
REWRITTEN = "truncated, rewritten or renamed before it was examined; the dump has its rows, the proof has not"
DROPPED = "dropped, or a column of it, before it was examined; the dump has its rows, the proof has not"
LARGE_OBJECTS = "large objects"


def not_examined(proof: Proof) -> list[tuple[str, str]]:
    """Return (object, reason) of everything a proof could not examine, populated or not."""
    missing = [
        (postgres.quote_name(*relation.key), relation.not_examined)
        for relation in proof.tables
        if relation.not_examined is not None
    ]
    objects = proof.large_objects
    if proof.level != "none" and objects.count is None:
        missing.append((LARGE_OBJECTS, "not counted"))
    elif proof.level == "full" and objects.count and objects.hash_a is None:
        missing.append((LARGE_OBJECTS, objects.not_examined or NO_RIGHT))
    return missing


def proof_facts(proof: Proof) -> dict[str, Any]:
    """Return a proof in a few figures."""
    return {
        "level": proof.level,
        "relations": len(proof.relations),
        "rows": proof.rows,
        "sequences": len(proof.sequences),
        "large_objects": proof.large_objects.count,
        "not_examined": sum(reason not in ON_PURPOSE for _, reason in not_examined(proof)),
        "seconds": proof.seconds,
    }
