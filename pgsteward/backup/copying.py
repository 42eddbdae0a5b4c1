"""One backup into one more store: several files at the same time, each proven there, the manifest last."""

from __future__ import annotations

import hashlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pgsteward.backup import proven_ahead
from pgsteward.backup.home import mark, unmark
from pgsteward.backup.listing import problem_of
from pgsteward.backup.manifest import MANIFEST, MARK, Manifest, StoredFile, backup_prefix
from pgsteward.backup.marks import owner_of
from pgsteward.backup.published import refuse_gone
from pgsteward.errors import VerificationFailed
from pgsteward.postgres import Connection
from pgsteward.progress import Progress
from pgsteward.results import Item
from pgsteward.storage import Store
from pgsteward.targets import Target

_POLL_S = 0.2
_LEAVE_S = 2.0
"""How long requests on their way are waited for when the run is cancelled."""


def upload_jobs(target: Target, store: Store) -> int:
    """Return how many files go into a store at the same time."""
    config = target.config.stores.get(store.name)
    return config.upload_jobs if config is not None else 1


def copy_backup(
    target: Target, source: Store, store: Store, manifest: Manifest, lock: Connection, progress: Progress
) -> Item:
    """Copy one backup into one store; what is there already and right is not sent again.

    Args:
        target: Whose backup.
        source: Has it.
        store: Gets it.
        manifest: Its manifest.
        lock: Holds the ``backup`` lock.
        progress: Is told every file.

    Raises:
        VerificationFailed: A file is damaged in the source, or not in the store what was sent.
        StoreFailed: A store refuses.
        StoreUnavailable: May heal; what has arrived stays, and the next run goes on from there.
    """
    began = time.monotonic()
    prefix = backup_prefix(target.name, target.database, manifest.backup_id)
    ours = mark(owner_of(lock), manifest.backup_id, manifest.started_at)
    store.put_bytes(prefix + MARK, ours, passing=True)
    sizes = proven_ahead.take_sizes(store, prefix) or _listed(store, prefix)
    sent: list[int] = []
    done: list[int] = []

    def copy_one(file: StoredFile) -> None:
        sent.append(_copy_file(source, store, prefix, file, there_bytes=sizes.get(file.path)))

    def copied(file: StoredFile) -> None:
        done.append(file.size_bytes)
        progress(f"uploading to {store.name}", sum(done), manifest.size_bytes)

    progress(f"uploading to {store.name}", 0, manifest.size_bytes)
    at_the_same_time(manifest.files, copy_one, upload_jobs(target, store), copied)
    lock.execute("SELECT 1")  # raises when the lock is gone: a janitor may have removed what we copied
    first = min(manifest.files, key=lambda file: file.path)  # a janitor begins with it; listing may be dear
    refuse_gone(store, prefix, ours, problem_of(store, prefix, first))
    data = manifest.to_bytes()
    store.put_bytes(prefix + MANIFEST, data)
    if store.get_bytes(prefix + MANIFEST) != data:
        store.delete(prefix + MANIFEST)
        raise VerificationFailed(f"{store.name} answers with another manifest than it was given; removed it")
    unmark(store, prefix)
    facts = {
        "files": len(manifest.files),
        "bytes": manifest.size_bytes,
        "bytes_sent": sum(sent),
        "seconds": round(time.monotonic() - began, 3),
    }
    return Item(f"{manifest.backup_id} to {store.name}", "uploaded", facts)


def _listed(store: Store, prefix: str) -> dict[str, int]:
    return {stored.key.removeprefix(prefix): stored.size_bytes for stored in store.objects(prefix)}


def at_the_same_time(
    files: Sequence[StoredFile],
    work: Callable[[StoredFile], None],
    jobs: int,
    done: Callable[[StoredFile], None],
) -> None:
    """Do something with each file, some at the same time; the first error ends it once the others have ended.

    Args:
        files: The largest come first.
        work: Called in threads.
        jobs: How many at the same time.
        done: Called for each file here, in the caller's own thread.
    """
    waiting: queue.Queue[StoredFile] = queue.Queue()
    for file in sorted(files, key=lambda each: each.size_bytes, reverse=True):
        waiting.put(file)
    ended: queue.Queue[StoredFile | BaseException | None] = queue.Queue()
    stop = threading.Event()

    def run() -> None:
        try:
            while not stop.is_set():
                file = waiting.get_nowait()
                work(file)
                ended.put(file)
        except queue.Empty:
            pass
        except BaseException as exc:  # noqa: BLE001 - raised again in the caller's thread
            stop.set()
            ended.put(exc)
        finally:
            ended.put(None)

    threads = [threading.Thread(target=run, name="upload", daemon=True) for _ in range(min(jobs, len(files)))]
    for thread in threads:
        thread.start()
    errors: list[BaseException] = []
    running = len(threads)
    try:
        while running:
            try:
                what = ended.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            if what is None:
                running -= 1
            elif isinstance(what, BaseException):
                errors.append(what)
            else:
                done(what)
    except BaseException:
        stop.set()
        deadline = time.monotonic() + _LEAVE_S
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        raise
    if errors:
        raise errors[0]


def _copy_file(source: Store, store: Store, prefix: str, file: StoredFile, *, there_bytes: int | None) -> int:
    """Copy one file unless it is there, and return how many bytes were sent."""
    read = proven_ahead.take(store, prefix + file.path)
    if read == (file.size_bytes, file.sha256) and there_bytes == file.size_bytes:
        return 0
    folder = source.local_folder(prefix)
    local = folder / file.path if folder is not None else None
    is_there = there_bytes == file.size_bytes and _problem_there(store, prefix, file, local) is None
    if folder is not None or not is_there:
        _send(source, None if is_there else store, prefix, file, folder)
    if is_there:
        return 0
    wrong = _problem_there(store, prefix, file, local)
    if wrong is not None:
        raise VerificationFailed(f"{file.path} was uploaded to {store.name}, but there it {wrong}")
    return file.size_bytes


def _problem_there(store: Store, prefix: str, file: StoredFile, local: Path | None) -> str | None:
    """Return what is wrong with a file in a store: by its bytes, or by the store's own checksum of it."""
    if store.trusts_checksums:
        says = store.confirms(prefix + file.path, file.size_bytes, file.sha256, local)
        if says is True:
            return None
        if says is False:
            return "is not what was sent: the store's own size or checksum of it differs"
    return problem_of(store, prefix, file)


def _send(source: Store, store: Store | None, prefix: str, file: StoredFile, folder: Path | None) -> None:
    """Copy one file, checked before it exists there; or only check it, where it need not be copied."""
    damaged = problem_of(source, prefix, file) if folder is not None else None
    if damaged is None and store is not None:
        if folder is not None:
            store.put_file(prefix + file.path, folder / file.path)
        else:
            damaged = _pass_on(source, store, prefix, file)
    if damaged is not None:
        raise VerificationFailed(f"{file.path} in {source.name} {damaged}; it is not uploaded")


class _Damaged(Exception):
    """Keeps what was passed on from being stored."""


def _pass_on(source: Store, store: Store, prefix: str, file: StoredFile) -> str | None:
    """Copy a file from one remote store to another, without a file here; say what is wrong with it."""
    digest = hashlib.sha256()
    size = 0
    try:
        with store.writing(prefix + file.path, file.size_bytes) as sink:
            for chunk in source.read(prefix + file.path):
                digest.update(chunk)
                size += len(chunk)
                sink.write(chunk)
            if (size, digest.hexdigest()) != (file.size_bytes, file.sha256):
                raise _Damaged
    except FileNotFoundError:
        return "is missing"
    except _Damaged:
        return "is not what was written"
    return None
