"""Statements for people to run: they stop nobody from reading and writing for longer than a moment.

What is made concurrently can't be in a transaction: each statement is meant to be run on its own.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pgsteward import sql
from pgsteward.audit.inventory import ForeignKey, Index, Inventory, unlocked
from pgsteward.postgres import Connection, quote_name

MARK = "pgsteward_new_"
"""What the name of an index begins with while we build it."""

_LONGEST_NAME = 63
"""Bytes."""

_TAIL = re.compile(r'(?:"(?:[^"]|"")*"|[^"])*? (USING .*)', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Definition:
    """An index that is to be made.

    Attributes:
        table_oid: Of its table.
        schema, table_name, table_kind: Of its table; the kind as in ``pg_class.relkind``.
        name: Without a schema: an index lies in that of its table.
        tail: All after the name of the table, as PostgreSQL writes it: ``USING btree (a) WHERE (b > 1)``.
        serves: Tells whether an index has this shape.
    """

    table_oid: int
    schema: str
    table_name: str
    table_kind: str
    name: str
    is_unique: bool
    tail: str
    serves: Callable[[Index], bool]

    def statement(self, name: str, schema: str, table: str, how: str = "CONCURRENTLY ") -> str:
        """Return what makes it, or its part on one partition."""
        unique = "UNIQUE " if self.is_unique else ""
        only = "" if how else "ONLY "
        return (
            f"CREATE {unique}INDEX {how}{quote_name(name)} ON {only}{quote_name(schema, table)} {self.tail};"
        )


@dataclass(frozen=True, slots=True)
class Step:
    """One statement of a plan.

    Attributes:
        schema: Of the index.
        makes: Name of the index that it makes; empty for one that only attaches.
        table_oid: Of the table that it builds on.
        build: Returns the same statement for an index of another name; None where nothing is built, and
            so the statement takes but a moment.
    """

    statement: str
    schema: str
    makes: str = ""
    table_oid: int = 0
    build: Callable[[str], str] | None = None


def create(connection: Connection, definition: Definition, inventory: Inventory) -> tuple[Step, ...]:
    """Return the steps that make an index: one for a plain table, a series for a partitioned one.

    A partitioned index can't be built concurrently: it is made on the parent alone, invalid, then a part on
    each partition; once the last one is attached it is valid. What is there already is attached.
    """
    if definition.table_kind != "p":
        return (
            _build(
                definition, definition.name, definition.schema, definition.table_name, definition.table_oid
            ),
        )
    tree = connection.rows(sql.load("audit_partitions"), {"oid": definition.table_oid})
    taken = set(inventory.names)
    names: dict[int, str] = {}
    made_steps: list[Step] = []
    attach: list[Step] = []
    for number, table in enumerate(tree):
        is_root = number == 0
        found = [
            index
            for index in inventory.by_table.get(table["oid"], ())
            if definition.serves(index)
            and index.is_unique == definition.is_unique  # others can't be attached
        ]
        parent = names.get(table["parent_oid"] or 0)
        attached = [index for index in found if index.parent_oid is not None]
        free = [
            index for index in found if index.parent_oid is None and (index.is_partitioned or index.is_valid)
        ]
        if attached or free:
            name = (attached or free)[0].name
        else:
            name = (
                definition.name
                if is_root
                else free_name(table["name"], definition.name, table["schema"], taken)
            )
            taken.add((table["schema"], name))
            if table["kind"] == "p":
                text = definition.statement(name, table["schema"], table["name"], how="")
                made_steps.append(Step(text, table["schema"], name, table["oid"]))
            else:
                made_steps.append(_build(definition, name, table["schema"], table["name"], table["oid"]))
        names[table["oid"]] = name
        if parent is not None and not attached:
            parent_schema = next(t["schema"] for t in tree if t["oid"] == table["parent_oid"])
            text = (
                f"ALTER INDEX {quote_name(parent_schema, parent)}"
                f" ATTACH PARTITION {quote_name(table['schema'], name)};"
            )
            attach.append(Step(text, parent_schema))
    return (*made_steps, *reversed(attach))


def _build(definition: Definition, name: str, schema: str, table: str, oid: int) -> Step:
    def build(other: str) -> str:
        return definition.statement(other, schema, table)

    return Step(build(name), schema, name, oid, build)


def free_name(table: str, wanted: str, schema: str, taken: Collection[tuple[str, str]]) -> str:
    """Return a name for the part of an index on one partition that nothing has yet, within 63 bytes."""
    name = f"{table}_{wanted}"
    if len(name.encode()) > _LONGEST_NAME:
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        name = f"{name.encode()[: _LONGEST_NAME - 9].decode(errors='ignore')}_{digest}"
    number, free = 0, name
    while (schema, free) in taken:
        number += 1
        suffix = f"_{number}"
        free = f"{name.encode()[: _LONGEST_NAME - len(suffix)].decode(errors='ignore')}{suffix}"
    return free


def definition_of(connection: Connection, index: Index) -> Definition | None:
    """Return how an index that is there was made; None while its table is locked."""
    if not index.is_readable:
        return None
    row = connection.row(sql.load("audit_definitions"), {"oids": [index.oid]})
    return Definition(
        table_oid=index.table_oid,
        schema=index.schema,
        table_name=index.table_name,
        table_kind=index.table_kind,
        name=index.name,
        is_unique=index.is_unique,
        tail=tail_of(row["definition"]),
        serves=lambda other: other.shape == index.shape and other.is_unique == index.is_unique,
    )


def tail_of(statement: str) -> str:
    """Return all of a ``CREATE INDEX`` after the name of the table."""
    found = _TAIL.fullmatch(statement)
    assert found is not None
    return found[1]


def supporting(key: ForeignKey, inventory: Inventory) -> Definition:
    """Return the index that a foreign key lacks."""
    columns = ", ".join(quote_name(column) for column in key.columns)
    return Definition(
        table_oid=key.table_oid,
        schema=key.schema,
        table_name=key.table_name,
        table_kind=key.table_kind,
        name=free_name(key.table_name, "_".join((*key.columns, "idx")), key.schema, inventory.names),
        is_unique=False,
        tail=f"({columns})",
        serves=lambda index: (
            index.method == "btree"
            and not index.is_partial
            and not index.include
            and index.columns[: index.key_count] == key.columns
            and all(column.is_plain for column in index.keys)
        ),
    )


def is_unfinished(index: Index) -> bool:
    """Tell whether an index is what a build of ours has left, or is making now."""
    return not index.is_valid and index.name.startswith(MARK)


def drop(index: Index) -> tuple[str, ...]:
    """Return the statement that removes an index, or the constraint that it belongs to."""
    if index.constraint_name is not None:
        return (f"ALTER TABLE {index.table} DROP CONSTRAINT {quote_name(index.constraint_name)};",)
    how = "" if index.is_partitioned else "CONCURRENTLY "
    return (f"DROP INDEX {how}{index.qualified};",)


def drop_made(definition: Definition) -> str:
    """Return the statement that removes an index which was made as defined."""
    how = "" if definition.table_kind == "p" else "CONCURRENTLY "
    return f"DROP INDEX {how}{quote_name(definition.schema, definition.name)};"


def definitions(
    connection: Connection, inventory: Inventory, indexes: Iterable[Index]
) -> Mapping[int, tuple[str, ...]]:
    """Return what would make each of some indexes again, by OID; those of locked tables are missing.

    The session's search_path must be ``pg_catalog``, so that every name in them is qualified.
    """
    indexes = list(indexes)
    all_parts = {part.oid: part for index in indexes for part in _with_parts(inventory, index)}
    if not all_parts:
        return {}

    def ask(locked: set[int]) -> list[dict[str, object]]:
        oids = [part.oid for part in all_parts.values() if not {part.oid, part.table_oid} & locked]
        return connection.rows(sql.load("audit_definitions"), {"oids": oids}) if oids else []

    texts = {int(str(row["oid"])): row for row in unlocked(connection, ask) or []}
    made = {}
    for index in indexes:
        parts = _with_parts(inventory, index)
        if all(part.oid in texts for part in parts):
            made[index.oid] = tuple(_again(index, parts, texts, inventory))
    return made


def _with_parts(inventory: Inventory, index: Index) -> list[Index]:
    return [index, *(p for part in inventory.parts.get(index.oid, ()) for p in _with_parts(inventory, part))]


def _again(
    index: Index, parts: Sequence[Index], texts: Mapping[int, Mapping[str, object]], inventory: Inventory
) -> Iterable[str]:
    constraint = str(texts[index.oid]["constraint_definition"])
    if index.is_partitioned and index.constraint_name is not None:  # USING INDEX is not for these
        name = quote_name(index.constraint_name)
        yield f"ALTER TABLE {index.table} ADD CONSTRAINT {name} {constraint};"
        return
    for part in parts:
        text = str(texts[part.oid]["definition"])
        if not part.is_partitioned:
            text = text.replace("INDEX ", "INDEX CONCURRENTLY ", 1)
        if part.tablespace is not None:
            yield f"SET default_tablespace = {quote_name(part.tablespace)};"
        yield f"{text};"
        if part.tablespace is not None:
            yield "RESET default_tablespace;"
        if texts[part.oid]["comment"] is not None:
            comment = str(texts[part.oid]["comment"]).replace("'", "''")
            yield f"COMMENT ON INDEX {part.qualified} IS '{comment}';"
    for part in reversed(parts[1:]):
        assert part.parent_oid is not None
        parent = inventory.by_oid[part.parent_oid]
        yield f"ALTER INDEX {parent.qualified} ATTACH PARTITION {part.qualified};"
    if index.constraint_name is not None:
        kind = "PRIMARY KEY" if index.constraint_type == "p" else "UNIQUE"
        tail = "".join(f" {word}" for word in ("DEFERRABLE", "INITIALLY DEFERRED") if word in constraint)
        yield (
            f"ALTER TABLE {index.table} ADD CONSTRAINT {quote_name(index.constraint_name)} {kind}"
            f" USING INDEX {quote_name(index.name)}{tail};"
        )
