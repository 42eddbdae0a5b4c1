"""A scene for each fault: once with a folder of files, once with a stream."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.scene import Scene, made_scene
from tests.servers import Database


@pytest.fixture(params=["directory", "stream"])
def scene(request: pytest.FixtureRequest, database: Database, tmp_path: Path) -> Iterator[Scene]:
    with made_scene(database, tmp_path, request.param) as scene:
        yield scene


@pytest.fixture
def folder_scene(database: Database, tmp_path: Path) -> Iterator[Scene]:
    """For faults that the way of the archive makes no difference to."""
    with made_scene(database, tmp_path, "directory") as scene:
        yield scene
