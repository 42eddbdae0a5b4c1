"""Servers that live as long as we do: started, watched and stopped as one family.

Each child leads a session of its own, out of reach of the terminal's Ctrl-C, and gets its stop signal from
the kernel when its parent dies (``PR_SET_PDEATHSIG``), so that even SIGKILL leaves no server behind. The
kernel means the *thread* that started the child: start children from the main thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import signal
import socket
import subprocess
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from pgsteward.errors import ToolFailed

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)
_POLL_S = 0.02
_TAIL_LINES = 20


@dataclass(slots=True, eq=False)
class Child:
    """A running server.

    Attributes:
        name: What an operator calls it.
        process: The leader of its session.
        log: Where its output goes.
        stop_signal: What asks it to end in good order.
    """

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    stop_signal: signal.Signals

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.poll() is None


@dataclass(slots=True)
class Children:
    """Long-living child processes; leaving the ``with`` block stops every one of them.

    Attributes:
        grace_s: How long a child may take to end in good order before it is killed.
    """

    grace_s: float = 15.0
    _children: list[Child] = field(default_factory=list)
    _afterwards: list[Callable[[], None]] = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: str | Path = "/",
        user: str | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> Child:
        """Start a server and return at once; whether it became ready is for the caller to find out.

        Args:
            name: What `check` calls it.
            argv: Program and arguments; no secrets, every user of the machine can read them.
            log: File that its output is appended to.
            env: Its whole environment; None passes ours on.
            cwd: Its working folder; a process that runs as somebody else must be able to enter it.
            user: Run as this user; only root can ask for it.
            stop_signal: Asks the server to end in good order, and is what it gets when we die.

        Raises:
            ToolFailed: The program can't be started.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            process = _popen(name, argv, env, cwd, user, stop_signal, stdout=output, stderr=output)
        child = Child(name, process, log, stop_signal)
        self._children.append(child)
        return child

    def check(self) -> None:
        """Notice a child that has ended.

        Raises:
            ToolFailed: One has; the text holds the last lines of its log.
        """
        for child in self._children:
            status = child.process.poll()
            if status is not None:
                raise ToolFailed(_obituary(child.name, status, log_tail(child.log)))

    def wait_until(self, ready: Callable[[], bool], what: str, timeout_s: float = 60.0) -> None:
        """Wait until `ready` says so, while every child stays alive.

        Raises:
            ToolFailed: A child died, or the time is over.
        """
        deadline = time.monotonic() + timeout_s
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise ToolFailed(f"{what} did not happen within {timeout_s:.0f} s.")
            time.sleep(_POLL_S)

    def afterwards(self, action: Callable[[], None]) -> None:
        """Call `action` once every child has ended, e.g. to remove a folder; last come, first served."""
        self._afterwards.append(action)

    def stop_one(self, child: Child) -> None:
        """Stop one child before the others; nothing happens if it has been stopped already."""
        if child in self._children:
            with undisturbed():
                self._end(child)
                self._children.remove(child)

    def stop(self) -> None:
        """Stop every child, the youngest first, and whatever they have started; harmless when called twice.

        SIGINT and SIGTERM are ignored meanwhile: a second Ctrl-C must not break the clean-up.
        """
        with undisturbed():
            while self._children:
                self._end(self._children[-1])
                self._children.pop()
            while self._afterwards:
                self._afterwards.pop()()

    def _end(self, child: Child) -> None:
        family = _descendants(child.pid) | _session(child.pid)
        if child.alive:
            child.process.send_signal(child.stop_signal)
            try:
                child.process.wait(self.grace_s)
            except subprocess.TimeoutExpired:
                family |= _descendants(child.pid)
                child.process.kill()
                child.process.wait()
        family |= _session(child.pid)
        family.discard((child.pid, _started(child.pid)))
        deadline = time.monotonic() + 1.0  # those that saw their parent leave and are on their way out
        while (left := {member for member in family if _alive(*member)}) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        for pid, _ in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def run(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | Path = "/",
    user: str | None = None,
    timeout_s: float | None = None,
) -> str:
    """Run a short command and return what it printed.

    Args:
        argv: Program and arguments; no secrets, every user of the machine can read them.
        env: Its whole environment; None passes ours on.
        cwd: Its working folder.
        user: Run as this user; only root can ask for it.
        timeout_s: Kill it after this long.

    Raises:
        ToolFailed: It can't be started, takes too long or ends with another status than 0; the text holds the
            last lines of its stderr, never its arguments.
    """
    name = Path(argv[0]).name
    with _popen(
        name, argv, env, cwd, user, signal.SIGKILL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            output, errors = process.communicate(timeout=timeout_s)
        except BaseException as exc:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            if isinstance(exc, subprocess.TimeoutExpired):
                raise ToolFailed(f"{name} took longer than {timeout_s:.0f} s and was killed.") from None
            raise
    if process.returncode != 0:
        words = errors.decode(errors="replace") or output.decode(errors="replace")
        raise ToolFailed(_obituary(name, process.returncode, _last_lines(words)))
    return output.decode(errors="replace")


def pass_through(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str],
    cwd: str | Path,
    stdout: IO[bytes] | None = None,
) -> int:
    """Run a command on our own terminal and return its exit status; Ctrl-C reaches it as it reaches us.

    Args:
        argv: Program and arguments; no secrets, every user of the machine can read them.
        env: Its whole environment.
        cwd: Its working folder.
        stdout: Where its standard output goes instead of our own.

    Raises:
        ToolFailed: It can't be started.
    """
    name = Path(argv[0]).name
    try:
        process = subprocess.Popen([str(part) for part in argv], env=dict(env), cwd=cwd, stdout=stdout)
    except OSError as exc:
        raise ToolFailed(f"{name} can't be started: {exc.strerror or exc}.") from exc
    with process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:  # it got the same signal and is on its way out
                continue
            except BaseException:  # another signal, which only we got
                process.terminate()
                raise


def free_port(host: str = "127.0.0.1") -> int:
    """Return a TCP port that nobody listens on; somebody may take it before you do."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def log_tail(log: Path, lines: int = _TAIL_LINES) -> str:
    """Return the last lines of a log, or an empty text when there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 16_384))
            return _last_lines(file.read().decode(errors="replace"), lines)
    except OSError:
        return ""


def _last_lines(text: str, lines: int = _TAIL_LINES) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])


def _obituary(name: str, status: int, tail: str) -> str:
    how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with exit status {status}"
    return f"{name} {how}" + (f"; its last words:\n{tail}" if tail else " without a word.")


def _popen(
    name: str,
    argv: Sequence[str | Path],
    env: Mapping[str, str] | None,
    cwd: str | Path,
    user: str | None,
    death_signal: signal.Signals,
    **streams: Any,
) -> subprocess.Popen[bytes]:
    parent = os.getpid()
    identity: dict[str, Any] = {}
    if user is not None:
        entry = pwd.getpwnam(user)
        identity = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}

    def prepare() -> None:  # in the child, after it has become `user`: a change of user forgets the request
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(death_signal))
        if os.getppid() != parent:  # died before the request was made
            os._exit(1)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background job hands SIGINT down as ignored
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    with warnings.catch_warnings():
        # Python 3.12+ warns about preexec_fn where there are threads; nothing else can ask before exec.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            return subprocess.Popen(
                [str(part) for part in argv],
                stdin=subprocess.DEVNULL,
                env=dict(env) if env is not None else None,
                cwd=cwd,
                start_new_session=True,
                preexec_fn=prepare,
                **identity,
                **streams,
            )
        except OSError as exc:
            raise ToolFailed(f"{name} can't be started: {exc.strerror or exc}.") from exc


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Ignore SIGINT and SIGTERM for a while; only the main thread can, elsewhere nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _stat(pid: int) -> list[str] | None:
    """Return the fields of ``/proc/PID/stat`` after the command: state, ppid, pgrp, session ..."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split()


def _started(pid: int) -> str:
    """Return when a process started, in ticks: with it a pid is never mistaken for a later one."""
    stat = _stat(pid)
    return stat[19] if stat else ""


def _alive(pid: int, started: str) -> bool:
    stat = _stat(pid)
    return stat is not None and stat[19] == started and stat[0] not in "ZX"


def _processes() -> dict[int, list[str]]:
    found = {
        int(entry.name): _stat(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit()
    }
    return {pid: stat for pid, stat in found.items() if stat is not None}


def _descendants(pid: int) -> set[tuple[int, str]]:
    """Return (pid, started) of every process below `pid`; PostgreSQL's lead sessions of their own."""
    processes = _processes()
    below: set[tuple[int, str]] = set()
    level = {pid}
    while level:
        level = {child for child, stat in processes.items() if int(stat[1]) in level}
        below |= {(child, processes[child][19]) for child in level}
    return below


def _session(pid: int) -> set[tuple[int, str]]:
    """Return (pid, started) of the members of the session or process group that `pid` leads or led."""
    return {
        (member, stat[19])
        for member, stat in _processes().items()
        if member != pid and str(pid) in (stat[2], stat[3])
    }
