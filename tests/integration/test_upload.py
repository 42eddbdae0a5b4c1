from __future__ import annotations

import hashlib
import importlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pgsteward.backup import home, owed, proven_ahead, readme
from pgsteward.backup.anomalies import AT_LEAST
from pgsteward.backup.catalog import backups, verify
from pgsteward.backup.dump import back_up
from pgsteward.backup.manifest import MANIFEST, MARK, backup_prefix
from pgsteward.backup.removing import remove_backup
from pgsteward.backup.run import back_up_everywhere
from pgsteward.backup.upload import upload
from pgsteward.errors import DatabaseUnavailable, PreconditionError
from pgsteward.storage import StoredObject
from pgsteward.storage.s3 import S3Store
from pgsteward.targets import Target
from tests.integration.backup_targets import backup_folder, make_target, sealed, stored_manifest
from tests.servers import Bucket, Database

pytestmark = pytest.mark.any_server

copying = importlib.import_module("pgsteward.backup.copying")


@pytest.fixture
def target(database: Database, bucket: Bucket, tmp_path: Path) -> Target:
    database.execute("""CREATE TABLE "Order ""Lines" (a int, b text)""")
    database.execute("""INSERT INTO "Order ""Lines" SELECT g, md5(g::text) FROM generate_series(1, 900) g""")
    return make_target(database, tmp_path, bucket=bucket, stores=("disk", "s3"), backup={"compress": "none"})


def copy_of(bucket: Bucket, target: Target, backup_id: str) -> Path:
    return bucket.folder / "app" / target.database / backup_id


def test_a_backup_is_copied_read_back_and_complete_in_both_stores(target: Target, bucket: Bucket) -> None:
    result = back_up_everywhere(target)
    assert result.status == "ok"
    assert result.details["stores"] == ["disk", "s3"]
    backup_id = result.details["backup_id"]
    copy, original = copy_of(bucket, target, backup_id), backup_folder(target, backup_id)
    files = {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()}
    assert files == {path.relative_to(original).as_posix() for path in original.rglob("*") if path.is_file()}
    assert MARK not in files
    assert (copy / MANIFEST).read_bytes() == (original / MANIFEST).read_bytes()
    listed = backups(target).details["backups"]
    assert [(each["backup_id"], each["stores"]) for each in listed] == [(backup_id, ["disk", "s3"])]
    assert verify(target, "latest").status == "ok"


@pytest.mark.parametrize("sha256", [False, True], ids=["read-back", "checksums"])
def test_what_went_up_beside_the_dump_is_neither_listed_nor_sent_again(
    target: Target, sha256: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some stores hash all that they list, which costs as much as reading it."""
    back_up_everywhere(target)  # tries the store out, which lists
    listed: list[str] = []
    real = S3Store.objects

    def objects(store: S3Store, prefix: str) -> Iterator[StoredObject]:
        listed.append(prefix)
        return real(store, prefix)

    asked: list[str] = []

    def confirms(store: S3Store, key: str, size_bytes: int, checksum: str, local: Path | None = None) -> bool:
        asked.append(key)
        data = store.get_bytes(key)
        return (len(data), hashlib.sha256(data).hexdigest()) == (size_bytes, checksum)

    text = readme.text

    def once_something_is_there(*args: Any, **more: Any) -> str:
        deadline = time.monotonic() + 60
        while not proven_ahead._sent and time.monotonic() < deadline:
            time.sleep(0.01)
        return text(*args, **more)

    monkeypatch.setattr(readme, "text", once_something_is_there)
    monkeypatch.setattr(S3Store, "objects", objects)
    if sha256:  # a store that tells checksums, as rclone does not
        monkeypatch.setattr(S3Store, "trusts_checksums", True)
        monkeypatch.setattr(S3Store, "confirms", confirms)
    result = back_up_everywhere(target)
    assert result.status == "ok"
    backup_id = result.details["backup_id"]
    assert not [prefix for prefix in listed if backup_id in prefix]
    ahead, rest = result.details["sent_ahead"]["s3"], result.changed[1].facts["bytes_sent"]
    assert ahead > 0
    assert ahead + rest == result.details["bytes"]
    assert len(asked) == (result.details["files"] if sha256 else 0)
    assert verify(target, backup_id, store="s3").status == "ok"


def test_a_second_upload_changes_nothing(target: Target) -> None:
    back_up_everywhere(target)
    again = upload(target)
    assert again.status == "ok"
    assert again.changed == ()
    assert again.skipped[0].object == "s3"


def test_an_upload_that_was_cut_off_goes_on_where_it_stopped(target: Target) -> None:
    backup_id = back_up(target).details["backup_id"]
    upload(target)
    prefix = backup_prefix(target.name, target.database, backup_id)
    target.store("s3").delete(prefix + MANIFEST)
    target.store("s3").delete(prefix + "dump/toc.dat")
    again = upload(target, backup_id=backup_id)
    toc = (backup_folder(target, backup_id) / "dump" / "toc.dat").stat().st_size
    assert again.changed[0].facts["bytes_sent"] == toc
    assert verify(target, backup_id, store="s3").status == "ok"


def test_a_damaged_home_copy_is_not_uploaded(target: Target, bucket: Bucket) -> None:
    backup_id = back_up(target).details["backup_id"]
    toc = backup_folder(target, backup_id) / "dump" / "toc.dat"
    data = toc.read_bytes()
    toc.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    result = upload(target)
    assert result.status == "failed"
    assert "dump/toc.dat" in result.failed[0].reason
    assert not (copy_of(bucket, target, backup_id) / MANIFEST).exists()


def test_another_manifest_under_the_same_id_is_never_written_over(target: Target) -> None:
    backup_id = back_up_everywhere(target).details["backup_id"]
    key = backup_prefix(target.name, target.database, backup_id) + MANIFEST
    stored = target.store("s3").get_bytes(key)
    target.store("s3").put_bytes(key, sealed(stored, target="somebody-elses"))
    result = upload(target)
    assert result.status == "failed"
    assert "another backup under the id" in result.failed[0].reason


def test_a_dry_run_sends_nothing(target: Target, bucket: Bucket) -> None:
    back_up(target)
    result = upload(target, dry_run=True)
    assert result.changed[0].action == "would upload"
    assert not [path for path in bucket.folder.rglob("*") if path.is_file()]


def test_an_only_store_is_a_reason_to_skip(database: Database, tmp_path: Path) -> None:
    assert upload(make_target(database, tmp_path)).status == "skipped"


def test_without_a_folder_store_the_spool_is_emptied_once_every_store_has_the_backup(
    database: Database, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    target = make_target(database, tmp_path, bucket=bucket, stores=("s3",))
    assert home.has_spool(target)
    result = back_up_everywhere(target)
    assert result.details["stores"] == ["s3"]
    assert not [path for path in (tmp_path / "state" / "pgsteward" / home.SPOOL).rglob("*") if path.is_file()]
    assert upload(target).status == "skipped"
    assert verify(target, "latest").status == "ok"


def test_what_earlier_nights_left_in_the_spool_leaves_it_too(
    database: Database, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    target = make_target(database, tmp_path, bucket=bucket, stores=("s3",))
    waiting = [back_up(target).details["backup_id"] for _ in range(2)]
    assert verify(target, waiting[0]).details["stores"] == ["spool"]
    (tmp_path / "secret").write_text("NotTheSecretNotTheSecretNotTheSecret0000")
    assert upload(target).status == "failed"
    (tmp_path / "secret").write_text(bucket.s3.secret_access_key)
    newest = back_up(target).details["backup_id"]
    assert len(upload(target, dry_run=True).changed) == 3
    result = upload(target)
    assert result.status == "ok"
    assert result.details["backup_id"] == newest
    assert {item.object for item in result.changed} == {f"{each} to s3" for each in (newest, *waiting)}
    assert not [path for path in (tmp_path / "state" / "pgsteward" / home.SPOOL).rglob("*") if path.is_file()]
    listed = {each["backup_id"] for each in backups(target).details["backups"]}
    assert listed == {newest, *waiting}


def test_a_damaged_backup_in_the_spool_does_not_keep_the_others_there(
    database: Database, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    target = make_target(database, tmp_path, bucket=bucket, stores=("s3",))
    damaged = back_up(target).details["backup_id"]
    (backup_folder(target, damaged) / "dump" / "toc.dat").write_bytes(b"x")
    newest = back_up(target).details["backup_id"]
    result = upload(target, backup_id=newest)
    assert result.status == "partial"
    assert [note.object for note in result.failed] == [f"{damaged}: s3"]
    assert [each["backup_id"] for each in backups(target).details["backups"] if "s3" in each["stores"]] == [
        newest
    ]


def test_an_upload_whose_lock_is_gone_publishes_nothing(
    target: Target, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A janitor may have taken it for dead and removed what it had copied."""
    backup_id = back_up(target).details["backup_id"]
    real = copying.problem_of

    def lose_the_lock(*args: Any) -> Any:
        database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'pgsteward lock backup'"
        )
        return real(*args)

    monkeypatch.setattr(copying, "problem_of", lose_the_lock)
    with pytest.raises(DatabaseUnavailable):
        upload(target)
    assert [each["stores"] for each in backups(target).details["backups"]] == [["disk"]]
    monkeypatch.undo()
    assert upload(target, backup_id=backup_id).status == "ok"


def test_a_store_that_refuses_leaves_the_backup_at_home_and_says_so(
    database: Database, bucket: Bucket, tmp_path: Path
) -> None:
    target = make_target(database, tmp_path, bucket=bucket, stores=("disk", "s3"))
    (tmp_path / "secret").write_text("x" * 40)
    result = back_up_everywhere(target)
    assert result.status == "partial"
    assert result.details["stores"] == ["disk"]
    assert result.failed[0].object.startswith("upload to s3") or "s3" in result.failed[0].reason
    listed = backups(target)
    assert listed.status == "partial"
    assert listed.unknown[0].object == "store s3"
    assert [each["stores"] for each in listed.details["backups"]] == [["disk"]]


def test_what_a_store_has_missed_gets_there_with_the_next_upload(
    database: Database, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    alone = make_target(database, tmp_path)
    older = back_up(alone).details["backup_id"]
    target = make_target(database, tmp_path, bucket=bucket, stores=("disk", "s3"))
    (tmp_path / "secret").write_text("x" * 40)
    missed, pruned = [back_up_everywhere(target).details["backup_id"] for _ in range(2)]
    shutil.rmtree(backup_folder(target, pruned))
    (tmp_path / "secret").write_text(bucket.s3.secret_access_key)
    newest = back_up(target).details["backup_id"]
    lacking = owed.read(target)
    planned = upload(target, dry_run=True)
    assert [item.object for item in planned.changed] == [f"{each} to s3" for each in (newest, missed)]
    assert owed.read(target) == lacking == {"disk": frozenset(), "s3": {missed, pruned}}
    result = upload(target)
    assert (result.status, result.details["backup_id"]) == ("ok", newest)
    assert [item.object for item in result.changed] == [item.object for item in planned.changed]
    in_s3 = [each["backup_id"] for each in backups(target).details["backups"] if "s3" in each["stores"]]
    assert sorted(in_s3) == sorted([missed, newest]), f"{older} is older than the store"
    remove_backup(target.store("s3"), "app", stored_manifest(target, missed), {})
    assert upload(target).changed == (), "what was pruned there does not come back"


def test_an_unknown_backup_is_refused(target: Target) -> None:
    back_up(target)
    with pytest.raises(PreconditionError, match="no complete backup"):
        upload(target, backup_id="20200101T000000Z-abcdef")


def test_earlier_backups_are_looked_for_where_the_spool_has_sent_them(
    database: Database, tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    database.execute("CREATE TABLE t AS SELECT generate_series(1, 2000) AS id")
    target = make_target(database, tmp_path, bucket=bucket, stores=("s3",), backup={"jobs": 1})
    for _ in range(AT_LEAST):
        assert upload(target, backup_id=back_up(target).details["backup_id"]).status == "ok"
    database.execute("TRUNCATE t")
    assert "public.t" in [note.object for note in back_up(target).findings]
    assert "newest backups" in back_up(target, dry_run=True).details["estimated"]
