from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pgsteward.restore.forecast import Point, look_ahead

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def points(*sizes: int, days: float = 1.0) -> list[Point]:
    return [Point(NOON + timedelta(days=days * number), size, size * 10) for number, size in enumerate(sizes)]


def test_what_grows_evenly_goes_on_growing() -> None:
    found = look_ahead(points(100, 110, 120, 130, 140), 14.0)
    assert found is not None
    assert (found.size_bytes, found.database_bytes) == (440, 4400)
    assert found.recovery_seconds == pytest.approx(44.0)
    assert found.as_json()["from_backups"] == 5


def test_the_order_of_the_history_does_not_matter() -> None:
    assert look_ahead(points(100, 110, 120, 130, 140)[::-1], None) == look_ahead(
        points(100, 110, 120, 130, 140), None
    )


def test_what_shrinks_does_not_fall_below_nothing() -> None:
    found = look_ahead(points(500, 400, 300, 200, 100), None)
    assert found is not None
    assert (found.size_bytes, found.recovery_seconds) == (0, None)


@pytest.mark.parametrize("history", [points(), points(100), points(100, 200, 300, days=0.5)])
def test_a_short_history_says_nothing_about_a_month(history: list[Point]) -> None:
    assert look_ahead(history, 1.0) is None
