"""Which files of a growing folder are finished: the kernel tells when their writer closes them (inotify)."""

from __future__ import annotations

import ctypes
import os
import select
import struct
from pathlib import Path
from types import TracebackType
from typing import Self

_CLOSE_WRITE, _MOVED_TO, _OVERFLOW = 0x8, 0x80, 0x4000
_IS_FOLDER = 0x40000000
_NONBLOCK, _CLOEXEC = os.O_NONBLOCK, os.O_CLOEXEC
_HEAD = struct.Struct("iIII")
_BUFFER_BYTES = 1 << 16

_libc = ctypes.CDLL(None, use_errno=True)


class ClosedFiles:
    """Tells each file of one folder each time after it was closed.

    What was closed before it was watched is not told: whoever needs all files looks again at the end.

    Attributes:
        has_missed_some: The kernel could not remember all that was closed.
    """

    def __init__(self, folder: Path) -> None:
        """Watch from now on.

        Args:
            folder: Is made, for this user alone, where it is not there yet: whoever watched for somebody
                else to make it could come too late for its first files. Its parent is there.

        Raises:
            OSError: This machine can't watch folders, or no more of them.
        """
        self.has_missed_some = False
        self._folder = folder
        folder.mkdir(mode=0o700, exist_ok=True)
        self._descriptor = _checked(_libc.inotify_init1(_NONBLOCK | _CLOEXEC), "watch folders")
        self._awake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            path = os.fsencode(folder)
            watch = _libc.inotify_add_watch(self._descriptor, path, _CLOSE_WRITE | _MOVED_TO)
            _checked(watch, str(folder))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Watch no longer."""
        os.close(self._descriptor)
        os.close(self._awake)

    def wake(self) -> None:
        """End the wait of another thread, and each one that comes after it."""
        os.eventfd_write(self._awake, 1)

    def wait(self, timeout_s: float | None = None) -> list[Path]:
        """Return what was closed meanwhile, in order; empty after the timeout, or when it is woken."""
        ready = select.select([self._descriptor, self._awake], [], [], timeout_s)[0]
        return self._read() if self._descriptor in ready else []

    def take(self) -> list[Path]:
        """Return everything that was closed until now, in order."""
        found: list[Path] = []
        while select.select([self._descriptor], [], [], 0)[0]:
            found += self._read()
        return found

    def _read(self) -> list[Path]:
        data = os.read(self._descriptor, _BUFFER_BYTES)
        found = []
        at = 0
        while at < len(data):
            _watch, mask, _cookie, length = _HEAD.unpack_from(data, at)
            name = data[at + _HEAD.size : at + _HEAD.size + length].rstrip(b"\0").decode(errors="replace")
            at += _HEAD.size + length
            if mask & _OVERFLOW:
                self.has_missed_some = True
            elif name and not mask & _IS_FOLDER and not name.startswith("."):
                found.append(self._folder / name)
        return found


def _checked(answer: int, what: str) -> int:
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return answer
