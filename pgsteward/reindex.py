"""Conditional reindex: only what is bloated, one at a time, concurrently, and nothing left behind.

REINDEX CONCURRENTLY waits for every older snapshot of its database and for every lock on its table, and a
lock timeout would count that wait and leave a full-size invalid index. So there is none: who would hold a
rebuild up is asked before it starts, and a rebuild that waits too long is cancelled and cleaned up after.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from pgsteward import sql
from pgsteward.errors import QueryFailed, StewardError
from pgsteward.index_bloat import Census, Index, status_without_candidates, take_census
from pgsteward.ledger import Ledger
from pgsteward.leftovers import LOCK, Mark, clean_after, drop_marked, make_mark, marks_of
from pgsteward.postgres import Connection, Login, Row, compose, connect, identifier, operation_lock
from pgsteward.progress import Progress, silent
from pgsteward.relations import name_holder, name_holders, owner_fix
from pgsteward.results import StepResult
from pgsteward.targets import Target

log = logging.getLogger(__name__)

STEP = "reindex"
_LOOK_S = 0.5
_SAME_HOLDER_S = 1.0
_END_S = 8.0
"""How long a cancelled rebuild may take to end before we stop waiting for it."""


@dataclass(slots=True)
class Rebuild:
    """A REINDEX that runs in a thread of its own, while we watch it.

    Attributes:
        waited_s: How long it has waited for others so far.
        cancelled_for: Whom it waited for when we ended it.
        error: Why it failed; None means that it succeeded, once it has ended.
    """

    index: Index
    waited_s: float = 0.0
    cancelled_for: str = ""
    error: StewardError | None = None
    _thread: threading.Thread | None = field(default=None, repr=False)

    def start(self, work: Connection) -> None:
        """Send the statement."""
        self._thread = threading.Thread(target=self._run, args=(work,), name="reindex", daemon=True)
        self._thread.start()

    def wait(self, timeout_s: float) -> bool:
        """Return whether the statement has ended, after a while at most."""
        assert self._thread is not None
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self, work: Connection) -> None:
        statement = compose("REINDEX INDEX CONCURRENTLY {}", identifier(self.index.schema, self.index.name))
        self.error = QueryFailed("the rebuild ended without an answer")
        try:
            work.execute(statement)
            self.error = None
        except StewardError as exc:
            self.error = exc


def reindex(target: Target, *, dry_run: bool = False, progress: Progress = silent) -> StepResult:
    """Rebuild the indexes that are over both thresholds, largest gain first.

    Everything is measured afresh. An index whose rebuild somebody would hold up for longer than
    ``index_bloat.max_wait_s`` is skipped by name; so is one that our role does not own, because it could
    start the rebuild (with MAINTAIN) but not drop what a failed one leaves.

    Args:
        target: Whose database.
        dry_run: Say what would be rebuilt, and who would hold it up now.
        progress: Told about indexes and blocks.

    Raises:
        PreconditionError: Another rebuild run works on this database.
    """
    login = target.login("maintenance")
    settings = target.settings.index_bloat
    ledger = Ledger(STEP, target.name, dry_run)
    with operation_lock(login, LOCK):
        dropped, remaining = drop_marked(login, dry_run=dry_run)
        ledger.changed += dropped
        ledger.failed += remaining
        looked = Ledger(STEP, target.name)
        census = take_census(login, settings, looked, progress)
        ledger.examined = looked.examined
        ledger.unknown += looked.unknown
        given_up: set[object] = set()
        with connect(login, purpose="reindex watch", statement_timeout_s=30) as watch:
            for done, index in enumerate(census.bloated):
                progress(f"rebuilding {index.qualified}", done, len(census.bloated))
                if not index.is_owner:
                    fix = owner_fix(watch, index.owner)
                    ledger.skip(
                        index.qualified, f"only its owner can clean up after a failed rebuild; run: {fix}"
                    )
                    continue
                _rebuild_one(login, watch, index, settings.max_wait_s, ledger, given_up, progress)
    return _result(ledger, census, looked)


def hold_ups(connection: Connection, table_oid: int) -> list[Row]:
    """Return who would make a rebuild on this table wait if it started now, longest first."""
    return connection.rows(sql.load("hold_ups"), {"oid": table_oid})


def key_of(holder: Row) -> tuple[object, ...]:
    """Return what tells one transaction of a session from its next."""
    return (holder["pid"], holder["gid"], holder["held"])


def _rebuild_one(
    login: Login,
    watch: Connection,
    index: Index,
    max_wait_s: float,
    ledger: Ledger,
    given_up: set[object],
    progress: Progress,
) -> None:
    if ledger.dry_run:
        held_up_by = list(dict.fromkeys(name_holder(holder) for holder in hold_ups(watch, index.table_oid)))
        ledger.change(
            index.qualified,
            "would rebuild",
            bytes_before=index.bytes,
            reclaimable_bytes=index.reclaimable_bytes,
            held_up_by=held_up_by,
        )
        return
    holders = _wait_for_quiet(watch, index.table_oid, max_wait_s, given_up)
    if holders:
        who = name_holders(holders)
        ledger.skip(index.qualified, f"a rebuild would wait for {who}; given up after {max_wait_s:g} s")
        return
    mark = make_mark(watch, index.table_oid, index.oid, index.schema, index.name)
    marks_of(watch).add(mark)
    started = time.monotonic()
    try:
        rebuild = run_rebuild(login, watch, index, max_wait_s, progress)
    except BaseException:
        with contextlib.suppress(StewardError):  # we are being stopped: the mark stays for the janitor
            clean_after(login, mark, timeout_s=1.0)
        raise
    if rebuild.error is not None:
        why = f"{rebuild.error}"
        if rebuild.cancelled_for:
            why = f"cancelled after waiting {rebuild.waited_s:.0f} s for {rebuild.cancelled_for}"
        ledger.fail(index.qualified, f"not rebuilt: {why}")
        _clean(login, mark, ledger)
        if watch.closed:
            raise rebuild.error
        return
    _clean(login, mark, ledger)
    after = _size_by_name(watch, index)
    ledger.change(
        index.qualified,
        "rebuilt",
        bytes_before=index.bytes,
        bytes_after=after,
        seconds=round(time.monotonic() - started, 3),
        waited_s=round(rebuild.waited_s, 1),
    )
    log.info("%s rebuilt: %d bytes before, %d after", index.qualified, index.bytes, after)


def run_rebuild(
    login: Login, watch: Connection, index: Index, max_wait_s: float, progress: Progress = silent
) -> Rebuild:
    """Run one REINDEX INDEX CONCURRENTLY and watch it.

    Being stopped ends the statement on the server as well; one that has waited for others longer than
    `max_wait_s` in all is cancelled.

    Args:
        login: For the session that rebuilds.
        watch: A session of the same role that looks on.
        index: What to rebuild.
        max_wait_s: How long it may wait for others, all waits together.
        progress: Told about blocks.

    Returns:
        The rebuild, with its error if it failed.
    """
    rebuild = Rebuild(index)
    with connect(login, purpose="reindex", lock_timeout_s=0, statement_timeout_s=0) as work:
        rebuild.start(work)
        try:
            looked = time.monotonic()
            while not rebuild.wait(_LOOK_S):
                state = watch.maybe_row(sql.load("rebuild_watch"), {"pid": work.backend_pid})
                now = time.monotonic()
                if state is None:
                    continue
                progress(
                    f"rebuilding {index.qualified}: {state['phase'] or 'starting'}",
                    state["blocks_done"],
                    state["blocks_total"],
                )
                if state["is_waiting"]:
                    rebuild.waited_s += now - looked
                    if rebuild.waited_s > max_wait_s and not rebuild.cancelled_for:
                        rebuild.cancelled_for = _name_blockers(watch, index, state["blocking_pids"])
                        log.warning(
                            "%s: rebuild cancelled, it waits for %s", index.qualified, rebuild.cancelled_for
                        )
                        work.cancel()
                looked = now
        finally:
            if not rebuild.wait(0):
                work.cancel()
                rebuild.wait(_END_S)
    return rebuild


def _wait_for_quiet(
    connection: Connection, table_oid: int, max_wait_s: float, given_up: set[object]
) -> list[Row]:
    """Wait until nobody would hold a rebuild up; return who still does when the time is over.

    Short transactions come and go: only one that is still the same a second later counts. Whom an earlier
    index has waited for in vain is not waited for again.
    """
    deadline = time.monotonic() + max_wait_s
    seen = {key_of(holder) for holder in hold_ups(connection, table_oid)}
    while seen:
        time.sleep(min(_SAME_HOLDER_S, max_wait_s))
        current = hold_ups(connection, table_oid)
        standing = [holder for holder in current if key_of(holder) in seen]
        if not standing:
            return []
        if time.monotonic() >= deadline or any(key_of(holder) in given_up for holder in standing):
            given_up.update(key_of(holder) for holder in standing)
            return standing
        seen = {key_of(holder) for holder in current}
    return []


def _name_blockers(watch: Connection, index: Index, pids: list[int]) -> str:
    """Name those who block a rebuild; a pid of 0 is a prepared transaction."""
    holders = [
        holder
        for holder in hold_ups(watch, index.table_oid)
        if (holder["pid"] in pids) or (holder["pid"] is None and 0 in pids)
    ]
    return name_holders(holders)


def _clean(login: Login, mark: Mark, ledger: Ledger) -> None:
    """Leave nothing behind; what can't go yet is named, and its mark stays."""
    try:
        dropped, remaining = clean_after(login, mark)
    except StewardError as exc:
        ledger.fail(mark.name, f"what the rebuild left could not be looked for: {exc}; the next run does it")
        return
    ledger.changed += dropped
    ledger.failed += remaining


def _size_by_name(connection: Connection, index: Index) -> int:
    row = connection.maybe_row(
        "SELECT pg_relation_size(c.oid) AS bytes"
        "  FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %(schema)s AND c.relname = %(name)s",
        {"schema": index.schema, "name": index.name},
    )
    if row is None:
        raise QueryFailed(f"{index.qualified} is gone after its rebuild; somebody dropped or renamed it")
    return int(row["bytes"])


def _result(ledger: Ledger, census: Census, looked: Ledger) -> StepResult:
    rebuilt = [item for item in ledger.changed if item.action == "rebuilt"]
    gained = sum(item.facts["bytes_before"] - item.facts["bytes_after"] for item in rebuilt)
    if ledger.dry_run:
        done = f"{sum(item.action == 'would rebuild' for item in ledger.changed)} would be rebuilt"
    else:
        done = f"{len(rebuilt)} rebuilt" + (
            f", {gained / 1e6:,.1f} MB returned to the disk" if rebuilt else ""
        )
    if ledger.skipped and not ledger.dry_run:
        ledger.find(
            f"{len(ledger.skipped)} bloated indexes",
            "not rebuilt; each is named under skipped, with who or what stood in the way",
        )
    details: dict[str, Any] = {key: value for key, value in census.details().items() if key != "indexes"}
    status = None if ledger.changed or ledger.failed else status_without_candidates(census, looked)
    return ledger.result(f"{census.sentence()}; {done}", {**details, "bytes_gained": gained}, status)
