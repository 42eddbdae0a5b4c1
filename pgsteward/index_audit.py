"""Index audit: is there what the application relies on, and what is there in vain?

Each finding comes with the statements that mend it and those that take the mending back. Nothing is changed,
unless the creation of missing required indexes is asked for. What can't be looked at is unknown, by name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from pgsteward.audit import alembic_state, constraints, evidence, required, rules, sizes, usage
from pgsteward.audit.alembic_state import Migrations
from pgsteward.audit.constraints import Constraint
from pgsteward.audit.create import LOCK, create_missing
from pgsteward.audit.findings import asked_for, find_problems
from pgsteward.audit.inventory import Inventory, take_inventory
from pgsteward.audit.problem import Problem
from pgsteward.audit.required import Required
from pgsteward.audit.sizes import Sizes
from pgsteward.audit.usage import Usage, Verdict
from pgsteward.config_audit import AlembicConfig, IndexAuditConfig, RequiredConstraint, RequiredIndex
from pgsteward.ledger import Ledger
from pgsteward.postgres import Connection, as_written, connect
from pgsteward.postgres_lock import operation_lock
from pgsteward.progress import Progress, silent
from pgsteward.relations import find_relation
from pgsteward.report.units import plural
from pgsteward.results import StepResult
from pgsteward.targets import Target

Requirement = str | RequiredIndex | RequiredConstraint | AlembicConfig

STEP = "indexes"
KINDS = (
    "missing",
    "different",
    "invalid",
    "constraint",
    "migrations",
    "foreign key",
    "duplicate",
    "redundant",
    "unused",
)
"""Of problems, the most pressing first."""
VERDICTS: tuple[Verdict, ...] = ("used", "needed", "not enough evidence", "unused")
_WORDS: Mapping[str, str] = {
    **{kind: kind for kind in KINDS},
    "constraint": "about constraints",
    "migrations": "about migrations",
    "foreign key": "for foreign keys without an index",
}
_LOCK_TIMEOUT_S = 0.1
_STATEMENT_TIMEOUT_S = 30.0
_ONE_PATH = {"search_path": "pg_catalog"}
"""So that PostgreSQL qualifies every name that it writes."""


@dataclass(frozen=True, slots=True)
class _Found:
    """Everything that was found, before it is told."""

    inventory: Inventory
    required: list[Required]
    constraints: list[Constraint]
    migrations: Migrations | None
    sizes: Sizes
    usage: list[Usage]
    problems: list[Problem]


def audit(
    target: Target, *, create: bool = False, dry_run: bool = False, progress: Progress = silent
) -> StepResult:
    """Look at all indexes, and at the constraints and migrations that are declared.

    Args:
        target: Whose ``[index_audit]``; without requirements everything else is looked at.
        create: Create the required indexes that are missing, first.
        dry_run: With `create`: only say what would be created.
        progress: Told about indexes that are built.

    Raises:
        PreconditionError: With `create`: another run creates indexes in this database.
    """
    ledger = Ledger(STEP, target.name, dry_run)
    with _session(target) as connection:
        if create:
            with operation_lock(target.login("maintenance"), LOCK):
                inventory = take_inventory(connection)
                wanted = required.judge_all(connection, target.settings.index_audit.required, inventory)
                with _counting(target) as counting:
                    wanted = [_with_violations(counting, each) for each in wanted]
                create_missing(target, connection, wanted, inventory, ledger, progress)
        found = _look(target, connection, ledger)
    return _tell(target, found, ledger)


def requirements_there(target: Target) -> set[Requirement]:
    """Return what of the configuration concerns the database.

    An index that is only named concerns a database that has it, any other one, a constraint, and a history of
    migrations a database with its table.
    """
    settings = target.settings.index_audit
    declared: list[RequiredIndex | RequiredConstraint] = [*settings.constraints]
    declared += [entry for entry in settings.required if isinstance(entry, RequiredIndex)]
    with _session(target) as connection:
        inventory = take_inventory(connection)
        there: set[Requirement] = {
            entry
            for entry in settings.required
            if isinstance(entry, str) and required.find_named(entry, inventory.indexes)
        }
        if settings.alembic and alembic_state.version_tables(connection, settings.alembic):
            there.add(settings.alembic)
        return there | {each for each in declared if find_relation(connection, each.table) is not None}


def _session(target: Target) -> Connection:
    return connect(
        target.login("maintenance"),
        purpose="index audit",
        lock_timeout_s=_LOCK_TIMEOUT_S,
        statement_timeout_s=_STATEMENT_TIMEOUT_S,
        settings=_ONE_PATH,
    )


def _counting(target: Target) -> Connection:
    """Open the session that counts rows: policies must not hide some of them."""
    return connect(
        target.login("maintenance"),
        purpose="index audit count",
        lock_timeout_s=_LOCK_TIMEOUT_S,
        statement_timeout_s=target.settings.index_audit.count_timeout_s,
        settings={**_ONE_PATH, "row_security": "off"},
    )


def _look(target: Target, connection: Connection, ledger: Ledger) -> _Found:
    settings = target.settings.index_audit
    inventory = take_inventory(connection)
    wanted = required.judge_all(connection, settings.required, inventory)
    with _counting(target) as counting:
        wanted = [_with_violations(counting, each) for each in wanted]
        rules_found = constraints.judge_all(connection, counting, settings.constraints, inventory)
    measured = sizes.measure(connection, inventory)
    here, observations = evidence.observe(connection, target, ledger)
    seen = evidence.first_seen(target, here, inventory)
    enough = timedelta(days=settings.min_observed_days)
    used = usage.judge_all(inventory, observations, seen, here["now"], enough, asked_for(wanted))
    migrations = alembic_state.compare(connection, settings.alembic) if settings.alembic else None
    problems = find_problems(connection, inventory, measured, used, settings.exclude, wanted, ledger)
    return _Found(inventory, wanted, rules_found, migrations, measured, used, problems)


def _with_violations(counting: Connection, found: Required) -> Required:
    """Say how many rows keep a missing unique index from being made."""
    definition, wanted = found.definition, found.wanted
    if (
        found.state not in ("missing", "different")
        or definition is None
        or wanted is None
        or not wanted.is_unique
    ):
        return found
    query = rules.duplicates(
        definition.schema,
        definition.table_name,
        definition.table_kind,
        [as_written(key.sql) for key in wanted.keys],
        wanted.predicate,
        nulls_not_distinct=wanted.nulls_not_distinct,
    )
    number, why = constraints.count(counting, query)
    return replace(found, violations=number, not_counted=why)


def _tell(target: Target, found: _Found, ledger: Ledger) -> StepResult:
    """Write everything into the ledger, and return the result."""
    problems = list(found.problems)
    settings = target.settings.index_audit
    ledger.examined += len(found.inventory.indexes) + len(found.required)
    for each in found.required:
        if each.state == "unknown":
            ledger.doubt(each.label, each.reason)
        elif each.state != "found":
            problems.append(each.problem())
            if each.not_counted:
                ledger.doubt(
                    each.label, f"rows that stand in the way could not be counted: {each.not_counted}"
                )
    for constraint in found.constraints:
        if constraint.state == "unknown":
            ledger.doubt(constraint.label, constraint.reason)
            continue
        ledger.examined += 1
        if constraint.state != "found":
            problems.append(constraint.problem())
        if constraint.not_counted:
            ledger.doubt(
                constraint.label, f"rows that break it could not be counted: {constraint.not_counted}"
            )
    if found.migrations is not None and settings.alembic is not None:
        if found.migrations.state == "unknown":
            ledger.doubt(settings.alembic.script_location, found.migrations.reason)
        else:
            ledger.examined += 1
        problem = found.migrations.problem(settings.alembic.script_location)
        problems += [problem] if problem else []
    for table in found.sizes.locked:
        ledger.doubt(table, "it is locked: its size, and expressions of its indexes, could not be read")
    if not ledger.examined:
        ledger.doubt(target.database, "there is no index in this database, and none is required")
    problems.sort(key=lambda problem: KINDS.index(problem.kind))
    for problem in problems:
        ledger.find(problem.object, problem.sentence)
    return ledger.result(_summary(found, problems), _details(settings, found, problems))


def _summary(found: _Found, problems: Sequence[Problem]) -> str:
    there = sum(each.state == "found" for each in found.required)
    counts = Counter(problem.kind for problem in problems)
    said = ", ".join(f"{counts[kind]} {_WORDS[kind]}" for kind in KINDS if counts[kind])
    return (
        f"{plural(len(found.inventory.indexes), 'index', 'indexes')} looked at;"
        f" {there} of {len(found.required)} required ones found; {said or 'nothing to mend'}"
    )


def _details(settings: IndexAuditConfig, found: _Found, problems: Sequence[Problem]) -> dict[str, Any]:
    def labels(state: str) -> list[str]:
        return [each.label for each in found.required if each.state == state]

    verdicts = Counter(each.verdict for each in found.usage)
    return {
        "required": [each.label for each in found.required],
        "found": labels("found"),
        "found_as": {e.label: e.index.qualified for e in found.required if e.state == "found" and e.index},
        "missing": labels("missing"),
        "different": labels("different"),
        "invalid": [*labels("invalid"), *(p.object for p in found.problems if p.kind == "invalid")],
        "problems": [problem.as_json() for problem in problems],
        "constraints": [constraint.as_json() for constraint in found.constraints],
        "alembic": found.migrations.as_json(settings.alembic)
        if found.migrations and settings.alembic
        else None,
        "verdicts": {verdict: verdicts[verdict] for verdict in VERDICTS},
        "usage": _usage(found),
        "sizes": list(found.sizes.tables),
    }


def _usage(found: _Found) -> list[Mapping[str, Any]]:
    ordered = sorted(
        found.usage, key=lambda each: (-found.sizes.indexes.get(each.index.oid, 0), each.index.qualified)
    )
    return [each.as_json(found.sizes.indexes.get(each.index.oid)) for each in ordered]
