"""A server for one drill: from this machine's own programs, in a folder of its own, reachable by nobody else.

It listens on no network, only on a socket inside its own data folder. It dies with us (the kernel asks it to,
when its parent is killed), and its folder is removed by us or by the next run's janitor. No PG* variable and
no service leads elsewhere; should one do so all the same, nothing is written there.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

from pgsteward import client_places
from pgsteward.children import Child, Children
from pgsteward.demo.server import THROWAWAY_SETTINGS, EmbeddedPostgres, clean_env, remove_leftovers
from pgsteward.errors import PreconditionError, StewardError, ToolFailed
from pgsteward.pgtools import SOCKET_ONLY, run_tool
from pgsteward.places import state_folder
from pgsteward.postgres import connect
from pgsteward.report.units import humanize_bytes
from pgsteward.restore.fetch import spool_root
from pgsteward.results import Note
from pgsteward.spool import dead, private_folder

_SOCKET_BYTES = 107
_WAL_BYTES = 2 * 1024**3
_PORTS = range(61_000, 65_536)
"""Part of the socket's name only; beyond where servers usually listen."""


class ThrowawayServer(EmbeddedPostgres):
    """A cluster that need not survive anything, on a socket in its own data folder."""

    def conninfo(self, dbname: str = "postgres") -> str:
        """Return the conninfo of one database, without the password."""
        quoted, folder = (
            value.replace("\\", r"\\").replace("'", r"\'") for value in (dbname, str(self.data_dir))
        )
        return f"host='{folder}' port={self.port} dbname='{quoted}' user={self.user} {SOCKET_ONLY}"

    def refuse_another(self) -> None:
        """Make sure that its conninfo leads to it.

        Raises:
            PreconditionError: It leads to another server.
        """
        with connect(self.login(), purpose="drill") as session:
            answers = session.value("SHOW data_directory")
        if Path(answers).resolve() != self.data_dir.resolve():
            raise PreconditionError(
                f"the server of {answers} answers, not the drill's own in {self.data_dir}: nothing was"
                " changed there; unset the PG* environment variables and the service that lead to it"
            )

    def _launch(self, programs: Path, port: int, user: str | None) -> Child:
        if "," in str(self.data_dir):
            raise PreconditionError(
                f"the path {self.data_dir} has a comma, which makes it a list of hosts; set XDG_STATE_HOME to"
                " one without"
            )
        if len(str(self.data_dir / f".s.PGSQL.{port}").encode()) > _SOCKET_BYTES:
            raise PreconditionError(
                f"the path {self.data_dir} is too long for a Unix socket; set XDG_STATE_HOME to a shorter one"
            )
        return self._children.start(
            "PostgreSQL",
            [programs / "postgres", "-D", self.data_dir, "-h", "", "-p", str(port), "-k", self.data_dir],
            env=clean_env(),
            log=self.log,
            user=user,
            stop_signal=signal.SIGQUIT,  # nothing in it is worth a shutdown in good order
        )


def settings_for(memory_bytes: int, major: int) -> dict[str, str]:
    """Return what makes one load of a whole database fast, where a crash costs nothing.

    Event triggers are off from 17 on, where that can be said: one of the database's own might keep us out.
    """
    share = max(64, min(1024, memory_bytes // 16 // 1024**2))
    return {
        **THROWAWAY_SETTINGS,
        "shared_buffers": f"{share}MB",
        "maintenance_work_mem": f"{share}MB",
        "max_wal_size": f"{_WAL_BYTES // 1024**2}MB",
        "wal_level": "minimal",
        "max_wal_senders": "0",
        "autovacuum": "off",
        "max_locks_per_transaction": "256",
        "restart_after_crash": "off",
        **({"event_triggers": "off"} if major >= 17 else {}),
    }


def find_server(major: int, extra_dirs: Sequence[Path]) -> Path:
    """Return the folder of this machine's programs of a server of one major version.

    Raises:
        PreconditionError: There are none; the text says what to install.
    """
    for folder in client_places.folders(extra_dirs):
        programs = [folder / name for name in ("postgres", "initdb", "pg_restore", "pg_dump")]
        if not all(client_places.can_be_run(program.resolve()) for program in programs):
            continue
        with contextlib.suppress(ToolFailed):
            said = run_tool([programs[0], "--version"], env={}).stdout.decode(errors="replace")
            if f" {major}." in said or f" {major}devel" in said:
                return folder.resolve()
    raise PreconditionError(
        f"no server of PostgreSQL {major} is installed on this machine, and a drill starts one of its own:"
        f" install postgresql-{major} (its programs are enough; no cluster is needed), name their folder in"
        " client_dirs, or drill on a server: --on-server"
    )


@contextlib.contextmanager
def throwaway_server(
    run_id: str, major: int, extra_dirs: Sequence[Path], database_bytes: int, download_bytes: int = 0
) -> Iterator[ThrowawayServer]:
    """Start a server; it and everything in it are gone afterwards.

    Args:
        run_id: Names its folder.
        major: Version of PostgreSQL.
        extra_dirs: Further folders to look for programs in.
        database_bytes: Room for its data.
        download_bytes: Room for what will be downloaded for it, beside it or elsewhere.

    Raises:
        PreconditionError: There are no programs, or there is no room.
        ToolFailed: It does not start.
    """
    programs = find_server(major, extra_dirs)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with private_folder(root(), run_id) as folder, Children() as children:
        server = ThrowawayServer(
            folder / "server",
            children,
            distribution=programs,
            port=secrets.choice(_PORTS),
            settings=settings_for(memory, major),
        )
        server.start()
        server.refuse_another()
        free = shutil.disk_usage(server.data_dir).free
        needed, what = room(server.data_dir, database_bytes, download_bytes)
        if free < needed:
            raise PreconditionError(
                f"{humanize_bytes(free)} are free in {server.data_dir}, {humanize_bytes(needed)} are needed"
                f" for {what}"
            )
        yield server


def room(data_dir: Path, database_bytes: int, download_bytes: int) -> tuple[int, str]:
    """Return how many bytes must be free where a server's data lies, and for what.

    Args:
        data_dir: Of the server.
        database_bytes: What it will hold.
        download_bytes: What will be downloaded for it; on another file system it is no matter of this one.
    """
    needed = database_bytes + min(_WAL_BYTES, database_bytes)
    spool = spool_root()
    there = next(place for place in (spool, *spool.parents) if place.exists())
    if download_bytes and there.stat().st_dev == data_dir.stat().st_dev:
        return needed + download_bytes, "the restored database, its WAL and the download"
    return needed, "the restored database and its WAL"


def root() -> Path:
    """Return the folder below which drills work."""
    return state_folder() / "drill"


def remove_dead_servers(*, dry_run: bool = False) -> tuple[list[Path], list[Note]]:
    """Remove what drills that were killed have left, also outside their folders.

    Returns:
        The folders that are gone (or would be), and those that are still there, with why.
    """
    removed: list[Path] = []
    left: list[Note] = []
    for folder in dead(root()):
        if not dry_run:
            server = folder / "server"
            try:
                remove_leftovers(server)
                shutil.rmtree(server, ignore_errors=True)
            except (StewardError, OSError) as exc:
                left.append(Note(str(folder), f"a dead drill's server was not removed: {exc}"))
                continue
            if not server.exists():  # the lock, by which the next run finds the folder, goes last
                shutil.rmtree(folder, ignore_errors=True)
            if folder.exists():
                left.append(Note(str(folder), "a dead drill's folder can't be removed; remove it"))
                continue
        removed.append(folder)
    return removed, left
