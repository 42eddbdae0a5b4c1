"""A folder as a store: whole files or none, and never a step outside."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgsteward.config import StoreConfig
from pgsteward.errors import StoreFailed, StoreUnavailable
from pgsteward.storage import open_store
from pgsteward.storage.folder import FolderStore


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore("disk", StoreConfig(url=f"file://{tmp_path}/store"))


@pytest.mark.parametrize("key", ["../x", "/etc/x", "a/../../x", "a//b", "", "a/./b", "a\0b", ".."])
def test_no_key_leads_out_of_the_root(store: FolderStore, key: str) -> None:
    for attempt in (
        lambda: store.put_bytes(key, b""),
        lambda: store.get_bytes(key),
        lambda: store.delete(key),
    ):
        with pytest.raises(StoreFailed, match="not a key"):
            attempt()


def test_files_and_folders_are_their_owners_alone(store: FolderStore) -> None:
    store.put_bytes("a/b/c", b"x")
    assert stat.S_IMODE((store.root / "a/b/c").stat().st_mode) == 0o600
    assert stat.S_IMODE((store.root / "a/b").stat().st_mode) == 0o700


def test_a_folder_that_is_none_is_told_apart(tmp_path: Path) -> None:
    """A file, or a link to what is not mounted: "File exists" said neither."""
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "not mounted")
    for name in ("file", "link"):
        store = FolderStore("disk", StoreConfig(url=f"file://{tmp_path}/{name}"))
        with pytest.raises(StoreFailed, match=r"a link that leads nowhere \(is it mounted\?\)"):
            store.put_bytes("a", b"x")


def test_a_delete_takes_empty_folders_along_but_never_the_root(store: FolderStore) -> None:
    store.put_bytes("a/b/c", b"x")
    store.put_bytes("a/d", b"x")
    store.delete("a/b/c")
    assert not (store.root / "a/b").exists()
    assert (store.root / "a/d").exists()
    store.delete("a/d")
    assert list(store.root.iterdir()) == []


class Cancelled(BaseException):
    """How a flow run is cancelled."""


def test_an_interrupted_put_leaves_the_old_content_and_no_rest(
    store: FolderStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cancelled(descriptor: int) -> None:
        raise Cancelled

    store.put_bytes("a/key", b"old")
    monkeypatch.setattr(os, "fsync", cancelled)
    with pytest.raises(Cancelled):
        store.put_bytes("a/key", b"new")
    monkeypatch.undo()
    assert store.get_bytes("a/key") == b"old"
    assert [path.name for path in (store.root / "a").iterdir()] == ["key"]


def test_what_is_no_file_is_not_stored(store: FolderStore, tmp_path: Path) -> None:
    for source in (tmp_path, tmp_path / "gone"):
        with pytest.raises(StoreFailed, match="no readable file"):
            store.put_file("a/key", source)
    assert list(store.objects("")) == []


def test_what_a_killed_put_left_is_no_object_and_can_be_cleared(store: FolderStore) -> None:
    store.put_bytes("a/key", b"x")
    (store.root / "a/.other.dat.0011aabb.partial").write_bytes(b"half")
    assert [stored.key for stored in store.objects("")] == ["a/key"]
    assert store.abort_uploads("b/") == []
    assert store.abort_uploads("a/") == ["a/other.dat"]
    assert store.abort_uploads("") == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux")
def test_a_full_disk_is_told_in_a_sentence(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def onto_a_full_disk(path: str, flags: int, mode: int = 0o777) -> int:
        return real("/dev/full", os.O_WRONLY) if str(path).endswith(".partial") else real(path, flags, mode)

    store.put_bytes("other", b"x")
    monkeypatch.setattr(os, "open", onto_a_full_disk)
    with pytest.raises(StoreFailed, match="the disk is full; free space there"):
        store.put_bytes("key", b"x" * 100_000)
    monkeypatch.undo()
    assert [stored.key for stored in store.objects("")] == ["other"]


@pytest.mark.parametrize(
    "number, kind, words",
    [
        pytest.param(errno.EROFS, StoreFailed, "read-only", id="read-only"),
        pytest.param(errno.EACCES, StoreFailed, "not permitted", id="rights"),
        pytest.param(errno.ESTALE, StoreUnavailable, "", id="stale-share-may-heal"),
    ],
)
def test_other_troubles_say_what_to_do(
    store: FolderStore, number: int, kind: type[Exception], words: str
) -> None:
    error = store._translated(OSError(number, os.strerror(number)), "write", "key")
    assert type(error) is kind
    assert words in str(error)


def test_a_root_that_is_not_there_yet_is_empty(store: FolderStore) -> None:
    assert list(store.objects("")) == []
    assert store.folders("") == []
    assert not store.root.exists()


def test_a_folder_that_goes_while_it_is_listed_hides_no_other(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put_bytes("a/x", b"1")
    store.put_bytes("b/x", b"1")
    real = Path.iterdir

    def going(self: Path) -> Iterator[Path]:
        if self.name == "a" and self.exists():
            store.delete("a/x")
        return real(self)

    monkeypatch.setattr(Path, "iterdir", going)
    assert store.folders("") == ["b"]


def test_the_configuration_opens_it(tmp_path: Path) -> None:
    store = open_store("disk", StoreConfig(url=f"file://{tmp_path}"))
    assert store.local_folder("a/b/") == tmp_path / "a/b"
    assert store.location == f"file://{tmp_path}"


def test_what_nfs_keeps_of_a_deleted_file_that_somebody_reads_is_no_object(store: FolderStore) -> None:
    store.put_bytes("a/gone/file", b"x")
    store.put_bytes("a/b/file", b"x")
    (store.root / "a/gone/file").rename(store.root / "a/gone/.nfs000000000000f00d00000001")
    (store.root / "a/b/.nfs000000000000f00d00000002").write_bytes(b"x")
    assert [stored.key for stored in store.objects("")] == ["a/b/file"]
    assert store.folders("a/") == ["b"]


@pytest.mark.parametrize("refusal", [errno.EPERM, errno.EOPNOTSUPP, errno.EXDEV, errno.EACCES, errno.EINVAL])
def test_a_new_object_is_never_written_over_another(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch, refusal: int
) -> None:
    assert store.put_new("a/b", b"first")
    assert not store.put_new("a/b", b"second")

    def no_links(path: Path, target: Path) -> None:
        raise OSError(refusal, "no links here")

    monkeypatch.setattr(Path, "hardlink_to", no_links)
    assert not store.put_new("a/b", b"third")
    assert store.put_new("a/c", b"fourth")
    assert [(path.name, path.read_bytes()) for path in sorted((store.root / "a").iterdir())] == [
        ("b", b"first"),
        ("c", b"fourth"),
    ]
