"""Carries a plan out: one rebuild per table at a time, each only when nothing and nobody is in its way.

One loop looks after everything: the statements run in threads, and what is decided is decided here.
"""

from __future__ import annotations

import contextlib
import logging
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from pgsteward import reindex_memory, sql
from pgsteward.errors import QueryFailed, StewardError
from pgsteward.hold_ups import Patience, hold_ups, name_hold_ups
from pgsteward.index_bloat import Index
from pgsteward.ledger import Ledger
from pgsteward.leftovers import clean_after, make_mark, marks_of
from pgsteward.postgres import Connection, Login
from pgsteward.progress import Progress
from pgsteward.rebuild import Rebuild, start_rebuild
from pgsteward.reindex_memory import LEAST_GAIN, Memory, Past
from pgsteward.reindex_plan import Candidate, Entry, Plan, too_little_disk
from pgsteward.reindex_server import Server, lagging, likely_cause
from pgsteward.report.units import humanize_bytes, humanize_instant
from pgsteward.targets import Target
from pgsteward.used import Used

log = logging.getLogger(__name__)

_LOOK_S = 0.5
_LOOK_AHEAD = 20
"""So many indexes are asked about at each look, and wait side by side: one whose way is free overtakes."""
_GONE = frozenset({"42P01", "42704", "3F000"})


@dataclass(slots=True)
class Run:
    """The rebuilds of one night in one database.

    Attributes:
        target: Bound to it.
        login: For the sessions that rebuild and clean up.
        lock: The session that holds the operation's lock.
        watch: A session of the same role that looks on.
        plan: What to do.
        server: What was asked of it before.
        memory: What earlier rebuilds have taught; each one is added.
        used: By the databases before this one; each rebuild is added.
        ledger: Where everything is written down.
        progress: Told about indexes and blocks.
        stuck: How many indexes are not rebuilt for a reason that a person can remove.
    """

    target: Target
    login: Login
    lock: Connection
    watch: Connection
    plan: Plan
    server: Server
    memory: Memory
    used: Used
    ledger: Ledger
    progress: Progress
    stuck: int = 0
    _queue: list[Entry] = field(default_factory=list)
    _running: dict[Rebuild, Candidate] = field(default_factory=dict)
    _patience: dict[int, Patience] = field(default_factory=dict)
    _given_up: set[object] = field(default_factory=set)
    _lags_since: float | None = None

    def run(self) -> None:
        """Carry the plan out; what is not started is named, with the reason.

        Raises:
            TransientError: The server is gone. Marks stay on disk for the next run.
        """
        self._queue = list(self.plan.tonight)
        try:
            while self._queue or self._running:
                self._start_what_can()
                self._show()
                self._pause()
                for rebuild in list(self._running):
                    if rebuild.is_over:
                        self._finish(rebuild, self._running.pop(rebuild))
                    else:
                        rebuild.look(self.watch, self._own_pids)
                        self._cancel_if_due(rebuild)
        except BaseException:
            self._stop()
            raise

    @property
    def _own_pids(self) -> list[int]:
        return [rebuild.pid for rebuild in self._running]

    def _pause(self) -> None:
        for rebuild in self._running:
            rebuild.wait(_LOOK_S)
            return
        if self._queue:
            time.sleep(_LOOK_S)

    def _show(self) -> None:
        if self._running:
            names = "; ".join(
                f"{each.index.qualified}: {each.what}" + (f" ({each.blocked_by})" if each.blocked_by else "")
                for each in self._running
            )
            done, total = (sum(getattr(each, key) for each in self._running) for key in ("done", "total"))
            self.progress(f"rebuilding {names}", done, total)
        elif self._queue:
            waiting = self._patience.get(self._queue[0].index.oid)
            who = name_hold_ups(waiting.standing) if waiting and waiting.standing else "its turn"
            self.progress(f"waiting with {self._queue[0].index.qualified} for {who}")

    def _start_what_can(self) -> None:
        lags = self._replicas_lag()
        for entry in [each for each in self._queue if not self._is_at_work(each)][:_LOOK_AHEAD]:
            if len(self._running) >= self.target.settings.reindex.parallel_tables:
                return
            if self._is_at_work(entry):  # by now: an index of the same table came first
                continue
            reason, needs_a_person = self._no_longer_fits(entry)
            if reason:
                self._leave(entry, f"later: {reason}", needs_a_person=needs_a_person)
            elif not lags and self._is_free(entry) and self._start(entry):
                self._queue.remove(entry)

    def _is_at_work(self, entry: Entry) -> bool:
        """Tell whether one of ours works on the same table."""
        table_oid = entry.index.table_oid
        return any(candidate.index.table_oid == table_oid for candidate in self._running.values())

    def _no_longer_fits(self, entry: Entry) -> tuple[str, bool]:
        """Say what there is too little of by now, and whether a person has to act; "" when it fits."""
        candidate, settings = entry.candidate, self.target.settings.reindex
        deadline = self.plan.deadline
        left_s = None if deadline is None else (deadline - datetime.now(UTC)).total_seconds()
        if deadline is not None and left_s is not None and left_s < entry.predicted_s:
            patience = self._patience.get(entry.index.oid)
            waited = bool(patience and patience.standing)
            who = f"; it had to wait for {name_hold_ups(patience.standing)}" if patience and waited else ""
            return f"it would not be done by {humanize_instant(deadline)}{who}", waited
        at_work = sum(each.wal_bytes for each in self._running.values())
        most_wal = settings.max_wal_bytes
        if most_wal is not None and self.used.wal_bytes + at_work + candidate.wal_bytes > most_wal:
            written = humanize_bytes(self.used.wal_bytes)
            return f"{written} of WAL were written, and max_wal_bytes would be passed", False
        free = self.server.free_disk(settings)[0].get(candidate.space)
        beside = sum(each.disk_bytes for each in self._running.values() if each.space == candidate.space)
        if free is not None and candidate.disk_bytes + beside > free:
            return too_little_disk(candidate.disk_bytes + beside, free), True
        return "", False

    def _replicas_lag(self) -> bool:
        """Tell whether a replica is too far behind for another rebuild; when that lasts, the rest is left."""
        settings = self.target.settings.reindex
        if settings.max_replica_lag_bytes is None and settings.max_replica_lag_s is None:
            return False
        behind = lagging(self.watch.rows(sql.load("replica_lag")), settings)
        now = time.monotonic()
        if not behind:
            self._lags_since = None
            return False
        if self._lags_since is None:
            self._lags_since = now
            log.info("no rebuild is started: %s", behind)
        if settings.on_replica_lag == "stop" or now - self._lags_since >= settings.max_wait_s:
            for entry in list(self._queue):
                self._leave(entry, f"later: {behind}", needs_a_person=True)
        return True

    def _is_free(self, entry: Entry) -> bool:
        """Tell whether nobody would hold a rebuild up; an index that waits for too long is given up."""
        settings, index = self.target.settings.reindex, entry.index
        patience = self._patience.setdefault(index.oid, Patience())
        current = hold_ups(self.watch, index.table_oid, self._own_pids)
        now = time.monotonic()
        if patience.is_free(current, now):
            return True
        if patience.is_over(settings.on_blocker, settings.max_wait_s, now, self._given_up):
            who, waited_s = name_hold_ups(patience.standing), patience.waited_s(now)
            self._leave(
                entry,
                f"later: a rebuild would wait for {who}; given up after {waited_s:.0f} s",
                needs_a_person=True,
            )
        return False

    def _leave(self, entry: Entry, reason: str, *, needs_a_person: bool) -> None:
        self._queue.remove(entry)
        log.warning("%s is not rebuilt, %s", entry.index.qualified, reason)
        self.ledger.skip(entry.index.qualified, reason)
        self.stuck += needs_a_person

    def _start(self, entry: Entry) -> bool:
        """Start a rebuild; False when it has to wait for its turn once more."""
        index = entry.index
        self.lock.execute("SELECT 1")  # who has lost the lock is not alone any more
        rows = self.watch.rows(sql.load("table_indexes"), {"oid": index.table_oid})
        same = {"oid": index.oid, "schema": index.schema, "name": index.name, "is_valid": True}
        if not any(same.items() <= row.items() for row in rows):
            self.ledger.skip(index.qualified, "it was dropped, renamed or rebuilt since it was measured")
            return True
        mark = make_mark(self.watch, index.table_oid, index.oid, index.schema, index.name)
        marks_of(self.watch).add(mark)
        rebuild = start_rebuild(self.login, index, mark)
        if rebuild is None:
            marks_of(self.watch).remove(mark)
            return False
        log.info("%s: rebuild started, %s", index.qualified, entry.reason)
        self._running[rebuild] = entry.candidate
        return True

    def _cancel_if_due(self, rebuild: Rebuild) -> None:
        settings, deadline = self.target.settings.reindex, self.plan.deadline
        if rebuild.cancelled:
            return
        if rebuild.waited_s > settings.max_wait_s and settings.on_blocker != "wait" and rebuild.blocked_by:
            why = f"cancelled after waiting {rebuild.waited_s:.0f} s for {rebuild.blocked_by}"
            rebuild.cancel(self.watch, why)
        elif deadline is not None and datetime.now(UTC) >= deadline and settings.at_window_end == "cancel":
            rebuild.out_of_time = True
            rebuild.cancel(self.watch, f"cancelled as the time was over at {humanize_instant(deadline)}")

    def _finish(self, rebuild: Rebuild, candidate: Candidate) -> None:
        """Write down what became of a rebuild, and leave nothing behind."""
        index = rebuild.index
        try:
            self._conclude(rebuild, candidate)
        except StewardError as exc:
            if self.watch.closed:
                raise
            self.ledger.fail(index.qualified, f"what became of its rebuild is not known: {exc}")
        finally:
            rebuild.end()

    def _conclude(self, rebuild: Rebuild, candidate: Candidate) -> None:
        index, error, busy_s = rebuild.index, rebuild.error, rebuild.busy_s
        seconds = time.monotonic() - rebuild.started
        past = Past(rebuild.at, index.bytes, None, round(busy_s, 3), candidate.work_bytes)
        if error is not None:
            if isinstance(error, QueryFailed) and error.sqlstate in _GONE:
                self.ledger.skip(index.qualified, f"it is gone since it was measured: {error}")
            else:
                self.ledger.fail(index.qualified, f"not rebuilt: {rebuild.cancelled or error}")
            if rebuild.out_of_time:
                self._remember(index, past)
            self._clean(rebuild)
            if self.watch.closed:
                raise error
            return
        wal_bytes, is_own = rebuild.wal_bytes(self.watch)
        self._clean(rebuild)
        past = replace(past, bytes_after=_size_by_name(self.watch, rebuild), wal_bytes=wal_bytes)
        self._remember(index, past)
        self.used.wal_bytes += wal_bytes if is_own else min(wal_bytes, candidate.wal_bytes)
        self.ledger.change(
            index.qualified,
            "rebuilt",
            bytes_before=past.bytes_before,
            bytes_after=past.bytes_after,
            seconds=round(seconds, 3),
            waited_s=round(rebuild.waited_s, 1),
            wal_bytes=wal_bytes,
            wal_of="the rebuild" if is_own else "the whole server",
        )
        log.info("%s rebuilt: %d bytes before, %d after", index.qualified, index.bytes, past.bytes_after)
        if past.gain < LEAST_GAIN:
            cause = likely_cause(self.server, index.oid, gained_little=True)
            self.ledger.find(index.qualified, f"its rebuild gave back only {past.gain:.0%}, {cause}")

    def _remember(self, index: Index, past: Past) -> None:
        self.memory = reindex_memory.add(self.target, self.memory, index.qualified, past)

    def _clean(self, rebuild: Rebuild) -> None:
        """Leave nothing behind; what can't go yet is named, and its mark stays."""
        try:
            dropped, remaining = clean_after(self.login, rebuild.mark)
        except StewardError as exc:
            why = f"what its rebuild left could not be looked for: {exc}; the next run does it"
            self.ledger.fail(rebuild.index.qualified, why)
            return
        self.ledger.changed += dropped
        self.ledger.failed += remaining

    def _stop(self) -> None:
        """End every statement; what can be cleaned up at once is, and the mark of the rest stays."""
        for rebuild in self._running:
            rebuild.work.cancel()
        for rebuild in self._running:
            with contextlib.suppress(StewardError):
                rebuild.end()
                clean_after(self.login, rebuild.mark, timeout_s=1.0)


def _size_by_name(connection: Connection, rebuild: Rebuild) -> int:
    row = connection.maybe_row(
        "SELECT pg_relation_size(c.oid) AS bytes"
        "  FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %(schema)s AND c.relname = %(name)s",
        {"schema": rebuild.index.schema, "name": rebuild.index.name},
    )
    if row is None:
        raise QueryFailed("somebody dropped or renamed it meanwhile")
    return int(row["bytes"])
