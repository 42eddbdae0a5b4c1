"""One backup for all faults, and a scene for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults_restore.scene import Scene, Stage, made_scene, made_stage
from tests.servers import Server


@pytest.fixture(scope="session")
def stage(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with made_stage(server, tmp_path_factory.mktemp("stage")) as stage:
        yield stage


@pytest.fixture
def scene(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """A scene for this fault alone; what restores leave on this machine lies in its folder."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with made_scene(stage, tmp_path) as scene:
        yield scene
