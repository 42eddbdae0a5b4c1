"""The evidence of restores: listed, verified, and broken by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from pgsteward.backup.dump import back_up
from pgsteward.backup.freeze import leave_damage
from pgsteward.backup.receipt_chain import list_receipts, verify_receipts
from pgsteward.backup.receipts import receipts_prefix
from pgsteward.backup.upload import upload
from pgsteward.cli import app
from pgsteward.restore.run import restore
from tests.integration.backup_targets import make_target
from tests.integration.old_backups import as_toml
from tests.integration.test_listing import documented
from tests.servers import Bucket, Database, Server

pytestmark = pytest.mark.any_server


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def test_receipts_of_restores_are_listed_and_verified_in_every_store(
    database: Database, bucket: Bucket, server: Server, tmp_path: Path
) -> None:
    database.execute("CREATE TABLE t AS SELECT 1 AS a")
    target = make_target(database, tmp_path, bucket=bucket, stores=("disk", "s3"))
    nothing = verify_receipts(target)
    assert (nothing.status, nothing.examined) == ("unknown", 0)
    back_up(target)
    upload(target)
    for store in ("disk", "disk", "s3"):
        restore(target, store=store, into=f"{database.name}_copy")
        server.drop(f"{database.name}_copy")

    listed = list_receipts(target).as_json()
    assert set(listed["receipts"][0]) == documented("Each of `receipts`")
    assert [(e["store"], e["verdict"], e["what"]) for e in listed["receipts"]] == [
        ("s3", "green", "restore"),
        ("disk", "green", "restore"),
        ("disk", "green", "restore"),
    ]
    verified = verify_receipts(target)
    assert (verified.status, verified.examined) == ("ok", 3)
    assert set(verified.details["chains"][0]) == documented("Each of `chains`")

    config = tmp_path / "pgsteward.toml"
    config.write_text(as_toml(target.config.model_dump(mode="json", exclude_unset=True)))
    call = CliRunner().invoke
    assert call(app, ["--config", str(config), "receipts", "verify", "app"]).exit_code == 0
    changed = listed["receipts"][2]["key"]
    file = tmp_path / "store" / changed
    file.write_bytes(file.read_bytes().replace(b'"green"', b'"red"'))
    said = call(app, ["--config", str(config), "receipts", "verify", "app"])
    assert said.exit_code == 1
    assert f"broken, first at {changed} in disk" in " ".join(said.stdout.split())


def test_a_store_without_any_receipt_is_named_beside_one_that_has_some(
    database: Database, bucket: Bucket, server: Server, tmp_path: Path
) -> None:
    database.execute("CREATE TABLE t AS SELECT 1 AS a")
    target = make_target(database, tmp_path, bucket=bucket, stores=("disk", "s3"))
    backup_id = back_up(target).details["backup_id"]
    upload(target)
    restore(target, store="disk", into=f"{database.name}_copy")
    server.drop(f"{database.name}_copy")
    (skipped,) = verify_receipts(target).skipped
    assert skipped.object == "store s3"
    assert "and 1 backup: none was restored" in skipped.reason

    leave_damage(target.store("s3"), target, backup_id, "verify", ["a file is damaged"])
    prefix = receipts_prefix(target.name, target.database)
    for stored in list(target.store("s3").objects(prefix)):
        target.store("s3").delete(stored.key)
    result = verify_receipts(target)
    assert "store s3" in [note.object for note in result.unknown], result.as_json()
    assert result.status == "partial"
    assert "none is missing" not in result.summary
