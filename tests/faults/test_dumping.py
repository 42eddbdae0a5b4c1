"""What breaks while a backup runs: one clear error, nothing left, and the next run works."""

from __future__ import annotations

import os
import signal

import pytest

from tests.faults.scene import Outcome, Scene, fault, leader_of, names_in, play


def _kill(scene: Scene, number: signal.Signals) -> Outcome:
    return scene.strike(scene.hold_the_dump(), lambda: os.kill(leader_of(scene.database.dbname), number))


@fault("pg_dump gets SIGKILL")
def pg_dump_killed(scene: Scene) -> Outcome:
    return _kill(scene, signal.SIGKILL)


@fault("pg_dump gets SIGTERM")
def pg_dump_terminated(scene: Scene) -> Outcome:
    return _kill(scene, signal.SIGTERM)


@fault("the dump's session is terminated")
def dump_session_ended(scene: Scene) -> Outcome:
    return scene.strike(scene.hold_the_dump(), lambda: scene.end_sessions("pgsteward dump"))


@fault("the proof's session is terminated")
def proof_session_ended(scene: Scene) -> Outcome:
    hold = scene.proxy.hold("pgsteward proof", asked=b"FROM ONLY")
    return scene.strike(hold, lambda: scene.end_sessions("pgsteward proof"))


@fault("the snapshot's session is terminated")
def snapshot_ended(scene: Scene) -> Outcome:
    hold = scene.proxy.hold("pgsteward dump", asked=b"SET TRANSACTION SNAPSHOT")
    return scene.strike(hold, lambda: scene.end_sessions("pgsteward snapshot"))


@fault("the lock's session is terminated")
def lock_ended(scene: Scene) -> Outcome:
    return scene.strike(scene.hold_the_dump(), lambda: scene.end_sessions("pgsteward lock backup"))


@fault("all connections are reset")
def connection_cut(scene: Scene) -> Outcome:
    return scene.strike(scene.hold_the_dump(), scene.proxy.cut)


@pytest.mark.parametrize("name", names_in(__name__))
def test_what_breaks_is_one_clear_error_and_leaves_nothing(scene: Scene, name: str) -> None:
    play(scene, name)
