"""Janitor: what a killed run left behind."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from pgsteward import janitor
from pgsteward.results import StepResult
from pgsteward.several import over
from pgsteward.targets import load_target
from tasks import maintenance_task


@maintenance_task("janitor", timeout=timedelta(hours=1))
def clean_up(
    target: str,
    dry_run: bool = False,
    database: str | None = None,
    grounds: Mapping[str, str] | None = None,
) -> StepResult:
    """Remove what carries our mark and belongs to a run that is dead."""
    return over(
        load_target(target),
        "janitor",
        lambda bound: janitor.clean_up(bound, dry_run=dry_run),
        database=database,
        grounds=grounds,
    )
