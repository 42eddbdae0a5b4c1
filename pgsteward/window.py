"""The hours in which maintenance may work: ``01:00-05:00`` on the clock of a place. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Self

_WRITTEN = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")
_DAYS_AHEAD = 8
"""A window that a change of the clocks swallows opens on one of the next days."""


@dataclass(frozen=True, slots=True)
class Window:
    """From a time of day up to, and without, another one; past midnight when that is the earlier one.

    It is counted on the clock of its zone: an hour that clocks skip in spring makes it an hour shorter, one
    that they repeat in autumn an hour longer. A limit that clocks show twice means the first time.

    Attributes:
        start: When it opens.
        end: When it closes.
        zone: Whose clock.
    """

    start: time
    end: time
    zone: tzinfo = UTC

    @classmethod
    def parse(cls, text: str, zone: tzinfo = UTC) -> Self:
        """Return the window that a text means.

        Raises:
            ValueError: It is none, or it has no end.
        """
        found = _WRITTEN.fullmatch(text)
        if found is None:
            raise ValueError('write the hours of a window as "01:00-05:00"; "22:30-04:00" goes past midnight')
        start, end = time(int(found[1]), int(found[2])), time(int(found[3]), int(found[4]))
        if start == end:
            raise ValueError("a window that ends when it starts; leave it out where there is no limit")
        return cls(start, end, zone)

    def closes_at(self, now: datetime) -> datetime | None:
        """Return when the window that is open now closes, in UTC; None when it is closed."""
        return next((end for start, end in self._around(now) if start <= now < end), None)

    def opens_at(self, now: datetime) -> datetime:
        """Return when the window opens the next time, in UTC."""
        return next(start for start, _ in self._around(now) if start > now)

    def seconds_from(self, opening: datetime) -> float:
        """Return how long the window is that opens at an instant."""
        closes = self.closes_at(opening)
        assert closes is not None
        return (closes - opening).total_seconds()

    def _around(self, now: datetime) -> list[tuple[datetime, datetime]]:
        """Return the windows of yesterday and the next days; without those that the clocks swallow."""
        today = now.astimezone(self.zone).date()
        each = [self._of(today + timedelta(days=ahead)) for ahead in range(-1, _DAYS_AHEAD)]
        return [(start, end) for start, end in each if start < end]

    def _of(self, day: date) -> tuple[datetime, datetime]:
        last = day if self.start < self.end else day + timedelta(days=1)
        return (
            datetime.combine(day, self.start, self.zone).astimezone(UTC),
            datetime.combine(last, self.end, self.zone).astimezone(UTC),
        )
