"""What the configuration asks for is what goes over the wire; and never in clear text."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest

from pgsteward.config import StoreConfig
from pgsteward.errors import StewardError, StoreFailed, StoreUnavailable, VerificationFailed
from pgsteward.storage import Store, open_store, selftest
from pgsteward.storage.s3 import S3Store
from pgsteward.storage.s3_body import Pace, memory_body
from pgsteward.storage.s3_client import make_client
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
    honouring_checksums,
    no_fault,
    refusing_first,
)

MIB = 1 << 20
ProxyTo = Callable[..., Proxy]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = S3Store.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "single_put_bytes", 6 * MIB)
    monkeypatch.setitem(defaults, "part_bytes", 5 * MIB)


def put_all_ways(store: Store, tmp_path: Path) -> None:
    """Put one object in each way there is: a small one, a file, one in parts, a stream in parts."""
    (tmp_path / "small").write_bytes(b"small")
    (tmp_path / "large").write_bytes(os.urandom(7 * MIB))
    store.put_bytes("bytes", b"x")
    store.put_file("file", tmp_path / "small")
    store.put_file("parts", tmp_path / "large")
    for key, size in (("stream", 7 * MIB), ("short stream", 3)):
        with store.writing(key, size) as sink:
            sink.write(b"s" * size)


def test_what_is_asked_for_is_on_every_object(
    moto_store: MakeStore, moto: str, moto_bucket: Callable[..., str], tmp_path: Path
) -> None:
    bucket = moto_bucket(ObjectLockEnabledForBucket=True)
    store, _config = moto_store(
        bucket=bucket,
        sse="kms",
        sse_kms_key_id="alias/backups",
        storage_class="STANDARD_IA",
        tags={"team": "d b/a", "what": "backup"},
        object_lock="governance",
        object_lock_days=7,
    )
    put_all_ways(store, tmp_path)
    client = boto3.client(
        "s3", endpoint_url=moto, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
    )
    keys = [stored.key for stored in store.objects("")]
    assert len(keys) == 5
    for key in keys:
        where = {"Bucket": bucket, "Key": f"night/{key}"}
        there = client.head_object(**where)
        assert there["ServerSideEncryption"] == "aws:kms"
        assert there["SSEKMSKeyId"].endswith("alias/backups")
        assert there["StorageClass"] == "STANDARD_IA"
        assert there["ObjectLockMode"] == "GOVERNANCE"
        until = there["ObjectLockRetainUntilDate"]
        assert timedelta(days=6, hours=23) < until - datetime.now(UTC) <= timedelta(days=7)
        assert store.retained_until(key) == until
        tags = client.get_object_tagging(**where)["TagSet"]
        assert {tag["Key"]: tag["Value"] for tag in tags} == {"team": "d b/a", "what": "backup"}
    client.close()
    store.put_bytes("mark", b"x", passing=True)
    assert store.retained_until("mark") is None
    store.delete("mark")


def test_tags_are_there_where_a_store_is_narrow(
    moto_store: MakeStore, moto: str, moto_bucket: Callable[..., str], proxy_to: ProxyTo, tmp_path: Path
) -> None:
    """The Ceph Object Gateway 16 reads no + as a space, and tags nothing that is put in parts."""
    proxy = proxy_to(moto)

    def narrow(request: Request, real: Pass) -> Answer:
        tagging = request.headers.get("x-amz-tagging", "")
        request.headers["x-amz-tagging"] = tagging.replace("+", "%2B")
        if not tagging or "uploads" in request.query:
            del request.headers["x-amz-tagging"]
        return real(request)

    proxy.fault = narrow
    bucket, tags = moto_bucket(), {"team": "d b+a", "what": "backup"}
    store, config = moto_store(proxy.url, bucket=bucket, tags=tags)
    assert selftest.examine(store, config, "app/").bad == ()
    put_all_ways(store, tmp_path)
    client = boto3.client(
        "s3", endpoint_url=moto, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
    )
    keys = [stored.key for stored in store.objects("")]
    assert len(keys) == 5
    for key in keys:
        there = client.get_object_tagging(Bucket=bucket, Key=f"night/{key}")["TagSet"]
        assert {tag["Key"]: tag["Value"] for tag in there} == tags
    client.close()


def test_an_endpoint_that_is_no_store_is_named(moto_store: MakeStore, moto: str, proxy_to: ProxyTo) -> None:
    """A path that is missing in endpoint_url, or the page of a proxy before the store."""
    proxy = proxy_to(moto)
    store, config = moto_store(proxy.url)
    proxy.fault = lambda request, real: Answer(404, {"Content-Type": "text/html"}, b"<h1>Not found")
    uses: tuple[Callable[[], object], ...] = (
        lambda: store.put_bytes("x", b"x"),
        lambda: list(store.objects("")),
        lambda: store.folders(""),
        lambda: list(store.versions("")),
    )
    for use in uses:
        with pytest.raises(StoreFailed, match=r"nothing is known under this address \[404\].* endpoint_url"):
            use()
    assert "endpoint_url" in selftest.examine(store, config, "app/").bad[0].message
    proxy.fault = lambda request, real: Answer(200, {"Content-Type": "text/html"}, b"<h1>Log in")
    for use in (*uses[1:], store.keeps_versions):
        with pytest.raises(
            StoreUnavailable, match=r"a web page came instead of S3's answer: .* endpoint_url"
        ):
            use()
    proxy.fault = lambda request, real: Answer(302, {"Location": "https://login.example/?x"})
    proxy.seen.clear()
    for use in (*uses, store.keeps_versions):
        with pytest.raises(StoreFailed, match=r"sends us on to 'https://login\.example/\?x'; .*\[302\]"):
            use()
    assert len(proxy.seen) == len(uses) + 1


def test_a_store_that_says_how_long_it_is_busy_gets_the_time(
    moto_store: MakeStore, moto: str, proxy_to: ProxyTo
) -> None:
    proxy = proxy_to(moto)
    store, _config = moto_store(proxy.url, retries=1)
    busy = error(503, "SlowDown")
    busy.headers["Retry-After"] = "1"
    proxy.fault = first(1, lambda r: r.is_put, lambda request, real: busy)
    began = time.monotonic()
    store.put_bytes("x", b"y")
    assert time.monotonic() - began >= 1


def test_an_unfinished_upload_is_aborted_where_the_store_does_not_say_how_old_it_is(
    moto_store: MakeStore, moto: str, proxy_to: ProxyTo
) -> None:
    def without_dates(request: Request, real: Pass) -> Answer:
        answer = real(request)
        if request.method == "GET" and "uploads" in request.query:
            answer.body = re.sub(b"<Initiated>.*?</Initiated>", b"", answer.body)
        return answer

    proxy = proxy_to(moto)
    store, config = moto_store(proxy.url)
    client = make_client(config)
    for key in ("night/app/young", "night/app/stream"):
        client.create_multipart_upload(Bucket=config.bucket, Key=key)
    proxy.fault = without_dates
    new = datetime.now(UTC)
    assert store.abort_uploads("app/", lambda key, begun_at: key == "app/young" and begun_at >= new) == [
        "app/stream"
    ]
    client.close()


def test_a_refusal_before_the_body_harms_no_other_request(
    moto_store: MakeStore, moto: str, proxy_to: ProxyTo
) -> None:
    """The next request on the same connection would be taken for the body that was never sent."""
    proxy = proxy_to(moto)
    store, _config = moto_store(proxy.url, retries=2)
    proxy.fault = refusing_first(2)
    store.put_bytes("x", b"x" * 100)
    assert store.get_bytes("x") == b"x" * 100
    proxy.fault = refusing_first(3)
    with pytest.raises(StoreUnavailable, match="TooManyRequestsException"):
        store.put_bytes("y", b"y" * 100)
    assert [stored.key for stored in store.objects("")] == ["x"]


def test_a_store_that_goes_away_while_it_is_asked_for_versions_is_named(moto_store: MakeStore) -> None:
    store, _config = moto_store("http://127.0.0.1:9", retries=0)
    with pytest.raises(StoreUnavailable, match="no working connection"):
        store.keeps_versions()


def test_a_locked_put_carries_a_checksum_of_its_content(
    moto_store: MakeStore, moto: str, moto_bucket: Callable[..., str], proxy_to: ProxyTo, tmp_path: Path
) -> None:
    """S3 refuses locked objects without one."""
    proxy = proxy_to(moto)
    store, _config = moto_store(
        proxy.url,
        bucket=moto_bucket(ObjectLockEnabledForBucket=True),
        object_lock="governance",
        object_lock_days=1,
    )
    put_all_ways(store, tmp_path)
    puts = [request for request in proxy.seen if request.is_put]
    assert len(puts) == 7
    for request in puts:
        digest = hashlib.md5(request.body, usedforsecurity=False).digest()
        assert request.headers["content-md5"] == base64.b64encode(digest).decode()


def test_the_customers_key_goes_with_every_request(
    moto_store: MakeStore, moto: str, proxy_to: ProxyTo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = base64.b64encode(os.urandom(32)).decode()
    monkeypatch.setenv("CUSTOMER_KEY", key)
    proxy = proxy_to(moto)
    store, _config = moto_store(proxy.url, sse="customer", sse_customer_key={"env": "CUSTOMER_KEY"})
    put_all_ways(store, tmp_path)
    assert store.get_bytes("bytes") == b"x"
    concerned = [r for r in proxy.seen if r.is_put or r.is_get or "uploads" in r.query]
    assert len(concerned) == 10
    for request in concerned:
        assert request.headers["x-amz-server-side-encryption-customer-key"] == key
    monkeypatch.setenv("CUSTOMER_KEY", "c2hvcnQ=")
    with pytest.raises(StoreFailed, match="32 bytes in base64"):
        store.put_bytes("x", b"x")


def known_sha256(config: StoreConfig) -> Store:
    selftest.remember(config, SelfTest((), Traits(sha256=True), datetime.now(UTC).isoformat()))
    return open_store("s3", config)


def test_the_stores_own_checksum_is_what_counts(
    moto_store: MakeStore, moto: str, proxy_to: ProxyTo, tmp_path: Path
) -> None:
    proxy = proxy_to(moto)
    proxy.fault = honouring_checksums()
    _store, config = moto_store(proxy.url, read_back="checksum")
    store = known_sha256(config)
    assert store.trusts_checksums
    put_all_ways(store, tmp_path)
    for name in ("small", "large"):
        file = tmp_path / name
        size, sha256 = file.stat().st_size, hashlib.sha256(file.read_bytes()).hexdigest()
        key = "file" if name == "small" else "parts"
        assert store.confirms(key, size, sha256, file) is True
        assert store.confirms(key, size + 1, sha256, file) is False
        assert store.confirms("not there", size, sha256, file) is False
    large = tmp_path / "large"
    size, sha256 = large.stat().st_size, hashlib.sha256(large.read_bytes()).hexdigest()
    assert store.confirms("parts", size, sha256) is None, "of parts only the file can tell"
    large.write_bytes(bytes(size))
    assert store.confirms("parts", size, sha256, large) is False
    with store.writing("x", 7 * MIB) as sink:
        sink.write(b"x" * (7 * MIB))
    assert sink.confirmed


def test_a_stream_of_which_the_store_has_something_else_is_an_error(
    moto_store: MakeStore, moto: str, proxy_to: ProxyTo
) -> None:
    proxy = proxy_to(moto)
    honest = honouring_checksums()

    def lying(request: Request, real: Pass) -> Answer | None:
        answer = honest(request, real)
        if answer is not None and request.method == "HEAD":
            answer.headers["x-amz-checksum-sha256"] = "A" * 43 + "=-2"
        return answer

    proxy.fault = lying
    _store, config = moto_store(proxy.url)
    store = known_sha256(config)

    def write() -> None:
        with store.writing("x", 7 * MIB) as sink:
            sink.write(b"x" * (7 * MIB))

    with pytest.raises(VerificationFailed, match="something else"):
        write()


def test_without_a_self_test_nothing_is_relied_on(moto_store: MakeStore) -> None:
    store, _config = moto_store(read_back="checksum")
    assert not store.trusts_checksums
    store.put_bytes("x", b"x")
    assert store.confirms("x", 1, hashlib.sha256(b"x").hexdigest()) is None


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_request_is_repeated_as_often_as_configured(
    moto_store: MakeStore, moto: str, proxy_to: ProxyTo, status: int
) -> None:
    proxy = proxy_to(moto)
    store, _config = moto_store(proxy.url, retries=1)
    proxy.fault = first(1, lambda r: r.is_put, answering(status, "InternalError"))
    store.put_bytes("x", b"x")
    proxy.fault = always(lambda r: r.is_put, answering(status, "InternalError"))
    proxy.seen.clear()
    with pytest.raises(StoreUnavailable):
        store.put_bytes("x", b"x")
    assert len(proxy.seen) == 2


def test_the_bandwidth_is_limited_over_all_requests_together() -> None:
    pace = Pace(10 * MIB)
    body = memory_body(bytes(4 * MIB), pace)
    body.sha256()
    body.read()  # for the signature: nothing is sent
    began = time.monotonic()
    body.signal_transferring()
    body.seek(0)
    while body.read(256 << 10):
        pass
    pace.wait(1)
    assert time.monotonic() - began >= 0.35


def test_a_limited_store_takes_its_time(moto_store: MakeStore) -> None:
    store, _config = moto_store(max_bandwidth="8MiB")
    began = time.monotonic()
    store.put_bytes("x", bytes(2 * MIB))
    assert store.get_bytes("x") == bytes(2 * MIB)
    store.put_bytes("y", b"")
    store.get_bytes("x")
    assert time.monotonic() - began >= 0.4


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """AWS's own files, where a test can write them."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    return tmp_path


def test_a_profile_says_who_we_are(moto: str, moto_bucket: Callable[..., str], elsewhere: Path) -> None:
    (elsewhere / "config").write_text("[profile backups]\nregion = us-east-1\n")
    (elsewhere / "credentials").write_text("[backups]\naws_access_key_id = A\naws_secret_access_key = B\n")
    url = f"s3://{moto_bucket()}"
    store = open_store("s3", StoreConfig(url=url, endpoint_url=moto, profile="backups"))
    store.put_bytes("x", b"y")
    assert store.get_bytes("x") == b"y"
    wrong = open_store("s3", StoreConfig(url=url, endpoint_url=moto, profile="nobody"))
    with pytest.raises(StoreFailed, match="nobody"):
        wrong.put_bytes("x", b"y")


@pytest.mark.parametrize("where", ["environment", "profile"])
def test_an_endpoint_in_clear_text_is_refused_wherever_it_comes_from(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    keys = "aws_access_key_id = A\naws_secret_access_key = B\nregion = us-east-1\n"
    settings: dict[str, Any] = {"url": "s3://some-bucket/x"}
    if where == "environment":
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://s3.example.net")
        (elsewhere / "config").write_text(f"[default]\n{keys}")
    else:
        (elsewhere / "config").write_text(f"[profile far]\n{keys}endpoint_url = http://s3.example.net\n")
        settings["profile"] = "far"
    store = open_store("s3", StoreConfig.model_validate(settings))
    with pytest.raises(StoreFailed, match="clear text"):
        store.put_bytes("x", b"y")


def test_a_proxy_that_is_not_there_is_named(moto_store: MakeStore) -> None:
    store, _config = moto_store(proxy="http://127.0.0.1:9", retries=0)
    with pytest.raises(StoreUnavailable, match=r"proxy http://127.0.0.1:9"):
        store.put_bytes("x", b"y")


def test_requests_go_through_the_proxy(moto_store: MakeStore, moto: str) -> None:
    seen: list[str] = []

    class Way(Proxy):
        def real(self, request: Request) -> Answer:
            seen.append(request.path)
            return super().real(request)

    with Way(moto).running() as way:
        fault: Fault = no_fault
        way.fault = fault
        store, _config = moto_store(proxy=way.url)
        store.put_bytes("x", b"y")
        assert store.get_bytes("x") == b"y"
    assert len(seen) == 2


ACCESS_POINT = "arn:aws:s3:eu-central-1:123456789012:accesspoint"
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "customer without key": ({"sse": "customer"}, "give both"),
    "key without customer": ({"sse_customer_key": {"env": "X"}}, "give both"),
    "kms key without kms": ({"sse": "s3", "sse_kms_key_id": "x"}, 'sse = "kms"'),
    "lock without days": ({"object_lock": "governance"}, "give object_lock and object_lock_days together"),
    "archive": ({"storage_class": "DEEP_ARCHIVE"}, "can't be read at once"),
    "small letters": ({"storage_class": "standard"}, "in capitals"),
    "eleven tags": ({"tags": {str(n): "x" for n in range(11)}}, "at most 10"),
    "tag of aws": ({"tags": {"aws:x": "y"}}, "1 to 128"),
    "profile and keys": (
        {"profile": "x", "access_key_id": {"env": "X"}, "secret_access_key": {"env": "Y"}},
        "not both",
    ),
    "token alone": ({"session_token": {"env": "X"}}, "give them, too"),
    "proxy with password": ({"proxy": "http://a:b@proxy:1"}, "environment"),
    "proxy without address": ({"proxy": "proxy:3128"}, "http://proxy"),
    "another host that begins like loopback": ({"endpoint_url": "http://127.0.0.1.example.net"}, "loopback"),
    "endpoint with a query": ({"endpoint_url": "https://s3.example.net?x=1"}, "only the address"),
    "endpoint with a blank": ({"endpoint_url": "https:// s3.example.net"}, "only the address"),
    "endpoint with a port that is none": ({"endpoint_url": "https://s3.example.net:99999"}, "[Pp]ort"),
    "region with a blank": ({"region": "eu-central-1 "}, "without blanks"),
    "bucket with a port": ({"url": "s3://backups:9000/x"}, "endpoint_url"),
    "access point with a slash": ({"url": f"s3://{ACCESS_POINT}/name/x"}, "with a colon"),
    "prefix with an empty part": ({"url": "s3://backups//x"}, "no part of the prefix"),
    "prefix that climbs": ({"url": "s3://backups/x/../y"}, "no part of the prefix"),
    "relative bundle": ({"ca_bundle": "ca.pem"}, "absolute"),
    "bandwidth of a snail": ({"max_bandwidth": 10}, "65536"),
}


@pytest.mark.parametrize("case", WRONG)
def test_options_that_can_not_be_meant_are_refused(case: str) -> None:
    settings, said = WRONG[case]
    with pytest.raises(ValueError, match=said):
        StoreConfig.model_validate({"url": "s3://some-bucket", **settings})


def test_an_access_point_is_a_bucket() -> None:
    config = StoreConfig(url=f"s3://{ACCESS_POINT}:name/a b/+%25")
    assert (config.bucket, config.path) == (f"{ACCESS_POINT}:name", "a b/+%25")


def test_a_folder_takes_none_of_them() -> None:
    with pytest.raises(ValueError, match="takes no sse"):
        StoreConfig.model_validate({"url": "file:///x", "sse": "s3"})
    assert StoreConfig.model_validate({"url": "file:///x", "upload_jobs": 2}).upload_jobs == 2


def test_no_error_shows_a_secret(
    moto_store: MakeStore, moto: str, proxy_to: ProxyTo, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = base64.b64encode(os.urandom(32)).decode()
    monkeypatch.setenv("CUSTOMER_KEY", key)
    monkeypatch.setenv("TOKEN", "a-session-token-that-is-secret")
    monkeypatch.setenv("MOTO_SECRET", "hunter2-hunter2")
    proxy = proxy_to(moto)

    def telling(request: Request, real: Pass) -> Answer:
        said = " ".join([key, "a-session-token-that-is-secret", "hunter2-hunter2"])
        return Answer(400, {}, f"<Error><Code>Odd</Code><Message>{said}</Message></Error>".encode())

    proxy.fault = telling
    store, _config = moto_store(
        proxy.url, sse="customer", sse_customer_key={"env": "CUSTOMER_KEY"}, session_token={"env": "TOKEN"}
    )
    with pytest.raises(StewardError) as caught:
        store.put_bytes("x", b"x")
    shown = str(caught.value) + repr(caught.value)
    assert "***" in shown
    for secret in (key, "a-session-token", "hunter2"):
        assert secret not in shown


def test_parts_that_are_gone_may_heal_and_the_time_limit_is_named(
    moto_store: MakeStore, moto: str, proxy_to: ProxyTo, tmp_path: Path
) -> None:
    proxy = proxy_to(moto)
    proxy.fault = always(
        lambda r: r.method == "POST" and "uploadId" in r.query, answering(400, "InvalidPart")
    )
    store, _ = moto_store(proxy.url)
    (tmp_path / "large").write_bytes(bytes(7 * MIB))
    with pytest.raises(StoreUnavailable, match=r"raise timeout_s.*\[InvalidPart\]"):
        store.put_file("large", tmp_path / "large")
    assert store.abort_uploads("") == []
    assert list(store.objects("")) == []
