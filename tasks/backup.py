"""Backup: dump, proof, manifest."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from pgsteward.backup import run
from pgsteward.results import StepResult
from pgsteward.several import over
from pgsteward.targets import load_target
from tasks import maintenance_task
from tasks.progress import shown_progress


@maintenance_task("backup", timeout=timedelta(hours=12))
def back_up(
    target: str,
    dry_run: bool = False,
    database: str | None = None,
    grounds: Mapping[str, str] | None = None,
) -> StepResult:
    """Dump each database into the home store, with its proof."""
    with shown_progress("backup", target) as progress:
        return over(
            load_target(target),
            "backup",
            lambda bound: run.back_up_to_send(bound, dry_run=dry_run, progress=progress),
            database=database,
            grounds=grounds,
            side_by_side=None if dry_run else "pgsteward.backup.run:back_up_to_send",
            progress=progress,
        )
