"""Servers are started, watched and stopped as one family; even a killed parent leaves none behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgsteward.children import Children, free_port, log_tail, run
from pgsteward.errors import ToolFailed

SLEEP = [sys.executable, "-c", "import time; print('ready', flush=True); time.sleep(300)"]
DEAF = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('ready', flush=True); time.sleep(300)",
]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def wait_for(condition: object, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


@pytest.fixture
def children() -> Iterator[Children]:
    with Children(grace_s=1.0) as family:
        yield family


def test_a_child_that_dies_is_named_with_the_last_words_of_its_log(
    children: Children, tmp_path: Path
) -> None:
    children.start("sleeper", SLEEP, log=tmp_path / "sleeper.log")
    talker = children.start(
        "talker",
        [sys.executable, "-c", "print('all is lost'); raise SystemExit(7)"],
        log=tmp_path / "talker.log",
    )
    talker.process.wait()
    with pytest.raises(ToolFailed, match=r"talker ended with exit status 7[\s\S]*all is lost"):
        children.check()


def test_a_child_that_was_killed_is_named_with_the_signal(children: Children, tmp_path: Path) -> None:
    child = children.start("sleeper", SLEEP, log=tmp_path / "log")
    child.process.kill()
    child.process.wait()
    with pytest.raises(ToolFailed, match="sleeper was ended by SIGKILL"):
        children.check()


def test_living_children_pass_the_check(children: Children, tmp_path: Path) -> None:
    children.start("sleeper", SLEEP, log=tmp_path / "log")
    children.check()


def test_waiting_ends_at_once_when_a_child_dies(children: Children, tmp_path: Path) -> None:
    children.start("brief", [sys.executable, "-c", "print('goodbye')"], log=tmp_path / "log")
    start = time.monotonic()
    with pytest.raises(ToolFailed, match="goodbye"):
        children.wait_until(lambda: False, "Nothing", timeout_s=60)
    assert time.monotonic() - start < 10


def test_waiting_does_not_last_for_ever(children: Children) -> None:
    with pytest.raises(ToolFailed, match="The miracle did not happen within 0 s"):
        children.wait_until(lambda: False, "The miracle", timeout_s=0.1)


def test_children_are_stopped_in_reverse_order_with_their_own_signals(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    script = textwrap.dedent("""
        import signal, sys, time
        def leave(number, frame):
            with open(sys.argv[1], "a") as diary:
                print(sys.argv[2], signal.Signals(number).name, file=diary)
            sys.exit(0)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, leave)
        print("ready", flush=True)
        time.sleep(300)
    """)
    with Children() as children:
        for name, number in (("first", signal.SIGINT), ("second", signal.SIGTERM)):
            children.start(
                name,
                [sys.executable, "-c", script, diary, name],
                log=tmp_path / f"{name}.log",
                stop_signal=number,
            )
        wait_for(lambda: all("ready" in log_tail(tmp_path / f"{n}.log") for n in ("first", "second")))
    assert diary.read_text().splitlines() == ["second SIGTERM", "first SIGINT"]


def test_a_deaf_child_is_killed_after_the_grace(children: Children, tmp_path: Path) -> None:
    child = children.start("deaf", DEAF, log=tmp_path / "log")
    wait_for(lambda: "ready" in log_tail(child.log))
    children.stop()
    assert child.process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("own_session", [False, True], ids=["same-session", "session-of-its-own"])
def test_what_a_child_started_ends_with_it(children: Children, tmp_path: Path, own_session: bool) -> None:
    script = (
        "import subprocess, sys, time;"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'],"
        f" start_new_session={own_session});"
        "print(p.pid, flush=True); time.sleep(300)"
    )
    child = children.start("mother", [sys.executable, "-c", script], log=tmp_path / "log")
    wait_for(lambda: log_tail(child.log).isdigit())
    grandchild = int(log_tail(child.log))
    assert is_alive(grandchild)
    children.stop()
    wait_for(lambda: not is_alive(grandchild))


def test_stopping_twice_does_no_harm(children: Children, tmp_path: Path) -> None:
    done: list[str] = []
    children.start("sleeper", SLEEP, log=tmp_path / "log")
    children.afterwards(lambda: done.append("cleaned up"))
    children.stop()
    children.stop()
    children.check()
    assert done == ["cleaned up"]


def test_one_child_can_be_stopped_before_the_others(children: Children, tmp_path: Path) -> None:
    first = children.start("first", SLEEP, log=tmp_path / "first.log")
    second = children.start("second", SLEEP, log=tmp_path / "second.log")
    children.stop_one(first)
    assert not first.alive
    assert second.alive
    children.check()


def test_the_handlers_of_the_caller_are_restored_after_stopping(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with Children() as children:
        children.start("sleeper", SLEEP, log=tmp_path / "log")
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_child_is_out_of_reach_of_the_terminal_and_reads_nothing(
    children: Children, tmp_path: Path
) -> None:
    script = "import os, sys; print(os.getsid(0) == os.getpid(), repr(sys.stdin.read()), os.getcwd())"
    child = children.start("who", [sys.executable, "-c", script], log=tmp_path / "log")
    child.process.wait()
    assert log_tail(child.log) == "True '' /"


def test_a_program_that_is_missing_is_named(children: Children, tmp_path: Path) -> None:
    with pytest.raises(ToolFailed, match="The thing can't be started: No such file or directory"):
        children.start("The thing", [tmp_path / "missing"], log=tmp_path / "log")


@pytest.mark.parametrize("last_signal", [signal.SIGKILL, signal.SIGTERM], ids=lambda s: s.name)
def test_a_parent_that_is_killed_leaves_no_child(tmp_path: Path, last_signal: signal.Signals) -> None:
    script = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from pgsteward.children import Children
        children = Children()
        for number in (1, 2):
            child = children.start(
                f"child {number}", [sys.executable, "-c", "import time; time.sleep(300)"],
                log=Path(sys.argv[1]) / f"{number}.log",
            )
            print(child.pid, flush=True)
        time.sleep(300)
    """)
    parent = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, text=True, cwd=os.getcwd()
    )
    assert parent.stdout is not None
    with parent, parent.stdout:
        pids = [int(parent.stdout.readline()) for _ in range(2)]
        assert all(map(is_alive, pids))
        parent.send_signal(last_signal)
        parent.wait()
        wait_for(lambda: not any(map(is_alive, pids)))


def test_a_second_interrupt_does_not_break_the_clean_up(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import signal, sys, time
        from pathlib import Path
        from pgsteward.children import Children
        with Children(grace_s=1.5) as children:
            child = children.start(
                "deaf",
                [sys.executable, "-c",
                 "import signal, time;"
                 "signal.signal(signal.SIGTERM, lambda *_: print('told', flush=True));"
                 "print('ready', flush=True);"
                 "[time.sleep(1) for _ in range(300)]"],
                log=Path(sys.argv[1]) / "log",
            )
            while not (Path(sys.argv[1]) / "log").read_text():
                time.sleep(0.01)
            print(child.pid, flush=True)
            time.sleep(300)
    """)
    parent = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    with parent, parent.stdout:
        pid = int(parent.stdout.readline())
        parent.send_signal(signal.SIGINT)
        wait_for(lambda: "told" in (tmp_path / "log").read_text())  # the clean-up has begun
        assert parent.poll() is None
        parent.send_signal(signal.SIGINT)
        _, errors = parent.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors
    assert not is_alive(pid)


def test_a_command_returns_what_it_printed() -> None:
    assert run([sys.executable, "-c", "import os; print(os.environ)"], env={"A": "1"}).count("'A': '1'") == 1


def test_a_failed_command_is_named_with_its_last_words_and_without_its_arguments() -> None:
    script = "import sys; print('noise'); sys.exit('it broke')"
    with pytest.raises(ToolFailed) as caught:
        run([sys.executable, "-c", script, "hunter2"])
    assert f"{Path(sys.executable).name} ended with exit status 1; its last words:\nit broke" == str(
        caught.value
    )


def test_a_command_that_takes_too_long_is_killed() -> None:
    start = time.monotonic()
    with pytest.raises(ToolFailed, match="took longer than 0 s and was killed"):
        run(SLEEP, timeout_s=0.3)
    assert time.monotonic() - start < 10


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run a child as somebody else")
def test_root_can_run_a_child_as_nobody() -> None:
    assert run(["/usr/bin/id", "-un"], user="nobody").strip() == "nobody"


def test_a_free_port_can_be_listened_on() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", free_port()))
