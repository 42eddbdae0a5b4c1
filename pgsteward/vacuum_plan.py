"""Which tables need a VACUUM, and which first. Pure decisions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pgsteward.config import VacuumConfig
from pgsteward.postgres import Row
from pgsteward.relations import Relation, relation_from

_MANY_PAGES = 1_000
"""Below this many pages it costs nothing to look into the heap for visibility."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A table as the catalog and the counters show it; its TOAST table is a part of it.

    Attributes:
        xid_age: Transactions since its oldest one that is not frozen.
        freeze_max_age: At which autovacuum starts to do it whether wanted or not, in the middle of the day.
        failsafe_age: At which VACUUM drops everything else.
        dead_threshold: Autovacuum's own.
        is_reached: Autovacuum is on, for the server and for this table.
        is_toast_older: The age is that of its TOAST table.
    """

    relation: Relation
    is_shared: bool
    is_catalog: bool
    is_temporary: bool
    xid_age: int
    multixact_age: int
    freeze_max_age: float
    multixact_freeze_max_age: float
    failsafe_age: float
    multixact_failsafe_age: float
    is_toast_older: bool
    row_count: float
    dead_rows: int
    dead_threshold: float
    toast_dead_rows: int
    toast_dead_threshold: float
    is_reached: bool
    pages: int
    visible_pages: int
    index_scans: int
    table_scans: int
    is_counted: bool

    @classmethod
    def of(cls, row: Row) -> Candidate:
        """Return what a row of the query says."""
        own: dict[str, Any] = {name: row[name] for name in cls.__slots__ if name != "relation"}
        return cls(relation=relation_from(row), **own)

    def freeze_limits(self, fraction: float) -> tuple[float, float]:
        """Return the ages from which it is vacuumed: long before the failsafe, whatever is configured."""
        return (
            min(fraction * self.freeze_max_age, self.failsafe_age / 2),
            min(fraction * self.multixact_freeze_max_age, self.multixact_failsafe_age / 2),
        )

    def urgency(self, fraction: float) -> float:
        """Return how near its ages are to their limits; from 1 on it is time."""
        xids, multixacts = self.freeze_limits(fraction)
        return max(self.xid_age / xids, self.multixact_age / multixacts)


@dataclass(frozen=True, slots=True)
class Due:
    """A table that needs a VACUUM.

    Attributes:
        reason: For the report.
        for_age: Everything is frozen that may be; neither the window nor the budget holds it up.
        index_cleanup: All indexes are cleaned, also where few rows are dead: their bloat is measured next.
        weight: Larger comes first, after all that is for its age.
    """

    candidate: Candidate
    reason: str
    for_age: bool = False
    index_cleanup: bool = False
    weight: float = 0.0

    @property
    def relation(self) -> Relation:
        """The table."""
        return self.candidate.relation


def choose_due(candidates: Iterable[Candidate], settings: VacuumConfig, wanted: set[int]) -> list[Due]:
    """Return what needs a VACUUM, the most urgent first.

    Args:
        candidates: All tables; temporary ones of others are passed over, nobody else can vacuum them.
        settings: See `VacuumConfig`; without its guard only what is wanted.
        wanted: OIDs of tables that are vacuumed whatever their state.
    """
    due: list[Due] = []
    for each in candidates:
        if each.is_temporary:
            continue
        is_wanted = each.relation.oid in wanted
        reasons = [
            reason
            for reason in (
                _why_old(each, settings.freeze_fraction) if settings.guard else None,
                "it was cleaned, or asked for" if is_wanted else None,
                _why_dead(each, settings.dead_fraction) if settings.guard else None,
                _why_invisible(each, settings.min_visible) if settings.guard else None,
            )
            if reason is not None
        ]
        if reasons:
            urgency = each.urgency(settings.freeze_fraction)
            for_age = settings.guard and urgency >= 1
            weight = urgency if for_age else float("inf") if is_wanted else float(each.dead_rows)
            due.append(Due(each, "; ".join(reasons), for_age, is_wanted, weight))
    return sorted(due, key=lambda one: (not one.for_age, -one.weight, one.relation.qualified))


def _why_old(table: Candidate, fraction: float) -> str | None:
    if table.urgency(fraction) < 1:
        return None
    xids, multixacts = table.freeze_limits(fraction)
    which = "of its TOAST table " if table.is_toast_older else ""
    if table.xid_age / xids >= table.multixact_age / multixacts:
        return f"the oldest transaction {which}is {table.xid_age:,} transactions old, over {xids:,.0f}"
    return f"the oldest multixact {which}is {table.multixact_age:,} multixacts old, over {multixacts:,.0f}"


def _why_dead(table: Candidate, fraction: float) -> str | None:
    """Say why autovacuum's rule is met; catalogs that are not ours are left to autovacuum."""
    if table.is_shared or (table.is_catalog and not table.relation.may_vacuum):
        return None
    off = "" if table.is_reached else ", and autovacuum is off here"
    if table.dead_rows > fraction * table.dead_threshold:
        return f"{table.dead_rows:,} dead rows, over {fraction * table.dead_threshold:,.0f}{off}"
    if table.toast_dead_rows > fraction * table.toast_dead_threshold:
        return (
            f"{table.toast_dead_rows:,} dead rows in its TOAST table,"
            f" over {fraction * table.toast_dead_threshold:,.0f}{off}"
        )
    return None


def _why_invisible(table: Candidate, min_visible: float | None) -> str | None:
    if min_visible is None or table.is_catalog or table.pages < _MANY_PAGES:
        return None
    share = table.visible_pages / table.pages
    if share >= min_visible or table.index_scans <= table.table_scans:
        return None
    return f"{share:.0%} of its pages are all-visible: index-only scans read the heap for all others"
