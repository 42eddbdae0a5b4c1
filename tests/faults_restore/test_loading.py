"""What breaks while a copy is loaded and compared: one clear error, and the original never knew."""

from __future__ import annotations

import contextlib
import os
import signal

import pytest

from tests.faults_restore.scene import Outcome, Scene, fault, names_in, play


def _kill(scene: Scene, number: signal.Signals) -> Outcome:
    return scene.strike(scene.hold_the_load(), lambda: os.kill(leader(scene), number))


def leader(scene: Scene) -> int:
    """Return the process of pg_restore that has started the others."""
    return min(scene.tools(), key=lambda pid: os.getsid(pid) != pid)


@fault("pg_restore gets SIGKILL")
def killed(scene: Scene) -> Outcome:
    return _kill(scene, signal.SIGKILL)


@fault("pg_restore gets SIGTERM")
def terminated(scene: Scene) -> Outcome:
    return _kill(scene, signal.SIGTERM)


@fault("a worker of pg_restore gets SIGKILL")
def worker_killed(scene: Scene) -> Outcome:
    def blow() -> None:
        workers = set(scene.tools()) - {leader(scene)}
        assert workers
        for pid in workers:
            with contextlib.suppress(ProcessLookupError):  # the leader ends the others
                os.kill(pid, signal.SIGKILL)

    return scene.strike(scene.hold_the_load(), blow)


@fault("the restore's sessions are terminated")
def sessions_ended(scene: Scene) -> Outcome:
    return scene.strike(scene.hold_the_load(), lambda: scene.end_sessions("pgsteward restore"))


@fault("the comparison's session is terminated")
def proof_ended(scene: Scene) -> Outcome:
    hold = scene.proxy.hold("pgsteward proof", asked=b"FROM ONLY")
    return scene.strike(hold, lambda: scene.end_sessions("pgsteward proof"))


@fault("the lock's session is terminated")
def lock_ended(scene: Scene) -> Outcome:
    return scene.strike(scene.hold_the_load(), lambda: scene.end_sessions("pgsteward lock restore"))


@fault("all connections are reset while rows are loaded")
def connections_cut(scene: Scene) -> Outcome:
    return scene.strike(scene.hold_the_load(), scene.proxy.cut)


@fault("all connections are reset while indexes are built")
def connections_cut_later(scene: Scene) -> Outcome:
    hold = scene.proxy.hold("pgsteward restore", asked=b"ADD CONSTRAINT big_pkey")
    return scene.strike(hold, scene.proxy.cut)


@fault("somebody drops the copy that is being loaded")
def copy_dropped(scene: Scene) -> Outcome:
    def blow() -> None:
        (name,) = scene.scratch()
        scene.server.drop(name)

    return scene.strike(scene.hold_the_load(), blow)


@fault("somebody writes into the copy before it is compared")
def copy_written(scene: Scene) -> Outcome:
    def blow() -> None:
        (name,) = scene.scratch()
        with scene.server.connect(name) as session:
            session.execute("UPDATE small SET says = 'forged'")

    return scene.strike(scene.proxy.hold("pgsteward proof", asked=b"FROM ONLY"), blow)


@pytest.mark.parametrize("name", names_in(__name__))
def test_what_breaks_is_one_clear_error_and_leaves_the_original_alone(scene: Scene, name: str) -> None:
    play(scene, name)
