"""Index bloat: how much space indexes waste."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from pgsteward import index_bloat
from pgsteward.results import StepResult
from pgsteward.several import over
from pgsteward.targets import load_target
from tasks import maintenance_task
from tasks.progress import shown_progress


@maintenance_task("bloat", timeout=timedelta(hours=2))
def detect(
    target: str,
    database: str | None = None,
    grounds: Mapping[str, str] | None = None,
) -> StepResult:
    """Measure the indexes and tables of one database; changes nothing."""
    with shown_progress("bloat", target) as progress:
        return over(
            load_target(target),
            "bloat",
            lambda bound: index_bloat.detect(bound, progress=progress),
            database=database,
            grounds=grounds,
            progress=progress,
        )
