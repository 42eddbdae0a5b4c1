"""Several sessions of one operation at work at the same time, each with one item after the other.

Decisions stay in the caller's thread: it hands items out, and what came of each comes back there.
"""

from __future__ import annotations

import contextvars
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Generic, Self, TypeVar, cast

from pgsteward.errors import DatabaseUnavailable
from pgsteward.postgres import Connection

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

_END_S = 8.0
"""How long a cancelled statement may take to end before it is left to the server."""


class Workers(Generic[Item, Outcome]):
    """Up to `count` sessions; leaving the block early cancels what they are doing on the server as well.

    Sessions are opened when they are needed. Where the server has no room for a further one, those that are
    there do the work.
    """

    def __init__(
        self, open_session: Callable[[], Connection], count: int, work: Callable[[Connection, Item], Outcome]
    ) -> None:
        """Begin nothing yet.

        Args:
            open_session: Opens one more session.
            count: How many at most.
            work: Does one item in one session; runs in a thread of its own.
        """
        self._open = open_session
        self._count = count
        self._work = work
        self._sessions: list[Connection] = []
        self._threads: list[threading.Thread] = []
        self._todo: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[Item, Outcome | None, BaseException | None]] = queue.SimpleQueue()
        self.busy = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _ in self._threads:
            self._todo.put(None)
        if self.busy:
            for session in self._sessions:
                session.cancel()
        for thread in self._threads:
            thread.join(_END_S)
        for session in self._sessions:
            session.close()

    @property
    def has_room(self) -> bool:
        """Whether one more item would be begun at once."""
        return self.busy < self._count

    def begin(self, item: Item) -> None:
        """Hand out one item.

        Raises:
            DatabaseUnavailable: Not even one session can be had.
        """
        if self.busy == len(self._threads) < self._count:
            self._add_session()
        self._todo.put(item)
        self.busy += 1

    def next(self) -> tuple[Item, Outcome]:
        """Wait for an item that is done; what its work raised is raised."""
        item, outcome, error = self._done.get()
        self.busy -= 1
        if error is not None:
            raise error
        return item, cast("Outcome", outcome)

    def _add_session(self) -> None:
        try:
            session = self._open()
        except DatabaseUnavailable as exc:
            if not self._sessions:
                raise
            self._count = len(self._sessions)
            log.warning("%d sessions do the work of more: %s", self._count, exc)
            return
        self._sessions.append(session)
        context = contextvars.copy_context()  # whose run the log lines belong to
        thread = threading.Thread(target=context.run, args=(self._run, session), name="worker", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self, session: Connection) -> None:
        while (item := self._todo.get()) is not None:
            try:
                self._done.put((item, self._work(session, item), None))
            except BaseException as exc:  # noqa: BLE001 - raised again by `next`
                self._done.put((item, None, exc))


def share_out(
    items: Sequence[Item],
    count: int,
    open_session: Callable[[], Connection],
    work: Callable[[Connection, Item], Outcome],
) -> list[Outcome]:
    """Do all of some items by several sessions, and return what came of each, in the order of the items.

    Args:
        items: The longest come first; who is free takes the next one.
        count: Sessions at most.
        open_session: Opens one more.
        work: Does one item in one session. What it raises ends the others' statements, and is raised.
    """
    waiting = deque(enumerate(items))
    outcomes: dict[int, Outcome] = {}

    def one(session: Connection, numbered: tuple[int, Item]) -> Outcome:
        return work(session, numbered[1])

    with Workers(open_session, count, one) as workers:
        while waiting or workers.busy:
            while waiting and workers.has_room:
                workers.begin(waiting.popleft())
            (number, _), outcome = workers.next()
            outcomes[number] = outcome
    return [outcomes[number] for number in range(len(items))]
