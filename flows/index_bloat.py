"""Index bloat: measure, change nothing."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from flows.conclusion import run_steps
from tasks.index_bloat import detect


@flow(name="bloat", flow_run_name="bloat-{target}")
def bloat(target: str = "app", database: str = "") -> State[Any]:
    """Measure how much space the indexes of one database waste.

    - **Does**: reads the indexes with `pgstatindex`; an index that can't be measured is listed as unknown.
    - **Locks**: ACCESS SHARE on one index at a time.
    - **Cancel**: any time.
    - **Undo**: nothing is changed.

    Args:
        target: Name of an entry under [targets] in pgsteward.toml, never a connection string.
        database: Only this one, where the target has several; all of them when empty.
    """
    return run_steps(target, database, {"bloat": lambda: detect(target, database=database or None)})
