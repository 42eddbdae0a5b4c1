"""Retention: which backups are kept."""

from __future__ import annotations

from datetime import timedelta

from pgsteward import retention
from pgsteward.results import StepResult
from pgsteward.targets import load_target
from tasks import maintenance_task


@maintenance_task("prune", timeout=timedelta(hours=2))
def prune(target: str, dry_run: bool = False) -> StepResult:
    """Delete the backups that the policy no longer keeps."""
    return retention.prune(load_target(target), dry_run=dry_run)
