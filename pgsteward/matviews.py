"""Materialized views, refreshed in the order in which they read each other, also through plain views.

Concurrently where that is possible (readers go on reading), with an exclusive lock where it is not and the
configuration allows it. What reads a view that could not be refreshed is skipped by name; the others go on.
"""

from __future__ import annotations

import heapq
import logging
import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Literal

from pgsteward import results, sql
from pgsteward.errors import LockTimeout, StewardError
from pgsteward.ledger import Ledger
from pgsteward.postgres import Connection, Row, compose, connect, identifier, operation_lock, raw
from pgsteward.progress import Progress, silent
from pgsteward.relations import (
    Relation,
    is_excluded,
    lock_holders,
    maintain_fix,
    name_holders,
    relation_from,
)
from pgsteward.results import StepResult
from pgsteward.targets import Target

log = logging.getLogger(__name__)

STEP = "matviews"

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


def refresh(target: Target, *, dry_run: bool = False, progress: Progress = silent) -> StepResult:
    """Refresh every materialized view that the configuration does not exclude.

    Args:
        target: Whose database.
        dry_run: Say in which order and how they would be refreshed.
        progress: Told about views.

    Raises:
        PreconditionError: Another run works on this database.
    """
    login = target.login("maintenance")
    settings = target.settings.matviews
    ledger = Ledger(STEP, target.name, dry_run)
    with (
        operation_lock(login, STEP),
        connect(
            login,
            purpose="refresh",
            lock_timeout_s=settings.lock_timeout_s,
            statement_timeout_s=settings.statement_timeout_s,
        ) as connection,
    ):
        views = {row["oid"]: _matview_from(row) for row in connection.rows(sql.load("matviews"))}
        if not views:
            return results.skipped(STEP, target.name, "there is no materialized view in this database")
        sources = _sources(views, connection.rows(sql.load("matview_edges")))
        order, circle = refresh_order({oid: v.relation.qualified for oid, v in views.items()}, sources)
        if circle:
            names = ", ".join(views[oid].relation.qualified for oid in circle)
            ledger.find(names, "they read each other in a circle, so no order is right; taken by name")
        missed: dict[int, str] = {}
        plan: list[dict[str, Any]] = []
        for done, oid in enumerate(order):
            view = views[oid]
            name = view.relation.qualified
            progress(f"refreshing {name}", done, len(order))
            mode = choose_mode(view, allow_exclusive=settings.allow_exclusive)
            reads = [views[source].relation.qualified for source in order if source in sources[oid]]
            if is_excluded(settings.exclude, view.relation.schema, view.relation.name):
                ledger.skip(name, "excluded by matviews.exclude")
                continue
            plan.append({"matview": name, "mode": mode, "reads": reads})
            stale_source = next((source for source in order if source in sources[oid] & missed.keys()), None)
            if stale_source is not None:
                missed[oid] = name
                ledger.skip(name, f"it reads {missed[stale_source]}, which was not refreshed")
            elif mode is None:
                ledger.skip(
                    name,
                    "it has no unique index on plain columns for CONCURRENTLY, and matviews.allow_exclusive"
                    " is off; create such an index, or allow the exclusive lock",
                )
            elif not _refresh_one(connection, view, mode, ledger):
                missed[oid] = name
    done_word = "would be refreshed" if dry_run else "refreshed"
    return ledger.result(
        f"{len(ledger.changed)} of {len(views)} materialized views {done_word}"
        + (f", {len(ledger.failed)} failed" if ledger.failed else "")
        + (f", {len(ledger.skipped)} skipped" if ledger.skipped else ""),
        {"order": plan},
        status="skipped" if len(ledger.skipped) == len(views) and not ledger.failed else None,
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


def _refresh_one(connection: Connection, view: Matview, mode: Mode, ledger: Ledger) -> bool:
    """Refresh one view and write down what came of it; return whether it is fresh now."""
    relation = view.relation
    name = relation.qualified
    ledger.examined += 1
    if not relation.may_refresh:
        ledger.fail(name, f"no right to refresh it; run: {maintain_fix(connection, relation)}")
        return False
    if ledger.dry_run:
        ledger.change(name, "would refresh", mode=mode)
        return True
    started = time.monotonic()
    how = raw("CONCURRENTLY ") if mode == "concurrently" else raw("")
    try:
        connection.execute(
            compose("REFRESH MATERIALIZED VIEW {}{}", how, identifier(relation.schema, relation.name))
        )
    except LockTimeout:
        who = name_holders(lock_holders(connection, relation.oid))
        ledger.fail(name, f"not refreshed ({mode}): locked by {who}")
        return False
    except StewardError as exc:
        if connection.closed:
            raise
        ledger.fail(name, f"not refreshed ({mode}): {exc}")
        return False
    seconds = round(time.monotonic() - started, 3)
    ledger.change(name, "refreshed", mode=mode, seconds=seconds, bytes=_size(connection, relation))
    log.info("%s refreshed (%s) in %.1f s", name, mode, seconds)
    return True


def _matview_from(row: Row) -> Matview:
    return Matview(relation_from(row), row["is_populated"], row["has_unique_index"])


def _sources(views: Mapping[int, Matview], edges: Sequence[Row]) -> dict[int, set[int]]:
    sources: dict[int, set[int]] = {oid: set() for oid in views}
    for edge in edges:
        if edge["matview"] in sources and edge["source"] in sources:
            sources[edge["matview"]].add(edge["source"])
    return sources


def _size(connection: Connection, relation: Relation) -> int | None:
    size = connection.value("SELECT pg_total_relation_size(%(oid)s::int8::oid)", {"oid": relation.oid})
    return None if size is None else int(size)
