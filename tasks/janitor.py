"""Janitor: what a killed run left behind."""

from __future__ import annotations

from datetime import timedelta

from pgsteward import janitor
from pgsteward.results import StepResult
from pgsteward.targets import load_target
from tasks import maintenance_task


@maintenance_task("janitor", timeout=timedelta(hours=1))
def clean_up(target: str, dry_run: bool = False) -> StepResult:
    """Remove what carries our mark and belongs to a run that is dead."""
    return janitor.clean_up(load_target(target), dry_run=dry_run)
