"""A drill of each of a target's databases that have backups, or of the one that is meant."""

from __future__ import annotations

from dataclasses import replace

from pgsteward import results
from pgsteward.databases import locate
from pgsteward.progress import Progress, silent
from pgsteward.restore.choice import WORDS
from pgsteward.restore.drill import STEP, drill
from pgsteward.results import StepResult
from pgsteward.several import over_stored
from pgsteward.targets import Target


def drill_each(
    target: Target,
    what: str = "latest",
    *,
    database: str | None = None,
    store: str | None = None,
    on_server: bool = False,
    jobs: int | None = None,
    progress: Progress = silent,
) -> StepResult:
    """Drill one backup, or that of each database; one that is red makes all of it failed.

    Args:
        target: Whose backups.
        what: ``latest``, ``latest-proven`` or a backup id.
        database: Only this one of its databases.
        store: See `pgsteward.restore.drill.drill`, as for the others.
        on_server: See there.
        jobs: See there.
        progress: Is told what happens.
    """

    def one(bound: Target) -> StepResult:
        return drill(bound, what, store=store, on_server=on_server, jobs=jobs, progress=progress)

    if what in WORDS:
        result = over_stored(target, STEP, one, database=database, only_stored=True)
    else:
        result = one(locate(target, what, database=database, store=store))
    return replace(result, status="failed") if result.failed else result


def drill_in_night(target: Target, *, dry_run: bool = False, progress: Progress = silent) -> StepResult:
    """Drill the newest backup where ``drill.when`` is ``always``; the deployment ``drill`` does it weekly."""
    if target.settings.drill.when != "always":
        why = "not every night (drill.when = weekly); the deployment drill, or `pgsteward drill`, does it"
        return results.skipped(STEP, target.name, why, dry_run=dry_run)
    if dry_run:
        return results.skipped(STEP, target.name, "a drill has no dry run", dry_run=True)
    return drill(target, progress=progress)
