from __future__ import annotations

import os
import signal
import stat
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

import pytest

from pgsteward import pgtools
from pgsteward.errors import PreconditionError, StoreFailed, ToolFailed
from pgsteward.pgtools import Client, choose_client, find_clients, redact, run_tool, start_tool, tool_env
from pgsteward.postgres import Login

PYTHON = sys.executable


def fake_client(folder: Path, version: str, *, codecs: tuple[str, ...] = ("gzip",)) -> Client:
    """Make a folder with a pg_dump that tells this version and knows these codecs."""
    folder.mkdir(parents=True)
    cases = "".join(
        f"*--compress={codec}*) echo 'failed: nonexistent-pgsteward-probe' >&2;;" for codec in codecs
    )
    script = (
        f'#!/bin/sh\ncase "$*" in *--version*) echo "pg_dump (PostgreSQL) {version}"; exit 0;;'
        f' {cases} *) echo "this build does not support compression" >&2;; esac\nexit 1\n'
    )
    for tool in ("pg_dump", "pg_restore", "pg_dumpall"):
        (folder / tool).write_text(script)
        (folder / tool).chmod(0o755)
    major, _, minor = version.partition(".")
    return Client(folder, (int(major), int(minor.split()[0])))


def test_clients_are_found_and_asked_for_their_version(tmp_path: Path) -> None:
    fake_client(tmp_path / "a", "12.3 (Debian 12.3-1)")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "pg_dump").write_text("#!/bin/sh\nexit 3\n")
    (tmp_path / "broken" / "pg_dump").chmod(0o755)
    found = find_clients([tmp_path / "a", tmp_path / "broken", tmp_path / "missing"])
    mine = [client for client in found if tmp_path in client.folder.parents]
    assert mine == [Client(tmp_path / "a", (12, 3))]
    assert found == sorted(found, key=lambda client: client.version)


def test_debians_wrapper_script_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "pg_wrapper").write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 12.0'\n")
    (tmp_path / "pg_wrapper").chmod(0o755)
    (tmp_path / "pg_dump").symlink_to(tmp_path / "pg_wrapper")
    assert all(client.folder != tmp_path for client in find_clients([tmp_path]))


def _in(folder: Path) -> list[Client]:
    return [client for client in find_clients([folder]) if client.folder == folder]


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        pytest.param(b"#!/bin/sh\nhead -c 20000 /dev/urandom\n", "tells no version", id="garbage"),
        pytest.param(b"\x7fELF of another machine", "can't be started", id="another-architecture"),
        pytest.param(b"#!/bin/sh\nexec sleep 600\n", "no answer within", id="hangs"),
    ],
)
def test_a_broken_pg_dump_on_path_is_passed_over_with_a_warning(
    script: bytes,
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(pgtools, "_ASKED_S", 1.0)
    (tmp_path / "pg_dump").write_bytes(script)
    (tmp_path / "pg_dump").chmod(0o755)
    assert _in(tmp_path) == []
    assert complaint in caplog.text


def test_a_folder_on_path_that_is_closed_to_us_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``su`` and cron hand down root's PATH: looking into /root/bin raised."""
    real_stat = os.stat

    def closed(path: Any, *args: Any, **options: Any) -> os.stat_result:
        if str(path).startswith(str(tmp_path / "closed")):
            raise PermissionError(13, "Permission denied", str(path))
        return real_stat(path, *args, **options)

    fake_client(tmp_path / "open", "12.3")
    monkeypatch.setattr(os, "stat", closed)
    monkeypatch.setenv("PATH", f"{tmp_path / 'closed'}:{tmp_path / 'open'}")
    assert Client(tmp_path / "open", (12, 3)) in find_clients([tmp_path / "closed"])


def test_a_folder_of_path_that_depends_on_where_we_are_is_not_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_client(tmp_path / "bin", "12.3")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "bin:")
    assert all(client.folder.is_absolute() for client in find_clients())


def test_a_link_to_pg_dump_alone_leads_to_the_programs_beside_it(tmp_path: Path) -> None:
    fake_client(tmp_path / "opt", "12.3")
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "pg_dump").symlink_to(tmp_path / "opt" / "pg_dump")
    found = [c for c in find_clients([tmp_path / "local"]) if tmp_path in c.folder.parents]
    assert [(client.folder, client.lacks) for client in found] == [(tmp_path / "opt", ())]


def test_a_client_without_pg_restore_is_passed_over_and_refused_when_there_is_no_other(
    tmp_path: Path,
) -> None:
    for name in ("half", "whole"):
        fake_client(tmp_path / name, "97.1")
    for tool in ("pg_restore", "pg_dumpall"):
        (tmp_path / "half" / tool).unlink()
    half, whole = _in(tmp_path / "half"), _in(tmp_path / "whole")
    assert choose_client([*half, *whole], 970001).folder == tmp_path / "whole"
    with pytest.raises(PreconditionError, match=r"half has no pg_restore and no pg_dumpall.*client-97"):
        choose_client(half, 970001)


def test_a_restore_needs_no_pg_dumpall(tmp_path: Path) -> None:
    fake_client(tmp_path / "half", "97.1")
    (tmp_path / "half" / "pg_dumpall").unlink()
    assert choose_client(_in(tmp_path / "half"), 970001, needs=("pg_restore",)).version == (97, 1)


def test_the_oldest_client_that_is_new_enough_is_chosen_in_its_newest_minor() -> None:
    clients = [Client(Path(f"/{a}.{b}"), (a, b)) for a, b in ((15, 2), (16, 1), (16, 9), (17, 1))]
    assert choose_client(clients, 160004).version == (16, 9)
    assert choose_client(clients, 150000).version == (15, 2)


def test_a_server_newer_than_every_client_is_refused_with_what_to_install() -> None:
    with pytest.raises(PreconditionError, match=r"install postgresql-client-18.*client_dirs"):
        choose_client([Client(Path("/x"), (17, 4))], 180000)


def test_the_codec_is_asked_of_the_client_not_assumed_from_its_version(tmp_path: Path) -> None:
    without = fake_client(tmp_path / "without", "17.9")
    able = fake_client(tmp_path / "able", "18.1", codecs=("gzip", "zstd"))
    assert choose_client([without, able], 170000, codec="zstd") == able
    assert choose_client([without, able], 170000, codec="gzip") == without
    with pytest.raises(PreconditionError, match=r"can compress with lz4.*install postgresql-client-17"):
        choose_client([without, able], 170000, codec="lz4")


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
