"""A Prefect server of our own with its worker, as children of one process, driven over HTTP.

Prefect itself is never imported here. What is started is also stopped, and what a killed parent left behind
(runs shown as Running for ever, concurrency slots taken) is healed before the next worker starts.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import urlsplit

from pgsteward.children import Child, Children, free_port, undisturbed
from pgsteward.errors import PreconditionError, StewardError, ToolFailed
from pgsteward.places import state_folder
from pgsteward.prefect_api import PrefectApi, RunState, configured_url, is_loopback, require
from pgsteward.prefect_project import find_project, module_output, project_env
from pgsteward.progress import Progress, silent

POOL = "pgsteward"
DEFAULT_PORT = 4200
_ACTIVE = ("RUNNING", "PENDING", "CANCELLING")
_TOO_SOON_S = 300.0
"""A server that lived shorter than this is not started again: it would only end once more."""


class PrefectStack:
    """Server, deployments and worker.

    Attributes:
        folder: Everything that Prefect writes is in here.
        project: The checkout whose ``prefect.yaml`` is deployed.
        api: The server.
        env: One environment for server, deploy and worker.
        own_server: False for a server that was there before us; such a one is never healed or stopped.
    """

    def __init__(
        self,
        folder: Path,
        children: Children,
        *,
        port: int | None = None,
        env: Mapping[str, str] | None = None,
        api_url: str | None = None,
    ) -> None:
        """Prepare a stack; nothing is started yet.

        Args:
            folder: Private to this stack; created when missing.
            children: Stops what the stack started.
            port: Of the server on 127.0.0.1; any free one when None.
            env: What server, worker and flow runs inherit (ours by default), e.g. with ``PGSTEWARD_CONFIG``.
            api_url: A server that is already there; none is started then.
        """
        self.folder = folder
        self.project = find_project()
        self.own_server = api_url is None
        self._children = children
        self._server: Child | None = None
        self._server_since = 0.0
        self._worker: Child | None = None
        self._port = port
        base = project_env(self.project, env)
        self.env = base if api_url else _private_env(folder, base)
        self.env |= _settings_of_every_process(folder)
        self.api = PrefectApi("")
        self._point_at(api_url or f"http://127.0.0.1:{port or 0}/api")

    @property
    def ui_url(self) -> str:
        """Where a person looks; without ``/v2/`` the links open the old UI."""
        parts = urlsplit(self.api.url)
        return f"{parts.scheme}://{parts.netloc}/v2/"

    def run_url(self, run_id: str) -> str:
        """Where a person watches one flow run."""
        return f"{self.ui_url}runs/flow-run/{run_id}"

    def start_server(self, progress: Progress = silent) -> None:
        """Start the server and wait until it is healthy: 4 s, or 15 s in a new folder.

        Raises:
            ToolFailed: It ended, or did not become healthy within two minutes.
        """
        self.launch_server()
        self.wait_server(progress)

    def launch_server(self) -> None:
        """Start the server and return at once; other work can be done before `wait_server`."""
        if not self.own_server:
            return
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self.folder / "tmp").mkdir(exist_ok=True)
        if self._server is None:
            self._point_at(f"http://127.0.0.1:{self._port or free_port()}/api")
        port = urlsplit(self.api.url).port
        self._server_since = time.monotonic()
        self._server = self._children.start(
            "Prefect server",
            [*_PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(port)],
            log=self.folder / "server.log",
            env=self.env,
            cwd=self.folder,
            stop_signal=signal.SIGINT,
        )

    def wait_server(self, progress: Progress = silent) -> None:
        """Wait until the server is healthy.

        Raises:
            ToolFailed: It ended, or did not become healthy within two minutes; or one that was there before
                us does not answer.
        """
        if not self.own_server:
            require(self.api)
            return
        progress("starting the Prefect server")
        self._children.wait_until(
            lambda: _paced(self.api.answers), "A healthy Prefect server", timeout_s=120.0
        )

    def revive_server(self) -> bool:
        """Start a server of our own again that has ended; runs that are at work go on. Tell whether one had.

        Worker and runs ask again until it answers. One that ended soon after its start stays ended, and
        `Children.check` tells of it.

        Raises:
            ToolFailed: The new one ended as well, or did not become healthy within two minutes.
        """
        gone = self._server
        if gone is None or gone.alive or time.monotonic() - self._server_since < _TOO_SOON_S:
            return False
        self._children.stop_one(gone)
        self.start_server()
        return True

    def heal(self) -> int:
        """Mark runs that a killed parent left as active Crashed, which frees their slots; return how many.

        Only on a server of our own, and before its worker starts: nobody else could be running them.
        """
        if not self.own_server:
            return 0
        left = self.api.flow_runs(_ACTIVE)
        for run in left:
            message = "Its worker ended before the run did; found at the next start."
            self.api.set_state(run["id"], "CRASHED", "Crashed", message=message, force=True)
        return len(left)

    def start_worker(self) -> None:
        """Start a process worker; flow runs are its children."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self.folder / "tmp").mkdir(exist_ok=True)
        self._worker = self._children.start(
            "Prefect worker",
            [*_PREFECT, "worker", "start", "--pool", POOL, "--type", "process", "--name", "pgsteward"],
            log=self.folder / "worker.log",
            env=self.env,
            cwd=self.folder,
            stop_signal=signal.SIGINT,
        )

    def deploy(self, *, file: Path | None = None, prune: bool | None = None) -> list[str]:
        """Deploy ``prefect.yaml`` and return the names of its deployments (``flow/deployment``).

        Args:
            file: Another file than the project's own.
            prune: Remove schedules that are not in the file; by default on a server of our own only.

        Raises:
            ToolFailed: A deployment was refused; its reason is in the text.
        """
        options = ["--prune"] if (self.own_server if prune is None else prune) else []
        options += ["--file", str(file)] if file else []
        said = module_output("deploy", "--json", *options, env=self.env)
        deployed: dict[str, Any] = json.loads(said)
        return [str(name) for name in deployed["deployed"]]

    def run_deployment(self, name: str, parameters: Mapping[str, Any] | None = None) -> str:
        """Ask for a run now and return its id; `name` is ``flow/deployment``, or one word for both."""
        return self.api.run_deployment(name if "/" in name else f"{name}/{name}", parameters)

    def wait_run(
        self,
        run_id: str,
        timeout_s: float = 600.0,
        on_state: Callable[[RunState], None] | None = None,
    ) -> RunState:
        """Wait until a run has ended, while every child stays alive.

        Args:
            run_id: From `run_deployment`.
            timeout_s: How long to wait.
            on_state: Called with every new state, the last one included.

        Raises:
            ToolFailed: A child died, or the time is over.
        """
        deadline = time.monotonic() + timeout_s
        before: RunState | None = None
        while True:
            self._children.check()
            state = self.api.run_state(run_id)
            if state != before and on_state is not None:
                on_state(state)
            before = state
            if state.final:
                return state
            if time.monotonic() > deadline:
                raise ToolFailed(f"the flow run was still {state.name} after {timeout_s:.0f} s.")
            time.sleep(0.3)

    def cancel_active(self, timeout_s: float = 10.0) -> int:
        """Cancel what runs and wait until it has ended; return how many runs are left active.

        Only on a server of our own. A run that outlives the wait is marked Crashed: its processes end
        with the worker, and no slot stays taken.
        """
        if not self.own_server:
            return 0
        for run in self.api.flow_runs(("RUNNING", "PENDING")):
            with suppress(ToolFailed):  # it may have ended this very moment
                self.api.set_state(run["id"], "CANCELLING", "Cancelling", message="pgsteward is stopping")
        deadline = time.monotonic() + timeout_s
        while left := self.api.flow_runs(_ACTIVE):
            if time.monotonic() > deadline or self._worker is None or not self._worker.alive:
                return len(left)
            time.sleep(0.2)
        return 0

    def stop(self) -> None:
        """Cancel active runs, then stop the worker; the server ends with the other children.

        SIGINT and SIGTERM are ignored meanwhile: a second Ctrl-C must not break the clean-up.
        """
        with undisturbed():
            with suppress(StewardError):  # a server that is gone has nothing to cancel
                self.cancel_active()
            if self._worker is not None:
                self._children.stop_one(self._worker)
                self._worker = None
            with suppress(StewardError):
                self.heal()

    def __enter__(self) -> PrefectStack:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _point_at(self, api_url: str) -> None:
        self.env["PREFECT_API_URL"] = api_url
        self.api = PrefectApi.of_env(api_url, self.env)


_PREFECT = (sys.executable, "-m", "prefect")


def _private_env(folder: Path, base: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a server of our own: its folder, no telemetry, leases that survive a restart.

    No setting of another Prefect is inherited: with its database URL we would heal somebody else's runs.
    """
    return {name: value for name, value in base.items() if not name.startswith("PREFECT_")} | {
        "PREFECT_HOME": str(folder / "home"),
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(folder / "ui"),
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    }


def _settings_of_every_process(folder: Path) -> dict[str, str]:
    return {
        "TMPDIR": str(folder / "tmp"),  # the worker's storage in a shared one belongs to whoever came first
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "pgsteward",
        "DO_NOT_TRACK": "1",
    }


def _paced(question: Callable[[], bool]) -> bool:
    answer = question()
    if not answer:
        time.sleep(0.1)
    return answer


@contextmanager
def only_user(folder: Path) -> Iterator[None]:
    """Hold a folder: two stacks in one would call each other's runs left over.

    Raises:
        PreconditionError: Another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / "in-use").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PreconditionError(
                f"another `pgsteward up` uses {folder}; stop it, or open the address that it printed"
            ) from None
        yield


def up(*, port: int | None = None, out: TextIO | None = None, env: Mapping[str, str] | None = None) -> int:
    """Start what is missing (server, pool, deployments, worker) and stay until Ctrl-C or SIGTERM.

    A server named by ``PREFECT_API_URL`` or the active Prefect profile is used when it answers. One on this
    machine that does not is started; one elsewhere that does not is an error, never silently replaced.

    Args:
        port: Of a server of our own.
        out: Where what happens is told; standard error by default.
        env: What everything inherits; ours by default.

    Raises:
        PreconditionError: The configured server does not answer, another `up` is at work, or Prefect is not
            installed.
        ToolFailed: A child died; the text holds the last lines of its log.
    """
    if find_spec("prefect") is None:
        raise PreconditionError("Prefect is not installed here; install pgsteward[prefect]")
    say = _teller(out or sys.stderr)
    environment = dict(os.environ if env is None else env)
    url = None if port else configured_url(environment)
    api_url = url if url and PrefectApi.of_env(url, environment).answers() else None
    if url and not api_url:
        if not is_loopback(url):
            require(PrefectApi.of_env(url, environment))
        port = urlsplit(url).port or DEFAULT_PORT
    folder = state_folder() / "prefect"
    before = {number: signal.signal(number, _as_interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with only_user(folder), Children() as children:
            with PrefectStack(
                folder, children, port=port or DEFAULT_PORT, env=environment, api_url=api_url
            ) as stack:
                _bring_up(stack, say)
                say("Ctrl-C stops what was started here.")
                while True:
                    if stack.revive_server():
                        say("The Prefect server had ended and was started again; runs at work go on.")
                    children.check()
                    time.sleep(1)
    except KeyboardInterrupt:
        say("Stopped.")
        return 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _bring_up(stack: PrefectStack, say: Callable[[str], None]) -> None:
    if stack.own_server:
        say("Starting a Prefect server (15 s the first time, 5 s later) ...")
    else:
        say(f"Using the Prefect server at {stack.api.url}")
    stack.start_server()
    healed = stack.heal()
    if healed:
        say(f"{healed} run(s) that ended with their worker are marked Crashed.")
    stack.start_worker()
    names = stack.deploy()
    say(f"{len(names)} deployments: {', '.join(names)}")
    say(f"Prefect's UI: {stack.ui_url}")


def _teller(out: TextIO) -> Callable[[str], None]:
    def say(text: str) -> None:
        print(text, file=out, flush=True)

    return say


def _as_interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
