"""Pruning of real stores: by exact key, each store by its own catalog, and never the wrong thing."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pgsteward.backup.catalog import backups, verify
from pgsteward.backup.dump import back_up
from pgsteward.backup.manifest import MANIFEST, Manifest, backup_prefix
from pgsteward.backup.removing import remove_backup
from pgsteward.backup.upload import upload
from pgsteward.errors import (
    ConfigError,
    PreconditionError,
    StoreFailed,
)
from pgsteward.postgres_lock import operation_lock
from pgsteward.retention import prune
from pgsteward.storage.folder import FolderStore
from pgsteward.targets import Target
from tests.integration.backup_targets import make_target
from tests.integration.old_backups import NOW, POLICY, age, keys, newest, of_cluster, receipt
from tests.servers import Bucket, Database

pytestmark = pytest.mark.any_server


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def target(database: Database, bucket: Bucket, tmp_path: Path) -> Target:
    database.execute('CREATE TABLE "Order Lines" AS SELECT 1 AS a')
    target = make_target(database, tmp_path, bucket=bucket, stores=("disk", "s3"), retention=POLICY)
    back_up(target)
    upload(target)
    return target


def test_what_no_rule_keeps_goes_from_every_store_and_the_rest_stays_whole(target: Target) -> None:
    kept = newest(target)
    old = {store.name: age(target, store, days) for days, store in enumerate(target.stores(), 1)}
    now = datetime.now(UTC)
    planned = prune(target, dry_run=True, now=now)
    assert {(item.object, item.action, item.facts["store"]) for item in planned.changed} == {
        (backup_id, "would remove", store) for store, backup_id in old.items()
    }
    result = prune(target, now=now)
    assert result.status == "ok"
    assert result.details["decisions"] == planned.details["decisions"]
    assert [(i.object, i.facts) for i in result.changed] == [(i.object, i.facts) for i in planned.changed]
    assert all(item.action == "removed" for item in result.changed)
    for store in target.stores():
        assert all(kept in key for key in keys(store))
        assert verify(target, kept, store=store.name).status == "ok"
    assert prune(target).changed == ()


def test_a_dry_run_touches_nothing(target: Target) -> None:
    for store in target.stores():
        age(target, store, 3)
    before = [keys(store) for store in target.stores()]
    assert len(prune(target, dry_run=True).changed) == 2
    assert [keys(store) for store in target.stores()] == before


def test_decisions_name_store_and_reasons(target: Target) -> None:
    old = age(target, target.store("disk"), 3)
    now = datetime.now(UTC)
    decisions = prune(target, dry_run=True, now=now).details["decisions"]
    json.dumps(decisions)
    told = {key: decisions[1][key] for key in ("backup_id", "store", "keep", "action", "proven", "reasons")}
    assert told == {
        "backup_id": old,
        "store": "disk",
        "keep": False,
        "action": "remove",
        "proven": False,
        "reasons": ["no rule keeps it"],
    }
    days_old = now - (NOW - timedelta(days=3))
    assert decisions[1]["age_seconds"] == pytest.approx(days_old.total_seconds(), abs=2)
    assert [decision["store"] for decision in decisions] == ["disk", "disk", "s3"]


def test_the_newest_proven_backup_of_each_store_stays(target: Target) -> None:
    disk, s3 = target.stores()
    proven, older = age(target, disk, 5), age(target, disk, 9)
    on_s3 = age(target, s3, 5)
    receipt(target, disk, proven)
    receipt(target, disk, older)
    gone = {(item.object, item.facts["store"]) for item in prune(target).changed}
    assert gone == {(older, "disk"), (on_s3, "s3")}


def test_more_than_half_of_a_catalog_goes_only_when_a_person_names_the_number(target: Target) -> None:
    disk, s3 = target.stores()
    on_disk = [age(target, disk, days) for days in (3, 4)]
    on_s3 = age(target, s3, 5)
    before = [keys(store) for store in target.stores()]
    for dry_run in (True, False):
        stopped = prune(target, dry_run=dry_run)
        assert (stopped.status, stopped.changed, stopped.only_findings) == ("partial", (), False)
        (found,) = stopped.failed
        assert found.object == "store disk"
        assert "2 of 3 backups would go" in found.reason
        assert "--yes-remove 3" in found.reason
        doomed = {d["backup_id"] for d in stopped.details["decisions"] if d["action"] == "remove"}
        assert doomed == {*on_disk, on_s3}
    for wrong in (1, 2, 4):
        with pytest.raises(ConfigError, match="3 backups would go"):
            prune(target, yes_remove=wrong)
    assert [keys(store) for store in target.stores()] == before
    result = prune(target, yes_remove=3)
    assert result.status == "ok"
    oldest_first = [*reversed(on_disk), on_s3]  # what is cut short has taken the least of it
    assert [item.object for item in result.changed] == oldest_first
    with pytest.raises(ConfigError, match="0 backups would go"):
        prune(target, yes_remove=3)


def test_exactly_half_of_a_catalog_may_go(target: Target) -> None:
    old = age(target, target.store("disk"), 3)
    assert [item.object for item in prune(target).changed] == [old]


def test_a_store_that_lacks_the_newest_backup_is_not_pruned(target: Target) -> None:
    disk, s3 = target.stores()
    old = [age(target, s3, days) for days in (3, 4)]
    gone = Manifest.from_bytes(
        s3.get_bytes(backup_prefix(target.name, target.database, newest(target)) + MANIFEST), "it"
    )
    remove_backup(s3, target.name, gone, {})
    older = age(target, disk, 5)
    result = prune(target)
    assert [(item.object, item.facts["store"]) for item in result.changed] == [(older, "disk")]
    (note,) = result.skipped
    assert note.object == "store s3"
    assert gone.backup_id in note.reason
    assert all(any(backup_id in key for key in keys(s3)) for backup_id in old)


def test_a_store_may_have_a_policy_of_its_own(database: Database, bucket: Bucket, tmp_path: Path) -> None:
    database.execute('CREATE TABLE "Order Lines" AS SELECT 1 AS a')
    longer = {"s3": {"keep_within": "30d", "keep_min": 1}}
    stores = ("disk", "s3")
    target = make_target(
        database, tmp_path, bucket=bucket, stores=stores, retention=POLICY, store_retention=longer
    )
    back_up(target)
    upload(target)
    disk, s3 = target.stores()
    on_disk, young, old = age(target, disk, 5), age(target, s3, 6), age(target, s3, 40)
    result = prune(target)
    assert {(item.object, item.facts["store"]) for item in result.changed} == {(on_disk, "disk"), (old, "s3")}
    (why,) = (d["reasons"] for d in result.details["decisions"] if d["backup_id"] == young)
    assert why == ["within 30d of the newest"]


def test_a_receipt_that_can_not_be_read_protects_its_backup(target: Target) -> None:
    disk = target.store("disk")
    old = age(target, disk, 5)
    disk.put_bytes(receipt(target, disk, old, "red"), b"{")
    result = prune(target)
    assert result.changed == ()
    assert result.status == "partial"
    assert [note.object for note in result.unknown] == [old]
    assert "it may be a red one. Pruning is frozen" in result.failed[0].reason


def test_a_damaged_backup_is_unknown_and_left_alone(target: Target) -> None:
    disk = target.store("disk")
    damaged = age(target, disk, 5)
    prefix = backup_prefix(target.name, target.database, damaged)
    disk.put_bytes(prefix + MANIFEST, b"{}")
    before = keys(disk)
    result = prune(target)
    assert result.status == "partial"
    assert [note.object for note in result.unknown] == [damaged]
    assert keys(disk) == before


@pytest.mark.parametrize("how", ["missing", "cut off"])
def test_a_backup_without_all_its_files_pushes_no_good_one_out(target: Target, how: str) -> None:
    disk = target.store("disk")
    broken = newest(target)
    good = age(target, disk, 5)
    toc = backup_prefix(target.name, target.database, broken) + "dump/toc.dat"
    disk.delete(toc) if how == "missing" else disk.put_bytes(toc, disk.get_bytes(toc)[:-1])
    before = keys(disk)
    result = prune(target)
    assert result.status == "partial"
    assert [note.object for note in result.unknown] == [broken]
    assert "dump/toc.dat" in result.unknown[0].reason
    assert keys(disk) == before
    decided = {d["backup_id"]: d for d in result.details["decisions"] if d["store"] == "disk"}
    assert set(decided) == {good, broken}
    assert "counts for no rule" in decided[broken]["reasons"][0]
    assert decided[good]["reasons"][0] == "last 1 of 1"


def test_a_receipt_that_can_not_be_read_is_no_proof(target: Target) -> None:
    """It may be the red one that took the proof back: an older proven backup stays beside it."""
    disk = target.store("disk")
    doubtful, proven = age(target, disk, 5), age(target, disk, 9)
    receipt(target, disk, proven)
    receipt(target, disk, doubtful)
    disk.put_bytes(receipt(target, disk, doubtful, "red"), b"{")
    states = {each["backup_id"]: each["state"] for each in backups(target).details["backups"]}
    assert (states[doubtful], states[proven]) == ("complete", "proven")
    assert prune(target).changed == ()


def test_another_targets_backups_of_the_same_database_are_not_ours(target: Target) -> None:
    disk = target.store("disk")
    neighbours = [age(target, disk, days, name) for days, name in ((4, "app-eu"), (5, "ap"), (6, "app2"))]
    ours = age(target, disk, 7)
    assert [item.object for item in prune(target).changed] == [ours]
    assert all(any(neighbour in key for key in keys(disk)) for neighbour in neighbours)


def test_files_that_the_manifest_does_not_name_are_not_deleted(target: Target) -> None:
    disk = target.store("disk")
    old = age(target, disk, 5)
    foreign = backup_prefix(target.name, target.database, old) + "notes of somebody.txt"
    disk.put_bytes(foreign, b"x")
    prune(target)
    assert [key for key in keys(disk) if old in key] == [foreign]


def test_nothing_is_pruned_before_a_backup_has_succeeded(database: Database, tmp_path: Path) -> None:
    target = make_target(database, tmp_path, retention=POLICY)
    with pytest.raises(PreconditionError, match="holds a complete backup"):
        prune(target)


def test_a_store_without_backups_is_skipped_by_name(target: Target) -> None:
    s3 = target.store("s3")
    for key in keys(s3):
        s3.delete(key)
    result = prune(target)
    assert result.status == "ok"
    assert [note.object for note in result.skipped] == ["store s3"]


def test_a_store_that_is_down_is_unknown_and_the_others_are_pruned(target: Target, tmp_path: Path) -> None:
    old = age(target, target.store("disk"), 5)
    (tmp_path / "secret").write_text("NotTheSecretNotTheSecretNotTheSecret0000")
    result = prune(target)
    assert [item.object for item in result.changed] == [old]
    assert [note.object for note in result.unknown] == ["store s3"]
    assert result.status == "partial"


def test_two_runs_at_once_are_refused(target: Target) -> None:
    with operation_lock(target.login("backup"), "backup"):
        with pytest.raises(PreconditionError, match="another backup run"):
            prune(target)


def test_a_store_that_refuses_to_delete_is_failed_and_named(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = age(target, target.store("disk"), 5)

    def refuse(self: FolderStore, key: str) -> None:
        raise StoreFailed("read-only")

    monkeypatch.setattr(FolderStore, "delete", refuse)
    result = prune(target)
    assert result.status == "partial"
    assert result.failed[0].object == f"{old} in store disk"


def test_two_clusters_that_share_a_name_never_prune_each_others_backups(target: Target) -> None:
    disk, s3 = target.stores()
    theirs, ours = age(target, disk, 5), age(target, s3, 6)
    of_cluster(target, disk, theirs, "7301234567890123456")
    before = [keys(store) for store in target.stores()]
    for dry_run in (True, False):
        with pytest.raises(PreconditionError, match="1 backup of cluster 7301234567890123456") as refused:
            prune(target, dry_run=dry_run, yes_remove=2)
        for told in ("store disk", 'previous_clusters = ["7301234567890123456"]', "[targets.app]"):
            assert told in str(refused.value)
    assert [keys(store) for store in target.stores()] == before

    settings = target.settings.model_copy(update={"previous_clusters": ("7301234567890123456",)})
    upgraded = replace(target, settings=settings)
    assert {item.object for item in prune(upgraded).changed} == {theirs, ours}


def test_a_backup_of_nobody_knows_which_cluster_is_left_alone(target: Target) -> None:
    disk = target.store("disk")
    old = age(target, disk, 5)
    of_cluster(target, disk, old, None)
    result = prune(target)
    assert (result.status, result.changed) == ("partial", ())
    assert [note.object for note in result.unknown] == [old]
