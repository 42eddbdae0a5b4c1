"""VACUUM of what was cleaned, what is old, and what is full of dead rows."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from pgsteward import vacuum
from pgsteward.results import StepResult
from pgsteward.several import over
from pgsteward.targets import load_target
from tasks import maintenance_task
from tasks.progress import shown_progress


@maintenance_task("vacuum", timeout=timedelta(hours=6))
def vacuum_tables(
    target: str,
    dry_run: bool = False,
    database: str | None = None,
    grounds: Mapping[str, str] | None = None,
) -> StepResult:
    """VACUUM what needs it, the oldest first."""
    with shown_progress("vacuum", target) as progress:
        return over(
            load_target(target),
            "vacuum",
            lambda bound: vacuum.vacuum_tables(bound, dry_run=dry_run, progress=progress),
            database=database,
            grounds=grounds,
            progress=progress,
        )
