"""Materialized views."""

from __future__ import annotations

from datetime import timedelta

from pgsteward import matviews
from pgsteward.results import StepResult
from pgsteward.targets import load_target
from tasks import maintenance_task


@maintenance_task("matviews", timeout=timedelta(hours=12))
def refresh(target: str, dry_run: bool = False) -> StepResult:
    """Refresh the materialized views in dependency order."""
    return matviews.refresh(load_target(target), dry_run=dry_run)
