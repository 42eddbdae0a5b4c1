"""The VACUUM guard: what was cleaned, what grows too old, and what autovacuum does not reach.

Old tables come first, long before the server itself would start on them in the middle of a day. Never FULL.
Who keeps dead rows from going is named in the same report.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from pgsteward import results, sql
from pgsteward.backup.lock_watch import OURS
from pgsteward.config import VacuumConfig
from pgsteward.horizon import holders_as_json, holders_for, horizon_holders, name_horizon_holders
from pgsteward.ledger import Ledger
from pgsteward.postgres import Connection, Row, connect
from pgsteward.postgres_lock import operation_lock
from pgsteward.progress import Progress, silent
from pgsteward.relations import find_table, leaves, maintain_fix, name_holder
from pgsteward.results import StepResult
from pgsteward.targets import Target
from pgsteward.vacuum_crew import Crew
from pgsteward.vacuum_plan import Candidate, Due, choose_due
from pgsteward.vacuum_run import Outcome

log = logging.getLogger(__name__)

STEP = "vacuum"


def vacuum_tables(
    target: Target,
    tables: Sequence[str] | None = None,
    *,
    dry_run: bool = False,
    progress: Progress = silent,
) -> StepResult:
    """VACUUM what needs it, leaf by leaf, the oldest first.

    Args:
        target: Whose database.
        tables: Only these, by qualified name; None means the tables that session cleanup is configured for
            and, with ``vacuum.guard``, all that are old or full of dead rows.
        dry_run: Say what would be vacuumed, in its order.
        progress: Told about tables.

    Raises:
        ConfigError: There is no such table; nothing was changed.
        PreconditionError: Another VACUUM run of pgsteward works on this database.
    """
    settings = target.settings.vacuum
    names = [entry.table for entry in target.settings.sessions]
    if tables is not None:
        names, settings = list(tables), settings.model_copy(update={"guard": False})
    if not names and not settings.guard:
        reason = "there is no cleaned table: no [[sessions]] is configured, and vacuum.guard is off"
        not_asked: dict[str, Any] = {"horizon": [], "xid_age": None, "multixact_age": None, "ages": []}
        return results.skipped(STEP, target.name, reason, details=not_asked)
    login = target.login("maintenance")
    ledger = Ledger(STEP, target.name, dry_run)
    deadline = time.monotonic() + seconds_to_begin(settings, datetime.now(UTC))
    with (
        operation_lock(login, STEP),
        connect(login, purpose="vacuum plan", statement_timeout_s=300) as connection,
    ):
        wanted = _wanted(connection, ledger, names)
        candidates = [Candidate.of(row) for row in connection.rows(sql.load("vacuum_candidates"))]
        ledger.examined = len(candidates) if settings.guard else len(wanted)
        _note_unseen(connection, ledger, candidates, settings)
        dues = list(_possible(connection, ledger, choose_due(candidates, settings, wanted)))
        if dry_run:
            for due in dues:
                ledger.change(due.relation.qualified, "would vacuum", **_forecast(due))
        stuck = _write_down(ledger, [] if dry_run else Crew(login, settings, deadline, progress).work(dues))
        holders = horizon_holders(connection)
        if stuck:
            who = {
                catalogs: name_horizon_holders(connection, holders_for(holders, catalogs=catalogs))
                for catalogs in (True, False)
            }
            for outcome in stuck:
                is_catalog = outcome.due.candidate.is_catalog
                ledger.find(outcome.due.relation.qualified, f"{outcome.stays}; held by: {who[is_catalog]}")
        own, others = _ages(target, connection)
        for row in others if settings.guard else ():
            _note_database(ledger, row)
    return ledger.result(
        _summary(ledger, stuck, own),
        {
            "horizon": holders_as_json(holders),
            "xid_age": own["xid_age"],
            "multixact_age": own["multixact_age"],
            "ages": [{key: row[key] for key in ("name", "xid_age", "multixact_age")} for row in others],
        },
        "failed" if ledger.failed and not ledger.changed else None,
    )


def seconds_to_begin(settings: VacuumConfig, now: datetime) -> float:
    """Return how long VACUUMs that are not urgent may begin: until the time is over or the window closes."""
    seconds = settings.max_minutes * 60
    if settings.hours is None:
        return seconds
    closes = settings.hours.closes_at(now)
    return 0.0 if closes is None else min(seconds, (closes - now).total_seconds())


def _wanted(connection: Connection, ledger: Ledger, names: Iterable[str]) -> set[int]:
    """Return the OIDs of what is vacuumed whatever its state."""
    wanted: set[int] = set()
    for table in [find_table(connection, name) for name in dict.fromkeys(names)]:
        parts = leaves(connection, table)
        if not parts:
            ledger.doubt(table.qualified, "it has no partition, so there is nothing to vacuum")
        for leaf in parts:
            if leaf.kind == "r":
                wanted.add(leaf.oid)
            else:
                ledger.skip(leaf.qualified, "it is a foreign table")
    return wanted


def _possible(connection: Connection, ledger: Ledger, dues: Iterable[Due]) -> Iterator[Due]:
    """Leave out, by name, what can't be vacuumed by our role or would be in vain while our dump runs."""
    dump = connection.maybe_row(sql.load("running_dump"), {"names": list(OURS)})
    for due in dues:
        name = due.relation.qualified
        if not due.relation.may_vacuum:
            fix = maintain_fix(connection, due.relation)
            if due.candidate.is_catalog:
                fix = f"VACUUM {name} as a superuser"
            ledger.fail(name, f"{due.reason}; no right to VACUUM; run: {fix}")
        elif dump is not None and not due.for_age:
            ledger.skip(
                name,
                f"{due.reason}; our own dump holds a snapshot until it ends ({name_holder(dump)}):"
                " repeat it then",
            )
        else:
            yield due


def _note_unseen(
    connection: Connection, ledger: Ledger, candidates: Sequence[Candidate], settings: VacuumConfig
) -> None:
    """Say what can't be known, and what nobody but its owner's session can vacuum."""
    if candidates and not candidates[0].is_counted:
        ledger.doubt(connection.dbname, "track_counts is off: nobody counts dead rows; turn it on")
    for each in candidates:
        if settings.guard and each.is_temporary and each.urgency(settings.freeze_fraction) >= 1:
            ledger.find(
                each.relation.qualified,
                f"a temporary table whose oldest transaction is {each.xid_age:,} transactions old; nobody"
                " else can vacuum it: end its session",
            )


def _forecast(due: Due) -> dict[str, Any]:
    candidate = due.candidate
    return {
        "reason": due.reason,
        "dead_rows": candidate.dead_rows + candidate.toast_dead_rows,
        "live_rows": round(candidate.row_count),
        "xid_age": candidate.xid_age,
        "multixact_age": candidate.multixact_age,
    }


def _write_down(ledger: Ledger, outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Write down what came of each VACUUM; return those that could not remove or freeze what they should."""
    stuck = []
    for outcome in outcomes:
        name = outcome.due.relation.qualified
        match outcome.verdict:
            case "vacuumed":
                ledger.change(name, "vacuumed", **outcome.facts)
                if outcome.stays:
                    stuck.append(outcome)
            case "skipped":
                ledger.skip(name, outcome.reason)
            case "unknown":
                ledger.doubt(name, outcome.reason)
            case "locked" | "failed":
                ledger.fail(name, outcome.reason)
    return stuck


def _ages(target: Target, connection: Connection) -> tuple[Row, list[Row]]:
    """Return the ages of our database, and of those of its server that the target does not look after."""
    rows = {row["name"]: row for row in connection.rows(sql.load("database_ages"))}
    own = rows.pop(connection.dbname)
    looked_after = target.settings.databases
    if looked_after == "*":
        return own, [row for row in rows.values() if not row["can_be_connected"]]
    return own, [row for name, row in rows.items() if name not in (looked_after or ())]


def _note_database(ledger: Ledger, row: Row) -> None:
    """Name another database that grows too old: the whole server stops for the oldest one."""
    how = "VACUUM it, as its owner or a superuser"
    if not row["can_be_connected"]:
        how = "ALTER DATABASE ... ALLOW_CONNECTIONS true, VACUUM it, and take that back"
    for what, limit in (("xid", "freeze_max_age"), ("multixact", "multixact_freeze_max_age")):
        if row[f"{what}_age"] > row[limit]:
            ledger.find(
                f"database {row['name']}",
                f"its oldest {what} is {row[f'{what}_age']:,} old, over {row[limit]:,}, and this target does"
                f" not look after it; {how}",
            )


def _summary(ledger: Ledger, stuck: Sequence[Outcome], own: Row) -> str:
    done = f"{len(ledger.changed)} of {ledger.examined} tables"
    return (
        f"{done} {'would be vacuumed' if ledger.dry_run else 'vacuumed'}"
        + (f", {len(ledger.failed)} failed" if ledger.failed else "")
        + (f", dead rows or old transactions stay in {len(stuck)}" if stuck else "")
        + f"; the oldest transaction is {own['xid_age']:,} transactions old"
        + f" (autovacuum acts at {own['freeze_max_age']:,})"
    )
