"""The forms of a backup's archive: a folder in the store, a stream into it, each clear or encrypted."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pgsteward.backup.archive import Contents
from pgsteward.backup.destination import FolderDestination
from pgsteward.backup.encryption import Recipients
from pgsteward.backup.files import BackupFiles
from pgsteward.backup.folder_hashes import FolderHashes
from pgsteward.backup.globals_sql import DATABASE, compress
from pgsteward.backup.home import folder_of
from pgsteward.backup.manifest import DUMP, STREAM, Encryption
from pgsteward.backup.plan import Plan
from pgsteward.backup.snapshot_dump import Dumped, dump_and_prove
from pgsteward.backup.stream_dump import ArchiveHead, StreamDestination
from pgsteward.errors import PreconditionError, StoreFailed
from pgsteward.progress import Progress
from pgsteward.report.units import humanize_bytes
from pgsteward.spool import clear_root, private_folder, refuse_disk, remember_root
from pgsteward.storage.early import written_early

log = logging.getLogger(__name__)


def described(plan: Plan, recipients: Recipients | None) -> Encryption | None:
    """Return what the manifest says about encryption."""
    if recipients is None:
        return None
    settings = plan.target.settings.backup
    clear: Literal["nowhere", "tmpfs", "disk"] = "nowhere"
    if settings.form == "directory":
        clear = "tmpfs" if settings.spool is not None else "disk"
    return Encryption(recipients=recipients.texts, clear_files=clear)


def refuse_small_spool(plan: Plan, recipients: Recipients | None) -> None:
    """Make sure that the clear files of an encrypted backup have their place.

    Raises:
        PreconditionError: It is not in memory although it should be, or too small.
    """
    settings = plan.target.settings.backup
    if recipients is None or settings.form == "stream":
        return
    if settings.spool is not None:
        refuse_disk(Path(settings.spool))
    root = clear_root(settings)
    there = next(place for place in (root, *root.parents) if place.exists())
    free, needed = shutil.disk_usage(there).free, plan.room.needed_bytes
    if free < needed:
        said = (
            f"{there} has {humanize_bytes(free)} free, and the clear dump may need {humanize_bytes(needed)}"
            ' before it is encrypted; give it more room, or use mode = "stream", which needs none'
        )
        if settings.disk_check and not plan.room.is_guess:
            raise PreconditionError(f"{said}; disk_check = false makes this a warning")
        log.warning("%s", said)


def make_archive(plan: Plan, files: BackupFiles, prefix: str, progress: Progress) -> Dumped:
    """Dump in the form that the target wants, and store and hash all its files.

    Raises:
        StewardError: See `dump_and_prove`; nothing of the archive is published then.
    """
    try:
        return _make_archive(plan, files, prefix, progress)
    except OSError as exc:
        raise StoreFailed(
            f"a file of the unfinished backup is out of reach: {exc}; look after the disk or mount that it is"
            " on, and run the backup again"
        ) from exc


def _make_archive(plan: Plan, files: BackupFiles, prefix: str, progress: Progress) -> Dumped:
    if plan.target.settings.backup.form == "stream":
        with (
            ArchiveHead(plan.client) as head,
            files.writing(STREAM, int(plan.server["database_bytes"])) as sink,
        ):
            dumped = _dump(plan, files, StreamDestination(sink, files.recipients, head), progress)
            head.end()
            return dumped
    if files.recipients is None:
        folder = folder_of(plan.home, prefix)
        with FolderHashes(folder / DUMP) as hashes, written_early(folder / DUMP):

            def adopt(still_wanted: Callable[[], None]) -> None:
                files.adopt(folder, hashes, still_wanted)

            return _dump(plan, files, FolderDestination(folder / DUMP), progress, adopt)
    run_id = prefix.rstrip("/").rpartition("/")[2]
    root = clear_root(plan.target.settings.backup)
    remember_root(root)
    with private_folder(root, run_id) as spool:
        dumped = _dump(plan, files, FolderDestination(spool / DUMP), progress)
        began = time.monotonic()
        paths = sorted((spool / DUMP).iterdir())
        for number, path in enumerate(paths):
            progress(f"encrypting {path.name}", number, len(paths))
            files.take(f"{DUMP}/{path.name}", path)
        seconds = {**dumped.seconds, "encrypt": round(time.monotonic() - began, 3)}
        return replace(dumped, seconds=seconds)


def _dump(
    plan: Plan,
    files: BackupFiles,
    into: FolderDestination | StreamDestination,
    progress: Progress,
    when_dumped: Callable[[Callable[[], None]], None] | None = None,
) -> Dumped:
    def keep(contents: Contents) -> None:
        files.put_beside(DATABASE, compress(contents.database_sql))

    return dump_and_prove(
        plan.client,
        plan.login,
        plan.target.settings.backup,
        plan.compress,
        into,
        progress,
        jobs=plan.jobs,
        encoding=plan.server["encoding"],
        when_read=keep,
        when_dumped=when_dumped,
    )
