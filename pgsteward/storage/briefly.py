"""Clean-up of a run that is told to stop: it must not wait for a store that has stopped answering."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

LONGEST_S = 3.0


def briefly(work: Callable[[], object], longest_s: float = LONGEST_S) -> None:
    """Do something in a thread of its own, and go on after a while all the same: a janitor comes.

    Its errors are dropped: another one is on its way already.
    """

    def run() -> None:
        with contextlib.suppress(Exception):
            work()

    thread = threading.Thread(target=run, name="clean up", daemon=True)
    thread.start()
    thread.join(longest_s)


@contextlib.contextmanager
def cleared_by(work: Callable[[], object]) -> Iterator[None]:
    """Do something after a block in any case; only briefly, where the block was told to stop."""
    try:
        yield
    except Exception:
        work()
        raise
    except BaseException:
        briefly(work)
        raise
    work()
