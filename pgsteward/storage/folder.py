"""A folder of this machine, or a mounted share, as a store. A key is a file, whole or not there at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from pgsteward.config import StoreConfig
from pgsteward.errors import StewardError, StoreFailed, StoreUnavailable
from pgsteward.progress import Progress, silent
from pgsteward.storage import CHUNK_BYTES, Sink, Spare, StoredObject, file_size, none_is_spared
from pgsteward.storage.early import STEP_BYTES, written_early
from pgsteward.storage.plain import Plain
from pgsteward.storage.selftest import Capability, SelfTest

_PARTIAL = ".partial"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_MAY_HEAL = frozenset({errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.EAGAIN})
_REFUSED = frozenset({errno.EACCES, errno.EPERM})
_NO_FOLDER = frozenset({errno.ENOTDIR, errno.EEXIST, errno.ELOOP})


class _FolderSink:
    """A file whose errors are told as the store's; those of who writes are his own."""

    def __init__(
        self, file: BinaryIO, translating: Callable[[], contextlib.AbstractContextManager[None]]
    ) -> None:
        self._file, self._translating = file, translating
        self.confirmed = False

    def write(self, data: bytes) -> int:
        with self._translating():
            return self._file.write(data)


class FolderStore(Plain):
    """Files below one root folder; they and new folders are readable by their owner alone."""

    def __init__(self, name: str, config: StoreConfig) -> None:
        self.name = name
        self.root = Path(config.path)

    @property
    def location(self) -> str:
        return f"file://{self.root}"

    def put_file(self, key: str, path: Path) -> None:
        size_bytes = file_size(path)
        with path.open("rb") as source:

            def copy(to: Sink) -> None:
                while chunk := source.read(CHUNK_BYTES):
                    to.write(chunk)

            self._put(key, copy, size_bytes)

    def put_bytes(self, key: str, data: bytes, *, passing: bool = False) -> None:
        def write(to: Sink) -> None:
            to.write(data)

        self._put(key, write)

    def put_new(self, key: str, data: bytes) -> bool:
        path = self._path(key)
        partial = _partial_of(path)
        with self._translating("write", key):
            with self._create(partial) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            try:
                path.hardlink_to(partial)
            except FileExistsError:
                return False
            except OSError:  # file systems that know no links say so in many ways
                if path.exists():
                    return False
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
            _sync_folder(path.parent)
        return True

    @contextlib.contextmanager
    def writing(self, key: str, size_hint_bytes: int = 0) -> Iterator[Sink]:
        """Store what is written inside the block: under another name, which is replaced at its end."""
        path = self._path(key)
        partial = _partial_of(path)
        try:
            with self._translating("write", key):
                file = self._create(partial)
            try:
                with written_early(partial) if size_hint_bytes > STEP_BYTES else contextlib.nullcontext():
                    yield _FolderSink(file, lambda: self._translating("write", key))
                with self._translating("write", key):
                    file.flush()
                    os.fsync(file.fileno())
            finally:
                with contextlib.suppress(OSError):  # what could not be written has been told by then
                    file.close()
            with self._translating("write", key):
                partial.replace(path)
                _sync_folder(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
                self._remove_empty(partial.parent)
            raise

    def read(self, key: str) -> Iterator[bytes]:
        path = self._path(key)
        try:
            with path.open("rb") as source:
                while chunk := source.read(CHUNK_BYTES):
                    yield chunk
        except (FileNotFoundError, NotADirectoryError):
            raise FileNotFoundError(errno.ENOENT, f"store {self.name!r} has no such key", key) from None
        except OSError as exc:
            raise self._translated(exc, "read", key) from exc

    def get_bytes(self, key: str) -> bytes:
        return b"".join(self.read(key))

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        """Yield every object whose key starts with `prefix`, in key order; a missing root has none."""
        folder = prefix.rpartition("/")[0]
        start = self._path(folder) if folder else self.root
        found: list[StoredObject] = []
        try:
            for key in self._keys_below(start):
                if not key.startswith(prefix) or _is_partial(key) or _is_deleted(_name(key)):
                    continue
                with contextlib.suppress(FileNotFoundError):  # removed by somebody else meanwhile
                    status = os.stat(f"{self.root}/{key}")  # noqa: PTH116 - of 20,000 files
                    changed = datetime.fromtimestamp(status.st_mtime, UTC)
                    found.append(StoredObject(key, status.st_size, changed))
        except OSError as exc:
            raise self._translated(exc, "list", prefix) from exc
        yield from sorted(found, key=lambda entry: entry.key)

    def folders(self, prefix: str) -> list[str]:
        start = self._path(prefix.rstrip("/")) if prefix else self.root
        try:
            with os.scandir(start) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir() and _holds_something(entry))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as exc:
            raise self._translated(exc, "list", prefix) from exc

    def delete(self, key: str) -> None:
        """Remove one file, and the folders above it that are empty then, but never the root."""
        path = self._path(key)
        try:
            path.unlink(missing_ok=True)
        except NotADirectoryError:
            return
        except OSError as exc:
            raise self._translated(exc, "delete", key) from exc
        self._remove_empty(path.parent)

    def self_test(self, prefix: str, progress: Progress = silent) -> SelfTest:
        """Put a file, read, list and delete it."""
        key, data = f"{prefix}probe", secrets.token_bytes(1000)
        above = [folder for folder in (self.root, *self.root.parents) if not folder.exists()]
        try:
            try:
                self.put_bytes(key, data)
                read = self.get_bytes(key)
                listed = [stored.key for stored in self.objects(key)]
            finally:
                self.delete(key)
            left = [stored.key for stored in self.objects(key)]
            with contextlib.suppress(OSError):  # somebody has put something there meanwhile
                for folder in above:  # a backup makes them; a test leaves nothing
                    folder.rmdir()
        except (StewardError, FileNotFoundError) as exc:
            fix = f"make the folder {self.root} writable for the user that pgsteward runs as"
            return SelfTest((Capability("files", "broken", "fail", str(exc), fix),))
        if read != data or listed != [key] or left:
            message = f"{self.location} does not give back what was put there"
            return SelfTest(
                (Capability("files", "broken", "fail", message, "look at that disk, or use another folder"),)
            )
        message = f"{self.location}: put, read, listed and deleted a file"
        return SelfTest((Capability("files", "works", "ok", message),))

    def local_folder(self, prefix: str) -> Path | None:
        return self._path(prefix.rstrip("/")) if prefix else self.root

    def abort_uploads(self, prefix: str, spare: Spare = none_is_spared) -> list[str]:
        """Remove partial files that a killed put left below `prefix`; return the keys they were for."""
        folder = prefix.rpartition("/")[0]
        start = self._path(folder) if folder else self.root
        aborted = []
        try:
            for key in list(self._keys_below(start)):
                if _is_partial(key) and key.startswith(prefix):
                    path = self.root / key
                    head, _, name = key.rpartition("/")
                    intended = name[1:].rsplit(".", 2)[0]
                    meant = f"{head}/{intended}" if head else intended
                    with contextlib.suppress(FileNotFoundError):  # it has got its name meanwhile
                        if spare(meant, datetime.fromtimestamp(path.stat().st_mtime, UTC)):
                            continue
                        path.unlink()
                        self._remove_empty(path.parent)
                        aborted.append(meant)
        except OSError as exc:
            raise self._translated(exc, "clean", prefix) from exc
        return sorted(aborted)

    def _put(self, key: str, write: Callable[[Sink], None], size_bytes: int = 0) -> None:
        try:
            with self.writing(key, size_bytes) as sink:
                write(sink)
        except OSError as exc:
            raise self._translated(exc, "write", key) from exc

    def _create(self, path: Path) -> BinaryIO:
        for attempt in range(5):
            self._make_folder(path.parent)
            try:
                return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
            except FileNotFoundError:  # a delete beside us found the folder empty and removed it
                if attempt == 4:
                    raise
        raise AssertionError

    def _make_folder(self, folder: Path) -> None:
        missing = []
        above = folder
        while not above.exists():
            missing.append(above)
            above = above.parent
        for new in reversed(missing):
            new.mkdir(mode=0o700, exist_ok=True)
            _sync_folder(new.parent)

    def _remove_empty(self, folder: Path) -> None:
        while folder != self.root and self.root in folder.parents:
            try:
                folder.rmdir()
            except OSError:
                return
            folder = folder.parent

    def _keys_below(self, folder: Path) -> Iterator[str]:
        def fail(exc: OSError) -> None:
            if not isinstance(exc, FileNotFoundError | NotADirectoryError):
                raise exc

        for above, _folders, names in os.walk(folder, onerror=fail):
            inside = Path(above).relative_to(self.root).as_posix()
            for name in names:  # as text: there may be 20,000, and a path of each takes longest
                yield name if inside == "." else f"{inside}/{name}"

    def _path(self, key: str) -> Path:
        parts = key.split("/")
        if not key or "\0" in key or any(part in {"", ".", ".."} for part in parts):
            raise StoreFailed(f"{key!r} is not a key of a store: it would lead out of {self.root}")
        return self.root.joinpath(*parts)

    @contextlib.contextmanager
    def _translating(self, doing: str, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise self._translated(exc, doing, key) from exc

    def _translated(self, exc: OSError, doing: str, key: str) -> StewardError:
        where = f"store {self.name!r} ({self.location}): can't {doing} {key!r}"
        if exc.errno in _FULL:
            return StoreFailed(f"{where}: the disk is full; free space there or prune with a smaller policy")
        if exc.errno in _REFUSED:
            return StoreFailed(
                f"{where}: not permitted; give the user that runs pgsteward rights on the folder"
            )
        if exc.errno == errno.EROFS:
            return StoreFailed(f"{where}: the file system is read-only; remount it writable")
        if exc.errno == errno.EFBIG:
            return StoreFailed(f"{where}: a file met the limit on file sizes; raise it (ulimit -f)")
        if exc.errno in _NO_FOLDER and doing in {"write", "list"}:
            return StoreFailed(
                f"{where}: {exc.strerror}: a part of that path is a file, or a link that leads nowhere (is it"
                " mounted?); correct the store's url, or what it leads to"
            )
        if exc.errno in _MAY_HEAL:
            return StoreUnavailable(f"{where}: {exc.strerror}")
        return StoreFailed(f"{where}: {exc.strerror or exc}")


def _holds_something(folder: os.DirEntry[str]) -> bool:
    try:
        return any(not _is_deleted(path.name) for path in Path(folder).iterdir())
    except (
        FileNotFoundError,
        NotADirectoryError,
    ):  # removed by somebody else meanwhile; the others are there
        return False


def _partial_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{_PARTIAL}")


def _is_partial(key: str) -> bool:
    return key.endswith(_PARTIAL) and _name(key).startswith(".")


def _is_deleted(name: str) -> bool:
    """Tell whether a file was deleted while somebody reads it: NFS keeps it under such a name till then."""
    return name.startswith(".nfs")


def _name(key: str) -> str:
    return key.rpartition("/")[2]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as exc:
        if exc.errno not in {errno.EINVAL, errno.ENOTSUP}:  # some network file systems can't
            raise
    finally:
        os.close(descriptor)
