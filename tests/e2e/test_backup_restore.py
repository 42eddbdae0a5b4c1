"""A backup's whole way: dumped, uploaded, restored from either store, compared; and how it goes wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgsteward.backup.manifest import backup_prefix
from pgsteward.backup.proof import read_sequences, take_proof
from pgsteward.backup.proof_compare import compare
from pgsteward.backup.run import back_up_everywhere
from pgsteward.errors import PreconditionError, VerificationFailed
from pgsteward.janitor import clean_up
from pgsteward.postgres import compose, identifier
from pgsteward.restore.fetch import spool_root
from pgsteward.restore.found import find_backup
from pgsteward.restore.preflight import choose
from pgsteward.restore.run import restore
from pgsteward.restore.scratch import PREFIX, leftovers
from pgsteward.targets import Target
from tests.integration.backup_targets import make_target
from tests.servers import Bucket, Database, Server


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def databases(server: Server, pattern: str) -> list[str]:
    with server.connect() as connection:
        rows = connection.rows(
            "SELECT datname::text AS name FROM pg_database WHERE datname LIKE %(p)s ORDER BY 1",
            {"p": pattern},
        )
    return [row["name"] for row in rows]


@pytest.fixture
def target(sample_database: Database, bucket: Bucket, tmp_path: Path) -> Iterator[Target]:
    target = make_target(sample_database, tmp_path, bucket=bucket, stores=("disk", "s3"))
    assert back_up_everywhere(target).status == "ok"
    yield target
    for name in databases(sample_database.server, f"{sample_database.name}\\_%"):
        sample_database.server.drop(name)


@pytest.mark.parametrize("store", ["disk", "s3"])
def test_the_sample_comes_back_from_either_store_and_is_equal(
    target: Target, sample_database: Database, store: str
) -> None:
    result = restore(target, store=store)
    assert result.status == "ok", result
    assert result.details["store"] == store
    assert result.details["proof"]["equal"] is True
    assert result.details["proof"]["rows"] > 5_000
    assert ("fetch" in result.details["phases"]) == (store == "s3")
    assert list(target.store(store).objects(f"app/{target.database}/receipts/"))
    copy = Database(sample_database.server, result.details["into"])
    jobs = "SELECT count(*) FROM jobs"
    assert copy.value(jobs) == sample_database.value(jobs)


def test_the_copy_is_the_snapshot_not_the_database_of_today(
    target: Target, sample_database: Database
) -> None:
    sample_database.execute("DELETE FROM job_applications")
    assert restore(target, store="s3").status == "ok"


def test_one_byte_changed_in_s3_is_refused_with_the_files_name(
    target: Target, bucket: Bucket, sample_database: Database
) -> None:
    prefix = backup_prefix("app", target.database, find_backup(target, "latest").manifest.backup_id)
    largest = max((bucket.folder / prefix / "dump").iterdir(), key=lambda path: path.stat().st_size)
    good = largest.read_bytes()
    largest.write_bytes(good[:100] + bytes([good[100] ^ 1]) + good[101:])
    with pytest.raises(VerificationFailed, match=f"dump/{largest.name} of backup .* in store 's3'"):
        restore(target, store="s3")
    assert databases(sample_database.server, f"{PREFIX}%") == []
    assert restore(target, store="disk").status == "ok"


def test_a_row_changed_in_the_restored_copy_is_found_in_its_table(
    target: Target, sample_database: Database
) -> None:
    result = restore(target, store="s3")
    copy = Database(sample_database.server, result.details["into"])
    expected = find_backup(target, "latest").manifest.proof

    def differences() -> list[str]:
        actual = take_proof(copy.login, "full", snapshot_id=None)
        sequences = {"sequences": read_sequences(copy.login)}
        return [str(each) for each in compare(expected, actual.model_copy(update=sequences))]

    assert differences() == []
    copy.execute("UPDATE companies SET name = name || ' Ltd' WHERE id = (SELECT min(id) FROM companies)")
    (found,) = differences()
    assert found.startswith("public.companies: content differs")


def test_replacing_brings_lost_rows_back_when_the_name_is_repeated(
    target: Target, sample_database: Database
) -> None:
    jobs = "SELECT count(*) FROM job_applications"
    before = sample_database.value(jobs)
    sample_database.execute("TRUNCATE job_applications")
    with pytest.raises(PreconditionError, match="repeat it as confirm_database"):
        restore(target, replace=True, confirm_database="intowork")
    assert sample_database.value(jobs) == 0
    result = restore(target, store="s3", replace=True, confirm_database=target.database)
    assert result.status == "ok"
    assert sample_database.value(jobs) == before
    assert Database(sample_database.server, result.details["replaced"]).value(jobs) == 0


KILLED = """
import sys, time
from pgsteward.config import Config
from pgsteward.restore.preflight import choose
from pgsteward.restore.run import restore
from pgsteward.targets import Target

def progress(what, done=0, total=0):
    if what.startswith(sys.argv[1]):
        print("there", flush=True)
        time.sleep(60)

config = Config.model_validate_json(sys.stdin.read())
restore(Target("app", config.target("app"), config), store="s3", progress=progress)
"""


@pytest.mark.parametrize("moment", ["loading", "proving"])
def test_what_a_killed_restore_leaves_is_dropped_by_the_next_night(
    target: Target, sample_database: Database, moment: str
) -> None:
    server = sample_database.server
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, moment],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        env=os.environ.copy(),
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(target.config.model_dump_json().encode())
        process.stdin.close()
        assert process.stdout.readline() == b"there\n"
        (alive,) = leftovers(server.login)
        assert alive.alive
        waiting = clean_up(target)
        assert any(note.object == alive.database for note in waiting.skipped)
        assert databases(server, f"{PREFIX}%") == [alive.database]
        assert list(spool_root().iterdir()) != []
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while any(left.alive for left in leftovers(server.login)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    cleared = {item.object for item in clean_up(target).changed}
    assert alive.database in cleared
    assert databases(server, f"{PREFIX}%") == []
    assert list(spool_root().iterdir()) == []
    assert restore(target, store="s3").status == "ok"


def test_the_way_without_pgsteward_works_too(
    target: Target, sample_database: Database, tmp_path: Path
) -> None:
    """RESTORE.md promises it: the plain files and pg_restore are enough."""
    server = sample_database.server
    manifest = find_backup(target, "latest").manifest
    folder = tmp_path / "store" / backup_prefix("app", target.database, manifest.backup_id)
    name = f"{target.database}_by_hand"
    server.create(name)
    client = choose(target, manifest, server.version * 10_000)
    subprocess.run(
        [
            client.tool("pg_restore"),
            "--jobs=2",
            f"--dbname={server.login.to(name).conninfo}",
            folder / "dump",
        ],
        env={**os.environ, **server.login.tool_env()},
        check=client.version[0] <= server.version,  # a newer one complains about a setting, and goes on
    )
    with server.connect(name) as connection:
        assert connection.value("SELECT count(*) FROM jobs") == sample_database.value(
            "SELECT count(*) FROM jobs"
        )
        connection.execute(compose("COMMENT ON DATABASE {} IS NULL", identifier(name)))
