"""Reads that break off in the middle, as they do over long lines."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from pgsteward.errors import StoreUnavailable
from pgsteward.storage import s3_read
from tests.faults_store.conftest import MakeStore
from tests.faults_store.proxy import (
    Answer,
    Fault,
    Pass,
    Proxy,
    Request,
    always,
    answering,
    first,
    half_then_reset,
    no_fault,
)

DATA = bytes(range(256)) * (5 << 12)
ProxyTo = Callable[..., Proxy]


def test_a_read_that_breaks_off_is_carried_on_from_there(
    moto_store: MakeStore, moto: str, proxy_to: ProxyTo
) -> None:
    proxy = proxy_to(moto)
    store, _ = moto_store(proxy.url)
    larger = DATA * 8  # than what a line holds
    store.put_bytes("large", larger)
    proxy.fault = first(1, lambda r: r.is_get, half_then_reset)
    assert store.get_bytes("large") == larger
    (begun,) = [int(r.headers["range"][6:-1]) for r in proxy.seen if r.is_get and "range" in r.headers]
    assert 0 < begun <= len(larger) // 2


def test_one_that_always_breaks_off_ends(moto_store: MakeStore, moto: str, proxy_to: ProxyTo) -> None:
    proxy = proxy_to(moto)
    store, _ = moto_store(proxy.url)
    store.put_bytes("large", DATA)
    proxy.fault = always(lambda r: r.is_get, half_then_reset)
    with pytest.raises(StoreUnavailable):
        store.get_bytes("large")


@pytest.mark.parametrize("how", ["another object", "another object, conditions ignored", "no ranges"])
def test_nothing_is_carried_on_that_may_be_something_else(
    moto_store: MakeStore, moto: str, proxy_to: ProxyTo, how: str
) -> None:
    proxy = proxy_to(moto)
    store, _ = moto_store(proxy.url)
    store.put_bytes("large", DATA)
    breaking = first(1, lambda r: r.is_get, half_then_reset)

    def fault(request: Request, real: Pass) -> Answer | None:
        if how == "no ranges":
            request.headers.pop("range", None)
        elif "range" in request.headers:
            store.put_bytes("large", DATA[::-1])
            if how != "another object":
                request.headers.pop("if-match")
        return breaking(request, real)

    proxy.fault = fault
    with pytest.raises(StoreUnavailable):
        store.get_bytes("large")


MIB = 1 << 20
LARGE = b"".join(number.to_bytes(8) for number in range(12 * MIB // 8))


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take any line for a slow one, and pieces of 1 MiB for large."""
    monkeypatch.setattr(s3_read, "SLOW_BYTES_PER_S", 1e15)
    monkeypatch.setattr(s3_read, "TRIED_BYTES", MIB)
    monkeypatch.setattr(s3_read, "WORTH_BYTES", 2 * MIB)
    monkeypatch.setattr(s3_read, "PIECE_BYTES", MIB)
    monkeypatch.setattr(s3_read, "FIRST_BYTE_S", 30.0)  # this machine may be busy


def is_piece(request: Request) -> bool:
    return request.is_get and "range" in request.headers


def fourth(fault: Fault) -> Fault:
    """Strike what comes after some pieces have come well."""
    seen = 0

    def strike(request: Request, real: Pass) -> Answer | None:
        nonlocal seen
        seen += is_piece(request)
        return fault(request, real) if is_piece(request) and seen == 4 else real(request)

    return strike


def without_ranges(request: Request, real: Pass) -> Answer:
    request.headers.pop("range", None)
    return real(request)


def shorter(request: Request, real: Pass) -> Answer:
    if is_piece(request):
        begin, end = request.headers["range"][6:].split("-")
        request.headers["range"] = f"bytes={begin}-{int(begin) + (int(end) - int(begin)) // 2}"
    return real(request)


def longer(request: Request, real: Pass) -> Answer:
    if is_piece(request):
        begin, end = request.headers["range"][6:].split("-")
        request.headers["range"] = f"bytes={begin}-{int(end) + 1024}"
    return real(request)


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize(
    ("fault", "pieces"),
    [
        pytest.param(no_fault, 9, id="well"),
        pytest.param(without_ranges, 1, id="no-ranges"),
        pytest.param(always(is_piece, answering(403, "AccessDenied")), 1, id="refused"),
        pytest.param(fourth(answering(403, "AccessDenied")), 4, id="one-refused"),
        pytest.param(fourth(half_then_reset), 9, id="one-breaks-off"),
        pytest.param(shorter, 9, id="less-than-was-asked-for"),
        pytest.param(longer, 1, id="more-than-was-asked-for"),
    ],
)
def test_an_object_is_read_in_pieces_where_the_line_is_slow(
    moto_store: MakeStore, moto: str, proxy_to: ProxyTo, fault: Fault, pieces: int
) -> None:
    proxy = proxy_to(moto)
    store, _ = moto_store(proxy.url)
    store.put_bytes("large", LARGE)
    asked, together, most = 0, 0, 0
    lock = threading.Lock()

    def counting(request: Request, real: Pass) -> Answer | None:
        nonlocal asked, together, most
        with lock:
            asked += is_piece(request)
            together += 1
            most = max(most, together)
        try:
            if is_piece(request):
                time.sleep(0.05)  # so that they meet
            return fault(request, real)
        finally:
            with lock:
                together -= 1

    proxy.fault = counting
    for _ in range(3):  # its room is given back each time
        assert store.get_bytes("large") == LARGE
    assert asked >= 3 * pieces
    assert 1 < most <= s3_read.STREAMS + 1


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("conditions", ["honoured", "ignored"])
def test_pieces_of_another_object_are_not_taken_for_the_rest(
    moto_store: MakeStore, moto: str, proxy_to: ProxyTo, conditions: str
) -> None:
    proxy = proxy_to(moto)
    store, _ = moto_store(proxy.url)
    store.put_bytes("large", LARGE)

    def replaced(request: Request, real: Pass) -> Answer:
        if is_piece(request):
            store.put_bytes("large", LARGE[::-1])
            if conditions == "ignored":
                request.headers.pop("if-match")
        return real(request)

    proxy.fault = replaced
    assert store.get_bytes("large") == LARGE


@pytest.mark.usefixtures("slow")
def test_a_store_that_takes_long_to_begin_is_asked_once(
    moto_store: MakeStore, moto: str, proxy_to: ProxyTo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_read, "FIRST_BYTE_S", 0.0)
    proxy = proxy_to(moto)
    store, _ = moto_store(proxy.url)
    store.put_bytes("large", LARGE)
    assert store.get_bytes("large") == LARGE
    assert len([r for r in proxy.seen if r.is_get]) == 1


def test_one_late_answer_among_many_does_not_end_the_pieces() -> None:
    quick, late = 0.05, 5.0
    assert not s3_read._Object("large", answers=100, began_s=99 * quick + late).begins_late
    assert s3_read._Object("large", answers=2, began_s=quick + late).begins_late


@pytest.mark.usefixtures("slow")
def test_a_read_that_is_given_up_gives_its_room_back(
    moto_store: MakeStore, moto: str, proxy_to: ProxyTo
) -> None:
    store, _ = moto_store(proxy_to(moto).url)
    store.put_bytes("large", LARGE)
    for _ in range(2 * s3_read.ROOM_PIECES):
        read = store.read("large")
        assert b"".join(next(read) for _ in range(4)) == LARGE[: 4 * MIB]
        del read
    pair = [store.read("large"), store.read("large"), store.read("large")]  # more than there is room for
    found = [b"".join(parts) for parts in zip(*zip(*pair, strict=True), strict=True)]
    assert found == [LARGE] * 3
