"""One REINDEX INDEX CONCURRENTLY: sent from a thread, watched from another session, cancelled with care."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pgsteward import sql
from pgsteward.errors import QueryFailed, StewardError
from pgsteward.hold_ups import name_blockers
from pgsteward.index_bloat import Index
from pgsteward.interlock import may_build
from pgsteward.leftovers import Mark
from pgsteward.postgres import Connection, Login, compose, connect, identifier, raw

log = logging.getLogger(__name__)

_END_S = 8.0
"""How long a cancelled rebuild may take to end before we stop waiting for it."""
_OWN_WAL_SINCE = 180_000


@dataclass(slots=True, eq=False)
class Rebuild:
    """A rebuild that runs.

    Attributes:
        index: What is rebuilt.
        mark: What finds its leftovers.
        started: By the monotonic clock.
        at: When it started.
        waited_s: How long it has waited for others so far.
        blocked_by: For whom it waits, as of the last look.
        cancelled: Why we ended it; "" while we have not.
        out_of_time: That was because the time was over.
        error: Why it failed; None means that it succeeded, once it has ended.
        what: What it is doing.
        done: How much of that, in any unit.
        total: How much there is; 0 where it is not known.
    """

    index: Index
    mark: Mark
    work: Connection
    backend_start: str
    lsn: str
    started: float = field(default_factory=time.monotonic)
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    waited_s: float = 0.0
    blocked_by: str = ""
    cancelled: str = ""
    out_of_time: bool = False
    error: StewardError | None = None
    what: str = "starting"
    done: int = 0
    total: int = 0
    _looked: float = field(default_factory=time.monotonic)
    _thread: threading.Thread | None = field(default=None, repr=False)

    @property
    def pid(self) -> int:
        """Of its session."""
        return self.work.backend_pid

    @property
    def is_over(self) -> bool:
        """Whether the statement has ended."""
        return self._thread is None or not self._thread.is_alive()

    @property
    def busy_s(self) -> float:
        """How long it has worked itself."""
        return max(0.0, time.monotonic() - self.started - self.waited_s)

    def wait(self, timeout_s: float) -> None:
        """Wait for its end, for a while at most."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def look(self, watch: Connection, own_pids: Collection[int]) -> None:
        """Take note of how far it is and for whom it waits, and say the latter in the log.

        Args:
            watch: A session of the same role.
            own_pids: Of our rebuilds: one that waits for another of ours is held up by nobody.
        """
        state = watch.maybe_row(sql.load("rebuild_watch"), {"pid": self.pid})
        now = time.monotonic()
        since, self._looked = self._looked, now
        if state is None:
            return
        self.what, self.done, self.total = state["phase"] or "starting", state["done"], state["total"]
        pids = [pid for pid in state["blocking_pids"] if pid not in own_pids]
        if not state["is_waiting"] or not pids:
            self.blocked_by = ""
            return
        self.waited_s += now - since
        blocked_by = name_blockers(watch, self.index.table_oid, pids)
        if not self.blocked_by:
            log.info("the rebuild of %s waits for %s", self.index.qualified, blocked_by)
        self.blocked_by = blocked_by

    def cancel(self, watch: Connection, why: str) -> None:
        """End it, and nothing else: pid and start of its session are compared in the same statement."""
        self.cancelled = self.cancelled or why
        log.warning("the rebuild of %s is cancelled: %s", self.index.qualified, why)
        try:
            whose = {"pid": self.pid, "backend_start": self.backend_start}
            watch.rows(sql.load("cancel_rebuild"), whose)
        except StewardError:  # without that session the driver's own way is left, by a key of this one
            self.work.cancel()

    def end(self) -> None:
        """Make sure that the statement is over before its session is closed."""
        if not self.is_over:
            self.work.cancel()
            self.wait(_END_S)
        self.work.close()

    def wal_bytes(self, watch: Connection) -> tuple[int, bool]:
        """Return the WAL that was written, and whether it is this rebuild's own.

        Servers before 18 count it for everybody at once: what others have written meanwhile is part of it.
        """
        if watch.server_version >= _OWN_WAL_SINCE:
            self.work.execute("SELECT pg_stat_force_next_flush()")
            own = self.work.value("SELECT wal_bytes::int8 FROM pg_stat_get_backend_wal(pg_backend_pid())")
            return int(own), True
        statement = raw("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), %(lsn)s::pg_lsn)::int8")
        return int(watch.value(statement, {"lsn": self.lsn})), False

    def _run(self) -> None:
        statement = compose("REINDEX INDEX CONCURRENTLY {}", identifier(self.index.schema, self.index.name))
        self.error = QueryFailed("the rebuild ended without an answer")
        try:
            self.work.execute(statement)
            self.error = None
        except StewardError as exc:
            self.error = exc


def start_rebuild(login: Login, index: Index, mark: Mark) -> Rebuild | None:
    """Send the statement; None, and nothing is sent, where our own dump has announced itself meanwhile.

    Args:
        login: For the session that rebuilds. It has no timeout at all: REINDEX CONCURRENTLY counts its waits
            for snapshots, and leaves an invalid index when one is over.
        index: What to rebuild.
        mark: On disk already.
    """
    work = connect(login, purpose="reindex", lock_timeout_s=0, statement_timeout_s=0)
    try:
        if not may_build(work):
            work.close()
            return None
        row = work.row(
            "SELECT a.backend_start::text AS backend_start, pg_current_wal_insert_lsn()::text AS lsn"
            "  FROM pg_stat_activity AS a WHERE a.pid = pg_backend_pid()"
        )
        rebuild = Rebuild(index, mark, work, row["backend_start"], row["lsn"])
        thread = threading.Thread(target=rebuild._run, name=f"reindex {index.oid}", daemon=True)
        rebuild._thread = thread
        thread.start()
    except BaseException:
        work.close()
        raise
    return rebuild
