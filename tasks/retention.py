"""Retention: which backups are kept."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from pgsteward import retention
from pgsteward.errors import ConfigError
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
    yes_remove: int = 0,
) -> StepResult:
    """Delete the backups that the policy no longer keeps."""
    loaded = load_target(target)
    if yes_remove and database is None and loaded.has_several:
        raise ConfigError(f"target {target!r} has several databases; say which one yes_remove is about")
    return over(
        loaded,
        "prune",
        lambda bound: retention.prune(bound, dry_run=dry_run, yes_remove=yes_remove or None),
        database=database,
        grounds=grounds,
    )
