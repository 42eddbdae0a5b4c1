"""Session cleanup: rows whose time is over are deleted, in small steps that nobody notices.

The heap is walked in ranges (TID ranges), leaf by leaf, each range a transaction of its own: as fast as one
DELETE, whatever the key, with or without an index, and not slowed down by old snapshots. The expiry is part
of the DELETE itself, so a row that is refreshed at the same moment survives.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from pgsteward import results
from pgsteward.config import SessionTable
from pgsteward.errors import ConfigError, QueryFailed, StewardError
from pgsteward.ledger import Ledger
from pgsteward.postgres import Connection, Login, connect, quote_name
from pgsteward.postgres_lock import operation_lock
from pgsteward.postgres_names import split_qualified
from pgsteward.progress import Progress, silent
from pgsteward.relations import GONE, Relation, current_role, is_gone, refuse_read_only
from pgsteward.results import StepResult
from pgsteward.session_checks import Cleanup, check_tables, read_cutoff
from pgsteward.session_pace import LONGEST, Watch
from pgsteward.session_references import Cascades, count_cascade
from pgsteward.session_share import Share, count_expired, is_far_ahead, measure_share
from pgsteward.session_walk import LOCK_TIMEOUT_S, Walk
from pgsteward.targets import Target

log = logging.getLogger(__name__)

STEP = "sessions"
_SETTINGS = {
    "default_transaction_isolation": "read committed",  # a refreshed row is looked at again, and survives
    "enable_tidscan": "on",
    "jit": "off",
}
_LOOKING = {"row_security": "off"}
"""A count that would not see all rows is refused; triggers of the application go on as ever."""


def clean_sessions(
    target: Target,
    tables: Sequence[str] | None = None,
    *,
    before: datetime | None = None,
    yes: bool = False,
    dry_run: bool = False,
    progress: Progress = silent,
) -> StepResult:
    """Delete the expired rows of the tables that the configuration names.

    A row is expired when its expiry lies before the server's clock at the start of the run; NULL and
    infinity never expire. Rows that somebody has locked are left for the next run, and named.

    Args:
        target: Whose ``[[sessions]]``.
        tables: Only these of them.
        before: Delete what had expired before this instant; by default all that has.
        yes: Also where more than ``max_share`` of a table would go.
        dry_run: Count what would be deleted, on the same way through the same tables.
        progress: Told about pages.

    Raises:
        ConfigError: A table or column is missing, its type needs another setting, or `tables` has one that
            is not configured; nothing was changed.
        PreconditionError: Another cleanup works on this database, it is read-only, or the cutoff lies in the
            future.
    """
    configured = choose_tables(target.settings.sessions, tables)
    if not configured:
        why = "no [[sessions]] table is configured for this target"
        nothing: dict[str, Any] = {"rows": 0, "cascaded_rows": 0, "cutoff": None, "cleanups": []}
        return results.skipped(STEP, target.name, why, details=nothing)
    login = target.login("maintenance")
    ledger = Ledger(STEP, target.name, dry_run)
    with (
        operation_lock(login, STEP),
        connect(login, purpose="session check", settings=_SETTINGS | _LOOKING) as connection,
    ):
        refuse_read_only(connection)
        now = read_cutoff(connection, before)
        cleanups = check_tables(connection, configured, now)
        for cleanup in cleanups:
            _warn_beforehand(cleanup, ledger)
        run = _Run(login, connection, ledger, yes, progress)
        details = [run.clean(cleanup) for cleanup in cleanups]
    rows = sum(int(item.facts["rows"]) for item in ledger.changed)
    cascaded = sum(sum(each["cascaded"].values()) for each in details)
    return ledger.result(
        _summary(rows, cascaded, ledger),
        {"rows": rows, "cascaded_rows": cascaded, "cutoff": now.isoformat(), "cleanups": details},
    )


def choose_tables(
    configured: Sequence[SessionTable], tables: Sequence[str] | None
) -> tuple[SessionTable, ...]:
    """Return those of the configured tables that were asked for; all of them when `tables` is None.

    Raises:
        ConfigError: One is not configured: nothing is deleted from a table that is not on the list.
    """
    if tables is None:
        return tuple(configured)
    known = {split_qualified(entry.table): entry for entry in configured}
    chosen: dict[str, SessionTable] = {}
    for name in tables:
        try:
            entry = known[split_qualified(name)]
        except KeyError:
            listed = ", ".join(entry.table for entry in configured) or "none"
            raise ConfigError(
                f"{name} is not among the tables whose rows expire ({listed}); add it to [[sessions]]"
            ) from None
        except ValueError as exc:
            raise ConfigError(str(exc)) from None
        chosen[entry.table] = entry
    return tuple(chosen.values())


def _warn_beforehand(cleanup: Cleanup, ledger: Ledger) -> None:
    """Say what makes a cleanup slow before anything is deleted."""
    for reference in cleanup.references:
        if not reference.is_indexed:
            ledger.find(reference.table, reference.without_index())
            log.warning("%s: %s", reference.table, reference.without_index())


@dataclass(frozen=True, slots=True)
class _Run:
    """What all tables of a run share; `connection` looks, and has no statement timeout."""

    login: Login
    connection: Connection
    ledger: Ledger
    yes: bool
    progress: Progress

    def clean(self, cleanup: Cleanup) -> dict[str, Any]:
        """Clean one table, write down what came of it, and return what is said about it."""
        name = cleanup.table.qualified
        about = {**cleanup.as_json(), "share": None, "share_is_exact": None, "cascaded": {}}
        if not cleanup.leaves:
            self.ledger.doubt(name, "it has no partition, so there is nothing to look at")
        for leaf in cleanup.leaves:
            if leaf.oid in cleanup.obstacles:
                self.ledger.fail(leaf.qualified, cleanup.obstacles[leaf.oid])
        open_leaves = [leaf for leaf in cleanup.leaves if leaf.oid not in cleanup.obstacles]
        if not open_leaves:
            return about
        try:
            share = measure_share(self.connection, cleanup, open_leaves)
            is_odd = share.rows and not share.expired and is_far_ahead(self.connection, cleanup)
        except StewardError as exc:
            if self.connection.closed:
                raise
            self.ledger.fail(name, f"its expired rows could not be counted: {exc}")
            return about
        about |= {"share": round(share.ratio, 4), "share_is_exact": share.is_exact}
        if is_odd:
            self.ledger.doubt(
                name, "no row expires before the year 7000; its unit is too large, or expires another column"
            )
        limit = cleanup.settings.max_share
        if share.ratio > limit and not self.yes:
            self.ledger.fail(
                name,
                f"refused: {share.expired:,} of {share.rows:,} rows ({share.ratio:.1%}) have expired, over"
                f" max_share = {limit:g}; look at expires, unit, time_zone and where, then repeat it with"
                " --yes, or set max_share = 1",
            )
            return about
        about["cascaded"] = self._walk(cleanup, open_leaves, share)
        return about

    def _walk(self, cleanup: Cleanup, open_leaves: Sequence[Relation], share: Share) -> dict[str, int]:
        settings = cleanup.settings
        limit_s = LONGEST * settings.batch_ms / 1000
        deadline = time.monotonic() + settings.max_minutes * 60
        cascades = self._cascades(cleanup)
        left = settings.max_rows
        with ExitStack() as stack:
            work = stack.enter_context(
                connect(
                    self.login,
                    purpose="session cleanup",
                    lock_timeout_s=min(LOCK_TIMEOUT_S, limit_s / 2),
                    statement_timeout_s=limit_s,
                    settings=_SETTINGS,
                )
            )
            watch = None
            if not self.ledger.dry_run:
                watch = stack.enter_context(Watch(self.login, work.backend_pid))
            for leaf in open_leaves:
                walk = Walk(
                    connection=work,
                    cleanup=cleanup,
                    leaf=leaf,
                    limit_s=limit_s,
                    most_rows=left,
                    deadline=deadline,
                    watch=watch,
                    cascades=cascades,
                    progress=partial(self.progress, f"sessions in {leaf.qualified}"),
                )
                self._walk_leaf(walk, share)
                left = None if left is None else left - walk.tally.rows
            if watch is not None and watch.blind:
                self.ledger.skip(
                    cleanup.table.qualified,
                    f"nobody looked who waits for the cleanup, or for replicas: {watch.blind}",
                )
            elif watch is not None and watch.hidden_replicas:
                role = quote_name(current_role(self.connection))
                self.ledger.skip(
                    cleanup.table.qualified,
                    f"how far {watch.hidden_replicas} replicas are behind can't be seen, so nobody waited for"
                    f" them; run: GRANT pg_read_all_stats TO {role}",
                )
        if self.ledger.dry_run:
            return self._count_cascade(cleanup)
        return {} if cascades is None else dict(+(cascades.deleted + cascades.updated))

    def _count_cascade(self, cleanup: Cleanup) -> dict[str, int]:
        """Count what would go along; a DELETE does that by the owners' rights, and we look by our own."""
        roots = [cleanup.table.oid, *(leaf.oid for leaf in cleanup.leaves)]
        try:
            return dict(
                count_cascade(self.connection, cleanup.references, roots, cleanup.expired(), cleanup.params())
            )
        except QueryFailed as exc:
            role = quote_name(current_role(self.connection))
            self.ledger.doubt(
                cleanup.table.qualified,
                f"what its foreign keys would take along was not counted: {exc}; {role} must be allowed to"
                " SELECT all rows there",
            )
            return {}

    def _cascades(self, cleanup: Cleanup) -> Cascades | None:
        writing = [reference for reference in cleanup.references if reference.writes]
        if not writing:
            return None
        if not self.connection.value("SELECT current_setting('track_counts')::bool"):
            self.ledger.doubt(cleanup.table.qualified, "track_counts is off: nobody counts rows that cascade")
            return None
        return Cascades.of(self.connection, writing)

    def _walk_leaf(self, walk: Walk, share: Share) -> None:
        """Walk one leaf and write down what came of it; an error ends this leaf, not the others."""
        started = time.monotonic()
        name, tally = walk.leaf.qualified, walk.tally
        try:
            walk.run()
            self.ledger.examined += 1
            self._note_kept(walk)
        except StewardError as exc:
            if walk.connection.closed:
                raise
            if is_gone(self.connection, walk.leaf.oid):
                self.ledger.skip(name, GONE)
            else:
                self.ledger.fail(name, f"stopped after {tally.rows} rows: {exc}")
        self._note_rest(walk, share)
        if tally.rows:
            self.ledger.change(
                name,
                "would delete" if self.ledger.dry_run else "deleted",
                rows=tally.rows,
                batches=tally.batches,
                longest_batch_ms=round(tally.longest_s * 1000, 1),
                paused_s=round(tally.paused_s, 1),
                seconds=round(time.monotonic() - started, 3),
                table_bytes=share.sizes[walk.leaf.oid],
                reusable_bytes=share.bytes_of(tally.rows),
            )
        log.info("%s: %d expired rows in %d batches", name, tally.rows, tally.batches)

    def _note_kept(self, walk: Walk) -> None:
        """Name rows that the table itself keeps: by a trigger, or because others need them."""
        name, tally = walk.leaf.qualified, walk.tally
        if tally.refused_rows:
            self.ledger.fail(
                name, f"{tally.refused_rows} expired rows can't be deleted, the last one: {tally.refusal}"
            )
        if walk.leaf.oid in walk.cleanup.vetoes and not (self.ledger.dry_run or tally.stopped):
            kept = count_expired(self.connection, walk.cleanup, walk.leaf)
            kept -= tally.locked_rows + tally.refused_rows
            if kept > 0:
                triggers = ", ".join(walk.cleanup.triggers[name])
                self.ledger.fail(name, f"its triggers kept {kept} expired rows: {triggers}")

    def _note_rest(self, walk: Walk, share: Share) -> None:
        """Name what had to stay: behind a limit it is the plan, behind somebody's lock a failure."""
        name, tally = walk.leaf.qualified, walk.tally
        if tally.stopped:
            done, pages = tally.pages
            rest = f"{tally.stopped}; {pages - done} of {pages} pages are left for the next run"
            about = max(share.expired - tally.rows, 0)
            rest += f", about {about:,} expired rows in all" if about else ""
            note = self.ledger.fail if tally.gave_up else self.ledger.skip
            note(name, rest)
        if tally.locked_rows:
            hint = ""
            if walk.leaf.oid not in walk.cleanup.locks_rows:
                role = quote_name(current_role(self.connection))
                hint = f"; to go around locked rows: GRANT UPDATE ON TABLE {name} TO {role}"
            self.ledger.fail(
                name,
                f"{tally.locked_rows} expired rows stay, for they or rows beside them were locked (locks on"
                f" the table: {tally.locked_by}); the next run takes them up{hint}",
            )


def _summary(rows: int, cascaded: int, ledger: Ledger) -> str:
    tables = f"{ledger.examined} {'table' if ledger.examined == 1 else 'tables'}"
    along = f" and {cascaded:,} rows of other tables by their foreign keys" if cascaded else ""
    if ledger.dry_run:
        sentence = f"{rows:,} expired rows would be deleted from {tables}{along}"
    elif rows:
        sentence = (
            f"{rows:,} expired rows deleted from {tables}{along}; VACUUM makes their space reusable inside"
            " the table, only a rewrite (pg_repack, VACUUM FULL) returns it to the disk"
        )
    else:
        sentence = f"no expired row in {tables}"
    return sentence + (f"; not everything could be cleaned ({len(ledger.failed)})" if ledger.failed else "")
