"""Index and table bloat: measure, change nothing."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from flows.conclusion import run_steps
from tasks.index_bloat import detect


@flow(name="bloat", flow_run_name="bloat-{target}")
def bloat(target: str = "app", database: str = "") -> State[Any]:
    """Measure how much space the indexes and tables of one database waste.

    - **Does**: reads indexes with `pgstatindex` and tables with `pgstattuple_approx`, as far as one run may;
      the next one carries on. What can't be measured is listed as unknown, or estimated and marked so.
    - **Locks**: ACCESS SHARE on one index or table at a time.
    - **Cancel**: any time.
    - **Undo**: nothing is changed.

    Args:
        target: Name of an entry under [targets] in pgsteward.toml, never a connection string.
        database: Only this one, where the target has several; all of them when empty.
    """
    return run_steps(target, database, {"bloat": lambda: detect(target, database=database or None)})
