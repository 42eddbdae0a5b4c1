"""How a row becomes a number: by its types' own bytes where they are exact, by its text where not.

`docs/adr/0003-proof.md` says why. Two methods are known: ``typed-v1``, which new proofs are taken by, and
``text-v1``, by which older backups are still compared. Another template of a cell, or another row of test
values, would be another method and needs another name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, LiteralString

from pgsteward import postgres
from pgsteward.errors import PreconditionError
from pgsteward.postgres import Composed, Connection, Part, Row

TYPED = "typed-v1"
TEXT = "text-v1"
METHODS = (TYPED, TEXT)
METHOD = TYPED
"""Of new proofs."""

SEED = 2_862_933_555_777_941_757
SEED_A = 7_046_029_254_386_353_131
SEED_B = -3_335_678_366_873_096_957

MOST_COLUMNS = 800
"""That are hashed by type: each may become two cells, and a ROW() takes 1,664."""

CELLS: Mapping[str, LiteralString] = {
    # Their own hash is that of exactly their bytes.
    "bool": "{cell}::pg_catalog.bool",
    "int2": "{cell}::pg_catalog.int2",
    "int4": "{cell}::pg_catalog.int4",
    "oid": "{cell}::pg_catalog.oid",
    "date": "{cell}::pg_catalog.date",
    "uuid": "{cell}::pg_catalog.uuid",
    "bytea": "{cell}::pg_catalog.bytea",
    "name": "{cell}::pg_catalog.name",
    "inet": "{cell}::pg_catalog.inet",
    "cidr": "{cell}::pg_catalog.cidr",
    "macaddr": "{cell}::pg_catalog.macaddr",
    "macaddr8": "{cell}::pg_catalog.macaddr8",
    # Likewise under collation C, whatever the column's own collation calls equal.
    "text": '{cell}::pg_catalog.text COLLATE "C"',
    "varchar": '{cell}::pg_catalog.text COLLATE "C"',
    # Their own hash folds 64 bits into 32 (-1 and 4294967295 hash alike): their wire format is hashed.
    "int8": "pg_catalog.int8send({cell})",
    "time": "pg_catalog.time_send({cell})",
    "timestamp": "pg_catalog.timestamp_send({cell})",
    "timestamptz": "pg_catalog.timestamptz_send({cell})",
    # Its own hash knows neither sign nor scale: likewise.
    "numeric": "pg_catalog.numeric_send({cell})",
    # All NaNs hash alike, and are one after a restore; both zeros do too, and are still two.
    "float4": "{cell}::pg_catalog.float4, {cell}::pg_catalog.float4 = 0"
    " AND pg_catalog.float4send({cell}) <> '\\x00000000'::pg_catalog.bytea",
    "float8": "{cell}::pg_catalog.float8, {cell}::pg_catalog.float8 = 0"
    " AND pg_catalog.float8send({cell}) <> '\\x0000000000000000'::pg_catalog.bytea",
}
"""Base types that are hashed by type, and what of a cell is hashed. All others are hashed by their text."""

Columns = tuple[list[str], list[str | None]]
"""Names, and base types as `hash_statement` takes them."""

ENCODING = "encoding"
PAGE = "large object page"
TEXT_FORM = "text form"
_TEXTS = "abcdefghijklmnopqrs"
"""The columns of the test vector's texts."""


def refuse_unknown(method: str) -> None:
    """Make sure that a method is one of those that are known here.

    Raises:
        PreconditionError: It is one of a newer version.
    """
    if method not in METHODS:
        raise PreconditionError(
            f"the backup's proof is of method {method}, this pgsteward knows {' and '.join(METHODS)};"
            " compare with the version that made the backup"
        )


def kinds_of_columns(method: str, row: Row) -> dict[str, Columns]:
    """Return the columns of a relation that are hashed together, by what their hash is called.

    Args:
        method: ``typed-v1`` takes stored generated columns apart: no dump holds them, a restore computes them
            anew, and otherwise where a function, a dictionary or a collation has changed.
        row: One of ``proof_relations``.
    """
    apart = [method == TYPED and made for made in row["generated"]]
    kinds = {}
    for name, wanted in (("hash", False), ("generated", True)):
        places = [place for place, is_apart in enumerate(apart) if is_apart == wanted]
        if places:
            kinds[name] = [row["column_names"][n] for n in places], [row["column_types"][n] for n in places]
    return kinds


def hash_statement(method: str, table: Part, columns: Sequence[str], types: Sequence[str | None]) -> Composed:
    """Return the statement that counts and hashes one table: ``row_count``, ``hash_a``, ``hash_b``.

    Args:
        method: One of `METHODS`.
        table: Where the rows come from, as it stands in FROM.
        columns: In the order in which they are hashed; at least one.
        types: Their base types, resolved through domains; None for a type that is not PostgreSQL's own.
    """
    seeds = {"seed_a": postgres.literal(SEED_A), "seed_b": postgres.literal(SEED_B)}
    if method == TEXT:
        named = postgres.join(", ", [postgres.identifier("t", name) for name in columns])
        return postgres.compose_file("proof_text", table=table, cells=named, **seeds)
    cells = postgres.join(", ", _cells(columns, types))
    return postgres.compose_file(
        "proof_typed", table=table, cells=cells, seed=postgres.literal(SEED), **seeds
    )


def large_object_statement(method: str, pages: Literal["proof_pages_table", "proof_pages_read"]) -> Composed:
    """Return the statement that counts and hashes large objects ``first`` to ``last``.

    Args:
        method: One of `METHODS`.
        pages: Where their bytes come from.
    """
    page = postgres.raw("ROW(p.loid, p.pageno, p.stored)")
    size = postgres.raw("ROW(o.loid, int8send(o.size_bytes))")
    under_a: LiteralString = "hashint8extended(hash_record_extended({row}, {seed}), {mix})"
    under_b: LiteralString = "hashint4extended((hash_record_extended({row}, {seed}) >> 32)::int4, {mix})"
    if method == TEXT:
        size = postgres.raw("ROW(o.loid, o.size_bytes)")
        under_a = under_b = 'hashtextextended({row}::text COLLATE "C", {mix})'
    seed, seed_a, seed_b = (postgres.literal(each) for each in (SEED, SEED_A, SEED_B))
    return postgres.compose_file(
        "proof_large_objects",
        pages=postgres.compose_file(pages),
        page_a=postgres.compose(under_a, row=page, seed=seed, mix=seed_a),
        page_b=postgres.compose(under_b, row=page, seed=seed, mix=seed_b),
        size_a=postgres.compose(under_a, row=size, seed=seed, mix=seed_a),
        size_b=postgres.compose(under_b, row=size, seed=seed, mix=seed_b),
    )


def test_vector(connection: Connection) -> dict[str, str]:
    """Return this server's answers to fixed questions, one for each type that is hashed.

    Servers whose answers differ can't be compared by hashes.
    """
    values = postgres.compose("({})", postgres.compose_file("proof_test_values"))
    texts = postgres.compose("({})", postgres.compose_file("proof_test_texts"))
    questions = {name: hash_statement(TYPED, values, [name], [name]) for name in CELLS}
    questions[TEXT_FORM] = hash_statement(TYPED, texts, _TEXTS, [None] * len(_TEXTS))
    labelled = [
        postgres.compose(
            "SELECT {} AS name, x.hash_a || ' ' || x.hash_b AS answer FROM ({}) AS x",
            postgres.literal(name),
            question,
        )
        for name, question in questions.items()
    ]
    answers = {row["name"]: row["answer"] for row in connection.rows(postgres.join(" UNION ALL ", labelled))}
    answers[ENCODING] = connection.value("SELECT getdatabaseencoding()")
    answers[PAGE] = connection.value("SELECT current_setting('block_size')")
    return dict(sorted(answers.items()))


def differing(expected: Mapping[str, str], actual: Mapping[str, str]) -> list[str]:
    """Return the questions of the test vector that two servers answer differently."""
    return sorted(name for name, answer in expected.items() if actual.get(name) != answer)


def _cells(columns: Sequence[str], types: Sequence[str | None]) -> list[Part]:
    """Return what of each row is hashed; what has no template comes last, as one text."""
    typed: list[Part] = []
    texts: list[Part] = []
    for name, kind in zip(columns, types, strict=True):
        cell = postgres.identifier("t", name)
        if kind is not None and kind in CELLS and len(columns) <= MOST_COLUMNS:
            typed.append(postgres.compose(CELLS[kind], cell=cell))
        else:
            texts.append(cell)
    if texts:
        whole = postgres.join(", ", texts)
        typed.append(postgres.compose('ROW({})::pg_catalog.text COLLATE "C"', whole))
    return typed
