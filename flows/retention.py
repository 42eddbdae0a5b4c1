"""Retention: delete the backups that the policy no longer keeps."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from flows.conclusion import run_steps
from tasks.retention import prune as prune_backups


@flow(name="prune", flow_run_name="prune-{target}")
def prune(target: str = "app", dry_run: bool = False, database: str = "", yes_remove: int = 0) -> State[Any]:
    """Delete the backups that the retention policy no longer keeps, in every store.

    - **Does**: ORs the keep rules, says why each kept backup is kept, never goes below `keep_min` and never
      removes the last proven backups. Where a receipt is red, or more than half of a store would go, it
      removes nothing and says what to answer: `pgsteward prune --clear-freeze` from a shell, or `yes_remove`.
    - **Locks**: the backup's advisory lock.
    - **Cancel**: any time; a backup goes manifest first, so no half backup is ever listed.
    - **Undo**: **none, a deleted backup is gone.** Try `dry_run` first.

    Args:
        target: Name of an entry under [targets] in pgsteward.toml, never a connection string.
        dry_run: Say what would be done, by the same code, and change nothing.
        database: Only this one, where the target has several; all of them when empty.
        yes_remove: Remove these many of one database, in all its stores, though they are more than half of
            one: exactly so many or none. 0 asks first.
    """
    return run_steps(
        target,
        database,
        {"prune": lambda: prune_backups(target, dry_run, database=database or None, yes_remove=yes_remove)},
        dry_run=dry_run,
    )
