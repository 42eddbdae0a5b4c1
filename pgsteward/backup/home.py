"""The home store: where a backup is made, and from which every other store gets its copy."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from pgsteward.backup.manifest import MANIFEST, MARK, backup_prefix
from pgsteward.config import StoreConfig
from pgsteward.errors import StewardError, StoreFailed
from pgsteward.places import state_folder
from pgsteward.storage import Store, open_store
from pgsteward.storage.briefly import briefly
from pgsteward.targets import Target

log = logging.getLogger(__name__)

SPOOL = "spool"
"""Name of the folder store that a target without a ``file://`` store gets."""


def has_spool(target: Target) -> bool:
    """Tell whether backups of the target may wait in the spool; see `spool_store`."""
    return spool_store(target) is not None


def spool_store(target: Target) -> Store | None:
    """Return the spool of a target without a ``file://`` store: a stop on the way, emptied by the upload.

    A target whose backups are streamed has none, unless earlier backups wait there still.
    """
    if any(target.config.stores[name].scheme == "file" for name in target.settings.stores):
        return None
    spool = _spool()
    waits = target.settings.backup.form == "directory" or spool.folders(f"{target.name}/")
    return spool if waits else None


def has_one_place(target: Target) -> bool:
    """Tell whether backups of the target stay where they are made, in its only store."""
    return len(target.settings.stores) == 1 and not has_spool(target)


def home_store(target: Target) -> Store:
    """Return where new backups of the target are made.

    In directory mode that is its first ``file://`` store, or the spool where it has none; in stream mode its
    first store, whatever that is.
    """
    if target.settings.backup.form == "stream":
        return target.store(target.settings.stores[0])
    for name in target.settings.stores:
        if target.config.stores[name].scheme == "file":
            return target.store(name)
    return _spool()


def past_stores(target: Target, home: Store) -> list[Store]:
    """Return where earlier backups of the target are: not in the spool, which each upload empties."""
    if target.settings.backup.form == "directory" and has_spool(target):
        return target.stores()
    return [home]


def _spool() -> Store:
    return open_store(SPOOL, StoreConfig(url=f"file://{state_folder() / SPOOL}"))


def folder_of(store: Store, prefix: str) -> Path:
    """Return the local folder of a backup in the home store.

    Raises:
        StoreFailed: The store is not a file system of this machine.
    """
    folder = store.local_folder(prefix)
    if folder is None:
        raise StoreFailed(f"store {store.name!r} is no folder of this machine; a home store must be one")
    return folder


@contextmanager
def unfinished(store: Store, target_name: str, database: str, backup_id: str, mark: bytes) -> Iterator[str]:
    """Begin a backup with its mark; take the mark away at the end, or everything on failure.

    One that has its manifest stays when the run is told to stop: only another store was waited for.

    Args:
        store: The home store.
        target_name: Name of the target.
        database: Name of the database.
        backup_id: Id of the backup.
        mark: Says whose it is.

    Returns:
        The prefix of the backup's keys.
    """
    prefix = backup_prefix(target_name, database, backup_id)
    try:
        store.put_bytes(prefix + MARK, mark, passing=True)
        yield prefix
        unmark(store, prefix)
    except BaseException as exc:
        with contextlib.suppress(OSError, StewardError):  # what stays is marked, and the janitor's
            folder = store.local_folder(prefix)
            if folder is not None and not isinstance(exc, Exception) and (folder / MANIFEST).exists():
                unmark(store, prefix)
            elif folder is not None:
                discard(folder)
            elif isinstance(exc, Exception):
                discard_objects(store, prefix)
            else:  # told to stop
                briefly(lambda: discard_objects(store, prefix))
        raise


def unmark(store: Store, prefix: str) -> None:
    """Take the mark from a backup that has its manifest: where that fails, it is whole all the same."""
    try:
        store.delete(prefix + MARK)
    except StewardError as exc:
        log.warning("backup %s is complete, and its mark is left to the janitor: %s", prefix, exc)


def discard_objects(store: Store, prefix: str) -> None:
    """Remove a backup from a store that is no folder of this machine: the manifest first, the mark last."""
    store.delete(prefix + MANIFEST)
    for stored in list(store.objects(prefix)):
        if stored.key != prefix + MARK:
            store.delete(stored.key)
    store.delete(prefix + MARK)


def discard(folder: Path) -> None:
    """Remove a backup's folder: the manifest first, the mark last.

    Killed in between, what is left is never a backup with files missing, and says whose it is.
    """
    (folder / MANIFEST).unlink(missing_ok=True)
    for path in folder.iterdir():
        if path.name == MARK:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    shutil.rmtree(folder)


def mark(owner: Mapping[str, Any], backup_id: str, now: datetime) -> bytes:
    """Return the mark of unfinished work; it says whose, so that a janitor can tell if its run is dead."""
    return (
        json.dumps({**owner, "backup_id": backup_id, "started_at": now.isoformat()}, indent=1).encode()
        + b"\n"
    )
