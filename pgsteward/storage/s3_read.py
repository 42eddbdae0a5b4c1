"""The bytes of an object, in order: from one request, or from several at the same time where one is slow.

S3 sends 85 to 90 MB/s over one connection, however wide the line is, and wants more of them to fill it
(Performance guidelines for Amazon S3, "Horizontal scaling"). Some other stores hash the whole object before
they answer: a store that takes long to begin is asked once.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Self

from pgsteward.errors import StewardError, StoreFailed, StoreUnavailable
from pgsteward.storage import CHUNK_BYTES
from pgsteward.storage.s3_body import Pace

STREAMS = 4
"""Requests for one object at the same time, as `rclone copy` has them."""
PIECE_BYTES = 8 << 20
ROOM_PIECES = 6
"""How many pieces of all objects of a store are in memory at most, but for those that are taken out."""
SLOW_BYTES_PER_S = 100e6
TRIED_BYTES = 16 << 20
"""How much must have come before a connection is judged."""
WORTH_BYTES = 64 << 20
"""How much must be left."""
FIRST_BYTE_S = 1.0
"""A store that takes longer to begin its answers is asked once: it may read the whole object for each."""
_POLL_S = 0.2
_RANGE = re.compile(r"bytes (\d+)-(\d+)/")

Get = Callable[..., dict[str, Any]]
Translate = Callable[[str, str], AbstractContextManager[None]]


@dataclass(slots=True)
class _Object:
    """What the answers for one object have told so far."""

    key: str
    etag: str = ""
    size_bytes: int = 0
    came_bytes: int = 0
    waited_s: float = 0.0
    answers: int = 0
    began_s: float = 0.0

    @property
    def begins_late(self) -> bool:
        """True where answers take long to begin on the average: a single late one says nothing."""
        return self.began_s > FIRST_BYTE_S * self.answers

    def is_range(self, answer: dict[str, Any], begin: int, end: int | None) -> bool:
        """Tell whether an answer holds the bytes asked for, perhaps less, of this object.

        Some stores ignore If-Match, so its ETag is looked at as well.
        """
        told = _RANGE.match(str(answer.get("ContentRange")))
        return (
            told is not None
            and int(told[1]) == begin
            and (end is None or int(told[2]) < end)
            and answer.get("ETag") == self.etag
        )

    def is_slow(self, at: int) -> bool:
        """True where several requests for the rest are worth a try."""
        return (
            self.came_bytes >= TRIED_BYTES
            and self.size_bytes - at >= WORTH_BYTES
            and self.came_bytes < SLOW_BYTES_PER_S * self.waited_s
            and not self.begins_late
            and bool(self.etag)
        )


class Reads:
    """Reads the objects of one store."""

    def __init__(self, get: Get, translating: Translate, pace: Pace, retries: int) -> None:
        """Contact nothing yet.

        Args:
            get: Asks for the object of a key; takes what `get_object` takes besides, and returns its answer.
            translating: Turns boto3's errors into ours.
            pace: The store's.
            retries: How often one answer that breaks off is carried on.
        """
        self._get, self._translating, self._pace, self._retries = get, translating, pace, retries
        self.room = threading.Semaphore(ROOM_PIECES)

    def chunks(self, key: str) -> Iterator[bytes]:
        """Yield the bytes of an object; what breaks off is carried on from there, if it is still the same."""
        what = _Object(key)
        at = 0
        ahead: _Ahead | None = None
        may_try = True
        with contextlib.ExitStack() as stack:
            whole = stack.enter_context(contextlib.closing(self.span(what, 0)))
            for chunk in whole:
                if ahead is not None and at + len(chunk) >= ahead.at:
                    if ahead.has_come():
                        yield chunk[: ahead.at - at]
                        break
                    ahead.close()
                    ahead = None
                at += len(chunk)
                yield chunk
                if may_try and what.is_slow(at):
                    may_try = False
                    ahead = stack.enter_context(_Ahead(self, what, at + PIECE_BYTES))
            if ahead is not None:
                whole.close()
                yield from ahead.chunks()

    def span(self, what: _Object, begin: int, end: int | None = None) -> Generator[bytes, None, None]:
        """Yield the bytes from one offset on, up to another one or to the object's end.

        Raises:
            StoreUnavailable: It broke off too often, is another object now, or the store takes no ranges.
            FileNotFoundError: There is no such object.
        """
        at = begin
        broken: StoreUnavailable | None = None
        for pause_s in (0.2 * 2**tried for tried in range(1 + self._retries)):
            part = broken is not None or begin > 0 or end is not None
            last = "" if end is None else end - 1
            asked = time.monotonic()
            try:
                with self._translating("read", what.key):
                    rest = {"Range": f"bytes={at}-{last}", "IfMatch": what.etag} if part else {}
                    answer = self._get(what.key, **rest)
            except (StoreFailed, FileNotFoundError):
                if broken is None:
                    raise
                raise broken from None
            if part and not what.is_range(answer, at, end):
                answer["Body"].close()
                raise broken or StoreUnavailable(
                    f"{what.key!r}: the store does not answer with the range asked for, or of another object"
                )
            if not part:
                what.etag, what.size_bytes = answer.get("ETag", ""), answer.get("ContentLength", 0)
            try:
                for chunk in self._body(what, answer["Body"], asked):
                    at += len(chunk)
                    yield chunk
                if end is None or at >= end:
                    return
                broken = StoreUnavailable(
                    f"{what.key!r}: the store answers with less than the range asked for"
                )
            except StoreUnavailable as exc:
                if not what.etag:
                    raise  # nothing says whether the rest is of the same object
                broken = exc
            time.sleep(min(pause_s, 5.0))
        assert broken is not None
        raise broken

    def _body(self, what: _Object, body: Any, asked: float) -> Iterator[bytes]:
        with contextlib.closing(body):
            first = True
            while True:
                began = time.monotonic()
                with self._translating("read", what.key):
                    chunk: bytes = body.read(CHUNK_BYTES)
                ended = time.monotonic()
                if first:
                    what.answers += 1
                    what.began_s += ended - asked
                else:
                    what.came_bytes += len(chunk)
                    what.waited_s += ended - began
                first = False
                if not chunk:
                    return
                self._pace.wait(len(chunk))
                yield chunk


class _Ahead:
    """The rest of an object in pieces, some of them on their way at the same time."""

    def __init__(self, reads: Reads, what: _Object, at: int) -> None:
        """Ask for the first pieces.

        Args:
            reads: Of the store.
            what: The object, of which an answer has come already.
            at: Where the rest begins.
        """
        self.at = at
        self._reads, self._what = reads, what
        self._asked = at
        self._pieces: deque[_Piece] = deque()
        self._fill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def has_come(self) -> bool:
        """Wait for the first piece, and say whether it is there: whether the store does it this way."""
        return bool(self._pieces) and self._pieces[0].chunks() is not None

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes; whatever is wrong with a piece, one request asks for all that is left then."""
        what = self._what
        while self.at < what.size_bytes:
            self._fill()
            if not self._pieces:  # other readers have all the room
                end = min(self.at + PIECE_BYTES, what.size_bytes)
                yield from self._reads.span(what, self.at, end)
                self.at = self._asked = end
                continue
            found = self._pieces.popleft().taken()
            for chunk in found or ():
                self.at += len(chunk)
                yield chunk
            if found is None or what.begins_late:
                self.close()
                if self.at < what.size_bytes:
                    yield from self._reads.span(what, self.at)
                return

    def close(self) -> None:
        """Give up what is on its way."""
        while self._pieces:
            self._pieces.popleft().give_up()

    def _fill(self) -> None:
        size = self._what.size_bytes
        while self._asked < size and len(self._pieces) < STREAMS and self._reads.room.acquire(blocking=False):
            end = min(self._asked + PIECE_BYTES, size)
            self._pieces.append(_Piece(self._reads, self._what, self._asked, end))
            self._asked = end


class _Piece:
    """Some bytes of an object, read by a thread of their own into memory."""

    def __init__(self, reads: Reads, what: _Object, begin: int, end: int) -> None:
        """Begin to read; `reads.room` was asked for the room.

        Args:
            reads: Of the store.
            what: The object.
            begin: Offset of the first byte.
            end: Of the first one that does not belong to it.
        """
        self._reads = reads
        self._chunks: list[bytes] = []
        self._whole = False
        self._unwanted = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(what, begin, end), name="read ahead", daemon=True
        )
        self._thread.start()

    def chunks(self) -> list[bytes] | None:
        """Wait, and return the bytes; None when they could not be read."""
        while self._thread.is_alive():
            self._thread.join(_POLL_S)
        return self._chunks if self._whole else None

    def taken(self) -> list[bytes] | None:
        """Return the same; its room is free again."""
        try:
            return self.chunks()
        finally:
            self.give_up()

    def give_up(self) -> None:
        """Free its room, without waiting for a store that has stopped answering."""
        self._unwanted.set()
        self._reads.room.release()

    def _run(self, what: _Object, begin: int, end: int) -> None:
        # whoever wants what could not be read asks for it again, and is told why
        with (
            contextlib.suppress(StewardError, OSError),
            contextlib.closing(self._reads.span(what, begin, end)) as span,
        ):
            for chunk in span:
                if self._unwanted.is_set():
                    return
                self._chunks.append(chunk)
            self._whole = True
