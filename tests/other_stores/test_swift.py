"""OpenStack Swift behind its S3 interface: what it refuses has a verdict, and all the rest works there."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from pgsteward.backup.catalog import backups, verify
from pgsteward.backup.dump import back_up
from pgsteward.backup.manifest import backup_prefix
from pgsteward.backup.run import back_up_everywhere
from pgsteward.errors import PreconditionError, StoreFailed
from pgsteward.janitor import clean_up
from pgsteward.old_versions import prune_versions
from pgsteward.restore.run import restore
from pgsteward.retention import prune
from pgsteward.storage import selftest
from pgsteward.storage.s3 import S3Store
from pgsteward.storage.selftest import SelfTest, Traits
from pgsteward.targets import Target
from tests.integration.old_backups import POLICY, age, keys
from tests.other_stores.conftest import Swift
from tests.servers import Database

pytestmark = pytest.mark.containers
MakeTarget = Callable[..., Target]
MIB = 1 << 20


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = S3Store.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "single_put_bytes", MIB)
    monkeypatch.setitem(defaults, "part_bytes", 5 * MIB)


def fill(database: Database) -> None:
    database.execute(
        "CREATE TABLE big AS SELECT g, repeat(md5(g::text), 4) AS filler FROM generate_series(1, 90000) AS g"
    )
    database.execute('CREATE TABLE "Order Lines" AS SELECT g FROM generate_series(1, 100) AS g')


def verdicts(target: Target) -> SelfTest:
    return selftest.examine(target.store("swift"), target.config.stores["swift"], "app/")


def s3_of(target: Target) -> S3Store:
    store = target.store("swift")
    assert isinstance(store, S3Store)
    return store


def test_each_capability_has_its_verdict(target_in: MakeTarget) -> None:
    target = target_in()
    test = verdicts(target)
    assert {each.name: each.verdict for each in test.capabilities} == {
        "put and read": "works",
        "clock": "works",
        "request size": "works",
        "listing": "works",
        "range": "works",
        "multipart": "works",
        "abort": "works",
        "copy": "works",
        "conditional put": "refused",
        "checksum": "ignored",
        "checksum trailers": "unknown",
        "encryption": "not asked for",
        "storage class": "not asked for",
        "tags": "not asked for",
        "versioning": "works",
        "object lock": "not asked for",
        "delete": "works",
    }
    assert test.bad == ()
    assert test.traits == Traits(max_parts=1_000)
    assert keys(target.store("swift")) == []
    assert s3_of(target)._uploads("") == []


@pytest.mark.parametrize(
    "asked, name, verdict, said",
    [
        pytest.param({"sse": "s3"}, "put and read", "refused", "correct sse, or take it out", id="sse-s3"),
        pytest.param({"sse": "kms"}, "put and read", "refused", "correct sse, or take it out", id="sse-kms"),
        pytest.param(
            {"sse": "customer", "sse_customer_key": {"env": "SWIFT_CUSTOMER_KEY"}},
            "encryption",
            "ignored",
            "use a store that encrypts, or encrypt_to",
            id="sse-c",
        ),
        pytest.param(
            {"storage_class": "STANDARD_IA"}, "storage class", "refused", "correct storage_class", id="class"
        ),
        pytest.param({"tags": {"team": "dba"}}, "tags", "refused", "take tags out", id="tags"),
        pytest.param(
            {"object_lock": "governance", "object_lock_days": 1},
            "object lock",
            "ignored",
            "take object_lock out",
            id="lock",
        ),
    ],
)
def test_what_is_asked_for_and_not_there_is_an_error_before_the_first_upload(
    target_in: MakeTarget, asked: dict[str, Any], name: str, verdict: str, said: str
) -> None:
    target = target_in(store=asked)
    [bad] = verdicts(target).bad
    assert (bad.name, bad.verdict) == (name, verdict)
    assert said in bad.fix
    streamed = target_in(store=asked, stores=("swift",), backup={"mode": "stream"})
    with pytest.raises(StoreFailed, match=f"failed its self-test: {name}: .*{said}"):
        back_up(streamed)
    assert keys(streamed.store("swift")) == []


@pytest.mark.parametrize("mode", ["directory", "stream"])
def test_a_backup_goes_there_comes_back_equal_and_is_pruned(
    target_in: MakeTarget, database: Database, mode: str
) -> None:
    fill(database)
    stores = ("swift",) if mode == "stream" else ("disk", "swift")
    backup = {"mode": mode, "compress": "none", "proof": "full"}
    target = target_in(stores=stores, backup=backup, retention=POLICY)
    made = back_up_everywhere(target)
    assert made.status == "ok", made.summary
    new = str(made.details["backup_id"])
    assert verify(target, new, store="swift").status == "ok"
    restored = restore(target, new, store="swift", into=f"{database.dbname}_back")
    try:
        assert restored.status == "ok", restored.summary
        assert restored.details["proof"]["equal"]
    finally:
        database.server.drop(f"{database.dbname}_back")

    store = target.store("swift")
    old = age(target, store, 5)
    assert {each["backup_id"] for each in backups(target).details["backups"]} == {new, old}
    pruned = prune(target)
    assert pruned.status == "ok", pruned.summary
    assert [item.object for item in pruned.changed] == [old]
    assert not [key for key in keys(store) if old in key]
    assert verify(target, new, store="swift").status == "ok"
    assert s3_of(target)._uploads("") == []


def test_older_versions_are_removed_for_good(target_in: MakeTarget, swift: Swift, database: Database) -> None:
    database.execute("CREATE TABLE t AS SELECT g FROM generate_series(1, 100) AS g")
    target = target_in(swift.make_bucket(versioned=True), retention={"keep_last": 1, "keep_min": 1})
    old, new = (str(back_up_everywhere(target).details["backup_id"]) for _ in range(2))
    pruned = prune(target)
    assert pruned.status == "ok"
    assert any("--versions" in note.reason for note in pruned.skipped if note.object == "store swift")
    store = target.store("swift")
    prefix = backup_prefix(target.name, target.database, old)
    assert any(version.is_marker for version in store.versions(prefix))
    freed = prune_versions(target)
    assert freed.status == "ok", freed.summary
    assert f"{old} in swift" in [item.object for item in freed.changed]
    assert list(store.versions(prefix)) == []
    assert verify(target, new).status == "ok"
    assert prune_versions(target).changed == ()


KILLED = """
import sys
from pgsteward.storage.s3 import S3Store
from pgsteward.config import Config
from pgsteward.targets import Target
from pgsteward.backup.run import back_up_everywhere
S3Store.__init__.__kwdefaults__.update(single_put_bytes=1000, part_bytes=5 << 20)
config = Config.model_validate_json(sys.stdin.read())
back_up_everywhere(Target("app", config.target("app"), config))
"""


@pytest.mark.parametrize("mode", ["directory", "stream"])
def test_what_a_killed_worker_left_is_aborted_and_removed(
    target_in: MakeTarget, database: Database, mode: str
) -> None:
    fill(database)
    stores = ("swift",) if mode == "stream" else ("disk", "swift")
    # so slow that the upload is still going on when it is seen
    target = target_in(
        stores=stores,
        store={"max_bandwidth": 2 * MIB},
        backup={"mode": mode, "compress": "none", "proof": "none"},
    )
    passed = verdicts(target)
    assert passed.bad == ()
    store = s3_of(target)
    with subprocess.Popen(
        [sys.executable, "-c", KILLED], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd="/"
    ) as child:
        assert child.stdin is not None
        child.stdin.write(target.config.model_dump_json().encode())
        child.stdin.close()
        deadline = time.monotonic() + 60
        while not store._uploads("app/") and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert child.poll() is None
        child.kill()
    assert store._uploads("app/")
    assert not [each for each in backups(target).details["backups"] if "swift" in each["stores"]]
    deadline = time.monotonic() + 30
    while True:
        try:
            cleaned = clean_up(target)
            break
        except PreconditionError:  # the server has not noticed yet
            assert time.monotonic() < deadline
            time.sleep(0.1)
    aborted = [item.object for item in cleaned.changed if item.action == "aborted"]
    assert {each.rpartition(" ")[2] for each in aborted} == {"swift"}
    assert store._uploads("") == []
    assert not [key for key in keys(store) if "/dump/" in key]
    quick = target_in(
        target.config.stores["swift"].bucket,
        stores=stores,
        backup={"mode": mode, "compress": "none", "proof": "none"},
    )
    made = back_up_everywhere(quick)
    assert made.status == "ok", made.summary
    assert verify(quick, str(made.details["backup_id"]), store="swift").status == "ok"


def test_parts_are_so_large_that_a_thousand_suffice(target_in: MakeTarget, swift: Swift) -> None:
    target = target_in()
    verdicts(target)
    store = s3_of(target)
    where = {"Bucket": store.bucket, "Key": "many"}
    client = swift.client()
    upload = client.create_multipart_upload(**where)["UploadId"]
    client.upload_part(**where, UploadId=upload, PartNumber=1_000, Body=b"x")
    with pytest.raises(ClientError, match="between 1 and 1000"):
        client.upload_part(**where, UploadId=upload, PartNumber=1_001, Body=b"x")
    client.abort_multipart_upload(**where, UploadId=upload)
    client.close()
    assert store.largest_object_bytes == 1_000 << 30
    assert store._part_size(16 * MIB) == 5 * MIB
    assert store._part_size(20_000 * MIB) == 20 * MIB
    untested = S3Store("untested", target.config.stores["swift"], traits=Traits())
    assert untested._part_size(20_000 * MIB) == 5 * MIB
