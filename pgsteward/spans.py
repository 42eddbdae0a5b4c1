"""Spans of the calendar, as restic writes them: ``2y5m7d3h``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

_PART = re.compile(r"(\d{1,4})([ymdh])")


@dataclass(frozen=True, slots=True)
class Span:
    """Years, months, days and hours; a month is one of the calendar, a day has 24 hours."""

    years: int = 0
    months: int = 0
    days: int = 0
    hours: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the span that a text means.

        Raises:
            ValueError: It is none, or it is no time at all.
        """
        parts = _PART.findall(text)
        named = {unit: int(number) for number, unit in parts}
        if "".join(number + unit for number, unit in parts) != text or len(named) != len(parts):
            named = {}
        if not any(named.values()):
            raise ValueError(
                'write years, months, days, hours, each once: "7d", "1y6m", "36h" (a week is 7d)'
            )
        return cls(named.get("y", 0), named.get("m", 0), named.get("d", 0), named.get("h", 0))

    def before(self, instant: datetime) -> datetime:
        """Return the beginning of the span that ends at `instant`.

        It is counted on the UTC calendar, so that it never depends on when clocks were changed. A day that
        the earlier month does not have is the first moment of the month after it: so a later instant never
        has an earlier beginning, and what has left the span stays outside.
        """
        end = instant.astimezone(UTC)
        year, month = divmod(end.year * 12 + end.month - 1 - self.years * 12 - self.months, 12)
        if year < 1:
            return datetime.min.replace(tzinfo=UTC)
        try:
            begun = end.replace(year=year, month=month + 1)
        except ValueError:  # never in December: that has 31 days
            begun = datetime(year, month + 2, 1, tzinfo=UTC)
        try:
            return begun - timedelta(days=self.days, hours=self.hours)
        except OverflowError:
            return datetime.min.replace(tzinfo=UTC)
