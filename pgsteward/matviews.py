"""Materialized views, refreshed in the order in which they read each other, also through plain views.

Only those whose sources have changed. Concurrently where that is possible (readers go on reading), with an
exclusive lock where it is not and the configuration allows it. What reads a view that could not be refreshed
is skipped by name; the others go on, several at a time.
"""

from __future__ import annotations

import heapq
import logging
import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from pgsteward import results, sql, state
from pgsteward.errors import LockTimeout, QueryFailed, StewardError
from pgsteward.ledger import Ledger, Outcome
from pgsteward.matview_changes import (
    Function,
    LastRefresh,
    Sources,
    changed_rows,
    look_at,
    path_finding,
    path_fix,
    read_sources,
    why_changed,
    without_path,
)
from pgsteward.postgres import Connection, Login, Row, compose, connect, identifier, quote_name, raw
from pgsteward.postgres_lock import operation_lock
from pgsteward.progress import Progress, silent
from pgsteward.relations import (
    GONE,
    Relation,
    current_role,
    is_excluded,
    is_gone,
    lock_holders,
    maintain_fix,
    name_holders,
    refuse_read_only,
    relation_from,
)
from pgsteward.results import StepResult
from pgsteward.targets import Target
from pgsteward.workers import Workers

log = logging.getLogger(__name__)

STEP = "matviews"
_MEMORY = "matviews"
_SAFE_PATH_SINCE = 170000
_DUPLICATE_ROWS = "21000"
_NO_RIGHT = "42501"

Mode = Literal["populate", "concurrently", "exclusive"]


@dataclass(frozen=True, slots=True)
class Matview:
    """One materialized view.

    Attributes:
        is_populated: False when it was never refreshed; reading it is an error then.
        has_unique_index: It has one that REFRESH CONCURRENTLY can use: on plain columns, of all rows.
    """

    relation: Relation
    is_populated: bool
    has_unique_index: bool


@dataclass(frozen=True, slots=True)
class _Night:
    """What one run knows of all views before the first is refreshed, and what it learns.

    Attributes:
        reads: What each view reads of the others, as far as that comes before it.
        everything: Refresh what has not changed too.
        memory: What was kept of each view at its last refresh, by name.
        learned: The same, of those refreshed now.
        moved: Views whose rows are others now than when the run began, or would be.
        missed: Views that could not be refreshed.
    """

    target: Target
    views: Mapping[int, Matview]
    sources: Mapping[int, Sources]
    reads: Mapping[int, Set[int]]
    order: Sequence[int]
    everything: bool
    dry_run: bool
    memory: Mapping[str, LastRefresh]
    learned: dict[str, Any] = field(default_factory=dict)
    moved: set[int] = field(default_factory=set)
    missed: set[int] = field(default_factory=set)

    def name(self, oid: int) -> str:
        return self.views[oid].relation.qualified

    def known(self, oid: int) -> LastRefresh | None:
        """What was kept of this very view, or None; one that was dropped and made anew is another."""
        kept = self.memory.get(self.name(oid))
        return kept if kept is not None and kept.oid == oid else None


@dataclass(frozen=True, slots=True)
class _Done:
    """What came of one view.

    Attributes:
        entry: Its line of the plan; empty for one that was not looked at.
        memory: What to keep of it.
        moved: Its rows may be others now.
    """

    outcome: Outcome
    entry: Mapping[str, Any] = field(default_factory=dict)
    memory: LastRefresh | None = None
    moved: bool = False


def refresh(
    target: Target, *, everything: bool = False, dry_run: bool = False, progress: Progress = silent
) -> StepResult:
    """Refresh the materialized views whose sources have changed, and that the configuration does not exclude.

    Args:
        target: Whose database.
        everything: Refresh those too whose sources have not changed.
        dry_run: Say in which order and how they would be refreshed.
        progress: Told about views.

    Raises:
        PreconditionError: Another run works on this database, or it is read-only.
    """
    login = target.login("maintenance")
    settings = target.settings.matviews
    ledger = Ledger(STEP, target.name, dry_run)
    with operation_lock(login, STEP) as session:
        refuse_read_only(session)
        views = {row["oid"]: _matview_from(row) for row in session.rows(sql.load("matviews"))}
        if not views:
            why = "there is no materialized view in this database"
            return results.skipped(STEP, target.name, why, details={"order": []})
        edges = _edges(views, session.rows(sql.load("matview_edges")))
        order, circle = refresh_order({oid: v.relation.qualified for oid, v in views.items()}, edges)
        if circle:
            names = ", ".join(views[oid].relation.qualified for oid in circle)
            ledger.find(names, "they read each other in a circle, so no order is right; taken by name")
        place = {oid: number for number, oid in enumerate(order)}
        night = _Night(
            target,
            views,
            read_sources(session, views),
            {oid: {each for each in edges[oid] if place[each] < place[oid]} for oid in order},
            order,
            everything or not settings.skip_unchanged,
            dry_run,
            state.recall(target, _MEMORY, LastRefresh.from_json),
        )
        if dry_run or session.server_version < _SAFE_PATH_SINCE:
            _find_without_path(session, night, ledger)
        try:
            plan = _refresh_all(night, login, ledger, progress)
        finally:
            if not dry_run:
                gone = night.memory.keys() - {view.relation.qualified for view in views.values()}
                state.keep(target, _MEMORY, night.learned, gone=gone)
    done_word = "would be refreshed" if dry_run else "refreshed"
    unchanged = sum(1 for entry in plan if entry["unchanged"])
    return ledger.result(
        f"{len(ledger.changed)} of {len(views)} materialized views {done_word}"
        + (f", {unchanged} unchanged" if unchanged else "")
        + (f", {len(ledger.failed)} failed" if ledger.failed else "")
        + (f", {left} skipped" if (left := len(ledger.skipped) - unchanged) else ""),
        {"order": plan},
        status="skipped" if left == len(views) and not ledger.failed else None,
    )


def refresh_order(names: Mapping[int, str], sources: Mapping[int, Set[int]]) -> tuple[list[int], list[int]]:
    """Return all views, each after those it reads, and those of them that read each other in a circle.

    Views that do not depend on each other come by name, so that a plan reads the same every night. Views in
    a circle (CREATE OR REPLACE VIEW can make one), and what reads them, come last, by name.

    Args:
        names: Name of each view by its OID.
        sources: What each view reads, straight or through plain views.
    """
    waiting = {oid: set(sources.get(oid, ())) & names.keys() - {oid} for oid in names}
    readers: dict[int, list[int]] = {oid: [] for oid in names}
    for oid, read in waiting.items():
        for source in read:
            readers[source].append(oid)
    ready = [(names[oid], oid) for oid, read in waiting.items() if not read]
    heapq.heapify(ready)
    order: list[int] = []
    while ready:
        _, oid = heapq.heappop(ready)
        order.append(oid)
        for reader in readers[oid]:
            waiting[reader].discard(oid)
            if not waiting[reader]:
                heapq.heappush(ready, (names[reader], reader))
    circle = sorted(names.keys() - set(order), key=lambda oid: names[oid])
    return order + circle, circle


def choose_mode(view: Matview, *, allow_exclusive: bool) -> Mode | None:
    """Return how a view is refreshed, or None when it can't be without a lock that is not allowed.

    One that was never populated is filled with the plain form in any case: nobody can read it anyway.
    """
    if not view.is_populated:
        return "populate"
    if view.has_unique_index:
        return "concurrently"
    return "exclusive" if allow_exclusive else None


def _refresh_all(night: _Night, login: Login, ledger: Ledger, progress: Progress) -> list[dict[str, Any]]:
    """Take every view once those that it reads are done; return what became of each, in order."""
    settings = night.target.settings.matviews
    place = {oid: number for number, oid in enumerate(night.order)}
    waiting = {oid: set(read) for oid, read in night.reads.items()}
    readers: dict[int, list[int]] = {oid: [] for oid in night.order}
    for oid, read in waiting.items():
        for source in read:
            readers[source].append(oid)
    ready = [place[oid] for oid, read in waiting.items() if not read]
    heapq.heapify(ready)
    done: dict[int, _Done] = {}

    def open_session() -> Connection:
        return connect(
            login,
            purpose="refresh",
            lock_timeout_s=settings.lock_timeout_s,
            statement_timeout_s=settings.statement_timeout_s,
        )

    def work(connection: Connection, oid: int) -> _Done:
        return _refresh_one(connection, night, oid)

    def end(oid: int) -> None:
        for reader in readers[oid]:
            waiting[reader].discard(oid)
            if not waiting[reader]:
                heapq.heappush(ready, place[reader])

    with Workers(open_session, settings.jobs, work) as workers:
        while ready or workers.busy:
            while ready and workers.has_room:
                oid = night.order[heapq.heappop(ready)]
                reason = _why_not(night, oid)
                if reason is None:
                    progress(f"refreshing {night.name(oid)}", len(done), len(night.order))
                    workers.begin(oid)
                else:
                    done[oid] = _Done(Outcome("skipped", reason))
                    end(oid)
            if not workers.busy:
                continue
            oid, each = workers.next()
            done[oid] = each
            if each.memory is not None:
                night.learned[night.name(oid)] = asdict(each.memory)
            if each.moved:
                night.moved.add(oid)
            if each.outcome.kind == "failed":
                night.missed.add(oid)
            end(oid)
    for oid in night.order:
        ledger.take(night.name(oid), done[oid].outcome)
    looked_at = [oid for oid in night.order if done[oid].entry]
    ledger.examined = len(looked_at)
    return [
        {
            "matview": night.name(oid),
            "reads": [night.name(each) for each in sorted(night.reads[oid], key=place.__getitem__)],
            **done[oid].entry,
        }
        for oid in looked_at
    ]


def _why_not(night: _Night, oid: int) -> str | None:
    """Return why a view whose sources are done is not even looked at, or None."""
    settings = night.target.settings.matviews
    view = night.views[oid]
    if is_excluded(settings.exclude, view.relation.schema, view.relation.name):
        return "excluded by matviews.exclude"
    missed = next((each for each in night.order if each in night.reads[oid] & night.missed), None)
    if missed is not None:
        night.missed.add(oid)
        return f"it reads {night.name(missed)}, which was not refreshed"
    if choose_mode(view, allow_exclusive=settings.allow_exclusive) is None:
        return (
            "it has no unique index on plain columns for CONCURRENTLY, and matviews.allow_exclusive"
            " is off; create such an index, or allow the exclusive lock"
        )
    return None


def _refresh_one(connection: Connection, night: _Night, oid: int) -> _Done:
    """Refresh one view if it has to be; what it reads is looked at before, and kept if it works."""
    settings = night.target.settings.matviews
    view, sources = night.views[oid], night.sources[oid]
    relation, known = view.relation, night.known(oid)
    mode = choose_mode(view, allow_exclusive=settings.allow_exclusive)
    assert mode is not None
    look = look_at(connection, sources)
    last = known.refreshed_at if known else None
    behind = changed_rows(look, known)
    entry = {"mode": mode, "unchanged": False, "refreshed_at": last, "changed_rows": behind}
    reason = _why(night, oid, mode, why_changed(sources, look, known))
    if reason is None:
        return _Done(
            Outcome("skipped", f"nothing that it reads has changed since its refresh of {last}"),
            {**entry, "mode": None, "unchanged": True},
        )
    stale = f"; its rows are of {last}" if last else ""
    stale += f", {behind} rows below it have changed since" if last and behind else ""
    if not relation.may_refresh:
        fix = maintain_fix(connection, relation)
        return _Done(Outcome("failed", f"no right to refresh it; run: {fix}{stale}"), entry)
    if night.dry_run:
        return _Done(Outcome("changed", "would refresh", {"mode": mode, "reason": reason}), entry, moved=True)
    began, before = datetime.now(UTC), _changes(connection, oid)
    try:
        mode, seconds = _execute(connection, relation, mode, settings.on_duplicate_rows)
    except LockTimeout:
        who = name_holders(lock_holders(connection, relation.oid))
        return _Done(Outcome("failed", f"not refreshed ({mode}): locked by {who}{stale}"), entry)
    except StewardError as exc:
        if connection.closed:
            raise
        if is_gone(connection, oid):
            return _Done(Outcome("skipped", GONE), entry)
        fix = ""
        if isinstance(exc, QueryFailed):
            fix = path_fix(exc, sources) or _temporary_fix(connection, exc, mode)
        return _Done(Outcome("failed", f"not refreshed ({mode}): {exc}{fix}{stale}"), entry)
    log.info("%s refreshed (%s) in %.1f s: %s", relation.qualified, mode, seconds, reason)
    facts = {"mode": mode, "reason": reason, "seconds": seconds, "bytes": _size(connection, relation)}
    memory = LastRefresh(oid, sources.version, began.isoformat(timespec="seconds"), look.began, look.counters)
    entry |= {"mode": mode, "refreshed_at": memory.refreshed_at, "changed_rows": 0}
    moved = mode != "concurrently" or _changes(connection, oid) != before
    return _Done(Outcome("changed", "refreshed", facts), entry, memory, moved)


def _why(night: _Night, oid: int, mode: Mode, changed: str | None) -> str | None:
    """Return why a view is refreshed in this run; None leaves it as it is."""
    if mode == "populate":
        return "it was never populated"
    moved = next((each for each in night.order if each in night.reads[oid] & night.moved), None)
    if moved is not None:
        return f"it reads {night.name(moved)}, which {'would be' if night.dry_run else 'was'} refreshed"
    if changed is None and night.everything:
        return "everything is refreshed"
    return changed


def _execute(
    connection: Connection, relation: Relation, mode: Mode, on_duplicate_rows: str
) -> tuple[Mode, float]:
    """Refresh a view; return how it was done in the end, and the seconds."""
    started = time.monotonic()
    name = identifier(relation.schema, relation.name)
    try:
        how = raw("CONCURRENTLY ") if mode == "concurrently" else raw("")
        connection.execute(compose("REFRESH MATERIALIZED VIEW {}{}", how, name))
    except QueryFailed as exc:
        if mode != "concurrently" or exc.sqlstate != _DUPLICATE_ROWS or on_duplicate_rows != "exclusive":
            raise
        log.warning("%s: %s; refreshed with an exclusive lock instead", relation.qualified, exc)
        mode = "exclusive"
        connection.execute(compose("REFRESH MATERIALIZED VIEW {}", name))
    connection.execute("SELECT pg_stat_force_next_flush()")  # what reads it is looked at next
    return mode, round(time.monotonic() - started, 3)


def _temporary_fix(connection: Connection, error: QueryFailed, mode: Mode) -> str:
    """Return what to do where CONCURRENTLY could not make the temporary table that it works with."""
    if (mode, error.sqlstate) != ("concurrently", _NO_RIGHT) or connection.value(
        "SELECT has_database_privilege(current_database(), 'TEMPORARY')"
    ):
        return ""
    database, role = quote_name(connection.dbname), quote_name(current_role(connection))
    return f"; CONCURRENTLY makes a temporary table; run: GRANT TEMPORARY ON DATABASE {database} TO {role}"


def _find_without_path(connection: Connection, night: _Night, ledger: Ledger) -> None:
    """Name the functions that will not find their tables in a refresh of PostgreSQL 17 and newer."""
    readers: dict[Function, list[str]] = {}
    for oid in night.order:
        for function in night.sources[oid].functions:
            readers.setdefault(function, []).append(night.name(oid))
    for function, error in without_path(connection, readers).items():
        ledger.find(", ".join(readers[function]), path_finding(function, error))


def _matview_from(row: Row) -> Matview:
    return Matview(relation_from(row), row["is_populated"], row["has_unique_index"])


def _edges(views: Mapping[int, Matview], edges: Sequence[Row]) -> dict[int, set[int]]:
    sources: dict[int, set[int]] = {oid: set() for oid in views}
    for edge in edges:
        if edge["matview"] in sources and edge["source"] in sources:
            sources[edge["matview"]].add(edge["source"])
    return sources


def _changes(connection: Connection, oid: int) -> int:
    """Return how many rows of a view were changed one by one, which only a concurrent refresh does."""
    rows = connection.rows(sql.load("relation_changes"), {"oids": [oid]})
    return sum(row["changes"] for row in rows)


def _size(connection: Connection, relation: Relation) -> int | None:
    size = connection.value("SELECT pg_total_relation_size(%(oid)s::int8::oid)", {"oid": relation.oid})
    return None if size is None else int(size)
