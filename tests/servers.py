"""Real servers for the tests: which PostgreSQL, a private database each, a prefix of its own in S3."""

from __future__ import annotations

import contextlib
import gc
import os
import uuid
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgsteward.children import Children
from pgsteward.demo.s3 import LocalS3
from pgsteward.demo.server import DEFAULT_SETTINGS, THROWAWAY_SETTINGS, EmbeddedPostgres
from pgsteward.errors import PreconditionError
from pgsteward.postgres import Connection, Login, Row, Statement, compose, connect, identifier
from pgsteward.spool import private_folder, remove_dead

TEST_SETTINGS = {**THROWAWAY_SETTINGS, "max_prepared_transactions": "8", "max_wal_size": "512MB"}
"""Prepared transactions hold locks without a session, and a night has to name them; WAL may lie in memory."""

CHOICES = ("15", "16", "17", "18", "container")
DISTRIBUTIONS: Mapping[str, str] = {"16": "pixeltable", "17": "celerp", "18": "embedded"}
"""The wheel that brings a major version; others come from the distribution's packages."""

DEFAULT_IMAGE = "postgres:17"

_MEMORY = Path("/dev/shm")
_ENOUGH_BYTES = 4 << 30
"""Several processes have clusters in there, of some hundred megabytes each."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running PostgreSQL that belongs to the tests.

    Attributes:
        login: Superuser, to the database ``postgres``.
        version: Major version.
        contrib: Whether pgstattuple can be installed.
        bin_dir: Client programs of the same version; None for a container.
        log: What the server says; None for a container.
    """

    login: Login
    version: int
    contrib: bool
    bin_dir: Path | None = None
    log: Path | None = None

    def connect(self, dbname: str = "postgres") -> Connection:
        return connect(self.login.to(dbname), purpose="test")

    def create(self, dbname: str, template: str = "template0") -> None:
        """Copy a database by its files: half the time of a copy through the WAL."""
        statement = compose(
            "CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy", identifier(dbname), identifier(template)
        )
        with self.connect() as connection:
            connection.execute(statement)

    def rename(self, dbname: str, to: str) -> None:
        with self.connect() as connection:
            connection.execute(compose("ALTER DATABASE {} RENAME TO {}", identifier(dbname), identifier(to)))

    def drop(self, dbname: str) -> None:
        with self.connect() as connection:
            connection.execute(compose("DROP DATABASE IF EXISTS {} WITH (FORCE)", identifier(dbname)))


@dataclass(frozen=True, slots=True)
class Database:
    """A database that one test has for itself."""

    server: Server
    dbname: str

    @property
    def login(self) -> Login:
        return self.server.login.to(self.dbname)

    @property
    def conninfo(self) -> str:
        return self.login.conninfo

    @property
    def password(self) -> str | None:
        return self.login.password

    @property
    def name(self) -> str:
        return self.dbname

    def connect(self, **options: Any) -> Connection:
        """Open a session as superuser; see `pgsteward.postgres.connect` for the options."""
        return connect(self.login, purpose=options.pop("purpose", "test"), **options)

    def execute(self, statement: Statement, params: Mapping[str, Any] | None = None) -> int:
        with self.connect() as connection:
            return connection.execute(statement, params)

    def rows(self, statement: Statement, params: Mapping[str, Any] | None = None) -> list[Row]:
        with self.connect() as connection:
            return connection.rows(statement, params)

    def value(self, statement: Statement, params: Mapping[str, Any] | None = None) -> Any:
        with self.connect() as connection:
            return connection.value(statement, params)


@dataclass(frozen=True, slots=True)
class Bucket:
    """A prefix of the test bucket that one test has for itself.

    Attributes:
        s3: The endpoint, with its keys.
        prefix: Without slashes at the ends.
    """

    s3: LocalS3
    prefix: str

    @property
    def url(self) -> str:
        return f"s3://{self.s3.bucket}/{self.prefix}"

    @property
    def folder(self) -> Path:
        """Where the objects lie on disk, to be tampered with."""
        return self.s3.root / self.s3.bucket / self.prefix


@contextlib.contextmanager
def private_database(server: Server, template: str = "template0") -> Iterator[Database]:
    """Clone a template for one test, and drop the copy afterwards, whoever is still connected."""
    dbname = f"test_{uuid.uuid4().hex[:12]}"
    server.create(dbname, template)
    try:
        yield Database(server, dbname)
    finally:
        server.drop(dbname)


@contextlib.contextmanager
def folder_in_memory() -> Iterator[Path | None]:
    """Make a folder that servers can reach, in memory; None where there is too little, or nothing may run.

    A database is three hundred files, made and removed again for each test. That took half of the suite's
    time on a disk whose ext4 has no journal: it looks at all files that were lately removed for each new one.
    """
    if not _is_roomy(_MEMORY):
        yield None
        return
    root = _MEMORY / f"pgsteward-tests-{os.geteuid()}"
    remove_dead(root)
    with private_folder(root, uuid.uuid4().hex[:12]) as folder:
        for each in (root, folder):
            each.chmod(0o711)
        yield folder


def _is_roomy(place: Path) -> bool:
    try:
        there = os.statvfs(place)
    except OSError:
        return False
    runs = not there.f_flag & os.ST_NOEXEC and os.access(place, os.W_OK)
    return runs and there.f_bavail * there.f_frsize >= _ENOUGH_BYTES


@contextlib.contextmanager
def running(choice: str, folder: Path) -> Iterator[Server]:
    """Run the chosen server.

    Args:
        choice: One of `CHOICES`.
        folder: For cluster and log.

    Raises:
        PreconditionError: It can't be had on this machine.
    """
    with _container() if choice == "container" else _embedded(choice, folder) as server:
        yield server


@contextlib.contextmanager
def _embedded(choice: str, folder: Path) -> Iterator[Server]:
    distribution = DISTRIBUTIONS.get(choice, f"/usr/lib/postgresql/{choice}/bin")
    with Children() as children:
        postgres = EmbeddedPostgres(
            folder, children, distribution=distribution, settings=TEST_SETTINGS
        ).start()
        yield _look_at(postgres.login(), postgres.bin_dir, postgres.log)


@contextlib.contextmanager
def _container() -> Iterator[Server]:
    try:
        from testcontainers.community.postgres import PostgresContainer
    except ImportError as exc:
        raise PreconditionError("testcontainers is not installed") from exc
    image = os.environ.get("PGSTEWARD_TEST_IMAGE", DEFAULT_IMAGE)
    kept = ("autovacuum_naptime", "max_wal_size", "timezone")
    settings = {**{name: DEFAULT_SETTINGS[name] for name in kept}, **TEST_SETTINGS}
    command = " ".join(["postgres", *(f"-c {name}={value}" for name, value in settings.items())])
    try:
        container = PostgresContainer(image, username="postgres", dbname="postgres").with_command(command)
        container.start()
    except Exception as exc:
        reason = f"no container of {image}: {exc}"
    else:
        reason = ""
    if reason:
        with warnings.catch_warnings():  # the Docker client leaves its socket to the garbage collector
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
        raise PreconditionError(reason)
    try:
        conninfo = (
            f"host={container.get_container_host_ip()} port={container.get_exposed_port(5432)}"
            " dbname=postgres user=postgres"
        )
        yield _look_at(Login(conninfo, container.password))
    finally:
        container.stop()


def _look_at(login: Login, bin_dir: Path | None = None, log: Path | None = None) -> Server:
    with connect(login, purpose="test") as connection:
        return Server(
            login=login,
            version=connection.server_version // 10_000,
            contrib=connection.value(
                "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pgstattuple')"
            ),
            bin_dir=bin_dir,
            log=log,
        )
