"""The night: which step, in what order, and what depends on what.

Free of Prefect: the flow and the command line run the same plan, each with its own way to call a step.
One failed step never hides another; a step whose ground is missing is skipped by name.
"""

from __future__ import annotations

import importlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, cast

from pgsteward import results
from pgsteward.databases import bind, bind_covered, find
from pgsteward.errors import StewardError
from pgsteward.progress import Progress, silent
from pgsteward.results import NightResult, StepResult
from pgsteward.retries import call_with_retries
from pgsteward.several import find_grounds, over
from pgsteward.targets import Target

if TYPE_CHECKING:
    from pgsteward.backup.manifest import Manifest

log = logging.getLogger(__name__)

Lateness = Literal["on time", "backup only", "skip"]

DEFAULT_MAX_LATENESS = timedelta(hours=6)


@dataclass(frozen=True, slots=True)
class NightStep:
    """One step of the night.

    Attributes:
        name: As on the command line and in results.
        function: ``module:function`` of the operation; imported when it is called.
        needs: Steps without which this one makes no sense or could do harm.
        when_late: Still done by a run that starts too late, when that night's backup is missing.
        has_dry_run: The operation changes something and so takes ``dry_run``.
    """

    name: str
    function: str
    needs: tuple[str, ...] = ()
    when_late: bool = False
    has_dry_run: bool = True

    def operation(self) -> Callable[..., StepResult]:
        """Return the library's function for this step."""
        module, name = self.function.split(":")
        return cast("Callable[..., StepResult]", getattr(importlib.import_module(module), name))


NIGHT: tuple[NightStep, ...] = (
    NightStep("janitor", "pgsteward.janitor:clean_up"),
    NightStep("backup", "pgsteward.backup.run:back_up_to_send", when_late=True),
    NightStep("upload", "pgsteward.backup.upload:upload", needs=("backup",), when_late=True),
    NightStep("drill", "pgsteward.restore.drills:drill_in_night", needs=("backup", "upload")),
    NightStep("prune", "pgsteward.retention:prune", needs=("backup", "upload")),
    NightStep("sessions", "pgsteward.sessions:clean_sessions", needs=("backup",)),
    NightStep("vacuum", "pgsteward.vacuum:vacuum_tables"),
    NightStep("bloat", "pgsteward.index_bloat:detect", has_dry_run=False),
    NightStep("reindex", "pgsteward.reindex:reindex", needs=("bloat",)),
    NightStep("indexes", "pgsteward.index_audit:audit", has_dry_run=False),
    NightStep("analyze", "pgsteward.analyze:analyze_stale"),
    NightStep("matviews", "pgsteward.matviews:refresh"),
)
"""In this order: a drill before anything is pruned, as a red one freezes that; cleanup before VACUUM before
detection, or no bloat shows; ANALYZE after the rebuilds."""

Call = Callable[[NightStep, Mapping[str, StepResult]], StepResult]


def judge_lateness(
    scheduled: datetime | None,
    now: datetime,
    max_lateness: timedelta,
    newest_backup: datetime | None,
) -> Lateness:
    """Decide what a run does that may have started long after its schedule.

    A worker that was down for a week finds seven late runs. None of them rebuilds indexes at noon; but
    the first one still makes the backup that is missing, and so ends the need of the others.

    Args:
        scheduled: When the run was meant to start; None for a run by hand, which is never late.
        now: When it started.
        max_lateness: A run exactly this late is still on time.
        newest_backup: Start of the newest complete backup of this database.
    """
    if scheduled is None or now - scheduled <= max_lateness:
        return "on time"
    if newest_backup is not None and newest_backup >= scheduled:
        return "skip"
    return "backup only"


def run_night(
    target: str,
    database: str,
    call: Call,
    *,
    started_at: datetime,
    dry_run: bool = False,
    lateness: Lateness = "on time",
) -> NightResult:
    """Run the steps through `call` and collect what they say.

    Args:
        target: Name of the target.
        database: Name of its database, for the report.
        call: Runs one step; gets the results so far. What it raises becomes that step's failure.
        started_at: Aware instant the night began.
        dry_run: Only passed on to the results; `call` decides what it means.
        lateness: From `judge_lateness`.
    """
    started = time.monotonic()
    done: dict[str, StepResult] = {}
    for step in NIGHT:
        if lateness == "skip" or (lateness == "backup only" and not step.when_late):
            late = "late: the run started past max_lateness"
            done[step.name] = results.skipped(step.name, target, late, dry_run=dry_run)
            continue
        missing = missing_ground(step, done)
        if missing:
            log.warning("%s skipped: %s", step.name, missing)
            done[step.name] = results.skipped(step.name, target, missing, dry_run=dry_run, blocked=True)
            continue
        begun = time.monotonic()
        try:
            done[step.name] = call(step, done).marked(dry_run)
        except Exception as exc:  # the next step must get its turn; the error is kept and decides the run
            log.log(
                logging.ERROR, "%s failed: %s", step.name, exc, exc_info=not isinstance(exc, StewardError)
            )
            seconds = time.monotonic() - begun
            done[step.name] = results.failure(step.name, target, exc, seconds, dry_run=dry_run)
    return NightResult(
        target=target,
        database=database,
        started_at=started_at,
        seconds=time.monotonic() - started,
        steps=tuple(done.values()),
        dry_run=dry_run,
    )


def missing_ground(step: NightStep, done: Mapping[str, StepResult]) -> str | None:
    """Return why a step can't run, or None.

    What it needs must have done its work, at least in part; a step that had nothing to do by the
    configuration is no obstacle, one that was itself kept from running is.
    """
    for name in step.needs:
        needed = done.get(name)
        if needed is not None and needed.details.get("databases"):
            continue  # of several databases: those that lack it are left out one by one
        if needed is None or needed.status == "failed":
            return f"{name} failed"
        if needed.blocked:
            return f"{name} was skipped: {needed.skipped[0].reason}"
    grounds = find_grounds(step.needs, done)
    if grounds is None:
        return None
    return next(iter(grounds.values()), None) if all(grounds.values()) else None


def run_nightly(
    target: Target, *, database: str | None = None, dry_run: bool = False, progress: Progress = silent
) -> NightResult:
    """Run the whole night of one target from a shell, without Prefect.

    Args:
        target: What to look after.
        database: Only this one of its databases.
        dry_run: Every step says what it would do and changes nothing.
        progress: Told which step is at work.
    """

    def call(step: NightStep, done: Mapping[str, StepResult]) -> StepResult:
        progress(step.name, len(done), len(NIGHT))
        options: dict[str, Any] = {"dry_run": dry_run} if step.has_dry_run else {}
        if step.name == "upload" and not target.has_several:
            options["backup_id"] = done["backup"].details.get("backup_id")
        operation = step.operation()
        return call_with_retries(
            over,
            target,
            step.name,
            lambda bound: operation(bound, **options),
            grounds=find_grounds(step.needs, done),
            side_by_side=step.function if step.name == "backup" and not dry_run else None,
        )

    if database is not None:
        target = bind_covered(target, database)
    return run_night(target.name, target.scope, call, started_at=datetime.now(UTC), dry_run=dry_run)


def newest_backup(target: Target) -> datetime | None:
    """Return when the newest complete backup of the target's database began, in any store that answers.

    Of several databases the one counts whose newest is the oldest; None where one has none, or nobody knows
    which databases there are.
    """
    from pgsteward.backup.listing import list_manifests
    from pgsteward.backup.newest import newest

    if target.has_several:
        try:
            names = find(target).names
        except StewardError as exc:
            log.warning("the databases of %s could not be asked for: %s", target.name, exc)
            return None
        each = [newest_backup(bind(target, name)) for name in names]
        return None if None in each else min((at for at in each if at is not None), default=None)
    found: list[Manifest] = []
    for store in target.stores():
        try:
            manifests, _ = list_manifests(store, target.name, target.database)
        except StewardError as exc:
            log.warning("store %s was not asked for its newest backup: %s", store.name, exc)
            continue
        found += manifests
    last = newest(found, datetime.now(UTC))
    return last.started_at if last is not None else None
