"""Back up and copy, as one operation: what a person means by "make a backup"."""

from __future__ import annotations

from dataclasses import replace

from pgsteward import results
from pgsteward.backup.dump import back_up
from pgsteward.backup.home import has_one_place
from pgsteward.errors import StewardError
from pgsteward.progress import Progress, silent
from pgsteward.results import Note, StepResult
from pgsteward.targets import Target


def back_up_everywhere(target: Target, *, dry_run: bool = False, progress: Progress = silent) -> StepResult:
    """Dump one database with its proof, and copy the backup to every store of the target.

    An upload that fails does not undo the dump: the backup is complete in its home store, the result is
    ``partial`` and names the store.

    Args:
        target: Whose database.
        dry_run: Check what can be checked, and dump nothing.
        progress: Is told what is going on.

    Raises:
        StewardError: The dump itself was refused or failed; see `pgsteward.backup.dump.back_up`.
    """
    dumped = back_up_to_send(target, dry_run=dry_run, progress=progress)
    if dry_run or has_one_place(target):
        return dumped
    from pgsteward.backup.upload import upload  # which takes long to load: pg_dump shall not wait for it

    backup_id = str(dumped.details["backup_id"])
    try:
        copied = upload(target, backup_id=backup_id, progress=progress)
    except StewardError as exc:
        copied = results.failure("upload", target.name, exc)
    stores = list(copied.details.get("stores", dumped.details["stores"]))
    return replace(
        dumped,
        status="partial" if copied.status == "failed" else results.worst([dumped.status, _ran(copied)]),
        changed=(*dumped.changed, *copied.changed),
        failed=(*dumped.failed, *_named(copied)),
        seconds=dumped.seconds + copied.seconds,
        summary=dumped.summary if copied.status == "skipped" else f"{dumped.summary}. {copied.summary}",
        details={**dumped.details, "stores": stores},
    )


def back_up_to_send(target: Target, *, dry_run: bool = False, progress: Progress = silent) -> StepResult:
    """Dump one database whose backup is uploaded next: files go up as soon as each is finished."""
    return back_up(target, dry_run=dry_run, progress=progress, send_ahead=True)


def _ran(copied: StepResult) -> results.Status:
    return "ok" if copied.status == "skipped" else copied.status


def _named(copied: StepResult) -> tuple[Note, ...]:
    return tuple(Note(f"upload to {note.object}", note.reason) for note in copied.failed)
