"""Bring the files of a backup here with every byte checked on the way.

A folder store's clear files are used where they are; what is encrypted or lies elsewhere comes into a private
spool folder, decrypted on its way. The spool is removed afterwards, and by the janitor if its run has died.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue

from pgsteward.backup.encryption import Identities, WrongIdentity, read_identities
from pgsteward.backup.manifest import DUMP, SUFFIX, Manifest, StoredFile
from pgsteward.backup.stream_dump import ArchiveHead
from pgsteward.errors import (
    DamagedBackup,
    PreconditionError,
    ToolFailed,
    VerificationFailed,
)
from pgsteward.places import state_folder
from pgsteward.progress import Progress, silent
from pgsteward.spool import private_folder, remove_dead
from pgsteward.storage import Store
from pgsteward.targets import Target

WORKERS = 4
_ELSEWHERE = "take another backup or another store"
GRACE_S = 2.0
"""How long a reader may take to notice that it is not wanted any more."""


def check_presence(store: Store, prefix: str, manifest: Manifest) -> None:
    """Look at the store's listing: every file is there and as large as the manifest says, and no other.

    A file too many in the archive's folder is not harmless: pg_restore takes an uncompressed ``4711.dat``
    before the ``4711.dat.zst`` that was checked.

    Raises:
        DamagedBackup: A file is missing or has another size; the text names it.
        VerificationFailed: There is one too many.
    """
    there = {stored.key.removeprefix(prefix): stored.size_bytes for stored in store.objects(prefix)}
    for file in manifest.files:
        size = there.pop(file.path, None)
        if size is None:
            raise DamagedBackup(f"{_name(store, manifest, file.path)} is missing; {_ELSEWHERE}")
        if size != file.size_bytes:
            raise DamagedBackup(
                f"{_name(store, manifest, file.path)} has {size} bytes, the manifest says {file.size_bytes};"
                f" {_ELSEWHERE}"
            )
    extra = next((path for path in there if path.startswith(f"{DUMP}/")), None)
    if extra is not None:
        raise VerificationFailed(
            f"{_name(store, manifest, extra)} is not in the manifest, and pg_restore could read it in another"
            " file's place; move it out of the folder, or take another store"
        )


def identities_for(target: Target, store: Store, prefix: str, manifest: Manifest) -> Identities | None:
    """Return what opens an encrypted backup, tried out on it; None where it is not encrypted.

    Raises:
        PreconditionError: No identity is configured, or it is of none of those that it is encrypted to.
        ConfigError: It can't be found, or it is none.
    """
    if manifest.encryption is None:
        return None
    what = f"backup {manifest.backup_id}"
    to = ", ".join(manifest.encryption.recipients)
    secret = target.settings.restore.identity
    if secret is None:
        raise PreconditionError(
            f"{what} is encrypted to {to}; say where the secret key of one of them is:"
            f' [targets.{target.name}.restore] identity = {{ file = "/path/of/key.txt" }} (or --identity)'
        )
    identities = read_identities(secret.resolve_whole(), f"targets.{target.name}.restore.identity")
    with contextlib.closing(_reading(store, prefix, manifest, manifest.contents)) as chunks:
        start = next(chunks, b"")
    try:
        identities.opens(start, _name(store, manifest, manifest.contents))
    except WrongIdentity:
        raise PreconditionError(
            f"{what} is encrypted to {to}, and targets.{target.name}.restore.identity is the secret key of"
            " none of them"
        ) from None
    return identities


def fetch_head(
    store: Store, prefix: str, manifest: Manifest, identities: Identities | None, head: ArchiveHead
) -> None:
    """Read a streamed archive until its table of contents is complete; its bytes are checked by `fetch`.

    Raises:
        DamagedBackup: It can't be read, because it is not what was written.
        VerificationFailed: It can't be read, and is what was written.
    """
    path = manifest.contents
    what = _name(store, manifest, path)
    try:
        with contextlib.closing(_reading(store, prefix, manifest, path)) as chunks:
            with contextlib.suppress(_Enough):
                if identities is not None:
                    identities.decrypt(_Chunks(chunks), _HeadOnly(head), what)
                else:
                    for chunk in chunks:
                        _HeadOnly(head).write(chunk)
        head.end()
    except (ToolFailed, VerificationFailed) as exc:
        fetch(store, prefix, manifest, [f for f in manifest.files if f.path == path], None)  # is it damaged?
        raise VerificationFailed(f"{what}: its table of contents can't be read: {exc}") from exc


class _Enough(Exception):
    """No more bytes are wanted."""


class _HeadOnly:
    def __init__(self, head: ArchiveHead) -> None:
        self._head = head

    def write(self, data: bytes, /) -> int:
        self._head.feed(data)
        if self._head.complete:
            raise _Enough
        return len(data)


class _Chunks:
    """Reads from an iterator as from a file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._left = memoryview(b"")

    def read(self, size: int, /) -> bytes:
        if not self._left:
            self._left = memoryview(next(self._chunks, b""))
        taken = bytes(self._left[:size])
        self._left = self._left[len(taken) :]
        return taken


def fetch(
    store: Store,
    prefix: str,
    manifest: Manifest,
    files: Sequence[StoredFile],
    into: Path | None,
    progress: Progress = silent,
    identities: Identities | None = None,
    kept: Callable[[StoredFile], None] | None = None,
    still_wanted: Callable[[], None] | None = None,
) -> None:
    """Read files from the store, check the SHA-256 of every byte, and keep them in a folder.

    A file has its name there once all its bytes were checked, not before.

    Args:
        store: Where from.
        prefix: Key prefix of the backup.
        manifest: The backup's own.
        files: Which of them.
        into: Folder to keep them in; None only checks them.
        progress: Is told the bytes.
        identities: Open what is encrypted; it is kept as clear files, without the suffix of their names.
        kept: Called with each file that is there, from several threads.
        still_wanted: Called several times a second; what it raises ends the work.

    Raises:
        DamagedBackup: A file is missing or differs; the text names it.
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
        _keep(store, manifest, file, into, identities, _checked(store, prefix, manifest, file, stop, count))
        if kept is not None:
            kept(file)

    largest_first = sorted(files, key=lambda file: file.size_bytes, reverse=True)
    _in_threads(one, largest_first, stop, still_wanted)


def _in_threads(
    work: Callable[[StoredFile], None],
    files: Sequence[StoredFile],
    stop: threading.Event,
    still_wanted: Callable[[], None] | None,
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
        except (Empty, _Stopped):
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
            if still_wanted is not None:
                still_wanted()
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


def _keep(
    store: Store,
    manifest: Manifest,
    file: StoredFile,
    into: Path | None,
    identities: Identities | None,
    chunks: Iterator[bytes],
) -> None:
    """Take all the bytes of one file, and keep them where that is wanted."""
    if into is None:
        for _ in chunks:
            pass
        return
    path = kept_as(file, into, identities)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    with part.open("wb", buffering=0) as out:
        _keep_bytes(store, manifest, file, _Kept(out.fileno(), into), identities, chunks)
    part.replace(path)


def kept_as(file: StoredFile, into: Path, identities: Identities | None) -> Path:
    """Return where `fetch` keeps a file: a decrypted one without the suffix of its name."""
    return into / (file.path if identities is None else file.path.removesuffix(SUFFIX))


def _keep_bytes(
    store: Store,
    manifest: Manifest,
    file: StoredFile,
    kept: _Kept,
    identities: Identities | None,
    chunks: Iterator[bytes],
) -> None:
    if identities is None or not file.path.endswith(SUFFIX):
        for chunk in chunks:
            kept.write(chunk)
        return
    trouble: VerificationFailed | None = None
    try:
        identities.decrypt(_Chunks(chunks), kept, _name(store, manifest, file.path))
    except VerificationFailed as exc:
        trouble = exc
    for _ in chunks:  # to its end: what can't be decrypted because it was changed is told as changed
        pass
    if trouble is not None:
        raise DamagedBackup(str(trouble)) from trouble


class _Stopped(Exception):
    """Another file has failed; this one is not wanted any more."""


def _reading(store: Store, prefix: str, manifest: Manifest, path: str) -> Generator[bytes, None, None]:
    try:
        yield from store.read(prefix + path)
    except FileNotFoundError:
        raise DamagedBackup(f"{_name(store, manifest, path)} is missing; {_ELSEWHERE}") from None


def _checked(
    store: Store,
    prefix: str,
    manifest: Manifest,
    file: StoredFile,
    stop: threading.Event,
    count: Callable[[int], None],
) -> Iterator[bytes]:
    """Yield the bytes of a file, and raise at their end when they are not what was written."""
    digest = hashlib.sha256()
    size = 0
    for chunk in _reading(store, prefix, manifest, file.path):
        if stop.is_set():
            raise _Stopped
        digest.update(chunk)
        size += len(chunk)
        count(len(chunk))
        yield chunk
    if (size, digest.hexdigest()) != (file.size_bytes, file.sha256):
        raise DamagedBackup(
            f"{_name(store, manifest, file.path)} is not what was written: {size} bytes with SHA-256"
            f" {digest.hexdigest()[:16]}..., the manifest says {file.size_bytes} and {file.sha256[:16]}...;"
            f" {_ELSEWHERE}"
        )


class _Kept:
    """A file of the spool; a full disk is told as what it is."""

    def __init__(self, descriptor: int, folder: Path) -> None:
        self._descriptor, self._folder = descriptor, folder

    def write(self, data: bytes, /) -> int:
        _write(self._descriptor, data, self._folder)
        return len(data)


def _write(descriptor: int, chunk: bytes, folder: Path) -> None:
    view = memoryview(chunk)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError as exc:
        raise PreconditionError(
            f"the spool folder {folder} can't take the backup: {exc.strerror}; make room there, or set"
            " XDG_STATE_HOME to a folder on another disk"
        ) from exc


def _name(store: Store, manifest: Manifest, path: str) -> str:
    return f"{path} of backup {manifest.backup_id} in store {store.name!r}"


def spool_root() -> Path:
    """Return the folder below which downloads of running restores lie."""
    return state_folder() / "restore"


@contextlib.contextmanager
def spool(run_id: str) -> Iterator[Path]:
    """Give a private folder for a download; it is gone afterwards, and locked until then."""
    with private_folder(spool_root(), run_id) as folder:
        yield folder


def remove_dead_spools(*, dry_run: bool = False) -> list[Path]:
    """Remove the spool folders whose run is dead (its lock is free) and return them."""
    return remove_dead(spool_root(), dry_run=dry_run)
