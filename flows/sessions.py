"""Sessions: delete rows that have expired."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from flows.conclusion import run_steps
from tasks.sessions import clean_sessions


@flow(name="sessions", flow_run_name="sessions-{target}")
def sessions(target: str = "app", dry_run: bool = False, database: str = "", yes: bool = False) -> State[Any]:
    """Delete the expired rows of the configured session tables.

    - **Does**: walks each table in small ranges of its heap, one short transaction each; a row that was
      refreshed meanwhile survives. Pauses while somebody waits for it, or a replica is behind.
    - **Locks**: row locks on the expired rows of one range at a time.
    - **Cancel**: any time; the ranges already done stay deleted.
    - **Undo**: **none, expired rows are gone** (they are in the backups).

    Args:
        target: Name of an entry under [targets] in pgsteward.toml, never a connection string.
        dry_run: Say what would be done, by the same code, and change nothing.
        database: Only this one, where the target has several; all of them when empty.
        yes: Also where more than `max_share` of a table would go.
    """
    return run_steps(
        target,
        database,
        {"sessions": lambda: clean_sessions(target, dry_run, database=database or None, yes=yes)},
        dry_run=dry_run,
    )
