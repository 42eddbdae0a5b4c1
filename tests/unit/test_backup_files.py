"""What pg_dump wrote into the store by itself is read once, to its last byte."""

import errno
import hashlib
import os
import time
from pathlib import Path

import pytest

from pgsteward.backup.beside import Abandoned
from pgsteward.backup.destination import FolderDestination
from pgsteward.backup.files import BackupFiles
from pgsteward.backup.folder_hashes import FolderHashes
from pgsteward.config import StoreConfig
from pgsteward.progress import silent
from pgsteward.storage import open_store
from pgsteward.storage.folder import FolderStore

MIB = 1 << 20


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    folder = tmp_path / "backup" / "dump"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def files(tmp_path: Path) -> BackupFiles:
    return BackupFiles(open_store("disk", StoreConfig(url=tmp_path.as_uri())), "backup/", None)


def hashed(files: BackupFiles) -> dict[str, tuple[int, str]]:
    return {file.path: (file.size_bytes, file.sha256) for file in files.stored}


def hash_of(data: bytes) -> tuple[int, str]:
    return len(data), hashlib.sha256(data).hexdigest()


def until_read(hashes: FolderHashes, count: int) -> None:
    deadline = time.monotonic() + 30
    while len(hashes._early) < count:
        assert time.monotonic() < deadline
        time.sleep(0.001)


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
def test_a_file_is_hashed_to_its_last_byte(dump: Path, files: BackupFiles, size: int) -> None:
    data = bytes(range(251)) * (size // 251) + bytes(size % 251)
    (dump / "nested").mkdir()
    (dump / "nested" / "1.dat").write_bytes(data)
    with FolderHashes(dump) as hashes:
        files.adopt(dump.parent, hashes)
    assert hashed(files) == {"dump/nested/1.dat": hash_of(data)}


@pytest.mark.parametrize("early", [True, False], ids=["closed-meanwhile", "there-before"])
def test_many_files_are_hashed_each_under_its_own_name(dump: Path, files: BackupFiles, early: bool) -> None:
    contents = {f"{n}.dat": bytes([n]) * (n * MIB // 3) for n in range(9)}

    def write() -> None:
        for name, data in contents.items():
            (dump / name).write_bytes(data)

    if not early:
        write()
    with FolderHashes(dump) as hashes:
        if early:
            write()
        files.adopt(dump.parent, hashes)
    assert hashed(files) == {f"dump/{name}": hash_of(data) for name, data in contents.items()}


@pytest.mark.parametrize("size", [10, 2 * MIB], ids=["small", "large"])
def test_a_closed_file_that_is_written_again_is_hashed_again(
    dump: Path, files: BackupFiles, size: int
) -> None:
    with FolderHashes(dump) as hashes:
        (dump / "1.dat").write_bytes(bytes(size))
        until_read(hashes, 1)
        with (dump / "1.dat").open("r+b") as file:
            file.write(b"other")
        files.adopt(dump.parent, hashes)
    assert hashed(files) == {"dump/1.dat": hash_of(b"other" + bytes(size - 5))}


def test_a_closed_file_is_read_once(dump: Path, files: BackupFiles) -> None:
    """Shown by a change that the kernel tells nobody of: what was read before it is what counts."""
    (dump.parent / "same").write_bytes(b"before")
    with FolderHashes(dump) as hashes:
        os.link(dump.parent / "same", dump / "1.dat")
        (dump / "1.dat").open("r+b").close()
        until_read(hashes, 1)
        (dump.parent / "same").write_bytes(b"later!")
        files.adopt(dump.parent, hashes)
    assert hashed(files) == {"dump/1.dat": hash_of(b"before")}


def test_what_the_kernel_could_not_remember_is_hashed_at_the_end(dump: Path, files: BackupFiles) -> None:
    with FolderHashes(dump) as hashes:
        (dump / "1.dat").write_bytes(b"x")
        until_read(hashes, 1)
        hashes._early[str(dump / "1.dat")] = hash_of(b"as it was before a close that was forgotten")
        assert hashes._watch is not None
        hashes._watch.has_missed_some = True
        files.adopt(dump.parent, hashes)
    assert hashed(files) == {"dump/1.dat": hash_of(b"x")}


def test_hashing_ends_in_the_middle_of_a_file(dump: Path, files: BackupFiles) -> None:
    (dump / "1.dat").write_bytes(bytes(5 * MIB))
    asked = 0

    def still_wanted() -> None:
        nonlocal asked
        asked += 1
        if asked == 3:
            raise Abandoned

    with FolderHashes(dump) as hashes, pytest.raises(Abandoned):
        files.adopt(dump.parent, hashes, still_wanted)
    assert files.stored == ()


def test_every_file_is_synced_once_its_writer_has_ended(
    dump: Path, files: BackupFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else does: pg_dump is told not to; what is only hashed would be lost with the power."""
    assert "--no-sync" in FolderDestination(dump).file_argument()
    real, synced = os.fsync, set[int]()

    def fsync(descriptor: int) -> None:
        real(descriptor)
        synced.add(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(os, "fsync", fsync)
    with FolderHashes(dump) as hashes:
        for number, size in enumerate([0, 1, MIB, MIB + 1, 3 * MIB]):
            (dump / f"{number}.dat").write_bytes(bytes(size))
        until_read(hashes, 5)
        assert not synced
        files.adopt(dump.parent, hashes)
    assert synced == {path.stat().st_ino for path in (dump.parent, dump, *dump.iterdir())}


def test_a_file_that_the_disk_does_not_take_is_an_error(
    dump: Path, files: BackupFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    (dump / "1.dat").write_bytes(b"x")

    def fsync(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    with FolderHashes(dump) as hashes, pytest.raises(OSError, match="Input/output error"):
        files.adopt(dump.parent, hashes)
    assert files.stored == ()


def test_a_folder_that_cannot_be_listed_is_an_error(
    dump: Path, files: BackupFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    (dump / "toc.dat").write_bytes(b"x")

    def refuse(folder: object) -> object:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "scandir", refuse)
    with FolderHashes(dump) as hashes, pytest.raises(OSError, match="Input/output error"):
        files.adopt(dump.parent, hashes)


def test_a_small_file_is_on_a_disk_before_the_dump_is_over(tmp_path: Path, files: BackupFiles) -> None:
    files.put_beside("globals.sql.zst", b"roles")
    assert (tmp_path / "backup" / "globals.sql.zst").read_bytes() == b"roles"
    assert hashed(files) == {"globals.sql.zst": hash_of(b"roles")}


def test_a_small_file_waits_where_a_network_may_not_answer(tmp_path: Path) -> None:
    class Remote(FolderStore):
        def local_folder(self, prefix: str) -> None:
            return None

    files = BackupFiles(Remote("far", StoreConfig(url=tmp_path.as_uri())), "backup/", None)
    files.put_beside("globals.sql.zst", b"roles of an earlier look")
    files.put_beside("globals.sql.zst", b"roles")
    assert not any(tmp_path.iterdir())
    files.settle(silent)
    assert (tmp_path / "backup" / "globals.sql.zst").read_bytes() == b"roles"
    assert hashed(files) == {"globals.sql.zst": hash_of(b"roles")}
