"""What pg_dump wrote into the store by itself is read once, to its last byte."""

import errno
import hashlib
import os
from pathlib import Path

import pytest

from pgsteward.backup.beside import Abandoned
from pgsteward.backup.destination import FolderDestination
from pgsteward.backup.files import BackupFiles
from pgsteward.config import StoreConfig
from pgsteward.storage import open_store

MIB = 1 << 20


@pytest.mark.parametrize(
    "size",
    [
        pytest.param(0, id="empty"),
        pytest.param(1, id="one-byte"),
        pytest.param(MIB - 1, id="just-below-one-read"),
        pytest.param(MIB, id="exactly-one-read"),
        pytest.param(MIB + 1, id="just-above-one-read"),
        pytest.param(3 * MIB + 17, id="several-reads"),
    ],
)
def test_a_file_is_hashed_to_its_last_byte(tmp_path: Path, size: int) -> None:
    data = bytes(range(251)) * (size // 251) + bytes(size % 251)
    (tmp_path / "backup" / "dump" / "nested").mkdir(parents=True)
    (tmp_path / "backup" / "dump" / "nested" / "1.dat").write_bytes(data)
    files = BackupFiles(open_store("disk", StoreConfig(url=tmp_path.as_uri())), "backup/", None)
    files.hash_folder(tmp_path / "backup", "dump")
    (stored,) = files.stored
    assert stored.path == "dump/nested/1.dat"
    assert (stored.size_bytes, stored.sha256) == (size, hashlib.sha256(data).hexdigest())


def test_many_files_are_hashed_each_under_its_own_name(tmp_path: Path) -> None:
    dump = tmp_path / "backup" / "dump"
    dump.mkdir(parents=True)
    contents = {f"{n}.dat": bytes([n]) * (n * MIB // 3) for n in range(9)}
    for name, data in contents.items():
        (dump / name).write_bytes(data)
    files = BackupFiles(open_store("disk", StoreConfig(url=tmp_path.as_uri())), "backup/", None)
    files.hash_folder(tmp_path / "backup", "dump")
    found = {file.path: (file.size_bytes, file.sha256) for file in files.stored}
    assert found == {
        f"dump/{name}": (len(data), hashlib.sha256(data).hexdigest()) for name, data in contents.items()
    }


def test_hashing_ends_in_the_middle_of_a_file(tmp_path: Path) -> None:
    dump = tmp_path / "backup" / "dump"
    dump.mkdir(parents=True)
    (dump / "1.dat").write_bytes(bytes(5 * MIB))
    files = BackupFiles(open_store("disk", StoreConfig(url=tmp_path.as_uri())), "backup/", None)
    asked = 0

    def still_wanted() -> None:
        nonlocal asked
        asked += 1
        if asked == 3:
            raise Abandoned

    with pytest.raises(Abandoned):
        files.hash_folder(tmp_path / "backup", "dump", still_wanted)
    assert files.stored == ()


def test_pg_dump_syncs_what_it_writes(tmp_path: Path) -> None:
    """Nobody else does: a file that is only hashed would be lost with the machine's power."""
    assert "--no-sync" not in FolderDestination(tmp_path).arguments(2)


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "backup" / "dump").mkdir(parents=True)
    (tmp_path / "backup" / "dump" / "toc.dat").write_bytes(b"x")
    files = BackupFiles(open_store("disk", StoreConfig(url=tmp_path.as_uri())), "backup/", None)

    def refuse(folder: object) -> object:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(OSError, match="Input/output error"):
        files.hash_folder(tmp_path / "backup", "dump")
