"""A backup that was made while the clock was ahead: it is named, and nobody takes it for the newest one."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from pgsteward.backup.catalog import backups, verify
from pgsteward.backup.dump import back_up
from pgsteward.backup.manifest import MANIFEST, backup_prefix
from pgsteward.backup.upload import upload
from pgsteward.errors import PreconditionError
from pgsteward.night import newest_backup
from pgsteward.restore.found import find_backup
from tests.integration.backup_targets import make_target
from tests.integration.old_backups import age
from tests.servers import Bucket, Database

pytestmark = pytest.mark.any_server


def test_a_backup_of_the_future_is_named_and_not_the_newest(
    database: Database, bucket: Bucket, tmp_path: Path
) -> None:
    target = make_target(database, tmp_path, bucket=bucket, stores=("disk", "s3"))
    earlier = back_up(target).details["backup_id"]
    disk = target.store("disk")
    future = age(target, disk, days=-30)
    disk.delete(backup_prefix(target.name, target.database, earlier) + MANIFEST)
    with pytest.raises(PreconditionError, match=r"dated in the future.*name it by its id"):
        find_backup(target, "latest")
    assert newest_backup(target) is None
    now = back_up(target).details["backup_id"]

    found = find_backup(target, "latest")
    assert found.manifest.backup_id == now
    assert [note.object for note in found.notes] == [future]
    assert find_backup(target, future).manifest.backup_id == future
    began = newest_backup(target)
    assert began is not None
    assert began < datetime.now(UTC)

    for result in (verify(target, "latest"), upload(target)):
        assert result.status == "partial"
        assert result.details["backup_id"] == now
        assert [note.object for note in result.findings] == [future]
    listed = backups(target)
    assert [note.object for note in listed.findings] == [future]
    assert {each["backup_id"]: each["stores"] for each in listed.details["backups"]} == {
        future: ["disk"],
        now: ["disk", "s3"],
    }
