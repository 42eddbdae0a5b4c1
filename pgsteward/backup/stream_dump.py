"""A custom-format archive straight into a store: no local file, flat memory."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from pgsteward.backup.encryption import Recipients, Writer
from pgsteward.clients import Client
from pgsteward.errors import ToolFailed
from pgsteward.pgtools import run_tool

FIRST_LOOK_BYTES = 256 << 10
_PIECE_BYTES = 1 << 18
_PIPE_BYTES = 1 << 20
_CUT_OFF = "end of file"


class ArchiveHead:
    """The beginning of a custom-format archive, in memory: its table of contents, and little more.

    It says everything but the rows: entries, schema, sequence positions. pg_restore reads it through `path`
    as it would read the whole archive, and answers "end of file" as long as the contents are not complete.
    """

    def __init__(self, client: Client) -> None:
        """Begin with nothing.

        Args:
            client: Its pg_restore is asked whether the contents are complete.
        """
        self._client = client
        self._fd = os.memfd_create("pgsteward-archive-head")
        self._size = 0
        self._next_look = FIRST_LOOK_BYTES
        self.complete = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    @property
    def path(self) -> Path:
        """Where children of ours can read it."""
        return Path(f"/proc/{os.getpid()}/fd/{self._fd}")

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the archive, as long as some of the contents are missing.

        Raises:
            ToolFailed: pg_restore can't read this archive at all, or there is no room for it.
        """
        if self.complete:
            return
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as exc:  # a limit on file sizes counts for files in memory too
            raise ToolFailed(f"the archive's contents can't be kept in memory: {exc.strerror}") from exc
        self._size += len(data)
        if self._size >= self._next_look:
            self._next_look = self._size * 2
            self.complete = self._is_complete()

    def end(self) -> None:
        """Take note that this was the whole archive.

        Raises:
            ToolFailed: pg_restore can't read it.
        """
        if not self.complete:
            self._list()
            self.complete = True

    def _is_complete(self) -> bool:
        try:
            self._list()
        except ToolFailed as exc:
            if _CUT_OFF in str(exc):
                return False
            raise
        return True

    def _list(self) -> None:
        run_tool([self._client.tool("pg_restore"), "--list", self.path], env={})


class StreamDestination:
    """One custom-format archive through pg_dump's standard output, encrypted on its way if asked for."""

    def __init__(self, sink: Writer, recipients: Recipients | None, head: ArchiveHead) -> None:
        self._sink, self._recipients, self._head = sink, recipients, head
        self._taken = 0

    @property
    def contents(self) -> Path:
        return self._head.path

    def contents_stamp(self) -> None:
        return None  # nothing of a stream is written again

    def arguments(self, jobs: int) -> tuple[str, ...]:
        return ("--format=custom",)

    def file_argument(self) -> tuple[str, ...]:
        return ()

    @property
    def take_stdout(self) -> Callable[[IO[bytes]], None]:
        return self._take

    def has_begun(self) -> bool:
        """Tell whether a byte has arrived: pg_dump writes none before it holds all its locks."""
        return self._taken > 0

    def bytes_written(self) -> int:
        return self._taken

    def _take(self, pipe: IO[bytes]) -> None:
        with contextlib.suppress(OSError):  # room for a moment's work at either end
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        source = _Watched(pipe, self)
        if self._recipients is not None:
            self._recipients.encrypt(source, self._sink)
            return
        while piece := source.read(_PIECE_BYTES):
            self._sink.write(piece)

    def _saw(self, piece: bytes) -> None:
        self._taken += len(piece)
        self._head.feed(piece)


class _Watched:
    """Reads what is there rather than waiting for a full piece."""

    def __init__(self, pipe: IO[bytes], by: StreamDestination) -> None:
        self._descriptor = pipe.fileno()
        self._by = by

    def read(self, size: int, /) -> bytes:
        piece = os.read(self._descriptor, size)
        if piece:
            self._by._saw(piece)
        return piece
