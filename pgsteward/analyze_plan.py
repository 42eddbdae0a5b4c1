"""Which statistics are stale, and by how much: decisions about what was read, without a connection."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

_NAMED = 3
"""So many of the missing statistics are named in a reason."""


@dataclass(frozen=True, slots=True)
class TableState:
    """What decides whether a table's statistics are stale.

    Attributes:
        kind: r table, p partitioned parent, m materialized view.
        is_populated: False for a materialized view that was never filled.
        row_count: The planner's estimate; of a parent the sum over its leaves. -1 means never known.
        live_rows: By the counters, which know of rows since the last ANALYZE too.
        changed_rows: Since the last ANALYZE; of a parent the sum over its leaves.
        changes: Rows inserted, updated and deleted since the counters began; 0 for a parent.
        leaves: OIDs of a parent's leaves.
        leaf_last_autoanalyze: When autovacuum analyzed one of a parent's leaves last.
        leaf_last_any: When anybody did.
        parents: OIDs of all parents above it, any level up.
        base_threshold: ``autovacuum_analyze_threshold``, the table's own if it has one.
        scale_factor: ``autovacuum_analyze_scale_factor``, the table's own if it has one.
    """

    kind: str
    is_populated: bool
    last_analyze: datetime | None
    last_autoanalyze: datetime | None
    row_count: float
    live_rows: int
    changed_rows: int
    changes: int
    leaves: tuple[int, ...]
    leaf_last_autoanalyze: datetime | None
    leaf_last_any: datetime | None
    parents: tuple[int, ...]
    base_threshold: float
    scale_factor: float

    @property
    def rows(self) -> float:
        """How many rows it has, by whichever source knows of more."""
        return max(self.row_count, self.live_rows, 0.0)

    def threshold(self, fraction: float) -> float:
        """Return after how many changed rows autovacuum would analyze it, scaled."""
        return fraction * (self.base_threshold + self.scale_factor * max(self.row_count, 0.0))


@dataclass(frozen=True, slots=True)
class Stale:
    """A table whose statistics are stale.

    Attributes:
        weight: Changed rows per row of the threshold; infinite where there are no statistics at all.
        rows: Decides between equal weights.
    """

    oid: int
    reason: str
    weight: float
    rows: float


Counters = Mapping[int, tuple[int, float]]
"""Changes and rows of each leaf of a parent, by OID, at the parent's last ANALYZE."""


def find_stale(
    states: Mapping[int, TableState],
    fraction: float,
    *,
    can_do_only: bool,
    counters: Mapping[int, Counters] | None = None,
    missing: Mapping[int, Sequence[str]] | None = None,
) -> list[Stale]:
    """Return what is stale, the most stale first.

    Autovacuum never analyzes a parent, and a parent's own counters never move. So a parent goes by how much
    its leaves have changed since its last ANALYZE; where nobody has counted then, it is stale when one of its
    leaves is, or was analyzed after it. Before PostgreSQL 18 an ANALYZE of the parent analyzes the leaves
    right after it, so there only autovacuum's work on a leaf counts as later.

    Args:
        states: All tables by OID.
        fraction: Scales autovacuum's threshold: 0.5 means half the changes are enough.
        can_do_only: The server has ANALYZE ONLY.
        counters: Of those parents whose last ANALYZE was counted, by OID.
        missing: What has no statistics though its table has rows, by the table's OID.
    """
    found: dict[int, Stale] = {}
    for oid, state in states.items():
        stale = _judge(oid, state, states, fraction, (counters or {}).get(oid), (missing or {}).get(oid, ()))
        if stale is not None:
            found[oid] = stale
    stale_leaves = {parent for oid in found if states[oid].kind != "p" for parent in states[oid].parents}
    for oid, state in states.items():
        if state.kind != "p" or oid in found or state.last_analyze is None or oid in (counters or {}):
            continue
        newest = state.leaf_last_any if can_do_only else state.leaf_last_autoanalyze
        if oid in stale_leaves:
            found[oid] = Stale(oid, "partitioned parent of a stale partition", 1.0, state.rows)
        elif newest is not None and newest > state.last_analyze:
            reason = "partitioned parent with a partition that was analyzed after it"
            found[oid] = Stale(oid, reason, 1.0, state.rows)
    return sorted(found.values(), key=lambda each: (-each.weight, -each.rows, each.oid))


def with_own_analyze(
    stale: Sequence[Stale], states: Mapping[int, TableState], may_analyze: Callable[[int], bool]
) -> list[Stale]:
    """Return what is left when an ANALYZE of a stale parent does all that is below it along.

    One that we have no right to ANALYZE does nothing along.
    """
    parents = {each.oid for each in stale if may_analyze(each.oid)}
    return [each for each in stale if parents.isdisjoint(states[each.oid].parents)]


def changed_in_leaves(parent: TableState, states: Mapping[int, TableState], counters: Counters) -> float:
    """Return how many rows of a parent's leaves have changed since its last ANALYZE.

    A leaf that is new, or whose counters have lost their past (a crash, a reset), counts with all its rows;
    so does one that is gone.

    Args:
        parent: The parent.
        states: All tables by OID.
        counters: Its leaves at its last ANALYZE.
    """
    total = 0.0
    for oid in parent.leaves:
        leaf = states.get(oid)
        if leaf is None:
            continue
        before = counters.get(oid)
        known = before is not None and leaf.changes >= before[0]
        total += leaf.changes - before[0] if before is not None and known else leaf.rows
    return total + sum(rows for oid, (_, rows) in counters.items() if oid not in parent.leaves)


def count_leaves(parent: TableState, states: Mapping[int, TableState], *, now: bool) -> list[list[Any]]:
    """Return what to remember of a parent: OID, changes and rows of each leaf; `read_counters` reads it.

    Args:
        parent: The parent.
        states: All tables by OID, read before the ANALYZE began.
        now: It is analyzed now. Else it was at some time after each leaf's last ANALYZE, from when on the
            leaf's changes are counted.
    """
    leaves = [(oid, states[oid]) for oid in parent.leaves if oid in states]
    return [
        [oid, leaf.changes - (0 if now else min(leaf.changed_rows, leaf.changes)), leaf.rows]
        for oid, leaf in leaves
    ]


def read_counters(kept: Sequence[Sequence[Any]]) -> Counters:
    """Return the counters that `count_leaves` made."""
    return {int(oid): (int(changes), float(rows)) for oid, changes, rows in kept}


def _judge(
    oid: int,
    state: TableState,
    states: Mapping[int, TableState],
    fraction: float,
    counters: Counters | None,
    missing: Sequence[str],
) -> Stale | None:
    if state.kind == "m" and not state.is_populated:
        return None
    if state.kind == "p" and not state.leaves:
        return None
    if state.kind == "p" and state.last_analyze is None:
        reason = "partitioned parent that was never analyzed; autovacuum does not do it"
        return Stale(oid, reason, math.inf, state.rows)
    if state.kind != "p" and state.last_analyze is None and state.last_autoanalyze is None:
        return Stale(oid, "never analyzed since its counters began", math.inf, state.rows)
    if missing:
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        reason = f"no statistics of {', '.join(missing[:_NAMED])}{more}"
        return Stale(oid, reason, math.inf, state.rows)
    threshold = state.threshold(fraction)
    changed: float = state.changed_rows
    where = ""
    if state.kind == "p" and counters is not None:
        changed, where = changed_in_leaves(state, states, counters), " in its partitions"
    if changed > threshold:
        reason = f"{changed:.0f} rows changed{where} since the last ANALYZE, over {threshold:.0f}"
        return Stale(oid, reason, changed / threshold if threshold else math.inf, state.rows)
    return None
