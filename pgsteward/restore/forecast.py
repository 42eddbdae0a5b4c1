"""A simple look ahead: how large the backups, and how long a recovery, will be in a month."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

DAYS = 30
LEAST_DAYS = 3.0
"""Of history: what two backups of one day differ by says nothing about a month."""


@dataclass(frozen=True, slots=True)
class Point:
    """One backup of the history."""

    at: datetime
    size_bytes: int
    database_bytes: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a straight line through the history says about `DAYS` from the newest backup."""

    size_bytes: int
    database_bytes: int
    recovery_seconds: float | None
    backups: int
    history_days: float

    def as_json(self) -> dict[str, Any]:
        return {
            "in_days": DAYS,
            "bytes": self.size_bytes,
            "database_bytes": self.database_bytes,
            "recovery_seconds": self.recovery_seconds,
            "from_backups": self.backups,
            "from_days": round(self.history_days, 1),
        }


def look_ahead(points: Sequence[Point], recovery_seconds: float | None) -> Forecast | None:
    """Draw a straight line (least squares) through the sizes of earlier backups.

    Args:
        points: Backups in any order.
        recovery_seconds: What the newest one took; it grows as the database does.

    Returns:
        None where the history is shorter than `LEAST_DAYS`.
    """
    ordered = sorted(points, key=lambda point: point.at)
    if len(ordered) < 2:
        return None
    end = ordered[-1].at
    days = [(point.at - end).total_seconds() / 86_400 for point in ordered]
    if -days[0] < LEAST_DAYS:
        return None
    stored = _at(days, [point.size_bytes for point in ordered])
    database = _at(days, [point.database_bytes for point in ordered])
    now = ordered[-1].database_bytes
    seconds = round(recovery_seconds * database / now, 3) if recovery_seconds is not None and now else None
    return Forecast(stored, database, seconds, len(ordered), -days[0])


def _at(days: Sequence[float], sizes: Sequence[int]) -> int:
    middle, mean = sum(days) / len(days), sum(sizes) / len(sizes)
    spread = sum((day - middle) ** 2 for day in days)
    slope = sum((day - middle) * (size - mean) for day, size in zip(days, sizes, strict=True)) / spread
    return max(0, round(mean + slope * (DAYS - middle)))
