"""Work beside a dump: in a thread of its own, ended with the block that it belongs to."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Generic, Self, TypeVar

T = TypeVar("T")


class Abandoned(Exception):
    """The block was left before the work was done."""


class Beside(Generic[T]):
    """Runs one function from the beginning of a block on; whatever it raises is raised by `result`.

    Children of it live at most as long as its thread does, which is what `pgsteward.pgtools` asks for.
    """

    def __init__(self, name: str, work: Callable[[Callable[[], None]], T]) -> None:
        """Begin nothing yet.

        Args:
            name: Of the thread.
            work: Gets what it has to call now and then: it raises once the block is left.
        """
        self._work = work
        self._over = threading.Event()
        self._results: list[T] = []
        self._error: BaseException | None = None
        here = contextvars.copy_context()  # by which Prefect knows whose a log line is
        self._thread = threading.Thread(target=here.run, args=(self._run,), name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def result(self) -> T:
        """Wait for the end of the work and return what it returned; what it raised is raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._results[0]

    def _run(self) -> None:
        try:
            self._results.append(self._work(self._still_wanted))
        except BaseException as exc:  # noqa: BLE001 - raised again by whoever wants the result
            self._error = exc

    def _still_wanted(self) -> None:
        if self._over.is_set():
            raise Abandoned
