"""How long an index waits for whoever is in the way, and when it is given up."""

from __future__ import annotations

from typing import Any

import pytest

from pgsteward.hold_ups import OnBlocker, Patience


def holder(pid: int, held: str = "100") -> dict[str, Any]:
    return {"pid": pid, "gid": None, "held": held, "application_name": "report", "role_name": "app"}


def test_nobody_in_the_way_is_free_at_once() -> None:
    assert Patience().is_free([], 0.0)


def test_short_transactions_come_and_go() -> None:
    patience = Patience()
    assert not patience.is_free([holder(1)], 0.0)
    assert not patience.is_free([holder(1, "101")], 0.5), "too early to tell"
    assert patience.is_free([holder(1, "101"), holder(2)], 1.0), "none of them was there a second ago"


def test_who_is_still_there_a_second_later_is_waited_for() -> None:
    patience = Patience()
    for now in (0.0, 1.0, 2.0):
        assert not patience.is_free([holder(1), holder(int(now) + 2)], now)
    assert [each["pid"] for each in patience.standing] == [1]
    assert patience.is_free([], 3.0)
    assert patience.standing == []


@pytest.mark.parametrize(
    ("policy", "at", "is_over"),
    [
        ("cancel", 9.0, False),
        ("cancel", 10.0, True),
        ("skip", 1.0, True),
        ("wait", 10_000.0, False),
    ],
)
def test_patience_ends_as_the_settings_say(policy: OnBlocker, at: float, is_over: bool) -> None:
    patience = Patience()
    patience.is_free([holder(1)], 0.0)
    patience.is_free([holder(1)], 1.0)
    assert patience.is_over(policy, 10.0, at, set()) is is_over


def test_whom_one_has_waited_for_in_vain_is_not_waited_for_again() -> None:
    given_up: set[object] = set()
    first, second = Patience(), Patience()
    for patience, now in ((first, 0.0), (first, 1.0), (second, 11.0), (second, 12.0)):
        patience.is_free([holder(1)], now)
    assert first.is_over("cancel", 10.0, 11.0, given_up)
    assert second.is_over("cancel", 10.0, 12.0, given_up)


def test_who_was_seen_only_once_is_no_reason_to_give_up() -> None:
    patience = Patience()
    patience.is_free([holder(1)], 0.0)
    assert not patience.is_over("skip", 1.0, 0.0, set())
