"""Find a backup, and bring its files here with every byte checked on the way.

A folder store's files are used where they are; those of other stores come into a private spool folder, which
carries a lock of its run: a spool whose lock is free belongs to a dead run and is removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue

from pgsteward.backup.home import has_spool, home_store
from pgsteward.backup.listing import list_manifests, read_manifest
from pgsteward.backup.manifest import BACKUP_ID, Manifest, StoredFile, backup_prefix
from pgsteward.config import state_folder
from pgsteward.errors import (
    PreconditionError,
    StewardError,
    StoreFailed,
    StoreUnavailable,
    VerificationFailed,
)
from pgsteward.progress import Progress, silent
from pgsteward.results import Note
from pgsteward.storage import Store
from pgsteward.targets import Target

WORKERS = 4
GRACE_S = 2.0
"""How long a reader may take to notice that it is not wanted any more."""
ARCHIVE = "dump/"
"""Where the archive lies below a backup's folder: all that pg_restore looks at."""
_LOCK = "in-use.lock"


@dataclass(frozen=True, slots=True)
class Found:
    """A backup, where it is, and what could not be looked at while it was searched for."""

    store: Store
    manifest: Manifest
    notes: tuple[Note, ...] = ()

    def prefix_in(self, target_name: str) -> str:
        """Return the key prefix of the backup in a target's catalog."""
        return backup_prefix(target_name, self.manifest.database, self.manifest.backup_id)


def find_backup(target: Target, what: str, store_name: str | None = None) -> Found:
    """Return the backup that is meant.

    Args:
        target: Whose.
        what: ``latest`` or a backup id.
        store_name: Look in this store only; None takes the first store that has it.

    Raises:
        PreconditionError: There is none, or `what` is neither.
        VerificationFailed: Its manifest is damaged.
        StoreUnavailable: Not found, and a store that may have it can't be asked.
    """
    if what != "latest" and not BACKUP_ID.fullmatch(what):
        raise PreconditionError(
            f"{what!r} is not a backup; write latest or an id as `pgsteward backups {target.name}` prints it"
        )
    if store_name is not None:
        stores = [target.store(store_name)]
    else:
        stores = target.stores()
        if has_spool(target):  # a backup that could not be uploaded yet lies there
            stores.append(home_store(target))
    candidates: list[Found] = []
    silent_stores: list[StewardError] = []
    notes: list[Note] = []
    for store in stores:
        try:
            found, damaged = _look(store, target, what)
        except (StoreUnavailable, StoreFailed) as exc:
            silent_stores.append(exc)
            notes.append(Note(f"store {store.name}", f"could not be asked: {exc}"))
            continue
        notes += damaged
        if found is not None:
            candidates.append(Found(store, found))
            if what != "latest":
                break
    if candidates:
        newest = max(candidates, key=lambda each: (each.manifest.started_at, each.manifest.backup_id))
        first = next(c for c in candidates if c.manifest.backup_id == newest.manifest.backup_id)
        return Found(first.store, first.manifest, tuple(notes))
    if silent_stores:
        raise silent_stores[0]
    where = " or ".join(store.name for store in stores)
    damage = f" ({notes[0].reason})" if notes else ""
    wanted = "no complete backup" if what == "latest" else f"no complete backup {what}"
    raise PreconditionError(f"there is {wanted} of {target.database!r} in {where}{damage}")


def _look(store: Store, target: Target, what: str) -> tuple[Manifest | None, list[Note]]:
    if what == "latest":
        manifests, damaged = list_manifests(store, target.name, target.database)
        return next(iter(manifests), None), damaged
    try:
        return read_manifest(store, target.name, target.database, what), []
    except FileNotFoundError:
        return None, []


def check_presence(store: Store, prefix: str, manifest: Manifest) -> None:
    """Look at the store's listing: every file is there and as large as the manifest says, and no other.

    A file too many in the archive's folder is not harmless: pg_restore takes an uncompressed ``4711.dat``
    before the ``4711.dat.zst`` that was checked.

    Raises:
        VerificationFailed: The text names the file.
    """
    there = {stored.key.removeprefix(prefix): stored.size_bytes for stored in store.objects(prefix)}
    for file in manifest.files:
        size = there.pop(file.path, None)
        if size is None:
            raise VerificationFailed(f"{_name(store, manifest, file.path)} is missing")
        if size != file.size_bytes:
            raise VerificationFailed(
                f"{_name(store, manifest, file.path)} has {size} bytes, the manifest says {file.size_bytes}"
            )
    extra = next((path for path in there if path.startswith(ARCHIVE)), None)
    if extra is not None:
        raise VerificationFailed(
            f"{_name(store, manifest, extra)} is not in the manifest, and pg_restore could read it in another"
            " file's place; move it out of the folder, or take another store"
        )


def fetch(
    store: Store,
    prefix: str,
    manifest: Manifest,
    files: Sequence[StoredFile],
    into: Path | None,
    progress: Progress = silent,
) -> None:
    """Read files from the store, check the SHA-256 of every byte, and keep them in a folder.

    Args:
        store: Where from.
        prefix: Key prefix of the backup.
        manifest: The backup's own.
        files: Which of them.
        into: Folder to keep them in; None only checks them.
        progress: Is told the bytes.

    Raises:
        VerificationFailed: A file is missing or differs; the text names it.
        PreconditionError: The disk of `into` is full.
    """
    total = sum(file.size_bytes for file in files)
    done = 0
    counting = threading.Lock()
    stop = threading.Event()

    def count(size: int) -> None:
        nonlocal done
        with counting:
            done += size
            progress("reading the backup", done, total)

    def one(file: StoredFile) -> None:
        for chunk in _checked(store, prefix, manifest, file, into, stop):
            count(chunk)

    largest_first = sorted(files, key=lambda file: file.size_bytes, reverse=True)
    _in_threads(one, largest_first, stop)


def _in_threads(
    work: Callable[[StoredFile], None], files: Sequence[StoredFile], stop: threading.Event
) -> None:
    """Work on the files in a few threads; the first error is raised.

    Being stopped does not wait for a store that has stopped answering: such a thread is left to itself.
    """
    todo: SimpleQueue[StoredFile] = SimpleQueue()
    for file in files:
        todo.put(file)
    ended: SimpleQueue[BaseException | None] = SimpleQueue()

    def run() -> None:
        try:
            while not stop.is_set():
                work(todo.get_nowait())
        except Empty:
            ended.put(None)
        except BaseException as exc:  # noqa: BLE001 - raised again where the threads are waited for
            ended.put(exc)
        else:
            ended.put(None)

    threads = [threading.Thread(target=run, name=f"fetch {n}", daemon=True) for n in range(WORKERS)]
    for thread in threads:
        thread.start()
    try:
        left = len(threads)
        while left:
            with contextlib.suppress(Empty):
                error = ended.get(timeout=0.2)
                if error is not None:
                    raise error
                left -= 1
    finally:
        stop.set()
        deadline = time.monotonic() + GRACE_S
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))


def _checked(
    store: Store,
    prefix: str,
    manifest: Manifest,
    file: StoredFile,
    into: Path | None,
    stop: threading.Event,
) -> Iterator[int]:
    digest = hashlib.sha256()
    size = 0
    with contextlib.ExitStack() as stack:
        out = None
        if into is not None:
            path = into / file.path
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            out = stack.enter_context(path.open("wb"))
        try:
            for chunk in store.read(prefix + file.path):
                if stop.is_set():
                    return
                digest.update(chunk)
                size += len(chunk)
                if out is not None:
                    _write(out.fileno(), chunk, into)
                yield len(chunk)
        except FileNotFoundError:
            raise VerificationFailed(f"{_name(store, manifest, file.path)} is missing") from None
    if (size, digest.hexdigest()) != (file.size_bytes, file.sha256):
        raise VerificationFailed(
            f"{_name(store, manifest, file.path)} is not what was written: {size} bytes with SHA-256"
            f" {digest.hexdigest()[:16]}..., the manifest says {file.size_bytes} and {file.sha256[:16]}...;"
            " take another backup or another store"
        )


def _write(descriptor: int, chunk: bytes, folder: Path | None) -> None:
    view = memoryview(chunk)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError as exc:
        raise PreconditionError(f"the spool folder {folder} can't take the backup: {exc.strerror}") from exc


def _name(store: Store, manifest: Manifest, path: str) -> str:
    return f"{path} of backup {manifest.backup_id} in store {store.name!r}"


def spool_root() -> Path:
    """Return the folder below which downloads of running restores lie."""
    return state_folder() / "restore"


@contextlib.contextmanager
def spool(run_id: str) -> Iterator[Path]:
    """Give a private folder for a download; it is gone afterwards, and locked until then."""
    root = spool_root()
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = root / run_id
    folder.mkdir(mode=0o700)
    with (folder / _LOCK).open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def remove_dead_spools(*, dry_run: bool = False) -> list[Path]:
    """Remove the spool folders whose run is dead (its lock is free) and return them."""
    removed = []
    root = spool_root()
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        try:
            with (folder / _LOCK).open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not dry_run:
                    shutil.rmtree(folder, ignore_errors=True)
        except (BlockingIOError, FileNotFoundError, NotADirectoryError):
            continue  # at work, or not ours
        removed.append(folder)
    return removed
