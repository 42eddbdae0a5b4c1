"""A night that is killed by SIGKILL, and the night after it: no half backup, and nothing is left behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pgsteward.backup.catalog import backups, verify
from pgsteward.backup.manifest import MANIFEST, MARK, catalog_prefix
from pgsteward.places import state_folder
from pgsteward.restore.scratch import PREFIX
from pgsteward.storage import selftest
from pgsteward.storage.s3 import S3Store
from pgsteward.storage.selftest import SelfTest, Traits
from pgsteward.targets import Target, load_target
from tests.integration.backup_targets import own_sessions
from tests.servers import Bucket, Database

pytestmark = pytest.mark.contrib

GATE = 7042
"""Advisory lock that the test holds; the rebuild of one index waits for it, row by row."""

HELD_INDEX = f"""
CREATE FUNCTION public.held(value anyelement) RETURNS anyelement LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    PERFORM pg_catalog.pg_advisory_xact_lock_shared({GATE});
    RETURN value;
END $$;
CREATE INDEX "held up" ON public.sessions (public.held(expires));
"""

LARGE = "CREATE TABLE public.large AS SELECT repeat('x', 1000) AS a FROM generate_series(1, 68000)"
"""Dumped without compression it is more than 64 MiB, which goes up in parts."""


@dataclass
class Gate:
    """Stands before the S3 endpoint, and lets nothing more through after the words that it waits for."""

    endpoint: tuple[str, int]
    words: bytes = b"no such words"
    closed: threading.Event = field(default_factory=threading.Event)
    server: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))
    ends: list[socket.socket] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.getsockname()[1]}"

    def serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.server.accept()
                behind = socket.create_connection(self.endpoint)
                self.ends += [client, behind]
                threading.Thread(target=self._pass, args=(client, behind, True), daemon=True).start()
                threading.Thread(target=self._pass, args=(behind, client, False), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, is_request: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 20):
                if is_request and self.words in data:
                    self.closed.set()
                if self.closed.is_set():
                    return
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()
        for end in self.ends:
            end.close()


@pytest.fixture
def gate(bucket: Bucket) -> Iterator[Gate]:
    gate = Gate(("127.0.0.1", bucket.s3.port))
    threading.Thread(target=gate.serve, daemon=True).start()
    yield gate
    gate.close()


@dataclass(frozen=True)
class Night:
    """What a night needs, and where one can look at it."""

    database: Database
    config: Path
    folder: Path
    gate: Gate

    @property
    def target(self) -> Target:
        return load_target("app", self.config)

    def start(self, *command: str) -> subprocess.Popen[str]:
        argv = [sys.executable, "-m", "pgsteward.cli", "--config", str(self.config)]
        argv += [*(command or ("nightly",)), "--json"]
        return subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ.copy()
        )

    def run(self) -> dict[str, Any]:
        with self.start() as child:
            out, err = child.communicate(timeout=200)
        assert child.returncode in (0, 3), err
        found: dict[str, Any] = json.loads(out)
        return found

    def kill_when(self, ready: Callable[[], bool]) -> None:
        with self.start() as child:
            try:
                wait_for(ready, child)
            finally:
                child.kill()
                child.communicate()


@pytest.fixture
def night(
    sample_database: Database,
    bucket: Bucket,
    gate: Gate,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Night:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("NIGHT_PASSWORD", sample_database.password or "")
    monkeypatch.setenv("NIGHT_KEY", bucket.s3.access_key_id)
    monkeypatch.setenv("NIGHT_SECRET", bucket.s3.secret_access_key)
    sample_database.execute(HELD_INDEX.encode())
    sample_database.execute("VACUUM")  # counters are not copied with a database: dead rows would be unknown
    clients = f'client_dirs = ["{sample_database.server.bin_dir}"]' if sample_database.server.bin_dir else ""
    config = tmp_path / "pgsteward.toml"
    config.write_text(
        f"""
state_url = "sqlite:///state.db"
[stores.disk]
url = "file://{tmp_path}/store"
[stores.s3]
url = "{bucket.url}"
endpoint_url = "{gate.url}"
access_key_id = {{ env = "NIGHT_KEY" }}
secret_access_key = {{ env = "NIGHT_SECRET" }}
[targets.app]
conninfo = "{sample_database.conninfo}"
password = {{ env = "NIGHT_PASSWORD" }}
stores = ["disk", "s3"]
{clients}
[targets.app.backup]
compress = "none"
[[targets.app.sessions]]
table = "public.sessions"
expires = "expires"
[targets.app.index_bloat]
min_reclaimable = "16kB"
"""
    )
    found = Night(sample_database, config, tmp_path, gate)
    passed = SelfTest((), Traits(), datetime.now(UTC).isoformat())
    selftest.remember(found.target.config.stores["s3"], passed)
    return found


def wait_for(
    condition: Callable[[], bool], child: subprocess.Popen[str] | None = None, timeout_s: float = 90.0
) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert child is None or child.poll() is None, "the night ended before it could be killed"
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def wait_until_alone(database: Database) -> None:
    wait_for(lambda: own_sessions(database.server) == [])


def waits(database: Database, application: str, lock: str) -> bool:
    """Tell whether a session waits for a kind of lock; of others it may wait for a moment only."""
    return bool(
        database.value(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = %(name)s AND wait_event_type = 'Lock' AND wait_event = %(lock)s)",
            {"name": application, "lock": lock},
        )
    )


def killed_in_the_dump(night: Night) -> None:
    with night.database.connect(autocommit=False) as holder:
        holder.execute("LOCK TABLE public.jobs IN ACCESS EXCLUSIVE MODE")
        night.kill_when(lambda: waits(night.database, "pgsteward dump", "relation"))
    assert list((night.folder / "store").rglob(MARK)), "the dump had not begun"


def killed_with_its_manifest(night: Night) -> None:
    night.kill_when(lambda: bool(list((night.folder / "store").rglob(MANIFEST))))


def killed_in_the_upload(night: Night) -> None:
    night.database.execute(LARGE)
    night.gate.words = b"partNumber=2"
    night.kill_when(night.gate.closed.is_set)
    night.gate.words = b"no such words"
    night.gate.closed.clear()
    night.database.execute("DROP TABLE public.large")
    store = night.target.store("s3")
    assert isinstance(store, S3Store)
    assert store._uploads(""), "no upload was cut off in the middle"


def killed_in_the_reindex(night: Night) -> None:
    with night.database.connect() as holder:
        holder.execute(f"SELECT pg_advisory_lock({GATE})".encode())
        night.kill_when(lambda: waits(night.database, "pgsteward reindex", "advisory"))
        wait_until_alone(night.database)
    assert invalid_indexes(night.database), "the rebuild had not begun"


def invalid_indexes(database: Database) -> list[str]:
    rows = database.rows("SELECT indexrelid::regclass::text AS name FROM pg_index WHERE NOT indisvalid")
    return [row["name"] for row in rows]


def assert_every_listed_backup_is_whole(target: Target) -> list[str]:
    listed = backups(target)
    # no backup at all is a finding, and then only that
    assert listed.status == "ok" if listed.details["backups"] else listed.only_findings, listed
    for entry in listed.details["backups"]:
        for store in entry["stores"]:
            assert verify(target, entry["backup_id"], store=store).status == "ok"
    return [entry["backup_id"] for entry in listed.details["backups"]]


def assert_nothing_is_left_behind(night: Night) -> None:
    target = night.target
    for store in target.stores():
        catalog = catalog_prefix("app", target.database)
        keys = {stored.key for stored in store.objects(catalog)}
        assert not [key for key in keys if key.endswith(MARK)]
        folders = {key.removeprefix(catalog).partition("/")[0] for key in keys}
        assert {folder for folder in folders if f"{catalog}{folder}/{MANIFEST}" not in keys} == set()
        assert store.abort_uploads("") == []
    assert not list((night.folder / "store").rglob("*.partial"))
    assert invalid_indexes(night.database) == []
    marks = night.folder / "state" / "pgsteward" / "reindex"
    assert not marks.exists() or list(marks.iterdir()) == []
    with night.database.server.connect() as admin:
        scratch = admin.rows(
            "SELECT datname FROM pg_database WHERE starts_with(datname, %(prefix)s)", {"prefix": PREFIX}
        )
    assert scratch == []
    wait_until_alone(night.database)


@pytest.mark.parametrize(
    ("kill", "listed"),
    [
        pytest.param(killed_in_the_dump, {0}, id="dump"),
        pytest.param(killed_with_its_manifest, {1}, id="manifest"),
        pytest.param(killed_in_the_upload, {0, 1}, id="upload"),  # files go up while the dump still writes
        pytest.param(killed_in_the_reindex, {1}, id="reindex"),
    ],
)
def test_the_night_after_a_killed_one_is_clean(
    night: Night, kill: Callable[[Night], None], listed: set[int]
) -> None:
    kill(night)
    assert len(assert_every_listed_backup_is_whole(night.target)) in listed
    wait_until_alone(night.database)

    found = night.run()
    assert (found["failed"], found["unknown"]) == ([], [])
    steps = {step["step"]: step for step in found["steps"]}
    assert all(steps[name]["status"] == "ok" for name in ("janitor", "backup", "upload", "prune", "reindex"))
    whole = assert_every_listed_backup_is_whole(night.target)
    assert whole[0] == steps["backup"]["backup_id"]
    assert len(whole) in {count + 1 for count in listed}
    assert_nothing_is_left_behind(night)


@pytest.mark.parametrize("command", ["backup", "first backup", "restore"])
def test_a_store_that_stops_answering_does_not_keep_a_run_from_stopping(night: Night, command: str) -> None:
    """An upload, a self-test or a download hangs; told to stop, the run is gone within ten seconds."""
    if command == "first backup":
        shutil.rmtree(state_folder() / "stores")
    if command == "restore":
        backed_up = night.start("backup").communicate()
        assert backed_up[0], backed_up[1]
    night.database.execute(LARGE if command == "backup" else b"SELECT")
    night.gate.words = b"/dump/toc.dat" if command == "restore" else b"partNumber=2"
    arguments = {
        "backup": ("backup", "app"),
        "first backup": ("backup", "app"),
        "restore": ("restore", "latest", "--from", "s3", "--into", f"{night.database.name}_x"),
    }[command]
    with night.start(*arguments) as child:
        wait_for(night.gate.closed.is_set, child)
        told = time.monotonic()
        child.send_signal(signal.SIGTERM)
        out, err = child.communicate(timeout=60)
    assert time.monotonic() - told < 10
    assert child.returncode == 143, err
    assert json.loads(out)["summary"] == "stopped by SIGTERM"
    wait_until_alone(night.database)
