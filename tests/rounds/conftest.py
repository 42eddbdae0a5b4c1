"""What all rounds share: a database that is written to. They take as long as they are many."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.rounds.writer import fill
from tests.servers import Database

HERE = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == HERE:
            item.add_marker(pytest.mark.timeout(300 + 60 * config.getoption("--rounds")))


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def seed(pytestconfig: pytest.Config) -> int:
    given: int | None = pytestconfig.getoption("--seed")
    return random.randrange(1_000_000) if given is None else given


@pytest.fixture
def busy_database(database: Database, seed: int) -> Database:
    """A database that is filled, and that `Writers` write to."""
    database.execute((HERE / "database.sql").read_bytes())
    fill(database, seed)
    return database
