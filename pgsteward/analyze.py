"""ANALYZE of what is stale: by autovacuum's own rule, and of what autovacuum never looks at.

Autovacuum never analyzes a partitioned parent. ANALYZE without the right to work only warns; every warning is
a failure here, and success is believed when the server's own clock of the last ANALYZE has moved.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import datetime

from pgsteward import sql
from pgsteward.errors import LockTimeout, StewardError
from pgsteward.ledger import Ledger
from pgsteward.postgres import Connection, Row, compose, connect, identifier, operation_lock
from pgsteward.relations import Relation, lock_holders, maintain_fix, name_holders, relation_from
from pgsteward.results import StepResult
from pgsteward.targets import Target

log = logging.getLogger(__name__)

STEP = "analyze"
_ONLY_SINCE = 180000
_LOCK_TIMEOUT_S = 5.0
_LOCK_NOT_AVAILABLE = "55P03"
_POLLS = 10
_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class TableState:
    """What decides whether a table's statistics are stale.

    Attributes:
        kind: r table, p partitioned parent, m materialized view.
        is_populated: False for a materialized view that was never filled.
        row_count: The planner's estimate; of a parent the sum over its leaves. -1 means never known.
        changed_rows: Since the last ANALYZE; of a parent the sum over its leaves.
        leaves: How many leaves a parent has.
        leaf_last_autoanalyze: When autovacuum analyzed one of a parent's leaves last.
        leaf_last_any: When anybody did.
        parents: OIDs of all parents above it, any level up.
        base_threshold: ``autovacuum_analyze_threshold``, the table's own if it has one.
        scale_factor: ``autovacuum_analyze_scale_factor``, the table's own if it has one.
    """

    kind: str
    is_populated: bool
    last_analyze: datetime | None
    last_autoanalyze: datetime | None
    row_count: float
    changed_rows: int
    leaves: int
    leaf_last_autoanalyze: datetime | None
    leaf_last_any: datetime | None
    parents: tuple[int, ...]
    base_threshold: float
    scale_factor: float


def analyze_stale(target: Target, *, dry_run: bool = False) -> StepResult:
    """ANALYZE the tables, partitioned parents and materialized views whose statistics are stale.

    System catalogs are left to autovacuum.

    Args:
        target: Whose database.
        dry_run: Say what would be analyzed, and why.

    Raises:
        PreconditionError: Another run works on this database.
    """
    login = target.login("maintenance")
    settings = target.settings.analyze
    ledger = Ledger(STEP, target.name, dry_run)
    with (
        operation_lock(login, STEP),
        connect(
            login,
            purpose="analyze",
            lock_timeout_s=_LOCK_TIMEOUT_S,
            statement_timeout_s=settings.statement_timeout_s,
        ) as connection,
    ):
        rows = connection.rows(sql.load("analyze_state"))
        can_do_only = connection.server_version >= _ONLY_SINCE
        states = {row["oid"]: _state_from(row) for row in rows}
        relations = {row["oid"]: relation_from(row) for row in rows}
        if rows and not rows[0]["is_counted"]:
            ledger.doubt(connection.dbname, "track_counts is off: nobody counts changed rows; turn it on")
        reasons = find_stale(states, settings.stale_fraction, can_do_only=can_do_only)
        covered = (
            set() if can_do_only else {oid for oid in reasons if set(states[oid].parents) & set(reasons)}
        )
        ledger.examined = len(rows)
        for oid, reason in reasons.items():
            if oid in covered:
                continue
            relation = relations[oid]
            if not relation.may_vacuum:
                ledger.fail(
                    relation.qualified,
                    f"stale ({reason}), no right to ANALYZE; run: {maintain_fix(connection, relation)}",
                )
            elif dry_run:
                ledger.change(relation.qualified, "would analyze", reason=reason)
            else:
                _analyze(connection, relation, reason, can_do_only, ledger)
    if not rows:
        ledger.doubt(target.database, "there is no table in this database")
    done = sum(1 for item in ledger.changed)
    return ledger.result(
        f"{len(reasons)} of {len(rows)} tables stale; {done} {'would be analyzed' if dry_run else 'analyzed'}"
        + (f" ({len(covered)} partitions along with their parents)" if covered else "")
        + (f", {len(ledger.failed)} failed" if ledger.failed else ""),
        {"stale": len(reasons), "tables": len(rows)},
    )


def why_stale(state: TableState, fraction: float) -> str | None:
    """Return why a table's own statistics are stale, or None.

    Args:
        state: The table.
        fraction: Scales autovacuum's threshold: 0.5 means half the changes are enough.
    """
    if state.kind == "m" and not state.is_populated:
        return None
    if state.kind == "p":
        if state.leaves == 0:
            return None
        if state.last_analyze is None:
            return "partitioned parent that was never analyzed; autovacuum does not do it"
    elif state.last_analyze is None and state.last_autoanalyze is None:
        return "never analyzed since its counters began"
    threshold = fraction * (state.base_threshold + state.scale_factor * max(state.row_count, 0.0))
    if state.changed_rows > threshold:
        return f"{state.changed_rows} rows changed since the last ANALYZE, over {threshold:.0f}"
    return None


def find_stale(states: dict[int, TableState], fraction: float, *, can_do_only: bool) -> dict[int, str]:
    """Return the OIDs of what is stale with the reason, leaves before their parents.

    A parent is stale as well when one of its leaves is, or was analyzed after it: its own counters never
    move. Before PostgreSQL 18 an ANALYZE of the parent analyzes the leaves right after it, so there only
    autovacuum's work on a leaf counts as later.

    Args:
        states: All tables by OID.
        fraction: See `why_stale`.
        can_do_only: The server has ANALYZE ONLY.
    """
    reasons: dict[int, str] = {}
    for oid, state in states.items():
        reason = why_stale(state, fraction)
        if reason is not None:
            reasons[oid] = reason
    stale_leaves = {parent for oid in reasons if states[oid].kind != "p" for parent in states[oid].parents}
    for oid, state in states.items():
        if state.kind != "p" or oid in reasons or state.last_analyze is None:
            continue
        newest = state.leaf_last_any if can_do_only else state.leaf_last_autoanalyze
        if oid in stale_leaves:
            reasons[oid] = "partitioned parent of a stale partition"
        elif newest is not None and newest > state.last_analyze:
            reasons[oid] = "partitioned parent with a partition that was analyzed after it"
    return dict(sorted(reasons.items(), key=lambda entry: states[entry[0]].kind == "p"))


def _state_from(row: Row) -> TableState:
    values = {name: row[name] for name in TableState.__slots__}
    return TableState(**{**values, "parents": tuple(row["parents"])})


def _analyze(
    connection: Connection, relation: Relation, reason: str, can_do_only: bool, ledger: Ledger
) -> None:
    started = time.monotonic()
    name = relation.qualified
    before = _last_analyze(connection, relation.oid)
    only = can_do_only and relation.kind == "p"
    table = identifier(relation.schema, relation.name)
    try:
        with connection.collect_notices() as notices:
            connection.execute(
                compose("ANALYZE (SKIP_LOCKED) ONLY {}", table)
                if only
                else compose("ANALYZE (SKIP_LOCKED) {}", table)
            )
    except LockTimeout:
        ledger.fail(name, f"stale ({reason}), locked by {_who_locks(connection, relation)}")
        return
    except StewardError as exc:
        if connection.closed:
            raise
        ledger.fail(name, f"stale ({reason}): {exc}")
        return
    warnings = [notice for notice in notices if notice.severity == "WARNING"]
    if any(notice.sqlstate == _LOCK_NOT_AVAILABLE for notice in warnings):
        ledger.fail(name, f"stale ({reason}), locked by {_who_locks(connection, relation)}")
        return
    if warnings:
        said = "; ".join(notice.message for notice in warnings)
        ledger.fail(name, f"stale ({reason}): {said}; run: {maintain_fix(connection, relation)}")
        return
    if not _has_moved(connection, relation.oid, before):
        ledger.doubt(name, "ANALYZE ended well, but the server has no record of it")
        return
    ledger.change(name, "analyzed", reason=reason, seconds=round(time.monotonic() - started, 3))
    log.info("%s analyzed: %s", name, reason)


def _who_locks(connection: Connection, relation: Relation) -> str:
    return name_holders(lock_holders(connection, relation.oid))


def _last_analyze(connection: Connection, oid: int) -> object:
    return connection.value("SELECT pg_stat_get_last_analyze_time(%(oid)s::int8::oid)", {"oid": oid})


def _has_moved(connection: Connection, oid: int, before: object) -> bool:
    """Tell whether the last ANALYZE has moved, waiting a little while for the counters."""
    for attempt in range(_POLLS):
        if attempt:
            time.sleep(_POLL_S)
        if _last_analyze(connection, oid) != before:
            return True
    return False
