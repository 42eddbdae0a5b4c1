"""Materialized views."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from pgsteward import matviews
from pgsteward.results import StepResult
from pgsteward.several import over
from pgsteward.targets import load_target
from tasks import maintenance_task
from tasks.progress import shown_progress


@maintenance_task("matviews", timeout=timedelta(hours=12))
def refresh(
    target: str,
    dry_run: bool = False,
    database: str | None = None,
    grounds: Mapping[str, str] | None = None,
    everything: bool = False,
) -> StepResult:
    """Refresh the materialized views whose sources have changed, in dependency order."""
    with shown_progress("matviews", target) as progress:
        return over(
            load_target(target),
            "matviews",
            lambda bound: matviews.refresh(bound, everything=everything, dry_run=dry_run, progress=progress),
            database=database,
            grounds=grounds,
        )
