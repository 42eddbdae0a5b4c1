"""The restore of a part of a backup: what its manifest is narrowed down to, and what it is compared with."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from pgsteward.backup import archive
from pgsteward.backup.manifest import DUMP, SUFFIX, LargeObjects, Manifest, Proof
from pgsteward.backup.proof_gaps import LEFT_OUT
from pgsteward.clients import Client
from pgsteward.errors import PreconditionError
from pgsteward.postgres import Connection, quote_name
from pgsteward.restore import selection, toc
from pgsteward.restore.outcome import Order
from pgsteward.restore.scope import Scope
from pgsteward.restore.selection import Part
from pgsteward.restore.toc import Key


def refuse(scope: Scope, *, replaces: bool, into: str | None, makes: bool) -> None:
    """Make sure that a part goes where a part can go.

    Args:
        scope: What was asked for.
        replaces: A database is to be replaced.
        into: The database that was named.
        makes: It was said how roles or tablespaces are to be made.

    Raises:
        PreconditionError: It would replace a database, or rows have no tables to go into.
    """
    if scope.everything:
        return
    if replaces:
        raise PreconditionError(
            f"a part ({'; '.join(scope.clauses)}) can't take the place of a database: leave replace out, and"
            " copy what you need from the new one"
        )
    if scope.data_only and into is None:
        raise PreconditionError(
            "data-only loads rows into tables that are there and empty: say in which database (into)"
        )
    if scope.data_only and makes:
        raise PreconditionError("data-only makes nothing: leave create-roles and no-tablespaces out")


def choose(order: Order, client: Client, session: Connection, contents: Path) -> Part | None:
    """Return what the archive holds of what was asked for; None where that is everything."""
    if order.scope.everything:
        return None
    decode = archive.decoder(session, order.manifest.server.encoding)
    proof = order.manifest.proof
    configuration = [(each.extension, as_listed(each.key)) for each in proof.configuration or ()]
    return selection.choose(toc.read(client, contents, decode), order.scope, _trees(proof), configuration)


def narrowed(order: Order, part: Part | None) -> Order:
    """Return the order with a manifest that speaks of the part alone: its files, its tables, its proof."""
    if part is None:
        return order
    manifest = order.manifest
    files = tuple(file for file in manifest.files if _is_needed(manifest, file.path, part))
    share = _share(manifest, part, sum(file.size_bytes for file in files))
    less = manifest.model_copy(
        update={
            "files": files,
            "proof": _proof(manifest.proof, part),
            "extensions": {
                name: version for name, version in manifest.extensions.items() if name in part.extensions
            },
            "database_bytes": int(manifest.database_bytes * share),
            "not_in_dump": _not_in_dump(manifest, part),
            "partial": (*manifest.partial, *part.scope.clauses),
        }
    )
    return replace(order, found=replace(order.found, manifest=less), part=part)


def _not_in_dump(manifest: Manifest, part: Part) -> tuple[str, ...]:
    """Return what the dump lacks of the part."""
    names = {quote_name(*key) for key in part.filled | part.empty}
    return tuple(
        what for what in manifest.not_in_dump if not part.scope.named or what.partition(": ")[0] in names
    )


def _is_needed(manifest: Manifest, path: str, part: Part) -> bool:
    """Tell whether a file holds the table of contents, or rows of the part; a stream holds everything."""
    if path == manifest.contents:
        return True
    name = path.removeprefix(f"{DUMP}/").removesuffix(SUFFIX)
    number = name.partition(".")[0]
    return path.startswith(f"{DUMP}/") and number.isdigit() and int(number) in part.numbers


def _share(manifest: Manifest, part: Part, size_bytes: int) -> float:
    """Return about how much of the database the part is, for a look at the disk."""
    if not part.filled:
        return 0.0
    if manifest.mode == "directory":
        return size_bytes / max(manifest.size_bytes, 1)
    rows = {relation.key: relation.rows or 0 for relation in manifest.proof.relations}
    chosen = sum(count for key, count in rows.items() if key in part.filled)
    return chosen / sum(rows.values()) if sum(rows.values()) else 1.0


def _proof(proof: Proof, part: Part) -> Proof:
    """Return what a restored part must equal; of a table without its rows, that it is there."""
    relations = []
    for relation in proof.relations:
        key = as_listed(relation.key)
        if key in part.filled:
            relations.append(relation)
        elif key in part.empty and not part.scope.data_only:
            relations.append(
                relation.model_copy(
                    update={
                        "rows": None,
                        "hash_a": None,
                        "hash_b": None,
                        "generated_a": None,
                        "generated_b": None,
                        "not_examined": LEFT_OUT,
                        "moves_within": None,
                    }
                )
            )
    return proof.model_copy(
        update={
            "relations": tuple(relations),
            "configuration": proof.configuration
            and tuple(each for each in proof.configuration if _has_rows_of(part, each.extension)),
            "sequences": tuple(
                each for each in proof.sequences if as_listed((each.schema_name, each.name)) in part.sequences
            ),
            "large_objects": LargeObjects(count=0),
        }
    )


def _has_rows_of(part: Part, extension: str) -> bool:
    """Tell whether what users gave an extension comes along with it."""
    return extension in part.extensions and not (
        part.scope.bare or part.scope.schema_only or part.scope.data_only
    )


def as_listed(key: Key) -> Key:
    """Return a name as the archive lists it, line breaks being blanks there."""
    schema, name = (part.replace("\n", " ").replace("\r", " ") for part in key)
    return schema, name


def as_it_is(manifest: Manifest, key: Key) -> Key:
    """Return the name of a table that the archive lists as `key`."""
    known = {as_listed(relation.key): relation.key for relation in manifest.proof.relations}
    return known.get(key, key)


def _trees(proof: Proof) -> list[Collection[Key]]:
    trees: dict[Key, list[Key]] = {}
    for relation in proof.relations:
        if relation.moves_within is not None:
            trees.setdefault(relation.moves_within, []).append(as_listed(relation.key))
    return list(trees.values())
