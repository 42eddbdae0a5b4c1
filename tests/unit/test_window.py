"""The hours of maintenance: past midnight, and on the two days when clocks are changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from pgsteward.window import Window

ROME = ZoneInfo("Europe/Rome")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


@pytest.mark.parametrize(
    ("hours", "now", "closes"),
    [
        pytest.param("01:00-05:00", "2026-11-30T00:59:59+01:00", None, id="before"),
        pytest.param("01:00-05:00", "2026-11-30T01:00+01:00", "2026-11-30T05:00+01:00", id="as-it-opens"),
        pytest.param("01:00-05:00", "2026-11-30T04:59:59+01:00", "2026-11-30T05:00+01:00", id="just-open"),
        pytest.param("01:00-05:00", "2026-11-30T05:00+01:00", None, id="as-it-closes"),
        pytest.param("22:30-04:00", "2026-11-30T23:00+01:00", "2026-12-01T04:00+01:00", id="before-midnight"),
        pytest.param("22:30-04:00", "2026-12-01T03:00+01:00", "2026-12-01T04:00+01:00", id="after-midnight"),
        pytest.param("22:30-04:00", "2026-12-01T04:30+01:00", None, id="by-day"),
        # 2027-03-28: the clock goes from 02:00 (+01) to 03:00 (+02); 2026-10-25: from 03:00 (+02) to 02:00
        pytest.param("01:00-05:00", "2027-03-28T01:00+01:00", "2027-03-28T05:00+02:00", id="spring"),
        pytest.param("01:00-05:00", "2026-10-25T02:30+01:00", "2026-10-25T05:00+01:00", id="autumn"),
        pytest.param("23:00-02:30", "2026-10-25T02:29+02:00", "2026-10-25T02:30+02:00", id="ends-twice"),
        pytest.param("23:00-02:30", "2026-10-25T02:10+01:00", None, id="the-second-half-past-two"),
        pytest.param("02:15-03:10", "2027-03-28T03:05+02:00", None, id="swallowed"),
    ],
)
def test_a_window_is_open_on_the_clock_of_its_place(hours: str, now: str, closes: str | None) -> None:
    found = Window.parse(hours, ROME).closes_at(at(now))
    assert found == (None if closes is None else at(closes))


@pytest.mark.parametrize(
    ("day", "hours"),
    [("2027-03-28", 3), ("2026-10-25", 5), ("2026-11-30", 4)],
    ids=["spring", "autumn", "other"],
)
def test_a_night_with_a_change_of_the_clocks_is_shorter_or_longer(day: str, hours: int) -> None:
    window = Window.parse("01:00-05:00", ROME)
    opening = window.opens_at(at(f"{day}T00:00+01:00") - timedelta(hours=3))
    assert window.seconds_from(opening) == hours * 3600


def test_a_window_that_the_clocks_swallow_opens_the_day_after() -> None:
    window = Window.parse("02:15-03:10", ROME)
    assert window.opens_at(at("2027-03-28T00:00+01:00")) == at("2027-03-29T02:15+02:00")


@pytest.mark.parametrize("text", ["1:00-5:00", "01:00", "24:00-05:00", "01:00-01:00", "01:60-02:00", ""])
def test_what_is_no_window_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="window"):
        Window.parse(text)
