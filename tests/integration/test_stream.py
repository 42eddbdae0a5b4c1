"""One custom-format archive straight into a store: nothing on disks here, nothing half published."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pgsteward.backup import archive, stream_dump
from pgsteward.backup.catalog import backups, verify
from pgsteward.backup.dump import back_up
from pgsteward.backup.manifest import MANIFEST, STREAM, Manifest, backup_prefix
from pgsteward.backup.run import back_up_everywhere
from pgsteward.backup.upload import upload
from pgsteward.clients import choose_client, find_clients
from pgsteward.errors import PreconditionError, StewardError, StoreUnavailable, ToolFailed, TransientError
from pgsteward.janitor import clean_up
from pgsteward.restore.run import restore
from pgsteward.results import StepResult
from pgsteward.storage.s3 import S3Store
from pgsteward.storage.s3_stream import S3Sink
from pgsteward.targets import Target
from tests.integration.backup_targets import backup_folder, make_target, own_sessions
from tests.servers import Bucket, Database

pytestmark = pytest.mark.any_server

ROWS = """
CREATE TABLE "Order ""Lines" (id serial PRIMARY KEY, note text);
INSERT INTO "Order ""Lines" (note) SELECT md5(g::text) FROM generate_series(1, 900) AS g;
CREATE SEQUENCE counter START 7;
SELECT lo_from_bytea(0, 'abc')
"""


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def manifest_in(target: Target, backup_id: str) -> Manifest:
    key = backup_prefix(target.name, target.database, backup_id) + MANIFEST
    return Manifest.from_bytes(target.stores()[0].get_bytes(key), "the test's")


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def files_of_runs(state: Path) -> set[str]:
    """Return what lies in the state folder, but for what is known about stores, and a lock on their room."""
    lock = "pgsteward/room/room.lock"
    return {path for path in files_in(state) if not path.startswith("pgsteward/stores/") and path != lock}


def streamed(database: Database, tmp_path: Path, bucket: Bucket | None, **backup: object) -> Target:
    """Return a target that streams into S3 where a bucket is given, else into a folder."""
    stores = ("s3",) if bucket is not None else ("disk",)
    return make_target(
        database, tmp_path, bucket=bucket, stores=stores, backup={"mode": "stream", "jobs": 2, **backup}
    )


@pytest.mark.parametrize("remote", [False, True], ids=["folder", "s3"])
def test_a_streamed_backup_is_whole_and_nothing_lay_on_a_disk_here(
    database: Database, bucket: Bucket, tmp_path: Path, state: Path, remote: bool
) -> None:
    database.execute(ROWS)
    target = streamed(database, tmp_path, bucket if remote else None)
    result = back_up_everywhere(target)
    assert result.status == "ok"
    backup_id = result.details["backup_id"]
    manifest = manifest_in(target, backup_id)
    assert (manifest.mode, manifest.format_version, manifest.jobs) == ("stream", 2, 1)
    assert "--format=custom" in manifest.arguments
    assert {file.path for file in manifest.files} == {
        STREAM,
        "database.sql.zst",
        "globals.sql.zst",
        "RESTORE.md",
    }
    assert {(each.name, each.last_value, each.is_called) for each in manifest.proof.sequences} == {
        ('Order "Lines_id_seq', 900, True),
        ("counter", 7, False),
    }
    assert manifest.proof.rows == 900
    assert manifest.not_in_dump == ()
    assert verify(target, "latest").status == "ok"
    assert files_of_runs(state) == set()


def test_the_head_says_what_the_whole_archive_says(database: Database, tmp_path: Path) -> None:
    database.execute(ROWS)
    target = streamed(database, tmp_path, None)
    backup_id = back_up(target).details["backup_id"]
    manifest = manifest_in(target, backup_id)
    dumped_by = int(manifest.client_version.partition(".")[0]) * 10_000
    client = choose_client(find_clients(target.settings.client_dirs), dumped_by)
    whole = backup_folder(target, backup_id) / STREAM
    assert archive.schema_sha256(client, whole) == manifest.proof.schema_sha256
    contents = archive.read(client, whole)
    found = archive.positions(contents.sequence_script, contents.entries, bytes.decode)
    assert found == manifest.proof.sequences


@pytest.mark.parametrize("remote", [False, True], ids=["folder", "s3"])
def test_a_streamed_backup_comes_back_equal(
    database: Database, bucket: Bucket, tmp_path: Path, state: Path, remote: bool
) -> None:
    database.execute(ROWS)
    target = streamed(database, tmp_path, bucket if remote else None)
    assert back_up(target).status == "ok"
    into = f"{database.dbname}_copy"
    try:
        planned = restore(target, into=into, dry_run=True)
        assert planned.details["preflight"]
        result = restore(target, into=into, jobs=2)
        assert result.status == "ok"
        assert result.details["proof"]["equal"] is True
        assert [each["state"] for each in backups(target).details["backups"]] == ["proven"]
    finally:
        database.server.drop(into)
    assert files_of_runs(state) <= {"pgsteward/state.db", "pgsteward/receipts.lock"}


def test_contents_larger_than_the_first_look_are_read_to_their_end(
    database: Database, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_dump, "FIRST_LOOK_BYTES", 1000)
    database.execute(ROWS + ";" + ";".join(f"CREATE TABLE t{n} (a int)" for n in range(150)))
    target = streamed(database, tmp_path, bucket)
    result = back_up(target)
    assert result.status == "ok"
    assert result.details["proof"]["relations"] == 151
    assert manifest_in(target, result.details["backup_id"]).proof.sequences != ()
    assert restore(target, dry_run=True).details["preflight"]


@pytest.mark.parametrize("remote", [False, True], ids=["folder", "s3"])
def test_every_other_store_gets_its_copy_from_the_first(
    database: Database, bucket: Bucket, tmp_path: Path, state: Path, remote: bool
) -> None:
    database.execute(ROWS)
    stores = ("s3", "disk") if remote else ("disk", "s3")
    target = make_target(database, tmp_path, bucket=bucket, stores=stores, backup={"mode": "stream"})
    result = back_up_everywhere(target)
    assert result.status == "ok"
    assert result.details["stores"] == list(stores)
    backup_id = result.details["backup_id"]
    folders = [
        bucket.folder / "app" / target.database / backup_id,
        tmp_path / "store" / "app" / target.database / backup_id,
    ]
    assert files_in(folders[0]) == files_in(folders[1]) >= {STREAM, MANIFEST}
    assert (folders[0] / MANIFEST).read_bytes() == (folders[1] / MANIFEST).read_bytes()
    assert verify(target, "latest").details["stores"] == list(stores)
    assert files_of_runs(state) <= {"pgsteward/state.db", "pgsteward/receipts.lock"}


def test_a_backup_that_was_damaged_in_the_first_store_is_not_copied_on(
    database: Database, bucket: Bucket, tmp_path: Path
) -> None:
    database.execute(ROWS)
    target = make_target(database, tmp_path, bucket=bucket, stores=("s3", "disk"), backup={"mode": "stream"})
    backup_id = back_up(target).details["backup_id"]
    stored = bucket.folder / "app" / target.database / backup_id / STREAM
    data = stored.read_bytes()
    stored.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    result = upload(target)
    assert result.status == "failed"
    assert f"{STREAM} in s3 is not what was written" in result.failed[0].reason
    assert MANIFEST not in files_in(tmp_path / "store")
    assert [each["stores"] for each in backups(target).details["backups"]] == [["s3"]]


def test_a_backup_that_only_another_store_holds_is_copied_from_there(
    database: Database, bucket: Bucket, tmp_path: Path
) -> None:
    database.execute(ROWS)
    target = make_target(database, tmp_path, bucket=bucket, stores=("disk", "s3"))
    backup_id = back_up_everywhere(target).details["backup_id"]
    shutil.rmtree(tmp_path / "store" / "app" / target.database)
    assert upload(target, backup_id=backup_id).status == "ok"
    assert verify(target, backup_id).details["stores"] == ["disk", "s3"]


def slow(database: Database) -> None:
    database.execute(
        "CREATE TABLE big AS SELECT g AS id, repeat(md5(g::text), 4) AS filler"
        " FROM generate_series(1, 400000) AS g"
    )


def dump_pids() -> list[int]:
    """Return the running pg_dumps that we have started."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            if words[0].endswith(b"/pg_dump") and parent == os.getpid():
                found.append(int(entry.name))
    return found


@pytest.mark.parametrize("fault", ["pg_dump killed", "backend terminated"])
def test_a_stream_whose_dump_dies_publishes_nothing(
    database: Database, bucket: Bucket, tmp_path: Path, fault: str
) -> None:
    """Measured: the usual upload of a pipe publishes what came until then as if it were all."""
    slow(database)
    target = streamed(database, tmp_path, bucket, compress="none", proof="counts")
    struck = threading.Event()

    def strike(what: str, done: int = 0, total: int = 0) -> None:
        if struck.is_set() or not what.startswith(("proving", "dumping")):
            return
        struck.set()
        if fault == "pg_dump killed":
            for pid in dump_pids():
                os.kill(pid, signal.SIGKILL)
            return
        with database.server.connect() as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'pgsteward dump'"
            )

    expected: type[StewardError] = ToolFailed if fault == "pg_dump killed" else TransientError
    with pytest.raises(expected):
        back_up(target, progress=strike)
    assert struck.is_set()
    assert nothing_in(target)
    assert dump_pids() == []
    assert back_up(target).status == "ok"


def nothing_in(target: Target) -> bool:
    """Tell whether the first store holds no object, and no part of one."""
    store = target.stores()[0]
    return not list(store.objects("")) and store.abort_uploads("") == []


def test_a_store_that_fails_in_the_middle_ends_the_dump(
    database: Database, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow(database)
    target = streamed(database, tmp_path, bucket, compress="none", proof="none")
    store = target.store("s3")
    aborted: list[str] = []
    real = S3Sink.write

    def lose_the_upload(sink: S3Sink, data: bytes) -> int:
        written = real(sink, data)
        if sink._made is not None and not aborted:
            aborted.extend(store.abort_uploads(""))
        return written

    monkeypatch.setattr(S3Sink, "write", lose_the_upload)
    with pytest.raises(StoreUnavailable, match="can't write"):
        back_up(target)
    assert aborted
    assert nothing_in(target)
    assert dump_pids() == []
    assert own_sessions(database.server) == []


def test_a_table_rewritten_while_the_stream_starts_costs_an_attempt_and_no_rows(
    database: Database, tmp_path: Path
) -> None:
    """pg_dump's first byte comes after its last lock: only then is what it sees compared with the present."""
    database.execute("CREATE TABLE t (a int); INSERT INTO t SELECT generate_series(1, 1000)")
    target = streamed(database, tmp_path, None)
    ready, go = threading.Event(), threading.Event()

    def rewrite() -> None:
        with database.connect() as connection:
            with connection.transaction():
                connection.execute("ALTER TABLE t ALTER a TYPE bigint")
                ready.set()
                go.wait(60)
                queue = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 't'::regclass)"
                for _ in range(3000):
                    if connection.value(queue):
                        break
                    time.sleep(0.01)

    writer = threading.Thread(target=rewrite)
    writer.start()
    assert ready.wait(60)
    attempts = []

    def progress(what: str, done: int = 0, total: int = 0) -> None:
        if what.startswith("waiting for the locks"):
            attempts.append(what)
            go.set()

    result = back_up(target, progress=progress)
    writer.join()
    assert len(attempts) == 2
    assert result.details["proof"]["rows"] == 1000
    into = f"{database.dbname}_copy"
    try:
        assert restore(target, into=into).details["proof"]["equal"] is True
    finally:
        database.server.drop(into)


KILLED = """
import sys
from pgsteward.config import Config
from pgsteward.results import StepResult
from pgsteward.storage.s3 import S3Store
from pgsteward.storage.s3_stream import S3Sink
from pgsteward.targets import Target
from pgsteward.backup.dump import back_up

config = Config.model_validate_json(sys.stdin.read())
back_up(Target("app", config.target("app"), config))
"""


def killed_when(target: Target, ready: Callable[[], bool]) -> StepResult:
    """Kill a backup without a warning once it is far enough; return what the next janitor did."""
    with subprocess.Popen(
        [sys.executable, "-c", KILLED], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd="/"
    ) as child:
        assert child.stdin is not None
        child.stdin.write(target.config.model_dump_json().encode())
        child.stdin.close()
        deadline = time.monotonic() + 60
        while not ready() and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        child.send_signal(signal.SIGSTOP)  # it shall not get on meanwhile
        assert child.poll() is None
        with pytest.raises(PreconditionError, match="another backup run"):
            clean_up(target)  # it is alive
        child.kill()
    deadline = time.monotonic() + 60
    while True:
        try:
            return clean_up(target)
        except PreconditionError:  # the server has not noticed yet
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_what_a_killed_stream_leaves_in_s3_is_removed(
    database: Database, bucket: Bucket, tmp_path: Path
) -> None:
    slow(database)
    target = streamed(database, tmp_path, bucket, compress="none", proof="full")
    store = target.store("s3")
    assert isinstance(store, S3Store)
    result = killed_when(target, lambda: bool(store._uploads(f"app/{target.database}/")))
    aborted = [item.object.rpartition("/")[2] for item in result.changed if item.action == "aborted"]
    # On a busy machine the kill may come when the upload has just ended: then there is an object to remove.
    assert aborted in ([], ["archive.dump in s3"])
    assert [item.action for item in result.changed].count("removed") == 1
    assert not store._uploads("")
    assert nothing_in(target)
    assert backups(target).details["backups"] == []
    assert back_up(target).status == "ok"


def test_what_a_killed_stream_leaves_in_a_folder_is_removed(database: Database, tmp_path: Path) -> None:
    slow(database)
    target = streamed(database, tmp_path, None, compress="none")
    store = tmp_path / "store"
    killed_when(target, lambda: bool(list(store.rglob("*.partial"))))
    assert files_in(store) == set()
    assert back_up(target).status == "ok"


def test_streams_stay_in_flat_memory(database: Database, bucket: Bucket, tmp_path: Path) -> None:
    """200 MiB of a dump in a process that may take 200 MiB in all, its interpreter and boto3 included."""
    database.execute(
        "CREATE TABLE big AS SELECT g AS id, repeat(md5(g::text), 64) AS filler"
        " FROM generate_series(1, 110000) AS g"
    )
    target = streamed(database, tmp_path, bucket, compress="none", proof="counts")
    # not ru_maxrss: a child begins with its parent's
    code = KILLED + "print(open('/proc/self/status').read().partition('VmHWM:')[2].split()[0])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=target.config.model_dump_json(),
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    [listed] = backups(target).details["backups"]
    assert listed["bytes"] > 200 << 20
    assert int(done.stdout) < 200 << 10, done.stdout
