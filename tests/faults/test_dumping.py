"""What breaks while a backup runs: one clear error, nothing left, and the next run works."""

from __future__ import annotations

import contextlib
import os
import signal

import pytest

from tests.faults.scene import BOTH, Outcome, Scene, cases, fault, leader_of, play, tools_of


def _kill(scene: Scene, number: signal.Signals) -> Outcome:
    return scene.strike(scene.hold_the_dump(), lambda: os.kill(leader_of(scene.database.dbname), number))


@fault("pg_dump gets SIGKILL", *BOTH)
def pg_dump_killed(scene: Scene) -> Outcome:
    return _kill(scene, signal.SIGKILL)


@fault("pg_dump gets SIGTERM", *BOTH)
def pg_dump_terminated(scene: Scene) -> Outcome:
    return _kill(scene, signal.SIGTERM)


@fault("the dump's session is terminated", *BOTH)
def dump_session_ended(scene: Scene) -> Outcome:
    return scene.strike(scene.hold_the_dump(), lambda: scene.end_sessions("pgsteward dump"))


@fault("the proof's session is terminated", *BOTH)
def proof_session_ended(scene: Scene) -> Outcome:
    hold = scene.proxy.hold("pgsteward proof", asked=b"FROM ONLY")
    return scene.strike(hold, lambda: scene.end_sessions("pgsteward proof"))


@fault("the snapshot's session is terminated", *BOTH)
def snapshot_ended(scene: Scene) -> Outcome:
    hold = scene.proxy.hold("pgsteward dump", asked=b"SET TRANSACTION SNAPSHOT")
    return scene.strike(hold, lambda: scene.end_sessions("pgsteward snapshot"))


@fault("the lock's session is terminated", *BOTH)
def lock_ended(scene: Scene) -> Outcome:
    return scene.strike(scene.hold_the_dump(), lambda: scene.end_sessions("pgsteward lock backup"))


@fault("all connections are reset", *BOTH)
def connection_cut(scene: Scene) -> Outcome:
    return scene.strike(scene.hold_the_dump(), scene.proxy.cut)


@fault("a worker of pg_dump gets SIGKILL")
def worker_killed(scene: Scene) -> Outcome:
    def blow() -> None:
        leader = leader_of(scene.database.dbname)
        workers = set(tools_of(scene.database.dbname, "pg_dump")) - {leader}
        assert workers
        for pid in workers:
            with contextlib.suppress(ProcessLookupError):  # the leader ends the others
                os.kill(pid, signal.SIGKILL)

    return scene.strike(scene.hold_the_dump(), blow)


@pytest.mark.parametrize(("scene", "name"), cases(__name__), indirect=["scene"])
def test_what_breaks_is_one_clear_error_and_leaves_nothing(scene: Scene, name: str) -> None:
    play(scene, name)
