"""Drill: is what lies in the store what was backed up?"""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from flows.conclusion import run_steps
from tasks.drill import drill_backup


@flow(name="drill", flow_run_name="drill-{target}")
def drill(
    target: str = "app",
    what: str = "latest",
    store: str = "",
    on_server: bool = False,
    database: str = "",
) -> State[Any]:
    """Restore a backup from its store into a throwaway server, compare everything, and keep a receipt.

    - **Does**: downloads, decrypts and restores the stored object into a PostgreSQL of the same major version
      that it starts on the worker's machine; compares every table, the schema and the indexes; asks the
      target's own checks. Green proves the backup; red freezes pruning; what could not be tried is unknown.
    - **Locks**: none. Nothing of production is touched; the server listens on a private socket.
    - **Cancel**: any time; the server and its folder are removed.
    - **Undo**: none is needed.

    Args:
        target: Name of an entry under [targets] in pgsteward.toml, never a connection string.
        what: `latest`, `latest-proven`, or the id of a backup such as 20261123T020000Z-7f3a9c.
        store: Take it from this store of the target; the first one that has the backup when empty.
        on_server: Restore into a scratch database on the server of the restore login instead.
        database: Whose backup, where the target has several; the newest of each when empty.
    """
    return run_steps(
        target,
        database,
        {
            "drill": lambda: drill_backup(
                target, what, store=store or None, on_server=on_server, database=database or None
            )
        },
    )
