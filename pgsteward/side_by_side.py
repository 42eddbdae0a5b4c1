"""Several databases at the same time: each in a process of its own, the workers of pg_dump shared out.

A process, not a thread: a cancel or a timeout ends its statements and children within seconds, as it does for
one database alone. It tells its progress, its log and its result as lines of JSON on its standard output.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Any

from pgsteward import results
from pgsteward.config import Config, Secret
from pgsteward.errors import StewardError, ToolFailed
from pgsteward.pgtools import RunningTool, start_tool
from pgsteward.progress import Progress
from pgsteward.results import StepResult
from pgsteward.retries import call_with_retries
from pgsteward.targets import Target

log = logging.getLogger(__name__)

MAX_RUNNING = 8
"""Databases at the same time, however many jobs there are: each is a Python process."""

_POLL_S = 0.05
_GRACE_S = 15.0
"""How long a process may take to clean up after itself before it is killed."""

_CHILD = """\
import sys
sys.path.insert(0, sys.argv[1])
import pgsteward
del sys.path[0]
from pgsteward.side_by_side import main
sys.exit(main())
"""
"""Takes our own package, wherever we have it from, and everything else from where Python has it."""

Message = Mapping[str, Any]


def share_jobs(free: int, waiting: Sequence[int], running: int, most_running: int = MAX_RUNNING) -> int:
    """Return how many jobs the next database gets, the first of those that wait; 0 where it must wait.

    Its part of the work decides, by bytes; none is left idle, and while others wait, one is left for them.

    Args:
        free: Jobs that nobody has now.
        waiting: Bytes of the databases that wait, this one first.
        running: Databases that are at work.
        most_running: How many there may be.
    """
    if free < 1 or running >= most_running:
        return 0
    places = min(len(waiting), most_running - running)
    sizes = [max(size, 1) for size in waiting]
    fair = round(free * sizes[0] / sum(sizes))
    most = free - 1 if places > 1 and running == 0 and free > 1 else free
    return min(most, max(1, fair, free // places))


@dataclass(slots=True, eq=False)
class _Worker:
    """One database at work."""

    target: Target
    jobs: int
    began: float
    tool: RunningTool
    heard: SimpleQueue[Message]
    result: StepResult | None = None
    error: Message | None = None


@dataclass(slots=True)
class _Team:
    """All that is at work; leaving it ends what is left of it."""

    workers: list[_Worker] = field(default_factory=list)

    def __enter__(self) -> _Team:
        return self

    def __exit__(self, *_: object) -> None:
        alive = [worker for worker in self.workers if worker.tool.poll() is None]
        for worker in alive:
            with contextlib.suppress(ProcessLookupError):
                worker.tool.process.terminate()
        deadline = time.monotonic() + _GRACE_S
        while any(w.tool.poll() is None for w in alive) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        for worker in self.workers:
            worker.tool.stop()


def run_side_by_side(
    function: str,
    step: str,
    bound: Sequence[Target],
    jobs: int,
    sizes: Mapping[str, int],
    progress: Progress,
    *,
    most_running: int = MAX_RUNNING,
) -> list[tuple[str, StepResult]]:
    """Run an operation for several databases at the same time; the largest come first.

    Args:
        function: ``module:function`` of the operation; it takes a target and ``progress``.
        step: Name of the operation.
        bound: The target, bound to each database.
        jobs: The sum of ``backup.jobs`` of those that run at the same time never exceeds it.
        sizes: Bytes by database; one that is not in it counts as small.
        progress: Told which database is at what.
        most_running: Databases at the same time.

    Returns:
        Results by database, in the order they ended. What a process raised is a failure of its database.
    """
    waiting = sorted(bound, key=lambda target: sizes.get(target.database, 0), reverse=True)
    done: list[tuple[str, StepResult]] = []
    with ExitStack() as files, _Team() as team:
        folder = Path(files.enter_context(tempfile.TemporaryDirectory(prefix="pgsteward-")))
        while waiting or team.workers:
            free = jobs - sum(worker.jobs for worker in team.workers)
            while waiting:
                bytes_waiting = [sizes.get(target.database, 0) for target in waiting]
                share = share_jobs(free, bytes_waiting, len(team.workers), most_running)
                if not share:
                    break
                team.workers.append(_start(function, waiting.pop(0), share, folder))
                free -= share
            for worker in list(team.workers):
                for what in _listen(worker):
                    progress(f"{worker.target.database}: {what}", len(done), len(bound))
                if worker.tool.poll() is not None:
                    done.append((worker.target.database, _end(worker, step)))
                    team.workers.remove(worker)
            time.sleep(_POLL_S)
    return done


def _start(function: str, target: Target, jobs: int, folder: Path) -> _Worker:
    config, secrets = _portable(target)
    mask = os.umask(0o077)  # a tool's is always this one; what a backup's files get is for our caller to say
    os.umask(mask)
    work = {
        "umask": mask,
        "level": logging.getLogger("pgsteward").getEffectiveLevel(),
        "config": config,
        "target": target.name,
        "database": target.database,
        "jobs": jobs,
        "function": function,
    }
    handle, name = tempfile.mkstemp(dir=folder)
    with os.fdopen(handle, "w") as file:
        json.dump(work, file)
    heard: SimpleQueue[Message] = SimpleQueue()

    def hear(pipe: IO[bytes]) -> None:
        for line in pipe:
            with contextlib.suppress(ValueError):
                heard.put(json.loads(line))

    # -P: nothing of the current folder is imported
    argv = [sys.executable, "-P", "-c", _CHILD, str(Path(__file__).absolute().parent.parent)]
    tool = start_tool(argv, env=secrets, stdin=Path(name), take_stdout=hear)
    return _Worker(target, jobs, time.monotonic(), tool, heard)


def _portable(target: Target) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the configuration for another process, and the secrets that only this one can look up."""
    config: dict[str, Any] = target.config.model_dump(mode="json")
    secrets: dict[str, str] = {}

    def hand_over(value: Any) -> Any:
        if isinstance(value, list):
            return [hand_over(each) for each in value]
        if not isinstance(value, dict):
            return value
        block = value.get("prefect_secret")
        if block is None:
            return {key: hand_over(each) for key, each in value.items()}
        name = f"PGSTEWARD_SECRET_{len(secrets)}"
        secrets[name] = Secret(prefect_secret=block).resolve()
        return {"env": name}

    settings = target.settings.model_dump(mode="json")  # which may have been narrowed to this database
    config["targets"][target.name] = hand_over({**settings, "restore": {}})
    for store in target.settings.stores:
        config["stores"][store] = hand_over(config["stores"][store])
    return config, secrets


def _listen(worker: _Worker) -> Iterator[str]:
    """Take what a process has said since; what it is at is yielded."""
    with contextlib.suppress(Empty):
        while True:
            message = worker.heard.get_nowait()
            if "progress" in message:
                yield message["progress"]
            elif "log" in message:
                level, name, text = message["log"]
                logging.getLogger(name).log(level, "%s: %s", worker.target.database, text)
            elif "result" in message:
                worker.result = StepResult.from_json(message["result"])
            elif "error" in message:
                worker.error = message


def _end(worker: _Worker, step: str) -> StepResult:
    failed: ToolFailed | None = None
    try:
        worker.tool.wait()
    except ToolFailed as exc:
        failed = exc
    for _ in _listen(worker):
        pass
    if worker.result is not None and failed is None:
        return worker.result
    words = f"its process ended without a result: {failed}" if failed else "its process said nothing"
    kind, text = (worker.error["error"], worker.error["text"]) if worker.error else ("ToolFailed", words)
    seconds = time.monotonic() - worker.began
    broken = results.failure(step, worker.target.name, ToolFailed(text), seconds)
    return replace(broken, details={"error": kind})


class _Teller(logging.Handler):
    """Tells our parent what is logged, what is being done, and at the end the result."""

    def __init__(self) -> None:
        super().__init__()
        self._told = 0.0
        self._telling = threading.Lock()

    def tell(self, **message: Any) -> None:
        line = json.dumps(message, default=str)
        with self._telling, contextlib.suppress(OSError):  # a parent that died ends us by a signal
            sys.stdout.write(line + "\n")
            sys.stdout.flush()

    def emit(self, record: logging.LogRecord) -> None:
        self.tell(log=[record.levelno, record.name, record.getMessage()])
        if record.exc_info:
            self.tell(log=[record.levelno, record.name, logging.Formatter().formatException(record.exc_info)])

    def progress(self, what: str, done: int = 0, total: int = 0) -> None:
        if time.monotonic() - self._told > _POLL_S:
            self._told = time.monotonic()
            self.tell(progress=f"{what} ({done:,} of {total:,})" if total else what)


def main() -> int:
    """Work on the database that standard input names."""
    from pgsteward.cli_run import Terminated, signals

    teller = _Teller()
    logging.basicConfig(level=logging.WARNING, handlers=[teller], force=True)
    try:
        with signals():
            work = json.load(sys.stdin)
            os.umask(work["umask"])
            logging.getLogger("pgsteward").setLevel(work["level"])
            config = Config.model_validate(work["config"])
            settings = config.target(work["target"])
            backup = settings.backup.model_copy(update={"jobs": work["jobs"]})
            settings = settings.model_copy(update={"backup": backup})
            target = Target(work["target"], settings, config, work["database"])
            module, name = work["function"].split(":")
            operation = getattr(importlib.import_module(module), name)
            result = call_with_retries(operation, target, progress=teller.progress)
            teller.tell(result=result.as_json())
    except (KeyboardInterrupt, Terminated) as exc:
        teller.tell(error=type(exc).__name__, text=str(exc) or "stopped")
    except Exception as exc:
        if not isinstance(exc, StewardError):
            log.exception("an error that pgsteward does not know; please report it")
        teller.tell(error=type(exc).__name__, text=str(exc) or type(exc).__name__)
    return 0
