"""Index audit: what the application relies on."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from pgsteward import index_audit
from pgsteward.results import StepResult
from pgsteward.several import over
from pgsteward.targets import load_target
from tasks import maintenance_task
from tasks.progress import shown_progress


@maintenance_task("indexes", timeout=timedelta(hours=12))
def audit(
    target: str,
    create: bool = False,
    dry_run: bool = False,
    database: str | None = None,
    grounds: Mapping[str, str] | None = None,
) -> StepResult:
    """Look at indexes, constraints and migrations; create required indexes only where that is asked for."""
    with shown_progress("indexes", target) as progress:
        return over(
            load_target(target),
            "indexes",
            lambda bound: index_audit.audit(bound, create=create, dry_run=dry_run, progress=progress),
            database=database,
            grounds=grounds,
            progress=progress,
        )
