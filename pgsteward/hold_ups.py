"""Who would hold a rebuild up, or does: named, waited for, and never ended by us."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from pgsteward import sql
from pgsteward.backup.lock_watch import OUR_NAMES
from pgsteward.interlock import DUMP
from pgsteward.postgres import Connection, Row
from pgsteward.postgres_lock import holders_of
from pgsteward.relations import name_holders

SAME_HOLDER_S = 1.0
"""Short transactions come and go: only one that is still the same after this time counts."""

OnBlocker = Literal["wait", "skip", "cancel"]


def hold_ups(connection: Connection, table_oid: int, own_pids: Sequence[int] = ()) -> list[Row]:
    """Return who would make a rebuild on this table wait if it started now, longest first."""
    announced = [holder["pid"] for holder in holders_of(connection, DUMP)]
    return connection.rows(
        sql.load("hold_ups"), {"oid": table_oid, "own_pids": list(own_pids), "announced": announced}
    )


def key_of(holder: Row) -> tuple[object, ...]:
    """Return what tells one transaction of a session from its next."""
    return (holder["pid"], holder["gid"], holder["held"])


def name_hold_ups(holders: Sequence[Row]) -> str:
    """Name them; our own backup is called that."""
    ours = any(
        holder.get("held") == "announced" or (holder["application_name"] or "").startswith(OUR_NAMES)
        for holder in holders
    )
    return ("our own backup: " if ours else "") + name_holders(holders)


def name_blockers(connection: Connection, table_oid: int, pids: Sequence[int]) -> str:
    """Name those for whom a rebuild waits; a pid of 0 is a prepared transaction on its table."""
    found = hold_ups(connection, table_oid)
    holders = [each for each in found if (each["pid"] in pids) or (each["pid"] is None and 0 in pids)]
    unknown = set(pids) - {holder["pid"] for holder in holders} - {0}
    if unknown:
        holders += connection.rows(sql.load("sessions_by_pid"), {"pids": sorted(unknown), "ours": []})
    return name_hold_ups(holders)


@dataclass(slots=True)
class Patience:
    """How long an index has waited for its turn, and for whom.

    Attributes:
        since: When it began to wait, by the monotonic clock; None while nobody is in the way.
        standing: Who was in the way at two looks a second apart.
    """

    since: float | None = None
    standing: list[Row] = field(default_factory=list)
    _looked: float = 0.0
    _seen: frozenset[tuple[object, ...]] = frozenset()

    def is_free(self, current: list[Row], now: float) -> bool:
        """Take a look into account; return whether a rebuild may start.

        Args:
            current: Who would hold it up now.
            now: By the monotonic clock.
        """
        if not current:
            self.since, self.standing = None, []
            return True
        if self.since is None:
            self.since = self._looked = now
            self._seen = frozenset(map(key_of, current))
            return False
        if now - self._looked < SAME_HOLDER_S:
            return False
        self.standing = [holder for holder in current if key_of(holder) in self._seen]
        self._looked, self._seen = now, frozenset(map(key_of, current))
        return not self.standing

    def is_over(self, policy: OnBlocker, max_wait_s: float, now: float, given_up: set[object]) -> bool:
        """Tell whether the index is given up; whom one has waited for in vain is not waited for again.

        Args:
            policy: See the settings.
            max_wait_s: As well.
            now: By the monotonic clock.
            given_up: Holders that others have waited for in vain; those of this one are added.
        """
        if not self.standing or self.since is None or policy == "wait":
            return False
        keys = {key_of(holder) for holder in self.standing}
        if policy == "skip" or now - self.since >= max_wait_s or keys & given_up:
            given_up |= keys
            return True
        return False

    def waited_s(self, now: float) -> float:
        """Return how long it has waited."""
        return 0.0 if self.since is None else now - self.since
