"""ANALYZE of what is stale."""

from __future__ import annotations

from datetime import timedelta

from pgsteward import analyze
from pgsteward.results import StepResult
from pgsteward.targets import load_target
from tasks import maintenance_task


@maintenance_task("analyze", timeout=timedelta(hours=4))
def analyze_stale(target: str, dry_run: bool = False) -> StepResult:
    """ANALYZE the tables whose statistics are stale or missing."""
    return analyze.analyze_stale(load_target(target), dry_run=dry_run)
