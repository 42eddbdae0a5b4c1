"""Lets the disk write a large file while it grows, so that little is left when somebody waits for all of it.

The kernel keeps what is written in memory for half a minute, or until an ``fsync`` asks for it: the disk has
nothing to do all the while, and then the processors. Nothing is promised here: who promises syncs as before.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

STEP_BYTES = 4 << 20
"""A file that has grown by less is left alone."""
_PAUSE_S = 0.1
_SHARE = 50
"""Of a folder with many files: it is looked at for this part of the time at most."""

_WRITE = 2
"""Begin to write what is not being written yet; an error of it is left to the ``fsync`` that follows."""
_begin: Any = getattr(ctypes.CDLL(None), "sync_file_range", None)
if _begin is not None:
    _begin.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


def begin_to_write(descriptor: int) -> None:
    """Have the disk begin with what is not written yet of an open file, and wait for nothing."""
    if _begin is not None:  # not another system
        _begin(descriptor, 0, 0, _WRITE)  # a file system that can't says so, and syncs at the end


@contextlib.contextmanager
def written_early(path: Path) -> Iterator[None]:
    """Have the disk write a file, or the files in a folder, that grow inside the block.

    Args:
        path: It may be made later.
    """
    if _begin is None:  # another system
        yield
        return
    over = threading.Event()
    follower = threading.Thread(target=_follow, args=(path, over), name="early writing", daemon=True)
    follower.start()
    try:
        yield
    finally:
        over.set()
        follower.join()


def _follow(path: Path, over: threading.Event) -> None:
    asked: dict[str, int] = {}
    pause_s = _PAUSE_S
    while not over.wait(pause_s):
        began = time.monotonic()
        for name, size in _sizes(path):
            if size - asked.get(name, 0) >= STEP_BYTES:
                asked[name] = size
                _begin_to_write(name)
        pause_s = max(_PAUSE_S, _SHARE * (time.monotonic() - began))


def _sizes(path: Path) -> Iterator[tuple[str, int]]:
    with contextlib.suppress(OSError):  # not there yet, or gone: a help that nobody relies on
        status = path.stat()
        if not stat.S_ISDIR(status.st_mode):
            yield str(path), status.st_size
            return
        with os.scandir(path) as entries:
            for entry in entries:
                yield entry.path, entry.stat().st_size


def _begin_to_write(name: str) -> None:
    with contextlib.suppress(OSError):
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            begin_to_write(descriptor)
        finally:
            os.close(descriptor)
