"""Upload: a backup into every other store."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from flows.conclusion import run_steps
from tasks.upload import upload_backup


@flow(name="upload", flow_run_name="upload-{target}")
def upload(target: str = "app", dry_run: bool = False, backup_id: str = "", database: str = "") -> State[Any]:
    """Copy a backup to the target's other stores and read it back.

    - **Does**: uploads what is missing, compares SHA-256 of what arrived, writes the manifest last.
    - **Locks**: the backup's advisory lock.
    - **Cancel**: any time; parts without a manifest are never listed, and the next upload or the janitor
      clears them.
    - **Undo**: none needed.

    Args:
        target: Name of an entry under [targets] in pgsteward.toml, never a connection string.
        dry_run: Say what would be done, by the same code, and change nothing.
        backup_id: Which backup; the newest when empty or ``latest``.
        database: Only this one, where the target has several; all of them when empty.
    """
    return run_steps(
        target,
        database,
        {"upload": lambda: upload_backup(target, backup_id or None, dry_run, database=database or None)},
        dry_run=dry_run,
    )
