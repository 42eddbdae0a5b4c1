"""SHA-256 of the files that pg_dump writes: of each as soon as it is closed, of the others at the end.

Then they are synced, each one: pg_dump would open each again for writing to do so, and all had to be hashed a
second time. The disk begins with a file before it is hashed, and has most of it by then.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import TracebackType
from typing import Self

from pgsteward.backup.beside import Abandoned
from pgsteward.backup.closed_files import ClosedFiles
from pgsteward.storage.early import begin_to_write

log = logging.getLogger(__name__)

_AT_ONCE_BYTES = 1 << 20
_TOGETHER = min(4, os.cpu_count() or 1)
_ASK_S = 0.2
_GATHER_S = 0.02
"""Small files are closed faster than a thread wakes up: a few are waited for."""

Hashed = tuple[int, str]
"""Size in bytes, and SHA-256 in hexadecimal."""


class FolderHashes:
    """Hashes the files of a folder that somebody else writes. Use it as a context manager.

    What was hashed early counts where the kernel told that a writer had closed the file before, and told of
    no other since.
    """

    def __init__(self, folder: Path) -> None:
        """Begin nothing yet.

        Args:
            folder: Is made when the block is entered; its parent is there.
        """
        self.folder = folder
        self._early: dict[str, Hashed | Future[Hashed]] = {}
        self._watch: ClosedFiles | None = None
        self._over, self._abandoned = threading.Event(), threading.Event()
        self._pool = ThreadPoolExecutor(_TOGETHER, "hash")
        self._thread = threading.Thread(target=self._follow, name="closed files", daemon=True)
        self._has_seen_all = False

    def __enter__(self) -> Self:
        try:
            self._watch = ClosedFiles(self.folder)
        except OSError as exc:
            log.info("files are hashed at the end only: %s", exc)
        else:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._abandoned.set()
        self._stop_following()
        self._pool.shutdown(cancel_futures=True)
        if self._watch is not None:
            self._watch.close()

    def finish(self, still_wanted: Callable[[], None]) -> dict[str, Hashed]:
        """Sync every file, and return size and hash of each, by path; all writers have ended.

        Args:
            still_wanted: Called now and then; what it raises ends the work.

        Raises:
            OSError: The folder or a file in it can't be read, or the disk does not have it.
        """
        self._stop_following()
        found = dict(self._early) if self._has_seen_all else {}
        walk = os.walk(self.folder, onerror=_raised)
        paths = [f"{above}/{name}" for above, _, names in walk for name in names]
        left = {path: os.stat(path).st_size for path in paths if path not in found}  # noqa: PTH116 - of 20,000 files
        for path in sorted(left, key=lambda path: -left[path]):  # the largest are begun first
            found[path] = self._hash(path, still_wanted)
        hashed = {path: _result(found[path], still_wanted) for path in paths}
        parts = [paths[start::_TOGETHER] for start in range(_TOGETHER)]
        for syncing in [self._pool.submit(_sync, part, still_wanted) for part in parts]:
            syncing.result()
        return hashed

    def _hash(self, path: str, still_wanted: Callable[[], None]) -> Hashed | Future[Hashed]:
        still_wanted()
        return _hash_of_small(path) or self._pool.submit(_hash_of, path, still_wanted)

    def _stop_following(self) -> None:
        self._over.set()
        if self._watch is not None:
            self._watch.wake()
            self._thread.join()

    def _follow(self) -> None:
        watch = self._watch
        assert watch is not None
        over = False
        while not over:
            over = self._over.is_set()  # looked at first: what was closed before is told now
            closed = watch.take() if over else watch.wait()
            if not over and not self._over.wait(_GATHER_S):
                closed += watch.take()
            for path in map(str, closed):
                if self._abandoned.is_set():
                    return
                self._early.pop(path, None)  # of what the file was before
                with contextlib.suppress(OSError):  # gone already; what is there at the end is hashed then
                    self._early[path] = self._hash(path, self._refuse_abandoned)
        self._has_seen_all = not watch.has_missed_some

    def _refuse_abandoned(self) -> None:
        if self._abandoned.is_set():
            raise Abandoned


def _raised(error: OSError) -> None:
    raise error


def _result(of_it: Hashed | Future[Hashed], still_wanted: Callable[[], None]) -> Hashed:
    if isinstance(of_it, tuple):
        return of_it
    while not of_it.done():
        still_wanted()
        wait([of_it], _ASK_S)
    return of_it.result()


def _sync(paths: list[str], still_wanted: Callable[[], None]) -> None:
    """Wait until the disk has some files."""
    for path in paths:
        still_wanted()
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)  # for less, some network file systems don't
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _hash_of_small(path: str) -> Hashed | None:
    """Return size and SHA-256 of a small file, with as few calls as can be; None if it is large."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        data = os.read(descriptor, size + 1) if size <= _AT_ONCE_BYTES else b""
        begin_to_write(descriptor)
    finally:
        os.close(descriptor)
    return (size, hashlib.sha256(data).hexdigest()) if len(data) == size else None


def _hash_of(path: str, still_wanted: Callable[[], None]) -> Hashed:
    """Return size and SHA-256 of what a file holds."""
    digest, size = hashlib.sha256(), 0
    room = memoryview(bytearray(_AT_ONCE_BYTES))
    with Path(path).open("rb", buffering=0) as file:
        begin_to_write(file.fileno())
        while got := file.readinto(room):
            digest.update(room[:got])
            size += got
            still_wanted()
    return size, digest.hexdigest()
