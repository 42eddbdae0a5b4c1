"""Who waits behind a running dump, and whom it waits for itself: sampled beside it, twice a second.

A dump holds ACCESS SHARE on every table. Whoever wants ACCESS EXCLUSIVE (TRUNCATE, most of ALTER TABLE) waits
for its end, and everybody who comes after them waits as well: that has to be seen, and said.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from pgsteward import postgres
from pgsteward.errors import StewardError, TransientError
from pgsteward.postgres import Connection, Login, Row
from pgsteward.relations import lock_holders, name_holders
from pgsteward.sql import load

log = logging.getLogger(__name__)

OURS = ("pgsteward dump%", "pgsteward proof%", "pgsteward snapshot%", "pgsteward backup check%")
"""Names of the sessions that others may wait for, as LIKE patterns; a database has one backup at a time."""

OUR_NAMES = tuple(pattern.rstrip("%") for pattern in OURS)

SAMPLE_S = 0.5
NOTABLE_S = 5.0
"""Who has waited this long is a warning in the result."""

_SHARE = 20
"""A sample may take a 20th of the time: the server copies its whole lock table for each."""
_CONNECT_AGAIN_S = 5.0


class GivenWay(TransientError):
    """The dump was ended because of somebody who waits behind it; to be tried again, after a while."""


@dataclass(slots=True)
class Waiter:
    """Somebody who waits, or waited, for ACCESS EXCLUSIVE on a table behind the dump.

    Attributes:
        pid: Of their session.
        role_name: None where it is not a role's session (the replay of a standby).
        application_name: As they said, or the kind of process.
        table: Quoted where needed.
        seconds: As long as it was seen.
    """

    pid: int
    role_name: str | None
    application_name: str
    table: str
    seconds: float

    def __str__(self) -> str:
        who = " ".join(part for part in (self.role_name, self.application_name) if part)
        return f"pid {self.pid}{f' ({who})' if who else ''}"

    @property
    def sentence(self) -> str:
        return f"{self} waited {self.seconds:.1f} s for ACCESS EXCLUSIVE on {self.table} behind this dump"

    def as_json(self) -> dict[str, Any]:
        return {
            "pid": self.pid,
            "role": self.role_name,
            "application_name": self.application_name,
            "table": self.table,
            "seconds": round(self.seconds, 1),
        }


class LockWatch:
    """Samples ``pg_locks`` on a session and in a thread of its own. Use it as a context manager."""

    def __init__(
        self, login: Login, yield_after_s: float | None = None, patience_s: float = math.inf
    ) -> None:
        """Begin nothing yet.

        Args:
            login: The database that is dumped.
            yield_after_s: `check` gives way once somebody has waited this long; None never.
            patience_s: How long our own sessions wait for a lock: on a slow machine, too, there are samples
                while they do.
        """
        self._login, self._yield_after_s = login, yield_after_s
        self._longest_pause_s = max(SAMPLE_S, min(patience_s, yield_after_s or math.inf) / 3)
        self._over, self._wake = threading.Event(), threading.Event()
        self._guard = threading.Lock()
        self._waiters: dict[tuple[int, str], Waiter] = {}
        self._now: list[Waiter] = []
        self._held_up: dict[str, str] = {}
        self._impatient: Waiter | None = None
        self._trouble: str | None = None
        self._session: Connection | None = None
        self._thread = threading.Thread(target=self._watch, name="lock watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._wake.set()
        self._thread.join(1.0)
        session = self._session
        if self._thread.is_alive() and session is not None:
            session.cancel()
        self._thread.join()

    def look_now(self) -> None:
        """Take a sample at once: something has happened."""
        self._wake.set()

    def check(self) -> None:
        """Give way to somebody who has waited for too long.

        Raises:
            GivenWay: Somebody has.
        """
        waiter = self._impatient
        if waiter is not None:
            raise GivenWay(f"{waiter.sentence}, which has given way (yield_after)")

    @property
    def waiters(self) -> list[Waiter]:
        """Everybody who was seen waiting, the longest first."""
        with self._guard:
            return sorted(self._waiters.values(), key=lambda waiter: waiter.seconds, reverse=True)

    @property
    def waiting(self) -> list[Waiter]:
        """Who was waiting when it was last looked."""
        with self._guard:
            return list(self._now)

    def behind(self, text: str) -> str:
        """Name who waited for a table that an error of pg_dump's names, as a clause."""
        seen = self.waiting or self.waiters
        named = [waiter for waiter in seen if f'"{waiter.table}"' in text] or seen
        if not named:
            return "who asked for it was gone before it could be seen"
        return "; ".join(str(waiter.sentence) for waiter in named[:3])

    @property
    def held_up(self) -> str:
        """Say whom our own sessions last waited for, as a clause; an empty text when nobody was seen."""
        with self._guard:
            return "; ".join(f"{table} was locked by {who}" for table, who in self._held_up.items())

    @property
    def blind(self) -> str | None:
        """Say why nobody was looked for, or not all the time; None when all went well."""
        return self._trouble

    def _watch(self) -> None:
        while not self._over.is_set():
            try:
                with postgres.connect(
                    self._login, purpose="lock watch", statement_timeout_s=30, connect_timeout_s=5
                ) as session:
                    self._session = session
                    self._sample_until_over(session)
            except StewardError as exc:
                if self._session is None or not self._over.is_set():  # else it is us who ended the last one
                    self._trouble = str(exc)
                self._over.wait(_CONNECT_AGAIN_S)
            finally:
                self._session = None

    def _sample_until_over(self, session: Connection) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            self._wake.clear()
            self._take(session)
            took_s = time.monotonic() - began
            self._wake.wait(min(max(SAMPLE_S, took_s * _SHARE), max(self._longest_pause_s, took_s)))

    def _take(self, session: Connection) -> None:
        rows = session.rows(load("lock_waits"), {"ours": list(OURS)})
        held_up = {_table(row): _holders(session, row) for row in rows if row["is_ours"]}
        now = [_waiter(row) for row in rows if not row["is_ours"]]
        with self._guard:
            self._now = now
            if held_up:
                self._held_up = held_up
            for waiter in now:
                self._remember(waiter)

    def _remember(self, waiter: Waiter) -> None:
        key = (waiter.pid, waiter.table)
        known = self._waiters.get(key)
        if known is None:
            log.info("%s waits for ACCESS EXCLUSIVE on %s behind the dump", waiter, waiter.table)
        if waiter.seconds >= NOTABLE_S and (known is None or known.seconds < NOTABLE_S):
            log.warning(
                "%s has waited %.0f s for ACCESS EXCLUSIVE on %s behind the dump, and others wait behind it",
                waiter,
                waiter.seconds,
                waiter.table,
            )
        if known is None or known.seconds <= waiter.seconds:
            self._waiters[key] = waiter
        if self._yield_after_s is not None and waiter.seconds >= self._yield_after_s:
            self._impatient = waiter


def _table(row: Row) -> str:
    if row["name"] is None:  # made by a transaction that has not ended
        return f"relation {row['relation_oid']}"
    return postgres.quote_name(row["schema_name"], row["name"])


def _waiter(row: Row) -> Waiter:
    return Waiter(row["pid"], row["role_name"], row["application_name"], _table(row), row["waited_s"])


def _holders(session: Connection, row: Row) -> str:
    """Name who is in the way of one of our sessions: who holds the table, or has asked for it before us.

    A prepared transaction has pid 0. Our own sessions are in nobody's way among themselves.
    """
    pids = set(row["blocking_pids"])
    found = lock_holders(session, row["relation_oid"])
    holders = [each for each in found if not (each["application_name"] or "").startswith(OUR_NAMES)]
    named = [each for each in holders if (each["pid"] or 0) in pids]
    asked = list(pids - {each["pid"] for each in found})
    named += session.rows(load("sessions_by_pid"), {"pids": asked, "ours": list(OURS)})
    return name_holders(named or holders)
