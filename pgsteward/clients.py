"""Which client of PostgreSQL a server gets: all that can be found are asked what they are and can do."""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from pgsteward.client_places import TOOLS, can_be_run, folders, lacking
from pgsteward.errors import PreconditionError, ToolFailed
from pgsteward.pgtools import SOCKET_ONLY, run_tool, start_tool

log = logging.getLogger(__name__)

_VERSION = re.compile(r"\(PostgreSQL\)\s+(\d+)(?:\.(\d+))?")
_VERSIONS: dict[tuple[Path, int], tuple[int, int] | None] = {}
"""By program and when it was last changed."""
_ASKED_S = 15.0
"""How long a program may take to tell its version; a broken one on PATH must not hold up the night."""


@dataclass(frozen=True, slots=True)
class Client:
    """One folder with pg_dump and friends.

    Attributes:
        folder: Where they are.
        version: Major and minor, as pg_dump itself says: (17, 10).
        lacks: Programs of a complete client that are not beside it.
    """

    folder: Path
    version: tuple[int, int]
    lacks: tuple[str, ...] = field(default=(), compare=False)

    @property
    def text(self) -> str:
        """The version as people write it: ``17.10``."""
        return f"{self.version[0]}.{self.version[1]}"

    def tool(self, name: str) -> Path:
        """Return the path of one program.

        Raises:
            PreconditionError: This installation lacks it.
        """
        path = self.folder / name
        if not path.is_file():
            raise PreconditionError(
                f"there is no {name} in {self.folder}; install the complete client of PostgreSQL {self.text}"
            )
        return path


def find_clients(
    extra_dirs: Sequence[Path] = (), stop_check: Callable[[], None] | None = None
) -> list[Client]:
    """Return every client that can be found, oldest first.

    Looked at: `extra_dirs`, PATH (absolute folders only), the usual folders of distributions, installed
    wheels. Debian's wrapper script, which chooses a version by itself, does not count.

    Args:
        extra_dirs: Folders named by the configuration (``client_dirs``).
        stop_check: Called now and then; what it raises ends the search.
    """
    programs: dict[Path, Path] = {}
    for folder in folders(extra_dirs):
        program = folder / "pg_dump"
        if not can_be_run(program):
            continue
        real = program.resolve()
        if real.name != "pg_wrapper":
            programs.setdefault(real, program)
    versions = _ask_versions(list(programs.values()), stop_check)
    found = []
    for real, program in programs.items():
        version = versions[program]
        if version is not None:
            # Where a link leads to pg_dump alone, the other programs are beside what it leads to.
            lacks, folder = min((lacking(place), place) for place in (program.parent, real.parent))
            found.append(Client(folder, version, lacks))
    return sorted(found, key=lambda client: client.version)


def choose_client(
    clients: Sequence[Client],
    server_version: int,
    *,
    codec: str | None = None,
    spec: str | None = None,
    needs: Sequence[str] = TOOLS,
) -> Client:
    """Return the client for a server: the oldest major that is new enough and has the codec, newest minor.

    Args:
        clients: What `find_clients` found.
        server_version: As libpq gives it: 170010.
        codec: ``zstd``, ``lz4``, ``gzip`` or ``none``; None does not care.
        spec: The whole compression setting where its level matters too, e.g. ``zstd:19``.
        needs: Programs that must be there; a client without them is passed over.

    Raises:
        PreconditionError: None is good enough; the text says what to install.
    """
    major = server_version // 10_000
    new_enough = [client for client in clients if client.version[0] >= major]
    if not new_enough:
        known = ", ".join(f"{client.text} in {client.folder}" for client in clients) or "none"
        raise PreconditionError(
            f"the server is PostgreSQL {major}, and no client of {major} or newer was found (found: {known});"
            f" install postgresql-client-{major} or name its folder in client_dirs"
        )
    complete = [client for client in new_enough if not set(needs) & set(client.lacks)]
    if not complete:
        lacking = "; ".join(
            f"{client.text} in {client.folder} has no {' and no '.join(client.lacks)}"
            for client in new_enough
        )
        raise PreconditionError(
            f"no complete client of PostgreSQL {major} or newer was found ({lacking}); install all of"
            f" postgresql-client-{major} or name its folder in client_dirs"
        )
    for client in sorted(complete, key=lambda each: (each.version[0], -each.version[1])):
        if codec in (None, "none", "gzip") or has_codec(client, spec or str(codec)):
            return client
    known = ", ".join(f"{client.text} in {client.folder}" for client in complete)
    raise PreconditionError(
        f"no client for this server can compress with {spec or codec} (asked: {known}); install"
        f" postgresql-client-{max(major, 16)} of your distribution or of apt.postgresql.org, built"
        f" with {codec}, or name its folder in client_dirs"
    )


def has_codec(client: Client, spec: str) -> bool:
    """Tell whether a client can compress with ``zstd``, ``lz4:3`` and so on, by asking that client."""
    program = client.tool("pg_dump")
    return _has_codec(program, program.stat().st_mtime_ns, spec)


def _ask_versions(
    programs: Sequence[Path], stop_check: Callable[[], None] | None
) -> dict[Path, tuple[int, int] | None]:
    """Ask programs for their versions, all at the same time; None for one that has no answer."""
    keys = {program: (program, program.stat().st_mtime_ns) for program in programs}
    in_time = _in_time(stop_check)
    with contextlib.ExitStack() as running:
        tools = []
        for key in keys.values():
            if key not in _VERSIONS:
                with _no_client(key):
                    tools.append((key, running.enter_context(start_tool([key[0], "--version"], env={}))))
        for key, tool in tools:
            with _no_client(key):
                match = _VERSION.search(tool.wait(in_time).stdout.decode(errors="replace"))
                if match is None:
                    raise ToolFailed("it tells no version of PostgreSQL")
                _VERSIONS[key] = (int(match[1]), int(match[2] or 0))
    return {program: _VERSIONS[key] for program, key in keys.items()}


@contextlib.contextmanager
def _no_client(key: tuple[Path, int]) -> Iterator[None]:
    try:
        yield
    except ToolFailed as exc:
        log.warning("%s does not count as a client: %s", key[0], exc)
        _VERSIONS[key] = None


@cache
def _has_codec(program: Path, _changed: int, spec: str) -> bool:
    """Ask for a dump of a server that can't exist: a build without the codec complains about that first."""
    nowhere = (
        f"host=/nonexistent-pgsteward-probe port=1 dbname=probe user=probe connect_timeout=1 {SOCKET_ONLY}"
    )
    argv: list[str | Path] = [program, "--format=custom", f"--compress={spec}", "--file=/dev/null"]
    try:
        run_tool([*argv, f"--dbname={nowhere}", "--no-password"], env={}, stop_check=_in_time())
    except ToolFailed as exc:
        return "nonexistent-pgsteward-probe" in str(exc)
    return False


def _in_time(stop_check: Callable[[], None] | None = None) -> Callable[[], None]:
    """Return what raises once a tool that is merely asked something has taken too long."""
    deadline = time.monotonic() + _ASKED_S

    def check() -> None:
        if stop_check is not None:
            stop_check()
        if time.monotonic() > deadline:
            raise ToolFailed(f"it gave no answer within {_ASKED_S:.0f} s")

    return check
