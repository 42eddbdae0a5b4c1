"""The self-test says of each store what it really does: honest ones, and such that lie."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pgsteward.errors import StoreFailed, StoreUnavailable
from pgsteward.storage import Store, open_store, s3_probe, selftest
from pgsteward.storage.selftest import SelfTest, Traits
from tests.faults_store.conftest import MakeStore
from tests.faults_store.proxy import (
    Answer,
    Fault,
    Pass,
    Proxy,
    Request,
    always,
    answering,
    error,
    first,
    flipping,
    honouring_checksums,
    listing_late,
    refusing_larger,
    refusing_skewed,
    skewed,
    trailers_into_the_object,
    without_headers,
)

ProxyTo = Callable[..., Proxy]


def said(test: SelfTest) -> dict[str, str]:
    return {each.name: each.verdict for each in test.capabilities}


def fixes(test: SelfTest) -> dict[str, str]:
    return {each.name: each.fix for each in test.bad}


def nothing_in(store: Store) -> bool:
    versions = list(store.versions("")) if store.keeps_versions() else []
    return not list(store.objects("")) and not versions and store.abort_uploads("") == []


def test_rclone_ignores_much_of_what_it_is_asked(rclone_store: MakeStore) -> None:
    """It repeats each header that it was given: a store's own word is never taken for what was not tried."""
    store, config = rclone_store(
        sse="s3", storage_class="STANDARD_IA", tags={"a": "b"}, object_lock="governance", object_lock_days=1
    )
    test = selftest.examine(store, config, "app/")
    assert said(test) == {
        "put and read": "works",
        "clock": "works",
        "request size": "works",
        "listing": "works",
        "range": "works",
        "multipart": "works",
        "abort": "works",
        "copy": "works",
        "conditional put": "ignored",
        "checksum": "ignored",
        "checksum trailers": "unknown",
        "encryption": "ignored",
        "storage class": "ignored",
        "tags": "ignored",
        "versioning": "works",
        "object lock": "ignored",
        "delete": "works",
    }
    assert set(fixes(test)) == {"encryption", "storage class", "tags", "object lock"}
    assert all(fixes(test).values())
    assert test.traits == Traits()
    assert nothing_in(store)


def test_moto_honours_what_it_is_asked_and_even_locked_probes_are_removed(
    moto_store: MakeStore, moto_bucket: Callable[..., str]
) -> None:
    store, config = moto_store(
        bucket=moto_bucket(ObjectLockEnabledForBucket=True),
        sse="kms",
        sse_kms_key_id="alias/backups",
        storage_class="STANDARD_IA",
        tags={"team": "d b/a"},
        object_lock="compliance",
        object_lock_days=30,
    )
    test = selftest.examine(store, config, "app/")
    asked = ("conditional put", "encryption", "storage class", "tags", "object lock")
    assert {said(test)[name] for name in asked} == {"honoured"}
    assert test.bad == ()
    assert "prune --versions" in next(c.message for c in test.capabilities if c.name == "versioning")
    assert nothing_in(store)


def test_a_lock_that_was_over_before_its_object_was_deleted_is_tried_again_and_longer(
    moto_store: MakeStore,
    moto: str,
    moto_bucket: Callable[..., str],
    proxy_to: ProxyTo,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(s3_probe, "LOCK_S", 1.0)

    def late(request: Request, real: Pass) -> Answer:
        time.sleep(2.2)
        return real(request)

    proxy = proxy_to(moto)
    proxy.fault = first(1, lambda r: r.method == "DELETE" and r.key.endswith("/locked"), late)
    bucket = moto_bucket(ObjectLockEnabledForBucket=True)
    store, config = moto_store(proxy.url, bucket, object_lock="governance", object_lock_days=1)
    test = selftest.examine(store, config, "app/")
    assert said(test)["object lock"] == "honoured"
    assert nothing_in(store)


def test_a_bucket_without_object_lock_refuses_it(moto_store: MakeStore) -> None:
    store, config = moto_store(object_lock="governance", object_lock_days=1)
    test = selftest.examine(store, config, "app/")
    assert said(test)["object lock"] == "refused"
    assert "take object_lock out" in fixes(test)["object lock"]
    with pytest.raises(StoreFailed, match=r"failed its self-test: object lock.*take object_lock out"):
        test.refuse_bad(store)


def test_a_bucket_that_locks_by_itself_gets_a_checksum_with_everything(
    moto_store: MakeStore, moto: str, proxy_to: ProxyTo, tmp_path: Path
) -> None:
    """S3 refuses content without one there; nothing in the configuration says that it is so."""

    def wanting(request: Request, real: Pass) -> Answer:
        if request.is_put and not {"content-md5", "x-amz-checksum-sha256"} & set(request.headers):
            return error(400, "InvalidRequest", "Content-MD5 OR x-amz-checksum- HTTP header is required")
        return real(request)

    proxy = proxy_to(moto)
    proxy.fault = wanting
    store, config = moto_store(proxy.url)
    test = selftest.examine(store, config, "app/")
    assert test.bad == ()
    assert "takes nothing without a checksum" in test.capabilities[0].message
    store = open_store("s3", config)
    store.put_bytes("mark", b"x", passing=True)
    with store.writing("stream", 0) as sink:
        sink.write(b"s" * (17 << 20))
    assert {stored.key for stored in store.objects("")} == {"mark", "stream"}


def test_checksums_that_a_store_honours_are_sent_from_then_on(
    moto_store: MakeStore, moto: str, proxy_to: ProxyTo
) -> None:
    proxy = proxy_to(moto)
    proxy.fault = honouring_checksums()
    store, config = moto_store(proxy.url)
    test = selftest.examine(store, config, "app/")
    assert said(test)["checksum"] == "honoured"
    assert test.traits.sha256
    from pgsteward.storage import open_store

    proxy.seen.clear()
    open_store("s3", config).put_bytes("x", b"content")
    [put] = [request for request in proxy.seen if request.is_put]
    assert "x-amz-checksum-sha256" in put.headers


LIARS: dict[str, tuple[Fault, dict[str, object], str, str]] = {
    "one byte corrupted": (always(lambda r: r.is_get, flipping), {}, "put and read", "broken"),
    "parts corrupted": (
        always(lambda r: r.is_get and r.key.endswith("/parts"), flipping),
        {},
        "multipart",
        "broken",
    ),
    "SSE ignored": (
        without_headers("x-amz-server-side-encryption"),
        {"sse": "s3"},
        "encryption",
        "ignored",
    ),
    "KMS ignored": (
        without_headers("x-amz-server-side-encryption"),
        {"sse": "kms"},
        "encryption",
        "ignored",
    ),
    "lists never": (listing_late(60), {}, "listing", "broken"),
    "tags refused": (
        always(lambda r: "x-amz-tagging" in r.headers, answering(501, "NotImplemented")),
        {"tags": {"a": "b"}},
        "tags",
        "refused",
    ),
    "SSE refused": (
        always(lambda r: "x-amz-server-side-encryption" in r.headers, answering(501, "NotImplemented")),
        {"sse": "s3"},
        "put and read",
        "refused",
    ),
    "read-only": (
        always(lambda r: r.method != "GET", answering(403, "AccessDenied")),
        {},
        "put and read",
        "broken",
    ),
    "expired token": (always(lambda r: True, answering(400, "ExpiredToken")), {}, "put and read", "broken"),
    "clock refused": (always(lambda r: True, refusing_skewed(3600)), {}, "put and read", "refused"),
}


@pytest.mark.parametrize("fault", LIARS)
def test_what_is_asked_for_and_not_done_is_an_error_and_nothing_stays(
    moto_store: MakeStore, moto: str, proxy_to: ProxyTo, fault: str
) -> None:
    proxy = proxy_to(moto)
    proxy.fault, settings, name, verdict = LIARS[fault]
    store, config = moto_store(proxy.url, **settings)
    test = selftest.examine(store, config, "app/")
    [bad] = test.bad
    assert (bad.name, bad.verdict) == (name, verdict)
    assert bad.fix
    assert selftest.remembered(config) is None, "a bad verdict is asked for again"
    proxy.fault = lambda request, real: real(request)
    assert nothing_in(store)


def test_the_hour_of_both_clocks_is_compared(moto_store: MakeStore, moto: str, proxy_to: ProxyTo) -> None:
    proxy = proxy_to(moto)
    proxy.fault = skewed(-400)
    store, config = moto_store(proxy.url)
    clock = next(c for c in selftest.examine(store, config, "app/").capabilities if c.name == "clock")
    assert clock.status == "warn"
    assert "400 s apart" in clock.message.replace("399", "400").replace("401", "400")
    proxy.fault = always(lambda r: True, refusing_skewed(3600))
    [refused] = selftest.examine(store, config, "app/").bad
    assert "set the clock" in refused.message
    assert "s apart" in refused.message


def test_a_store_that_lists_a_little_late_is_only_minded(
    moto_store: MakeStore, moto: str, proxy_to: ProxyTo
) -> None:
    proxy = proxy_to(moto)
    proxy.fault = listing_late(0.7)
    store, config = moto_store(proxy.url)
    test = selftest.examine(store, config, "app/")
    assert test.bad == ()
    assert test.traits.late_lists


@pytest.mark.parametrize("operation", ["conditional put", "copy", "versioning", "checksum"])
def test_refusals_of_what_nothing_needs_are_no_errors(
    moto_store: MakeStore, moto: str, proxy_to: ProxyTo, operation: str
) -> None:
    concerns: dict[str, Callable[[Request], bool]] = {
        "conditional put": lambda r: "if-none-match" in r.headers,
        "copy": lambda r: "x-amz-copy-source" in r.headers,
        "versioning": lambda r: "versioning" in r.query,
        "checksum": lambda r: "x-amz-checksum-sha256" in r.headers,
    }
    proxy = proxy_to(moto)
    proxy.fault = always(concerns[operation], answering(501, "NotImplemented"))
    store, config = moto_store(proxy.url)
    test = selftest.examine(store, config, "app/")
    assert test.bad == ()
    assert said(test)[operation] in ("refused", "unknown")
    assert nothing_in(store)
    assert store.put_new("app/new", b"x"), "a condition that is refused is left out"
    assert store.put_new("app/new", b"y") is (operation == "conditional put")


def test_a_busy_store_has_not_refused_the_condition(
    moto_store: MakeStore, moto: str, proxy_to: ProxyTo
) -> None:
    """Without the condition, what somebody else has put there meanwhile would be written over."""
    proxy = proxy_to(moto)
    store, _ = moto_store(proxy.url, retries=0)
    proxy.fault = first(1, lambda r: "if-none-match" in r.headers, answering(503, "SlowDown"))
    with pytest.raises(StoreUnavailable):
        store.put_new("app/new", b"x")
    assert nothing_in(store)


def test_nothing_asks_for_more_than_one_deletion_at_a_time(
    moto_store: MakeStore, moto: str, proxy_to: ProxyTo
) -> None:
    """Some stores refuse DeleteObjects without Content-MD5, which botocore no longer sends."""
    proxy = proxy_to(moto)
    store, config = moto_store(proxy.url)
    selftest.examine(store, config, "app/")
    store.put_bytes("a", b"x")
    store.delete("a")
    assert not [request for request in proxy.seen if "delete" in request.query]


def test_checksum_trailers_in_the_object_are_found_and_never_sent_again(
    moto_store: MakeStore, moto: str, proxy_to: ProxyTo, certificate: tuple[Path, Path]
) -> None:
    proxy = proxy_to(moto, certificate)
    proxy.fault = trailers_into_the_object
    store, config = moto_store(proxy.url, ca_bundle=str(certificate[0]))
    test = selftest.examine(store, config, "app/")
    trailers = next(c for c in test.capabilities if c.name == "checksum trailers")
    assert (trailers.verdict, trailers.status) == ("broken", "warn")
    assert "AWS_REQUEST_CHECKSUM_CALCULATION" in trailers.fix
    assert not test.traits.trailers
    proxy.seen.clear()
    store.put_bytes("x", b"content")
    assert store.get_bytes("x") == b"content"
    assert not [request for request in proxy.seen if "x-amz-trailer" in request.headers]


def test_checksum_trailers_that_do_no_harm_are_sent(
    moto_store: MakeStore, moto: str, proxy_to: ProxyTo, certificate: tuple[Path, Path]
) -> None:
    from pgsteward.storage import open_store

    proxy = proxy_to(moto, certificate)
    store, config = moto_store(proxy.url, ca_bundle=str(certificate[0]))
    assert selftest.examine(store, config, "app/").traits.trailers
    proxy.seen.clear()
    again = open_store("s3", config)
    again.put_bytes("x", b"content")
    assert again.get_bytes("x") == b"content"
    assert [request for request in proxy.seen if "x-amz-trailer" in request.headers]


def test_a_key_of_the_customer_is_tried_with_and_without(
    moto_store: MakeStore, moto: str, proxy_to: ProxyTo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """moto does not know SSE-C: the proxy plays a store that does."""
    kind = "x-amz-server-side-encryption-customer-algorithm"
    keys: dict[str, str] = {}

    def honouring(request: Request, real: Pass) -> Answer:
        given = request.headers.get(f"{kind.removesuffix('-algorithm')}-key")
        needs = request.method in ("GET", "HEAD") and request.path in keys
        if needs and given != keys[request.path]:
            return Answer(400)
        answer = real(request)
        if given and answer.status == 200:
            answer.headers[kind] = "AES256"
            keys[request.path] = given
        return answer

    monkeypatch.setenv("CUSTOMER_KEY", base64.b64encode(os.urandom(32)).decode())
    proxy = proxy_to(moto)
    store, config = moto_store(proxy.url, sse="customer", sse_customer_key={"env": "CUSTOMER_KEY"})
    assert said(selftest.examine(store, config, "app/"))["encryption"] == "ignored"
    proxy.fault = honouring
    test = selftest.examine(store, config, "app/")
    assert said(test)["encryption"] == "honoured"
    monkeypatch.setenv("CUSTOMER_KEY", "too-short")
    [bad] = selftest.examine(store, config, "app/").bad
    assert "openssl rand -base64 32" in bad.message


def test_verdicts_are_kept_by_endpoint_bucket_and_settings(
    moto_store: MakeStore, tmp_path: Path, moto_bucket: Callable[..., str]
) -> None:
    store, config = moto_store()
    test = selftest.examine(store, config, "app/")
    assert selftest.remembered(config) == test
    [file] = (tmp_path / "state" / "pgsteward" / "stores").iterdir()
    assert "secret" not in json.dumps(json.loads(file.read_text())).replace("secret_access_key", "")
    other_prefix = config.model_copy(update={"url": f"s3://{config.bucket}/other"})
    assert selftest.remembered(other_prefix) == test
    for change in ({"sse": "s3"}, {"url": f"s3://{moto_bucket()}"}, {"region": "eu-central-1"}):
        assert selftest.remembered(config.model_copy(update=change)) is None
    assert selftest.remembered(config, datetime.now(UTC) + timedelta(days=31)) is None
    file.write_text("{")
    assert selftest.remembered(config) is None


def test_a_store_that_is_down_has_no_verdict(moto_store: MakeStore) -> None:
    store, config = moto_store("http://127.0.0.1:9", retries=0)
    with pytest.raises(StoreUnavailable):
        selftest.examine(store, config, "app/")


def test_what_a_killed_test_leaves_is_removed_when_it_must_be_dead(moto_store: MakeStore) -> None:
    store, _config = moto_store()
    now = datetime.now(UTC)
    for minutes in (1, 90, 1500):  # the second is a living one's, seen by a clock that is ahead
        name = f"{now - timedelta(minutes=minutes):%Y%m%dT%H%M%SZ}-0123abcd"
        store.put_bytes(f"app/{selftest.FOLDER}/{name}/first", b"x")
    store.put_bytes(f"app/{selftest.FOLDER}/somebody-elses/file", b"x")
    assert len(selftest.remove_dead(store, "app/", now, dry_run=True)) == 1
    assert len(selftest.remove_dead(store, "app/", now)) == 1
    assert len(list(store.objects(""))) == 3


def test_what_a_proxy_lets_through_at_once_is_found_out_and_kept_to(
    moto_store: MakeStore, proxy_to: ProxyTo, moto: str, certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    """It would refuse the first large file of a night; the test itself sends no more than the head of one."""
    proxy = proxy_to(moto, certificate)  # so that trailers might be sent
    proxy.fault = refusing_larger(8 << 20)
    store, config = moto_store(proxy.url, ca_bundle=str(certificate[0]))
    test = selftest.examine(store, config, "app/")
    assert [(each.name, each.verdict) for each in test.capabilities if each.status == "warn"] == [
        ("request size", "refused")
    ]
    assert nothing_in(store)
    (tmp_path / "file").write_bytes(os.urandom(17 << 20))
    store = open_store("s3", config)
    store.put_file("file", tmp_path / "file")
    with store.writing("stream", 79 << 30) as sink:  # the most that fits into parts of that size
        sink.write((tmp_path / "file").read_bytes())
    store.put_bytes("manifest of many tables", (tmp_path / "file").read_bytes())
    for key in ("file", "stream", "manifest of many tables"):
        assert store.get_bytes(key) == (tmp_path / "file").read_bytes()
    assert store.largest_object_bytes == 10_000 * (8 << 20)
    proxy.fault = refusing_larger(4 << 20)
    assert set(fixes(selftest.examine(store, config, "app/"))) == {"request size", "multipart"}


@pytest.mark.parametrize("taken, verdict", [(1_000, "works"), (5, "broken")])
def test_a_store_that_takes_fewer_parts_gets_larger_ones_or_is_refused(
    moto_store: MakeStore, proxy_to: ProxyTo, moto: str, taken: int, verdict: str
) -> None:
    proxy = proxy_to(moto)
    proxy.fault = always(
        lambda r: r.is_part and int(r.query["partNumber"]) > taken,
        answering(400, "InvalidArgument"),
    )
    store, config = moto_store(proxy.url)
    test = selftest.examine(store, config, "app/")
    assert said(test)["multipart"] == verdict
    assert nothing_in(store)
    if verdict == "broken":
        assert set(fixes(test)) == {"multipart"}
        return
    assert test.bad == ()
    assert test.traits.max_parts == taken
    [told] = [each.message for each in test.capabilities if each.name == "multipart"]
    assert "no more than 1000 parts" in told
    assert open_store("s3", config).largest_object_bytes == taken << 30
