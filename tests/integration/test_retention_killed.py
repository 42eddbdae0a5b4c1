"""A removal that dies by SIGKILL, and remains of which nobody can ask whose they are."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pgsteward.backup.catalog import backups, verify
from pgsteward.backup.dump import back_up
from pgsteward.backup.home import mark
from pgsteward.backup.manifest import MARK, backup_prefix
from pgsteward.backup.upload import upload
from pgsteward.janitor import clean_up
from pgsteward.postgres_lock import operation_lock
from pgsteward.retention import prune
from pgsteward.sql import load
from pgsteward.targets import Target
from tests.integration.backup_targets import make_target
from tests.integration.old_backups import NOW, POLICY, age, as_toml, keys, newest
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


REMOVES = """
import os, signal, sys
from pathlib import Path
from pgsteward import retention
from pgsteward.targets import load_target

target = load_target("app", Path(sys.argv[1]))
store, deletes, seen = sys.argv[2], int(sys.argv[3]), 0
kind = type(target.store(store))
delete = kind.delete

def and_die(self, key):
    global seen
    if self.name == store:
        if seen == deletes:
            os.kill(os.getpid(), signal.SIGKILL)
        seen += 1
    delete(self, key)

kind.delete = and_die
retention.prune(target)
"""


def kill_while_pruning(target: Target, store: str, deletes: int, folder: Path) -> None:
    """Prune in a process of its own, which dies by SIGKILL after so many deletions from a store."""
    config = target.config.model_dump(mode="json", exclude_unset=True)
    (folder / "pgsteward.toml").write_text(as_toml(config))
    argv = [sys.executable, "-c", REMOVES, str(folder / "pgsteward.toml"), store, str(deletes)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize("store, deletes", [("disk", 0), ("s3", 1), ("disk", 3)])
def test_a_removal_killed_anywhere_leaves_a_whole_backup_or_orphans_that_the_janitor_clears(
    target: Target, store: str, deletes: int, tmp_path: Path
) -> None:
    place = target.store(store)
    kept, old = newest(target), age(target, place, 5)
    kill_while_pruning(target, store, deletes, tmp_path)
    listed = {entry["backup_id"] for entry in backups(target).details["backups"]}
    assert listed == ({kept, old} if deletes == 0 else {kept})
    assert any(old in key for key in keys(place))
    mark_left = json.loads(place.get_bytes(backup_prefix(target.name, target.database, old) + MARK))
    assert mark_left["node"]["in_recovery"] is False, "a janitor on another server of the cluster can tell"
    cleaned = clean_up(target)
    left = [key for key in keys(place) if old in key]
    assert not any(key.endswith(MARK) for key in left)
    if deletes == 0:
        assert verify(target, old, store=store).status == "ok"
        assert [item.object for item in prune(target).changed] == [old]
    else:
        assert left == []
        assert f"{old} in {store}" in [item.object for item in cleaned.changed]
        assert prune(target).changed == ()
    for each in target.stores():
        assert verify(target, kept, store=each.name).status == "ok"
        assert all(kept in key for key in keys(each))


@pytest.mark.parametrize("whose", ["replaced", "upgraded", "another"])
def test_remains_of_an_earlier_life_of_the_database_are_left_alone_for_days(
    target: Target, whose: str, tmp_path: Path
) -> None:
    with operation_lock(target.login("backup"), "backup") as session:
        owner = session.row(load("whose_mark"))
    other: dict[str, Any] = {"database_oid": 1} if whose == "replaced" else {}
    if not other:
        other = {"system_identifier": "5" if whose == "upgraded" else "6"}
    left = {**owner, **other}
    disk = target.store("disk")
    backup_id = "20261101T020000Z-abcdef"
    prefix = backup_prefix(target.name, target.database, backup_id)
    disk.put_bytes(prefix + MARK, mark(left, backup_id, NOW))
    disk.put_bytes(prefix + "dump/toc.dat", b"x")
    settings = target.settings.model_copy(update={"previous_clusters": ("5",)})
    target = replace(target, settings=settings)
    assert clean_up(target).changed == ()
    files = [tmp_path / "store" / (prefix + name) for name in (MARK, "dump/toc.dat")]
    eight_days_ago = time.time() - 8 * 86_400
    os.utime(files[0], (eight_days_ago, eight_days_ago))
    young = clean_up(target)
    assert young.changed == (), "one of its files is young"
    os.utime(files[1], (eight_days_ago, eight_days_ago))
    result = clean_up(target)
    if whose == "another":
        assert result.changed == ()
        assert "names another server" in result.skipped[0].reason
    else:
        assert "orphan_days = 7" in young.skipped[0].reason
        assert [item.object for item in result.changed] == [f"{backup_id} in disk"]
        assert not any(backup_id in key for key in keys(disk))
