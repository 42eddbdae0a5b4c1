"""An S3 endpoint whose disk fills up for real: rclone on a small tmpfs, filled in the middle."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pgsteward.backup.catalog import backups, verify
from pgsteward.backup.dump import back_up
from pgsteward.backup.manifest import MARK
from pgsteward.backup.upload import upload
from pgsteward.children import Children
from pgsteward.config import Config
from pgsteward.demo.s3 import LocalS3
from pgsteward.errors import StewardError, TransientError
from pgsteward.janitor import clean_up
from pgsteward.storage.s3 import S3Store
from pgsteward.targets import Target
from tests.faults.disk import Disk, small_disk
from tests.faults_store.proxy import Answer, Pass, Proxy, Request, no_fault
from tests.faults_store.test_matrix import FULL_DISKS, published, rows
from tests.integration.backup_targets import make_target, own_sessions
from tests.integration.test_stream import dump_pids
from tests.servers import Bucket, Database

MIB = 1 << 20
ROOM = 160 * MIB


@pytest.fixture
def small(tmp_path: Path) -> Iterator[tuple[Disk, Bucket]]:
    """An endpoint whose objects lie on a small disk of their own."""
    with small_disk(tmp_path / "endpoint", ROOM) as disk:
        if disk is None:
            pytest.skip("a tmpfs can't be mounted here; it takes root, and CAP_SYS_ADMIN")
        with Children() as children:
            yield disk, Bucket(LocalS3(disk.folder, children).start(), "night")


@pytest.mark.parametrize("name", FULL_DISKS)
def test_the_disk_behind_the_endpoint_fills_up_in_the_middle(
    name: str,
    database: Database,
    small: tuple[Disk, Bucket],
    proxy_to: Callable[..., Proxy],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said, again, copy = rows()[name]
    assert copy == "none"
    disk, bucket = small
    defaults = S3Store.__init__.__kwdefaults__
    assert defaults is not None
    for each, size in (("single_put_bytes", MIB), ("part_bytes", 5 * MIB)):
        monkeypatch.setitem(defaults, each, size)
    database.execute(
        "CREATE TABLE big AS SELECT g, repeat(md5(g::text), 4) AS filler FROM generate_series(1, 120000) AS g"
    )
    streamed = "stream" in name
    proxy = proxy_to(bucket.s3.endpoint_url)
    plain = make_target(
        database,
        tmp_path,
        bucket=bucket,
        stores=("s3",) if streamed else ("disk", "s3"),
        backup={"mode": "stream" if streamed else "directory", "compress": "none", "proof": "none"},
    )
    data: dict[str, Any] = plain.config.model_dump(mode="json")
    data["stores"]["s3"] |= {"endpoint_url": proxy.url, "retries": 1, "timeout_s": 20.0}
    config = Config.model_validate(data)
    target = Target("app", config.target("app"), config)

    def run() -> str:
        return str((back_up if streamed else upload)(target).status)

    if not streamed:
        back_up(target)
    assert run() == "ok"  # an earlier night's, which must stay
    before = published(target, "s3")
    if not streamed:
        back_up(target)

    with disk.filled_later() as fill:
        parts: list[int] = []

        def filling(request: Request, real: Pass) -> Answer:
            if request.is_part and not request.is_probe:
                parts.append(1)
                if len(parts) == 3:
                    fill()
            return real(request)

        proxy.fault = filling
        text = ""
        verdict = "-"
        try:
            result = (back_up if streamed else upload)(target)
        except StewardError as exc:
            text, verdict = str(exc), "yes" if isinstance(exc, TransientError) else "no"
        else:
            text = result.summary + "".join(note.reason for note in result.failed)
            verdict = "-" if result.status == "ok" else "no"
        assert len(parts) >= 3, text
        assert verdict == again, text
        assert re.search(".*".join(map(re.escape, said.split("..."))), text, re.DOTALL), text
        proxy.fault = no_fault
        assert published(target, "s3") == before
        assert verify(target, next(iter(before)), store="s3").status == "ok"
    assert dump_pids() == []
    assert own_sessions(database.server) == []

    clean_up(target)
    assert run() == "ok"
    assert len(published(target, "s3")) == 2
    for each in backups(target).details["backups"]:
        assert verify(target, each["backup_id"], store="s3").status == "ok"
    s3 = target.store("s3")
    assert isinstance(s3, S3Store)
    assert s3._uploads("") == []
    assert not [stored.key for stored in s3.objects("") if stored.key.endswith(MARK)]
