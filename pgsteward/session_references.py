"""Foreign keys that point at a table of expiring rows: what a DELETE there does to other tables."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pgsteward import sql
from pgsteward.key_comparisons import Comparison, comparisons
from pgsteward.key_indexes import holds_what_refers
from pgsteward.postgres import Connection, Part, compose, identifier, join, quote_name, raw
from pgsteward.relations import Relation

_WRITES = {"c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}
_ACTIONS = {**_WRITES, "a": "NO ACTION", "r": "RESTRICT"}


@dataclass(frozen=True, slots=True)
class Reference:
    """One foreign key.

    Attributes:
        action: ``ON DELETE``, as in ``pg_constraint.confdeltype``.
        table_oid: The table that has the key; `parent_oid` is what it points at.
        columns: Of the key, in the order of `parent_columns` and `comparisons`.
        is_indexed: An index finds the rows that point at a deleted one.
    """

    oid: int
    name: str
    action: str
    table_oid: int
    schema: str
    table_name: str
    parent_oid: int
    parent_schema: str
    parent_name: str
    columns: tuple[str, ...]
    parent_columns: tuple[str, ...]
    is_indexed: bool
    comparisons: tuple[Comparison, ...]

    @property
    def table(self) -> str:
        """Name of the table that has the key."""
        return quote_name(self.schema, self.table_name)

    @property
    def writes(self) -> bool:
        """Whether a DELETE changes the rows that point at what is deleted."""
        return self.action in _WRITES

    def without_index(self) -> str:
        """Return what the missing index costs, and the statement that makes one."""
        columns = ", ".join(quote_name(column) for column in self.columns)
        return (
            f"its foreign key {quote_name(self.name)} ({columns}) points at"
            f" {quote_name(self.parent_schema, self.parent_name)} and has no index: every deleted row"
            f" reads all of it; run: CREATE INDEX CONCURRENTLY ON {self.table} ({columns})"
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "table": self.table,
            "constraint": self.name,
            "columns": list(self.columns),
            "on_delete": _ACTIONS[self.action],
            "indexed": self.is_indexed,
        }


def references_to(connection: Connection, tables: Iterable[Relation]) -> tuple[Reference, ...]:
    """Return the foreign keys that point at tables, or at what those delete from by cascade."""
    rows = connection.rows(sql.load("referencing_keys"), {"oids": [table.oid for table in tables]})
    oids = [row["oid"] for row in rows]
    compared, predicates = comparisons(connection, oids), _index_predicates(connection, oids)
    return tuple(
        Reference(
            **{**row, "columns": tuple(row["columns"]), "parent_columns": tuple(row["parent_columns"])},
            is_indexed=any(holds_what_refers(each, row["columns"]) for each in predicates[row["oid"]]),
            comparisons=compared[row["oid"]],
        )
        for row in rows
    )


def _index_predicates(connection: Connection, oids: Sequence[int]) -> Mapping[int, list[str | None]]:
    """Return for each foreign key, by OID, the predicates of the indexes that may serve it."""
    indexes = connection.rows(sql.load("key_indexes"), {"oids": oids})
    partial = [row["oid"] for row in indexes if row["is_partial"]]
    read = connection.rows(sql.load("audit_expressions"), {"oids": partial}) if partial else []
    predicates = {row["oid"]: row["predicate"] for row in read}
    found: dict[int, list[str | None]] = defaultdict(list)
    for row in indexes:
        if not row["is_of_part"] and (not row["is_partial"] or row["oid"] in predicates):
            found[row["key_oid"]].append(predicates.get(row["oid"]))
    return found


@dataclass(slots=True)
class Cascades:
    """Counts what foreign keys take along.

    Attributes:
        names: Of the tables that they write to, by the OIDs of their leaves.
        deleted: Rows so far, by table.
        updated: Rows whose key was set to NULL or its default.
    """

    names: dict[int, str]
    deleted: Counter[str]
    updated: Counter[str]

    @classmethod
    def of(cls, connection: Connection, references: Iterable[Reference]) -> Cascades:
        """Return a count that is still 0."""
        names = {
            row["oid"]: reference.table
            for reference in references
            if reference.writes
            for row in connection.rows(sql.load("relation_leaves"), {"oid": reference.table_oid})
        }
        return cls(names, Counter(), Counter())

    def read(self, connection: Connection) -> dict[int, tuple[int, int]]:
        """Return the counters of this transaction so far."""
        rows = connection.rows(sql.load("touched_rows"), {"oids": list(self.names)})
        return {row["oid"]: (row["deleted"], row["updated"]) for row in rows}

    def add(
        self,
        before: dict[int, tuple[int, int]],
        after: dict[int, tuple[int, int]],
        own: tuple[int, int],
    ) -> None:
        """Add the difference of two readings; `own` are OID and rows of what was deleted by ourselves."""
        for oid, name in self.names.items():
            deleted, updated = (after[oid][at] - before[oid][at] for at in (0, 1))
            self.deleted[name] += deleted - (own[1] if oid == own[0] else 0)
            self.updated[name] += updated


def count_cascade(
    connection: Connection,
    references: Sequence[Reference],
    roots: Iterable[int],
    expired: Part,
    params: dict[str, object],
) -> Counter[str]:
    """Return how many rows a cleanup would delete by cascade, by table; nothing is changed.

    Args:
        connection: Without a statement timeout.
        references: All keys that matter.
        roots: OIDs of the table that is cleaned, and its leaves.
        expired: Its predicate.
        params: Of the predicate.
    """
    doomed = _Doomed(tuple(each for each in references if each.action == "c"), frozenset(roots), expired)
    found: Counter[str] = Counter()
    for oid, schema, name in {(r.table_oid, r.schema, r.table_name) for r in doomed.references}:
        statement = compose(
            "SELECT count(*) FROM {} AS victim WHERE {}",
            identifier(schema, name),
            doomed.through_keys(oid, "victim", frozenset()),
        )
        if oid in doomed.roots:
            statement = compose("{} AND (({}) IS NOT TRUE)", statement, expired)
        found[quote_name(schema, name)] = int(connection.value(statement, params))
    return +found


@dataclass(frozen=True, slots=True)
class _Doomed:
    """Builds the predicate for rows that go by cascade."""

    references: tuple[Reference, ...]
    roots: frozenset[int]
    expired: Part

    def through_keys(self, oid: int, alias: str, seen: frozenset[int]) -> Part:
        """Return that a row of a table points at one that goes; a cycle is followed once."""
        ways = [
            self._through(reference, alias, seen | {reference.oid})
            for reference in self.references
            if reference.table_oid == oid and reference.oid not in seen
        ]
        return compose("({})", join(" OR ", ways)) if ways else raw("false")

    def _through(self, reference: Reference, alias: str, seen: frozenset[int]) -> Part:
        parent = f"parent{len(seen)}"
        pairs = [
            each.of(identifier(parent, theirs), identifier(alias, ours))
            for each, ours, theirs in zip(
                reference.comparisons, reference.columns, reference.parent_columns, strict=True
            )
        ]
        goes = self.through_keys(reference.parent_oid, parent, seen)
        if reference.parent_oid in self.roots:
            goes = compose("(({}) IS TRUE OR {})", self.expired, goes)
        return compose(
            "EXISTS (SELECT FROM {} AS {} WHERE {} AND {})",
            identifier(reference.parent_schema, reference.parent_name),
            identifier(parent),
            join(" AND ", pairs),
            goes,
        )
