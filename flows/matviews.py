"""Materialized views, in the order they read each other."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from flows.conclusion import run_steps
from tasks.matviews import refresh


@flow(name="matviews", flow_run_name="matviews-{target}")
def matviews(
    target: str = "app", dry_run: bool = False, database: str = "", everything: bool = False
) -> State[Any]:
    """Refresh the materialized views whose sources have changed, those that others read first.

    - **Does**: `REFRESH ... CONCURRENTLY` where a unique index allows it, else the plain form if
      `allow_exclusive` says so.
    - **Locks**: EXCLUSIVE with CONCURRENTLY (reading goes on), else ACCESS EXCLUSIVE on the one view.
    - **Cancel**: any time; the view keeps its old content.
    - **Undo**: none needed.

    Args:
        target: Name of an entry under [targets] in pgsteward.toml, never a connection string.
        dry_run: Say what would be done, by the same code, and change nothing.
        database: Only this one, where the target has several; all of them when empty.
        everything: Refresh those too whose sources have not changed.
    """
    return run_steps(
        target,
        database,
        {"matviews": lambda: refresh(target, dry_run, database=database or None, everything=everything)},
        dry_run=dry_run,
    )
