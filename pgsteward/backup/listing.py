"""What one store holds of one database: the lowest stone of catalog, retention and restore.

Only folders whose whole name is a backup id, directly below the catalog of exactly this target and
database, with a manifest that can be read: nothing else is a backup.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from pgsteward.backup.manifest import (
    BACKUP_ID,
    MANIFEST,
    Manifest,
    StoredFile,
    backup_prefix,
    catalog_prefix,
)
from pgsteward.backup.newest import order
from pgsteward.errors import (
    DamagedBackup,
    ObjectArchived,
    PreconditionError,
    StewardError,
    VerificationFailed,
)
from pgsteward.results import Note
from pgsteward.storage import Store


def list_manifests(store: Store, target_name: str, database: str) -> tuple[list[Manifest], list[Note]]:
    """Return the complete backups of one database in one store.

    Args:
        store: Where to look.
        target_name: Name of the target.
        database: Name of the database.

    Returns:
        The manifests, newest first, and a note for every damaged one, and every one in an archive: such a
        backup is *unknown*, is never restored as ``latest``, and nobody deletes it.

    Raises:
        StoreUnavailable: The store can't be asked now.
        StoreFailed: The store refuses.
    """
    manifests: list[Manifest] = []
    damaged: list[Note] = []
    for folder in store.folders(catalog_prefix(target_name, database)):
        if not BACKUP_ID.fullmatch(folder):
            continue
        try:
            manifests.append(read_manifest(store, target_name, database, folder))
        except FileNotFoundError:
            continue  # not complete: a running backup, or the rest of a dead one
        except (VerificationFailed, ObjectArchived) as exc:
            damaged.append(Note(folder, str(exc)))
    return sorted(manifests, key=order, reverse=True), damaged


def missing_file(files: Sequence[StoredFile], sizes: Mapping[str, int]) -> str | None:
    """Say which file of a backup is not listed in the size that was written; None when all are.

    Args:
        files: What its manifest names.
        sizes: What the store lists: bytes by path below the backup's folder.
    """
    for file in files:
        size = sizes.get(file.path)
        if size is None:
            return f"{file.path} is missing"
        if size != file.size_bytes:
            return f"{file.path} has {size} bytes, the manifest says {file.size_bytes}"
    return None


def read_manifest(store: Store, target_name: str, database: str, backup_id: str) -> Manifest:
    """Return one backup's manifest.

    Raises:
        FileNotFoundError: There is no complete backup of this id.
        VerificationFailed: The manifest is damaged, or it is that of another backup.
    """
    data = store.get_bytes(backup_prefix(target_name, database, backup_id) + MANIFEST)
    return checked_manifest(data, store, target_name, database, backup_id)


def checked_manifest(data: bytes, store: Store, target_name: str, database: str, backup_id: str) -> Manifest:
    """Return the manifest that a store gave for one backup.

    Raises:
        VerificationFailed: It is damaged, or that of another backup.
    """
    where = f"{backup_prefix(target_name, database, backup_id)}{MANIFEST} in store {store.name!r}"
    manifest = Manifest.from_bytes(data, where)
    if (manifest.backup_id, manifest.database) != (backup_id, database):
        raise DamagedBackup(
            f"{where} is damaged: it says that it belongs to backup {manifest.backup_id} of database"
            f" {manifest.database!r}"
        )
    return manifest


def is_there(store: Store, key: str) -> bool:
    """Tell whether there is an object, which a listing may not show yet; its first bytes are read."""
    try:
        next(store.read(key), b"")
    except FileNotFoundError:
        return False
    return True


def refuse_removed(store: Store, target_name: str, manifest: Manifest) -> None:
    """Make sure that a backup of which something is missing or wrong was not removed while it was read.

    Raises:
        PreconditionError: It was, as by a prune on another machine: that is no damage.
    """
    key = backup_prefix(target_name, manifest.database, manifest.backup_id) + MANIFEST
    try:
        if is_there(store, key):
            return
    except StewardError:  # it can't be asked now: what was found before counts
        return
    raise PreconditionError(
        f"backup {manifest.backup_id} was removed from store {store.name!r} while it was read, as prune does"
        " where no rule keeps it: take another one"
    )


def problem_of(store: Store, prefix: str, file: StoredFile) -> str | None:
    """Read one stored file and return what is wrong with it, or None."""
    digest = hashlib.sha256()
    size = 0
    try:
        for chunk in store.read(prefix + file.path):
            digest.update(chunk)
            size += len(chunk)
    except FileNotFoundError:
        return "is missing"
    if size != file.size_bytes:
        return f"has {size} bytes, {file.size_bytes} were written"
    if digest.hexdigest() != file.sha256:
        return "is not what was written: its SHA-256 differs"
    return None
