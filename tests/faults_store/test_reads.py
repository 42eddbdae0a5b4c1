"""Reads that break off in the middle, as they do over long lines."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pgsteward.errors import StoreUnavailable
from tests.faults_store.conftest import MakeStore
from tests.faults_store.proxy import Answer, Pass, Proxy, Request, always, first, half_then_reset

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


@pytest.mark.parametrize("how", ["another object", "no ranges"])
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
        return breaking(request, real)

    proxy.fault = fault
    with pytest.raises(StoreUnavailable):
        store.get_bytes("large")
