"""Fixtures of the whole suite: one server a session, one database a test."""

from __future__ import annotations

import gc
import logging
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pgsteward.children import Children
from pgsteward.demo import sample
from pgsteward.demo.s3 import LocalS3
from pgsteward.errors import StewardError
from pgsteward.postgres import compose, identifier
from tests import servers, sharing

SAMPLE_SCALE = 0.005
"""7,500 applications: seeded in half a second, cloned in a tenth."""


@pytest.fixture(scope="session", autouse=True)
def state_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is remembered about stores, and other state, never lies in the home of who runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """A command that a test runs in its own process logs on a stream that is closed with that test."""
    root, ours = logging.getLogger(), logging.getLogger("pgsteward")
    handlers, level, root_level = set(root.handlers), ours.level, root.level
    yield
    for handler in set(root.handlers) - handlers:
        root.removeHandler(handler)
    root.setLevel(root_level)
    ours.setLevel(level)


# A background job of a shell is born with SIGINT ignored, and hands that down to every process it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("pgsteward")
    group.addoption(
        "--pg", choices=servers.CHOICES, default="17", help="which PostgreSQL the tests run against"
    )
    group.addoption(
        "--require-postgres", action="store_true", help="fail instead of skipping when a server is missing"
    )
    group.addoption(
        "--rounds", type=int, default=10, help="backup-restore-compare rounds under load (tests/rounds)"
    )
    group.addoption(
        "--kills", type=int, default=4, help="SIGKILLs of a running restore (tests/faults_restore)"
    )
    group.addoption(
        "--stores",
        choices=("local", "all"),
        default="local",
        help="also other implementations of S3, in containers (tests/other_stores)",
    )
    group.addoption("--seed", type=int, help="of the rounds; another one each time when it is not given")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    sharing.sort_by_length(items)


def pytest_collection_finish() -> None:
    """Look for garbage among what tests make only, not again and again among all that was imported."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> sharing.ByFile | None:
    return sharing.ByFile(config, log) if config.getoption("dist") == "loadfile" else None


def missing(config: pytest.Config, reason: str) -> None:
    """Skip the test that needs a server that can't be had; or fail it, where nothing may be skipped."""
    if config.getoption("--require-postgres"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session", autouse=True)
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where servers have their data: in memory if that can be, also those that commands start as root."""
    on_disk = tmp_path_factory.mktemp("clusters")
    with servers.folder_in_memory() as folder, pytest.MonkeyPatch.context() as patch:
        if folder is not None:
            patch.setenv("TMPDIR", str(folder))
        yield folder or on_disk


@pytest.fixture(scope="session")
def server(pytestconfig: pytest.Config, clusters: Path) -> Iterator[servers.Server]:
    """The PostgreSQL that ``--pg`` names."""
    choice = pytestconfig.getoption("--pg")
    with_server = servers.running(choice, clusters / "server")
    try:
        running = with_server.__enter__()
    except StewardError as exc:
        missing(pytestconfig, f"no PostgreSQL {choice}: {exc}")
        raise
    try:
        yield running
    finally:
        with_server.__exit__(None, None, None)


@pytest.fixture(autouse=True)
def requirements(request: pytest.FixtureRequest) -> None:
    """Skip a test that the server is too old or too bare for: ``pg_min(major)``, ``contrib``."""
    oldest = request.node.get_closest_marker("pg_min")
    contrib = request.node.get_closest_marker("contrib")
    if oldest is None and contrib is None:
        return
    running: servers.Server = request.getfixturevalue("server")
    if oldest is not None and running.version < oldest.args[0]:
        pytest.skip(f"needs PostgreSQL {oldest.args[0]}, this is {running.version}")
    if contrib is not None and not running.contrib:
        pytest.skip(f"needs pgstattuple, which this PostgreSQL {running.version} does not bring")


@pytest.fixture(scope="session")
def template(server: servers.Server) -> str:
    """Name of an empty database with pgstattuple, where there is such a thing."""
    name = "pgsteward_template"
    server.create(name)
    if server.contrib:
        with server.connect(name) as connection:
            connection.execute("CREATE EXTENSION pgstattuple")
    return name


@pytest.fixture
def database(server: servers.Server, template: str) -> Iterator[servers.Database]:
    """An empty database for this test alone."""
    with servers.private_database(server, template) as private:
        yield private


@pytest.fixture(scope="session")
def sample_template(server: servers.Server) -> str:
    """Name of a database with a small sample in it."""
    name = "pgsteward_sample"
    server.create(name)
    sample.seed(server.login.to(name), scale=SAMPLE_SCALE)
    return name


@pytest.fixture
def sample_database(server: servers.Server, sample_template: str) -> Iterator[servers.Database]:
    """A copy of the sample for this test alone.

    Counters are not copied with a database: what `PLANTED` says about never analyzed tables is made true
    again here, what it says about outdated statistics is not.
    """
    with servers.private_database(server, sample_template) as private:
        with private.connect() as connection:
            for table in sample.TABLES:
                if f"public.{table}" not in sample.PLANTED.never_analyzed:
                    connection.execute(compose("ANALYZE {}", identifier("public", table)))
        yield private


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalS3]:
    """A real S3 endpoint: rclone over a folder."""
    with Children() as children:
        yield LocalS3(tmp_path_factory.mktemp("s3"), children).start()


@pytest.fixture
def bucket(s3: LocalS3) -> servers.Bucket:
    """A prefix in the bucket for this test alone."""
    return servers.Bucket(s3, f"test-{uuid.uuid4().hex[:12]}")
