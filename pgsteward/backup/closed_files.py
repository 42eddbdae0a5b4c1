"""Which files of a growing folder are finished: the kernel tells when their writer closes them (inotify)."""

from __future__ import annotations

import ctypes
import os
import select
import struct
from pathlib import Path
from types import TracebackType
from typing import Self

_CLOSE_WRITE, _MOVED_TO, _CREATE = 0x8, 0x80, 0x100
_IS_FOLDER = 0x40000000
_NONBLOCK, _CLOEXEC = os.O_NONBLOCK, os.O_CLOEXEC
_HEAD = struct.Struct("iIII")
_BUFFER_BYTES = 1 << 16

_libc = ctypes.CDLL(None, use_errno=True)


class ClosedFiles:
    """Tells each file of one folder once, after it was closed; the folder itself may be made later.

    What was closed before it was watched is not told: whoever needs all files looks again at the end.
    """

    def __init__(self, folder: Path) -> None:
        """Watch from now on.

        Args:
            folder: Its parent is there.

        Raises:
            OSError: This machine can't watch folders, or no more of them.
        """
        self._folder = folder
        self._told: set[str] = set()
        self._inside: int | None = None
        self._descriptor = _checked(_libc.inotify_init1(_NONBLOCK | _CLOEXEC), "watch folders")
        try:
            self._above = self._watch(folder.parent, _CREATE | _MOVED_TO)
            self._look_inside()
        except BaseException:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    def wait(self, timeout_s: float) -> list[Path]:
        """Return what was closed meanwhile, in order; empty after the timeout."""
        if not select.select([self._descriptor], [], [], timeout_s)[0]:
            return []
        try:
            data = os.read(self._descriptor, _BUFFER_BYTES)
        except BlockingIOError:
            return []
        found = []
        at = 0
        while at < len(data):
            watch, mask, _cookie, length = _HEAD.unpack_from(data, at)
            name = data[at + _HEAD.size : at + _HEAD.size + length].rstrip(b"\0").decode(errors="replace")
            at += _HEAD.size + length
            if watch == self._above:
                if name == self._folder.name:
                    self._look_inside()
            elif not mask & _IS_FOLDER and not name.startswith(".") and name not in self._told:
                self._told.add(name)
                found.append(self._folder / name)
        return found

    def _look_inside(self) -> None:
        if self._inside is None and self._folder.is_dir():
            self._inside = self._watch(self._folder, _CLOSE_WRITE | _MOVED_TO)

    def _watch(self, folder: Path, mask: int) -> int:
        return _checked(_libc.inotify_add_watch(self._descriptor, os.fsencode(folder), mask), str(folder))


def _checked(answer: int, what: str) -> int:
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return answer
