"""The night: every step in its order; one that fails never hides another."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import FlowRun, State
from prefect.context import FlowRunContext
from prefect.states import Completed

from flows.conclusion import conclude_night
from pgsteward.databases import bind_covered
from pgsteward.night import DEFAULT_MAX_LATENESS, NightStep, judge_lateness, newest_backup, run_night
from pgsteward.results import StepResult
from pgsteward.several import find_grounds
from pgsteward.targets import load_target
from tasks.analyze import analyze_stale
from tasks.backup import back_up
from tasks.drill import drill_in_night
from tasks.index_audit import audit
from tasks.index_bloat import detect
from tasks.janitor import clean_up
from tasks.matviews import refresh
from tasks.reindex import reindex_bloated
from tasks.retention import prune
from tasks.sessions import clean_sessions
from tasks.upload import upload_backup
from tasks.vacuum import vacuum_tables

log = logging.getLogger("pgsteward.flows")

STEP_TASKS: Mapping[str, Callable[..., StepResult]] = {
    "janitor": clean_up,
    "backup": back_up,
    "drill": drill_in_night,
    "prune": prune,
    "sessions": clean_sessions,
    "vacuum": vacuum_tables,
    "reindex": reindex_bloated,
    "analyze": analyze_stale,
    "matviews": refresh,
}
LOOKING_TASKS: Mapping[str, Callable[..., StepResult]] = {"bloat": detect, "indexes": audit}


@flow(name="nightly", flow_run_name="nightly-{target}")
def nightly(
    target: str = "app",
    dry_run: bool = False,
    max_lateness: timedelta = DEFAULT_MAX_LATENESS,
    database: str = "",
) -> State[Any]:
    """Look after a target: backup, retention, cleanup, bloat, statistics, materialized views, report.

    - **Does**, in this order: janitor, backup with proof, upload, drill (where it is
      wanted every night), retention, session cleanup, VACUUM, bloat
      detection, reindex of what is bloated, index audit, ANALYZE, materialized views. A step that fails never
      hides another; what depends on it is skipped by name. The report is published, then the run fails.
    - **Locks**: none that stops the application from reading and writing, except the plain refresh of a
      materialized view without a unique index (see `matviews.allow_exclusive`).
    - **Cancel**: any time; statements and child processes end within seconds, the next night clears the rest.
    - **Undo**: deleted backups and expired session rows are gone; everything else needs none.

    Args:
        target: Name of an entry under [targets] in pgsteward.toml, never a connection string.
        dry_run: Say what would be done, by the same code, and change nothing.
        max_lateness: A run that starts later than this after its schedule skips itself; backup and upload
            still run when no backup is newer than the schedule.
        database: Only this one, where the target has several; all of them when empty.
    """
    settings = load_target(target)
    if database:
        settings = bind_covered(settings, database)
    started_at = datetime.now(UTC)
    scheduled = scheduled_for(_this_run())
    newest = None
    if scheduled is not None and started_at - scheduled > max_lateness:
        newest = newest_backup(settings)
    lateness = judge_lateness(scheduled, started_at, max_lateness, newest)
    late = "" if lateness == "on time" else f"late: scheduled for {scheduled:%Y-%m-%d %H:%M} UTC"
    if lateness == "skip":
        return Completed(name="Skipped", message=f"{late}; a backup of {newest:%Y-%m-%d %H:%M} UTC is newer")
    if late:
        late = f"{late}; only backup and upload were done"
        log.warning("This run is %s", late)

    def call(step: NightStep, done: Mapping[str, StepResult]) -> StepResult:
        one, grounds = database or None, find_grounds(step.needs, done)
        if step.name == "upload":
            backup_id = done["backup"].details.get("backup_id")
            return upload_backup(target, backup_id, dry_run, database=one, grounds=grounds)
        if step.name in LOOKING_TASKS:
            return LOOKING_TASKS[step.name](target, database=one, grounds=grounds)
        return STEP_TASKS[step.name](target, dry_run, database=one, grounds=grounds)

    night = run_night(target, settings.scope, call, started_at=started_at, dry_run=dry_run, lateness=lateness)
    return conclude_night(night, late)


def scheduled_for(run: FlowRun | None) -> datetime | None:
    """Return when a run was meant to start; None when nothing tells, or when it is run once more by hand."""
    if run is None or run.expected_start_time is None or run.run_count > 1:
        return None
    return run.expected_start_time


def _this_run() -> FlowRun | None:
    context = FlowRunContext.get()
    return context.flow_run if context else None
