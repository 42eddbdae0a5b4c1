"""A backup that is streamed into a store in trouble: nothing is published, and the next one is whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pgsteward.backup.catalog import backups, verify
from pgsteward.backup.dump import back_up
from pgsteward.config import Config
from pgsteward.errors import StewardError, StoreFailed, StoreUnavailable, VerificationFailed
from pgsteward.janitor import clean_up
from pgsteward.storage.s3 import S3Store
from pgsteward.targets import Target
from tests.faults_store.proxy import (
    Fault,
    Proxy,
    always,
    answering,
    first,
    flipping,
    half_then_reset,
    no_fault,
)
from tests.integration.backup_targets import make_target, own_sessions
from tests.integration.test_stream import dump_pids, nothing_in
from tests.servers import Bucket, Database

MIB = 1 << 20

FAULTS: dict[str, tuple[Callable[[], Fault], type[StewardError], str]] = {
    "every part is reset": (
        lambda: always(lambda r: r.is_part and not r.is_probe, half_then_reset),
        StoreUnavailable,
        "no working connection",
    ),
    "throttled without end": (
        lambda: always(lambda r: r.is_part and not r.is_probe, answering(503, "SlowDown")),
        StoreUnavailable,
        "SlowDown",
    ),
    "one byte is corrupted": (
        lambda: always(lambda r: r.is_get and r.key.endswith("archive.dump"), flipping),
        VerificationFailed,
        "archive.dump was put into s3, but there it",
    ),
    "the store became read-only": (
        lambda: always(lambda r: r.method != "GET" and not r.is_probe, answering(403, "AccessDenied")),
        StoreFailed,
        "access denied",
    ),
    "the store corrupts whatever it gets": (
        lambda: always(lambda r: r.is_get, flipping),
        StoreFailed,
        "failed its self-test: put and read",
    ),
}


def streamed(database: Database, tmp_path: Path, bucket: Bucket, proxy: Proxy) -> Target:
    backup = {"mode": "stream", "compress": "none", "proof": "none"}
    target = make_target(database, tmp_path, bucket=bucket, stores=("s3",), backup=backup)
    data = target.config.model_dump(mode="json")
    data["stores"]["s3"] |= {"endpoint_url": proxy.url, "retries": 1, "timeout_s": 30.0}
    config = Config.model_validate(data)
    return Target("app", config.target("app"), config)


@pytest.mark.parametrize("name", FAULTS)
def test_a_stream_into_a_store_in_trouble_publishes_nothing(
    name: str,
    database: Database,
    bucket: Bucket,
    proxy_to: Callable[..., Proxy],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    defaults = S3Store.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "part_bytes", 5 * MIB)
    database.execute(
        "CREATE TABLE big AS SELECT g, repeat(md5(g::text), 4) AS filler FROM generate_series(1, 45000) AS g"
    )
    proxy = proxy_to(bucket.s3.endpoint_url)
    target = streamed(database, tmp_path, bucket, proxy)
    make, kind, said = FAULTS[name]
    proxy.fault = make()
    with pytest.raises(kind, match=said):
        back_up(target)
    assert dump_pids() == []
    assert own_sessions(database.server) == []
    proxy.fault = no_fault
    clean_up(target)
    assert nothing_in(target)
    assert backups(target).details["backups"] == []
    proxy.fault = first(1, lambda r: r.is_part, half_then_reset)  # once is healed by itself
    assert back_up(target).status == "ok"
    assert verify(target, "latest").status == "ok"
