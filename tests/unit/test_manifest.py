from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgsteward.backup.manifest import (
    BACKUP_ID,
    FORMAT_VERSION,
    SEAL,
    Manifest,
    Proof,
    Server,
    StoredFile,
    backup_prefix,
    database_name,
    folder_name,
    laid_out,
    new_backup_id,
    seal,
)
from pgsteward.errors import VerificationFailed

NOW = datetime(2026, 11, 23, 2, 0, 0, tzinfo=UTC)


def manifest(**changes: object) -> Manifest:
    fields: dict[str, object] = {
        "backup_id": "20261123T020000Z-7f3a9c",
        "target": "app",
        "database": "intowork",
        "started_at": NOW,
        "finished_at": NOW,
        "pgsteward_version": "0.1.0",
        "server": Server(
            version="17.10",
            version_num=170010,
            system_identifier="1",
            encoding="UTF8",
            collate="C",
            ctype="C",
        ),
        "client_version": "17.10",
        "arguments": ("--jobs=2",),
        "compress": "zstd:1",
        "jobs": 2,
        "snapshot_id": "1-1-1",
        "snapshot_lsn": "0/1",
        "database_bytes": 10,
        "files": (StoredFile(path="dump/toc.dat", size_bytes=7, sha256="00"),),
        "proof": Proof(level="none"),
    }
    return Manifest.model_validate({**fields, **changes})


def test_a_manifest_is_read_back_as_it_was_written() -> None:
    written = manifest()
    assert Manifest.from_bytes(written.to_bytes(), "here") == written
    assert written.size_bytes == 7


@pytest.mark.parametrize("cut", [0, 1, 100, -2])
def test_a_manifest_that_was_cut_off_is_damaged(cut: int) -> None:
    with pytest.raises(VerificationFailed, match="here is damaged"):
        Manifest.from_bytes(manifest().to_bytes()[:cut], "here")


def test_a_newer_format_is_refused_and_unknown_fields_of_ours_are_not() -> None:
    newer = manifest(format_version=FORMAT_VERSION + 1)
    with pytest.raises(VerificationFailed, match=r"RESTORE\.md"):
        Manifest.from_bytes(newer.to_bytes(), "here")
    data = {**manifest().model_dump(mode="json"), "something_new": 1}
    assert Manifest.from_bytes(laid_out({**data, SEAL: seal(data)}), "here") == manifest()


def test_one_changed_bit_anywhere_in_a_manifest_is_damage() -> None:
    written = manifest(database="Größe").to_bytes()
    for place in range(len(written)):
        changed = bytearray(written)
        changed[place] ^= 1
        with pytest.raises(VerificationFailed, match=r"here (is damaged|has format)"):
            Manifest.from_bytes(bytes(changed), "here")


def test_a_byte_that_says_the_same_in_json_is_damage_too() -> None:
    written = manifest(
        database="tab\tand \x1f", seconds={"dump": 1.0, "a": 100.0, "b": 1e-07}, extensions={}
    ).to_bytes()
    blanks = b" \n\t\r"
    for place, byte in enumerate(written):
        for other in {*(blanks if byte in blanks else b"e"), byte ^ 0x20} - {byte}:
            changed = bytearray(written)
            changed[place] = other
            with pytest.raises(VerificationFailed, match=r"here (is damaged|has format)"):
                Manifest.from_bytes(bytes(changed), "here")


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param({"files": [{"path": "dump/toc.dat", "size_bytes": 7, "sha256": "01"}]}, id="a-hash"),
        pytest.param({"files": []}, id="fewer-files"),
        pytest.param({"proof": {"level": "counts"}}, id="a-weaker-proof"),
        pytest.param({"warnings": ["all is well"]}, id="other-words"),
        pytest.param({SEAL: None}, id="no-seal"),
    ],
)
def test_an_edited_manifest_is_damaged(edit: dict[str, object]) -> None:
    data = {**json.loads(manifest().to_bytes()), **edit}
    with pytest.raises(VerificationFailed, match="here is damaged"):
        Manifest.from_bytes(json.dumps(data).encode(), "here")


@pytest.mark.parametrize("data", [b"[]", b"1", b"null", b"\xff{}"])
def test_what_is_no_object_is_damaged(data: bytes) -> None:
    with pytest.raises(VerificationFailed, match="here is damaged"):
        Manifest.from_bytes(data, "here")


@pytest.mark.parametrize("path", ["/etc/passwd", "../other/file", "dump/../../x", "dump//x"])
def test_a_manifest_never_names_a_file_outside_its_folder(path: str) -> None:
    bad = manifest(files=(StoredFile(path=path, size_bytes=1, sha256="00"),))
    with pytest.raises(VerificationFailed, match="outside its folder"):
        Manifest.from_bytes(bad.to_bytes(), "here")


def test_ids_are_in_utc_and_sort_by_start() -> None:
    east = NOW.astimezone(timezone(timedelta(hours=13)))
    assert new_backup_id(east).startswith("20261123T020000Z-")
    assert BACKUP_ID.fullmatch(new_backup_id(NOW))
    assert new_backup_id(NOW) < new_backup_id(NOW + timedelta(seconds=1))


@given(st.text(min_size=1, max_size=63).filter(lambda name: "\0" not in name))
def test_every_database_name_is_one_safe_folder_and_comes_back(name: str) -> None:
    folder = folder_name(name)
    assert "/" not in folder
    assert folder not in {".", ".."}
    assert database_name(folder) == name
    assert backup_prefix("app", name, "id").count("/") == 3
