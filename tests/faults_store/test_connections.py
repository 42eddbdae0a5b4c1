"""The way to a store: TLS, proxies, addresses. What is wrong there is said; nothing goes in clear text."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pgsteward.config import StoreConfig
from pgsteward.errors import StoreFailed, StoreUnavailable
from pgsteward.storage import open_store, selftest
from pgsteward.storage.s3_client import make_client
from tests.faults_store.conftest import MakeStore, make_certificate
from tests.faults_store.proxy import Answer, Pass, Proxy, Request, error, no_fault

ProxyTo = Callable[..., Proxy]


CERTIFICATES: dict[str, tuple[dict[str, Any], bool, str]] = {
    "unknown authority": ({}, False, "name its authority in ca_bundle"),
    "expired": ({"days": -1}, True, "has expired; renew it"),
    "another host": ({"address": "127.0.0.2"}, True, "is for another host name"),
}


@pytest.mark.parametrize("case", CERTIFICATES)
def test_what_is_wrong_with_a_certificate_is_said(
    moto_store: MakeStore, moto: str, proxy_to: ProxyTo, tmp_path: Path, case: str
) -> None:
    how, trusted, said = CERTIFICATES[case]
    certificate = make_certificate(tmp_path, **how)
    options = {"ca_bundle": str(certificate[0])} if trusted else {}
    store, config = moto_store(proxy_to(moto, certificate).url, retries=0, **options)
    [bad] = selftest.examine(store, config, "app/").bad
    assert said in bad.message


def test_a_port_without_tls_is_no_matter_of_certificates(moto_store: MakeStore, moto: str) -> None:
    store, _config = moto_store(moto.replace("http:", "https:"), retries=0)
    with pytest.raises(StoreFailed, match="see whether endpoint_url is where the store speaks TLS"):
        store.put_bytes("x", b"y")


ADDRESSES: dict[str, tuple[dict[str, Any], str]] = {
    "endpoint": ({}, "https://s3.example.net/bucket/key"),
    "path": ({"path_style": True}, "https://s3.example.net/bucket/key"),
    "host": ({"path_style": False}, "https://bucket.s3.example.net/key"),
    "amazon": ({"endpoint_url": None}, "https://bucket.s3.amazonaws.com/key"),
    "profile": ({"endpoint_url": None, "profile": "there"}, "https://bucket.their.example/key"),
}


@pytest.mark.parametrize("case", ADDRESSES)
def test_the_bucket_goes_where_it_is_wanted(
    case: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Some services refuse it in the path, others in the host name."""
    settings, address = ADDRESSES[case]
    (tmp_path / "config").write_text(
        "[profile there]\naws_access_key_id = A\naws_secret_access_key = B\n"
        "endpoint_url = https://their.example\ns3 =\n    addressing_style = virtual\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    keys = (
        {}
        if "profile" in settings
        else {n: {"env": "MOTO_KEY"} for n in ("access_key_id", "secret_access_key")}
    )
    given = {"endpoint_url": "https://s3.example.net", "region": "eu-west-1", **keys, **settings}
    client = make_client(StoreConfig.model_validate({"url": "s3://bucket", **given}))
    url = client.generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": "key"})
    assert url.partition("?")[0] == address


def test_the_environments_proxy_gets_nothing_that_is_for_this_machine(
    moto_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would go over the line in clear text."""
    store, _config = moto_store(retries=0)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    store.put_bytes("x", b"y")
    assert store.get_bytes("x") == b"y"


def test_nothing_goes_in_clear_text_through_a_proxy_elsewhere(moto_store: MakeStore) -> None:
    store, _config = moto_store(proxy="http://proxy.example.net:3128")
    with pytest.raises(StoreFailed, match="in clear text through http://proxy"):
        store.put_bytes("x", b"y")


def test_a_proxy_that_wants_a_password_is_named_and_none_is_shown(
    moto_store: MakeStore, proxy_to: ProxyTo, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = proxy_to("http://127.0.0.1:9")
    monkeypatch.setenv("https_proxy", way.url.replace("//", "//somebody:hunter2@"))
    way.fault = lambda request, real: Answer(407, {"Proxy-Authenticate": "Basic"})
    store, _config = moto_store("https://s3.example.net", retries=0)
    with pytest.raises(StoreFailed, match=r"set HTTPS_PROXY=.*\[407\]") as caught:
        store.put_bytes("x", b"y")
    assert "hunter2" not in str(caught.value)
    monkeypatch.setenv("https_proxy", "http://somebody:hunter2@127.0.0.1:9")
    store, _config = moto_store("https://s3.example.net", retries=0)
    with pytest.raises(StoreUnavailable, match=r"\(HTTPS_PROXY\) does not let us through") as unreachable:
        store.put_bytes("x", b"y")
    assert "hunter2" not in str(unreachable.value)


REFUSALS: dict[str, tuple[Answer, str]] = {
    "region": (
        Answer(
            400, {}, b"<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-north-1</Region></Error>"
        ),
        "the bucket lives in region 'eu-north-1'; set it",
    ),
    "region without its name": (
        error(400, "AuthorizationHeaderMalformed", "unexpected scope: 20261130/us-east-1/s3"),
        "another region; set region (it says: unexpected scope: 20261130/us-east-1/s3)",
    ),
    "bucket in the path": (error(403, "SecondLevelDomainForbidden"), "set path_style = false"),
    "rights": (
        error(403, "AccessDenied", "not authorized to perform: kms:GenerateDataKey"),
        "the key needs s3:PutObject on this bucket and prefix, or its secret is wrong: not every store tells"
        " (it says: not authorized to perform: kms:GenerateDataKey)",
    ),
    "a password before the store": (Answer(401, {"WWW-Authenticate": "Basic"}), "a password of its own"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_says_what_to_do(moto_store: MakeStore, moto: str, proxy_to: ProxyTo, case: str) -> None:
    answer, said = REFUSALS[case]
    proxy = proxy_to(moto)
    proxy.fault = lambda request, real: answer
    store, _config = moto_store(proxy.url)
    with pytest.raises(StoreFailed, match=re.escape(said)):
        store.put_bytes("x", b"y")


def test_each_missing_right_is_named(moto_store: MakeStore, moto: str, proxy_to: ProxyTo) -> None:
    proxy = proxy_to(moto)
    store, _config = moto_store(proxy.url)
    proxy.fault = lambda request, real: error(403, "AccessDenied", "Access Denied")
    uses: dict[str, Callable[[], object]] = {
        "s3:GetObject (and s3:ListBucket": lambda: store.get_bytes("x"),
        "s3:ListBucket on": lambda: store.folders(""),
        "s3:ListBucketMultipartUploads on": lambda: store.abort_uploads(""),
        "s3:ListBucketVersions on": lambda: list(store.versions("")),
        "s3:DeleteObject on": lambda: store.delete("x"),
    }
    for right, use in uses.items():
        with pytest.raises(StoreFailed, match=re.escape(right)) as caught:
            use()
        assert "it says" not in str(caught.value)


def test_an_empty_answer_is_no_empty_listing(moto_store: MakeStore, moto: str, proxy_to: ProxyTo) -> None:
    """A proxy that answers 200 without a word: what is there would be gone."""
    proxy = proxy_to(moto)
    store, _config = moto_store(proxy.url)
    store.put_bytes("folder/x", b"y")
    proxy.fault = lambda request, real: Answer(200)

    def stream() -> None:
        with store.writing("stream", 100 << 20) as sink:
            sink.write(b"x" * (17 << 20))

    uses: tuple[Callable[[], object], ...] = (
        lambda: list(store.objects("")),
        lambda: store.folders(""),
        lambda: store.abort_uploads(""),
        stream,
    )
    for use in uses:
        with pytest.raises(StoreUnavailable, match=r"the answer is empty, or not one of S3.*\[NoAnswer\]"):
            use()

    def without_etags(request: Request, real: Pass) -> Answer:
        answer = real(request)
        answer.headers = {
            k: v for k, v in answer.headers.items() if k.lower() != "etag" or not request.is_part
        }
        return answer

    proxy.fault = without_etags
    with pytest.raises(StoreUnavailable, match=r"\[NoAnswer\]"):
        stream()
    proxy.fault = no_fault
    assert store.folders("") == ["folder"]
    assert store.abort_uploads("") == []


def test_another_address_in_the_environment_is_another_store(
    moto_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one store does says nothing about the next."""
    store, config = moto_store()
    selftest.remember(config, selftest.SelfTest((), tested_at="2026-01-01T00:00:00+00:00"))
    test = selftest.examine(store, config, "app/")
    assert selftest.remembered(config) == test
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://elsewhere.example.net")
    assert selftest.remembered(config) is None


CREDENTIALS: dict[str, tuple[dict[str, str], str]] = {
    "a token's file that is not there": (
        {"AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/x", "AWS_WEB_IDENTITY_TOKEN_FILE": "/not/there"},
        "No such file or directory: '/not/there'; see what the environment",
    ),
    "a program that is not there": ({"AWS_PROFILE": "missing"}, "No such file or directory"),
    "a program that fails": ({"AWS_PROFILE": "failing"}, "run it by hand to see why"),
    "a program that says something else": ({"AWS_PROFILE": "talking"}, "see what the environment"),
    "no such profile": (
        {"AWS_PROFILE": "nobody"},
        "(nobody) could not be found; correct profile, or AWS_PROFILE",
    ),
    "no address": ({"AWS_ENDPOINT_URL": "no address"}, "Invalid endpoint: no address"),
}


@pytest.mark.parametrize("case", CREDENTIALS)
def test_credentials_that_can_not_be_had_are_no_missing_object(
    case: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What is not there would not be a backup, and would count as deleted."""
    environment, said = CREDENTIALS[case]
    (tmp_path / "config").write_text(
        "[profile missing]\ncredential_process = /not/there\n"
        "[profile failing]\ncredential_process = /bin/sh -c 'echo hunter2 >&2; exit 3'\n"
        "[profile talking]\ncredential_process = /bin/echo hunter2\n"
    )
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    environment = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", **environment}
    for name, value in {"AWS_CONFIG_FILE": str(tmp_path / "config"), **environment}.items():
        monkeypatch.setenv(name, value)
    store = open_store("s3", StoreConfig(url="s3://bucket", region="us-east-1", retries=0))
    uses: tuple[Callable[[], object], ...] = (lambda: store.get_bytes("x"), lambda: store.delete("x"))
    for use in uses:
        with pytest.raises(StoreFailed, match=re.escape(said)) as caught:
            use()
        assert "hunter2" not in str(caught.value)


def test_what_is_not_there_is_deleted_whatever_the_store_says(
    moto_store: MakeStore, moto: str, proxy_to: ProxyTo
) -> None:
    """S3 answers 204; others 404."""
    proxy = proxy_to(moto)
    store, _config = moto_store(proxy.url)
    proxy.fault = lambda request, real: error(404, "NoSuchKey")
    store.delete("x")


def test_a_bundle_that_is_none_is_named(
    moto_store: MakeStore, moto: str, proxy_to: ProxyTo, certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    url = proxy_to(moto, certificate).url
    store, _config = moto_store(url, ca_bundle=str(tmp_path / "ca.pem"), retries=0)
    with pytest.raises(StoreFailed, match=r"ca_bundle .* names no file with certificates"):
        store.put_bytes("x", b"y")


def test_an_address_in_the_environment_is_named_when_nobody_answers_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    keys = {"access_key_id": {"env": "MOTO_KEY"}, "secret_access_key": {"env": "MOTO_SECRET"}}
    config = StoreConfig.model_validate({"url": "s3://bucket", "retries": 0, **keys})
    with pytest.raises(StoreUnavailable, match=r"no working connection to http://127\.0\.0\.1:9"):
        open_store("s3", config).get_bytes("x")
