"""The last request of an upload in parts, whose answer may be lost or late."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pgsteward.errors import StoreUnavailable
from pgsteward.storage import Store, s3_complete
from pgsteward.storage.s3 import S3Store
from tests.faults_store.conftest import MakeStore
from tests.faults_store.proxy import (
    Answer,
    Fault,
    Pass,
    Proxy,
    Request,
    answering,
    first,
    honouring_checksums,
    unanswered,
)

MIB = 1 << 20
LARGE = bytes(range(256)) * (7 * MIB // 256)
ProxyTo = Callable[..., Proxy]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = S3Store.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "single_put_bytes", 6 * MIB)
    monkeypatch.setitem(defaults, "part_bytes", 5 * MIB)


def is_last(request: Request) -> bool:
    return request.method == "POST" and "uploadId" in request.query


def by_file(store: Store, folder: Path) -> None:
    (folder / "large").write_bytes(LARGE)
    store.put_file("large", folder / "large")


def by_stream(store: Store, folder: Path) -> None:
    with store.writing("large", len(LARGE)) as sink:
        sink.write(LARGE)


both_ways = pytest.mark.parametrize("put", [by_file, by_stream], ids=["file", "stream"])


@both_ways
@pytest.mark.parametrize("honours", [False, True], ids=["size-and-time", "checksum"])
def test_an_object_whose_last_answer_was_lost_is_found(
    put: Callable[[Store, Path], None],
    honours: bool,
    moto_store: MakeStore,
    moto: str,
    proxy_to: ProxyTo,
    tmp_path: Path,
) -> None:
    proxy = proxy_to(moto)
    honouring, losing = honouring_checksums(), first(1, is_last, unanswered)

    def fault(request: Request, real: Pass) -> Answer | None:
        def kept(passed: Request) -> Answer:
            answer = honouring(passed, real) if honours else real(passed)
            assert answer is not None
            return answer

        return losing(request, kept)

    proxy.fault = fault
    store, _ = moto_store(proxy.url, retries=0)
    put(store, tmp_path)
    assert store.get_bytes("large") == LARGE
    assert store.abort_uploads("") == []


def late(seconds: float) -> tuple[Fault, threading.Event]:
    """Be silent while the parts are put together, and refuse whoever asks again meanwhile."""
    done = threading.Event()
    begun = threading.Event()

    def fault(request: Request, real: Pass) -> Answer | None:
        if not is_last(request):
            return real(request)
        if begun.is_set():
            return answering(400, "InvalidPart")(request, real)
        begun.set()

        def join() -> None:
            time.sleep(seconds)
            real(request)
            done.set()

        threading.Thread(target=join, daemon=True).start()
        time.sleep(seconds)
        return None

    return fault, done


@both_ways
def test_a_store_that_is_silent_while_it_joins_the_parts_is_given_the_time(
    put: Callable[[Store, Path], None],
    moto_store: MakeStore,
    moto: str,
    proxy_to: ProxyTo,
    tmp_path: Path,
) -> None:
    """The second request, after timeout_s, is refused while the first one is still at work."""
    proxy = proxy_to(moto)
    proxy.fault, done = late(6.0)
    store, _ = moto_store(proxy.url, timeout_s=5.0)
    put(store, tmp_path)
    assert done.is_set()
    assert store.get_bytes("large") == LARGE


def test_the_last_request_of_a_large_object_may_take_its_time(
    moto_store: MakeStore, moto: str, proxy_to: ProxyTo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever timeout_s is, it is sent again only where it was not taken."""
    monkeypatch.setattr(s3_complete, "_JOINED_BYTES_PER_S", MIB // 8)  # a minute for these 7 MiB
    monkeypatch.setattr(s3_complete, "_AGAIN_S", 0.1)
    asked: list[Request] = []

    def slow(request: Request, real: Pass) -> Answer | None:
        if is_last(request):
            asked.append(request)
            if len(asked) < 3:
                return answering(503, "SlowDown")(request, real)
            time.sleep(3)
        return real(request)

    proxy = proxy_to(moto)
    proxy.fault = slow
    store, _ = moto_store(proxy.url, timeout_s=1.0)
    by_file(store, tmp_path)
    assert len(asked) == 3
    assert store.get_bytes("large") == LARGE


@both_ways
def test_an_object_that_was_there_before_is_not_taken_for_the_new_one(
    put: Callable[[Store, Path], None], moto_store: MakeStore, moto: str, proxy_to: ProxyTo, tmp_path: Path
) -> None:
    proxy = proxy_to(moto)
    store, _ = moto_store(proxy.url, retries=0, timeout_s=2.0)
    with store.writing("large", len(LARGE)) as sink:
        sink.write(LARGE[::-1])
    time.sleep(2.1)  # Last-Modified knows no fractions of a second
    proxy.fault = first(1, is_last, lambda request, real: None)
    with pytest.raises(StoreUnavailable, match="no working connection"):
        put(store, tmp_path)
    assert store.get_bytes("large") == LARGE[::-1]
    assert store.abort_uploads("") == []


@pytest.mark.parametrize(
    ("size", "timeout_s", "patience_s"),
    [
        pytest.param(1 << 20, 60.0, 60.0, id="small-is-timeout_s"),
        pytest.param(10 << 30, 60.0, 640.0, id="10-GiB-in-640-parts"),
        pytest.param(10 << 30, 900.0, 900.0, id="never-less-than-timeout_s"),
    ],
)
def test_patience_grows_with_the_object(size: int, timeout_s: float, patience_s: float) -> None:
    assert s3_complete.patience_s(size, timeout_s) == patience_s
