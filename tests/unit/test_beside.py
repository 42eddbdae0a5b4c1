"""Work beside a dump ends with its block, and says how it ended."""

import contextvars
import threading
from collections.abc import Callable

import pytest

from pgsteward.backup.beside import Abandoned, Beside

PATIENCE_S = 30.0


def test_the_result_is_waited_for() -> None:
    go = threading.Event()

    def work(still_wanted: Callable[[], None]) -> int:
        assert go.wait(PATIENCE_S)
        return 7

    with Beside("work", work) as beside:
        go.set()
        assert beside.result() == 7


def test_the_work_knows_the_run_that_it_is_part_of() -> None:
    """Prefect keeps it in a context variable, and drops log lines of threads that have none."""
    run = contextvars.ContextVar("run", default="none")
    run.set("nightly")
    with Beside("work", lambda still_wanted: run.get()) as beside:
        assert beside.result() == "nightly"


def test_an_error_is_raised_where_the_result_is_wanted() -> None:
    def work(still_wanted: Callable[[], None]) -> int:
        raise ValueError("no")

    with Beside("work", work) as beside, pytest.raises(ValueError, match="no"):
        beside.result()


def test_leaving_the_block_ends_the_work() -> None:
    seen: list[BaseException] = []
    over = threading.Event()

    def work(still_wanted: Callable[[], None]) -> None:
        try:
            while not over.wait(0.001):
                still_wanted()
        except Abandoned as exc:
            seen.append(exc)
            raise

    with pytest.raises(KeyError), Beside("work", work):
        raise KeyError
    over.set()
    assert len(seen) == 1
    assert not any(thread.name == "work" for thread in threading.enumerate())
