"""ANALYZE of what is stale."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from pgsteward import analyze
from pgsteward.results import StepResult
from pgsteward.several import over
from pgsteward.targets import load_target
from tasks import maintenance_task
from tasks.progress import shown_progress


@maintenance_task("analyze", timeout=timedelta(hours=4))
def analyze_stale(
    target: str,
    dry_run: bool = False,
    database: str | None = None,
    grounds: Mapping[str, str] | None = None,
) -> StepResult:
    """ANALYZE the tables whose statistics are stale or missing."""
    with shown_progress("analyze", target) as progress:
        return over(
            load_target(target),
            "analyze",
            lambda bound: analyze.analyze_stale(bound, dry_run=dry_run, progress=progress),
            database=database,
            grounds=grounds,
        )
