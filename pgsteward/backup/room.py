"""How much disk a backup will need, and whether it is there, also for those that are made beside it.

Each backup that is at work has said in the state folder how much it will need. What of that is not written
yet is no room for another one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pgsteward import capacity
from pgsteward.backup.figures import Earlier, Figures
from pgsteward.backup.home import past_stores
from pgsteward.backup.manifest import MARK, catalog_prefix
from pgsteward.backup.newest import newest_ids
from pgsteward.errors import (
    PreconditionError,
    StewardError,
    StoreFailed,
    StoreUnavailable,
    VerificationFailed,
)
from pgsteward.places import state_folder
from pgsteward.report.units import humanize_bytes
from pgsteward.storage import Store
from pgsteward.targets import Target

log = logging.getLogger(__name__)

_GROWTH = 1.3
_HISTORY = 3
"""Newest backups of its kind that say how large the next one may become."""
_LOOKED_AT = 10


@dataclass(frozen=True, slots=True)
class Room:
    """What the backup will need on disk, and what is there.

    Attributes:
        needed_bytes: Estimated.
        estimated: How, as a phrase.
        free_bytes: Of the file system that the home store is on; None where it is on no disk of this machine.
        where: The folder that was asked.
        is_guess: The estimate says too little about a backup of this kind to refuse one by it.
        is_known: It was estimated by earlier backups of its kind.
    """

    needed_bytes: int
    estimated: str
    free_bytes: int | None = None
    where: Path | None = None
    is_guess: bool = False
    is_known: bool = False


def estimate(
    target: Target, home: Store, earlier: Earlier, spec: str, partial: tuple[str, ...], database_bytes: int
) -> Room:
    """Estimate what the backup needs, by those before it where they are of its kind.

    Args:
        target: Whose backup.
        home: Where it is made.
        earlier: Knows those before it.
        spec: Its compression.
        partial: What is left out of it.
        database_bytes: Size of the database.
    """
    codec = spec.partition(":")[0]
    alike: list[int] = []
    others: list[int] = []
    for figures in _newest(home, target, earlier):
        if figures.partial == partial:
            same = figures.compress.partition(":")[0] == codec
            (alike if same else others).append(figures.size_bytes)
        if len(alike) == _HISTORY:
            break
    before = alike or others
    is_guess = not alike and bool(others or partial)
    if before:
        needed = int(max(before) * _GROWTH)
        estimated = f"{_GROWTH} times the largest of the {len(before)} newest backups"
        if len(before) == 1:
            estimated = f"{_GROWTH} times the backup before it"
        if is_guess:
            estimated += ", which were compressed otherwise" if len(before) > 1 else ", compressed otherwise"
    else:
        needed = database_bytes
        estimated = "the size of the database itself, as there is no backup like it yet; it may be much less"
    folder = home.local_folder("")
    if folder is None:
        return Room(needed, estimated, is_guess=is_guess)
    free, where = capacity.free_bytes(folder)
    return Room(needed, estimated, free, where, is_guess, is_known=bool(alike))


def _newest(home: Store, target: Target, earlier: Earlier) -> Iterator[Figures]:
    """Yield the newest backups: not all, as manifests of many tables are large."""
    for store in past_stores(target, home):
        trouble = () if store is home else (StoreUnavailable, StoreFailed)
        ids: list[str] = []
        with contextlib.suppress(*trouble):
            folders = store.folders(catalog_prefix(target.name, target.database))
            ids = newest_ids(folders, datetime.now(UTC))
        for backup_id in ids[:_LOOKED_AT]:
            with contextlib.suppress(FileNotFoundError, VerificationFailed, *trouble):
                yield earlier.read(store, backup_id)
        if ids:
            return


@contextlib.contextmanager
def reserved(target: Target, home: Store, room: Room) -> Iterator[tuple[str, ...]]:
    """Keep room for a backup while the block runs; a warning where there may be too little.

    What others are promised refuses a backup only where all of it is known from their earlier backups.

    Args:
        target: Whose backup.
        home: Where it is made.
        room: What it needs.

    Raises:
        PreconditionError: There is too little; the text says how much is needed, how much is free, and where.
    """
    if room.free_bytes is None or room.where is None:
        yield ()
        return
    with contextlib.ExitStack() as held:
        promised = known = 0
        with contextlib.suppress(OSError, StewardError):  # without state only its own need is known
            folder = state_folder() / "room"
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with (folder / "room.lock").open("wb") as alone:
                fcntl.flock(alone, fcntl.LOCK_EX)
                promised, known = _promised(folder, room.where)
                held.enter_context(_promise(folder, target, home, room))
        yield _judge(target, home, room, promised, known if room.is_known else 0)


@contextlib.contextmanager
def _promise(folder: Path, target: Target, home: Store, room: Room) -> Iterator[None]:
    """Say what a backup needs for as long as its process holds the lock of a file."""
    assert room.where is not None
    file = folder / f"{secrets.token_hex(8)}.json"
    promise = {
        "needed": room.needed_bytes,
        "known": room.is_known,
        "device": room.where.stat().st_dev,
        "catalog": str(home.local_folder(catalog_prefix(target.name, target.database))),
    }
    with file.open("w") as mine:
        fcntl.flock(mine, fcntl.LOCK_EX)
        json.dump(promise, mine)
        mine.flush()
        try:
            yield
        finally:
            file.unlink(missing_ok=True)


def _promised(folder: Path, where: Path) -> tuple[int, int]:
    """Return what others on the same file system still need, and how much of that is known for sure."""
    device = where.stat().st_dev
    promised = known = 0
    for file in folder.glob("*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError), file.open() as theirs:
            try:
                fcntl.flock(theirs, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                promise: dict[str, Any] = json.load(theirs)
                if promise["device"] == device:
                    left = max(0, int(promise["needed"]) - _written(Path(promise["catalog"])))
                    promised += left
                    known += left if promise["known"] else 0
            else:  # its process is dead
                file.unlink(missing_ok=True)
    return promised, known


def _written(catalog: Path) -> int:
    """Return how many bytes there are of the backups of a database that are not finished."""
    size = 0
    for mark in catalog.glob(f"*/{MARK}"):
        for above, _, names in os.walk(mark.parent):
            for name in names:
                with contextlib.suppress(OSError):  # renamed meanwhile
                    size += (Path(above) / name).stat().st_size
    return size


def _judge(target: Target, home: Store, room: Room, promised: int, known: int) -> tuple[str, ...]:
    assert room.free_bytes is not None
    lacking = room.needed_bytes + promised - room.free_bytes
    if lacking <= 0:
        return ()
    beside = f", {humanize_bytes(promised)} of it for backups that are made beside it" if promised else ""
    said = (
        f"store {home.name} needs {humanize_bytes(room.needed_bytes)} for the backup (estimated:"
        f" {room.estimated}), and {room.where} has {humanize_bytes(room.free_bytes)} free{beside}; free"
        f" {humanize_bytes(lacking)} there, keep fewer backups, or name another folder"
    )
    too_little = room.needed_bytes + known > room.free_bytes
    if too_little and target.settings.backup.disk_check and not room.is_guess:
        raise PreconditionError(f"{said}; if it will be less, disk_check = false makes this a warning")
    log.warning("%s", said)
    return (said,)
