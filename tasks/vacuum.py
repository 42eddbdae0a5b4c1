"""VACUUM of the tables that were cleaned."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from pgsteward import vacuum
from pgsteward.results import StepResult
from pgsteward.several import over
from pgsteward.targets import load_target
from tasks import maintenance_task


@maintenance_task("vacuum", timeout=timedelta(hours=6))
def vacuum_tables(
    target: str,
    dry_run: bool = False,
    database: str | None = None,
    grounds: Mapping[str, str] | None = None,
) -> StepResult:
    """VACUUM the configured session tables, their indexes included."""
    return over(
        load_target(target),
        "vacuum",
        lambda bound: vacuum.vacuum_tables(bound, dry_run=dry_run),
        database=database,
        grounds=grounds,
    )
