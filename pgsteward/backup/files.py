"""The files of a backup in the making: encrypted where that is asked for, hashed as they are stored."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pgsteward.backup.encryption import Recipients, Writer
from pgsteward.backup.folder_hashes import FolderHashes
from pgsteward.backup.listing import problem_of
from pgsteward.backup.manifest import SUFFIX, StoredFile
from pgsteward.errors import VerificationFailed
from pgsteward.progress import Progress
from pgsteward.storage import Store


def _always() -> None:
    """Whoever asks is still wanted."""


class BackupFiles:
    """What one backup has stored so far, below its prefix in its home store.

    Attributes:
        prefix: Of its keys.
        recipients: Whom everything is encrypted to that need not be clear; None stores it as it is.
        hashing_s: How long `adopt` took.
    """

    def __init__(self, store: Store, prefix: str, recipients: Recipients | None) -> None:
        self.recipients = recipients
        self.prefix = prefix
        self._store = store
        self._stored: dict[str, StoredFile] = {}
        self._to_read_again: list[StoredFile] = []
        self._waiting: dict[str, tuple[bytes, bool]] = {}
        self.hashing_s = 0.0

    @property
    def stored(self) -> tuple[StoredFile, ...]:
        """All files, by path."""
        return tuple(self._stored[path] for path in sorted(self._stored))

    def put(self, path: str, data: bytes, *, clear: bool = False) -> None:
        """Store a small file; a clear one is stored as it is."""
        if self.recipients is not None and not clear:
            path, data = path + SUFFIX, self.recipients.encrypted(data)
        self._store.put_bytes(self.prefix + path, data)
        self._keep(StoredFile(path=path, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest()))

    def put_beside(self, path: str, data: bytes, *, clear: bool = False) -> None:
        """Store a small file from another thread: on a disk now, by a network with `settle`.

        A thread that waits for a store which has stopped answering can't be told to stop.
        """
        if self._store.local_folder("") is not None:
            self.put(path, data, clear=clear)
        else:
            self._waiting[path] = (data, clear)

    def take(self, path: str, file: Path) -> None:
        """Store a local file, encrypted."""
        assert self.recipients is not None
        with self.writing(path, file.stat().st_size) as sink, file.open("rb") as source:
            self.recipients.encrypt(source, sink)

    @contextmanager
    def writing(self, path: str, size_hint_bytes: int) -> Iterator[Writer]:
        """Store what is written inside the block, which is encrypted already if it is to be.

        It exists once the block has ended well, and never after an exception.
        """
        stored_as = path + (SUFFIX if self.recipients is not None else "")
        with self._store.writing(self.prefix + stored_as, size_hint_bytes) as sink:
            hashing = _Hashing(sink)
            yield hashing
        file = StoredFile(path=stored_as, size_bytes=hashing.size, sha256=hashing.digest.hexdigest())
        self._keep(file, confirmed=sink.confirmed and self._store.trusts_checksums)

    def adopt(self, folder: Path, hashes: FolderHashes, still_wanted: Callable[[], None] = _always) -> None:
        """Take in what pg_dump has written into the store by itself: each file is read once, and synced.

        Args:
            folder: Of the backup.
            hashes: Of what pg_dump has written there.
            still_wanted: Called now and then; what it raises ends the work.
        """
        began = time.monotonic()
        for path, (size, sha256) in hashes.finish(still_wanted).items():
            name = path.removeprefix(f"{folder}/")
            self._stored[name] = StoredFile(path=name, size_bytes=size, sha256=sha256)
        for place in (hashes.folder, folder):
            descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        self.hashing_s = time.monotonic() - began

    def settle(self, progress: Progress) -> None:
        """Store what has waited for it, and read what went to a remote store again.

        A folder of this machine was synced, not sent.

        Raises:
            VerificationFailed: The store does not give back what it was given.
        """
        if self._store.local_folder("") is not None:
            return
        for path, (data, clear) in self._waiting.items():
            self.put(path, data, clear=clear)
        for number, file in enumerate(self._to_read_again):
            progress(f"reading {file.path} again", number, len(self._to_read_again))
            wrong = problem_of(self._store, self.prefix, file)
            if wrong is not None:
                raise VerificationFailed(f"{file.path} was put into {self._store.name}, but there it {wrong}")

    def _keep(self, file: StoredFile, *, confirmed: bool = False) -> None:
        self._stored[file.path] = file
        if not confirmed:
            self._to_read_again.append(file)


class _Hashing:
    def __init__(self, sink: Writer) -> None:
        self._sink = sink
        self.digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes, /) -> int:
        self.digest.update(data)
        self.size += len(data)
        return self._sink.write(data)
