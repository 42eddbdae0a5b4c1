"""Index bloat: how much space indexes waste."""

from __future__ import annotations

from datetime import timedelta

from pgsteward import index_bloat
from pgsteward.results import StepResult
from pgsteward.targets import load_target
from tasks import maintenance_task


@maintenance_task("bloat", timeout=timedelta(hours=2))
def detect(target: str) -> StepResult:
    """Measure the indexes of one database; changes nothing."""
    return index_bloat.detect(load_target(target))
