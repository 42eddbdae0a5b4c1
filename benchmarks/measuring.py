"""What every benchmark needs: a server of its own, a configuration, a command measured from outside.

Memory is the highest VmHWM that was seen of each process, sampled from ``/proc``. (``ru_maxrss`` is of no use
here: a child starts with the figure of the process that forked it.)
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

from pgsteward import postgres
from pgsteward.children import Children
from pgsteward.demo.server import EmbeddedPostgres

PASSWORD_ENV = "PGSTEWARD_BENCH_PASSWORD"
PGSTEWARD = Path(sys.executable).with_name("pgsteward")
README = Path(__file__).with_name("README.md")
_PYTHON = os.path.realpath(sys.executable)
_SAMPLE_EVERY_S = 0.05
_STORE_MARK = ".pgsteward-store"
_ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
_HIGH_WATER = re.compile(r"^VmHWM:\s+(\d+) kB", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Measured:
    """One command from start to end, start-up included.

    Attributes:
        seconds: Wall time.
        own_bytes: Peak resident memory of the process itself.
        children_bytes: Peaks of all its descendants, summed by program: ``{"pg_dump": ...}``.
        stdout: What it printed.
    """

    seconds: float
    own_bytes: int
    children_bytes: Mapping[str, int]
    stdout: bytes


@dataclass(slots=True)
class _Memory:
    """Samples a process and its descendants until it is told to stop."""

    pid: int
    own: int = 0
    by_process: dict[int, tuple[str, int]] = field(default_factory=dict)

    def sample(self) -> None:
        own_program = _program(self.pid)
        self.own = max(self.own, _peak(self.pid))
        for pid in _descendants(self.pid):
            program = _program(pid)
            if program is None or program == own_program == _PYTHON:
                continue  # gone, or between fork and exec: still its parent's memory
            self.by_process[pid] = (str(program), max(self.by_process.get(pid, ("", 0))[1], _peak(pid)))

    def children(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for program, peak in self.by_process.values():
            found[Path(program).name] = found.get(Path(program).name, 0) + peak
        return found


def measure(argv: Sequence[str | Path], env: Mapping[str, str], *, accept: Sequence[int] = (0,)) -> Measured:
    """Run a command to its end, with bytecode as an installed program has it.

    Args:
        argv: The command.
        env: Added to the environment.
        accept: Exit statuses that are no failure.

    Raises:
        SystemExit: It failed; a benchmark of what does not work is none.
    """
    started = monotonic()
    process = subprocess.Popen(
        [str(part) for part in argv],
        env={**_ENVIRONMENT, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    memory, over = _Memory(process.pid), threading.Event()

    def watch() -> None:
        while not over.wait(_SAMPLE_EVERY_S):
            memory.sample()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        stdout, stderr = process.communicate()
        seconds = monotonic() - started
    finally:
        over.set()
        watcher.join()
        if process.poll() is None:
            process.terminate()
            process.wait()
    if process.returncode not in accept:
        raise SystemExit(
            f"{' '.join(map(str, argv))} ended with status {process.returncode}:\n"
            f"{stderr.decode(errors='replace')}{stdout.decode(errors='replace')}"
        )
    return Measured(round(seconds, 3), memory.own, memory.children(), stdout)


def _peak(pid: int) -> int:
    try:
        found = _HIGH_WATER.search(Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


def _program(pid: int) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/exe")  # noqa: PTH115
    except OSError:
        return None


def _descendants(pid: int) -> Iterator[int]:
    """Yield children of every thread, and theirs."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208
    except OSError:
        return
    for thread in threads:
        try:
            children = Path(f"/proc/{pid}/task/{thread}/children").read_text().split()
        except OSError:
            continue
        for child in map(int, children):
            yield child
            yield from _descendants(child)


@dataclass(frozen=True, slots=True)
class Bench:
    """A server with nothing in it, a folder for everything, and a configuration for pgsteward."""

    server: EmbeddedPostgres
    folder: Path

    @property
    def env(self) -> dict[str, str]:
        """What pg_dump and pgsteward need to reach the server; pgsteward keeps its state in our folder."""
        return {
            **self.server.env(),
            PASSWORD_ENV: self.server.password,
            "XDG_STATE_HOME": str(self.folder / "state"),
            "PGSTEWARD_CONFIG": str(self.folder / "pgsteward.toml"),
        }

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def tool(self, name: str) -> Path:
        return self.server.bin_dir / name

    def admin(self, statement: str) -> Any:
        with postgres.connect(self.server.login("postgres"), purpose="bench") as connection:
            return (
                connection.rows(statement)
                if statement.startswith("SELECT")
                else connection.execute(statement)
            )

    def configure(
        self,
        targets: Mapping[str, tuple[str, Mapping[str, Any]]],
        stores: Mapping[str, Sequence[str]] | None = None,
        more: str = "",
    ) -> None:
        """Write a configuration: by name of the target, its database and its backup settings.

        Args:
            targets: The settings.
            stores: Of targets that use others than the folder ``disk``.
            more: Added as it is.
        """
        text = [
            f"state_url = {_toml(f'sqlite:///{self.folder}/state.db')}",
            f"[stores.disk]\nurl = {_toml(self.store.as_uri())}",
        ]
        for name, (database, backup) in targets.items():
            text += [
                f"[targets.{name}]",
                f"conninfo = {_toml(self.server.conninfo(database))}",
                f'password = {{ env = "{PASSWORD_ENV}" }}',
                f"stores = {_toml((stores or {}).get(name, ['disk']))}",
                f"client_dirs = [{_toml(str(self.server.bin_dir))}]",
                f"[targets.{name}.backup]",
                *(f"{key} = {_toml(value)}" for key, value in backup.items()),
            ]
        (self.folder / "pgsteward.toml").write_text("\n".join([*text, more]) + "\n")


def _toml(value: Any) -> str:
    return json.dumps(value)  # strings, numbers, booleans and lists of them are written alike


@contextmanager
def bench(settings: Mapping[str, str], into: Path | None) -> Iterator[Bench]:
    """Start a server in a folder of its own; both are gone at the end."""
    with tempfile.TemporaryDirectory(prefix="pgsteward-bench-", dir=into) as name, Children() as children:
        folder = Path(name)
        folder.chmod(0o755)
        yield Bench(EmbeddedPostgres(folder / "postgres", children, settings=settings).start(), folder)


def clear(path: Path) -> None:
    """Remove what a run wrote, and let the disk come to rest before the next one.

    A store keeps what it is known by: pgsteward refuses an empty one in its place.
    """
    if path.is_dir():
        marks = list(path.rglob(_STORE_MARK))
        for mark in marks:
            for each in mark.parent.iterdir():
                if each != mark:
                    shutil.rmtree(each)
        if not marks:
            shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    os.sync()


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all the files in a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())


def machine() -> dict[str, Any]:
    """Return what a reader has to know about where it was measured."""
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def busy_seconds() -> float:
    """Return for how long the machine's processors were busy since it started, added up."""
    user, nice, system, _idle, _waiting, *interrupts = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def median(values: Sequence[float]) -> float:
    return round(statistics.median(values), 3)


def rotated(names: Sequence[str], number: int) -> list[str]:
    """Return the names in the order of round `number`: each round begins with another one."""
    start = number % len(names)
    return [*names[start:], *names[:start]]


def replace_in_readme(mark: str, text: str, readme: Path = README) -> None:
    """Put a table between the two comments that carry its mark."""
    begin, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    before, found, rest = readme.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"{readme} has no {begin} ... {end}")
    readme.write_text(f"{before}{begin}\n{text.strip()}\n{end}{after}")


def timed(work: Callable[[], object]) -> float:
    started = monotonic()
    work()
    return round(monotonic() - started, 1)
