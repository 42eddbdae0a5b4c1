"""An upload meets each fault of docs/faults-store.md: the right verdict, nothing half, nothing lost."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pgsteward.backup.catalog import verify
from pgsteward.backup.dump import back_up
from pgsteward.backup.listing import list_manifests
from pgsteward.backup.manifest import MANIFEST, MARK
from pgsteward.backup.upload import upload
from pgsteward.config import Config
from pgsteward.errors import TransientError
from pgsteward.janitor import clean_up
from pgsteward.storage import selftest
from pgsteward.storage.s3 import S3Store
from pgsteward.storage.selftest import SelfTest, Traits
from pgsteward.targets import Target
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
    half_then_reset,
    honouring_checksums,
    listing_late,
    no_fault,
    refusing_skewed,
    unanswered,
    without_headers,
)
from tests.integration.backup_targets import make_target
from tests.servers import Bucket, Database, Server, private_database

DOCS = Path(__file__).parents[2] / "docs" / "faults-store.md"
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Case:
    """One fault.

    Attributes:
        fault: What the proxy does; made anew for each run.
        keys: Wrong ones, in place of the right ones.
        known: The store has passed its self-test earlier.
        traits: What that had found.
        settings: Of the store.
        moto: In place of rclone.
        twice: A second upload during the fault must find the copy complete.
    """

    fault: Callable[[], Fault] = lambda: no_fault
    keys: Mapping[str, str] = field(default_factory=dict)
    known: bool = True
    traits: Traits = field(default_factory=Traits)
    settings: Mapping[str, Any] = field(default_factory=dict)
    moto: bool = False
    url: str = ""
    endpoint: str = ""
    twice: bool = False


def data(request: Request) -> bool:
    return request.is_put and "/dump/" in request.key


def toc(request: Request) -> bool:
    return request.is_get and request.key.endswith("/dump/toc.dat")


def late(request: Request, real: Pass) -> Answer:
    time.sleep(2.5)  # more than timeout_s
    return real(request)


def slowly(request: Request, real: Pass) -> Answer:
    answer = real(request)
    answer.slow_s = 0.1
    return answer


def completing(request: Request) -> bool:
    return request.method == "POST" and "uploadId" in request.query


def refusing_extras(request: Request, real: Pass) -> Answer:
    """A store that knows only the basics."""
    if "delete" in request.query:
        return error(400, "MissingContentMD5")
    extras = {"x-amz-copy-source", "if-none-match", "x-amz-tagging"}
    if extras & set(request.headers) or "tagging" in request.query:
        return error(501, "NotImplemented")
    return real(request)


def lying_checksums() -> Fault:
    honest = honouring_checksums()

    def fault(request: Request, real: Pass) -> Answer | None:
        answer = honest(request, real)
        if answer is not None and request.method == "HEAD" and request.key.endswith("/dump/toc.dat"):
            answer.headers["x-amz-checksum-sha256"] = "A" * 43 + "="
        return answer

    return fault


def corrupted_on_the_way() -> Fault:
    honest = honouring_checksums()
    flipped: list[str] = []

    def fault(request: Request, real: Pass) -> Answer | None:
        if data(request) and not flipped and request.body:
            flipped.append(request.key)
            request.body = bytes([request.body[0] ^ 1]) + request.body[1:]
        return honest(request, real)

    return fault


def known_sha256(fault: Callable[[], Fault]) -> Case:
    """A store that keeps checksums of its own, and is asked for them."""
    return Case(fault, traits=Traits(sha256=True), settings={"read_back": "checksum"}, moto=True)


CASES: dict[str, Case] = {
    "throttling: a few SlowDown": Case(lambda: first(2, data, answering(503, "SlowDown"))),
    "throttling without end": Case(lambda: always(data, answering(503, "SlowDown"))),
    "a few 500s": Case(lambda: first(2, lambda r: r.is_part, answering(500, "InternalError"))),
    "500s without end": Case(lambda: always(data, answering(500, "InternalError"))),
    "the answer to the last request is 200 with an error": Case(
        lambda: first(1, completing, answering(200, "InternalError"))
    ),
    "the answer to the last request is lost": Case(lambda: first(1, completing, unanswered)),
    "the connection is reset in the middle of a part, once": Case(
        lambda: first(1, lambda r: r.is_part, half_then_reset)
    ),
    "the connection is reset in the middle of every part": Case(
        lambda: always(lambda r: r.is_part, half_then_reset)
    ),
    "an answer breaks off while it is read back": Case(
        lambda: always(lambda r: r.is_get and "/dump/" in r.key, half_then_reset)
    ),
    "slow reads": Case(lambda: always(lambda r: r.is_get, slowly)),
    "the store is silent": Case(lambda: always(lambda r: True, late), settings={"timeout_s": 2.0}),
    "the store is down": Case(endpoint="http://127.0.0.1:9"),
    "somebody aborts the upload": Case(lambda: always(completing, answering(404, "NoSuchUpload"))),
    "a wrong secret": Case(keys={"secret": "WrongSecretWrongSecretWrongSecretWrong00"}),
    "an unknown access key": Case(keys={"key": "AKIAWRONGWRONGWRONGX"}),
    "a missing bucket": Case(url="s3://there-is-no-such-bucket/x"),
    "a read-only bucket": Case(
        lambda: always(lambda r: r.method not in ("GET", "HEAD"), answering(403, "AccessDenied"))
    ),
    "nothing may be deleted (the mark stays, which the log says)": Case(
        lambda: always(lambda r: r.method == "DELETE", answering(403, "AccessDenied"))
    ),
    "an expired token": Case(lambda: always(lambda r: True, answering(400, "ExpiredToken"))),
    "the clocks are too far apart": Case(lambda: always(lambda r: True, refusing_skewed(3600))),
    "the disk behind the endpoint is full": Case(lambda: always(data, answering(507, "XMinioStorageFull"))),
    "the quota is used up": Case(lambda: always(data, answering(403, "QuotaExceeded"))),
    "one byte of a file is corrupted": Case(lambda: always(toc, flipping)),
    "one byte of the manifest is corrupted": Case(
        lambda: always(lambda r: r.is_get and r.key.endswith(MANIFEST), flipping)
    ),
    "the store's own checksum is another": known_sha256(lying_checksums),
    "bytes are corrupted on their way, once": known_sha256(corrupted_on_the_way),
    "objects are listed late": Case(lambda: listing_late(3600), twice=True),
    "DeleteObjects, copies, conditional puts and tagging are refused": Case(lambda: refusing_extras),
    "a new store ignores SSE": Case(
        lambda: without_headers("x-amz-server-side-encryption"),
        known=False,
        moto=True,
        settings={"sse": "s3"},
    ),
    "a new store ignores Object Lock": Case(
        lambda: without_headers("x-amz-object-lock"),
        known=False,
        moto=True,
        settings={"object_lock": "governance", "object_lock_days": 1},
    ),
    "a new store refuses tags": Case(
        lambda: always(lambda r: "x-amz-tagging" in r.headers, answering(501, "NotImplemented")),
        known=False,
        moto=True,
        settings={"tags": {"team": "dba"}},
    ),
    "a new store corrupts one byte": Case(
        lambda: always(lambda r: r.is_get, flipping), known=False, moto=True
    ),
}


FULL_DISKS = (
    "the disk behind the endpoint really fills up under an upload",
    "the disk behind the endpoint really fills up under a stream",
)
"""Played by `test_full_disk`, which has no proxy answer for the store."""


def rows() -> dict[str, tuple[str, str, str]]:
    found = re.findall(
        r"^\| (?!fault |---)(.*?) \| `(.*?)` \| (-|yes|no) \| (.*?) \|$", DOCS.read_text(), re.MULTILINE
    )
    return {name: (said, again, copy) for name, said, again, copy in found}


def test_the_documentation_names_each_fault_and_no_other() -> None:
    named = {*CASES, *FULL_DISKS}
    assert set(rows()) == named
    assert len(re.findall(r"^\| (?!fault |---)", DOCS.read_text(), re.MULTILINE)) == len(named)


@pytest.fixture(scope="module")
def made(
    server: Server, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Database, Path, str]]:
    """One backup with a file of two parts: no fault of a store makes anybody dump again."""
    with private_database(server, template) as database:
        database.execute(
            "CREATE TABLE big AS SELECT g, repeat(md5(g::text), 4) AS filler"
            " FROM generate_series(1, 40000) AS g"
        )
        folder = tmp_path_factory.mktemp("made")
        backup = {"compress": "none", "proof": "none", "jobs": 1}
        backup_id = back_up(make_target(database, folder, backup=backup)).details["backup_id"]
        yield database, folder / "store", str(backup_id)


@pytest.mark.parametrize("name", CASES)
def test_an_upload_meets_a_fault(
    name: str,
    made: tuple[Database, Path, str],
    bucket: Bucket,
    proxy_to: Callable[..., Proxy],
    moto: str,
    moto_bucket: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said, again, copy = rows()[name]
    case = CASES[name]
    database, store, backup_id = made
    shutil.copytree(store, tmp_path / "store")
    defaults = S3Store.__init__.__kwdefaults__
    assert defaults is not None
    for each, size in (("single_put_bytes", MIB), ("part_bytes", 5 * MIB)):
        monkeypatch.setitem(defaults, each, size)
    settings: dict[str, Any] = {"retries": 2, "timeout_s": 30.0, "upload_jobs": 2, **case.settings}
    right = {"key": bucket.s3.access_key_id, "secret": bucket.s3.secret_access_key}
    upstream, url = bucket.s3.endpoint_url, bucket.url
    if case.moto:
        lock = {"ObjectLockEnabledForBucket": True} if "object_lock" in case.settings else {}
        upstream, url = moto, f"s3://{moto_bucket(**lock)}/night"
    proxy = proxy_to(upstream)
    plain = make_target(database, tmp_path, bucket=bucket, stores=("disk", "s3"))

    def target_through(endpoint: str, where: str) -> Target:
        data = plain.config.model_dump(mode="json")
        data["stores"]["s3"] |= {"url": where, "endpoint_url": endpoint, **settings}
        config = Config.model_validate(data)
        return Target("app", config.target("app"), config)

    target = target_through(case.endpoint or proxy.url, case.url or url)
    if case.known:
        passed = SelfTest((), case.traits, datetime.now(UTC).isoformat())
        selftest.remember(target.config.stores["s3"], passed)
    for secret, value in {**right, **case.keys}.items():
        (tmp_path / secret).write_text(value)
    proxy.fault = case.fault()

    verdict, text = attempt(target)
    assert (verdict, again) in {("ok", "-"), ("transient", "yes"), ("failed", "no")}, text
    assert re.search(".*".join(map(re.escape, said.split("..."))), text, re.DOTALL), text
    if case.twice:
        assert attempt(target)[0] == "ok"

    settings["timeout_s"] = 30.0
    for secret, value in right.items():
        (tmp_path / secret).write_text(value)
    direct = target_through(upstream, url)
    assert published(direct, "disk") == {backup_id}
    there = published(direct, "s3")
    assert there == ({backup_id} if copy == "complete" else set())
    if there:
        assert verify(direct, backup_id, store="s3").status == "ok"

    proxy.fault = honouring_checksums() if case.traits.sha256 else no_fault
    healed = target_through(proxy.url, url)
    if case.known:
        selftest.remember(
            healed.config.stores["s3"], SelfTest((), case.traits, datetime.now(UTC).isoformat())
        )
    clean_up(healed)
    assert upload(healed, backup_id=backup_id).status == "ok"
    assert verify(direct, backup_id).details["stores"] == ["disk", "s3"]
    s3 = direct.store("s3")
    assert isinstance(s3, S3Store)
    assert s3._uploads("") == []
    assert not [stored.key for stored in s3.objects("") if stored.key.endswith(MARK)]


def attempt(target: Target) -> tuple[str, str]:
    """Upload, and return how it went and what can be read."""
    try:
        result = upload(target)
    except TransientError as exc:
        return "transient", str(exc)
    text = result.summary + "".join(note.reason for note in result.failed)
    return ("ok" if result.status == "ok" else "failed"), text


def published(target: Target, store: str) -> set[str]:
    return {m.backup_id for m in list_manifests(target.store(store), target.name, target.database)[0]}
