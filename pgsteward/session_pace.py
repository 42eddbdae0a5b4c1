"""How fast a cleanup goes: as many rows at a time as fit into a moment, and pauses for everybody else."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from pgsteward import sql
from pgsteward.errors import StewardError
from pgsteward.postgres import Login, connect

log = logging.getLogger(__name__)

LONGEST = 1.4
"""A batch is ended by the server when it takes this many times what it should; the commit comes on top."""
_GROWTH = 4.0
_SHRINKING = 0.25
_LOOK_S = 0.1
_SHARE = 20
"""A look may take a 20th of the time: the server copies its lock table for each."""
_LAG_LOOK_S = 0.25


@dataclass(slots=True)
class Pace:
    """Width of the next batch, in places for rows (`pgsteward.session_walk` says what that is).

    Attributes:
        aim_s: How long a batch should take.
        most: The widest one.
        width: The next one; never less than 1.
    """

    aim_s: float
    most: int
    width: int

    def adapt(self, width: int, took_s: float) -> None:
        """Choose the next width after a batch of `width` that was done in `took_s`."""
        factor = self.aim_s / max(took_s, 1e-6)
        self._set(width * min(max(factor, _SHRINKING), _GROWTH))

    def shrink(self, width: int) -> None:
        """Choose the next width after a batch of `width` that took too long and was given up."""
        self._set(width * _SHRINKING)

    def _set(self, width: float) -> None:
        self.width = max(1, min(int(width), self.most))


@dataclass(slots=True)
class Watch:
    """Looks, beside a cleanup, who waits for it and how far replicas are behind.

    Attributes:
        login: For a session of its own.
        pid: The session that deletes.
        replica: The replica that is furthest behind; empty where there is none.
        lag_bytes: How far.
        hidden_replicas: How many there are that our role is not told about.
        others_write: Another transaction was writing, anywhere on the server, at the last look.
        blind: Why nobody looks any more; empty while somebody does.
    """

    login: Login
    pid: int
    replica: str = ""
    lag_bytes: int = 0
    hidden_replicas: int = 0
    others_write: bool = False
    blind: str = ""
    _waited_for: threading.Event = field(default_factory=threading.Event)
    _over: threading.Event = field(default_factory=threading.Event)
    _first_look: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._look_on, name="cleanup watch", daemon=True)
        self._thread.start()
        self._first_look.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        assert self._thread is not None
        self._thread.join(5)

    def was_waited_for(self) -> bool:
        """Tell whether somebody was seen waiting since the last call."""
        seen = self._waited_for.is_set()
        self._waited_for.clear()
        return seen

    def wait_for_replicas(self, max_lag_bytes: int, deadline: float) -> float | None:
        """Wait until no replica is further behind than allowed.

        Args:
            max_lag_bytes: Allowed.
            deadline: Of `time.monotonic`.

        Returns:
            How long that took in seconds; None when the time was over first.
        """
        started = time.monotonic()
        while self.lag_bytes > max_lag_bytes:
            if time.monotonic() >= deadline:
                return None
            time.sleep(_LAG_LOOK_S)
        return time.monotonic() - started

    def _look_on(self) -> None:
        try:
            with connect(self.login, purpose="cleanup watch", statement_timeout_s=10) as connection:
                pause_s = 0.0
                while not self._over.wait(pause_s):
                    began = time.monotonic()
                    row = connection.row(sql.load("cleanup_watch"), {"pid": self.pid})
                    pause_s = max(_LOOK_S, _SHARE * (time.monotonic() - began))
                    self.replica, self.lag_bytes = row["replica"] or "", row["lag_bytes"]
                    self.hidden_replicas = row["hidden_replicas"]
                    self.others_write = row["others_write"]
                    if row["waiting"]:
                        self._waited_for.set()
                    self._first_look.set()
        except StewardError as exc:
            self.lag_bytes, self.others_write = 0, False  # nothing is known, and nobody would end a pause
            self.blind = str(exc)
            log.warning("nobody looks any more who waits for the cleanup: %s", exc)
        finally:
            self._first_look.set()
