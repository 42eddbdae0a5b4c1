from __future__ import annotations

import threading
from typing import Any

import pytest

from pgsteward.storage.s3_body import Body, Pace, memory_body
from pgsteward.storage.s3_parts import send_parts

PACE = Pace(None)


def bodies(count: int) -> list[Body]:
    return [memory_body(bytes([number]), PACE) for number in range(1, count + 1)]


def test_two_parts_are_on_their_way_at_the_same_time_and_come_back_in_order() -> None:
    both = threading.Barrier(2, timeout=30)

    def send(number: int, body: Body) -> dict[str, Any]:
        both.wait()  # broken after 30 s when nobody else is on the way
        return {"PartNumber": number, "content": body.read()}

    entries = send_parts(send, iter(bodies(4)))
    assert entries == [{"PartNumber": n, "content": bytes([n])} for n in (1, 2, 3, 4)]


def test_after_an_error_no_part_begins_and_those_on_their_way_are_waited_for() -> None:
    begun: list[int] = []
    arrived: list[int] = []
    second, failed = threading.Event(), threading.Event()

    def send(number: int, body: Body) -> dict[str, Any]:
        begun.append(number)
        if number == 1:
            assert second.wait(30)
            failed.set()
            raise ConnectionError("reset")
        second.set()
        assert failed.wait(30)
        threading.Event().wait(0.5)  # longer than the error takes to be seen
        arrived.append(number)
        return {"PartNumber": number}

    with pytest.raises(ConnectionError, match="reset"):
        send_parts(send, iter(bodies(9)))
    assert (sorted(begun), arrived) == ([1, 2], [2])
