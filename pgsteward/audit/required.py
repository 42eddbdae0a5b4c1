"""Indexes that the application relies on: found, missing, invalid, or different from what was declared.

What a declaration means is not guessed: PostgreSQL makes the index on an empty temporary copy of the table,
in a transaction that is rolled back, and says how it wrote it down.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

from pgsteward import sql
from pgsteward.audit import ddl
from pgsteward.audit.invalid import advice
from pgsteward.audit.inventory import Index, Inventory, look_at
from pgsteward.audit.problem import Problem
from pgsteward.config_audit import RequiredIndex
from pgsteward.errors import QueryFailed, StewardError
from pgsteward.postgres import Connection, Part, as_written, compose, identifier, join, quote_name, raw
from pgsteward.postgres_names import split_qualified
from pgsteward.relations import Relation, find_relation

State = Literal["found", "missing", "invalid", "different", "unknown"]

PROBE = "pgsteward_probe"
REFUSED = frozenset(
    {
        "42601",
        "42703",
        "42883",
        "42704",
        "42P17",
        "42804",
        "42611",
        "0A000",
        "22P02",
        "42P10",
        "42P01",
        "42830",
    }
)
"""PostgreSQL can't read or make what was declared; any other error is none of the declaration."""

_ORDER = {0: "ascending", 1: "descending NULLS LAST", 2: "ascending NULLS FIRST", 3: "descending"}


@dataclass(frozen=True, slots=True)
class Required:
    """What became of one requirement.

    Attributes:
        label: What results call it.
        state: ``unknown`` where nothing could be compared.
        reason: What is wrong, why nothing is known, or how else it is met; empty for one that is there.
        index: What meets it, or is in its place.
        definition: What would have to be made, where that is known.
        wanted: The index as it would be, where PostgreSQL could read its declaration.
        ddl: How to mend it.
        undo: How to take that back.
        violations: Rows that keep a unique one from being made; None where they were not counted.
        not_counted: Why not, where they should have been.
    """

    label: str
    state: State
    reason: str = ""
    index: Index | None = None
    definition: ddl.Definition | None = None
    wanted: Index | None = None
    ddl: tuple[str, ...] = ()
    undo: tuple[str, ...] = ()
    violations: int | None = None
    not_counted: str = ""

    def problem(self) -> Problem:
        """Return it as something to act on."""
        counted = (
            f"; {self.violations:,} rows share their values and must be mended first"
            if self.violations
            else ""
        )
        table = self.index.table if self.index else ""
        if self.definition is not None:
            table = quote_name(self.definition.schema, self.definition.table_name)
        return Problem(self.state, self.label, table, self.reason + counted, self.ddl, self.undo)


def judge_all(
    connection: Connection, required: Sequence[str | RequiredIndex], inventory: Inventory
) -> list[Required]:
    """Look for each of the declared indexes. Changes nothing."""
    return [
        _by_name(connection, entry, inventory)
        if isinstance(entry, str)
        else _by_shape(connection, entry, inventory)
        for entry in required
    ]


def find_named(name: str, indexes: Sequence[Index]) -> list[Index]:
    """Return the indexes that a name of the configuration means.

    A name without a schema is looked for in all schemas; unquoted parts are folded as in SQL.
    """
    schema, plain = split_qualified(name, default_schema="")
    return [index for index in indexes if index.name == plain and schema in ("", index.schema)]


def _by_name(connection: Connection, name: str, inventory: Inventory) -> Required:
    matches = find_named(name, inventory.indexes)
    if not matches:
        return Required(
            name,
            "missing",
            "this required index is missing; the application's migration creates it (declared with its table"
            " and columns, the statement would stand here)",
        )
    valid = [index for index in matches if index.is_valid]
    if valid:
        return Required(name, "found", index=valid[0])
    return _invalid(connection, name, matches[0], inventory)


def _invalid(connection: Connection, label: str, index: Index, inventory: Inventory) -> Required:
    if index.builder_pid is not None:
        reason = f"this required index is not there yet: pid {index.builder_pid} builds it now"
        return Required(label, "invalid", reason, index)
    problem = advice(connection, index, inventory)
    reason = f"this required index is invalid: {problem.reason}"
    return Required(label, "invalid", reason, index, ddl=problem.ddl, undo=problem.undo)


def _by_shape(connection: Connection, entry: RequiredIndex, inventory: Inventory) -> Required:
    label = entry.label
    table = find_relation(connection, entry.table)
    if table is None or table.kind not in ("r", "p", "m"):
        what = (
            "there is no such table" if table is None else "that is neither a table nor a materialized view"
        )
        return Required(
            label, "missing", f"this required index of {entry.table} is missing: {what} in this database"
        )
    try:
        wanted, tail = read_declaration(connection, entry, table)
    except QueryFailed as exc:
        if exc.sqlstate in REFUSED:
            return Required(label, "missing", f"PostgreSQL can't make this required index: {exc}; correct it")
        return Required(label, "unknown", f"can't be compared: {exc}")
    except StewardError as exc:
        return Required(label, "unknown", f"can't be compared: {exc}")
    words = "_".join((*(key.text for key in wanted.keys if not key.is_expression), "idx"))
    definition = ddl.Definition(
        table_oid=table.oid,
        schema=table.schema,
        table_name=table.name,
        table_kind=table.kind,
        name=split_qualified(entry.name)[1]
        if entry.name
        else ddl.free_name(table.name, words, table.schema, inventory.names),
        is_unique=entry.unique,
        tail=tail,
        serves=lambda index: serves(index, wanted),
    )
    found = _compare(connection, entry, wanted, definition, inventory)
    found = replace(found, definition=definition, wanted=wanted)
    return _with_statements(connection, found, inventory)


def _compare(
    connection: Connection,
    entry: RequiredIndex,
    wanted: Index,
    definition: ddl.Definition,
    inventory: Inventory,
) -> Required:
    label = entry.label
    here = [i for i in inventory.by_table.get(definition.table_oid, ()) if not ddl.is_unfinished(i)]
    if entry.name is not None:
        named = [i for i in inventory.indexes if (i.schema, i.name) == (definition.schema, definition.name)]
        if named and named[0].table_oid != definition.table_oid:
            return Required(
                label, "different", f"an index of this name is there, on {named[0].table}", named[0]
            )
        if named and not named[0].is_readable:
            return Required(label, "unknown", "can't be compared: its table is locked", named[0])
        if named and not serves(named[0], wanted):
            return Required(label, "different", f"it is there, but {differences(named[0], wanted)}", named[0])
        if named:
            return _there(connection, label, named[0], inventory)
    equal = [index for index in here if index.is_readable and serves(index, wanted)]
    if equal:
        found = _there(
            connection, label, next((index for index in equal if index.is_valid), equal[0]), inventory
        )
        if found.state == "found" and entry.name is not None:
            found = replace(found, reason=f"by {equal[0].qualified}, which is the same under another name")
        return found
    if any(not index.is_readable for index in here):
        return Required(label, "unknown", f"can't be compared: {entry.table} is locked")
    near = next((index for index in here if _is_near(index, wanted)), None)
    if near is None:
        return Required(label, "missing", "this required index is missing")
    return Required(
        label,
        "different",
        f"this required index is missing; {near.qualified} is near, but {differences(near, wanted)}",
    )


def _there(connection: Connection, label: str, index: Index, inventory: Inventory) -> Required:
    return (
        Required(label, "found", index=index)
        if index.is_valid
        else _invalid(connection, label, index, inventory)
    )


def _with_statements(connection: Connection, found: Required, inventory: Inventory) -> Required:
    """Add how a missing index is made; another one of the same name makes way for it."""
    definition, index = found.definition, found.index
    if found.state not in ("missing", "different") or definition is None:
        return found
    if index is None or index.name != definition.name:
        steps = ddl.create(connection, definition, inventory)
        return replace(found, ddl=tuple(step.statement for step in steps), undo=(ddl.drop_made(definition),))
    if index.table_oid != definition.table_oid:
        return found
    fresh = replace(
        definition, name=ddl.free_name("new", definition.name, definition.schema, inventory.names)
    )
    steps = ddl.create(connection, fresh, inventory)
    rename = f"ALTER INDEX {quote_name(fresh.schema, fresh.name)} RENAME TO {quote_name(definition.name)};"
    again = ddl.definitions(connection, inventory, [index]).get(index.oid, ())
    return replace(
        found,
        ddl=(*(step.statement for step in steps), *ddl.drop(index), rename),
        undo=(ddl.drop_made(definition), *again),
    )


def serves(index: Index, wanted: Index) -> bool:
    """Tell whether an index is what was declared; a unique one serves where none was asked for."""
    if index.shape != wanted.shape or not index.is_readable:
        return False
    if not wanted.is_unique:
        return True
    return index.is_unique and index.is_immediate and index.nulls_not_distinct == wanted.nulls_not_distinct


def differences(index: Index, wanted: Index) -> str:
    """Say how an index differs from what was declared."""
    said: list[str] = []
    if index.method != wanted.method:
        said.append(f"it is of method {index.method}, declared {wanted.method}")
    texts, declared = [key.sql for key in index.keys], [key.sql for key in wanted.keys]
    if texts != declared:
        said.append(f"its columns are ({', '.join(texts)}), declared ({', '.join(declared)})")
    else:
        for key, other in zip(index.keys, wanted.keys, strict=True):
            if key.option != other.option:
                said.append(f"{key.sql} is {_ORDER[key.option]}, declared {_ORDER[other.option]}")
            if key.operator_class != other.operator_class:
                said.append(f"{key.sql} has another operator class")
            if key.collation != other.collation:
                said.append(f"{key.sql} has another collation")
    if index.include != wanted.include:
        said.append(f"it includes ({_listed(index)}), declared ({_listed(wanted)})")
    if index.predicate != wanted.predicate:
        said.append(f"its predicate is {index.predicate or 'none'}, declared {wanted.predicate or 'none'}")
    if wanted.is_unique and not index.is_unique:
        said.append("it is not unique")
    elif wanted.is_unique and not index.is_immediate:
        said.append("it is deferrable")
    elif wanted.is_unique and index.nulls_not_distinct != wanted.nulls_not_distinct:
        said.append("it treats NULLs the other way")
    return ", ".join(said) or "its operator classes have other options"


def _listed(index: Index) -> str:
    return ", ".join(sorted(quote_name(column) for column in index.include if column is not None))


def _is_near(index: Index, wanted: Index) -> bool:
    """Tell whether an index could be taken for the declared one: more columns, another order."""
    texts, declared = [key.text for key in index.keys], [key.text for key in wanted.keys]
    return texts[: len(declared)] == declared or sorted(texts) == sorted(declared)


def read_declaration(connection: Connection, entry: RequiredIndex, table: Relation) -> tuple[Index, str]:
    """Let PostgreSQL read a declared index.

    Returns:
        The index as it would be, and all of its statement from ``USING`` on.

    Raises:
        StewardError: PostgreSQL refuses it, or our role may not try.
    """
    with empty_copy(connection, table) as probe:
        _make(connection, entry, probe)
        connection.execute("SELECT set_config('search_path', 'pg_catalog', true)")
        row = connection.row(
            "SELECT i.indexrelid::int8 AS oid, pg_get_indexdef(i.indexrelid) AS definition"
            "  FROM pg_index AS i WHERE i.indrelid = to_regclass(%(probe)s)",
            {"probe": f"pg_temp.{PROBE}"},
        )
        wanted = look_at(connection, row["oid"])
    if entry.unique:
        refuse_part_of_a_partition_key(connection, table, wanted.columns[: wanted.key_count])
    return wanted, ddl.tail_of(row["definition"])


def refuse_part_of_a_partition_key(
    connection: Connection, relation: Relation, columns: Collection[str | None]
) -> None:
    """Make sure that a partitioned table may have a unique constraint or index on some columns.

    Raises:
        QueryFailed: It may not: each partition could keep its own rows unique only.
    """
    names = [row["name"] for row in connection.rows(sql.load("audit_partition_keys"), {"oid": relation.oid})]
    lacking = [name for name in names if name not in columns]
    if lacking:
        said = ", ".join("an expression" if name is None else quote_name(name) for name in lacking)
        raise QueryFailed(
            "what is unique in a partitioned table must have all columns that it and its partitions are"
            f" partitioned by, and lacks {said}",
            "0A000",
        )


@contextmanager
def empty_copy(connection: Connection, table: Relation) -> Iterator[Part]:
    """Make a table without rows and with the same columns, which is gone again at the end of the block.

    Inside it names are looked up as the application's role would have it, and in the table's own schema.
    """
    probe = identifier("pg_temp", PROBE)
    path = connection.value(sql.load("audit_role_path"))
    with connection.rehearsal():
        connection.execute(
            "SELECT set_config('search_path',"
            " 'pg_catalog, ' || %(path)s || ', ' || quote_ident(%(schema)s), true)",
            {"path": path or '""', "schema": table.schema},
        )
        connection.execute(
            compose("CREATE TEMPORARY TABLE {} (LIKE {})", probe, identifier(table.schema, table.name))
        )
        yield probe


def _make(connection: Connection, entry: RequiredIndex, probe: Part) -> None:
    include = [identifier(split_qualified(name, "")[1]) for name in entry.include]
    connection.execute(
        compose(
            "CREATE {unique} INDEX {name} ON {probe} USING {method} ({columns}) {include} {nulls} {where}",
            unique=raw("UNIQUE") if entry.unique else raw(""),
            name=identifier(f"{PROBE}_index"),
            probe=probe,
            method=identifier(split_qualified(entry.method, "")[1]),
            columns=join(", ", [as_written(column) for column in entry.columns]),
            include=compose("INCLUDE ({})", join(", ", include)) if include else raw(""),
            nulls=raw("NULLS NOT DISTINCT") if entry.nulls_not_distinct else raw(""),
            where=compose("WHERE ({})", as_written(entry.where)) if entry.where else raw(""),
        )
    )
