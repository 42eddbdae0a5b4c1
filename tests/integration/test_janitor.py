from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pgsteward.backup.catalog import backups, verify
from pgsteward.backup.dump import back_up
from pgsteward.backup.home import mark
from pgsteward.backup.manifest import MANIFEST, MARK, backup_prefix
from pgsteward.errors import PreconditionError
from pgsteward.janitor import clean_up
from pgsteward.postgres import Row
from pgsteward.postgres_lock import operation_lock
from pgsteward.sql import load
from pgsteward.storage import selftest
from pgsteward.targets import Target
from tests.integration.backup_targets import backup_folder, make_target
from tests.servers import Bucket, Database

pytestmark = pytest.mark.any_server

DEAD = "20261101T020000Z-abcdef"

KILLED = """
import sys
from pgsteward.config import Config
from pgsteward.targets import Target
from pgsteward.backup.dump import back_up

config = Config.model_validate_json(sys.stdin.read())
back_up(Target("app", config.target("app"), config))
"""


@pytest.fixture
def target(database: Database, bucket: Bucket, tmp_path: Path) -> Target:
    database.execute(
        "CREATE TABLE t AS SELECT g AS a, repeat(md5(g::text), 4) FROM generate_series(1, 300000) g"
    )
    return make_target(
        database, tmp_path, bucket=bucket, stores=("disk", "s3"), backup={"compress": "gzip:9"}
    )


def owner_of(database: Database) -> Row:
    with database.connect() as connection:
        return connection.row(load("whose_mark"))


def leave_behind(target: Target, store_name: str, owner: Row, backup_id: str = DEAD) -> str:
    """Leave what a killed upload leaves: a mark and a file."""
    prefix = backup_prefix(target.name, target.database, backup_id)
    store = target.store(store_name)
    started = datetime.now(UTC)
    store.put_bytes(prefix + MARK, mark(owner, backup_id, started))
    store.put_bytes(prefix + "dump/toc.dat", b"half of it")
    return prefix


def test_what_a_killed_backup_leaves_is_removed_and_the_next_one_works(
    target: Target, database: Database, tmp_path: Path
) -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED], stdin=subprocess.PIPE, cwd="/") as process:
        assert process.stdin is not None
        process.stdin.write(target.config.model_dump_json().encode())
        process.stdin.close()
        store = tmp_path / "store"
        deadline = time.monotonic() + 60
        while not list(store.rglob("*.gz")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGSTOP)  # it shall not get on meanwhile
        with pytest.raises(PreconditionError, match="another backup run"):
            clean_up(target)  # it is alive
        process.kill()
    assert list(store.rglob(MARK))
    deadline = time.monotonic() + 60
    while True:
        try:
            result = clean_up(target)
            break
        except PreconditionError:  # the server has not noticed yet
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert [item.action for item in result.changed] == ["removed"]
    assert not [path for path in store.rglob("*") if path.is_file()]
    assert backups(target).details["backups"] == []
    assert back_up(target).status == "ok"


def test_a_dead_upload_is_removed_from_s3(target: Target, database: Database) -> None:
    prefix = leave_behind(target, "s3", owner_of(database))
    dry = clean_up(target, dry_run=True)
    assert [item.action for item in dry.changed] == ["would remove"]
    assert list(target.store("s3").objects(prefix))
    result = clean_up(target)
    assert [(item.object, item.action) for item in result.changed] == [(f"{DEAD} in s3", "removed")]
    assert not list(target.store("s3").objects(prefix))


def test_what_a_killed_self_test_left_is_removed_once_it_must_be_dead(target: Target) -> None:
    now = datetime.now(UTC)
    keys = [
        f"{target.name}/{selftest.FOLDER}/{now - timedelta(minutes=minutes):%Y%m%dT%H%M%SZ}-0123abcd/first"
        for minutes in (2, 1500)
    ]
    for key in keys:
        target.store("s3").put_bytes(key, b"x")
    result = clean_up(target)
    assert [item.facts["what"] for item in result.changed] == ["objects of a store's self-test"]
    assert [stored.key for stored in target.store("s3").objects(target.name)] == keys[:1]


def test_what_is_not_marked_as_ours_is_named_and_left_alone(target: Target, database: Database) -> None:
    foreign = {**owner_of(database), "system_identifier": "42"}
    prefix = leave_behind(target, "disk", foreign)
    unmarked = backup_prefix(target.name, target.database, "20261102T020000Z-abcdef")
    target.store("disk").put_bytes(unmarked + "dump/toc.dat", b"whose is this?")
    result = clean_up(target)
    assert result.changed == ()
    assert {note.object for note in result.skipped} == {
        f"{DEAD} in disk",
        "20261102T020000Z-abcdef in disk",
    }
    assert target.store("disk").get_bytes(prefix + "dump/toc.dat") == b"half of it"


def test_a_run_that_died_after_its_manifest_left_a_whole_backup(target: Target, database: Database) -> None:
    backup_id = back_up(target).details["backup_id"]
    prefix = backup_prefix(target.name, target.database, backup_id)
    target.store("disk").put_bytes(prefix + MARK, json.dumps(owner_of(database)).encode())
    result = clean_up(target)
    assert [item.action for item in result.changed] == ["unmarked"]
    assert (backup_folder(target, backup_id) / MANIFEST).exists()
    assert verify(target, backup_id).status == "ok"


def test_nothing_left_behind_is_ok_because_places_were_looked_at(target: Target) -> None:
    back_up(target)
    result = clean_up(target)
    assert result.status == "ok"
    assert result.changed == ()
    assert result.examined >= 3


def test_a_store_that_cannot_be_asked_is_unknown_and_the_others_are_cleaned(
    target: Target, database: Database, tmp_path: Path
) -> None:
    leave_behind(target, "disk", owner_of(database))
    (tmp_path / "secret").write_text("x" * 40)
    result = clean_up(target)
    assert result.status == "partial"
    assert result.unknown[0].object == "store s3"
    assert [item.object for item in result.changed] == [f"{DEAD} in disk"]


def test_the_janitor_waits_for_no_backup_that_is_at_work(target: Target, database: Database) -> None:
    with operation_lock(database.login, "backup"):
        with pytest.raises(PreconditionError, match="another backup run"):
            clean_up(target)
