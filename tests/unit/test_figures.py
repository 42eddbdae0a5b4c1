"""What is kept of earlier backups is believed of the very bytes that were checked, and of no others."""

import json
from pathlib import Path
from typing import Any

import pytest

from pgsteward.backup.anomalies import history
from pgsteward.backup.figures import Earlier, Figures
from pgsteward.backup.manifest import MANIFEST, Manifest, Proof, Relation, backup_prefix
from pgsteward.config import StoreConfig
from pgsteward.errors import DamagedBackup
from pgsteward.storage import Store, open_store
from tests.unit.test_manifest import manifest

IDS = [f"202611{day:02}T020000Z-7f3a9c" for day in range(10, 16)]


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "pgsteward" / "stores"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store("disk", StoreConfig(url=(tmp_path / "store").as_uri()))


def made(backup_id: str, **changes: Any) -> Manifest:
    rows = {"a": 5_000, "b": 1_001, "small": 1_000, "c d": 7_000}
    relations = tuple(Relation(schema_name="public", name=n, kind="r", rows=r) for n, r in rows.items())
    return manifest(backup_id=backup_id, proof=Proof(level="counts", relations=relations), **changes)


def publish(store: Store, backup: Manifest, folder: str = "") -> bytes:
    data = backup.to_bytes()
    store.put_bytes(backup_prefix("app", "intowork", folder or backup.backup_id) + MANIFEST, data)
    return data


def a_run(store: Store, number: int, **changes: Any) -> list[Figures]:
    """Do what a backup does: look at those before it, and keep their figures and its own."""
    earlier = Earlier("app", "intowork")
    found = history(store, earlier, "app", "intowork")
    backup = made(IDS[number], **changes)
    earlier.keep(backup, publish(store, backup))
    return found


def test_what_was_kept_is_what_the_manifests_say(store: Store, state: Path) -> None:
    for number in range(5):
        partial = ("tables: public.a only",) if number == 2 else ()
        a_run(store, number, partial=partial, format_version=2 if partial else 1)
    kept = history(store, Earlier("app", "intowork"), "app", "intowork")
    for file in state.iterdir():
        file.unlink()
    assert kept == history(store, Earlier("app", "intowork"), "app", "intowork")
    assert [each.backup_id for each in kept] == [IDS[4], IDS[3], IDS[1], IDS[0]]
    assert kept[0].large == {"public.a": 5_000, "public.b": 1_001, 'public."c d"': 7_000}


def test_bytes_that_were_checked_are_not_checked_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        a_run(store, number)

    def refuse(data: bytes, where: str) -> Manifest:
        raise AssertionError(f"{where} was checked again")

    monkeypatch.setattr(Manifest, "from_bytes", refuse)
    assert len(history(store, Earlier("app", "intowork"), "app", "intowork")) == 5


def test_other_bytes_are_checked_whatever_was_kept(store: Store) -> None:
    a_run(store, 0)
    key = backup_prefix("app", "intowork", IDS[0]) + MANIFEST
    store.put_bytes(key, store.get_bytes(key).replace(b"5000", b"5001"))
    with pytest.raises(DamagedBackup):
        Earlier("app", "intowork").read(store, IDS[0])


def test_a_known_manifest_in_the_folder_of_another_backup_is_damage(store: Store) -> None:
    a_run(store, 0)
    publish(store, made(IDS[0]), folder=IDS[1])
    with pytest.raises(DamagedBackup, match=IDS[0]):
        Earlier("app", "intowork").read(store, IDS[1])


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"version": "0"}', '{"figures": 1}', "\0"])
def test_what_is_no_state_of_this_version_counts_for_nothing(store: Store, state: Path, text: str) -> None:
    a_run(store, 0)
    (file,) = state.iterdir()
    file.write_text(text)
    assert [each.backup_id for each in a_run(store, 1)] == [IDS[0]]
    assert len(json.loads(file.read_text())["figures"]) == 2


def test_another_version_checks_for_itself(store: Store, state: Path) -> None:
    a_run(store, 0)
    (file,) = state.iterdir()
    file.write_text(
        file.read_text().replace('"rows": ', '"rows": 9').replace('"version": "', '"version": "9')
    )
    assert a_run(store, 1)[0].rows == 14_001


def test_a_machine_that_can_keep_nothing_works_all_the_same(
    store: Store, state: Path, tmp_path: Path
) -> None:
    (tmp_path / "state").write_text("no folder")
    a_run(store, 0)
    assert [each.backup_id for each in a_run(store, 1)] == [IDS[0]]
