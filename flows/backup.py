"""Backup: dump, proof, manifest, and the copy in every store."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from flows.conclusion import run_steps
from pgsteward.results import StepResult
from pgsteward.several import find_grounds
from tasks.backup import back_up
from tasks.upload import upload_backup


@flow(name="backup", flow_run_name="backup-{target}")
def backup(target: str = "app", dry_run: bool = False, database: str = "") -> State[Any]:
    """Dump each database, with its proof, and copy the backups to every store of the target.

    - **Does**: `pg_dump` from an exported snapshot, counts and hashes every table in that same snapshot,
      writes the manifest last; then uploads and reads back.
    - **Locks**: ACCESS SHARE on every table (only DDL waits for it) and one advisory lock.
    - **Cancel**: any time; a backup without a manifest does not exist and the janitor removes it.
    - **Undo**: nothing is changed in the database.

    Args:
        target: Name of an entry under [targets] in pgsteward.toml, never a connection string.
        dry_run: Say what would be done, by the same code, and change nothing.
        database: Only this one, where the target has several; all of them when empty.
    """
    one = database or None
    done: dict[str, StepResult] = {}
    return run_steps(
        target,
        database,
        {
            "backup": lambda: done.setdefault("backup", back_up(target, dry_run, database=one)),
            "upload": lambda: upload_backup(
                target, dry_run=dry_run, database=one, grounds=find_grounds(("backup",), done)
            ),
        },
        dry_run=dry_run,
    )
