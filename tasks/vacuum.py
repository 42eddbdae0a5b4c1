"""VACUUM of the tables that were cleaned."""

from __future__ import annotations

from datetime import timedelta

from pgsteward import vacuum
from pgsteward.results import StepResult
from pgsteward.targets import load_target
from tasks import maintenance_task


@maintenance_task("vacuum", timeout=timedelta(hours=6))
def vacuum_tables(target: str, dry_run: bool = False) -> StepResult:
    """VACUUM the configured session tables, their indexes included."""
    return vacuum.vacuum_tables(load_target(target), dry_run=dry_run)
