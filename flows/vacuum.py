"""VACUUM of the configured session tables."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from flows.conclusion import run_steps
from tasks.vacuum import vacuum_tables


@flow(name="vacuum", flow_run_name="vacuum-{target}")
def vacuum(target: str = "app", dry_run: bool = False, database: str = "") -> State[Any]:
    """VACUUM the configured session tables, so that their space can be used again and bloat can be measured.

    - **Does**: `VACUUM (INDEX_CLEANUP ON)`; never FULL.
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
