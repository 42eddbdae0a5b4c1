"""A restore is stopped: by Ctrl-C, by SIGTERM, and without a warning, at any point of its way."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from pgsteward.backup.receipt_chain import verify_receipts
from pgsteward.janitor import clean_up
from pgsteward.restore.replaced import MARK, undo_restore
from tests.faults.proxy import WAIT_S, Hold
from tests.faults.rows import Said
from tests.faults.scene import until
from tests.faults_restore.scene import (
    BACKED_UP,
    ORIGINAL,
    SAYS,
    Outcome,
    Scene,
    databases,
    fault,
    names_in,
    play,
)
from tests.integration.old_backups import as_toml
from tests.servers import Database

Command = Callable[[Scene], Sequence[str]]


def start(scene: Scene, *words: str) -> subprocess.Popen[str]:
    """Start a command of pgsteward, as from a shell."""
    path = scene.folder / "pgsteward.toml"
    config = {"state_url": f"sqlite:///{scene.folder}/state.db"}
    config |= scene.target().config.model_dump(mode="json", exclude_unset=True)
    path.write_text(as_toml(config))
    path.chmod(0o600)
    argv = [sys.executable, "-m", "pgsteward.cli", "--config", str(path), *words]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def replacing(scene: Scene) -> Sequence[str]:
    return ("restore", "app", "--replace", "--confirm-database", scene.database.dbname, "--jobs", "2")


def beside(scene: Scene) -> Sequence[str]:
    return ("restore", "app", "--into", scene.into, "--jobs", "2")


def _stopped_by(scene: Scene, number: signal.Signals) -> Outcome:
    hold = scene.hold_the_load()
    with start(scene, *replacing(scene)) as process:
        try:
            until(lambda: hold.held.is_set() or process.poll() is not None, "the load is held")
            process.send_signal(number)
            output, errors = process.communicate(timeout=60)
        finally:
            hold.go_on.set()
            process.kill()
    expected = -number if number == signal.SIGKILL else 128 + number
    assert process.returncode == expected, output + errors
    return Said((output + errors).strip() or "nothing")


@fault("the restore gets Ctrl-C")
def interrupted(scene: Scene) -> Outcome:
    return _stopped_by(scene, signal.SIGINT)


@fault("the restore gets SIGTERM")
def terminated(scene: Scene) -> Outcome:
    return _stopped_by(scene, signal.SIGTERM)


@fault("the restore gets SIGKILL")
def killed(scene: Scene) -> Outcome:
    return _stopped_by(scene, signal.SIGKILL)


@pytest.mark.parametrize("name", names_in(__name__))
def test_who_stops_a_restore_stops_all_of_it(scene: Scene, name: str) -> None:
    play(scene, name)


@dataclass(slots=True)
class Tally:
    """What became of the kills."""

    kills: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    held: Counter[str] = field(default_factory=Counter)
    """By the name of the session that was held."""

    def __str__(self) -> str:
        return f"{self.kills} kills: {dict(self.ends)}; held were {dict(self.held)}"


@pytest.mark.timeout(0)  # --kills may ask for hundreds
@pytest.mark.parametrize("command", [replacing, beside], ids=["replacing", "beside"])
def test_a_restore_that_is_killed_anywhere_has_happened_or_has_not(
    scene: Scene, command: Command, pytestconfig: pytest.Config, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed before, or right after, one of the messages that its sessions send: spread over all of them."""
    with start(scene, *command(scene)) as whole:
        output, errors = whole.communicate(timeout=WAIT_S)
    assert whole.returncode == 0, output + errors
    messages = scene.proxy.messages
    tally = Tally()
    put_back(scene)
    kills = pytestconfig.getoption("--kills")
    seed = pytestconfig.getoption("--seed")
    chosen = random.Random(seed if seed is not None else random.randrange(1_000_000))
    for number in range(kills):
        point = 1 + (number * messages + chosen.randrange(messages)) // kills
        hold = scene.proxy.hold_at(scene.proxy.messages + point)
        kill(scene, command(scene), hold, forward=chosen.random() < 0.5)
        tally.kills += 1
        tally.held[hold.name] += 1
        check(scene, tally)
    with capsys.disabled():
        print(f"\nPostgreSQL {scene.server.version}: {tally}")
    assert verify_receipts(scene.target(direct=True)).status == "ok"


def kill(scene: Scene, words: Sequence[str], hold: Hold, *, forward: bool) -> None:
    """Run a command until a session is held; kill it. What is held reaches the server, or does not."""
    with start(scene, *words) as process:
        try:
            until(lambda: hold.held.is_set() or process.poll() is not None, "a session is held")
            if not forward:
                scene.proxy.cut()
        finally:
            process.kill()
            process.communicate()
            hold.go_on.set()
    scene.settle()


def check(scene: Scene, tally: Tally) -> None:
    """Look at what a killed restore has left, run the janitor, and make it as it was."""
    name = scene.database.dbname
    assert scene.database.value(SAYS.encode()) in (ORIGINAL, BACKED_UP)
    there = set(databases(scene.server, f"{name}%")) - {name, scene.stage.template}
    assert len(there) <= 1
    scratch = scene.scratch()
    assert len(scratch) <= 1
    cleaned = clean_up(scene.target(direct=True))
    assert cleaned.status == "ok", cleaned
    assert scene.scratch() == []
    tally.ends["left for the janitor" if scratch else "nothing left" if not there else "whole"] += 1
    put_back(scene)
    scene.check_nothing_left()


def put_back(scene: Scene) -> None:
    """Undo a restore that was done: a copy is dropped, what was replaced comes back."""
    name = scene.database.dbname
    for other in set(databases(scene.server, f"{name}%")) - {name, scene.stage.template}:
        if other == scene.into:
            assert Database(scene.server, other).value(SAYS.encode()) == BACKED_UP
            scene.server.drop(other)
            continue
        assert str(scene.identity_of(other)["comment"]).startswith(MARK)
        assert scene.database.value(SAYS.encode()) == BACKED_UP
        undone = undo_restore(scene.target(direct=True), confirm_database=name)
        scene.server.drop(undone.details["put_aside"])
    assert scene.database.value(SAYS.encode()) == ORIGINAL
    assert scene.identity_of(name)["comment"] == "it's production"
