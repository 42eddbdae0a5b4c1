"""A scene for each fault: in the mode that it asks for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.scene import TABLES, Scene, made_scene
from tests.servers import Database, Server, private_database


@pytest.fixture(scope="session")
def tables_template(server: Server, template: str) -> str:
    """Name of a database with the tables of a scene."""
    name = "pgsteward_scene"
    server.create(name, template)
    Database(server, name).execute(TABLES)
    return name


@pytest.fixture
def database(server: Server, tables_template: str) -> Iterator[Database]:
    """A database with the tables of a scene, for this test alone."""
    with private_database(server, tables_template) as private:
        yield private


@pytest.fixture
def scene(request: pytest.FixtureRequest, database: Database, tmp_path: Path) -> Iterator[Scene]:
    """A scene in the mode that the test asks for (``indirect``), or one with a folder of files."""
    with made_scene(database, tmp_path, getattr(request, "param", "directory")) as scene:
        yield scene
