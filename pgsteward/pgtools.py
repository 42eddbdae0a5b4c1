"""The only room that runs pg_dump and friends.

Every exit status decides, both pipes are drained, and no tool outlives us: a child gets SIGTERM from the
kernel when its parent dies, and is ended when any exception, a cancellation too, passes by here.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import select
import signal
import subprocess
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from pgsteward.errors import ToolFailed
from pgsteward.postgres import Login
from pgsteward.redaction import redact

GRACE_S = 5.0
"""How long a tool may take to end after SIGTERM before it is killed."""

SOCKET_ONLY = "hostaddr='' target_session_attrs=any sslmode=disable gssencmode=disable channel_binding=prefer"
"""What is said here is taken from neither the environment nor a service; hostaddr would go before host."""

_POLL_S = 0.05
_TAIL_LINES = 20
_KEPT_LINES = 2_000
_LINE_CHARACTERS = 1_000
_SETTINGS = (
    "client_connection_check_interval=2s",
    "statement_timeout=0",  # those of a role or a database are for the application
    "idle_in_transaction_session_timeout=0",
    "idle_session_timeout=0",
)
"""transaction_timeout is not known before 17; pg_dump and pg_restore put it off themselves."""
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)
_SECRET_NAMES = re.compile(r"PASSWORD|SECRET|TOKEN|PASSPHRASE")


def tool_env(login: Login, purpose: str, settings: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return what a tool needs in its environment to reach a server as a well-behaved session.

    Args:
        login: Its password travels here, never in argv.
        purpose: Ends up in ``application_name`` as ``pgsteward <purpose>``.
        settings: Further run-time settings of its sessions; no value has a blank in it.
    """
    wanted = [*_SETTINGS, *(f"{name}={value}" for name, value in (settings or {}).items())]
    options = " ".join([os.environ.get("PGOPTIONS", ""), *(f"-c {setting}" for setting in wanted)]).strip()
    return {
        **login.tool_env(),
        "PGAPPNAME": f"pgsteward {purpose}"[:63],
        "PGCONNECT_TIMEOUT": os.environ.get("PGCONNECT_TIMEOUT", "10"),
        "PGOPTIONS": options,
    }


@dataclass(frozen=True, slots=True)
class ToolOutput:
    """What a tool said: stdout (empty where it went into a file), and its lines on stderr, redacted."""

    stdout: bytes
    stderr_lines: tuple[str, ...]


@dataclass(slots=True, eq=False)
class RunningTool:
    """A tool at work. Use it as a context manager: leaving it early ends the tool."""

    name: str
    process: subprocess.Popen[bytes]
    on_stderr: Callable[[str], None] | None
    secrets: tuple[str, ...]
    take_stdout: Callable[[IO[bytes]], None] | None = None
    _untaken: BaseException | None = None
    _stdout: bytearray = field(default_factory=bytearray)
    _stderr: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT_LINES))
    _readers: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs."""
        return self.process.poll()

    @property
    def over(self) -> bool:
        """Tell whether it has ended and its output has been taken."""
        return self.process.poll() is not None and not self._is_taking()

    def last_words(self) -> str:
        """Return the last lines it wrote to stderr, redacted; pg_dump repeats whole statements in one."""
        return "\n".join(map(_shortened, list(self._stderr)[-_TAIL_LINES:]))

    def refuse_untaken(self) -> None:
        """Raise what kept `take_stdout` from taking the output, if something did."""
        if self._untaken is not None:
            raise self._untaken

    def wait(self, stop_check: Callable[[], None] | None = None) -> ToolOutput:
        """Wait for its end; it is ended at once when an exception arrives meanwhile.

        Args:
            stop_check: Called several times a second; what it raises ends the tool.

        Raises:
            ToolFailed: It ended with another status than 0; the text holds its last words.
            Exception: What `take_stdout` raised; it comes first, as the tool mostly dies of it.
        """
        try:
            while self.process.poll() is None or self._is_taking():
                self.refuse_untaken()
                if stop_check is not None:
                    stop_check()
                if self.process.returncode is not None:  # its last output is still on its way
                    for reader in self._readers:
                        reader.join(_POLL_S / 5)
                    continue
                self.wait_briefly(_POLL_S if stop_check is None else _POLL_S * 4)
        finally:
            self.stop()
        self.refuse_untaken()
        status = self.process.returncode
        if status != 0:
            how = (
                f"was ended by {signal.Signals(-status).name}"
                if status < 0
                else f"ended with status {status}"
            )
            words = self.last_words()
            raise ToolFailed(f"{self.name} {how}" + (f": {words}" if words else " without a word"))
        return ToolOutput(bytes(self._stdout), tuple(self._stderr))

    def wait_briefly(self, seconds: float) -> None:
        """Wait for its end, no longer than this; the kernel tells it at once, where `Popen.wait` naps."""
        try:
            ended = os.pidfd_open(self.process.pid)
        except (AttributeError, OSError):  # another system; or it was waited for in another thread
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(seconds)
            return
        try:
            poll = select.poll()
            poll.register(ended, select.POLLIN)
            poll.poll(seconds * 1000)
        finally:
            os.close(ended)
        self.process.poll()

    def stop(self) -> None:
        """End it and its workers (SIGTERM, after `GRACE_S` SIGKILL); harmless once it has ended."""
        try:
            if self.process.poll() is None:
                self.process.terminate()
                deadline = time.monotonic() + GRACE_S
                while self.process.poll() is None and time.monotonic() < deadline:
                    time.sleep(_POLL_S / 5)
        finally:
            if self.process.poll() is None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
            elif self.process.returncode != 0 and any(reader.is_alive() for reader in self._readers):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.process.pid, signal.SIGTERM)  # its workers may not know that it is dead
            for reader in self._readers:
                reader.join(timeout=GRACE_S)
            if self.process.returncode != 0 and any(reader.is_alive() for reader in self._readers):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.process.pid, signal.SIGKILL)

    def _is_taking(self) -> bool:
        return self.take_stdout is not None and any(reader.is_alive() for reader in self._readers)

    def _start_reading(self) -> None:
        for pipe, keep in (
            (self.process.stdout, self._keep_stdout if self.take_stdout is None else self._hand_on_stdout),
            (self.process.stderr, self._keep_stderr),
        ):
            if pipe is not None:
                reader = threading.Thread(target=keep, args=(pipe,), name=f"{self.name} output", daemon=True)
                reader.start()
                self._readers.append(reader)

    def _keep_stdout(self, pipe: IO[bytes]) -> None:
        with pipe:
            while chunk := pipe.read(1 << 16):
                self._stdout += chunk

    def _hand_on_stdout(self, pipe: IO[bytes]) -> None:
        assert self.take_stdout is not None
        with pipe:
            try:
                self.take_stdout(pipe)
            except BaseException as exc:  # noqa: BLE001 - raised again where the tool is waited for
                self._untaken = exc

    def _keep_stderr(self, pipe: IO[bytes]) -> None:
        with pipe:
            for raw in pipe:
                line = redact(raw.decode(errors="replace").rstrip(), self.secrets)
                if line:
                    self._stderr.append(line)
                    if self.on_stderr is not None:
                        self.on_stderr(line)


def start_tool(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str],
    stdout: Path | None = None,
    stdin: Path | None = None,
    on_stderr: Callable[[str], None] | None = None,
    take_stdout: Callable[[IO[bytes]], None] | None = None,
) -> RunningTool:
    """Start a tool and return at once.

    Args:
        argv: Program and arguments; no secrets, every user of the machine can read them.
        env: Laid over our own environment; secrets go here. Messages are in English.
        stdout: Write its output into this file (mode 0600) rather than into memory.
        stdin: Feed it this file; nothing otherwise.
        on_stderr: Called with every line it writes to stderr, from another thread.
        take_stdout: Reads its output to the end, in a thread of its own. What it raises ends the tool, and is
            raised where the tool is waited for.

    Raises:
        ToolFailed: It can't be started.
    """
    name = Path(argv[0]).name
    whole_env = {**os.environ, "LC_ALL": "C", **env}
    secrets = tuple(value for key, value in env.items() if _SECRET_NAMES.search(key) and value)
    with contextlib.ExitStack() as files:
        output: Any = subprocess.PIPE
        if stdout is not None:
            output = files.enter_context(open(stdout, "wb", opener=_private))
        source: Any = files.enter_context(stdin.open("rb")) if stdin is not None else subprocess.DEVNULL
        process = _popen(name, argv, whole_env, source, output)
    tool = RunningTool(name, process, on_stderr, secrets, take_stdout)
    tool._start_reading()
    return tool


def run_tool(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str],
    stdout: Path | None = None,
    stdin: Path | None = None,
    on_stderr: Callable[[str], None] | None = None,
    stop_check: Callable[[], None] | None = None,
) -> ToolOutput:
    """Run a tool to its end; see `start_tool` and `RunningTool.wait` for arguments and errors."""
    with start_tool(argv, env=env, stdout=stdout, stdin=stdin, on_stderr=on_stderr) as tool:
        return tool.wait(stop_check)


def _shortened(line: str) -> str:
    left_out = len(line) - _LINE_CHARACTERS
    return line if left_out <= 0 else f"{line[:_LINE_CHARACTERS]} ... ({left_out} more characters)"


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _popen(
    name: str, argv: Sequence[str | Path], env: Mapping[str, str], stdin: Any, stdout: Any
) -> subprocess.Popen[bytes]:
    parent = os.getpid()

    def prepare() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
        if os.getppid() != parent:  # we died before the request was made
            os._exit(1)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    with warnings.catch_warnings():
        # Python 3.12+ warns about preexec_fn where there are threads; nothing else can ask before exec.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            return subprocess.Popen(
                [str(part) for part in argv],
                stdin=stdin,
                stdout=stdout,
                stderr=subprocess.PIPE,
                env=dict(env),
                umask=0o077,
                start_new_session=True,  # out of reach of the terminal's Ctrl-C: we end it ourselves
                preexec_fn=prepare,
            )
        except OSError as exc:
            raise ToolFailed(f"{name} can't be started: {exc.strerror or exc}") from exc
