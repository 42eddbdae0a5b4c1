"""Reindex: rebuild what is bloated."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from pgsteward import reindex
from pgsteward.results import StepResult
from pgsteward.several import over
from pgsteward.targets import load_target
from tasks import maintenance_task
from tasks.progress import shown_progress


@maintenance_task("reindex", timeout=timedelta(hours=12))
def reindex_bloated(
    target: str,
    dry_run: bool = False,
    database: str | None = None,
    grounds: Mapping[str, str] | None = None,
) -> StepResult:
    """Rebuild bloated indexes CONCURRENTLY."""
    with shown_progress("reindex", target) as progress:
        return over(
            load_target(target),
            "reindex",
            lambda bound: reindex.reindex(bound, dry_run=dry_run, progress=progress),
            database=database,
            grounds=grounds,
            progress=progress,
        )
