"""A scene for each fault: in the mode that it asks for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.scene import Scene, made_scene
from tests.servers import Database


@pytest.fixture
def scene(request: pytest.FixtureRequest, database: Database, tmp_path: Path) -> Iterator[Scene]:
    """A scene in the mode that the test asks for (``indirect``), or one with a folder of files."""
    with made_scene(database, tmp_path, getattr(request, "param", "directory")) as scene:
        yield scene
