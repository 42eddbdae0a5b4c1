"""Two proofs side by side: that of a backup, and that of what was restored from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pgsteward import postgres
from pgsteward.backup import manifest
from pgsteward.backup.manifest import Configuration, LargeObjects, Proof, ProofLevel, Relation
from pgsteward.backup.moving import added_up, generated_anew
from pgsteward.backup.proof_gaps import LARGE_OBJECTS, ON_PURPOSE, not_examined
from pgsteward.backup.proof_hash import PAGE, differing, refuse_unknown
from pgsteward.errors import PreconditionError

GENERATED = "a restore computes its generated columns anew, and they differ: has an expression changed?"
CONTENT = "content"


@dataclass(frozen=True, slots=True)
class Difference:
    """One way in which two proofs differ; `what` is a clause about `object`."""

    object: str
    what: str

    def __str__(self) -> str:
        return f"{self.object}: {self.what}"


def compare(expected: Proof, actual: Proof) -> list[Difference]:
    """Return every way in which `actual` differs from `expected`; none means equal, with zero tolerance.

    What `expected` itself did not examine is not compared: the caller names it as unknown. Of materialized
    views only existence and population count: a restore refreshes them, so what was stale is fresh then.

    Raises:
        PreconditionError: The proofs were taken by different methods.
    """
    if expected.level == "none" or actual.level == "none":
        return []
    refuse_unknown(expected.method)
    if expected.method != actual.method:
        raise PreconditionError(
            f"the backup's proof is of method {expected.method}, the other one of {actual.method};"
            " take it by the same method"
        )
    exactly = compared_level(expected, actual) == "full"
    same_pages = exactly and PAGE not in differing(expected.test_vector, actual.test_vector)
    return [
        *_compare_relations(expected, actual, exactly=exactly),
        *_compare_configuration(expected, actual, exactly=exactly),
        *_compare_sequences(expected, actual),
        *_compare_large_objects(expected.large_objects, actual.large_objects, exactly=same_pages),
    ]


def compared_level(expected: Proof, actual: Proof) -> ProofLevel:
    """Return how closely two proofs can be compared: by their contents, by counts only, or not at all."""
    if "none" in (expected.level, actual.level):
        return "none"
    if expected.level == actual.level == "full" and not _other_hashes(expected, actual):
        return "full"
    return "counts"


def not_compared(expected: Proof, actual: Proof) -> list[tuple[str, str]]:
    """Return (object, reason) of everything that `compare` had to leave out, on either side.

    What has no rows in the backup on purpose is not among it.
    """
    missing = [pair for pair in not_examined(expected) if pair[1] not in ON_PURPOSE]
    missing += _configuration_not_compared(expected, actual)
    if not any(name == LARGE_OBJECTS for name, _ in missing):
        missing += [
            (name, f"of the restored copy: {reason}")
            for name, reason in not_examined(actual)
            if name == LARGE_OBJECTS
        ]
    if compared_level(expected, actual) == "full":
        missing += [(postgres.quote_name(*key), GENERATED) for key in generated_anew(expected, actual)]
    if expected.level == actual.level == "full":
        other = differing(expected.test_vector, actual.test_vector)
        if _other_hashes(expected, actual):
            said = f"this server hashes or writes {', '.join(other)} differently: compared by row counts only"
            missing.append((CONTENT, said))
        elif other and expected.large_objects.count:
            missing.append((LARGE_OBJECTS, "this server cuts them into other pages: counted only"))
    return missing


def _configuration_not_compared(expected: Proof, actual: Proof) -> Iterator[tuple[str, str]]:
    for wanted, found in _configuration(expected, actual):
        if wanted.not_examined is None and (why := _not_alike(wanted, found)):
            yield postgres.quote_name(*wanted.key), why
    if expected.configuration is None:
        why = "the backup, of an older pgsteward, has rows of it, but no proof of them"
        for each in actual.configuration or ():
            yield postgres.quote_name(*each.key), f"belongs to the extension {each.extension}; {why}"


def _other_hashes(expected: Proof, actual: Proof) -> list[str]:
    """Return what two servers hash differently, so that no table's hashes can be compared."""
    return [name for name in differing(expected.test_vector, actual.test_vector) if name != PAGE]


def _compare_relations(expected: Proof, actual: Proof, *, exactly: bool) -> Iterator[Difference]:
    wanted_relations, found_relations = added_up(expected.relations, actual.relations)
    present = {relation.key: relation for relation in found_relations}
    for wanted in wanted_relations:
        name = postgres.quote_name(*wanted.key)
        found = present.pop(wanted.key, None)
        if found is None:
            yield Difference(name, "is missing")
        elif what := _difference(wanted, found, exactly=exactly):
            yield Difference(name, what)
    for key in sorted(present):
        yield Difference(postgres.quote_name(*key), "is not in the backup")


def _difference(wanted: Relation, found: Relation, *, exactly: bool) -> str | None:
    if wanted.not_examined is not None:
        return None
    if found.not_examined is not None:
        return f"could not be examined: {found.not_examined}"
    if wanted.kind != found.kind:
        return f"is of kind {found.kind!r}, was {wanted.kind!r}"
    if wanted.kind == "m":
        return None
    if wanted.rows != found.rows:
        return f"has {found.rows} rows, the backup has {wanted.rows}"
    if exactly and (wanted.hash_a, wanted.hash_b) != (found.hash_a, found.hash_b):
        return f"content differs ({wanted.rows} rows in both)"
    return None


def _compare_configuration(expected: Proof, actual: Proof, *, exactly: bool) -> Iterator[Difference]:
    """Compare what extensions keep for their users; what their own scripts make there is no loss."""
    for wanted, found in _configuration(expected, actual):
        if found is None or _not_alike(wanted, found):
            continue
        if what := _difference(wanted, found, exactly=exactly):
            yield Difference(postgres.quote_name(*wanted.key), what)


def _configuration(expected: Proof, actual: Proof) -> list[tuple[Configuration, Configuration | None]]:
    there = {each.key: each for each in actual.configuration or ()}
    return [(each, there.get(each.key)) for each in expected.configuration or ()]


def _not_alike(wanted: Configuration, found: Configuration | None) -> str | None:
    """Return why the rows of an extension's table on both sides can't be compared; None where they can."""
    whose = f"the extension {wanted.extension}"
    if found is None:
        return f"{whose} is another version there, and does not call it configuration"
    if found.condition != wanted.condition:
        return f"{whose} is another version there, and calls other rows of it configuration"
    if wanted.rows is not None and found.rows is not None and found.rows > wanted.rows:
        return (
            f"has {found.rows} rows, the backup has {wanted.rows}: the script of {whose} makes rows itself,"
            " which pg_dump can't tell from those that users made; compare them by hand"
        )
    return None


def _compare_sequences(expected: Proof, actual: Proof) -> Iterator[Difference]:
    present = {(each.schema_name, each.name): each for each in actual.sequences}
    for wanted in expected.sequences:
        key = (wanted.schema_name, wanted.name)
        found = present.pop(key, None)
        if found is None:
            yield Difference(f"sequence {postgres.quote_name(*key)}", "is missing")
        elif found != wanted:
            yield Difference(
                f"sequence {postgres.quote_name(*key)}",
                f"stands at {_position(found)}, the backup has {_position(wanted)}",
            )
    for key in sorted(present):
        yield Difference(f"sequence {postgres.quote_name(*key)}", "is not in the backup")


def _position(sequence: manifest.Sequence) -> str:
    return f"{sequence.last_value}{'' if sequence.is_called else ' (not used yet)'}"


def _compare_large_objects(
    expected: LargeObjects, actual: LargeObjects, *, exactly: bool
) -> Iterator[Difference]:
    if expected.count is None or actual.count is None:
        return
    if expected.count != actual.count:
        yield Difference(LARGE_OBJECTS, f"there are {actual.count}, the backup has {expected.count}")
    elif (
        exactly
        and None not in (expected.hash_a, actual.hash_a)
        and (
            (expected.size_bytes, expected.hash_a, expected.hash_b)
            != (actual.size_bytes, actual.hash_a, actual.hash_b)
        )
    ):
        yield Difference(LARGE_OBJECTS, f"content differs ({expected.count} in both)")
