"""Runs whose files somebody removes who takes them for dead: they publish nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pgsteward.backup import readme
from pgsteward.backup.catalog import backups
from pgsteward.backup.dump import back_up
from pgsteward.backup.home import mark
from pgsteward.backup.manifest import MARK, backup_prefix
from pgsteward.backup.marks import owner_of
from pgsteward.backup.upload import upload
from pgsteward.errors import VerificationFailed
from pgsteward.janitor import clean_up
from pgsteward.storage import Store
from pgsteward.targets import Target
from tests.integration.backup_targets import make_target
from tests.servers import Bucket, Database

pytestmark = pytest.mark.any_server

DEAD = "20261101T020000Z-abcdef"


def lose_mark(store: Store) -> None:
    for stored in list(store.objects("")):
        if stored.key.endswith(MARK):
            store.delete(stored.key)


def lose_file(store: Store) -> None:
    for stored in list(store.objects("")):
        if "/dump/" in stored.key:
            store.delete(stored.key)


def cut_file(store: Store) -> None:
    for stored in list(store.objects("")):
        if "/dump/" in stored.key:
            store.put_bytes(stored.key, b"less")


def change_hands(store: Store) -> None:
    for stored in list(store.objects("")):
        if stored.key.endswith(MARK):
            store.put_bytes(stored.key, json.dumps({"backup_id": DEAD}).encode())


def begin_to_remove(store: Store) -> None:
    """As a janitor does, in the order of keys."""
    store.delete(next(store.objects("")).key)


STRIKES = [lose_mark, lose_file, cut_file, change_hands]


@pytest.mark.parametrize("strike", STRIKES)
def test_a_backup_is_not_published_without_what_was_stored(
    database: Database, bucket: Bucket, tmp_path: Path, strike: Callable[[Store], None]
) -> None:
    target = make_target(database, tmp_path, bucket=bucket, stores=("s3",), backup={"mode": "stream"})

    def progress(what: str, done: int = 0, total: int = 0) -> None:
        if what == f"reading {readme.NAME} again":  # the last one
            strike(target.store("s3"))

    with pytest.raises(VerificationFailed, match=r"not published.*look who else works on that store"):
        back_up(target, progress=progress)
    assert backups(target).details["backups"] == []


@pytest.mark.parametrize("strike", [lose_mark, change_hands, begin_to_remove])
def test_a_copy_is_not_published_without_what_was_sent(
    database: Database, bucket: Bucket, tmp_path: Path, strike: Callable[[Store], None]
) -> None:
    target = make_target(database, tmp_path, bucket=bucket, stores=("disk", "s3"))
    back_up(target)

    def progress(what: str, done: int = 0, total: int = 0) -> None:
        if what == "uploading to s3" and done == total > 0:
            strike(target.store("s3"))

    result = upload(target, progress=progress)
    assert result.status == "failed"
    assert "not published" in result.failed[0].reason
    assert [each["stores"] for each in backups(target).details["backups"]] == [["disk"]]
    assert upload(target).status == "ok"


def leave(target: Target, database: Database, **node: object) -> str:
    """Leave what a killed run leaves which was connected to such a server."""
    prefix = backup_prefix(target.name, target.database, DEAD)
    with database.connect() as session:
        owner = owner_of(session)
    owner["node"] |= node
    store = target.store("disk")
    store.put_bytes(prefix + MARK, mark(owner, DEAD, datetime.now(UTC)))
    store.put_bytes(prefix + "dump/toc.dat", b"half of it")
    return prefix


@pytest.mark.parametrize(
    ("node", "goes"),
    [
        pytest.param({}, True, id="this-server"),
        pytest.param({"started_s": 1.0, "asked_s": 2.0}, True, id="this-server-restarted-since"),
        pytest.param({"started_s": 1.0}, False, id="one-that-runs-beside-this-one"),
        pytest.param({"started_s": 1.0, "asked_s": 2.0, "in_recovery": True}, False, id="a-standby"),
        pytest.param({"started_s": 1.0, "asked_s": 2.0, "port": "1"}, False, id="another-port"),
    ],
)
def test_a_free_lock_says_something_of_runs_on_the_same_server_only(
    database: Database, tmp_path: Path, node: dict[str, object], goes: bool
) -> None:
    target = make_target(database, tmp_path)
    prefix = leave(target, database, **node)
    upload_in_the_making = tmp_path / "store" / prefix / ".x.dat.01234567.partial"
    upload_in_the_making.write_bytes(b"x")
    result = clean_up(target)
    assert [item.action for item in result.changed] == (["removed"] if goes else [])
    assert upload_in_the_making.exists() is not goes
    assert ["orphan_days = 7" in note.reason for note in result.skipped] == ([] if goes else [True])
