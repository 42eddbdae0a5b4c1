"""pgsteward itself is stopped in the middle of a dump: by Ctrl-C, by SIGTERM, and without a warning."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.rows import Said
from tests.faults.scene import BOTH, Outcome, Scene, cases, fault, play, until

pytestmark = pytest.mark.any_server


def _config(scene: Scene) -> Path:
    settings = scene.target().settings
    path = scene.folder / "pgsteward.toml"
    dirs = ", ".join(f'"{folder}"' for folder in settings.client_dirs)
    path.write_text(
        f"""
state_url = "sqlite:///{scene.folder}/state.db"
[stores.disk]
url = "file://{scene.folder}/store"
[targets.app]
conninfo = "{settings.conninfo}"
password = {{ file = "{scene.folder}/password" }}
stores = ["disk"]
client_dirs = [{dirs}]
[targets.app.backup]
compress = "none"
jobs = 2
mode = "{scene.mode}"
"""
    )
    path.chmod(0o600)
    return path


def _stopped_by(scene: Scene, number: signal.Signals) -> Outcome:
    hold = scene.hold_the_dump()
    command = [sys.executable, "-m", "pgsteward.cli", "--config", str(_config(scene)), "backup", "app"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            until(lambda: hold.held.is_set() or process.poll() is not None, "the dump is held")
            process.send_signal(number)
            output, errors = process.communicate(timeout=60)
        finally:
            hold.go_on.set()
            process.kill()
    expected = -number if number == signal.SIGKILL else 128 + number
    assert process.returncode == expected, output + errors
    return Said((output + errors).strip() or "nothing")


@fault("pgsteward gets Ctrl-C", *BOTH)
def interrupted(scene: Scene) -> Outcome:
    return _stopped_by(scene, signal.SIGINT)


@fault("pgsteward gets SIGTERM", *BOTH)
def terminated(scene: Scene) -> Outcome:
    return _stopped_by(scene, signal.SIGTERM)


@fault("pgsteward gets SIGKILL", *BOTH)
def killed(scene: Scene) -> Outcome:
    return _stopped_by(scene, signal.SIGKILL)


@pytest.mark.parametrize(("scene", "name"), cases(__name__), indirect=["scene"])
def test_who_stops_pgsteward_stops_all_of_it(scene: Scene, name: str) -> None:
    play(scene, name)
