"""Several VACUUMs, one after the other or side by side, within a time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from queue import SimpleQueue

from pgsteward.config import VacuumConfig
from pgsteward.postgres import Connection, Login, connect
from pgsteward.progress import Progress
from pgsteward.vacuum_plan import Due
from pgsteward.vacuum_run import Outcome, vacuum


@dataclass(frozen=True, slots=True)
class Crew:
    """Works on a list of tables; what is locked is left, and tried once more when all others are done.

    Attributes:
        login: For one session per table that is worked on at the same time.
        settings: How many that are, and the limits.
        deadline: Of `time.monotonic`; after it only what is for its age is begun.
        progress: Told about tables.
    """

    login: Login
    settings: VacuumConfig
    deadline: float
    progress: Progress

    def work(self, dues: Sequence[Due]) -> list[Outcome]:
        """Vacuum them, and return what came of each."""
        if not dues:
            return []
        with ExitStack() as stack:
            crew = [self._session(stack) for _ in range(min(self.settings.parallel_tables, len(dues)))]
            idle: SimpleQueue[Connection] = SimpleQueue()
            for connection in crew:
                idle.put(connection)
            pool = stack.enter_context(ThreadPoolExecutor(len(crew), thread_name_prefix="vacuum"))

            def each(todo: Sequence[Due], *, wait: bool) -> list[Outcome]:
                futures = [pool.submit(self._one, idle, due, wait or due.for_age) for due in todo]
                outcomes = []
                for done, (due, future) in enumerate(zip(todo, futures, strict=True)):
                    self.progress(f"VACUUM {due.relation.qualified}", done, len(todo))
                    outcomes.append(future.result())
                return outcomes

            try:
                outcomes = each(dues, wait=False)
                again = [one.due for one in outcomes if one.verdict == "locked" and not one.due.for_age]
                return [one for one in outcomes if one.due not in again] + each(again, wait=True)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for connection in crew:
                    connection.cancel()
                raise

    def _session(self, stack: ExitStack) -> Connection:
        return stack.enter_context(
            connect(
                self.login,
                purpose="vacuum",
                lock_timeout_s=self.settings.lock_timeout_s,
                statement_timeout_s=self.settings.statement_timeout_s,
            )
        )

    def _one(self, idle: SimpleQueue[Connection], due: Due, wait: bool) -> Outcome:
        if time.monotonic() >= self.deadline and not due.for_age:
            return Outcome(
                due, "skipped", f"{due.reason}; the time of this run is over, the next one does it"
            )
        connection = idle.get()
        try:
            limits = due.candidate.freeze_limits(self.settings.freeze_fraction)
            return vacuum(connection, due, limits, self.settings.buffer_usage_limit, wait=wait)
        finally:
            idle.put(connection)
