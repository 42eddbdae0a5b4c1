"""Two machines that share a store: each has a state folder of its own, and neither sees the other's runs."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from pgsteward import retention_catalog
from pgsteward.backup import freeze, identity
from pgsteward.backup.catalog import backups, verify
from pgsteward.backup.dump import back_up
from pgsteward.backup.freeze import clear_freeze
from pgsteward.backup.listing import list_manifests, read_manifest
from pgsteward.backup.manifest import MANIFEST, MARK, backup_prefix
from pgsteward.backup.receipts import Entry, read_chain, receipts_prefix
from pgsteward.backup.removing import remove_backup
from pgsteward.backup.upload import upload
from pgsteward.errors import PreconditionError
from pgsteward.janitor import clean_up
from pgsteward.progress import Progress
from pgsteward.restore.drill import drill
from pgsteward.restore.run import restore
from pgsteward.results import StepResult
from pgsteward.retention import prune
from pgsteward.storage import Store
from pgsteward.storage.folder import FolderStore
from pgsteward.storage.s3 import S3Store
from pgsteward.targets import Target
from tests.integration.backup_targets import make_target
from tests.integration.old_backups import POLICY, age, keys, newest, receipt
from tests.servers import Bucket, Database

pytestmark = pytest.mark.any_server


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def target(database: Database, tmp_path: Path) -> Target:
    database.execute('CREATE TABLE "Order Lines" AS SELECT 1 AS a')
    target = make_target(database, tmp_path, retention=POLICY)
    back_up(target)
    return target


def removes(target: Target, store: str, backup_id: str, when: str) -> Progress:
    """Remove a backup as another machine's prune does, as soon as this one tells that it is so far."""

    def progress(what: str, done: int = 0, total: int = 0) -> None:
        place = target.store(store)
        with contextlib.suppress(FileNotFoundError):
            if what.startswith(when):
                manifest = read_manifest(place, target.name, target.database, backup_id)
                remove_backup(place, target.name, manifest, {})

    return progress


WORK = {
    "restore-from-folder": (restore, "disk", "loading"),
    "drill-from-folder": (drill, "disk", "loading"),
    "drill-from-s3": (drill, "s3", "starting a server"),
    "verify-in-s3": (verify, "s3", "verifying"),
}


@pytest.mark.parametrize(("work", "store", "when"), WORK.values(), ids=WORK)
def test_a_backup_that_another_machine_prunes_is_no_damaged_one(
    database: Database, bucket: Bucket, tmp_path: Path, work: Callable[..., StepResult], store: str, when: str
) -> None:
    database.execute("CREATE TABLE t AS SELECT 1 AS a")
    target = make_target(database, tmp_path, bucket=bucket, stores=("disk", "s3"), retention=POLICY)
    back_up(target)
    upload(target)
    place = target.store(store)
    old = age(target, place, 1)
    try:
        result = work(target, old, store=store, progress=removes(target, store, old, when))
    except PreconditionError as exc:
        said = str(exc)
    else:
        assert (result.status, result.failed) == ("unknown", ())
        said = result.summary
    assert "was removed" in said or "no complete backup" in said
    assert [read_chain(each, target.name, target.database) for each in target.stores()] == [[], []]
    assert prune(target).status == "ok"


def test_clearing_a_freeze_clears_nothing_that_was_found_meanwhile(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = target.store("disk")
    old = age(target, disk, 1)
    receipt(target, disk, old, "red")

    def read_before_another(*args: Any) -> Sequence[Entry]:
        chain = read_chain(*args)
        monkeypatch.setattr(freeze, "read_chain", read_chain)
        receipt(target, disk, newest(target), "red")
        return chain

    monkeypatch.setattr(freeze, "read_chain", read_before_another)
    assert clear_freeze(target, "disk 3 had bad sectors").status == "ok"
    again = prune(target)
    assert again.status == "partial"
    assert [note.object for note in again.failed] == [newest(target)]
    assert clear_freeze(target, "and so had disk 4").status == "ok"
    assert prune(target).failed == ()


def test_what_is_found_red_while_backups_are_removed_stops_that(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = target.store("disk")
    kept, olds = newest(target), sorted(age(target, disk, days) for days in (1, 2))
    delete = FolderStore.delete

    def delete_before_another(store: FolderStore, key: str) -> None:
        delete(store, key)
        if key.endswith(MANIFEST):
            receipt(target, disk, kept, "red")

    monkeypatch.setattr(FolderStore, "delete", delete_before_another)
    result = prune(target, yes_remove=2)
    assert result.status == "partial"
    assert result.summary.endswith("pruning is frozen")
    assert ([item.object for item in result.changed], [n.object for n in result.failed]) == (olds[:1], [kept])
    assert {m.backup_id for m in list_manifests(disk, target.name, target.database)[0]} == {kept, olds[1]}
    assert not any(key.endswith(MARK) for key in keys(disk))


def test_a_floor_that_another_machine_takes_away_stops_the_removal(target: Target) -> None:
    disk = target.store("disk")
    kept, old = newest(target), age(target, disk, 1)
    disk.put_bytes(
        backup_prefix(target.name, target.database, kept) + MARK, json.dumps({"removes": True}).encode()
    )
    result = prune(target)
    assert (result.status, result.changed) == ("ok", ())
    assert result.skipped[0].object == f"{old} in store disk"
    assert kept in result.skipped[0].reason


def test_a_backup_that_goes_while_it_is_listed_is_not_a_damaged_one(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = target.store("disk")
    kept, old = newest(target), age(target, disk, 1)
    manifest = read_manifest(disk, target.name, target.database, old)

    def read_after_another(*args: Any) -> Sequence[Entry]:  # between manifests and files
        remove_backup(disk, target.name, manifest, {})
        return read_chain(*args)

    monkeypatch.setattr(retention_catalog, "read_chain", read_after_another)
    listed = backups(target)
    assert (listed.status, [each["backup_id"] for each in listed.details["backups"]]) == ("ok", [kept])


def begin_upload(store: Store, key: str) -> None:
    """Begin what a killed run would leave unfinished."""
    if isinstance(store, S3Store):
        store._client.create_multipart_upload(**store._where(key))
        return
    folder = store.local_folder(key.rpartition("/")[0])
    assert folder is not None
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f".{key.rpartition('/')[2]}.01234567.partial").write_bytes(b"x")


@pytest.mark.parametrize("store", ["disk", "s3"])
def test_a_janitor_leaves_uploads_alone_that_another_machine_has_just_begun(
    database: Database, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    target = make_target(database, tmp_path, bucket=bucket, stores=(store,))
    place = target.store(store)
    begun, orphan = (backup_prefix(target.name, target.database, f"20261130T02000{n}Z-abcdef") for n in "12")
    receipts = receipts_prefix(target.name, target.database)
    folders = type(place).folders

    def folders_before_another(self: Any, prefix: str) -> list[str]:
        found: list[str] = folders(self, prefix)
        if self.name != store or not prefix.endswith(f"{target.database}/"):
            return found
        place.put_bytes(begun + MARK, b"{}")
        for key in (begun + "dump/1.dat", orphan + "dump/1.dat", receipts + "x.json"):
            begin_upload(place, key)
        return found

    monkeypatch.setattr(type(place), "folders", folders_before_another)
    result = clean_up(target)
    assert [item.object for item in result.changed] == [f"{orphan}dump/1.dat in {store}"]


def test_two_machines_that_name_a_store_at_once_know_it_by_one_name(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has made the first backup of another database of the target, so that no lock keeps them apart."""
    disk = target.store("disk")
    for key in [stored.key for stored in disk.objects(f"{target.name}/{identity.FOLDER}/")]:
        disk.delete(key)
    here, there = (str(tmp_path / machine) for machine in ("here", "there"))
    put = FolderStore.put_new

    def put_after_another(store: FolderStore, key: str, data: bytes) -> bool:
        monkeypatch.setattr(FolderStore, "put_new", put)
        monkeypatch.setenv("XDG_STATE_HOME", there)
        identity.remember(target, disk)
        monkeypatch.setenv("XDG_STATE_HOME", here)
        return put(store, key, data)

    monkeypatch.setattr(FolderStore, "put_new", put_after_another)
    monkeypatch.setenv("XDG_STATE_HOME", here)
    identity.remember(target, disk)
    known = identity.identify(target, disk)
    monkeypatch.setenv("XDG_STATE_HOME", there)
    assert known is not None
    assert identity.identify(target, disk) == known


def test_an_upload_brings_this_machines_backup_though_another_one_made_a_newer_one(
    database: Database, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = make_target(database, tmp_path, bucket=bucket, stores=("disk", "s3"))
    ours = back_up(target, send_ahead=True).details["backup_id"]
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another machine"))
    theirs = back_up(target, send_ahead=True).details["backup_id"]
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert upload(target).status == "ok"
    assert {m.backup_id for m in list_manifests(target.store("s3"), "app", target.database)[0]} == {
        ours,
        theirs,
    }
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another machine"))
    assert [item.object for item in upload(target).changed] == []
