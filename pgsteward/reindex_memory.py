"""What earlier rebuilds of a database have taught: how fast they are, and which did not pay.

Kept by the name of each index, as a rebuild gives it another OID. Losing it loses nothing but experience.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from pgsteward import state
from pgsteward.targets import Target

TOPIC = "reindex.rebuilds"
HEAP_WEIGHT = 0.15
"""Reading a byte of the table counts as so much of writing one of the index: that of a disk that reads 200 MB
in a second. From memory it takes a tenth of that, and what is learned says so."""
DEFAULT_BYTES_PER_S = 30_000_000.0
"""Of work, until this database has taught another figure; less than half of the slowest that was measured
(benchmarks/reindex.py, all in memory)."""
LEAST_S = 0.1
"""Every rebuild takes this long, however small: it has several transactions, and waits in between."""
LEAST_GAIN = 0.10
"""A rebuild that gave back less than this did not pay."""

_KEPT = 12
_NEWEST = 50
_MOST_BACK_OFF = timedelta(days=180)
_UNFINISHED_FACTOR = 1.5


@dataclass(frozen=True, slots=True)
class Past:
    """One rebuild.

    Attributes:
        at: Aware instant it began.
        bytes_before: Size of the index.
        bytes_after: Size of the new one; None where the rebuild was not finished.
        seconds: Without the time it waited for others.
        work_bytes: See `work_bytes`.
        wal_bytes: Of the WAL, where it is known.
    """

    at: datetime
    bytes_before: int
    bytes_after: int | None
    seconds: float
    work_bytes: int
    wal_bytes: int | None = None

    @property
    def gain(self) -> float:
        """Share of the index that was given back; negative where it grew."""
        if self.bytes_after is None or not self.bytes_before:
            return 0.0
        return 1 - self.bytes_after / self.bytes_before

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "at": self.at.isoformat()}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Past:
        return replace(cls(**entry), at=datetime.fromisoformat(entry["at"]))


@dataclass(frozen=True, slots=True)
class Memory:
    """The rebuilds of one database by the name of the index, oldest first."""

    rebuilds: Mapping[str, tuple[Past, ...]]

    @property
    def speed(self) -> tuple[float, int]:
        """How many bytes of work a second does, and how many rebuilds have taught that; 0 for the default."""
        done = [past for each in self.rebuilds.values() for past in each if past.bytes_after is not None]
        newest = sorted(done, key=lambda past: past.at)[-_NEWEST:]
        busy_s = sum(max(past.seconds - LEAST_S, 0) for past in newest)
        work = sum(past.work_bytes for past in newest if past.seconds > LEAST_S)
        if not work:
            return DEFAULT_BYTES_PER_S, 0
        return work / busy_s, len(newest)

    def unfinished_s(self, index: str) -> float:
        """Return what an index needs at least whose newest rebuilds did not come to their end; else 0."""
        longest = 0.0
        for past in reversed(self.rebuilds.get(index, ())):
            if past.bytes_after is not None:
                break
            longest = max(longest, past.seconds)
        return longest * _UNFINISHED_FACTOR

    def back_off(
        self, index: str, now: datetime, returns_within: timedelta, pause: timedelta
    ) -> BackOff | None:
        """Return why and until when an index that is bloated again is left alone, or None.

        Each rebuild that gained too little, or whose bloat was back too soon, doubles the pause after it; one
        that held out ends the row. When in a pause bloat came back can't be told: the next rebuild soon after
        the pause counts as too soon.

        Args:
            index: Its qualified name; it is over the thresholds now.
            now: Aware instant.
            returns_within: See the settings.
            pause: The first one.
        """
        done = [past for past in self.rebuilds.get(index, ()) if past.bytes_after is not None]
        in_vain = 0
        for n, past in enumerate(done):
            next_at = done[n + 1].at if n + 1 < len(done) else now
            soon = max(returns_within, _pause(pause, in_vain + 1) + pause)
            in_vain = in_vain + 1 if next_at - past.at < soon or past.gain < LEAST_GAIN else 0
        if not in_vain:
            return None
        until = done[-1].at + _pause(pause, in_vain)
        return BackOff(until, in_vain, done[-1]) if until > now else None


@dataclass(frozen=True, slots=True)
class BackOff:
    """A pause in the rebuilds of one index.

    Attributes:
        until: When it is over.
        in_vain: How many rebuilds in a row did not pay.
        last: The newest of them.
    """

    until: datetime
    in_vain: int
    last: Past

    @property
    def gained_little(self) -> bool:
        """The last one gave back too little; otherwise the bloat came back."""
        return self.last.gain < LEAST_GAIN


def work_bytes(new_bytes: int, table_bytes: int) -> int:
    """Return what a rebuild has to do: write the index, read the table twice."""
    return int(new_bytes + HEAP_WEIGHT * 2 * table_bytes)


def load(target: Target) -> Memory:
    """Return what is known about the target's database; an empty memory, and a warning, when that fails."""
    return Memory(
        state.recall(target, TOPIC, lambda entries: tuple(Past.from_json(entry) for entry in entries))
    )


def add(target: Target, memory: Memory, index: str, past: Past) -> Memory:
    """Keep one more rebuild, at once: a run that is killed later has learned from it."""
    newest: Sequence[Past] = (*memory.rebuilds.get(index, ()), past)[-_KEPT:]
    state.keep(target, TOPIC, {index: [each.as_json() for each in newest]})
    return Memory({**memory.rebuilds, index: tuple(newest)})


def _pause(first: timedelta, in_vain: int) -> timedelta:
    return min(first * (1 << min(in_vain - 1, 10)), _MOST_BACK_OFF)
