"""Backup: dump, proof, manifest."""

from __future__ import annotations

from datetime import timedelta

from pgsteward.backup import dump
from pgsteward.results import StepResult
from pgsteward.targets import load_target
from tasks import maintenance_task
from tasks.progress import shown_progress


@maintenance_task("backup", timeout=timedelta(hours=12))
def back_up(target: str, dry_run: bool = False) -> StepResult:
    """Dump one database into the home store, with its proof."""
    with shown_progress("backup", target) as progress:
        return dump.back_up(load_target(target), dry_run=dry_run, progress=progress)
