"""The same contract for every store: a folder, a real S3 server, and moto's S3 semantics."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pgsteward.config import Secret, StoreConfig
from pgsteward.errors import StoreFailed, StoreUnavailable
from pgsteward.storage import Store
from pgsteward.storage.folder import FolderStore
from pgsteward.storage.parts import (
    FEW_PARTS,
    MAX_PARTS,
    PART_BYTES,
    first_part_size,
    largest_object,
    part_size,
    streamed_part_size,
)
from pgsteward.storage.s3 import S3Store
from tests.servers import Bucket

pytestmark = pytest.mark.any_server

MIB = 1 << 20
SMALL: dict[str, Any] = {"single_put_bytes": 6 * MIB, "part_bytes": 5 * MIB}


def s3_config(bucket: Bucket, monkeypatch: pytest.MonkeyPatch, **changes: object) -> StoreConfig:
    monkeypatch.setenv("TEST_S3_KEY", bucket.s3.access_key_id)
    monkeypatch.setenv("TEST_S3_SECRET", bucket.s3.secret_access_key)
    return StoreConfig.model_validate(
        {
            "url": bucket.url,
            "endpoint_url": bucket.s3.endpoint_url,
            "access_key_id": {"env": "TEST_S3_KEY"},
            "secret_access_key": {"env": "TEST_S3_SECRET"},
            **changes,
        }
    )


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _host, port = server.get_host_and_port()
    yield f"http://127.0.0.1:{port}"
    server.stop()


def moto_store(endpoint: str, monkeypatch: pytest.MonkeyPatch, bucket: str) -> S3Store:
    monkeypatch.setenv("TEST_S3_KEY", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("TEST_S3_SECRET", "not-a-secret-at-all")
    keys = {"access_key_id": Secret(env="TEST_S3_KEY"), "secret_access_key": Secret(env="TEST_S3_SECRET")}
    store = S3Store("moto", StoreConfig(url=f"s3://{bucket}/night", endpoint_url=endpoint, **keys), **SMALL)
    store._client.create_bucket(Bucket=bucket)
    return store


@pytest.fixture(params=["folder", "rclone", "moto"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    if request.param == "folder":
        return FolderStore("disk", StoreConfig(url=f"file://{tmp_path}/store"))
    if request.param == "rclone":
        return S3Store("s3", s3_config(request.getfixturevalue("bucket"), monkeypatch), **SMALL)
    return moto_store(request.getfixturevalue("moto"), monkeypatch, f"bucket-{time.time_ns()}")


def test_small_objects_come_back_as_they_went(store: Store) -> None:
    store.put_bytes("a/Order Lines/ü+%2F.json", b"{}")
    assert store.get_bytes("a/Order Lines/ü+%2F.json") == b"{}"
    store.put_bytes("a/Order Lines/ü+%2F.json", b"new")
    assert store.get_bytes("a/Order Lines/ü+%2F.json") == b"new"


@pytest.mark.parametrize("size", [0, 1, 6 * MIB, 11 * MIB + 1], ids=["empty", "byte", "limit", "three-parts"])
def test_files_of_any_size_come_back_as_they_went(store: Store, tmp_path: Path, size: int) -> None:
    file = tmp_path / "file"
    file.write_bytes(os.urandom(size))
    store.put_file("x/file", file)
    chunks = list(store.read("x/file"))
    assert b"".join(chunks) == file.read_bytes()
    assert max(map(len, chunks), default=0) <= 2 * MIB
    assert [(stored.key, stored.size_bytes) for stored in store.objects("x/")] == [("x/file", size)]
    assert store.abort_uploads("") == []


def test_listing_is_exact_sorted_and_knows_folders(store: Store) -> None:
    for key in ("t/app/1/b", "t/app/1/a", "t/app.x", "t/app-eu/1/a", "t/app/2/a", "top"):
        store.put_bytes(key, b"x")
    assert [s.key for s in store.objects("t/app/")] == ["t/app/1/a", "t/app/1/b", "t/app/2/a"]
    assert [s.key for s in store.objects("t/app")] == [
        "t/app-eu/1/a",
        "t/app.x",
        "t/app/1/a",
        "t/app/1/b",
        "t/app/2/a",
    ]
    assert store.folders("t/") == ["app", "app-eu"]
    assert store.folders("t/app/") == ["1", "2"]
    assert store.folders("") == ["t"]
    assert store.folders("nothing/") == []
    assert list(store.objects("nothing/")) == []


def test_more_objects_than_one_page_are_all_listed(store: Store) -> None:
    if isinstance(store, S3Store):
        real = store._client.list_objects_v2

        def two_a_page(**arguments: object) -> object:
            return real(**{"MaxKeys": 2, **arguments})

        store._client.list_objects_v2 = two_a_page
    keys = [f"many/{number}" for number in range(7)]
    for key in keys:
        store.put_bytes(key, b"x")
    assert [stored.key for stored in store.objects("many/")] == keys


def test_a_key_that_is_not_there_is_file_not_found(store: Store) -> None:
    store.put_bytes("there", b"x")
    with pytest.raises(FileNotFoundError):
        store.get_bytes("not/there")
    with pytest.raises(FileNotFoundError):
        next(store.read("there/below"))


def test_delete_is_exact_and_may_be_repeated(store: Store) -> None:
    store.put_bytes("a/x", b"1")
    store.put_bytes("a/xy", b"2")
    store.delete("a/x")
    store.delete("a/x")
    store.delete("never/was")
    assert [stored.key for stored in store.objects("")] == ["a/xy"]


@pytest.mark.parametrize("key", ["", "../x", "a//b", "/a"])
def test_odd_keys_are_refused_by_every_store(store: Store, key: str) -> None:
    with pytest.raises(StoreFailed, match="not a key"):
        store.put_bytes(key, b"")


class Cancelled(BaseException):
    """How a flow run is cancelled."""


@pytest.mark.parametrize("kind", ["rclone", "moto"])
def test_an_upload_in_parts_that_is_cancelled_leaves_nothing(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = (
        S3Store("s3", s3_config(request.getfixturevalue("bucket"), monkeypatch), **SMALL)
        if kind == "rclone"
        else moto_store(request.getfixturevalue("moto"), monkeypatch, f"cancel-{time.time_ns()}")
    )
    file = tmp_path / "file"
    file.write_bytes(os.urandom(12 * MIB))
    real = store._client.upload_part

    def cancelled_at_the_second(**arguments: object) -> object:
        if arguments["PartNumber"] == 2:
            raise Cancelled
        return real(**arguments)

    store._client.upload_part = cancelled_at_the_second
    with pytest.raises(Cancelled):
        store.put_file("x/file", file)
    assert list(store.objects("")) == []
    assert store.abort_uploads("") == []


def _upload_slowly(config: StoreConfig, file: Path, started: str) -> None:
    store = S3Store("s3", config, **SMALL)
    real = store._client.upload_part

    def slow(**arguments: object) -> object:
        if arguments["PartNumber"] == 2:
            Path(started).touch()
            time.sleep(60)
        return real(**arguments)

    store._client.upload_part = slow
    store.put_file("x/file", file)


def test_a_killed_upload_leaves_no_object_and_its_parts_can_be_aborted(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = s3_config(bucket, monkeypatch)
    file = tmp_path / "file"
    file.write_bytes(os.urandom(12 * MIB))
    child = multiprocessing.get_context("spawn").Process(
        target=_upload_slowly, args=(config, file, str(tmp_path / "started"))
    )
    child.start()
    while not (tmp_path / "started").exists():
        assert child.is_alive()
        time.sleep(0.05)
    child.kill()
    child.join()
    store = S3Store("s3", config)
    assert list(store.objects("")) == []
    assert store.abort_uploads("other/") == []
    assert store.abort_uploads("x/") == ["x/file"]
    assert store.abort_uploads("") == []


def test_a_wrong_secret_says_what_to_check_and_shows_nothing(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = s3_config(bucket, monkeypatch)
    monkeypatch.setenv("TEST_S3_SECRET", "WrongSecretWrongSecretWrongSecretWrong00")
    with pytest.raises(StoreFailed, match="check secret_access_key") as caught:
        S3Store("s3", config).put_bytes("x", b"")
    shown = str(caught.value) + repr(caught.value)
    assert "WrongSecret" not in shown
    assert bucket.s3.access_key_id not in shown


def test_an_unknown_access_key_says_what_to_check(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    config = s3_config(bucket, monkeypatch)
    monkeypatch.setenv("TEST_S3_KEY", "AKIAWRONGWRONGWRONGX")
    with pytest.raises(StoreFailed, match="check access_key_id"):
        list(S3Store("s3", config).objects(""))


def test_a_missing_bucket_is_named(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    config = s3_config(bucket, monkeypatch, url="s3://there-is-no-such-bucket/x")
    store = S3Store("s3", config)
    for attempt in (
        lambda: store.put_bytes("x", b""),
        lambda: list(store.objects("")),
        lambda: store.folders(""),
    ):
        with pytest.raises(StoreFailed, match=r"there-is-no-such-bucket.*create it or correct the url"):
            attempt()


def test_a_store_that_is_down_may_heal(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    config = s3_config(bucket, monkeypatch, endpoint_url="http://127.0.0.1:9")
    with pytest.raises(StoreUnavailable, match="no working connection"):
        S3Store("s3", config).get_bytes("x")


def test_missing_credentials_say_where_they_are_looked_for(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    store = S3Store("s3", StoreConfig(url=bucket.url, endpoint_url=bucket.s3.endpoint_url))
    with pytest.raises(StoreFailed, match="no credentials found"):
        store.put_bytes("x", b"")


def test_boto3s_own_chain_finds_keys_that_are_not_configured(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", bucket.s3.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", bucket.s3.secret_access_key)
    store = S3Store("s3", StoreConfig(url=bucket.url, endpoint_url=bucket.s3.endpoint_url))
    store.put_bytes("x", b"y")
    assert (bucket.folder / "x").read_bytes() == b"y"  # no trailer, no chunk marks: the very bytes


def test_a_file_that_shrinks_while_it_is_stored_is_not_stored(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = S3Store("s3", s3_config(bucket, monkeypatch), **SMALL)
    file = tmp_path / "file"
    file.write_bytes(os.urandom(12 * MIB))
    real = store._client.create_multipart_upload

    def and_truncate(**arguments: object) -> object:
        os.truncate(file, 3 * MIB)
        return real(**arguments)

    store._client.create_multipart_upload = and_truncate
    with pytest.raises(StoreFailed, match="became shorter"):
        store.put_file("x/file", file)
    assert list(store.objects("")) == []


@pytest.mark.parametrize("max_parts", [MAX_PARTS, FEW_PARTS])
@pytest.mark.parametrize("size", [1, PART_BYTES, 16_000 * MIB + 1, 156 << 30, 160_000 * MIB + 1, 5 << 40])
def test_an_object_never_needs_more_parts_than_the_store_takes(size: int, max_parts: int) -> None:
    size = min(size, largest_object(max_parts))
    part = part_size(size, max_parts=max_parts)
    assert part >= PART_BYTES
    assert -(-size // part) <= max_parts
    assert part <= 1 << 30


@pytest.mark.parametrize("estimate", [0, 15 << 30, 100 << 30, 800 << 30])
def test_a_stream_into_a_store_that_takes_few_parts_fits_into_them(estimate: int) -> None:
    first = first_part_size(estimate, max_parts=FEW_PARTS)
    sizes = [streamed_part_size(number, first, FEW_PARTS) for number in range(1, FEW_PARTS + 1)]
    assert sizes[0] == sizes[799] == first >= PART_BYTES
    assert sum(sizes[:800]) >= estimate
    assert sum(sizes) >= max(1.2 * estimate, 100e9)
    assert sizes == sorted(sizes)
    assert max(sizes) == 1 << 30


@pytest.mark.parametrize("estimate", [0, 100 << 30, 1 << 40])
def test_a_stream_meets_ten_thousand_parts_only_far_beyond_its_estimate(estimate: int) -> None:
    first = first_part_size(estimate)
    sizes = [streamed_part_size(number, first) for number in range(1, MAX_PARTS + 1)]
    assert sizes[0] == sizes[7_999] == first >= PART_BYTES
    assert sum(sizes[:8_000]) >= estimate
    assert sum(sizes) >= max(2 * estimate, 1 << 40)
    assert sizes == sorted(sizes)
    assert max(sizes) <= 5 << 30


@pytest.mark.parametrize("size", [0, 1, 5 * MIB, 11 * MIB + 1], ids=["empty", "byte", "part", "three-parts"])
def test_what_is_written_bit_by_bit_comes_back_whole(store: Store, size: int) -> None:
    data = os.urandom(size)
    with store.writing("x/stream", size) as sink:
        for start in range(0, size, 700_001):
            sink.write(data[start : start + 700_001])
        if isinstance(store, FolderStore):
            assert list(store.objects("")) == []
    assert store.get_bytes("x/stream") == data
    assert store.abort_uploads("") == []


def interrupted(store: Store, size: int, error: BaseException) -> None:
    with store.writing("x/stream", size) as sink:
        sink.write(b"x" * size)
        raise error


@pytest.mark.parametrize("size", [1, 23 * MIB], ids=["byte", "parts"])
def test_a_stream_that_breaks_leaves_what_was_there(store: Store, size: int) -> None:
    store.put_bytes("x/stream", b"before")
    with pytest.raises(KeyboardInterrupt):
        interrupted(store, size, KeyboardInterrupt())
    with pytest.raises(FileNotFoundError, match="the writer's own"):
        interrupted(store, size, FileNotFoundError("the writer's own"))
    assert store.get_bytes("x/stream") == b"before"
    assert store.abort_uploads("") == []


def test_a_store_that_refuses_in_the_middle_of_a_stream_is_told_at_once(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = S3Store("s3", s3_config(bucket, monkeypatch), **SMALL)

    def lose_the_upload() -> None:
        with store.writing("x/stream", 0) as sink:
            sink.write(b"x" * (11 * MIB))
            assert store.abort_uploads("x/") == ["x/stream"]
            for _ in range(1000):
                sink.write(b"x" * MIB)
        raise AssertionError("nobody noticed")

    with pytest.raises(StoreUnavailable, match="can't write 'x/stream'"):
        lose_the_upload()
    assert list(store.objects("x/stream")) == []
