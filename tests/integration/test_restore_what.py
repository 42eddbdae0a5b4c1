"""What is restored: the newest, the newest proven, or the newest of a moment."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from pgsteward.backup.catalog import backups
from pgsteward.backup.dump import back_up
from pgsteward.backup.receipts import RECEIPTS
from pgsteward.errors import NoGo, PreconditionError
from pgsteward.postgres import compose, identifier
from pgsteward.restore.run import restore
from pgsteward.targets import Target
from tests.integration.backup_targets import make_target, stored_manifest
from tests.integration.old_backups import NOW, age, receipt
from tests.servers import Database, Server

pytestmark = pytest.mark.any_server


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def target(database: Database, tmp_path: Path) -> Target:
    database.execute("CREATE TABLE t AS SELECT 1 AS a")
    return make_target(database, tmp_path)


@pytest.fixture
def new_name(server: Server) -> Iterator[str]:
    name = f"restored_{uuid.uuid4().hex[:10]}"
    yield name
    server.drop(name)


def chosen(target: Target, what: str = "latest", **options: object) -> str:
    result = restore(target, what, dry_run=True, **options)  # type: ignore[arg-type]
    return str(result.details["backup_id"])


def test_a_proven_backup_is_the_newest_with_a_green_receipt_of_its_store(
    target: Target, new_name: str
) -> None:
    newest = str(back_up(target).details["backup_id"])
    store = target.store("disk")
    with pytest.raises(PreconditionError, match=f"no proven backup .*`pgsteward restore app {newest}` makes"):
        restore(target, "latest-proven")
    old, older = age(target, store, 1), age(target, store, 2)
    receipt(target, store, older)
    assert chosen(target, "latest-proven") == older
    receipt(target, store, old)
    assert chosen(target, "latest-proven") == old
    receipt(target, store, old, "red")
    assert chosen(target, "latest-proven") == older
    restore(target, newest, into=new_name)
    assert chosen(target, "latest-proven") == newest
    assert chosen(target, "latest-proven", as_of=NOW - timedelta(hours=30)) == older


def test_a_receipt_that_can_not_be_read_proves_nothing_and_is_told(target: Target) -> None:
    back_up(target)
    store = target.store("disk")
    good, bad = age(target, store, 2), age(target, store, 1)
    receipt(target, store, good)
    store.put_bytes(receipt(target, store, bad), b"{")
    result = restore(target, "latest-proven", dry_run=True)
    assert result.details["backup_id"] == good
    assert (result.status, result.unknown[0].object) == ("partial", bad)
    assert RECEIPTS in result.unknown[0].reason


def test_a_moment_brings_the_newest_backup_that_is_not_younger(target: Target) -> None:
    newest = str(back_up(target).details["backup_id"])
    store = target.store("disk")
    ages = {days: age(target, store, days) for days in (1, 3, 10)}
    assert chosen(target, as_of=NOW - timedelta(days=2)) == ages[3]
    assert chosen(target, as_of=NOW - timedelta(days=3)) == ages[3]
    assert chosen(target, as_of=NOW + timedelta(days=3)) == newest
    with pytest.raises(PreconditionError, match=f"or before; the nearest: {ages[10]} of .*, {ages[3]} of"):
        restore(target, as_of=NOW - timedelta(days=11))
    result = restore(target, as_of=NOW - timedelta(days=2), dry_run=True)
    assert "the newest as of" in result.summary
    assert result.details["as_of"] == (NOW - timedelta(days=2)).isoformat()
    assert result.details["snapshot_at"] == (NOW - timedelta(days=3)).isoformat()


def test_a_manifest_says_when_its_snapshot_was_taken(target: Target) -> None:
    manifest = stored_manifest(target, back_up(target).details["backup_id"])
    assert manifest.snapshot_at is not None
    assert manifest.started_at <= manifest.snapshot_at <= manifest.finished_at


def test_partial_backups_are_neither_latest_nor_proven_nor_of_a_moment(
    database: Database, target: Target, tmp_path: Path
) -> None:
    part = make_target(database, tmp_path, backup={"tables": ["t"]})
    id_of_part = str(back_up(part).details["backup_id"])
    receipt(part, part.store("disk"), id_of_part)
    for what, as_of in (("latest", None), ("latest-proven", None), ("latest", NOW + timedelta(days=1))):
        with pytest.raises(PreconditionError, match=f"but 1 partial one, the newest {id_of_part}"):
            restore(target, what, as_of=as_of)
    whole = str(back_up(target).details["backup_id"])
    back_up(part)
    assert chosen(target) == chosen(target, as_of=NOW + timedelta(days=1)) == whole
    assert len(backups(target).details["backups"]) == 3


@pytest.mark.pg_min(15)
def test_tablespaces_that_the_server_lacks_are_a_no_go_or_left_out(
    database: Database, tmp_path: Path, server: Server, new_name: str
) -> None:
    space = f"Space {uuid.uuid4().hex[:8]}"
    name = identifier(space)
    with server.connect() as connection:
        connection.execute("SET allow_in_place_tablespaces = on")
        connection.execute(compose("CREATE TABLESPACE {} LOCATION ''", name))
    try:
        database.execute(compose("CREATE TABLE t TABLESPACE {} AS SELECT 1 AS a", name))
        target = make_target(database, tmp_path)
        back_up(target)
        assert restore(target, dry_run=True).status == "ok"
    finally:
        database.execute("DROP TABLE t")
        with server.connect() as connection:
            connection.execute(compose("DROP TABLESPACE {}", name))
    with pytest.raises(NoGo, match=f'lacks "{space}"; CREATE TABLESPACE .*--no-tablespaces') as caught:
        restore(target, into=new_name)
    assert {check["check"]: check["verdict"] for check in caught.value.checks}["tablespaces"] == "no-go"
    result = restore(target, into=new_name, no_tablespaces=True)
    assert (result.status, result.details["proof"]["equal"]) == ("ok", True)
