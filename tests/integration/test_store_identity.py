"""Stores that are gone, other ones than before, or one place under two names: nothing of it is ok."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from pgsteward import doctor
from pgsteward.backup import identity
from pgsteward.backup.catalog import backups, verify
from pgsteward.backup.dump import back_up
from pgsteward.backup.run import back_up_everywhere
from pgsteward.backup.upload import upload
from pgsteward.config import Config, StoreConfig
from pgsteward.errors import ConfigError, PreconditionError, StoreFailed
from pgsteward.restore.found import find_backup
from pgsteward.retention import prune
from pgsteward.targets import Target
from tests.integration.backup_targets import make_target
from tests.servers import Bucket, Database

pytestmark = pytest.mark.any_server


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "no project").mkdir()
    monkeypatch.setenv("PGSTEWARD_HOME", str(tmp_path / "no project"))


@pytest.fixture
def target(database: Database, bucket: Bucket, tmp_path: Path) -> Target:
    return make_target(database, tmp_path, bucket=bucket, stores=("disk", "s3"))


def name_in(target: Target, store: str) -> str | None:
    return identity.identify(target, target.store(store))


def with_stores(target: Target, stores: Mapping[str, StoreConfig]) -> Target:
    """Return the same target with further stores, which the configuration could not know to be one place."""
    settings = target.settings.model_copy(update={"stores": (*target.settings.stores, *stores)})
    config = target.config.model_copy(update={"stores": {**target.config.stores, **stores}})
    return replace(target, settings=settings, config=config)


def test_a_store_that_is_gone_is_unknown_everywhere_and_takes_no_backup(
    target: Target, tmp_path: Path
) -> None:
    first = back_up_everywhere(target)
    assert first.status == "ok"
    root, away = tmp_path / "store", tmp_path / "away"
    root.rename(away)
    for empty in (False, True):  # a folder that was moved, and a disk that is not mounted
        if empty:
            root.mkdir()
        for result in (verify(target, "latest"), backups(target), prune(target)):
            assert result.status == "partial", result
            assert [note.object for note in result.unknown] == ["store disk"]
            assert "pgsteward accept-store app disk" in result.unknown[0].reason
        assert "lacks the file" in find_backup(target, "latest").notes[0].reason
        found = {check["check"]: check for check in doctor.examine(target).details["checks"]}
        assert found["store disk"]["status"] == "fail"
        for dry_run in (True, False):
            with pytest.raises(StoreFailed, match=r"is not the one that backups of 'app' went to"):
                back_up(target, dry_run=dry_run)
        assert root.exists() is empty
    root.rmdir()
    away.rename(root)
    assert verify(target, "latest").status == "ok"
    assert back_up_everywhere(target).status == "ok"


def test_a_new_store_in_its_place_is_taken_when_it_is_accepted(target: Target, tmp_path: Path) -> None:
    backup_id = back_up_everywhere(target).details["backup_id"]
    known = name_in(target, "disk")
    shutil.rmtree(tmp_path / "store")
    assert "accept-store" in upload(target, backup_id=backup_id).failed[0].reason
    with pytest.raises(ConfigError, match="say which: disk, s3"):
        identity.accept(target)
    assert identity.accept(target, "disk").status == "ok"
    assert name_in(target, "disk") not in {None, known}
    assert upload(target, backup_id=backup_id).status == "ok"
    assert back_up_everywhere(target).status == "ok"


def test_a_store_that_cannot_be_asked_is_not_accepted_and_stays_the_one_it_was(
    target: Target, tmp_path: Path
) -> None:
    back_up_everywhere(target)
    known = name_in(target, "disk")
    root, away = tmp_path / "store", tmp_path / "away"
    root.rename(away)
    root.touch()
    with pytest.raises(StoreFailed):
        identity.accept(target, "disk")
    root.unlink()
    with pytest.raises(StoreFailed, match="is not the one that backups of 'app' went to"):
        back_up(target)
    away.rename(root)
    assert name_in(target, "disk") == known


def test_another_disk_is_not_the_known_one_until_it_is_accepted(target: Target, tmp_path: Path) -> None:
    back_up_everywhere(target)
    file = next((tmp_path / "store").rglob("identity.json"))
    file.write_text('{"name": "of the other disk"}')
    with pytest.raises(StoreFailed, match="has another file"):
        back_up(target)
    identity.accept(target, "disk")
    assert name_in(target, "disk") == "of the other disk"
    assert back_up(target).status == "ok"


def test_a_lost_state_suspects_no_store_and_is_learned_again(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back_up_everywhere(target)
    known = name_in(target, "disk")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "a new machine"))
    assert verify(target, "latest").status == "ok"
    assert back_up_everywhere(target).status == "ok"
    assert name_in(target, "disk") == known
    (tmp_path / "store").rename(tmp_path / "away")
    with pytest.raises(StoreFailed, match="went to"):
        back_up(target)


def test_a_store_of_an_older_version_gets_its_name_with_the_next_backup(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back_up_everywhere(target)
    for name in target.settings.stores:
        target.store(name).delete(f"{target.name}/{identity.FOLDER}/identity.json")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "as an older version leaves it"))
    assert verify(target, "latest").status == "ok"
    assert back_up_everywhere(target).status == "ok"
    assert None not in {name_in(target, "disk"), name_in(target, "s3")}


def test_one_place_under_two_names_is_refused_by_whoever_writes_or_removes(
    target: Target, bucket: Bucket
) -> None:
    s3 = target.config.stores["s3"]
    elsewhere = (s3.endpoint_url or "").replace("127.0.0.1", "localhost")
    assert elsewhere != s3.endpoint_url
    twice = with_stores(target, {"again": s3.model_copy(update={"endpoint_url": elsewhere})})
    result = back_up_everywhere(twice)
    assert result.status == "partial"
    assert "again" in result.failed[0].object
    assert "is the same place as store 's3'" in result.failed[0].reason
    with pytest.raises(PreconditionError, match="s3 and again bear the same name"):
        prune(twice)
    checks = doctor.examine(twice).details["checks"]
    assert [check["check"] for check in checks if "the same place" in check["message"]] == ["store again"]


def test_a_copy_of_a_store_is_another_place_and_gets_a_name_of_its_own(
    database: Database, tmp_path: Path
) -> None:
    target = make_target(database, tmp_path)
    back_up(target)
    shutil.copytree(tmp_path / "store", tmp_path / "copy")
    both = with_stores(target, {"copy": StoreConfig(url=f"file://{tmp_path}/copy")})
    assert upload(both).status == "ok"
    assert name_in(both, "disk") != name_in(both, "copy")
    assert prune(both).status == "ok"


def test_a_link_to_a_store_is_no_second_store(database: Database, tmp_path: Path) -> None:
    target = make_target(database, tmp_path)
    (tmp_path / "store").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "store")
    data = target.config.model_dump(mode="json", exclude_unset=True)
    data["stores"]["offsite"] = {"url": f"file://{tmp_path}/link"}
    data["targets"]["app"]["stores"] = ["disk", "offsite"]
    with pytest.raises(ValueError, match="is the same place as another one"):
        Config.model_validate(data)
