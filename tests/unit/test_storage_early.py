"""What is not on the disk yet is asked of the kernel, which tells it since Linux 6.5 (cachestat)."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from pgsteward.config import StoreConfig
from pgsteward.storage import open_store
from pgsteward.storage.early import STEP_BYTES, written_early

Growing = tuple[Path, Callable[[bytes], object]]

_CACHESTAT = 451
_libc = ctypes.CDLL(None, use_errno=True)


def _not_on_disk(path: Path) -> int:
    """Return how many pages of a file are in memory only."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        whole, told = (ctypes.c_uint64 * 2)(0, 0), (ctypes.c_uint64 * 5)()
        if _libc.syscall(_CACHESTAT, descriptor, whole, told, 0) != 0:
            raise OSError(ctypes.get_errno(), "cachestat")
        return told[1] + told[2]
    finally:
        os.close(descriptor)


def _can_ask() -> bool:
    try:
        _not_on_disk(Path(__file__))
    except OSError:
        return False
    return True


@contextmanager
def _growing_folder(folder: Path) -> Iterator[Growing]:
    with written_early(folder):
        folder.mkdir()
        with (folder / "4711.dat").open("wb", buffering=0) as file:
            yield folder / "4711.dat", file.write


@contextmanager
def _growing_object(folder: Path) -> Iterator[Growing]:
    store = open_store("disk", StoreConfig(url=folder.as_uri()))
    with store.writing("dump.pgc", 10 * STEP_BYTES) as sink:
        (partial,) = folder.iterdir()
        yield partial, sink.write


@pytest.mark.skipif(not _can_ask(), reason="needs cachestat, of Linux 6.5")
@pytest.mark.parametrize("growing", [_growing_folder, _growing_object])
def test_what_grows_is_on_disk_before_anybody_waits_for_it(
    growing: Callable[[Path], AbstractContextManager[Growing]], tmp_path: Path
) -> None:
    with growing(tmp_path / "later") as (path, write):
        for _ in range(2):  # also what it has grown by since
            write(os.urandom(2 * STEP_BYTES))
            deadline = time.monotonic() + 20  # by itself the kernel would begin after 30 s
            while _not_on_disk(path) * os.sysconf("SC_PAGE_SIZE") >= STEP_BYTES:
                assert time.monotonic() < deadline
                time.sleep(0.05)
