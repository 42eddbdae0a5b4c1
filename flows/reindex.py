"""Reindex: rebuild what is bloated."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from flows.conclusion import run_steps
from tasks.reindex import reindex_bloated


@flow(name="reindex", flow_run_name="reindex-{target}")
def reindex(target: str = "app", dry_run: bool = False, database: str = "") -> State[Any]:
    """Measure afresh, plan, and rebuild the indexes that are over both thresholds and fit into the night.

    - **Does**: `REINDEX INDEX CONCURRENTLY`, one at a time on each table; a leftover of a failed rebuild is
      dropped.
    - **Locks**: SHARE UPDATE EXCLUSIVE on the table: reading and writing go on. It waits for transactions
      that are older than it.
    - **Cancel**: any time; the old index stays in use, the half-built one is removed now or by the next
      janitor.
    - **Undo**: none needed.

    Args:
        target: Name of an entry under [targets] in pgsteward.toml, never a connection string.
        dry_run: Say what would be done, by the same code, and change nothing.
        database: Only this one, where the target has several; all of them when empty.
    """
    return run_steps(
        target,
        database,
        {"reindex": lambda: reindex_bloated(target, dry_run, database=database or None)},
        dry_run=dry_run,
    )
