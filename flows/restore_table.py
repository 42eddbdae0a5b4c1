"""One table of a backup beside the live one."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from flows.conclusion import run_steps
from tasks.restore_table import bring_table


@flow(name="restore-table", flow_run_name="restore-table-{target}-{table}")
def restore_table(
    target: str = "app",
    table: str = "",
    what: str = "latest",
    store: str = "",
    key: str = "",
    rows: int = 10,
    dry_run: bool = False,
    database: str = "",
    as_of: str = "",
) -> State[Any]:
    """Bring a table of a backup beside the live one, and show what has changed since.

    - **Does**: restores the table into a scratch database, compares it with the proof, copies its rows into a
      schema of their own in the live database, and compares them with the live table: rows removed, added,
      changed. The report has the SQL that would merge them back; nothing of it is run.
    - **Locks**: none; the live table is only read.
    - **Cancel**: any time; nothing is left.
    - **Undo**: drop the side schema, as the report says; the janitor does it after `keep_side_tables_days`.

    Args:
        target: Name of an entry under [targets] in pgsteward.toml, never a connection string.
        table: The table, such as public.orders; quotes keep capitals.
        what: `latest`, `latest-proven`, or the id of a backup such as 20261123T020000Z-7f3a9c.
        store: Take the backup from this store of the target; the first one that has it when empty.
        key: Columns that tell rows apart, with commas between them; the table's own key when empty.
        rows: How many rows of each kind the report lists; it is kept, and they are the table's own data.
        dry_run: Check the backup, the server and the tables, and bring nothing.
        database: Whose table, where the target has several: asked for with `latest`; an id tells it.
        as_of: The newest backup of this moment or before, such as 2026-11-20T03:00Z; without an offset in the
            time_zone of the target's retention, which is UTC by default.
    """
    return run_steps(
        target,
        database,
        {
            "restore-table": lambda: bring_table(
                target,
                table,
                what,
                store=store or None,
                as_of=as_of or None,
                key=key,
                rows=rows,
                database=database or None,
                dry_run=dry_run,
            )
        },
        dry_run=dry_run,
    )
