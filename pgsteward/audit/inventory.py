"""All indexes and foreign keys of a database, as its catalogs have them at this moment."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from pgsteward import sql
from pgsteward.errors import LockTimeout
from pgsteward.postgres import Connection, Row, quote_name

_TRIES = 3


@dataclass(frozen=True, slots=True)
class Key:
    """One key column of an index.

    Attributes:
        text: Name of the column; an expression as PostgreSQL writes it.
        operator_class, collation: OIDs.
        option: Bits of ``pg_index.indoption``: 1 descending, 2 NULLs first.
        is_plain: A column with the operator class and collation that it has where none is named.
    """

    text: str
    is_expression: bool
    operator_class: int
    collation: int
    option: int
    is_plain: bool = True

    @property
    def sql(self) -> str:
        """The column or expression as SQL has it, without class and order."""
        return self.text if self.is_expression else quote_name(self.text)


@dataclass(frozen=True)
class Index:
    """One index.

    Attributes:
        kind: ``i``, or ``I`` for the index of a partitioned table, which holds nothing itself.
        parent_oid: The index of the partitioned table that this one is a part of.
        table_kind: ``r`` table, ``p`` partitioned, ``m`` materialized view.
        key_count: How many columns are keys; an unreadable index has no `keys`.
        predicate: As PostgreSQL writes it; None for an index on all rows, and where it could not be read.
        method_options: ``WITH`` of methods where it decides what an index finds, and how fast: BRIN's
            ``pages_per_range``, those of extensions.
        builder_pid: Who builds an invalid one now, or works on its table so that it may well be.
        is_readable: Its expressions and its predicate could be read: nobody holds its table locked.
        looks_up: OIDs of foreign keys whose columns it finds, in the rows that it holds.
    """

    oid: int
    schema: str
    name: str
    kind: str
    parent_oid: int | None
    table_oid: int
    table_name: str
    table_kind: str
    method: str
    tablespace: str | None
    is_unique: bool
    nulls_not_distinct: bool
    is_immediate: bool
    is_exclusion: bool
    is_valid: bool
    is_replica_identity: bool
    is_clustered: bool
    key_count: int
    has_expressions: bool
    is_partial: bool
    columns: tuple[str | None, ...]
    keys: tuple[Key, ...]
    class_options: str | None
    constraint_name: str | None
    constraint_type: str | None
    is_referenced: bool
    is_of_extension: bool
    builder_pid: int | None
    method_options: str | None = None
    predicate: str | None = None
    is_readable: bool = True
    looks_up: frozenset[int] = frozenset()

    @cached_property
    def qualified(self) -> str:
        """The name as people write it in SQL."""
        return quote_name(self.schema, self.name)

    @cached_property
    def table(self) -> str:
        """Name of its table."""
        return quote_name(self.schema, self.table_name)

    @property
    def is_partitioned(self) -> bool:
        return self.kind == "I"

    @property
    def include(self) -> frozenset[str | None]:
        """Names of the columns that are carried along."""
        return frozenset(self.columns[self.key_count :])

    @property
    def shape(self) -> tuple[object, ...]:
        """What makes two indexes of one table serve the same queries; uniqueness is not in it."""
        return (self.method, self.keys, self.include, self.predicate, self.class_options)


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A foreign key, on the side that refers.

    Attributes:
        partition_oids: Of a partitioned table's: the partitions that have it too, any level down.
    """

    oid: int
    name: str
    schema: str
    table_oid: int
    table_name: str
    table_kind: str
    referenced_schema: str
    referenced_table: str
    columns: tuple[str, ...]
    partition_oids: tuple[int, ...] = ()

    @property
    def table(self) -> str:
        return quote_name(self.schema, self.table_name)

    @property
    def references(self) -> str:
        return quote_name(self.referenced_schema, self.referenced_table)


@dataclass(frozen=True)
class Inventory:
    """What there is.

    Attributes:
        indexes: Ordered by name.
        foreign_keys: Those of partitions are their parent's.
    """

    indexes: tuple[Index, ...]
    foreign_keys: tuple[ForeignKey, ...]

    @cached_property
    def by_oid(self) -> Mapping[int, Index]:
        return {index.oid: index for index in self.indexes}

    @cached_property
    def names(self) -> frozenset[tuple[str, str]]:
        """Schema and name of each index."""
        return frozenset((index.schema, index.name) for index in self.indexes)

    @cached_property
    def by_table(self) -> Mapping[int, tuple[Index, ...]]:
        """The indexes of each table that has any."""
        found: dict[int, list[Index]] = {}
        for index in self.indexes:
            found.setdefault(index.table_oid, []).append(index)
        return {oid: tuple(indexes) for oid, indexes in found.items()}

    @cached_property
    def parts(self) -> Mapping[int, tuple[Index, ...]]:
        """The indexes that are attached to each partitioned one."""
        found: dict[int, list[Index]] = {}
        for index in self.indexes:
            if index.parent_oid is not None:
                found.setdefault(index.parent_oid, []).append(index)
        return {oid: tuple(indexes) for oid, indexes in found.items()}

    @cached_property
    def _keys(self) -> Mapping[int, tuple[ForeignKey, ...]]:
        found: dict[int, list[ForeignKey]] = {}
        for key in self.foreign_keys:
            for oid in (key.table_oid, *key.partition_oids):
                found.setdefault(oid, []).append(key)
        return {oid: tuple(keys) for oid, keys in found.items()}

    def keys_of(self, table_oid: int) -> tuple[ForeignKey, ...]:
        """Return the foreign keys of a table, those that it has from a partitioned one among them."""
        return self._keys.get(table_oid, ())

    def leaves(self, index: Index) -> tuple[Index, ...]:
        """Return the indexes that hold what a partitioned one stands for; of any other itself."""
        if not index.is_partitioned:
            return (index,)
        return tuple(leaf for part in self.parts.get(index.oid, ()) for leaf in self.leaves(part))


def take_inventory(connection: Connection) -> Inventory:
    """Look at all indexes and foreign keys; what is locked is there, but not readable."""
    looks_up: dict[int, set[int]] = defaultdict(set)
    for row in connection.rows(sql.load("key_indexes"), {"oids": None}):
        looks_up[row["oid"]].add(row["key_oid"])
    indexes = [
        replace(_index(row), looks_up=frozenset(looks_up.get(row["oid"], ())))
        for row in connection.rows(sql.load("audit_indexes"), {"only": None})
    ]
    keys = [
        ForeignKey(
            **{**row, "columns": tuple(row["columns"]), "partition_oids": tuple(row["partition_oids"])}
        )
        for row in connection.rows(sql.load("audit_foreign_keys"))
    ]
    return Inventory(with_expressions(connection, indexes), tuple(keys))


def look_at(connection: Connection, oid: int) -> Index:
    """Return one index, wherever it lies."""
    row = connection.row(sql.load("audit_indexes"), {"only": oid})
    return with_expressions(connection, [_index(row)])[0]


def with_expressions(connection: Connection, indexes: Iterable[Index]) -> tuple[Index, ...]:
    """Return the indexes with their expressions and predicates."""
    indexes = list(indexes)
    wanted = [index for index in indexes if index.has_expressions or index.is_partial]

    def ask(locked: set[int]) -> list[Row]:
        oids = [index.oid for index in wanted if not {index.oid, index.table_oid} & locked]
        return connection.rows(sql.load("audit_expressions"), {"oids": oids}) if oids else []

    known = {row["oid"]: row for row in (unlocked(connection, ask) or [])}
    return tuple(
        index
        if not (index.has_expressions or index.is_partial)
        else _with(index, known[index.oid])
        if index.oid in known
        else replace(index, is_readable=False)
        for index in indexes
    )


def unlocked(connection: Connection, ask: Callable[[set[int]], list[Row]]) -> list[Row] | None:
    """Ask for what waits for locks, of all relations but those that are locked.

    Args:
        connection: With a short lock timeout.
        ask: Gets the relations that can't be asked for now.

    Returns:
        The rows; None when somebody locks one after the other.
    """
    for _ in range(_TRIES):
        locked = {row["oid"] for row in connection.rows(sql.load("audit_locked"))}
        try:
            return ask(locked)
        except LockTimeout:
            continue
    return None


def _index(row: Row) -> Index:
    count = row["key_count"]
    keys = tuple(
        Key(column or "", column is None, *rest)
        for column, *rest in zip(
            row["columns"][:count],
            row["operator_classes"],
            row["collations"],
            row["options"],
            row["plain"],
            strict=True,
        )
    )
    plain: dict[str, Any] = {
        name: value
        for name, value in row.items()
        if name not in ("operator_classes", "collations", "options", "plain", "columns")
    }
    return Index(**plain, columns=tuple(row["columns"]), keys=keys)


def _with(index: Index, row: Row) -> Index:
    keys = tuple(
        replace(key, text=text) if key.is_expression else key
        for key, text in zip(index.keys, row["keys"], strict=True)
    )
    return replace(index, keys=keys, predicate=row["predicate"])
