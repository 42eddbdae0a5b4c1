"""Object Lock and versions: what retention may not remove yet, and what it could only hide."""

from __future__ import annotations

from collections.abc import Callable

import boto3
import pytest

from pgsteward.backup.catalog import backups, verify
from pgsteward.backup.freeze import clear_freeze, leave_damage
from pgsteward.backup.manifest import MANIFEST, MARK, backup_prefix
from pgsteward.backup.receipts import receipts_prefix
from pgsteward.backup.run import back_up_everywhere
from pgsteward.errors import ObjectArchived, StoreUnavailable
from pgsteward.old_versions import prune_versions
from pgsteward.retention import prune
from pgsteward.storage import ObjectVersion, Store
from pgsteward.storage.s3 import S3Store
from pgsteward.targets import Target
from tests.servers import Database

MakeTarget = Callable[..., Target]
KEEP_ONE = {"keep_last": 1, "keep_min": 1}


def two_backups(target: Target, database: Database) -> tuple[str, str]:
    database.execute("CREATE TABLE IF NOT EXISTS t AS SELECT g FROM generate_series(1, 100) AS g")
    made = []
    for _ in range(2):
        result = back_up_everywhere(target)
        assert result.status == "ok", result.summary
        made.append(str(result.details["backup_id"]))
    return made[0], made[1]


def versions_of(target: Target, backup_id: str) -> list[ObjectVersion]:
    prefix = backup_prefix(target.name, target.database, backup_id)
    return list(target.store("s3").versions(prefix))


def test_a_locked_backup_is_retained_and_no_error(
    moto_target: MakeTarget, moto_bucket: Callable[..., str], database: Database
) -> None:
    lock = {"object_lock": "governance", "object_lock_days": 3}
    target = moto_target(moto_bucket(ObjectLockEnabledForBucket=True), store=lock, retention=KEEP_ONE)
    old, new = two_backups(target, database)
    for result in (prune(target, dry_run=True), prune(target)):
        assert result.status == "ok"
        [note] = [note for note in result.skipped if old in note.object]
        assert note.object == f"{old} in store s3"
        assert note.reason.startswith("retained until 20")
        assert [item.facts["store"] for item in result.changed] == ["disk"]
    stores = {each["backup_id"]: each["stores"] for each in backups(target).details["backups"]}
    assert stores == {old: ["s3"], new: ["disk", "s3"]}
    assert verify(target, old, store="s3").status == "ok"

    store = target.store("s3")
    for stored in list(store.objects(backup_prefix(target.name, target.database, old))):
        store.delete(stored.key)  # by somebody, who sees that they are gone
    before = {v for v in versions_of(target, old) if not v.is_marker and not v.key.endswith(MARK)}
    freed = prune_versions(target)
    assert (freed.status, freed.unknown) == ("ok", ())
    assert any(n.object == f"{old} in s3" and n.reason.startswith("retained until") for n in freed.skipped)
    left = set(versions_of(target, old))
    assert {(v.key, v.version_id) for v in left} >= {(v.key, v.version_id) for v in before}
    assert old not in [
        each["backup_id"] for each in backups(target).details["backups"] if "s3" in each["stores"]
    ]


def test_what_a_lock_retains_is_no_share_of_the_catalog_that_would_go(
    moto_target: MakeTarget, moto_bucket: Callable[..., str], database: Database
) -> None:
    lock = {"object_lock": "governance", "object_lock_days": 3}
    target = moto_target(moto_bucket(ObjectLockEnabledForBucket=True), store=lock, retention=KEEP_ONE)
    made = [*two_backups(target, database), *two_backups(target, database)]
    prune(target, yes_remove=3)  # from the disk
    for dry_run in (True, False):
        result = prune(target, dry_run=dry_run)
        assert (result.status, result.changed, result.failed) == ("ok", (), ())
        assert [note.object for note in result.skipped] == [f"{old} in store s3" for old in made[:3]]
    assert len(backups(target).details["backups"]) == 4


def test_older_versions_of_removed_backups_are_deleted_for_good(
    moto_target: MakeTarget,
    moto_bucket: Callable[..., str],
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target = moto_target(moto_bucket(versioned=True), retention=KEEP_ONE)
    old, new = two_backups(target, database)
    store = target.store("s3")
    store.put_bytes(backup_prefix(target.name, target.database, old) + "notes.txt", b"somebody's")
    pruned = prune(target)
    assert pruned.status == "ok"
    [explained] = [note for note in pruned.skipped if note.object == "store s3"]
    assert "hidden by delete markers" in explained.reason
    assert "--versions" in explained.reason
    hidden = versions_of(target, old)
    assert any(version.is_marker for version in hidden)

    leave_damage(target.store("disk"), target, new, "verify", ["dump/toc.dat has other bytes"])
    for dry_run in (True, False):
        frozen = prune_versions(target, dry_run=dry_run)
        assert (frozen.status, frozen.changed) == ("partial", ())
        assert "pgsteward prune app --clear-freeze" in frozen.failed[0].reason
    clear_freeze(target, "tried out")
    assert versions_of(target, old) == hidden

    dry = prune_versions(target, dry_run=True)
    assert versions_of(target, old) == hidden
    assert dry.details["bytes"] > 0

    real = S3Store.delete_version
    calls: list[ObjectVersion] = []

    def breaks_off(self: S3Store, version: ObjectVersion) -> object:
        calls.append(version)
        if len(calls) == 4:
            raise StoreUnavailable("gone")
        return real(self, version)

    monkeypatch.setattr(S3Store, "delete_version", breaks_off)
    assert prune_versions(target).status == "partial"
    monkeypatch.setattr(S3Store, "delete_version", real)
    assert old not in [each["backup_id"] for each in backups(target).details["backups"]]

    done = prune_versions(target)
    assert done.status == "ok"
    assert [item.object for item in done.changed] == [f"{old} in s3"] or len(done.changed) == 2
    assert {v.key.rpartition("/")[2] for v in versions_of(target, old)} == {"notes.txt"}
    assert [note.reason for note in done.skipped] == ["left alone, as no manifest names it: notes.txt"]
    kept = versions_of(target, new)
    assert all(version.is_latest and not version.is_marker for version in kept)
    assert verify(target, new).status == "ok"
    again = prune_versions(target)
    assert again.changed == ()


def test_a_store_that_keeps_no_versions_is_a_reason_to_skip(
    moto_target: MakeTarget, moto_bucket: Callable[..., str]
) -> None:
    assert prune_versions(moto_target(moto_bucket())).status == "skipped"


def test_versions_of_others_are_never_touched(
    moto_target: MakeTarget, moto_bucket: Callable[..., str], database: Database
) -> None:
    target = moto_target(moto_bucket(versioned=True))
    store: Store = target.store("s3")
    others = [
        f"app/{target.database}-eu/20200101T000000Z-0123ab/manifest.json",
        f"app-eu/{target.database}/20200101T000000Z-0123ab/manifest.json",
        f"app/{target.database}/receipts/x.json",
        f"app/{target.database}/20200101T000000Z-0123ab/dump/toc.dat",
    ]
    for key in others:
        store.put_bytes(key, b"x")
        store.delete(key)
    assert prune_versions(target).changed == ()
    assert len(list(store.versions(""))) == 2 * len(others)


def test_a_backup_in_an_archive_hides_no_other_one(
    moto_target: MakeTarget, moto: str, moto_bucket: Callable[..., str], database: Database
) -> None:
    """A lifecycle rule moves what is old, its manifest too."""
    bucket = moto_bucket()
    target = moto_target(bucket, retention=KEEP_ONE)
    old, new = two_backups(target, database)
    key = f"night/{backup_prefix(target.name, target.database, old)}{MANIFEST}"
    client = boto3.client(
        "s3", endpoint_url=moto, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
    )
    client.copy_object(
        Bucket=bucket, Key=key, CopySource={"Bucket": bucket, "Key": key}, StorageClass="GLACIER"
    )
    client.close()
    listed = backups(target)
    assert {each["backup_id"]: each["stores"] for each in listed.details["backups"]} == {
        old: ["disk"],
        new: ["disk", "s3"],
    }
    for result in (listed, prune(target)):
        [note] = result.unknown
        assert note.object.startswith(old)
        assert "moved to an archive; bring it back there" in note.reason
    assert verify(target, "latest", store="s3").details["backup_id"] == new
    with pytest.raises(ObjectArchived):
        verify(target, old, store="s3")
    assert not list(target.store("s3").objects(receipts_prefix(target.name, target.database)))
