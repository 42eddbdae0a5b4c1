"""Index audit: what the application relies on."""

from __future__ import annotations

from datetime import timedelta

from pgsteward import index_audit
from pgsteward.results import StepResult
from pgsteward.targets import load_target
from tasks import maintenance_task


@maintenance_task("indexes", timeout=timedelta(hours=1))
def audit(target: str) -> StepResult:
    """Look for required indexes that are missing and for invalid ones; changes nothing."""
    return index_audit.audit(load_target(target))
