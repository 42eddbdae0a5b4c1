"""Pruning of real stores: by exact key, each store by its own catalog, and never the wrong thing."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pgsteward.backup.catalog import backups, verify
from pgsteward.backup.dump import back_up
from pgsteward.backup.manifest import MANIFEST, MARK, Manifest, backup_prefix
from pgsteward.backup.receipts import Compared, Receipt, write_receipt
from pgsteward.backup.upload import upload
from pgsteward.errors import PreconditionError, StoreFailed
from pgsteward.janitor import clean_up
from pgsteward.postgres import operation_lock
from pgsteward.retention import prune, remove_backup
from pgsteward.sql import load
from pgsteward.storage import Store
from pgsteward.storage.folder import FolderStore
from pgsteward.targets import Target
from tests.integration.backup_targets import make_target
from tests.servers import Bucket, Database

NOW = datetime.now(UTC)
POLICY = {"keep_last": 1, "keep_min": 1}


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


def newest(target: Target) -> str:
    return str(backups(target).details["backups"][0]["backup_id"])


def age(target: Target, store: Store, days: int, target_name: str = "app") -> str:
    """Copy the newest backup within a store as one that is `days` old."""
    source = backup_prefix(target.name, target.database, newest(target))
    manifest = Manifest.from_bytes(store.get_bytes(source + MANIFEST), "it")
    then = NOW - timedelta(days=days)
    backup_id = f"{then:%Y%m%dT%H%M%SZ}-00{days % 10_000:04}"
    prefix = backup_prefix(target_name, target.database, backup_id)
    for file in manifest.files:
        store.put_bytes(prefix + file.path, store.get_bytes(source + file.path))
    old = manifest.model_copy(update={"backup_id": backup_id, "started_at": then, "target": target_name})
    store.put_bytes(prefix + MANIFEST, old.to_bytes())
    return backup_id


def keys(store: Store) -> list[str]:
    return [stored.key for stored in store.objects("")]


def test_what_no_rule_keeps_goes_from_every_store_and_the_rest_stays_whole(target: Target) -> None:
    kept = newest(target)
    old = {store.name: age(target, store, days) for days, store in enumerate(target.stores(), 1)}
    planned = prune(target, dry_run=True)
    assert {(item.object, item.action, item.facts["store"]) for item in planned.changed} == {
        (backup_id, "would remove", store) for store, backup_id in old.items()
    }
    result = prune(target)
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
    decisions = prune(target, dry_run=True).details["decisions"]
    json.dumps(decisions)
    assert {"backup_id": old, "store": "disk", "keep": False, "reasons": ["no rule keeps it"]} in decisions
    assert [decision["store"] for decision in decisions] == ["disk", "disk", "s3"]


def receipt(target: Target, store: Store, backup_id: str, verdict: str = "green") -> str:
    return write_receipt(
        store,
        Receipt.model_validate(
            {
                "previous_sha256": None,
                "written_at": NOW,
                "backup_id": backup_id,
                "target": target.name,
                "database": target.database,
                "store": store.name,
                "what": "restore",
                "into": "x",
                "server_version": "17.1",
                "pgsteward_version": "0",
                "proof": Compared(level="full", relations=1, rows=1, equal=verdict == "green"),
                "verdict": verdict,
            }
        ),
    )


def test_the_newest_proven_backup_of_each_store_stays(target: Target) -> None:
    disk, s3 = target.stores()
    proven, older = age(target, disk, 5), age(target, disk, 9)
    on_s3 = age(target, s3, 5)
    receipt(target, disk, proven)
    receipt(target, disk, older)
    gone = {(item.object, item.facts["store"]) for item in prune(target).changed}
    assert gone == {(older, "disk"), (on_s3, "s3")}


def test_a_red_receipt_takes_the_proof_back(target: Target) -> None:
    disk = target.store("disk")
    old = age(target, disk, 5)
    receipt(target, disk, old)
    assert not prune(target, dry_run=True).changed
    receipt(target, disk, old, "red")
    assert [item.object for item in prune(target, dry_run=True).changed] == [old]


def test_a_receipt_that_can_not_be_read_protects_its_backup(target: Target) -> None:
    disk = target.store("disk")
    old = age(target, disk, 5)
    disk.put_bytes(receipt(target, disk, old, "red"), b"{")
    result = prune(target)
    assert result.changed == ()
    assert result.status == "partial"
    assert [note.object for note in result.unknown] == [old]


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
    decided = [each["backup_id"] for each in result.details["decisions"] if each["store"] == "disk"]
    assert decided == [good]


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


class Killed(BaseException):
    """The process dies here."""


@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_a_removal_that_dies_leaves_a_whole_backup_or_what_the_janitor_clears(
    target: Target, after: int
) -> None:
    store = target.store("disk")
    kept, old = newest(target), age(target, store, 5)
    manifest = Manifest.from_bytes(
        store.get_bytes(backup_prefix(target.name, target.database, old) + MANIFEST), "it"
    )
    deleted = 0

    class Dying:
        """The store, until the process dies."""

        name = store.name

        def put_bytes(self, key: str, data: bytes, *, passing: bool = False) -> None:
            store.put_bytes(key, data, passing=passing)

        def delete(self, key: str) -> None:
            nonlocal deleted
            if deleted == after:
                raise Killed
            deleted += 1
            store.delete(key)

    with operation_lock(target.login("backup"), "backup") as session:
        owner = session.row(load("whose_mark"))
    with pytest.raises(Killed):
        remove_backup(Dying(), target.name, manifest, owner)  # type: ignore[arg-type]
    listed = {entry["backup_id"] for entry in backups(target).details["backups"]}
    assert listed == ({kept, old} if after == 0 else {kept})
    clean_up(target)
    left = [key for key in keys(store) if old in key]
    assert not any(key.endswith(MARK) for key in left)
    if after == 0:
        assert verify(target, old, store="disk").status == "ok"
    else:
        assert left == []


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
