"""Which backups are kept, and why: a pure decision with restic's semantics, and floors below it.

Where restic's documentation leaves something open, the reading is taken that keeps more, and that never wants
back what an earlier run has removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from pgsteward.config_retention import RetentionConfig
from pgsteward.errors import PreconditionError
from pgsteward.spans import Span

NOT_KEPT = "no rule keeps it"


@dataclass(frozen=True, slots=True)
class Backup:
    """One complete backup, as far as retention cares.

    Attributes:
        proven: It was restored from its store and was equal.
        partial: What was left out of it; each kind of partial backups is judged by itself.
        left_alone: Why it can't be judged (damaged, unknown); it stays and counts for no rule. Else "".
    """

    backup_id: str
    started_at: datetime
    proven: bool = False
    partial: tuple[str, ...] = ()
    left_alone: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of one backup; a kept one names every rule that keeps it.

    Attributes:
        is_floor: It would be kept whatever the rules say.
    """

    backup_id: str
    keep: bool
    reasons: tuple[str, ...]
    is_floor: bool = False


_PERIODS: Mapping[str, Callable[[datetime], tuple[int, ...]]] = {
    "hourly": lambda at: (at.year, at.month, at.day, at.hour),
    "daily": lambda at: (at.year, at.month, at.day),
    "weekly": lambda at: tuple(at.isocalendar())[:2],
    "monthly": lambda at: (at.year, at.month),
    "yearly": lambda at: (at.year,),
}
"""What a backup's local time is grouped by: borders of the calendar and the clock, ISO weeks."""


def apply_policy(backups: Sequence[Backup], policy: RetentionConfig, now: datetime) -> list[Decision]:
    """Decide about every backup of one database in one store.

    The rules are ORed. Those with a count keep the newest backup of each of the last N periods that have one
    and, as long as they have not found N, the oldest of all. Those with a span do so for every period within
    it, back from the newest backup. No rule can turn off that

    - the `keep_min` newest and the `keep_proven` newest proven ones stay,
    - one dated after `now` stays and takes nobody's place,
    - one that can't be judged stays and counts for nothing,
    - whole backups and each kind of partial ones are judged by themselves.

    Args:
        backups: In any order.
        policy: The rules.
        now: Aware instant.

    Returns:
        One decision per backup, newest first.

    Raises:
        ValueError: `now` is naive.
        PreconditionError: The policy is empty, which would remove everything.
    """
    if now.tzinfo is None:
        raise ValueError("now must be an aware datetime")
    if policy.is_empty:
        raise PreconditionError(
            "an empty retention policy would remove every backup; give at least keep_last"
        )
    ordered = sorted(backups, key=lambda b: (b.started_at, b.backup_id), reverse=True)
    reasons: dict[str, list[str]] = {backup.backup_id: [] for backup in ordered}
    kinds: dict[tuple[str, ...], list[Backup]] = {}
    for backup in ordered:
        if backup.left_alone:
            reasons[backup.backup_id].append(backup.left_alone)
        elif backup.started_at > now:
            reasons[backup.backup_id].append("dated in the future")
        else:
            kinds.setdefault(backup.partial, []).append(backup)
    floors: set[str] = set()
    zone = ZoneInfo(policy.time_zone)
    for kind in kinds.values():
        local = [backup.started_at.astimezone(zone) for backup in kind]
        for rules in (_by_count, _by_span):
            for backup, why in rules(kind, local, policy):
                reasons[backup.backup_id].append(why)
        for backup, why in _floors(kind, policy):
            reasons[backup.backup_id].append(why)
            floors.add(backup.backup_id)
    return [
        Decision(backup_id, bool(why), tuple(why) or (NOT_KEPT,), backup_id in floors)
        for backup_id, why in reasons.items()
    ]


def asks_first(decisions: Sequence[Decision], backups: Sequence[Backup]) -> bool:
    """Tell whether more than half of a catalog would go, which a person has to want.

    Args:
        decisions: About all of it.
        backups: All of it; those that can't be judged don't make it larger.
    """
    removed = sum(not decision.keep for decision in decisions)
    return removed * 2 > sum(not backup.left_alone for backup in backups)


Kept = Iterator[tuple[Backup, str]]


def _by_count(newest_first: Sequence[Backup], local: Sequence[datetime], policy: RetentionConfig) -> Kept:
    for name, count in policy.counts.items():
        firsts = _firsts(name, newest_first, local)
        for number, backup in enumerate(firsts[:count], 1):
            yield backup, f"{name} {number} of {count}"
        oldest = newest_first[-1]
        if len(firsts) < count and oldest not in firsts:
            yield oldest, f"oldest, as {name} has found only {len(firsts)}"


def _by_span(newest_first: Sequence[Backup], local: Sequence[datetime], policy: RetentionConfig) -> Kept:
    for name, text in policy.spans.items():
        if text is None:
            continue
        begun = Span.parse(text).before(newest_first[0].started_at)
        within = [backup for backup in newest_first if backup.started_at >= begun]
        what = "" if name == "all" else f"{name} "
        firsts = within if name == "all" else _firsts(name, within, local)
        for backup in firsts:
            yield backup, f"{what}within {text} of the newest"
        if len(within) == len(newest_first) and within[-1] not in firsts:
            yield within[-1], f"oldest, as all are within {text} ({name})"


def _floors(newest_first: Sequence[Backup], policy: RetentionConfig) -> Kept:
    for backup in newest_first[: policy.keep_min]:
        yield backup, f"one of the {policy.keep_min} newest (keep_min)"
    proven = [backup for backup in newest_first if backup.proven]
    for number, backup in enumerate(proven[: policy.keep_proven]):
        yield (
            backup,
            f"one of the {policy.keep_proven} newest proven (keep_proven)" if number else "newest proven",
        )


def _firsts(name: str, newest_first: Sequence[Backup], local: Sequence[datetime]) -> list[Backup]:
    """Return the newest backup of each period, newest first; `local` holds the local times in that order."""
    if name == "last":
        return list(newest_first)
    period = _PERIODS[name]
    firsts: dict[tuple[int, ...], Backup] = {}
    for backup, at in zip(newest_first, local, strict=False):
        firsts.setdefault(period(at), backup)
    return list(firsts.values())
