"""Stores: where backups live. One protocol; a folder and S3 speak it.

Keys are relative, slash-separated, and never start with a slash. A store knows nothing about backups.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pgsteward.errors import StoreFailed

if TYPE_CHECKING:
    from pgsteward.config import StoreConfig
    from pgsteward.progress import Progress
    from pgsteward.storage.selftest import SelfTest

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object as a listing shows it."""

    key: str
    size_bytes: int
    modified_at: datetime


@dataclass(frozen=True, slots=True)
class ObjectVersion:
    """One version of an object, in a store that keeps versions.

    Attributes:
        is_latest: It is the one that reads and listings see.
        is_marker: It holds nothing: it only hides the versions before it, as deleting leaves it.
    """

    key: str
    version_id: str
    size_bytes: int
    modified_at: datetime
    is_latest: bool
    is_marker: bool


Spare = Callable[[str, datetime], bool]


def none_is_spared(key: str, begun_at: datetime) -> bool:
    """Leave no unfinished upload to anybody."""
    return False


class Sink(Protocol):
    """Takes the bytes of an object one after the other.

    Attributes:
        confirmed: At the end: the store has said by a checksum of its own that it has all of it.
    """

    confirmed: bool

    def write(self, data: bytes) -> int:
        """Take some more bytes and return how many: all of them."""
        ...


class Store(Protocol):
    """What a backup needs from a place that keeps bytes.

    Every method raises `StoreUnavailable` for what may heal, `StoreFailed` for what won't, and
    `FileNotFoundError` where a named key is not there.
    """

    name: str
    """Name of the entry in the configuration."""

    largest_object_bytes: int
    """No object can be larger."""

    @property
    def location(self) -> str:
        """The store's URL, without secrets, for people."""
        ...

    def put_file(self, key: str, path: Path) -> None:
        """Store a file. The key holds the whole file or nothing at all."""
        ...

    def put_bytes(self, key: str, data: bytes, *, passing: bool = False) -> None:
        """Store a small object in one atomic put.

        Args:
            key: Of the object.
            data: All of it.
            passing: It is deleted again soon, and therefore never locked.
        """
        ...

    def put_new(self, key: str, data: bytes) -> bool:
        """Store a small object, never locked, where there is none; False where somebody else was first.

        A store that does not know such puts is written over: ask it afterwards what is there.
        """
        ...

    def writing(self, key: str, size_hint_bytes: int) -> AbstractContextManager[Sink]:
        """Store what is written inside the block, in flat memory and without a local file.

        The key holds all of it once the block has ended well; after any exception, a cancellation too, it is
        what it was before, and nothing is left behind.

        Args:
            key: Of the object.
            size_hint_bytes: How large it may become, roughly.
        """
        ...

    def read(self, key: str) -> Iterator[bytes]:
        """Yield the object's bytes in chunks of at most 1 MiB or so."""
        ...

    def get_bytes(self, key: str) -> bytes:
        """Return a small object."""
        ...

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        """Yield every object whose key starts with `prefix`, in key order."""
        ...

    def folders(self, prefix: str) -> list[str]:
        """Return the names of the 'folders' directly below `prefix` (which ends with a slash or is empty)."""
        ...

    def delete(self, key: str) -> None:
        """Remove one object by exact key; one that is not there is no error."""
        ...

    @property
    def trusts_checksums(self) -> bool:
        """True where `confirms` is to be asked instead of reading everything again."""
        ...

    def confirms(self, key: str, size_bytes: int, sha256: str, local: Path | None = None) -> bool | None:
        """Ask the store for its own size and checksum of an object, not for anything that we wrote beside it.

        Args:
            key: Of the object.
            size_bytes: What was sent.
            sha256: Of what was sent.
            local: The file that was sent, where it is still here.

        Returns:
            Whether it has what was sent; None where it can't say.
        """
        ...

    def retained_until(self, key: str) -> datetime | None:
        """Return until when an object can't be deleted (`datetime.max`: until a hold ends), or None."""
        ...

    def keeps_versions(self) -> bool | None:
        """Tell whether deleted objects stay as older versions; None where the store won't say."""
        ...

    def versions(self, prefix: str) -> Iterator[ObjectVersion]:
        """Yield every version and delete marker below `prefix`; a store that keeps none has none."""
        ...

    def read_version(self, version: ObjectVersion) -> bytes:
        """Return a small object as it once was."""
        ...

    def version_retained_until(self, version: ObjectVersion) -> datetime | None:
        """Return until when a version can't be deleted, or None."""
        ...

    def delete_version(self, version: ObjectVersion) -> datetime | None:
        """Delete one version for good, or return until when it is retained."""
        ...

    def self_test(self, prefix: str, progress: Progress) -> SelfTest:
        """Try out below `prefix` what the store does, and leave nothing there.

        Raises:
            StoreUnavailable: It can't be reached.
        """
        ...

    def local_folder(self, prefix: str) -> Path | None:
        """Return the folder of `prefix` where the store is a file system of this machine, else None."""
        ...

    def abort_uploads(self, prefix: str, spare: Spare = none_is_spared) -> list[str]:
        """Abort unfinished multipart uploads below `prefix` and return their keys.

        Args:
            prefix: Of the keys.
            spare: Told the key and when the upload was begun: True leaves it to whoever is at work on it.
        """
        ...


def file_size(path: Path) -> int:
    """Return the size of a local file that is about to be stored.

    Raises:
        StoreFailed: There is no such file, or it can't be read.
    """
    if not path.is_file() or not os.access(path, os.R_OK):
        raise StoreFailed(f"{path} can't be stored: it is no readable file of this machine")
    return path.stat().st_size


def open_store(name: str, config: StoreConfig) -> Store:
    """Return the store of a configuration entry; nothing is contacted yet."""
    if config.scheme == "file":
        from pgsteward.storage.folder import FolderStore

        return FolderStore(name, config)
    from pgsteward.storage.s3 import S3Store
    from pgsteward.storage.selftest import traits

    return S3Store(name, config, traits=traits(config))
