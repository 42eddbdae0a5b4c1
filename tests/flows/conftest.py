"""One real Prefect server with a worker for all tests of the flows: 20 s once, then a second a run."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.settings import temporary_settings
from prefect.utilities.asyncutils import run_coro_as_sync

from pgsteward.children import Children
from pgsteward.places import CONFIG_ENV
from pgsteward.prefect_project import HOME_ENV
from pgsteward.prefect_stack import PrefectStack
from tests.servers import Database

ROOT = Path(__file__).resolve().parents[2]

TargetFile = Callable[..., str]


@pytest.fixture(scope="session")
def config_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The one configuration that tests and worker share; each test adds a target of its own."""
    return tmp_path_factory.mktemp("config") / "pgsteward.toml"


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, config_file: Path) -> Iterator[PrefectStack]:
    """Server, deployments of the shipped file, and a worker."""
    folder = tmp_path_factory.mktemp("prefect")
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
        HOME_ENV: str(ROOT),
        CONFIG_ENV: str(config_file),
    }
    with Children() as children:
        with PrefectStack(folder, children, env=env) as running:
            running.start_server()
            running.start_worker()
            running.deploy()
            yield running


@pytest.fixture
def in_process(
    stack: PrefectStack, config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[PrefectStack]:
    """Flows that a test calls itself report to the server as well."""
    monkeypatch.setenv(CONFIG_ENV, str(config_file))
    with temporary_settings({"api.url": stack.api.url}):
        yield stack
        run_coro_as_sync(_drain())


async def _drain() -> None:
    """Send what Prefect's threads still hold: once the server is gone they would wait a minute for it."""
    for drained in (APILogWorker.instance().drain(), EventsWorker.drain_all()):
        if inspect.isawaitable(drained):
            await drained


@pytest.fixture
def new_target(config_file: Path, tmp_path: Path) -> Callable[..., str]:
    """Add a target to the shared configuration and return its name."""

    def add(database: Database, *, store: str | None = None, more: str = "") -> str:
        name = f"t-{tmp_path.name}".lower().replace("_", "-")
        password = tmp_path / "password"
        password.write_text(f"{database.password or ''}\n")
        before = config_file.read_text() if config_file.exists() else _header(config_file)
        bin_dir = database.server.bin_dir
        secret = f'password = {{ file = "{password}" }}' if database.password else ""
        config_file.write_text(
            f"{before}\n"
            f'[stores.{name}]\nurl = "{store or f"file://{tmp_path}/store"}"\n'
            f'[targets.{name}]\nconninfo = "{database.conninfo}"\n{secret}\n'
            f'stores = ["{name}"]\nclient_dirs = {[str(bin_dir)] if bin_dir else []}\n'
            + more.replace("{name}", name)
            + "\n"
        )
        return name

    return add


def _header(config_file: Path) -> str:
    return f'state_url = "sqlite:///{config_file.parent}/state.db"\n'
