"""Upload: the newest backup into every other store."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from pgsteward.backup import upload
from pgsteward.databases import locate
from pgsteward.results import StepResult
from pgsteward.several import over
from pgsteward.targets import load_target
from tasks import maintenance_task
from tasks.progress import shown_progress


@maintenance_task("upload", timeout=timedelta(hours=12))
def upload_backup(
    target: str,
    backup_id: str | None = None,
    dry_run: bool = False,
    database: str | None = None,
    grounds: Mapping[str, str] | None = None,
) -> StepResult:
    """Copy a backup to the target's other stores and read it back."""
    with shown_progress("upload", target) as progress:
        chosen = load_target(target)
        if backup_id is not None and backup_id != "latest":
            chosen = locate(chosen, backup_id, database=database)
            return upload.upload(chosen, backup_id=backup_id, dry_run=dry_run, progress=progress)
        return over(
            chosen,
            "upload",
            lambda bound: upload.upload(bound, dry_run=dry_run, progress=progress),
            database=database,
            grounds=grounds,
            progress=progress,
        )
