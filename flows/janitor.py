"""Janitor: remove what a killed run left behind."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from flows.conclusion import run_steps
from tasks.janitor import clean_up


@flow(name="janitor", flow_run_name="janitor-{target}")
def janitor(target: str = "app", dry_run: bool = False, database: str = "") -> State[Any]:
    """Remove what an earlier run left behind when it was killed.

    - **Does**: removes half backups, aborted uploads, scratch databases and invalid `_ccnew` indexes that
      carry our own mark, and only when the run that made them is dead.
    - **Locks**: the backup's advisory lock; a leftover index is dropped CONCURRENTLY with a short timeout.
    - **Cancel**: any time; the next run goes on.
    - **Undo**: none needed, nothing that anybody can use is removed.

    Args:
        target: Name of an entry under [targets] in pgsteward.toml, never a connection string.
        dry_run: Say what would be done, by the same code, and change nothing.
        database: Only this one, where the target has several; all of them when empty.
    """
    return run_steps(
        target,
        database,
        {"janitor": lambda: clean_up(target, dry_run, database=database or None)},
        dry_run=dry_run,
    )
