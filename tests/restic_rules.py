"""What restic's documentation says about its keep rules, once more and differently: the oracle of the tests.

Written from doc/060_forget.rst of restic, without a look at our code; sets of calendar labels, no walk over a
sorted list. Beside it the floors that our own documentation promises.
"""

from __future__ import annotations

import calendar
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

LABELS = {"hourly": "%Y-%m-%d %H", "daily": "%Y-%m-%d", "weekly": "%G %V", "monthly": "%Y-%m", "yearly": "%Y"}
"""Natural borders: hours :00 to :59, days, ISO weeks Monday to Sunday, months, years."""


@dataclass(frozen=True)
class Made:
    """A backup as a test has made it."""

    name: str
    at: datetime
    proven: bool = False
    kind: tuple[str, ...] = ()
    sound: bool = True


def kept(history: Collection[Made], rules: Mapping[str, object], now: datetime) -> set[str]:
    """Return the names of those that must stay.

    Args:
        history: All of one database in one store.
        rules: The keys of the policy's table.
        now: When it is asked.
    """
    judged = {each for each in history if each.sound and each.at <= now}
    stay = {each.name for each in history} - {each.name for each in judged}
    for kind in {each.kind for each in judged}:
        stay |= {each.name for each in _kept_of_one_kind({e for e in judged if e.kind == kind}, rules)}
    return stay


def _rank(each: Made) -> tuple[datetime, str]:
    return each.at, each.name


def _kept_of_one_kind(group: set[Made], rules: Mapping[str, object]) -> set[Made]:
    latest, oldest = max(group, key=_rank), min(group, key=_rank)
    zone = ZoneInfo(str(rules.get("time_zone", "UTC")))
    by_label = {name: _by_label(group, form, zone) for name, form in LABELS.items()}
    stay = _most_recent(group, _number(rules, "keep_last"))
    if len(group) < _number(rules, "keep_last"):
        stay.add(oldest)
    for name, labelled in by_label.items():
        wanted = _number(rules, f"keep_{name}")
        # "for the last n hours which have one or more snapshots, keep only the most recent one for each hour"
        stay |= _most_recent({max(each, key=_rank) for each in labelled.values()}, wanted)
        # "If there are not enough snapshots to keep one for each, the oldest snapshot is kept additionally"
        if len(labelled) < wanted:
            stay.add(oldest)
    for name in ("", *LABELS):
        span = rules.get(f"keep_within_{name}" if name else "keep_within")
        if span is None:
            continue
        begin = beginning(latest.at, str(span))
        inside = {each for each in group if not each.at < begin}
        if not name:
            stay |= inside
            continue
        stay |= {max(each, key=_rank) for each in _by_label(inside, LABELS[name], zone).values()}
        if oldest in inside:
            stay.add(oldest)
    stay |= _most_recent(group, _number(rules, "keep_min", 2))
    return stay | _most_recent({each for each in group if each.proven}, _number(rules, "keep_proven", 3))


def _number(rules: Mapping[str, object], key: str, default: int = 0) -> int:
    found = rules.get(key, default)
    assert isinstance(found, int)
    return found


def _most_recent(group: set[Made], number: int) -> set[Made]:
    return {each for each in group if sum(_rank(other) > _rank(each) for other in group) < number}


def _by_label(group: set[Made], form: str, zone: ZoneInfo) -> dict[str, set[Made]]:
    found: dict[str, set[Made]] = {}
    for each in group:
        found.setdefault(each.at.astimezone(zone).strftime(form), set()).add(each)
    return found


def beginning(latest: datetime, span: str) -> datetime:
    """Return where a span such as ``1y2m3d4h`` begins that ends at `latest`: month by month, in UTC."""
    numbers = {"y": 0, "m": 0, "d": 0, "h": 0}
    digits = ""
    for letter in span:
        if letter in numbers:
            numbers[letter], digits = int(digits), ""
        else:
            digits += letter
    at = latest.astimezone(UTC)
    year, month = at.year, at.month
    for _ in range(12 * numbers["y"] + numbers["m"]):
        year, month = (year - 1, 12) if month == 1 else (year, month - 1)
    days = calendar.monthrange(year, month)[1]
    if at.day <= days:
        begin = datetime.combine(at.date().replace(day=1), at.timetz()).replace(year=year, month=month)
        begin += timedelta(days=at.day - 1)
    else:  # there is no such day: from the end of that month on
        begin = datetime(year, month, 1, tzinfo=UTC) + timedelta(days=days)
    return begin - timedelta(hours=24 * numbers["d"] + numbers["h"])
