from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pgsteward.backup import catalog
from pgsteward.backup.catalog import backups, verify
from pgsteward.backup.dump import back_up
from pgsteward.backup.manifest import MANIFEST, backup_prefix
from pgsteward.backup.run import back_up_everywhere
from pgsteward.config import Config
from pgsteward.errors import PreconditionError, VerificationFailed
from pgsteward.restore.run import restore
from pgsteward.results import Note
from pgsteward.targets import Target
from tests.integration.backup_targets import backup_folder, make_target
from tests.servers import Bucket, Database

pytestmark = pytest.mark.any_server


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def target(database: Database, tmp_path: Path) -> Target:
    database.execute("CREATE TABLE t AS SELECT generate_series(1, 1000) AS a")
    return make_target(database, tmp_path, backup={"compress": "none"})


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _remove(path: Path) -> None:
    path.unlink()


def _add(path: Path) -> None:
    path.with_name("extra.dat").write_bytes(b"x")


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        pytest.param(_flip, "SHA-256 differs", id="one-bit-changed"),
        pytest.param(_cut, "were written", id="one-byte-cut-off"),
        pytest.param(_remove, "is missing", id="missing"),
        pytest.param(_add, "is not in the manifest", id="one-too-many"),
    ],
)
def test_damage_is_found_and_the_file_named(
    target: Target, damage: Callable[[Path], None], named: str
) -> None:
    backup_id = back_up(target).details["backup_id"]
    assert verify(target, backup_id).status == "ok"
    data = next((backup_folder(target, backup_id) / "dump").glob("[0-9]*.dat"))
    damage(data)
    result = verify(target, backup_id)
    assert result.status == "failed"
    assert named in result.failed[0].reason
    assert result.failed[0].object.startswith("dump/")
    assert result.failed[0].object.endswith(".dat in disk")


@pytest.mark.parametrize("store", ["disk", "s3"])
@pytest.mark.parametrize("damage", ["flipped", "cut", "removed", "added"])
def test_neither_store_is_believed_with_damage_in_it(
    database: Database, bucket: Bucket, tmp_path: Path, store: str, damage: str
) -> None:
    database.execute("CREATE TABLE t AS SELECT generate_series(1, 1000) AS a")
    target = make_target(
        database, tmp_path, bucket=bucket, stores=("disk", "s3"), backup={"compress": "none"}
    )
    backup_id = back_up_everywhere(target).details["backup_id"]
    data = next((backup_folder(target, backup_id) / "dump").glob("[0-9]*.dat"))
    place, prefix = target.store(store), backup_prefix("app", target.database, backup_id)
    named = f"dump/{data.name}" if damage != "added" else "dump/extra.dat"
    good = data.read_bytes()
    if damage == "removed":
        place.delete(prefix + named)
    else:
        changed = {"flipped": good[:99] + bytes([good[99] ^ 1]) + good[100:], "cut": good[:-1], "added": b"x"}
        place.put_bytes(prefix + named, changed[damage])
    result = verify(target, backup_id)
    assert result.status == "failed"
    assert [note.object for note in result.failed] == [f"{named} in {store}"]
    assert result.details["stores"] == [{"disk": "s3", "s3": "disk"}[store]]
    assert verify(target, backup_id, store=store).status == "failed"
    with pytest.raises(VerificationFailed, match=f"{named} of backup .* in store '{store}'"):
        restore(target, backup_id, store=store)


def test_a_file_that_pg_restore_would_take_for_a_checked_one_is_refused(
    database: Database, tmp_path: Path
) -> None:
    """Beside ``4711.dat.gz`` an uncompressed ``4711.dat`` is what pg_restore reads."""
    database.execute("CREATE TABLE t AS SELECT generate_series(1, 10) AS a")
    target = make_target(database, tmp_path, backup={"compress": "gzip:1", "proof": "counts"})
    folder = backup_folder(target, back_up(target).details["backup_id"]) / "dump"
    stored = next(folder.glob("[0-9]*.dat.gz"))
    forged = b"".join(b"%d\n" % number for number in range(101, 111)) + b"\\.\n\n\n"
    stored.with_suffix("").write_bytes(forged)
    with pytest.raises(VerificationFailed, match="is not in the manifest"):
        restore(target)


def test_a_backup_pruned_while_it_is_verified_is_not_damaged(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup_id = back_up(target).details["backup_id"]
    real = catalog.problems_of

    def prune_first(*args: Any) -> list[Note]:
        shutil.rmtree(backup_folder(target, backup_id))
        return real(*args)

    monkeypatch.setattr(catalog, "problems_of", prune_first)
    with pytest.raises(PreconditionError, match="no complete backup"):
        verify(target, backup_id)


def test_a_store_without_the_backup_is_not_said_to_be_verified(
    database: Database, bucket: Bucket, tmp_path: Path
) -> None:
    target = make_target(database, tmp_path, bucket=bucket, stores=("disk", "s3"))
    result = verify(target, back_up(target).details["backup_id"])
    assert result.details["stores"] == ["disk"]
    assert [note.object for note in result.skipped] == ["store s3"]


def test_a_store_that_is_down_keeps_no_other_from_being_verified(
    database: Database, bucket: Bucket, tmp_path: Path
) -> None:
    target = make_target(database, tmp_path, bucket=bucket, stores=("s3", "disk"))
    data = target.config.model_dump(mode="json")
    data["stores"]["s3"] |= {"endpoint_url": "http://127.0.0.1:9", "retries": 0}
    backup_id = back_up(make_target(database, tmp_path)).details["backup_id"]
    config = Config.model_validate(data)
    result = verify(Target("app", config.target("app"), config), "latest")
    assert (result.status, result.details["backup_id"]) == ("partial", backup_id)
    assert result.details["stores"] == ["disk"]
    assert [note.object for note in result.unknown] == ["store s3"]


def test_every_file_of_a_backup_is_read_not_only_its_tables(target: Target) -> None:
    backup_id = back_up(target).details["backup_id"]
    _flip(backup_folder(target, backup_id) / "RESTORE.md")
    assert verify(target, "latest").failed[0].object == "RESTORE.md in disk"


def test_a_damaged_manifest_is_unknown_and_never_a_backup(target: Target) -> None:
    backup_id = back_up(target).details["backup_id"]
    manifest = backup_folder(target, backup_id) / MANIFEST
    manifest.write_bytes(manifest.read_bytes()[:100])
    listed = backups(target)
    assert listed.status == "partial"
    assert listed.details["backups"] == []
    assert backup_id in listed.unknown[0].object
    assert verify(target, backup_id).status == "failed"


def test_what_would_be_the_newest_but_for_a_damaged_manifest_is_named(target: Target) -> None:
    first = back_up(target).details["backup_id"]
    second = f"{first[:-6]}ffffff"
    target.store("disk").put_bytes(backup_prefix(target.name, target.database, second) + MANIFEST, b"{")
    verified = verify(target, "latest")
    assert (verified.status, verified.details["backup_id"]) == ("partial", first)
    assert [note.object for note in verified.findings] == [second]
    (backup_folder(target, first) / MANIFEST).write_bytes(b"{}")
    with pytest.raises(PreconditionError, match=f"no complete backup.*{second}.*is damaged"):
        verify(target, "latest")


def test_backups_are_listed_newest_first_with_what_they_prove(target: Target) -> None:
    first = back_up(target).details["backup_id"]
    time.sleep(1.0)
    second = back_up(target).details["backup_id"]
    listed = backups(target)
    assert listed.status == "ok"
    assert [each["backup_id"] for each in listed.details["backups"]] == [second, first]
    newest = listed.details["backups"][0]
    assert newest["state"] == "complete"
    assert newest["proof"]["level"] == "full"
    assert newest["proof"]["rows"] == 1000
    assert newest["bytes"] > 0


def test_a_backup_without_a_manifest_is_not_listed(target: Target) -> None:
    backup_id = back_up(target).details["backup_id"]
    (backup_folder(target, backup_id) / MANIFEST).unlink()
    listed = backups(target)
    assert listed.details["backups"] == []
    assert listed.only_findings, "no backup at all is nothing to be calm about"
    with pytest.raises(PreconditionError, match="no complete backup"):
        verify(target, backup_id)


def test_what_is_no_id_is_refused(target: Target) -> None:
    with pytest.raises(PreconditionError, match="no backup id"):
        verify(target, "../other")
