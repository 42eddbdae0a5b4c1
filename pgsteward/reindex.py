"""Conditional reindex: only what is bloated, by a plan, concurrently, and nothing left behind.

REINDEX CONCURRENTLY waits for every older snapshot of its database and for every lock on its table, and a
lock timeout would count that wait and leave a full-size invalid index. So there is none: who would hold a
rebuild up is asked before it starts, and a rebuild that waits too long is cancelled and cleaned up after.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from pgsteward import reindex_memory, sql
from pgsteward.bloat_order import Memory as Looks
from pgsteward.config import ReindexConfig
from pgsteward.hold_ups import hold_ups, name_hold_ups
from pgsteward.index_bloat import Census, status_without_candidates, take_census
from pgsteward.ledger import Ledger
from pgsteward.leftovers import LOCK, drop_marked
from pgsteward.postgres import Connection, connect
from pgsteward.postgres_lock import operation_lock
from pgsteward.progress import Progress, silent
from pgsteward.reindex_plan import Limits, Plan, make_plan
from pgsteward.reindex_run import Run
from pgsteward.reindex_server import (
    Server,
    ask_server,
    likely_cause,
    look_at_server,
    make_candidates,
    name_unseen_replicas,
)
from pgsteward.report.units import humanize_bytes, humanize_instant, plural
from pgsteward.results import StepResult
from pgsteward.targets import Target
from pgsteward.used import Used

log = logging.getLogger(__name__)

STEP = "reindex"
_ONLY_ESTIMATED = (
    "only an estimate says that it is bloated; rebuild_on_estimate allows it, pgstattuple is better"
)


def reindex(target: Target, *, dry_run: bool = False, progress: Progress = silent) -> StepResult:
    """Rebuild the indexes that are over both thresholds, as far as the plan of this night goes.

    Everything is measured afresh. What the plan leaves, and what somebody would hold up for too long, is
    skipped by name; so is an index that our role does not own, because it could start the rebuild (with
    MAINTAIN) but not drop what a failed one leaves.

    Args:
        target: Whose database.
        dry_run: Say what would be rebuilt, and who would hold it up now.
        progress: Told about indexes and blocks.

    Raises:
        PreconditionError: Another rebuild run works on this database, or nothing may be rebuilt there.
        TransientError: The server is gone.
    """
    login, settings = target.login("maintenance"), target.settings
    ledger, looked = Ledger(STEP, target.name, dry_run), Ledger(STEP, target.name)
    stuck = 0
    with operation_lock(login, LOCK) as lock:
        row = look_at_server(lock)
        dropped, remaining = drop_marked(login, dry_run=dry_run)
        ledger.changed += dropped
        ledger.failed += remaining
        census = take_census(login, settings.index_bloat, looked, progress, memory=Looks(target))
        ledger.examined = looked.examined
        ledger.unknown += looked.unknown
        with connect(login, purpose="reindex watch", statement_timeout_s=30) as watch:
            indexes = [(index, "") for index in census.bloated] + [
                (i, _ONLY_ESTIMATED) for i in census.suspected
            ]
            server = ask_server(watch, row, (index for index, _ in indexes))
            free, disk = server.free_disk(settings.reindex)
            unseen = name_unseen_replicas(watch, settings.reindex)
            if unseen:
                ledger.doubt("replicas", unseen)
            memory = reindex_memory.load(target)
            now = datetime.now(UTC)
            used = target.used or Used(now)
            limits = Limits.of(settings, free, used)
            plan = make_plan(make_candidates(watch, server, indexes), memory, limits, now)
            plan = _with_causes(plan, server)
            _show(plan, disk)
            if dry_run:
                _preview(watch, plan, ledger)
                used.since -= timedelta(seconds=plan.seconds)
                used.wal_bytes += plan.wal_bytes
            else:
                run = Run(target, login, lock, watch, plan, server, memory, used, ledger, progress)
                run.run()
                stuck = run.stuck
            left_out = _left_out(watch, looked, toast=settings.index_bloat.toast)
    for entry in (*plan.later, *plan.never):
        ledger.skip(entry.index.qualified, f"{entry.verdict}: {entry.reason}")
    details = {
        **_limits(plan, settings.reindex, disk),
        "plan": [entry.as_json() for entry in plan.entries],
        "left_out": left_out,
        "only_for_vacuum": server.only_for_vacuum,
    }
    stuck += sum(entry.needs_a_person for entry in plan.entries)
    return _result(ledger, census, looked, details, stuck)


def _with_causes(plan: Plan, server: Server) -> Plan:
    """Say of each index whose rebuilds don't pay why that is, as far as the catalogs tell."""
    return replace(
        plan,
        later=tuple(
            entry
            if entry.back_off is None
            else replace(
                entry,
                reason=f"{entry.reason}, "
                + likely_cause(server, entry.index.oid, gained_little=entry.back_off.gained_little),
            )
            for entry in plan.later
        ),
    )


def _show(plan: Plan, disk: str) -> None:
    """Say in the log what will be done, before it is."""
    until = f", until {humanize_instant(plan.deadline)} at the latest" if plan.deadline else ""
    speed = f"{humanize_bytes(plan.bytes_per_s)} per second"
    speed += f", as {plural(plan.learned_from, 'rebuild')} have shown" if plan.learned_from else ", a default"
    log.info("plan%s (%s; disk: %s)", until, speed, disk)
    for entry in plan.entries:
        log.info("%s: %s: %s", entry.verdict, entry.index.qualified, entry.reason)


def _preview(watch: Connection, plan: Plan, ledger: Ledger) -> None:
    for entry in plan.tonight:
        held_up_by = [name_hold_ups([each]) for each in hold_ups(watch, entry.index.table_oid)]
        ledger.change(
            entry.index.qualified,
            "would rebuild",
            bytes_before=entry.index.bytes,
            reclaimable_bytes=entry.index.reclaimable_bytes,
            predicted_seconds=round(entry.predicted_s, 1),
            held_up_by=list(dict.fromkeys(held_up_by)),
        )


def _left_out(connection: Connection, looked: Ledger, *, toast: bool) -> list[dict[str, str]]:
    """Name what has no place in a plan, as nobody measures it."""
    kinds = connection.rows(sql.load("never_rebuilt"), {"toast": toast})
    return [note.as_json() for note in looked.skipped] + [
        {"object": f"{plural(row['count'], 'index', 'indexes')} {row['of']}", "reason": row["reason"]}
        for row in kinds
    ]


def _limits(plan: Plan, settings: ReindexConfig, disk: str) -> dict[str, Any]:
    return {
        "until": plan.deadline.isoformat() if plan.deadline else None,
        "max_wal_bytes": settings.max_wal_bytes,
        "disk": disk,
        "bytes_per_second": round(plan.bytes_per_s),
        "learned_from": plan.learned_from,
    }


def _result(
    ledger: Ledger, census: Census, looked: Ledger, details: dict[str, Any], stuck: int
) -> StepResult:
    rebuilt = [item for item in ledger.changed if item.action == "rebuilt"]
    gained = sum(item.facts["bytes_before"] - item.facts["bytes_after"] for item in rebuilt)
    if ledger.dry_run:
        done = f"{sum(item.action == 'would rebuild' for item in ledger.changed)} would be rebuilt"
    else:
        done = f"{len(rebuilt)} rebuilt" + (
            f", {gained / 1e6:,.1f} MB returned to the disk" if rebuilt else ""
        )
    if stuck:
        ledger.find(
            plural(stuck, "bloated index", "bloated indexes"),
            "left for a reason that a person can remove; each is named under skipped",
        )
    measured = {key: value for key, value in census.details().items() if key != "indexes"}
    idle = None if ledger.failed else status_without_candidates(census, looked)
    status = "ok" if idle and ledger.changed else idle  # what a dead run had left was all there was to do
    return ledger.result(
        f"{census.sentence()}; {done}", {**measured, **details, "bytes_gained": gained}, status
    )
