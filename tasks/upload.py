"""Upload: the newest backup into every other store."""

from __future__ import annotations

from datetime import timedelta

from pgsteward.backup import upload
from pgsteward.results import StepResult
from pgsteward.targets import load_target
from tasks import maintenance_task
from tasks.progress import shown_progress


@maintenance_task("upload", timeout=timedelta(hours=12))
def upload_backup(target: str, backup_id: str | None = None, dry_run: bool = False) -> StepResult:
    """Copy a backup to the target's other stores and read it back."""
    with shown_progress("upload", target) as progress:
        return upload.upload(load_target(target), backup_id=backup_id, dry_run=dry_run, progress=progress)
