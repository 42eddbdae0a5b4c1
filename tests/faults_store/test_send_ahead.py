"""Uploads run while the dump still writes; whatever becomes of them, the dump is never the worse for it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import boto3
import pytest

from pgsteward.backup import identity, limits
from pgsteward.backup.catalog import backups, verify
from pgsteward.backup.closed_files import ClosedFiles
from pgsteward.backup.home import mark
from pgsteward.backup.manifest import MANIFEST, MARK, backup_prefix
from pgsteward.backup.marks import owner_of
from pgsteward.backup.run import back_up_everywhere, back_up_to_send
from pgsteward.backup.upload import upload
from pgsteward.config import Config
from pgsteward.errors import PreconditionError, ToolFailed
from pgsteward.janitor import clean_up
from pgsteward.storage.folder import FolderStore
from pgsteward.storage.s3 import S3Store
from pgsteward.targets import Target
from tests.faults.proxy import through_proxy
from tests.faults_store.proxy import (
    Answer,
    Pass,
    Proxy,
    Request,
    always,
    answering,
    flipping,
    no_fault,
)
from tests.integration.backup_targets import make_target
from tests.integration.test_stream import dump_pids
from tests.servers import Bucket, Database

ProxyTo = Callable[..., Proxy]


@pytest.fixture
def proxy(bucket: Bucket, proxy_to: ProxyTo) -> Proxy:
    return proxy_to(bucket.s3.endpoint_url)


@pytest.fixture
def target(database: Database, bucket: Bucket, tmp_path: Path, proxy: Proxy) -> Target:
    """One table is dumped at once, another takes a while; the store is known already."""
    database.execute("CREATE TABLE quick AS SELECT g AS id FROM generate_series(1, 1000) AS g")
    database.execute(
        "CREATE TABLE slow AS SELECT g AS id, md5(g::text) || md5((g + 1)::text) AS filler"
        " FROM generate_series(1, 150000) AS g"
    )
    database.execute("ANALYZE")
    backup = {"compress": "zstd:14", "jobs": 2, "proof": "none"}
    target = make_target(database, tmp_path, bucket=bucket, stores=("disk", "s3"), backup=backup)
    return through(target, proxy)


def through(target: Target, proxy: Proxy) -> Target:
    s3 = target.config.stores["s3"].model_copy(update={"endpoint_url": proxy.url, "retries": 1})
    config = target.config.model_copy(update={"stores": {**target.config.stores, "s3": s3}})
    return Target(target.name, target.settings, config)


@contextmanager
def dump_held(target: Target, database: Database) -> Iterator[tuple[Target, threading.Event]]:
    """Hold pg_dump in the middle of ``slow`` until the event is set."""
    with through_proxy(database.login) as server:
        hold = server.hold("pgsteward dump", asked=b"COPY public.slow", answered=100_000)
        settings = target.settings.model_copy(update={"conninfo": server.login.conninfo})
        yield Target(target.name, settings, target.config), hold.go_on


def files(bucket: Bucket) -> list[str]:
    return [path.name for path in bucket.folder.rglob("*") if path.is_file()]


def test_a_file_goes_up_while_the_dump_still_writes_another(
    target: Target, proxy: Proxy, database: Database
) -> None:
    alive: list[bool] = []

    def watching(request: Request, real: Pass) -> Answer:
        if request.is_put and "/dump/" in request.key and request.key.partition("/dump/")[2] != "toc.dat":
            alive.append(bool(dump_pids()))
            go_on.set()
        return real(request)

    proxy.fault = watching
    with dump_held(target, database) as (held, go_on):
        result = back_up_everywhere(held)
    assert result.status == "ok"
    assert alive[0], "the first file went up only when pg_dump had ended"
    assert result.details["sent_ahead"]["s3"] > 0
    puts = [r.key.rpartition("/")[2] for r in proxy.seen if r.is_put and identity.FOLDER not in r.key]
    names = [name for name in puts if name not in (MARK, MANIFEST) and "selftest" not in name]
    files = [name for name in names if name.endswith((".dat", ".zst", ".md", ".dat.zst"))]
    assert len(set(files)) == len(files), "nothing was sent twice"
    assert puts[-1] == MANIFEST
    dumped = [r.key for r in proxy.seen if r.is_get and "/dump/" in r.key]
    assert sorted(dumped) == sorted(set(dumped)), "what was read back during the dump is not read again"
    assert len(dumped) == 3
    assert verify(target, "latest").status == "ok"


def test_a_store_that_hangs_does_not_hold_up_the_dump(target: Target, proxy: Proxy) -> None:
    dumping = threading.Event()
    waited: list[bool] = []

    def hanging(request: Request, real: Pass) -> Answer | None:
        waited.append(dumping.wait(50))
        return real(request)

    def note(what: str, done: int = 0, total: int = 0) -> None:
        if what.startswith("dumping"):
            dumping.set()

    proxy.fault = hanging
    assert back_up_to_send(target, progress=note).status == "ok"
    assert waited
    assert all(waited), "the dump began only when the store had answered"


@pytest.mark.parametrize(("status", "code"), [(403, "AccessDenied"), (503, "SlowDown")])
def test_a_store_in_trouble_never_fails_the_dump(
    target: Target, proxy: Proxy, status: int, code: str
) -> None:
    proxy.fault = always(lambda r: r.is_put and "/dump/" in r.key, answering(status, code))
    dumped = back_up_to_send(target)
    assert dumped.status == "ok"
    assert dumped.details["sent_ahead"] == {"s3": 0}
    proxy.fault = lambda request, real: real(request)
    assert upload(target).status == "ok"
    assert verify(target, "latest").details["stores"] == ["disk", "s3"]


def test_a_byte_that_is_corrupted_ahead_is_seen_by_the_upload(target: Target, proxy: Proxy) -> None:
    proxy.fault = always(lambda r: r.is_get and r.key.endswith("/dump/toc.dat"), flipping)
    result = back_up_everywhere(target)
    assert result.status == "partial"
    assert "dump/toc.dat was uploaded to s3, but there it is not what was written" in result.failed[0].reason
    assert [each["stores"] for each in backups(target).details["backups"]] == [["disk"]]
    proxy.fault = no_fault
    assert upload(target).status == "ok"


def test_stores_of_one_url_at_two_endpoints_are_not_taken_for_each_other(
    target: Target, proxy: Proxy, bucket: Bucket, moto: str
) -> None:
    client = boto3.client(
        "s3", endpoint_url=moto, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
    )
    client.create_bucket(Bucket=bucket.s3.bucket)
    client.close()
    data = target.config.model_dump(mode="json")
    data["stores"]["other"] = data["stores"]["s3"] | {"endpoint_url": moto}
    data["targets"]["app"]["stores"] = ["disk", "s3", "other"]
    config = Config.model_validate(data)
    target = Target("app", config.target("app"), config)
    proxy.fault = always(lambda r: r.is_put and "/dump/" in r.key, answering(403, "AccessDenied"))
    dumped = back_up_to_send(target)
    assert dumped.details["sent_ahead"]["s3"] == 0
    assert dumped.details["sent_ahead"]["other"] > 0
    proxy.fault = no_fault
    assert upload(target).status == "ok"
    assert verify(target, "latest").details["stores"] == ["disk", "s3", "other"]


def test_what_a_listing_does_not_show_yet_is_no_remains_of_a_dead_run(
    target: Target, proxy: Proxy, database: Database
) -> None:
    def without_manifests(request: Request, real: Pass) -> Answer:
        answer = real(request)
        if request.is_list:
            shown = rf"<Contents>(?:(?!</Contents>).)*/{MANIFEST}<.*?</Contents>"
            answer.body = re.sub(shown, "", answer.body.decode(), flags=re.DOTALL).encode()
        return answer

    backup_id = back_up_everywhere(target).details["backup_id"]
    with database.connect() as session:  # killed between its manifest and the end of its mark
        ours = mark(owner_of(session), backup_id, datetime.now(UTC))
    target.store("s3").put_bytes(backup_prefix("app", target.database, backup_id) + MARK, ours)
    proxy.fault = without_manifests
    assert [item.action for item in clean_up(target).changed] == ["unmarked"]
    proxy.fault = no_fault
    assert verify(target, backup_id).details["stores"] == ["disk", "s3"]


@pytest.mark.parametrize("stores", [("s3",), ("disk", "s3")], ids=["streamed", "copied"])
def test_a_backup_is_whole_also_when_its_mark_can_not_be_removed(
    database: Database, bucket: Bucket, tmp_path: Path, proxy: Proxy, stores: tuple[str, ...]
) -> None:
    backup = {"proof": "none", **({"mode": "stream"} if stores == ("s3",) else {})}
    target = make_target(database, tmp_path, bucket=bucket, stores=stores, backup=backup)
    target = through(target, proxy)
    proxy.fault = always(lambda r: r.method == "DELETE" and r.key.endswith(MARK), answering(503, "SlowDown"))
    result = back_up_everywhere(target)
    assert (result.status, result.failed) == ("ok", ())
    assert [each["stores"] for each in backups(target).details["backups"]] == [list(stores)]
    proxy.fault = no_fault
    assert [item.action for item in clean_up(target).changed] == ["unmarked"]
    assert verify(target, "latest").details["stores"] == list(stores)


def test_a_dump_that_fails_leaves_nothing_of_what_was_sent(
    target: Target, proxy: Proxy, bucket: Bucket, database: Database
) -> None:
    sent = threading.Event()

    def noting(request: Request, real: Pass) -> Answer:
        answer = real(request)
        if request.is_put and "/dump/" in request.key:
            sent.set()
        return answer

    def strike(what: str, done: int = 0, total: int = 0) -> None:
        if what.startswith("dumping") and sent.wait(50):
            for pid in dump_pids():
                os.kill(pid, signal.SIGKILL)
            go_on.set()

    proxy.fault = noting
    with dump_held(target, database) as (held, go_on), pytest.raises(ToolFailed):
        back_up_to_send(held, progress=strike)
    assert sent.is_set()
    assert files(bucket) == []
    assert clean_up(target).changed == ()


def test_who_is_tired_of_waiting_for_another_store_keeps_the_backup(
    target: Target, proxy: Proxy, tmp_path: Path
) -> None:
    over = threading.Event()
    main = threading.get_ident()

    def hanging(request: Request, real: Pass) -> Answer:
        if request.is_put and "/dump/toc.dat" in request.key and not over.is_set():
            deadline = time.monotonic() + 60
            while not list(tmp_path.rglob(MANIFEST)) and time.monotonic() < deadline:
                time.sleep(0.05)
            signal.pthread_kill(main, signal.SIGINT)
            over.wait(60)
        return real(request)

    proxy.fault = hanging
    with pytest.raises(KeyboardInterrupt):
        back_up_everywhere(target)
    over.set()
    proxy.fault = no_fault
    assert [each["stores"] for each in backups(target).details["backups"]] == [["disk"]]
    assert verify(target, "latest").status == "ok"
    assert upload(target).status == "ok"
    assert verify(target, "latest").details["stores"] == ["disk", "s3"]


KILLED = """
import sys
from pgsteward.config import Config
from pgsteward.targets import Target
from pgsteward.backup.run import back_up_everywhere
config = Config.model_validate_json(sys.stdin.read())
back_up_everywhere(Target("app", config.target("app"), config))
"""


@pytest.mark.parametrize("moment", ["a part is on its way", "the dump is done"])
def test_a_worker_killed_in_the_middle_of_an_upload_changes_no_catalog(
    target: Target, proxy: Proxy, bucket: Bucket, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL: the next run leaves no open upload, and the catalogs are what they were."""
    assert back_up_everywhere(target).status == "ok"
    before = backups(target).details["backups"]
    there = sorted(files(bucket))
    reached, killed = threading.Event(), threading.Event()

    def stuck(request: Request, real: Pass) -> Answer | None:
        if moment == "a part is on its way":
            hit = request.is_part
        else:
            hit = request.is_put and request.key.endswith(("globals.sql.zst", "database.sql.zst"))
        if hit:
            reached.set()
            killed.wait(60)
        return None if killed.is_set() else real(request)

    proxy.fault = stuck
    small = "from pgsteward.storage.s3 import S3Store; "
    small += "S3Store.__init__.__kwdefaults__.update(single_put_bytes=1000, part_bytes=5 << 20)\n"
    with subprocess.Popen(
        [sys.executable, "-c", small + KILLED], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd="/"
    ) as child:
        assert child.stdin is not None
        child.stdin.write(target.config.model_dump_json().encode())
        child.stdin.close()
        assert reached.wait(60)
        child.kill()
    killed.set()
    proxy.fault = lambda request, real: real(request)
    store = target.store("s3")
    assert isinstance(store, S3Store)
    deadline = time.monotonic() + 60
    while True:
        try:
            clean_up(target)
            break
        except PreconditionError:  # the server has not noticed yet
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert store._uploads("") == []
    listed = {each["backup_id"]: each for each in backups(target).details["backups"]}
    kept = before[0]["backup_id"]
    assert listed[kept]["stores"] == ["disk", "s3"]
    if moment == "a part is on its way":  # while it was dumped, or just after
        assert len(listed) <= 2
    assert all(each["stores"] == ["disk"] for backup_id, each in listed.items() if backup_id != kept)
    assert sorted(files(bucket)) == there
    assert back_up_everywhere(target).status == "ok"


def test_a_file_is_told_when_it_is_closed_also_the_first_one_of_a_new_folder(tmp_path: Path) -> None:
    with ClosedFiles(tmp_path / "dump") as closed:
        assert closed.wait(0.01) == []
        with (tmp_path / "dump" / "a").open("w") as file:
            file.write("x")
            file.flush()
            assert closed.wait(0.05) == []
        assert closed.wait(5) == [tmp_path / "dump" / "a"]
        (tmp_path / "dump" / "a").open("r+").close()
        assert closed.take() == [tmp_path / "dump" / "a"]
        (tmp_path / "dump" / ".b.partial").write_text("x")
        (tmp_path / "dump" / ".b.partial").rename(tmp_path / "dump" / "b")
        told: list[Path] = []
        while not told:
            told = closed.wait(5)
        assert told == [tmp_path / "dump" / "b"]


def test_what_no_object_can_hold_is_refused_before_the_dump(
    target: Target, database: Database, monkeypatch: pytest.MonkeyPatch, bucket: Bucket, tmp_path: Path
) -> None:
    monkeypatch.setattr(S3Store, "largest_object_bytes", 1 << 20)
    with pytest.raises(PreconditionError, match=r"table slow would take about .* in one file.*partition the"):
        back_up_everywhere(target)
    monkeypatch.setattr(S3Store, "largest_object_bytes", 1 << 40)
    streamed = make_target(database, tmp_path, bucket=bucket, stores=("s3",), backup={"mode": "stream"})
    monkeypatch.setattr(S3Store, "largest_object_bytes", 1 << 20)
    with pytest.raises(PreconditionError, match='use mode = "directory"'):
        back_up_everywhere(streamed)
    assert limits._TEXT > 1
    assert FolderStore.largest_object_bytes > S3Store.largest_object_bytes
    assert files(bucket) == []
