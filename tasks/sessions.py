"""Sessions: rows that have expired."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from pgsteward import sessions
from pgsteward.results import StepResult
from pgsteward.several import over
from pgsteward.targets import load_target
from tasks import maintenance_task
from tasks.progress import shown_progress


@maintenance_task("sessions", timeout=timedelta(hours=4))
def clean_sessions(
    target: str,
    dry_run: bool = False,
    database: str | None = None,
    grounds: Mapping[str, str] | None = None,
    yes: bool = False,
) -> StepResult:
    """Delete expired rows of the configured tables."""
    with shown_progress("sessions", target) as progress:
        return over(
            load_target(target),
            "sessions",
            lambda bound: sessions.clean_sessions(bound, yes=yes, dry_run=dry_run, progress=progress),
            database=database,
            grounds=grounds,
            progress=progress,
        )
