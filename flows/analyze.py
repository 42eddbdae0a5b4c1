"""ANALYZE of what is stale."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from flows.conclusion import run_steps
from tasks.analyze import analyze_stale


@flow(name="analyze", flow_run_name="analyze-{target}")
def analyze(target: str = "app", dry_run: bool = False, database: str = "") -> State[Any]:
    """ANALYZE the tables whose statistics are stale or missing, partitioned parents included.

    - **Does**: compares the counters with autovacuum's own threshold; a table that we have no right to
      analyze is reported, not called ok.
    - **Locks**: SHARE UPDATE EXCLUSIVE on one table at a time: reading and writing go on.
    - **Cancel**: any time.
    - **Undo**: none needed.

    Args:
        target: Name of an entry under [targets] in pgsteward.toml, never a connection string.
        dry_run: Say what would be done, by the same code, and change nothing.
        database: Only this one, where the target has several; all of them when empty.
    """
    return run_steps(
        target,
        database,
        {"analyze": lambda: analyze_stale(target, dry_run, database=database or None)},
        dry_run=dry_run,
    )
