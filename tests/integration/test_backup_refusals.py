"""What is refused for want of room, what is only warned of, and what is never published."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pgsteward import capacity
from pgsteward.backup import lock_watch
from pgsteward.backup.beside import Beside
from pgsteward.backup.dump import back_up
from pgsteward.backup.files import BackupFiles
from pgsteward.backup.folder_hashes import FolderHashes
from pgsteward.backup.lock_watch import LockWatch
from pgsteward.backup.manifest import MARK
from pgsteward.backup.room import Room, reserved
from pgsteward.errors import PreconditionError, VerificationFailed
from pgsteward.postgres import connect
from tests.integration.backup_targets import make_target, nothing_left, own_sessions
from tests.servers import Database

DEAD = "20261101T020000Z-abcdef"


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "free_bytes", lambda folder: (1, folder))


def made(database: Database, tmp_path: Path, **settings: Any) -> list[str]:
    """Back up, and return the warnings about room."""
    target = make_target(database, tmp_path, backup={"proof": "none", "compress": "gzip:1", **settings})
    return [each for each in back_up(target).details["warnings"] if "needs" in each]


@pytest.mark.any_server
@pytest.mark.usefixtures("full_disk")
def test_a_whole_backup_without_room_is_refused_until_somebody_knows_better(
    database: Database, tmp_path: Path
) -> None:
    database.execute("CREATE TABLE t (id int)")
    with pytest.raises(PreconditionError, match=r"size of the database itself.*disk_check = false"):
        made(database, tmp_path)
    (warning,) = made(database, tmp_path, disk_check=False)
    assert "store disk needs" in warning
    with pytest.raises(PreconditionError, match=r"1\.3 times the backup before it"):
        made(database, tmp_path)


@pytest.mark.any_server
def test_what_backups_beside_it_will_need_is_no_room_for_it(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(capacity, "free_bytes", lambda folder: (1 << 20, tmp_path))
    database.execute("CREATE TABLE t (id int)")
    made(database, tmp_path, disk_check=False)
    assert made(database, tmp_path) == []
    target = make_target(database, tmp_path)
    home, beside = target.store("disk"), replace(target, dbname="beside")
    large = Room(1 << 20, "", 1 << 20, tmp_path)
    with reserved(beside, home, large):  # which has no backup yet, and may need much less
        (warning,) = made(database, tmp_path)
        assert "1.05 MB of it for backups that are made beside it" in warning
    with reserved(beside, home, replace(large, is_known=True)):
        with pytest.raises(PreconditionError, match="for backups that are made beside it"):
            made(database, tmp_path)
        unfinished = f"app/beside/{DEAD}/"
        home.put_bytes(unfinished + MARK, b"{}")
        home.put_bytes(f"{unfinished}dump/1.dat", bytes((1 << 20) - 2))
        assert made(database, tmp_path) == [], "what they have written by now is not free any more"
    (tmp_path / "state" / "pgsteward" / "room" / "of a dead run.json").write_text("{}")
    assert made(database, tmp_path) == []
    assert [file.name for file in (tmp_path / "state" / "pgsteward" / "room").iterdir()] == ["room.lock"]


@pytest.mark.any_server
@pytest.mark.usefixtures("full_disk")
def test_a_guess_refuses_no_backup(database: Database, tmp_path: Path) -> None:
    database.execute("CREATE TABLE t (id int)")
    assert len(made(database, tmp_path, tables=["t"])) == 1
    made(database, tmp_path, disk_check=False)
    (warning,) = made(database, tmp_path, compress="none")
    assert "compressed otherwise" in warning


@pytest.mark.any_server
def test_a_backup_without_its_contents_is_not_published(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.execute("CREATE TABLE t (id int)")
    real = FolderHashes.finish

    def forgetful(hashes: FolderHashes, *args: Any) -> dict[str, tuple[int, str]]:
        found = real(hashes, *args)
        return {path: hashed for path, hashed in found.items() if not path.endswith("toc.dat")}

    monkeypatch.setattr(FolderHashes, "finish", forgetful)
    target = make_target(database, tmp_path)
    with pytest.raises(VerificationFailed, match=r"dump/toc.dat is not among the \d+ files"):
        back_up(target)
    assert nothing_left(target)


def test_who_asked_for_a_table_before_the_proof_is_named_and_the_dump_is_not(database: Database) -> None:
    database.execute("CREATE TABLE t (id int)")
    with (
        connect(database.login, purpose="dump") as dump,
        connect(database.login, purpose="proof", lock_timeout_s=0) as proof,
        database.connect() as other,
    ):
        pid = other.value("SELECT pg_backend_pid()")
        dump.execute("BEGIN; LOCK TABLE t IN ACCESS SHARE MODE")
        with Beside("other", lambda _: other.execute("SET lock_timeout = 0; TRUNCATE t")) as truncating:
            wait_for_queue(database, 1)
            with Beside("proof", lambda _: proof.rows("SELECT id FROM t")) as reading:
                wait_for_queue(database, 2)
                with LockWatch(database.login) as watch:
                    until = time.monotonic() + 60
                    while not watch.held_up and time.monotonic() < until:
                        time.sleep(0.05)
                held_up = watch.held_up
                dump.execute("ROLLBACK")
                reading.result()
            truncating.result()
    assert held_up.startswith(f"public.t was locked by pid {pid} (")
    assert "pgsteward dump" not in held_up


def wait_for_queue(database: Database, length: int) -> None:
    until = time.monotonic() + 60
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 't'::regclass"
    while database.value(waiting) < length:
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_sample_that_is_cut_off_at_the_end_is_no_trouble_and_a_gap_stays(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_watch, "_CONNECT_AGAIN_S", 0.05)
    monkeypatch.setattr(lock_watch, "load", lambda name: b"SELECT pg_sleep(60), %(ours)s::text[]")
    asleep = (
        "SELECT pid FROM pg_stat_activity"
        " WHERE application_name = 'pgsteward lock watch' AND state = 'active'"
        " AND datname = current_database()"
    )
    with LockWatch(database.login) as watch:
        wait_until(lambda: database.rows(asleep))
    assert watch.blind is None
    with LockWatch(database.login) as watch:
        wait_until(lambda: database.rows(asleep))
        (first,) = database.rows(asleep)
        database.execute("SELECT pg_terminate_backend(%(pid)s)", first)
        wait_until(lambda: [row for row in database.rows(asleep) if row != first])
    assert watch.blind is not None


def test_the_snapshot_is_let_go_before_files_are_hashed_to_their_end(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.execute("CREATE TABLE t (id int)")
    real = BackupFiles.adopt

    def slow(files: BackupFiles, *args: Any) -> None:
        wait_until(lambda: "pgsteward snapshot" not in own_sessions(database.server))
        real(files, *args)

    monkeypatch.setattr(BackupFiles, "adopt", slow)
    assert back_up(make_target(database, tmp_path)).status == "ok"


def wait_until(there: Callable[[], object]) -> None:
    until = time.monotonic() + 60
    while not there():
        assert time.monotonic() < until
        time.sleep(0.05)
