"""Constraints that the application relies on, and those that are there without holding.

A constraint that is missing or not validated comes with the number of rows that break it, so that nobody
starts a migration which then fails; what could not be counted in time is unknown, never zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pgsteward import sql
from pgsteward.audit import rules
from pgsteward.audit.inventory import Index, Inventory
from pgsteward.audit.problem import Problem
from pgsteward.audit.required import (
    PROBE,
    REFUSED,
    empty_copy,
    refuse_part_of_a_partition_key,
)
from pgsteward.audit.rules import Rule
from pgsteward.config_audit import RequiredConstraint
from pgsteward.errors import LockTimeout, QueryFailed, StewardError
from pgsteward.key_comparisons import Comparison, comparisons
from pgsteward.postgres import (
    Composed,
    Connection,
    Row,
    as_written,
    compose,
    identifier,
    join,
    quote_name,
)
from pgsteward.postgres_names import split_qualified
from pgsteward.relations import Relation, find_relation
from pgsteward.report.units import plural

State = Literal["found", "missing", "different", "not validated", "not enforced", "unknown"]

_CANCELLED = "57014"
_KINDS: dict[str, rules.Kind] = {"c": "check", "f": "foreign key", "u": "unique", "n": "not null"}


@dataclass(frozen=True, slots=True)
class Constraint:
    """What became of one constraint.

    Attributes:
        kind: ``check``, ``unique``, ``not null``, ``foreign key``; empty for one that is only named.
        declared: The configuration asks for it.
        by: Name of the constraint, or of the index, that holds it.
        violations: Rows that break it; None where they were not counted.
        not_counted: Why not, where they should have been.
        reason: What is wrong, or why nothing is known.
    """

    label: str
    table: str
    kind: str
    state: State
    declared: bool = True
    by: str | None = None
    violations: int | None = None
    not_counted: str = ""
    reason: str = ""
    ddl: tuple[str, ...] = ()
    undo: tuple[str, ...] = ()

    def problem(self) -> Problem:
        """Return it as something to act on."""
        counted = ""
        if self.violations:
            counted = f"; {plural(self.violations, 'row breaks', 'rows break')} it and must be mended first"
        elif self.violations == 0:
            counted = "; no row breaks it"
        return Problem("constraint", self.label, self.table, self.reason + counted, self.ddl, self.undo)

    def as_json(self) -> dict[str, Any]:
        return {
            "constraint": self.label,
            "table": self.table,
            "kind": self.kind,
            "declared": self.declared,
            "state": self.state,
            "by": self.by,
            "violations": self.violations,
            "ddl": list(self.ddl),
            "undo": list(self.undo),
        }


@dataclass(frozen=True, slots=True)
class _Table:
    """What there is of one table: its constraints, and its columns with whether they take NULLs."""

    relation: Relation
    constraints: Sequence[Row]
    columns: Mapping[str, bool]
    indexes: Sequence[Index]


def judge_all(
    connection: Connection, counting: Connection, declared: Sequence[RequiredConstraint], inventory: Inventory
) -> list[Constraint]:
    """Look for each declared constraint, and for those that are there without holding. Changes nothing.

    Args:
        connection: With a short lock timeout.
        counting: To the same database: with the time that counting may take, and never behind policies.
        declared: What must be there.
        inventory: All indexes.
    """
    found = [_judge(connection, counting, entry, inventory) for entry in declared]
    named = {(each.table, each.by) for each in found}
    for row in connection.rows(sql.load("audit_unproven")):
        table = quote_name(row["schema"], row["table_name"])
        if (table, row["name"]) not in named:
            entry = RequiredConstraint(table=table, name=quote_name(row["name"]))
            found.append(replace(_judge(connection, counting, entry, inventory), declared=False))
    return found


def _judge(
    connection: Connection, counting: Connection, entry: RequiredConstraint, inventory: Inventory
) -> Constraint:
    relation = find_relation(connection, entry.table)
    if relation is None or relation.kind not in ("r", "p", "f"):
        reason = f"there is no table {entry.table} in this database"
        return Constraint(entry.label, entry.table, "", "missing", reason=reason)
    label, table = entry.label, relation.qualified
    try:
        there = _look_at(connection, relation, inventory)
        rule = _read(connection, entry, there)
        found = _compare(entry, rule, there)
        if rule is not None and rule.kind == "foreign key" and found.state in ("missing", "different"):
            rule = replace(rule, comparisons=_would_compare(connection, rule, relation))
    except LockTimeout:
        locked = " or ".join(filter(None, [table, entry.references]))
        return Constraint(label, table, "", "unknown", reason=f"{locked} is locked")
    except QueryFailed as exc:
        if exc.sqlstate not in REFUSED:
            return Constraint(label, table, "", "unknown", reason=f"can't be compared: {exc}")
        return Constraint(label, table, "", "missing", reason=f"PostgreSQL can't add it: {exc}; correct it")
    except StewardError as exc:
        return Constraint(label, table, "", "unknown", reason=f"can't be compared: {exc}")
    return _with_count(counting, _with_statements(connection, found, rule, there, entry))


def _look_at(connection: Connection, relation: Relation, inventory: Inventory) -> _Table:
    oid = {"oid": relation.oid}
    return _Table(
        relation,
        connection.rows(sql.load("audit_constraints"), oid),
        {row["name"]: row["is_not_null"] for row in connection.rows(sql.load("audit_columns"), oid)},
        inventory.by_table.get(relation.oid, ()),
    )


def _compare(entry: RequiredConstraint, rule: Rule | None, there: _Table) -> Constraint:
    base = Constraint(
        entry.label, there.relation.qualified, rule.kind if rule else "", "missing", reason="it is missing"
    )
    name = split_qualified(entry.name)[1] if entry.name else None
    named = next((row for row in there.constraints if row["name"] == name), None)
    if rule is None:
        if named is None:
            reason = "it is missing; the application's migration adds it"
            return replace(base, reason=reason)
        return _holds(replace(base, kind=_KINDS.get(named["kind"], "")), named)
    equal = [row for row in there.constraints if _is_same(rule, row)]
    if named is not None and named not in equal:
        return replace(
            base, state="different", by=name, reason="a constraint of this name is there, and says otherwise"
        )
    if named is not None:
        return _holds(base, named)
    if equal:
        best = max(equal, key=lambda row: (row["is_enforced"], row["is_validated"]))
        found = _holds(base, best)
        return found if name is None else replace(found, reason=found.reason or "the same under another name")
    return replace(base, state="found", by=other) if (other := _otherwise(rule, there)) else base


def _holds(base: Constraint, row: Row) -> Constraint:
    if not row["is_enforced"]:
        return replace(
            base, state="not enforced", by=row["name"], reason="it is there, NOT ENFORCED: it checks nothing"
        )
    if not row["is_validated"]:
        reason = "it is there, NOT VALID: rows from before it was added were never checked"
        return replace(base, state="not validated", by=row["name"], reason=reason)
    return replace(base, state="found", by=row["name"], reason="")


def _is_same(rule: Rule, row: Row) -> bool:
    """Tell whether a constraint says what a rule does; the order of columns does not matter to it."""
    if row["is_temporal"]:  # of periods that overlap, or that cover another; not of equal ones
        return False
    if _KINDS.get(row["kind"]) != rule.kind and not (rule.kind == "unique" and row["kind"] == "p"):
        return False
    if rule.kind == "check":
        return bool(row["condition"] == rule.condition)
    if rule.kind == "foreign key":
        ours = {*zip(rule.columns, rule.referenced_columns, strict=True)}
        theirs = {*zip(row["columns"], row["referenced_columns"], strict=True)}
        return ours == theirs and rule.referenced[:2] == (row["referenced_schema"], row["referenced_table"])
    return {*row["columns"]} == {*rule.columns}


def _otherwise(rule: Rule, there: _Table) -> str | None:
    """Return what gives the same without being such a constraint: a unique index, a column's NOT NULL."""
    if rule.kind == "unique":
        for index in there.indexes:
            plain = index.is_unique and index.is_valid and not index.is_exclusion
            whole = not (index.is_partial or index.has_expressions)
            if plain and whole and {*index.columns[: index.key_count]} == {*rule.columns}:
                return index.name
    if rule.kind == "not null":
        column = rule.columns[0]
        if there.columns[column] and not any(row["kind"] == "n" for row in there.constraints):
            return f"NOT NULL of {quote_name(column)}"  # before PostgreSQL 18 it has no other name
        same = f"({quote_name(column)} IS NOT NULL)"
        proven = (r for r in there.constraints if r["kind"] == "c" and r["is_validated"] and r["is_enforced"])
        return next((row["name"] for row in proven if row["condition"] == same), None)
    return None


def _with_statements(
    connection: Connection,
    found: Constraint,
    rule: Rule | None,
    there: _Table,
    entry: RequiredConstraint,
) -> tuple[Constraint, Rule | None]:
    """Add how it is mended; and return the rule whose rows are to be counted, where it does not hold."""
    if found.state == "found" or (rule is None and found.by is None):
        return found, None
    if found.state in ("not validated", "not enforced"):
        row = next(row for row in there.constraints if row["name"] == found.by)
        assert found.by is not None
        name = quote_name(found.by)
        mend = f"ALTER TABLE {found.table} VALIDATE CONSTRAINT {name};"
        if found.state == "not enforced":
            mend = f"ALTER TABLE {found.table} ALTER CONSTRAINT {name} ENFORCED;"
        if row["is_temporal"]:
            why = "several rows together may cover a PERIOD; VALIDATE CONSTRAINT looks at them"
            return replace(found, ddl=(mend,), not_counted=why), None
        return replace(found, ddl=(mend,)), _rule_of(connection, row, there.relation)
    if rule is None or found.state == "different":
        return found, rule
    taken = [row["name"] for row in there.constraints]
    name = split_qualified(entry.name)[1] if entry.name else rules.name_for(rule, taken)
    return replace(
        found, ddl=rules.add(connection, rule, name), undo=rules.undo(connection, rule, name)
    ), rule


def _with_count(counting: Connection, found: tuple[Constraint, Rule | None]) -> Constraint:
    constraint, rule = found
    if rule is None:
        return constraint
    number, why = count(counting, rule.violations())
    return replace(constraint, violations=number, not_counted=why)


def count(connection: Connection, query: Composed) -> tuple[int | None, str]:
    """Return how many rows break a rule; None, and why, where that could not be counted in time."""
    try:
        with connection.snapshot():
            return int(connection.value(query)), ""
    except QueryFailed as exc:
        return None, "not finished within count_timeout_s" if exc.sqlstate == _CANCELLED else str(exc)
    except StewardError as exc:
        if connection.closed:
            raise
        return None, str(exc)


def _rule_of(connection: Connection, row: Row, relation: Relation) -> Rule | None:
    """Return what a constraint of the database says."""
    kind = _KINDS.get(row["kind"])
    if kind is None:
        return None
    return Rule(
        kind,
        *_place(relation),
        columns=tuple(row["columns"]) if kind != "check" else (),
        condition=row["condition"] or "",
        referenced=(row["referenced_schema"], row["referenced_table"], row["referenced_kind"]),
        referenced_columns=tuple(row["referenced_columns"]),
        comparisons=comparisons(connection, [row["oid"]]).get(row["oid"], ()),
        is_full_match=row["is_full_match"],
        is_inherited=row["is_inherited"],
    )


def _place(relation: Relation) -> tuple[int, str, str, str]:
    return relation.oid, relation.schema, relation.name, relation.kind


def _read(connection: Connection, entry: RequiredConstraint, there: _Table) -> Rule | None:
    """Return what a declared constraint says; None for one that is known by its name alone.

    Raises:
        StewardError: PostgreSQL refuses it, or our role may not try.
    """
    place = _place(there.relation)
    if entry.check is not None:
        return Rule("check", *place, condition=_condition(connection, entry.check, there.relation))
    columns = tuple(
        split_qualified(c)[1] for c in entry.unique or entry.foreign_key or filter(None, [entry.not_null])
    )
    if not columns:
        return None
    for column in columns:
        if column not in there.columns:
            raise QueryFailed(f"column {quote_name(column)} does not exist", "42703")
    if entry.unique:
        refuse_part_of_a_partition_key(connection, there.relation, columns)
        return Rule("unique", *place, columns=columns)
    if entry.not_null is not None:
        return Rule("not null", *place, columns=columns)
    return _foreign_key(connection, entry, place, columns)


def _condition(connection: Connection, check: str, relation: Relation) -> str:
    with empty_copy(connection, relation) as probe:
        connection.execute(compose("ALTER TABLE {} ADD CHECK ({})", probe, as_written(check)))
        connection.execute("SELECT set_config('search_path', 'pg_catalog', true)")
        return str(
            connection.value(
                "SELECT pg_get_expr(k.conbin, k.conrelid) FROM pg_constraint AS k"
                " WHERE k.conrelid = to_regclass(%(probe)s) AND k.contype = 'c'",
                {"probe": f"pg_temp.{PROBE}"},
            )
        )


def _foreign_key(
    connection: Connection,
    entry: RequiredConstraint,
    place: tuple[int, str, str, str],
    columns: tuple[str, ...],
) -> Rule:
    assert entry.references is not None
    other = find_relation(connection, entry.references)
    if other is None:
        raise QueryFailed(f"table {entry.references} does not exist", "42P01")
    theirs = tuple(split_qualified(column)[1] for column in entry.references_columns)
    if not theirs:
        keys = connection.rows(sql.load("audit_constraints"), {"oid": other.oid})
        theirs = next((tuple(row["columns"]) for row in keys if row["kind"] == "p"), ())
    if len(theirs) != len(columns):
        raise QueryFailed(
            f"the primary key of {entry.references} has {len(theirs)} columns, foreign_key {len(columns)};"
            " name references_columns",
            "42830",
        )
    referenced = (other.schema, other.name, other.kind)
    return Rule("foreign key", *place, columns=columns, referenced=referenced, referenced_columns=theirs)


def _would_compare(connection: Connection, rule: Rule, relation: Relation) -> tuple[Comparison, ...]:
    """Let PostgreSQL say how it would compare the columns of a foreign key that is not there.

    Raises:
        StewardError: It can't compare them, or our role may not try.
    """
    other = identifier("pg_temp", f"{PROBE}_referenced")
    ours, theirs = (join(", ", map(identifier, names)) for names in (rule.columns, rule.referenced_columns))
    with empty_copy(connection, relation) as probe:
        connection.execute(
            compose(
                "CREATE TEMPORARY TABLE {} (LIKE {}, UNIQUE ({}))",
                other,
                identifier(*rule.referenced[:2]),
                theirs,
            )
        )
        connection.execute(
            compose("ALTER TABLE {} ADD FOREIGN KEY ({}) REFERENCES {} ({})", probe, ours, other, theirs)
        )
        oid = connection.value(
            "SELECT k.oid::int8 FROM pg_constraint AS k"
            " WHERE k.conrelid = to_regclass(%(probe)s) AND k.contype = 'f'",
            {"probe": f"pg_temp.{PROBE}"},
        )
        return comparisons(connection, [oid])[oid]
