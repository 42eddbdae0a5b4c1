"""What a request to S3 sends: a piece of a file or of memory, as fast as the store's limit allows."""

from __future__ import annotations

import base64
import hashlib
import io
import mmap
import os
import threading
import time
from collections.abc import Callable

from pgsteward.errors import StoreFailed

_PIECE_BYTES = 1 << 20


class Pace:
    """Lets all requests of one store together move no more than so many bytes per second."""

    def __init__(self, bytes_per_s: int | None) -> None:
        self._bytes_per_s = bytes_per_s
        self._lock = threading.Lock()
        self._free_at = 0.0

    def wait(self, size: int) -> None:
        """Wait until `size` more bytes may pass."""
        if self._bytes_per_s is None or not size:
            return
        with self._lock:
            now = time.monotonic()
            begin = max(now, self._free_at)
            self._free_at = begin + size / self._bytes_per_s
        time.sleep(max(0.0, begin - now))


class Body(io.RawIOBase):
    """Bytes to send, as a file of its own; memory stays flat whatever their number.

    botocore may read it once for the signature before it is sent: only what is sent takes time.
    """

    def __init__(self, read_at: Callable[[int, int], bytes], length: int, pace: Pace) -> None:
        """Read nothing yet.

        Args:
            read_at: Returns some bytes at an offset, at most so many, and at least one.
            length: How many there are.
            pace: The store's.
        """
        self._read_at, self._length, self._pace = read_at, length, pace
        self._at = 0
        self._sending = False

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def __len__(self) -> int:
        return self._length

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length}[whence]
        self._at = max(0, base + offset)
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._length - self._at)
        wanted = left if size is None or size < 0 else min(size, left)
        if not wanted:
            return b""
        data = self._read_at(self._at, wanted)
        self._at += len(data)
        if self._sending:
            self._pace.wait(len(data))
        return data

    def signal_transferring(self) -> None:
        """Called by boto3 when what is read is sent."""
        self._sending = True

    def signal_not_transferring(self) -> None:
        """Called by boto3 when what is read is only hashed."""
        self._sending = False

    def sha256(self) -> str:
        """Return the SHA-256 of all of it in base64, as S3 takes it."""
        return self._digest("sha256")

    def md5(self) -> str:
        """Return the MD5 of all of it in base64: what a store wants beside Object Lock."""
        return self._digest("md5")

    def _digest(self, name: str) -> str:
        digest = hashlib.new(name, usedforsecurity=False)
        at = 0
        while at < self._length:
            data = self._read_at(at, min(_PIECE_BYTES, self._length - at))
            digest.update(data)
            at += len(data)
        return base64.b64encode(digest.digest()).decode()


def file_body(file: io.BufferedReader, start: int, length: int, pace: Pace) -> Body:
    """Return a piece of an open file; several may be read at the same time."""

    def read_at(offset: int, size: int) -> bytes:
        data = os.pread(file.fileno(), size, start + offset)
        if not data:
            raise StoreFailed(f"{getattr(file, 'name', 'the file')} became shorter while it was stored")
        return data

    return Body(read_at, length, pace)


def memory_body(data: bytes | mmap.mmap, pace: Pace, length: int | None = None) -> Body:
    """Return what lies in memory, or its beginning, without another copy of it."""
    return Body(lambda at, size: data[at : at + size], len(data) if length is None else length, pace)
