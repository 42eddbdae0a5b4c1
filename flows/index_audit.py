"""Index audit: what is missing or invalid; changes nothing."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from flows.conclusion import run_steps
from tasks.index_audit import audit


@flow(name="indexes", flow_run_name="indexes-{target}")
def indexes(target: str = "app", database: str = "") -> State[Any]:
    """Look for the indexes that the application relies on, and for invalid ones.

    - **Does**: compares `index_audit.required` with the catalog; a missing index is reported, never
      created.
    - **Locks**: none but those of reading the catalogs.
    - **Cancel**: any time.
    - **Undo**: nothing is changed.

    Args:
        target: Name of an entry under [targets] in pgsteward.toml, never a connection string.
        database: Only this one, where the target has several; all of them when empty.
    """
    return run_steps(target, database, {"indexes": lambda: audit(target, database=database or None)})
