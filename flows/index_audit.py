"""Index audit: what is missing, broken, or there in vain."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from flows.conclusion import run_steps
from tasks.index_audit import audit


@flow(name="indexes", flow_run_name="indexes-{target}")
def indexes(
    target: str = "app", create: bool = False, dry_run: bool = False, database: str = ""
) -> State[Any]:
    """Look for what the application relies on, for what is broken, and for what is there in vain.

    - **Does**: compares `index_audit` with the catalogs: required indexes, constraints, migrations; names
      invalid, duplicate, redundant and unused indexes and foreign keys without one, each with its statements.
      With `create`, required indexes that are missing are made first, `CONCURRENTLY`.
    - **Locks**: none but those of reading the catalogs; SHARE UPDATE EXCLUSIVE while an index is made.
    - **Cancel**: any time; a half-built index is removed now or by the next run.
    - **Undo**: each finding has the statement.

    Args:
        target: Name of an entry under [targets] in pgsteward.toml, never a connection string.
        create: Make the required indexes that are missing.
        dry_run: With `create`: say what would be made, by the same code, and make nothing.
        database: Only this one, where the target has several; all of them when empty.
    """
    return run_steps(
        target,
        database,
        {"indexes": lambda: audit(target, create, dry_run, database=database or None)},
        dry_run=dry_run,
    )
