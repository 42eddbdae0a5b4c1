"""ANALYZE of what is stale: by autovacuum's own rule, and of what autovacuum never looks at.

Autovacuum never analyzes a partitioned parent, and nobody analyzes a column, an index on an expression or a
statistics object that was added later. ANALYZE without the right to work only warns; every warning is a
failure here, and success is believed when the server's own clock of the last ANALYZE has moved.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pgsteward import sql, state
from pgsteward.analyze_plan import (
    Counters,
    Stale,
    TableState,
    count_leaves,
    find_stale,
    read_counters,
    with_own_analyze,
)
from pgsteward.errors import LockTimeout, StewardError
from pgsteward.ledger import Ledger, Outcome
from pgsteward.postgres import Connection, Row, compose, connect, identifier, quote_name
from pgsteward.postgres_lock import operation_lock
from pgsteward.progress import Progress, silent
from pgsteward.relations import (
    GONE,
    Relation,
    is_excluded,
    is_gone,
    lock_holders,
    maintain_fix,
    name_holders,
    refuse_standby,
    relation_from,
)
from pgsteward.results import StepResult
from pgsteward.targets import Target
from pgsteward.workers import Workers

log = logging.getLogger(__name__)

STEP = "analyze"
_PARENTS = "analyze.parents"
_MISSING = "analyze.missing"
_ONLY_SINCE = 180000
_LOCK_TIMEOUT_S = 5.0
_LOCK_NOT_AVAILABLE = "55P03"
_NOT_COMPUTED = "42P17"
"""A statistics object that can't be computed: one of its columns has the statistics target 0."""
_BLOCKING = frozenset(
    {
        "ShareUpdateExclusiveLock",
        "ShareLock",
        "ShareRowExclusiveLock",
        "ExclusiveLock",
        "AccessExclusiveLock",
    }
)
"""Locks on a table that keep ANALYZE out of it; rows of its partitions it samples behind all but the last."""
_NAMED = 3
_POLLS = 10
_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class _Tables:
    """Everything that was read before the first ANALYZE."""

    relations: Mapping[int, Relation]
    states: Mapping[int, TableState]
    counters: Mapping[int, Counters]
    missing: Mapping[int, Sequence[str]]
    can_do_only: bool

    def may_analyze(self, oid: int) -> bool:
        """Tell whether our role has the right to."""
        return self.relations[oid].may_vacuum

    def out_of_reach(self, oid: int) -> list[Relation]:
        """Return those leaves of a parent that we have no right to ANALYZE."""
        leaves = [self.relations[leaf] for leaf in self.states[oid].leaves if leaf in self.relations]
        return [leaf for leaf in leaves if not leaf.may_vacuum]

    def with_own_analyze(self, stale: Sequence[Stale]) -> list[Stale]:
        """Return what needs an ANALYZE of its own; before PostgreSQL 18 a parent's does all below it too."""
        if self.can_do_only:
            return list(stale)
        return with_own_analyze(stale, self.states, self.may_analyze)

    def below(self, parents: Collection[int]) -> list[int]:
        """Return what an ANALYZE of parents tries to do along with them."""
        if self.can_do_only:
            return []
        return [oid for oid, table in self.states.items() if not set(table.parents).isdisjoint(parents)]

    def analyzed_meanwhile(self, connection: Connection, oids: Sequence[int]) -> set[int]:
        """Return those of some tables whose last ANALYZE is another than it was."""
        rows = connection.rows(
            "SELECT o.oid, pg_stat_get_last_analyze_time(o.oid::oid) AS last_analyze"
            "  FROM unnest(%(oids)s::int8[]) AS o (oid)",
            {"oids": list(oids)},
        )
        return {row["oid"] for row in rows if row["last_analyze"] != self.states[row["oid"]].last_analyze}


def analyze_stale(target: Target, *, dry_run: bool = False, progress: Progress = silent) -> StepResult:
    """ANALYZE the tables, partitioned parents and materialized views whose statistics are stale or missing.

    The most stale come first, several at a time; what the time is too short for is named. System catalogs are
    left to autovacuum.

    Args:
        target: Whose database.
        dry_run: Say what would be analyzed, and why.
        progress: Told about tables.

    Raises:
        PreconditionError: Another run works on this database, or it is a standby.
    """
    login = target.login("maintenance")
    settings = target.settings.analyze
    ledger = Ledger(STEP, target.name, dry_run)
    with operation_lock(login, STEP) as session:
        refuse_standby(session)
        tables = _read(target, session, ledger)
        stale = [
            each
            for each in find_stale(
                tables.states,
                settings.stale_fraction,
                can_do_only=tables.can_do_only,
                counters=tables.counters,
                missing=tables.missing,
            )
            if not _is_excluded(settings.exclude, tables.relations[each.oid], ledger)
        ]
        left = {each.oid: each for each in stale}
        todo = deque(tables.with_own_analyze(stale))
        deadline = ledger.started + 60 * settings.max_minutes
        analyzed: list[int] = []
        along = 0

        def open_session() -> Connection:
            timeout_s = settings.statement_timeout_s
            return connect(login, purpose=STEP, lock_timeout_s=_LOCK_TIMEOUT_S, statement_timeout_s=timeout_s)

        def work(connection: Connection, each: Stale) -> Outcome:
            return _analyze(connection, tables, each, dry_run=dry_run)

        with Workers(open_session, settings.jobs, work) as workers:
            while todo or workers.busy:
                while todo and workers.has_room and time.monotonic() < deadline:
                    workers.begin(todo.popleft())
                if not workers.busy:
                    break
                progress("analyzing", len(stale) - len(left), len(stale))
                each, outcome = workers.next()
                del left[each.oid]
                name = tables.relations[each.oid].qualified
                ledger.take(name, outcome)
                if outcome.kind == "changed":
                    analyzed.append(each.oid)
                    log.info("%s %s: %s", name, outcome.text, each.reason)
                if not tables.may_analyze(each.oid):
                    continue  # nothing was left to its ANALYZE
                waiting = [oid for oid in tables.below([each.oid]) if oid in left]
                if dry_run:
                    done = {oid for oid in waiting if tables.may_analyze(oid)}
                else:
                    done = tables.analyzed_meanwhile(session, waiting)
                along += len(done)
                rest = [left[oid] for oid in waiting if oid not in done]
                left = {oid: one for oid, one in left.items() if oid not in done}
                todo.extendleft(reversed(tables.with_own_analyze(rest)))
        for each in left.values():
            ledger.skip(tables.relations[each.oid].qualified, f"stale ({each.reason}), no time was left")
        if left:
            ledger.find(
                f"{len(left)} stale tables",
                f"not analyzed within {settings.max_minutes:g} minutes; raise"
                " analyze.max_minutes or analyze.jobs, or wait for the next run",
            )
        if not dry_run:
            _remember(target, session, tables, analyzed)
    if not tables.states:
        ledger.doubt(target.database, "there is no table in this database")
    return ledger.result(
        f"{len(stale)} of {len(tables.states)} tables stale;"
        f" {len(ledger.changed)} {'would be analyzed' if dry_run else 'analyzed'}"
        + (f" ({along} partitions along with their parents)" if along else "")
        + (f", {len(ledger.failed)} failed" if ledger.failed else "")
        + (f", {len(left)} left for want of time" if left else ""),
        {"stale": len(stale), "tables": len(tables.states)},
    )


def _read(target: Target, connection: Connection, ledger: Ledger) -> _Tables:
    rows = connection.rows(sql.load("analyze_state"))
    if rows and not rows[0]["is_counted"]:
        ledger.doubt(connection.dbname, "track_counts is off: nobody counts changed rows; turn it on")
    ledger.examined = len(rows)
    relations = {row["oid"]: relation_from(row) for row in rows}
    kept = state.recall(target, _PARENTS, lambda entry: (entry["oid"], read_counters(entry["leaves"])))
    counters = {
        oid: kept[relation.qualified][1]
        for oid, relation in relations.items()
        if kept.get(relation.qualified, (None,))[0] == oid
    }
    known = state.recall(target, _MISSING, frozenset)
    missing: dict[int, list[str]] = {}
    for oid, what in _missing(connection):
        if oid in relations and what not in known.get(relations[oid].qualified, ()):
            missing.setdefault(oid, []).append(what)
    return _Tables(
        relations,
        {row["oid"]: _state_from(row) for row in rows},
        counters,
        missing,
        connection.server_version >= _ONLY_SINCE,
    )


def _missing(connection: Connection) -> list[tuple[int, str]]:
    return [(row["oid"], row["what"]) for row in connection.rows(sql.load("missing_statistics"))]


def _state_from(row: Row) -> TableState:
    values = {name: row[name] for name in TableState.__slots__}
    return TableState(**{**values, "parents": tuple(row["parents"]), "leaves": tuple(row["leaves"])})


def _is_excluded(patterns: Collection[str], relation: Relation, ledger: Ledger) -> bool:
    if not is_excluded(patterns, relation.schema, relation.name):
        return False
    ledger.skip(relation.qualified, "excluded by analyze.exclude")
    return True


def _analyze(connection: Connection, tables: _Tables, each: Stale, *, dry_run: bool) -> Outcome:
    started = time.monotonic()
    relation = tables.relations[each.oid]
    why = f"stale ({each.reason})"
    if not relation.may_vacuum:
        return Outcome("failed", f"{why}, no right to ANALYZE; run: {maintain_fix(connection, relation)}")
    if dry_run:
        return Outcome("changed", "would analyze", {"reason": each.reason})
    before = _last_analyze(connection, relation.oid)
    only = tables.can_do_only and relation.kind == "p"
    table = identifier(relation.schema, relation.name)
    try:
        with connection.collect_notices() as notices:
            connection.execute(
                compose("ANALYZE (SKIP_LOCKED) ONLY {}", table)
                if only
                else compose("ANALYZE (SKIP_LOCKED) {}", table)
            )
    except LockTimeout:
        return _locked(connection, relation, why)
    except StewardError as exc:
        if connection.closed:
            raise
        if is_gone(connection, relation.oid):
            return Outcome("skipped", GONE)
        return Outcome("failed", f"{why}: {exc}")
    warnings = [notice for notice in notices if notice.severity == "WARNING"]
    is_locked = any(notice.sqlstate == _LOCK_NOT_AVAILABLE for notice in warnings)
    odd = "; ".join(notice.message for notice in warnings if notice.sqlstate == _NOT_COMPUTED)
    said = "; ".join(
        notice.message for notice in warnings if notice.sqlstate not in (_NOT_COMPUTED, _LOCK_NOT_AVAILABLE)
    )
    if said:
        fixes = (maintain_fix(connection, each) for each in tables.out_of_reach(relation.oid) or [relation])
        said += f"; run: {'; '.join(dict.fromkeys(fixes))}"
    if not _has_moved(connection, relation.oid, before, polls=1 if warnings else _POLLS):
        if is_gone(connection, relation.oid):
            return Outcome("skipped", GONE)
        if said:
            return Outcome("failed", f"{why}: {said}")
        if is_locked:
            return _locked(connection, relation, why)
        return Outcome("unknown", "ANALYZE ended well, but the server has no record of it")
    findings = [said] if said else []  # of partitions: whatever was stale among them gets another ANALYZE
    if odd:
        findings.append(f"{odd}; raise the statistics target of its columns, or drop it")
    return Outcome(
        "changed",
        "analyzed",
        {"reason": each.reason, "seconds": round(time.monotonic() - started, 3)},
        finding="; ".join(findings),
    )


def _locked(connection: Connection, relation: Relation, why: str) -> Outcome:
    """Say who keeps an ANALYZE waiting: by a lock on the table, or on what it takes samples of besides."""
    found = lock_holders(connection, relation.oid, below=True)
    holders = [each for each in found if each["oid"] == relation.oid and _BLOCKING & set(each["modes"])]
    where = ""
    if not holders:
        holders = [each for each in found if "AccessExclusiveLock" in each["modes"]]
        where = _name_parts(holders)
    holders = holders or found
    if holders and all(holder["backend_type"] == "autovacuum worker" for holder in holders):
        return Outcome("skipped", f"{why}, autovacuum is at work on it")
    return Outcome("failed", f"{why}, {where}locked by {name_holders(holders)}")


def _name_parts(holders: Iterable[Row]) -> str:
    names = list(dict.fromkeys(quote_name(each["schema"], each["name"]) for each in holders))
    if not names:
        return ""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"with {', '.join(names[:_NAMED])}{more} below it "


def _last_analyze(connection: Connection, oid: int) -> object:
    return connection.value("SELECT pg_stat_get_last_analyze_time(%(oid)s::int8::oid)", {"oid": oid})


def _has_moved(connection: Connection, oid: int, before: object, polls: int) -> bool:
    """Tell whether the last ANALYZE has moved, waiting a little while for the counters."""
    for attempt in range(polls):
        if attempt:
            time.sleep(_POLL_S)
        if _last_analyze(connection, oid) != before:
            return True
    return False


def _remember(target: Target, connection: Connection, tables: _Tables, analyzed: Collection[int]) -> None:
    """Keep how parents were at their last ANALYZE, and of what ANALYZE makes no statistics."""
    fresh = {*analyzed, *tables.analyzed_meanwhile(connection, tables.below(analyzed))}
    parents = {
        tables.relations[oid].qualified: {
            "oid": oid,
            "leaves": count_leaves(parent, tables.states, now=oid in fresh),
        }
        for oid, parent in tables.states.items()
        if parent.kind == "p"
        and (oid in fresh or (oid not in tables.counters and parent.last_analyze is not None))
    }
    if parents:
        state.keep(target, _PARENTS, parents)
    tried = fresh & tables.missing.keys()
    if tried:
        remaining: dict[str, list[str]] = {tables.relations[oid].qualified: [] for oid in tried}
        for oid, what in _missing(connection):
            if oid in tried:
                remaining[tables.relations[oid].qualified].append(what)
        state.keep(target, _MISSING, {name: found for name, found in remaining.items() if found})
