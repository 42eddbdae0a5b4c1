"""Retention: which backups are kept."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from pgsteward import retention
from pgsteward.results import StepResult
from pgsteward.several import over
from pgsteward.targets import load_target
from tasks import maintenance_task


@maintenance_task("prune", timeout=timedelta(hours=2))
def prune(
    target: str,
    dry_run: bool = False,
    database: str | None = None,
    grounds: Mapping[str, str] | None = None,
) -> StepResult:
    """Delete the backups that the policy no longer keeps."""
    return over(
        load_target(target),
        "prune",
        lambda bound: retention.prune(bound, dry_run=dry_run),
        database=database,
        grounds=grounds,
    )
