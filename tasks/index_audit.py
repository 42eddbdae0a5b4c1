"""Index audit: what the application relies on."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from pgsteward import index_audit
from pgsteward.results import StepResult
from pgsteward.several import over
from pgsteward.targets import load_target
from tasks import maintenance_task


@maintenance_task("indexes", timeout=timedelta(hours=1))
def audit(
    target: str,
    database: str | None = None,
    grounds: Mapping[str, str] | None = None,
) -> StepResult:
    """Look for required indexes that are missing and for invalid ones; changes nothing."""
    return over(load_target(target), "indexes", index_audit.audit, database=database, grounds=grounds)
