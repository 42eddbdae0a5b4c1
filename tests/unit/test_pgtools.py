from __future__ import annotations

import os
import signal
import stat
import sys
import threading
import time
from pathlib import Path
from typing import IO

import pytest

from pgsteward import pgtools
from pgsteward.errors import StoreFailed, ToolFailed
from pgsteward.pgtools import run_tool, start_tool, tool_env
from pgsteward.postgres import Login
from pgsteward.redaction import redact

PYTHON = sys.executable


def test_output_and_warnings_are_returned() -> None:
    said = run_tool([PYTHON, "-c", "import sys; print('out'); print('err', file=sys.stderr)"], env={})
    assert said.stdout == b"out\n"
    assert said.stderr_lines == ("err",)


def test_a_flood_on_both_pipes_stalls_nothing() -> None:
    code = "import sys\nfor i in range(20000): print('x' * 100); print('y' * 100, file=sys.stderr)"
    lines: list[str] = []
    said = run_tool([PYTHON, "-c", code], env={}, on_stderr=lines.append)
    assert len(said.stdout) == 20000 * 101
    assert len(lines) == 20000


def test_output_goes_into_a_private_file(tmp_path: Path) -> None:
    run_tool([PYTHON, "-c", "print('secret')"], env={}, stdout=tmp_path / "out")
    assert (tmp_path / "out").read_text() == "secret\n"
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o600


def test_a_bad_end_raises_with_the_last_words_and_without_secrets() -> None:
    code = "import os, sys; print('wrong:', os.environ['PGPASSWORD'], file=sys.stderr); sys.exit(3)"
    with pytest.raises(ToolFailed, match=r"ended with status 3: wrong: \*\*\*") as caught:
        run_tool([PYTHON, "-c", code], env={"PGPASSWORD": "s3cr3t"})
    assert "s3cr3t" not in str(caught.value)


def test_a_statement_with_thousands_of_tables_does_not_fill_the_error() -> None:
    """Out of locks, pg_dump prints its LOCK TABLE with every name: 100 kB in report and history."""
    code = (
        "import sys; print('ERROR:  out of shared memory', file=sys.stderr);"
        "print('LOCK TABLE ' + 'public.t, ' * 20000, file=sys.stderr); sys.exit(1)"
    )
    with pytest.raises(ToolFailed, match="out of shared memory") as caught:
        run_tool([PYTHON, "-c", code], env={})
    assert "LOCK TABLE public.t, public.t" in str(caught.value)
    assert "more characters)" in str(caught.value)
    assert len(str(caught.value)) < 2_000


def test_a_tool_that_is_killed_is_no_success() -> None:
    with pytest.raises(ToolFailed, match="SIGKILL"):
        run_tool([PYTHON, "-c", f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})"], env={})


def test_a_program_that_is_not_there_is_our_error() -> None:
    with pytest.raises(ToolFailed, match="can't be started"):
        run_tool(["/nonexistent/pg_dump"], env={})


class _Cancelled(BaseException):
    pass


def test_whatever_stops_the_wait_ends_the_tool() -> None:
    def cancel() -> None:
        raise _Cancelled

    tool = start_tool([PYTHON, "-c", "import time; time.sleep(60)"], env={})
    with pytest.raises(_Cancelled):
        tool.wait(cancel)
    with pytest.raises(ProcessLookupError):
        os.kill(tool.process.pid, 0)


def test_a_tool_that_ignores_sigterm_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgsteward.pgtools.GRACE_S", 0.3)
    code = (
        "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        " print('deaf', file=sys.stderr, flush=True); time.sleep(60)"
    )
    deaf = threading.Event()
    tool = start_tool([PYTHON, "-c", code], env={}, on_stderr=lambda _: deaf.set())
    assert deaf.wait(60)
    began = time.monotonic()
    tool.stop()
    assert time.monotonic() - began < 5
    assert tool.poll() == -signal.SIGKILL


@pytest.mark.parametrize("deaf", [False, True], ids=["hears-sigterm", "deaf"])
def test_workers_of_a_tool_that_was_killed_end_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deaf: bool
) -> None:
    """A worker in the middle of a COPY reads nothing from its leader, and so does not notice."""
    monkeypatch.setattr(pgtools, "GRACE_S", 0.5)
    trap = "trap '' TERM; " if deaf else ""
    monkeypatch.chdir(tmp_path)
    worker = f"{trap}echo $$ >&2; : >there; while :; do sleep 0.1; done"
    code = f"({worker}) & until [ -e there ]; do sleep 0.05; done; kill -9 $$"
    with pytest.raises(ToolFailed, match="was ended by SIGKILL") as caught:
        run_tool(["/bin/sh", "-c", code], env={})
    group = int(str(caught.value).rpartition(" ")[2])
    deadline = time.monotonic() + 60
    while True:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            break
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_leaving_the_block_ends_the_tool() -> None:
    with start_tool([PYTHON, "-c", "import time; time.sleep(60)"], env={}) as tool:
        assert tool.poll() is None
    assert tool.poll() is not None


def test_readers_end_with_their_tool() -> None:
    before = threading.active_count()
    run_tool([PYTHON, "-c", "print(1)"], env={})
    assert threading.active_count() == before


def test_the_password_travels_in_the_environment() -> None:
    env = tool_env(Login("dbname=x", "pw"), "dump")
    assert env["PGPASSWORD"] == "pw"
    assert env["PGAPPNAME"] == "pgsteward dump"
    assert redact("a pw b", ("pw",)) == "a *** b"


@pytest.mark.parametrize("short", ["a", "is", "pw", "end"])
def test_a_short_password_does_not_mangle_what_is_known_by_its_words(short: str) -> None:
    said = "terminating connection: the database system was shutting down; it was pending for this user"
    assert (
        redact(f"{said}: {short}, '{short}', PASSWORD={short}", (short,))
        == f"{said}: ***, '***', PASSWORD=***"
    )


def test_a_longer_one_goes_wherever_it_stands() -> None:
    assert redact("xs3cr3tx: %s3cr3t", ("s3cr3t", "")) == "x***x: %***"


def test_time_limits_of_roles_and_databases_are_put_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGOPTIONS", "-c work_mem=1MB")
    options = tool_env(Login("dbname=x"), "dump")["PGOPTIONS"]
    assert options.startswith("-c work_mem=1MB -c ")
    for limit in ("statement_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout"):
        assert f"-c {limit}=0" in options


def test_a_tool_reads_relative_paths_as_we_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # sslrootcert=ca.pem in a conninfo must mean the same file to our own sessions and to pg_dump
    monkeypatch.chdir(tmp_path)
    assert run_tool(["/bin/pwd"], env={}).stdout.decode().strip() == str(tmp_path)


def test_what_takes_the_output_gets_all_of_it_and_is_waited_for() -> None:
    taken: list[bytes] = []

    def take(pipe: IO[bytes]) -> None:
        while chunk := pipe.read(1 << 16):
            time.sleep(0.01)
            taken.append(chunk)

    with start_tool([PYTHON, "-c", "print('x' * 999_999)"], env={}, take_stdout=take) as tool:
        output = tool.wait()
    assert b"".join(taken) == b"x" * 999_999 + b"\n"
    assert output.stdout == b""


def test_what_can_not_take_the_output_ends_the_tool_and_says_why() -> None:
    def refuse(pipe: IO[bytes]) -> None:
        pipe.read(1)
        raise StoreFailed("the store is full")

    endless = "import sys\nwhile True: sys.stdout.write('x' * 65536)"
    with start_tool([PYTHON, "-c", endless], env={}, take_stdout=refuse) as tool:
        with pytest.raises(StoreFailed, match="the store is full"):
            tool.wait()
        assert tool.poll() is not None


def test_an_output_that_was_taken_does_not_hide_the_status() -> None:
    def take(pipe: IO[bytes]) -> None:
        while pipe.read(1 << 16):
            pass

    with start_tool([PYTHON, "-c", "print('x'); raise SystemExit(3)"], env={}, take_stdout=take) as tool:
        with pytest.raises(ToolFailed, match="status 3"):
            tool.wait()
