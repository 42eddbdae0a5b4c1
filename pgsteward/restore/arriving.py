"""Files that come down while those that are here already are loaded.

pg_restore opens a table's file when it comes to it, the largest first; it takes their sizes from the folder.
So the largest come down first. Once there is one for each of its workers it is started, and in the place of
every file that is still missing lies a named pipe. A worker that opens one waits there until the file has
come and all its bytes were checked; then it is fed from that file. Nothing is loaded that was not checked.
"""

from __future__ import annotations

import errno
import heapq
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from pgsteward.backup.beside import Beside
from pgsteward.backup.encryption import Identities
from pgsteward.backup.manifest import Manifest, StoredFile
from pgsteward.errors import PreconditionError
from pgsteward.progress import Progress
from pgsteward.restore.fetch import fetch, kept_as
from pgsteward.storage import Store

log = logging.getLogger(__name__)

_POLL_S = 0.2
_SOON_S, _LATE_S = 0.01, 5.0
"""How soon, and how rarely at last, a pipe whose file has come is looked at for somebody who waits there."""


@dataclass(slots=True, order=True)
class _Pipe:
    """Lies in the place of a file until that has come; whoever had opened it by then still reads from it."""

    next_look_s: float
    path: Path
    file: Path = field(compare=False)
    pause_s: float = field(default=_SOON_S, compare=False)


class Arriving:
    """The files of one restore on their way into a folder; leaving the block ends what is still at work."""

    def __init__(
        self,
        store: Store,
        prefix: str,
        manifest: Manifest,
        folder: Path,
        identities: Identities | None,
        progress: Progress,
    ) -> None:
        """Begin nothing yet; for the arguments see `pgsteward.restore.fetch.fetch`."""
        self._store, self._prefix, self._manifest = store, prefix, manifest
        self._folder, self._identities, self._progress = folder, identities, progress
        self._files = sorted(
            # the preflight has brought the table of contents, and it is being read
            (f for f in manifest.files if manifest.mode == "stream" or f.path != manifest.contents),
            key=lambda file: file.size_bytes,
            reverse=True,
        )
        self._changed = threading.Condition()
        self._here: set[str] = set()
        self._missing: dict[str, _Pipe] = {}
        self._replaced: list[_Pipe] = []  # a heap
        self._errors: list[BaseException] = []
        self._over = threading.Event()
        self._awaited = True
        self._download = Beside("download", self._bring)
        self._held = ExitStack()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._held.close()
        for thread in self._threads:
            thread.join(_POLL_S * 10)

    def bring(self, name: str) -> None:
        """Bring one file before the others begin to come; nothing where there is none of this name.

        Raises:
            StewardError: As of `pgsteward.restore.fetch.fetch`.
        """
        wanted = self._folder / name
        files = [file for file in self._files if kept_as(file, self._folder, self._identities) == wanted]
        fetch(self._store, self._prefix, self._manifest, files, self._folder, identities=self._identities)
        self._files = [file for file in self._files if file not in files]

    def begin(self) -> None:
        """Let the files come."""
        self._held.enter_context(self._download)

    def wait_for(self, count: int) -> None:
        """Wait until so many of the largest are here, and put pipes in the places of all that are not.

        Where the folder can hold no pipes, all files are waited for.

        Raises:
            StewardError: What ended the download.
        """
        wanted = {file.path for file in self._files[:count]}
        with self._changed:
            while not wanted <= self._here:
                self.check()
                self._changed.wait(_POLL_S)
            can_begin = self._put_pipes()
        if not can_begin:
            self.wait_for_all()
            return
        self._awaited = False
        self._start(self._look_for_readers)

    def wait_for_all(self) -> None:
        """Wait until every file is in its place.

        Raises:
            StewardError: What ended the download, or kept a pipe from being fed.
        """
        self._awaited = True
        self._download.result()
        self.check()

    def check(self) -> None:
        """Raise what went wrong so far."""
        if self._errors:
            raise self._errors[0]

    def _bring(self, still_wanted: Callable[[], None]) -> None:
        try:
            fetch(
                self._store,
                self._prefix,
                self._manifest,
                self._files,
                self._folder,
                self._tell,
                self._identities,
                self._arrived,
                still_wanted,
            )
        except BaseException as exc:
            self._errors.append(exc)
            raise

    def _tell(self, what: str, done: int = 0, total: int = 0) -> None:
        if self._awaited:
            self._progress(what, done, total)

    def _arrived(self, file: StoredFile) -> None:
        with self._changed:
            self._here.add(file.path)
            if (pipe := self._missing.pop(file.path, None)) is not None:
                heapq.heappush(self._replaced, pipe)
            self._changed.notify_all()

    def _put_pipes(self) -> bool:
        """Return whether the folder can hold them; a network share may not."""
        pipes = self._folder / "pipes"
        pipes.mkdir(mode=0o700)
        for number, file in enumerate(self._files):
            if file.path in self._here:
                continue
            pipe = _Pipe(0.0, pipes / str(number), kept_as(file, self._folder, self._identities))
            try:
                pipe.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                os.mkfifo(pipe.path, 0o600)
                pipe.file.hardlink_to(pipe.path)  # which never displaces a file that has just come
            except FileExistsError:
                continue
            except OSError as exc:
                if self._missing:  # it could hold the first one
                    raise PreconditionError(f"{pipes} can hold no more pipes: {exc.strerror}") from exc
                log.info("nothing is loaded before all files are here: %s holds no pipes (%s)", pipes, exc)
                return False
            self._missing[file.path] = pipe
        return True

    def _look_for_readers(self) -> None:
        """Feed whoever waits at a pipe whose file has come.

        One that found the pipe in the file's place may still be on its way into it: so none is ever given up.
        """
        while not self._over.wait(_SOON_S):
            while (pipe := self._next_due()) is not None:
                try:
                    end = os.open(pipe.path, os.O_WRONLY | os.O_NONBLOCK)
                except OSError as exc:
                    if exc.errno != errno.ENXIO:
                        self._errors.append(PreconditionError(f"{pipe.path} can't be opened: {exc.strerror}"))
                        return
                    pipe.next_look_s = time.monotonic() + pipe.pause_s
                    pipe.pause_s = min(_LATE_S, 2 * pipe.pause_s)
                    with self._changed:
                        heapq.heappush(self._replaced, pipe)
                else:
                    self._start(partial(self._feed, end, pipe.file))

    def _next_due(self) -> _Pipe | None:
        with self._changed:
            if self._replaced and self._replaced[0].next_look_s <= time.monotonic():
                return heapq.heappop(self._replaced)
        return None

    def _feed(self, end: int, file: Path) -> None:
        try:
            os.set_blocking(end, True)
            with os.fdopen(end, "wb") as pipe, file.open("rb") as source:
                shutil.copyfileobj(source, pipe, 1 << 20)
        except BrokenPipeError:
            pass  # pg_restore has ended, and says why
        except OSError as exc:
            self._errors.append(PreconditionError(f"{file} can't be read again: {exc.strerror}"))

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, name="feed pg_restore", daemon=True)
        self._threads.append(thread)
        thread.start()
