"""VACUUM of what was cleaned, what is old, and what is full of dead rows."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from flows.conclusion import run_steps
from tasks.vacuum import vacuum_tables


@flow(name="vacuum", flow_run_name="vacuum-{target}")
def vacuum(target: str = "app", dry_run: bool = False, database: str = "") -> State[Any]:
    """VACUUM the configured session tables, and whatever grows too old or is full of dead rows.

    - **Does**: `VACUUM`, the oldest tables first; never FULL. Names who keeps dead rows from going.
    - **Locks**: SHARE UPDATE EXCLUSIVE on one table at a time: reading and writing go on, DDL waits.
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
        {"vacuum": lambda: vacuum_tables(target, dry_run, database=database or None)},
        dry_run=dry_run,
    )
