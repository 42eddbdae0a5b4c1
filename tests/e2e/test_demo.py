"""The README's first command, as a person runs it: whole, killed in the middle, and stopped twice."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(420)

ENDED = ("CRASHED", "FAILED", "CANCELLED", "COMPLETED")


@contextlib.contextmanager
def demo(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Start the demo; whatever a failing test leaves running is killed."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "PGSTEWARD_", "COV"))}
    with (folder.parent / "stderr.txt").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "pgsteward.cli", "demo", "--scale", "0.01", "--folder", str(folder)],
            stdout=subprocess.PIPE,
            stderr=errors,
            env=env,
            text=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def family(folder: Path) -> list[str]:
    """Return the command lines of every process that belongs to a demo in this folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            environment = (entry / "environ").read_bytes().decode(errors="replace")
            if str(folder) in line or str(folder) in environment:
                found.append(line)
    return found


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        time.sleep(0.2)


def runs_in_state(folder: Path, *states: str) -> int:
    database = folder / "prefect" / "home" / "prefect.db"
    if not database.exists():
        return 0
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=5)) as connection:
        try:
            rows = connection.execute("SELECT state_type FROM flow_run").fetchall()
        except sqlite3.OperationalError:  # the server is still making its tables
            return 0
    return sum(row[0] in states for row in rows)


def test_the_demo_reports_a_night_and_a_proven_restore_and_leaves_nothing_running(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    with demo(folder) as process:
        output, _ = process.communicate(timeout=240)
    errors = (tmp_path / "stderr.txt").read_text()
    assert process.returncode == 0, errors
    for words in ("backup", "upload", "sessions", "reindex", "matviews", "intowork_restored"):
        assert words in output
    assert family(folder) == []
    assert runs_in_state(folder, "COMPLETED", "FAILED") == 1
    assert runs_in_state(folder, "RUNNING", "PENDING", "CANCELLING") == 0
    assert not (folder / "secrets").exists()


def test_killed_in_the_middle_it_leaves_no_process_and_the_next_one_stops_clean_on_two_ctrl_c(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "demo"
    with demo(folder) as first:
        wait_for(lambda: runs_in_state(folder, "RUNNING") == 1, 120, "the nightly run")
        first.kill()
        first.wait()
        killed = time.monotonic()
        while (left := family(folder)) and time.monotonic() < killed + 90:
            time.sleep(0.2)
        assert left == []
        print(f"all children were gone {time.monotonic() - killed:.1f} s after the kill")
    # A kill can't tell the server, but a dying worker may still do so; what it left the next start must heal.
    assert runs_in_state(folder, "RUNNING", *ENDED) == 1
    with demo(folder) as second:
        wait_for(
            lambda: runs_in_state(folder, *ENDED) == 1 and runs_in_state(folder, "RUNNING") == 1,
            120,
            "the healing of the old run and the start of the new one",
        )
        second.send_signal(signal.SIGINT)
        time.sleep(0.5)
        second.send_signal(signal.SIGINT)
        second.communicate(timeout=60)
        assert second.returncode == 130, (tmp_path / "stderr.txt").read_text()
    assert family(folder) == []
    assert runs_in_state(folder, "RUNNING", "PENDING", "CANCELLING") == 0
