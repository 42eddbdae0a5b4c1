"""What a constraint says: how many rows break it, and how it is added without stopping anybody for long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pgsteward import sql
from pgsteward.audit.ddl import free_name
from pgsteward.key_comparisons import Comparison
from pgsteward.postgres import (
    Composed,
    Connection,
    Part,
    Row,
    as_written,
    compose,
    identifier,
    join,
    quote_name,
    raw,
)

Kind = Literal["check", "unique", "not null", "foreign key"]

_NOT_NULL_SINCE = 180000
"""NOT NULL has a name and may be NOT VALID, and so may the foreign key of a partitioned table."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule about the rows of a table.

    Attributes:
        oid, schema, table, relkind: Of the table.
        columns: None for a CHECK.
        condition: Of a CHECK, as PostgreSQL writes it.
        referenced: Schema, name and relkind of the table that a foreign key refers to.
        referenced_columns: As many as `columns`.
        comparisons: As many as `columns`: what makes a row refer to another.
        is_full_match: Of a foreign key: either all of its columns are NULL or none is.
        is_inherited: Of CHECK and NOT NULL: it holds for the tables that inherit from this one as well.
    """

    kind: Kind
    oid: int
    schema: str
    table: str
    relkind: str
    columns: tuple[str, ...] = ()
    condition: str = ""
    referenced: tuple[str, str, str] = ("", "", "")
    referenced_columns: tuple[str, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    is_full_match: bool = False
    is_inherited: bool = True

    @property
    def text(self) -> str:
        """The rule as SQL has it behind the constraint's name."""
        columns = ", ".join(map(quote_name, self.columns))
        match self.kind:
            case "check":
                return f"CHECK ({self.condition})"
            case "unique":
                return f"UNIQUE ({columns})"
            case "not null":
                return f"NOT NULL {columns}"
        theirs = ", ".join(map(quote_name, self.referenced_columns))
        return f"FOREIGN KEY ({columns}) REFERENCES {quote_name(*self.referenced[:2])} ({theirs})"

    def violations(self) -> Composed:
        """Return the query that counts the rows which break it."""
        table = _rows_of(self.schema, self.table, self.relkind)
        columns = [identifier("t", column) for column in self.columns]
        whole = identifier(self.schema, self.table) if self.is_inherited else table
        match self.kind:
            case "check":
                return compose("SELECT count(*) FROM {} WHERE NOT ({})", whole, as_written(self.condition))
            case "unique":
                return duplicates(self.schema, self.table, self.relkind, columns)
            case "not null":
                return compose("SELECT count(*) FROM {} AS t WHERE {} IS NULL", whole, columns[0])
        link = " OR " if self.is_full_match else " AND "
        refers = join(link, [compose("{} IS NOT NULL", column) for column in columns])
        pairs = zip(self.comparisons, self.referenced_columns, columns, strict=True)
        same = join(" AND ", [each.of(identifier("r", theirs), ours) for each, theirs, ours in pairs])
        return compose(
            "SELECT count(*) FROM {} AS t WHERE ({}) AND NOT EXISTS (SELECT FROM {} AS r WHERE {})",
            table,
            refers,
            _rows_of(*self.referenced),
            same,
        )


def duplicates(
    schema: str,
    table: str,
    relkind: str,
    keys: Sequence[Part],
    predicate: str | None = None,
    *,
    nulls_not_distinct: bool = False,
) -> Composed:
    """Return the query that counts the rows which share their keys with another row."""
    kept: list[Part] = [as_written(f"({predicate})")] if predicate else []
    kept += [] if nulls_not_distinct else [compose("{} IS NOT NULL", key) for key in keys]
    return compose(
        "SELECT coalesce(sum(g.rows), 0)::int8"
        "  FROM (SELECT count(*) AS rows FROM {} AS t WHERE {} GROUP BY {} HAVING count(*) > 1) AS g",
        _rows_of(schema, table, relkind),
        join(" AND ", kept or [raw("true")]),
        join(", ", keys),
    )


def _rows_of(schema: str, table: str, relkind: str) -> Part:
    """Name a table without those that inherit from it; a partitioned one has all of its rows in others."""
    return compose("{}" if relkind == "p" else "ONLY {}", identifier(schema, table))


def name_for(rule: Rule, taken: Sequence[str]) -> str:
    """Return a name as PostgreSQL would choose it."""
    ending = {"check": "check", "unique": "key", "not null": "not_null", "foreign key": "fkey"}[rule.kind]
    names = {(rule.schema, name) for name in taken}
    return free_name(rule.table, "_".join((*rule.columns, ending)), rule.schema, names)


def add(connection: Connection, rule: Rule, name: str) -> tuple[str, ...]:
    """Return what adds a constraint: no statement reads the table under a lock that others feel."""
    tree: Sequence[Row] = [{"oid": rule.oid, "schema": rule.schema, "name": rule.table, "kind": rule.relkind}]
    if rule.relkind == "p":
        tree = connection.rows(sql.load("audit_partitions"), {"oid": rule.oid})
    if rule.kind == "unique":
        return _add_unique(rule, name, tree)
    table, quoted = quote_name(rule.schema, rule.table), quote_name(name)
    modern = connection.server_version >= _NOT_NULL_SINCE
    if rule.kind == "not null" and not modern:
        column = quote_name(rule.columns[0])
        return (
            f"ALTER TABLE {table} ADD CONSTRAINT {quoted} CHECK ({column} IS NOT NULL) NOT VALID;",
            f"ALTER TABLE {table} VALIDATE CONSTRAINT {quoted};",
            f"ALTER TABLE {table} ALTER COLUMN {column} SET NOT NULL;",
            f"ALTER TABLE {table} DROP CONSTRAINT {quoted};",
        )
    if rule.kind == "foreign key" and rule.relkind == "p" and not modern:
        leaves = [quote_name(row["schema"], row["name"]) for row in tree if row["kind"] != "p"]
        each = [statement for leaf in leaves for statement in _not_valid_first(leaf, quoted, rule.text)]
        return (*each, f"ALTER TABLE {table} ADD CONSTRAINT {quoted} {rule.text};")
    return _not_valid_first(table, quoted, rule.text)


def _not_valid_first(table: str, name: str, text: str) -> tuple[str, str]:
    return (
        f"ALTER TABLE {table} ADD CONSTRAINT {name} {text} NOT VALID;",
        f"ALTER TABLE {table} VALIDATE CONSTRAINT {name};",
    )


def _add_unique(rule: Rule, name: str, tree: Sequence[Row]) -> tuple[str, ...]:
    columns = ", ".join(map(quote_name, rule.columns))
    statements: list[str] = []
    for row in tree:
        if row["kind"] == "p":
            continue
        own = name if row["oid"] == rule.oid else free_name(row["name"], name, row["schema"], ())
        table = quote_name(row["schema"], row["name"])
        statements += [
            f"CREATE UNIQUE INDEX CONCURRENTLY {quote_name(own)} ON {table} ({columns});",
            f"ALTER TABLE {table} ADD CONSTRAINT {quote_name(own)} UNIQUE USING INDEX {quote_name(own)};",
        ]
    if rule.relkind == "p":
        statements.append(
            f"ALTER TABLE {quote_name(rule.schema, rule.table)}"
            f" ADD CONSTRAINT {quote_name(name)} {rule.text};"
        )
    return tuple(statements)


def undo(connection: Connection, rule: Rule, name: str) -> tuple[str, ...]:
    """Return the statement that takes an added constraint away."""
    table = quote_name(rule.schema, rule.table)
    if rule.kind == "not null" and connection.server_version < _NOT_NULL_SINCE:
        return (f"ALTER TABLE {table} ALTER COLUMN {quote_name(rule.columns[0])} DROP NOT NULL;",)
    return (f"ALTER TABLE {table} DROP CONSTRAINT {quote_name(name)};",)
