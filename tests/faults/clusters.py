"""Servers that a test may stop, crash and fill; and a standby of one."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pgsteward.children import Child, Children, free_port, run
from pgsteward.demo.server import UNPRIVILEGED, EmbeddedPostgres
from pgsteward.errors import StewardError
from pgsteward.postgres import Connection, Login, connect
from tests.servers import TEST_SETTINGS, Server

USER = UNPRIVILEGED if os.geteuid() == 0 else None
ENV = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


class Cluster:
    """A server of ours that can be stopped and started again on its port."""

    def __init__(
        self, like: Server, children: Children, data: Path, programs: Path, port: int, log: Path
    ) -> None:
        self._children, self._data, self._programs, self._log = children, data, programs, log
        self._child: Child | None = None
        self.port = port
        self.server = Server(
            Login(f"host=127.0.0.1 port={port} dbname=postgres user=postgres", like.login.password),
            like.version,
            like.contrib,
            like.bin_dir,
            log,
        )

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._child = self._children.start(
            "PostgreSQL",
            [
                self._programs / "postgres",
                "-D",
                self._data,
                "-h",
                "127.0.0.1",
                "-p",
                str(self.port),
                "-k",
                "",
            ],
            env=ENV,
            log=self._log,
            user=USER,
            stop_signal=signal.SIGINT,
        )
        self._children.wait_until(self._answers, "the start of the server")

    def stop(self) -> None:
        """Stop it as ``pg_ctl stop`` does: sessions are ended."""
        assert self._child is not None
        self._children.stop_one(self._child)

    def crash(self) -> None:
        """Kill one of its processes: it ends all sessions and starts again by itself."""
        with self.server.connect() as victim, self.server.connect() as witness:
            os.kill(victim.backend_pid, signal.SIGKILL)
            self._children.wait_until(lambda: not _lives(witness), "the crash")
        self._children.wait_until(self._answers, "the recovery of the server")

    def _answers(self) -> bool:
        try:
            with connect(self.server.login, purpose="test"):
                return True
        except StewardError:
            return False


@contextmanager
def own_cluster(like: Server, folder: Path, settings: Mapping[str, str]) -> Iterator[Cluster]:
    """Run a server of the same version for a while."""
    with Children() as children:
        postgres = EmbeddedPostgres(
            folder, children, distribution=like.bin_dir or "", settings={**TEST_SETTINGS, **settings}
        ).start()
        programs = Path(f"/proc/{_postmaster(postgres.data_dir)}/exe").readlink().parent
        as_ours = Server(postgres.login(), like.version, like.contrib, like.bin_dir)
        postgres.stop()
        cluster = Cluster(as_ours, children, postgres.data_dir, programs, postgres.port, postgres.log)
        cluster.start()
        yield cluster


@contextmanager
def standby_of(primary: Cluster) -> Iterator[Cluster]:
    """Run a streaming standby of a server, with its settings, for a while."""
    with Children() as children:
        data = primary._data.with_name("standby")
        data.mkdir(mode=0o700)
        if USER is not None:
            shutil.chown(data, USER)
        login = primary.server.login
        run(
            [
                primary._programs / "pg_basebackup",
                f"--dbname={login.conninfo}",
                *("--pgdata", data, "--write-recovery-conf", "--checkpoint=fast", "--no-password"),
            ],
            env={**ENV, **login.tool_env()},
            user=USER,
            timeout_s=120,
        )
        log = primary._log.with_name("standby.log")
        standby = Cluster(primary.server, children, data, primary._programs, free_port(), log)
        standby.start()
        yield standby


def _lives(session: Connection) -> bool:
    try:
        return bool(session.value("SELECT true"))
    except StewardError:
        return False


def _postmaster(data: Path) -> int:
    return int((data / "postmaster.pid").read_text().split("\n", 1)[0])
