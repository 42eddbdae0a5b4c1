"""Several VACUUMs, one after the other or side by side, within a time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from pgsteward.config import VacuumConfig
from pgsteward.postgres import Connection, Login, connect
from pgsteward.progress import Progress
from pgsteward.vacuum_plan import Due
from pgsteward.vacuum_run import Outcome, vacuum
from pgsteward.workers import Workers


@dataclass(frozen=True, slots=True)
class _Task:
    """One table for a session.

    Attributes:
        place: In the list that was asked for.
        wait: Wait for its locks.
    """

    place: int
    due: Due
    wait: bool


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
        with Workers(self._session, self.settings.parallel_tables, self._one) as workers:

            def each(todo: Sequence[Due], *, wait: bool) -> list[Outcome]:
                outcomes: dict[int, Outcome] = {}
                left = deque(_Task(place, due, wait or due.for_age) for place, due in enumerate(todo))
                while left or workers.busy:
                    while left and workers.has_room:
                        name = left[0].due.relation.qualified
                        self.progress(f"VACUUM {name}", len(outcomes), len(todo))
                        workers.begin(left.popleft())
                    task, outcome = workers.next()
                    outcomes[task.place] = outcome
                return [outcomes[place] for place in range(len(todo))]

            outcomes = each(dues, wait=False)
            again = [one.due for one in outcomes if one.verdict == "locked" and not one.due.for_age]
            return [one for one in outcomes if one.due not in again] + each(again, wait=True)

    def _session(self) -> Connection:
        return connect(
            self.login,
            purpose="vacuum",
            lock_timeout_s=self.settings.lock_timeout_s,
            statement_timeout_s=self.settings.statement_timeout_s,
        )

    def _one(self, connection: Connection, task: _Task) -> Outcome:
        due = task.due
        if time.monotonic() >= self.deadline and not due.for_age:
            return Outcome(
                due, "skipped", f"{due.reason}; it is past max_minutes or outside window, a later run does it"
            )
        limits = due.candidate.freeze_limits(self.settings.freeze_fraction)
        return vacuum(connection, due, limits, self.settings.buffer_usage_limit, wait=task.wait)
