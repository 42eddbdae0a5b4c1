"""What is measured first, how far one run goes, and what the next one has to know about it."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from pgsteward.state import keep, recall
from pgsteward.targets import Target

_TOPIC = "bloat"
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Candidate:
    """An index or a table that is worth a look.

    Attributes:
        oid: Of the index or the table.
        cost_bytes: What a look has to read.
        possible_bytes: What there may be to gain, by what the catalog says.
        is_table: Tables come after indexes: nothing of ours rewrites them.
        known_gain_bytes: What the last look found to gain, where that was enough for a rebuild.
        looked_at: When an earlier run took its look; None means never.
    """

    oid: int
    name: str
    cost_bytes: int
    possible_bytes: int
    is_table: bool = False
    known_gain_bytes: int = 0
    looked_at: datetime | None = None


def rank(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Return candidates in the order of looking: what waits longest, and of that the largest gain.

    What is known to be worth a rebuild comes before everything else: it has to be measured again for that.

    A run that could not look at all of them is carried on by the next one, as what was never looked at, or
    was in an earlier run, comes before what was in the last. Where one run is enough, all were in it, and the
    gain alone decides.
    """
    return sorted(
        candidates,
        key=lambda c: (-c.known_gain_bytes, c.looked_at or _NEVER, c.is_table, -c.possible_bytes, c.name),
    )


@dataclass(slots=True)
class Budget:
    """How much one run may read, and for how long."""

    max_bytes: int
    max_seconds: float
    spent_bytes: int = 0
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds_left(self) -> float:
        return self.max_seconds - (time.monotonic() - self.started)

    def has_room(self, cost_bytes: int) -> bool:
        """Tell whether something of this size may still be read."""
        return self.spent_bytes + cost_bytes <= self.max_bytes and self.seconds_left > 0


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at an index or a table has said.

    Attributes:
        filenode: A rebuild gives another one.
        at: When the run began that took it, as ISO 8601.
        gain_bytes: What a rebuild would give back, where that is enough for one.
        bytes_per_row: The best that was ever seen of this build of an index that only its history measures.
    """

    filenode: int
    at: str
    gain_bytes: int = 0
    bytes_per_row: float | None = None


class Memory:
    """The last looks of a database. Losing them loses the order, and the history of what only it measures."""

    def __init__(self, target: Target) -> None:
        """Recall them.

        Args:
            target: Bound to one database.
        """
        self._target = target
        self._looks = recall(target, _TOPIC, lambda kept: Look(**kept))
        self._new: dict[str, Look] = {}
        self._now = datetime.now(UTC).isoformat()

    def looked_at(self, name: str) -> datetime | None:
        """Return when an object was looked at last, before this run."""
        look = self._looks.get(name)
        return None if look is None else datetime.fromisoformat(look.at)

    def best_bytes_per_row(self, name: str, filenode: int, now: float) -> float | None:
        """Return the best size per row that was seen of an index, or None when this is the first look at it.

        Args:
            name: Of the index.
            filenode: One that was rebuilt since the last look has another one, and is as good as it gets.
            now: Its size per row.
        """
        look = self._looks.get(name)
        if look is None or look.bytes_per_row is None:
            return None
        return min(look.bytes_per_row, now) if look.filenode == filenode else now

    def known_gain_bytes(self, name: str) -> int:
        """Return what the last look found to gain, where that was enough for a rebuild."""
        look = self._looks.get(name)
        return 0 if look is None else look.gain_bytes

    def add(
        self, name: str, filenode: int, *, gain_bytes: int = 0, bytes_per_row: float | None = None
    ) -> None:
        """Take down a look of this run."""
        self._new[name] = Look(filenode, self._now, gain_bytes, bytes_per_row)

    def save(self, present: Collection[str]) -> None:
        """Keep the looks of this run for the next ones.

        Args:
            present: Names of all objects that there are; the others are forgotten.
        """
        entries: dict[str, Any] = {name: asdict(look) for name, look in self._new.items()}
        keep(self._target, _TOPIC, entries, gone=[name for name in self._looks if name not in present])
