"""Is an index used? A verdict with its evidence: absence of scans is none where nobody has counted for long.

Pure: `judge` gets what the servers said, and the instant.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from pgsteward.audit.foreign_keys import supports
from pgsteward.audit.inventory import Index, Inventory

_QUIET = timedelta(days=30)
"""An index that was scanned once is used for at least so long, however short the observation may be."""

Verdict = Literal["used", "unused", "not enough evidence", "needed"]


@dataclass(frozen=True, slots=True)
class Counter:
    """What one server has counted of one index.

    Attributes:
        last_scan_at: None before PostgreSQL 16, and where there was none.
        reset_at: When this index's own counters were set back, where the server keeps that.
    """

    scans: int
    tuples_read: int
    last_scan_at: datetime | None = None
    reset_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """What one server knows of its indexes.

    Attributes:
        server: ``primary``, or what the configuration calls a replica.
        since: When it began to count; None where that is not known.
        gap: Why its counters prove nothing: it does not count, or could not be asked. Empty where they do.
    """

    server: str
    since: datetime | None
    counters: Mapping[int, Counter]
    gap: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """One index with its verdict.

    Attributes:
        scans: On all servers together, and of all parts of a partitioned index.
        observed_since: The latest of what hides earlier scans: the start of a server's counters, and when
            pgsteward saw the index first. None where that is not known.
    """

    index: Index
    verdict: Verdict
    why: str
    scans: int
    tuples_read: int
    last_scan_at: datetime | None
    observed_since: datetime | None

    def as_json(self, size: int | None) -> dict[str, Any]:
        return {
            "index": self.index.qualified,
            "table": self.index.table,
            "bytes": size,
            "verdict": self.verdict,
            "why": self.why,
            "scans": self.scans,
            "tuples_read": self.tuples_read,
            "last_scan_at": _iso(self.last_scan_at),
            "observed_since": _iso(self.observed_since),
        }


def _iso(instant: datetime | None) -> str | None:
    return None if instant is None else instant.isoformat()


def judge_all(
    inventory: Inventory,
    observations: Sequence[Observation],
    first_seen: Mapping[int, datetime],
    now: datetime,
    min_observed: timedelta,
    required: Collection[int] = (),
) -> list[Usage]:
    """Return a verdict for every index; the parts of a partitioned one are judged as a whole, under its name.

    Args:
        inventory: All indexes.
        observations: What each server has counted, the primary's first.
        first_seen: When pgsteward saw each index first; one that is missing is not known to be old enough.
        now: Instant by the server's clock.
        min_observed: An index that was watched for exactly so long may be called unused.
        required: OIDs of indexes that the configuration asks for.
    """
    return [
        judge(index, inventory, observations, first_seen, now, min_observed, required)
        for index in inventory.indexes
        if index.parent_oid is None
    ]


def judge(
    index: Index,
    inventory: Inventory,
    observations: Sequence[Observation],
    first_seen: Mapping[int, datetime],
    now: datetime,
    min_observed: timedelta,
    required: Collection[int] = (),
) -> Usage:
    """Return the verdict on one index; see `judge_all`."""
    leaves = inventory.leaves(index)
    counted = [o.counters[leaf.oid] for o in observations for leaf in leaves if leaf.oid in o.counters]
    scans, tuples = sum(c.scans for c in counted), sum(c.tuples_read for c in counted)
    last = max((c.last_scan_at for c in counted if c.last_scan_at is not None), default=None)
    since = _observed_since(leaves, observations, first_seen)
    needed = "required by the configuration" if index.oid in required else why_needed(index, inventory)
    was_scanned = scans + tuples > 0
    verdict, why = _verdict(needed, observations, was_scanned, last, since, now, min_observed)
    return Usage(index, verdict, why, scans, tuples, last, since)


def _verdict(
    needed: str,
    observations: Sequence[Observation],
    was_scanned: bool,
    last: datetime | None,
    since: datetime | None,
    now: datetime,
    min_observed: timedelta,
) -> tuple[Verdict, str]:
    watched_from = since if since is None or last is None else max(since, last)
    quiet = was_scanned and last is not None and now - last >= max(min_observed, _QUIET)
    if was_scanned and not quiet:
        return "used", "queries use it"
    if needed:
        return "needed", needed
    gaps = [f"{observation.server}: {observation.gap}" for observation in observations if observation.gap]
    if gaps:
        return "not enough evidence", "; ".join(gaps)
    if watched_from is None:
        return "not enough evidence", "it is not known since when its scans are counted"
    if now - watched_from < min_observed:
        return "not enough evidence", (
            f"no scan since {watched_from:%Y-%m-%d %H:%M} UTC, which is less than {_days(min_observed)}"
        )
    asked = f" on {len(observations)} servers" if len(observations) > 1 else ""
    return "unused", f"no scan since {watched_from:%Y-%m-%d %H:%M} UTC{asked}"


def _days(span: timedelta) -> str:
    return f"{span / timedelta(days=1):g} days"


def _observed_since(
    leaves: Sequence[Index], observations: Sequence[Observation], first_seen: Mapping[int, datetime]
) -> datetime | None:
    starts: list[datetime | None] = [first_seen.get(leaf.oid) for leaf in leaves]
    for observation in observations:
        starts.append(observation.since)
        starts += [
            counter.reset_at
            for leaf in leaves
            if (counter := observation.counters.get(leaf.oid)) is not None and counter.reset_at is not None
        ]
    known = [start for start in starts if start is not None]
    return max(known) if known and len(known) == len(starts) else None


def why_needed(index: Index, inventory: Inventory) -> str:
    """Return what an index is there for beside queries; empty where that is nothing."""
    if not index.is_valid:
        return "it is invalid"
    if index.constraint_type == "p":
        return "primary key"
    if index.is_exclusion:
        return "exclusion constraint"
    if index.is_unique:
        return "keeps values unique"
    if index.is_replica_identity:
        return "replica identity"
    if index.is_clustered:
        return "CLUSTER orders the table by it"
    if index.is_of_extension:
        return "belongs to an extension"
    if index.has_expressions:
        return "the planner may use its statistics of an expression"
    alone = only_support(index, inventory)
    return f"supports the foreign key {alone}" if alone else ""


def only_support(index: Index, inventory: Inventory, going: Collection[int] = ()) -> str:
    """Return the foreign key that nothing but this index supports, once those that go are gone."""
    others = [
        other
        for other in inventory.by_table[index.table_oid]
        if other.oid != index.oid and other.oid not in going
    ]
    for key in inventory.keys_of(index.table_oid):
        if supports(index, key) and not any(supports(other, key) for other in others):
            return key.name
    return ""
