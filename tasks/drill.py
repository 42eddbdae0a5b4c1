"""Drill."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from pgsteward.restore import drills
from pgsteward.results import StepResult
from pgsteward.several import over
from pgsteward.targets import load_target
from tasks import maintenance_task
from tasks.progress import shown_progress


@maintenance_task("drill", retries=0, timeout=timedelta(hours=24))
def drill_backup(
    target: str,
    what: str = "latest",
    *,
    store: str | None = None,
    on_server: bool = False,
    database: str | None = None,
) -> StepResult:
    """Restore a backup into a throwaway server and compare it with its proof."""
    with shown_progress("drill", target) as progress:
        return drills.drill_each(
            load_target(target),
            what,
            database=database,
            store=store,
            on_server=on_server,
            progress=progress,
        )


@maintenance_task("drill", retries=0, timeout=timedelta(hours=24))
def drill_in_night(
    target: str,
    dry_run: bool = False,
    database: str | None = None,
    grounds: Mapping[str, str] | None = None,
) -> StepResult:
    """Drill the newest backup of each database, where that is wanted every night."""
    with shown_progress("drill", target) as progress:
        return over(
            load_target(target),
            "drill",
            lambda bound: drills.drill_in_night(bound, dry_run=dry_run, progress=progress),
            database=database,
            grounds=grounds,
        )
