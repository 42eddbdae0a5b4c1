"""Private folders for files that must not outlive their run: clear dumps, downloads.

Each carries a lock that its run holds; one whose lock is free belongs to a dead run, and is removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from pgsteward.config import BackupConfig
from pgsteward.errors import PreconditionError
from pgsteward.places import state_folder

_LOCK = "in-use.lock"
_MEMORY = frozenset({"tmpfs", "ramfs"})


@contextlib.contextmanager
def private_folder(root: Path, run_id: str) -> Iterator[Path]:
    """Give a folder below `root` that nobody else can read; it is gone afterwards.

    Raises:
        PreconditionError: It can't be made, or somebody else owns `root`.
    """
    folder = root / run_id
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if root.is_symlink() or root.stat().st_uid != os.geteuid():  # in /dev/shm anybody may be there first
            raise PreconditionError(f"{root} belongs to another user; remove it")
        folder.mkdir(mode=0o700)
    except OSError as exc:
        raise PreconditionError(f"the folder {folder} can't be made: {exc.strerror}") from exc
    with (folder / _LOCK).open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def dead(root: Path) -> Iterator[Path]:
    """Yield the folders below `root` whose run is dead: its lock is free, and held by us meanwhile."""
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        with contextlib.ExitStack() as held:
            try:
                lock = held.enter_context((folder / _LOCK).open("rb"))
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, FileNotFoundError, NotADirectoryError, PermissionError):
                continue  # at work, or not ours
            yield folder


def remove_dead(root: Path, *, dry_run: bool = False) -> list[Path]:
    """Remove the folders below `root` whose run is dead (its lock is free) and return them."""
    removed = []
    for folder in dead(root):
        if not dry_run:
            shutil.rmtree(folder, ignore_errors=True)
        removed.append(folder)
    return removed


def clear_root(settings: BackupConfig) -> Path:
    """Return the folder below which clear dumps lie until they are encrypted."""
    if settings.spool is not None:
        return Path(settings.spool) / f"pgsteward-{os.geteuid()}"
    return state_folder() / "clear"


def remember_root(root: Path) -> None:
    """Write down where clear files are going to lie: the configuration may name another place later.

    Raises:
        PreconditionError: It can't be written down.
    """
    try:
        file = _roots() / f"{hashlib.sha256(bytes(root)).hexdigest()[:16]}.path"
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = file.with_suffix(f".{secrets.token_hex(4)}")  # containers have equal process numbers
        partial.write_bytes(bytes(root))
        partial.replace(file)
    except OSError as exc:
        raise PreconditionError(f"{exc.filename} can't be written: {exc.strerror}") from exc


def clear_roots(settings: BackupConfig) -> list[Path]:
    """Return all folders below which clear dumps may lie, those of earlier configurations too."""
    earlier = [Path(os.fsdecode(file.read_bytes())) for file in sorted(_roots().glob("*.path"))]
    return list(dict.fromkeys([clear_root(settings), *earlier]))


def _roots() -> Path:
    return state_folder() / "clear-roots"


def refuse_disk(folder: Path) -> None:
    """Make sure that a folder is in memory.

    Raises:
        PreconditionError: It is on a disk, or it is not there.
    """
    if not folder.is_dir():
        raise PreconditionError(f"spool: there is no folder {folder}; name one on a tmpfs, such as /dev/shm")
    kind = _kind(folder.resolve())
    if kind not in _MEMORY:
        raise PreconditionError(
            f"spool: {folder} is on {kind}, not on a tmpfs: clear files would lie on a disk; name another"
            " folder, or say plaintext_spool = true instead"
        )


def _kind(folder: Path) -> str:
    """Return the type of the file system that a folder is on."""
    found, longest = "an unknown file system", -1
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        mounted = before.split()[4].encode().decode("unicode_escape")
        inside = folder == Path(mounted) or Path(mounted) in folder.parents
        if inside and len(mounted) >= longest:  # the last one covers those before it
            found, longest = after.split()[0], len(mounted)
    return found
