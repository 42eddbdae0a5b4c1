"""The command line with closed, full and broken standard streams; as processes, for they own them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

NO_BACKUP = 3
"""How `backups` ends where there is none yet."""

COMMAND = (sys.executable, "-m", "pgsteward.cli")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A target with an empty store: `backups` has a result and asks no server."""
    file = tmp_path / "pgsteward.toml"
    file.write_text(
        f'[stores.disk]\nurl = "file://{tmp_path}/store"\n'
        '[targets.app]\nconninfo = "host=127.0.0.1 dbname=app user=x"\nstores = ["disk"]\n'
    )
    return file


def called(config: Path, *args: str, **streams: object) -> subprocess.CompletedProcess[bytes]:
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    return subprocess.run([*COMMAND, "--config", str(config), *args], check=False, **options)  # type: ignore[call-overload, no-any-return]


def closing(*numbers: int) -> Callable[[], None]:
    def close() -> None:
        for number in numbers:
            os.close(number)

    return close


@pytest.mark.parametrize("numbers", [(0,), (1,), (2,), (0, 1, 2)])
def test_closed_streams_change_no_exit_status(config: Path, numbers: tuple[int, ...]) -> None:
    ended = called(config, "backups", preexec_fn=closing(*numbers))
    assert ended.returncode == NO_BACKUP, ended.stderr.decode()
    assert (b"0 backups" in ended.stdout) == (1 not in numbers)


def test_what_libpq_says_on_a_closed_stderr_gets_into_no_file(tmp_path: Path) -> None:
    """The number of a closed stream goes to the next file that is opened."""
    code = (
        "import os\nfrom pgsteward.cli_streams import steady\nsteady()\n"
        f"mine = open({str(tmp_path / 'backup')!r}, 'wb')\nos.write(2, b'WARNING: password file')\n"
        "mine.write(b'data')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, preexec_fn=closing(0, 1, 2))
    assert (tmp_path / "backup").read_bytes() == b"data"


def test_who_stops_reading_is_no_failure(config: Path) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    try:
        ended = called(config, "backups", "--json", stdout=theirs)
    finally:
        os.close(theirs)
    assert (ended.returncode, ended.stderr) == (NO_BACKUP, b"")


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_result_that_can_not_be_written_is_a_failure(config: Path, options: tuple[str, ...]) -> None:
    with open("/dev/full", "wb") as full:
        ended = called(config, "backups", *options, stdout=full)
    assert ended.returncode == 1
    assert ended.stderr == b"Error: the result can't be printed: No space left on device\n"


def test_a_full_stderr_changes_no_exit_status(config: Path) -> None:
    with open("/dev/full", "wb") as full:
        ended = called(config, "-vv", "backups", stderr=full)
        refused = called(config, "backups", "nobody", stderr=full)
    assert (ended.returncode, refused.returncode) == (NO_BACKUP, 2)
    assert b"0 backups" in ended.stdout


def test_json_stays_json_in_any_encoding(config: Path) -> None:
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    ended = called(config, "verify", "--from", "störe", "--json", env=env)
    assert "no store 'störe'" in json.loads(ended.stdout)["summary"]
    assert b"no store 'st\\xf6re'" in called(config, "verify", "--from", "störe", env=env).stderr


@pytest.mark.parametrize(
    ("args", "step", "says"),
    [
        (("backup", "--bogus"), "backup", "No such option"),
        (("backup", "app", "more"), "backup", "unexpected extra argument"),
        (("restore", "app", "latest", "--into"), "", "requires an argument"),
        (("bakcup",), "", "No such command"),
    ],
)
def test_a_misuse_is_one_object_too(config: Path, args: tuple[str, ...], step: str, says: str) -> None:
    ended = called(config, args[0], "--json", *args[1:])
    assert ended.returncode == 2
    told = json.loads(ended.stdout)
    assert told["status"] == "failed"
    assert says in told["summary"]
    assert told["step"] == step


def test_an_unknown_error_of_a_small_command_is_one_object_too(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from typer.testing import CliRunner

    from pgsteward.cli import app

    def broken(*_: object, **__: object) -> None:
        raise AttributeError("a mistake of ours")

    monkeypatch.setattr("pgsteward.init.write_config", broken)
    ended = CliRunner().invoke(app, ["--config", str(config), "init", "--conninfo", "dbname=a", "--json"])
    assert ended.exit_code == 1
    assert json.loads(ended.stdout)["error"] == "AttributeError"


def test_ctrl_c_while_the_program_is_loaded_is_no_traceback(config: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'typer': os.kill(os.getpid(), signal.SIGINT)\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from pgsteward.__main__ import main\nmain()\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, b"", b"")


@pytest.mark.parametrize(
    "swallows",
    [
        pytest.param(
            "os.register_at_fork(after_in_parent=end)\n    subprocess.run(['true'], preexec_fn=int)",
            id="fork",
        ),
        pytest.param("type('Gone', (), {'__del__': end})()", id="del"),
    ],
)
def test_a_signal_is_not_lost_where_python_swallows_exceptions(swallows: str) -> None:
    """A terminal that was closed while pg_dump was being started ended nothing: the backup went on."""
    code = (
        "import os, signal, subprocess, time\n"
        "from pgsteward.cli_run import Terminated, signals\n"
        "def end(*_): os.kill(os.getpid(), signal.SIGTERM)\n"
        "def work():\n"
        f"    {swallows}\n"
        "    time.sleep(60)\n"
        "try:\n"
        "    with signals() as stopping: work()\n"
        "except Terminated as exc:\n"
        "    print(exc.number, stopping.number, signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, timeout=50)
    assert ended.stdout == b"15 15 True\n", ended.stderr.decode()
    assert ended.stderr == b"Stopping; cleaning up ...\n"


def test_an_exception_that_changes_its_kind_on_the_way_is_a_signal_still(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python turns what is raised in ``__set_name__``, in the middle of an import, into a RuntimeError."""
    from typer.testing import CliRunner

    from pgsteward.cli import app

    class Wraps:
        def __set_name__(self, owner: type, name: str) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    def verify(*_: object, **__: object) -> None:
        type("Owner", (), {"wraps": Wraps()})

    monkeypatch.setattr("pgsteward.backup.catalog.verify", verify)
    ended = CliRunner().invoke(app, ["--config", str(config), "verify", "--json"])
    assert ended.exit_code == 143
    assert json.loads(ended.stdout)["summary"] == "stopped by SIGTERM"
