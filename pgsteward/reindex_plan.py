"""Which bloated indexes are rebuilt tonight, which later, which never, and why. Pure: nothing is asked here.

The plan takes what gives most bytes back per second first, and goes on with what still fits into the time,
the WAL and the disk that a run may use.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from pgsteward.config import IndexBloatConfig, TargetConfig
from pgsteward.index_bloat import Index, is_bloated
from pgsteward.reindex_memory import LEAST_S, BackOff, Memory, work_bytes
from pgsteward.report.units import humanize_bytes, humanize_instant, humanize_seconds
from pgsteward.used import Used
from pgsteward.window import Window

Verdict = Literal["tonight", "later", "never"]

WAL_SHARE = 0.9
"""WAL of a rebuild by the size of the new index (measured)."""
DISK_SHARE = 2.0
"""Disk that a rebuild needs at its peak by the size of the new index: it, and what is sorted for it."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An index that was measured, and what a rebuild of it touches.

    Attributes:
        index: As it was measured.
        table_bytes: Size of its table.
        space: Path of its tablespace; "" for the data folder.
        obstacle: Why it is never rebuilt as things are, with what helps; "" where nothing is in the way.
    """

    index: Index
    table_bytes: int = 0
    space: str = ""
    obstacle: str = ""

    @property
    def new_bytes(self) -> int:
        """Size after a rebuild."""
        return self.index.bytes - self.index.reclaimable_bytes

    @property
    def wal_bytes(self) -> int:
        return int(self.new_bytes * WAL_SHARE)

    @property
    def disk_bytes(self) -> int:
        return int(self.new_bytes * DISK_SHARE)

    @property
    def work_bytes(self) -> int:
        return work_bytes(self.new_bytes, self.table_bytes)


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds one run; None bounds nothing.

    Attributes:
        thresholds: When an index counts as bloated.
        window: Hours of the day.
        max_minutes: From the start of the run.
        max_wal_bytes: Of all rebuilds together.
        used: By the databases before this one; None where this is the first.
        free_bytes: Free disk by tablespace; one that is not in it is unknown.
        parallel_tables: How many tables are worked on at the same time.
        returns_within: See the settings.
        back_off: The first pause.
    """

    thresholds: IndexBloatConfig = field(default_factory=IndexBloatConfig)
    window: Window | None = None
    max_minutes: float | None = None
    max_wal_bytes: int | None = None
    used: Used | None = None
    free_bytes: Mapping[str, int] = field(default_factory=dict)
    parallel_tables: int = 1
    returns_within: timedelta = timedelta(days=30)
    back_off: timedelta = timedelta(days=7)

    @classmethod
    def of(cls, settings: TargetConfig, free_bytes: Mapping[str, int], used: Used) -> Limits:
        """Return the limits of a target, of which some is used."""
        own = settings.reindex
        return cls(
            thresholds=settings.index_bloat,
            window=own.hours,
            max_minutes=own.max_minutes,
            max_wal_bytes=own.max_wal_bytes,
            used=used,
            free_bytes=free_bytes,
            parallel_tables=own.parallel_tables,
            returns_within=timedelta(days=own.returns_within_days),
            back_off=timedelta(days=own.back_off_days),
        )

    def deadline(self, now: datetime) -> datetime | None:
        """Return when the run is over at the latest; `now` itself when the window is closed."""
        ends = []
        if self.window is not None:
            ends.append(self.window.closes_at(now) or now)
        if self.max_minutes is not None:
            ends.append((self.used.since if self.used else now) + timedelta(minutes=self.max_minutes))
        return min(ends, default=None)


@dataclass(frozen=True, slots=True)
class Entry:
    """What the plan says about one index.

    Attributes:
        candidate: The index.
        verdict: Tonight, later or never.
        reason: Why.
        predicted_s: How long a rebuild will take, without waiting for others.
        needs_a_person: It will be the same every night, until somebody acts.
        back_off: The pause it is in.
    """

    candidate: Candidate
    verdict: Verdict
    reason: str
    predicted_s: float
    needs_a_person: bool = False
    back_off: BackOff | None = None

    @property
    def index(self) -> Index:
        return self.candidate.index

    def as_json(self) -> dict[str, Any]:
        return {
            "index": self.index.qualified,
            "table": self.index.table,
            "verdict": self.verdict,
            "reason": self.reason,
            "bytes": self.index.bytes,
            "reclaimable_bytes": self.index.reclaimable_bytes,
            "predicted_seconds": round(self.predicted_s, 1),
            "predicted_wal_bytes": self.candidate.wal_bytes,
            "needed_disk_bytes": self.candidate.disk_bytes,
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run will do, in its order, and what it leaves.

    Attributes:
        tonight: In the order in which they are started.
        later: Left to another night.
        never: Left alone until somebody changes something.
        deadline: When the run is over at the latest.
        bytes_per_s: The speed that was reckoned with.
        learned_from: How many rebuilds of this database it comes from; 0 when it is the default.
        seconds: How long tonight's rebuilds will take, without waiting for others.
    """

    tonight: tuple[Entry, ...]
    later: tuple[Entry, ...]
    never: tuple[Entry, ...]
    deadline: datetime | None
    bytes_per_s: float
    learned_from: int
    seconds: float

    @property
    def wal_bytes(self) -> int:
        """What tonight's rebuilds will write."""
        return sum(entry.candidate.wal_bytes for entry in self.tonight)

    @property
    def entries(self) -> tuple[Entry, ...]:
        return (*self.tonight, *self.later, *self.never)


def make_plan(candidates: Iterable[Candidate], memory: Memory, limits: Limits, now: datetime) -> Plan:
    """Decide about each index that is over both thresholds; others have no place in a plan.

    Args:
        candidates: What was measured, in any order.
        memory: What earlier rebuilds have taught.
        limits: Of this run.
        now: Aware instant at which the run starts.
    """
    speed, learned_from = memory.speed
    fitting = _Fitting(limits, now)
    entries: list[Entry] = []
    ranked: list[tuple[float, Candidate, float]] = []
    for candidate in candidates:
        index = candidate.index
        if not is_bloated(index, limits.thresholds):
            continue
        seconds = max(LEAST_S + candidate.work_bytes / speed, memory.unfinished_s(index.qualified))
        paused = memory.back_off(index.qualified, now, limits.returns_within, limits.back_off)
        if candidate.obstacle:
            entries.append(Entry(candidate, "never", candidate.obstacle, seconds, needs_a_person=True))
        elif paused is not None:
            entries.append(Entry(candidate, "later", _said(paused), seconds, back_off=paused))
        else:
            ranked.append((index.reclaimable_bytes / seconds, candidate, seconds))
    ranked.sort(key=lambda each: (-each[0], each[1].index.qualified))
    entries += [fitting.judge(candidate, seconds) for _, candidate, seconds in ranked]
    by_verdict = {
        verdict: tuple(entry for entry in entries if entry.verdict == verdict)
        for verdict in ("tonight", "later", "never")
    }
    return Plan(
        **by_verdict,
        deadline=fitting.deadline,
        bytes_per_s=speed,
        learned_from=learned_from,
        seconds=fitting.seconds,
    )


class _Fitting:
    """Fills the time, the WAL and the disk of one run, index by index."""

    def __init__(self, limits: Limits, now: datetime) -> None:
        self.limits, self.deadline = limits, limits.deadline(now)
        self._room_s = None if self.deadline is None else (self.deadline - now).total_seconds()
        spans = [] if limits.max_minutes is None else [limits.max_minutes * 60]
        if limits.window is not None:
            self._opens_at = limits.window.opens_at(now)
            spans.append(limits.window.seconds_from(self._opens_at))
        self._whole_night_s = min(spans, default=math.inf)
        self._lanes = [0.0] * limits.parallel_tables
        self._tables: dict[int, float] = {}
        self._wal_bytes = limits.used.wal_bytes if limits.used else 0
        self._beside: dict[str, list[int]] = {}

    @property
    def seconds(self) -> float:
        """When the last one of those that have got their place is done."""
        return max(self._lanes)

    def judge(self, candidate: Candidate, seconds: float) -> Entry:
        """Give an index its place, or say what it lacks."""
        too_much = self._too_much(candidate, seconds)
        if too_much:
            return Entry(candidate, "never", too_much, seconds, needs_a_person=True)
        begins = max(self._lanes[0], self._tables.get(candidate.index.table_oid, 0.0))
        room = self._no_room_on_disk(candidate)
        short = self._no_room_tonight(candidate, begins + seconds) or room
        if short:
            return Entry(candidate, "later", short, seconds, needs_a_person=short == room)
        heapq.heapreplace(self._lanes, begins + seconds)
        self._tables[candidate.index.table_oid] = begins + seconds
        self._wal_bytes += candidate.wal_bytes
        most = [*self._beside.get(candidate.space, ()), candidate.disk_bytes]
        self._beside[candidate.space] = heapq.nlargest(self.limits.parallel_tables - 1, most)
        return Entry(candidate, "tonight", _gain(candidate, seconds), seconds)

    def _too_much(self, candidate: Candidate, seconds: float) -> str:
        """Say why no night has room for an index, as the settings are, or ""."""
        most_wal = self.limits.max_wal_bytes
        if most_wal is not None and candidate.wal_bytes > most_wal:
            return (
                f"it will write about {humanize_bytes(candidate.wal_bytes)} of WAL, more than max_wal_bytes"
                f" ({humanize_bytes(most_wal)}) allows in a whole night; raise it"
            )
        if seconds > self._whole_night_s:
            return (
                f"it will take about {humanize_seconds(seconds)}, longer than a whole night"
                f" ({humanize_seconds(self._whole_night_s)}); raise max_minutes or widen the window"
            )
        return ""

    def _no_room_tonight(self, candidate: Candidate, ends_s: float) -> str:
        """Say what others have taken of the night that an index would need, or ""."""
        if self._room_s == 0 and self.limits.window is not None:
            return f"the window is closed; it opens at {humanize_instant(self._opens_at)}"
        if self._room_s is not None and self.deadline is not None and ends_s > self._room_s:
            return f"after what comes before it, it would not be done by {humanize_instant(self.deadline)}"
        most_wal = self.limits.max_wal_bytes
        if most_wal is not None and self._wal_bytes + candidate.wal_bytes > most_wal:
            return f"with what comes before it, it would write more WAL than {humanize_bytes(most_wal)}"
        return ""

    def _no_room_on_disk(self, candidate: Candidate) -> str:
        """Say that the new index does not fit beside the old one, and beside those built meanwhile, or ""."""
        free = self.limits.free_bytes.get(candidate.space)
        needed = candidate.disk_bytes + sum(self._beside.get(candidate.space, ()))
        return "" if free is None or needed <= free else too_little_disk(needed, free)


def too_little_disk(needed: int, free: int) -> str:
    """Say that the disk has no room for a new index beside the old one."""
    return (
        f"a rebuild needs about {humanize_bytes(needed)} of disk beside the old index, and"
        f" {humanize_bytes(free)} are free"
    )


def _gain(candidate: Candidate, seconds: float) -> str:
    index = candidate.index
    return (
        f"{index.ratio:.0%}, {humanize_bytes(index.reclaimable_bytes)} to gain in about"
        f" {humanize_seconds(seconds)}"
    )


def _said(paused: BackOff) -> str:
    until = f"left alone until {paused.until.astimezone(UTC):%Y-%m-%d}"
    if paused.gained_little:
        return f"{until}: its last rebuild gave back only {paused.last.gain:.0%}"
    rebuilds = "its last rebuild" if paused.in_vain == 1 else f"each of its last {paused.in_vain} rebuilds"
    return f"{until}: the bloat was soon back after {rebuilds}"
