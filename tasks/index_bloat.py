"""Index bloat: how much space indexes waste."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from pgsteward import index_bloat
from pgsteward.results import StepResult
from pgsteward.several import over
from pgsteward.targets import load_target
from tasks import maintenance_task


@maintenance_task("bloat", timeout=timedelta(hours=2))
def detect(
    target: str,
    database: str | None = None,
    grounds: Mapping[str, str] | None = None,
) -> StepResult:
    """Measure the indexes of one database; changes nothing."""
    return over(load_target(target), "bloat", index_bloat.detect, database=database, grounds=grounds)
