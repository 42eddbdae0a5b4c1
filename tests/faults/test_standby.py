"""Backups of a streaming standby: what they can't hold is named, and replay that needs its way has it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pgsteward.analyze import analyze_stale
from pgsteward.backup.catalog import verify
from pgsteward.backup.dump import back_up
from pgsteward.errors import PreconditionError
from pgsteward.janitor import clean_up
from pgsteward.matviews import refresh
from pgsteward.results import StepResult
from pgsteward.targets import Target
from tests.faults.clusters import Cluster, own_cluster, standby_of
from tests.faults.proxy import through_proxy
from tests.faults.scene import BOTH, TABLES, Outcome, Scene, cases, fault, play, until
from tests.integration.backup_targets import stored_manifest
from tests.servers import Database, Server, private_database

PRIMARIES: dict[str, Database] = {}
"""Where the database of a scene is written, by its name."""


@pytest.fixture(scope="module")
def pair(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, Cluster]]:
    if server.bin_dir is None:
        pytest.skip("a container's data can't be copied from here")
    settings = {"autovacuum": "off", "hot_standby_feedback": "off", "max_standby_streaming_delay": "0"}
    with (
        own_cluster(server, tmp_path_factory.mktemp("primary"), settings) as primary,
        standby_of(primary) as standby,
    ):
        yield primary, standby


@pytest.fixture
def scene(request: pytest.FixtureRequest, pair: tuple[Cluster, Cluster], tmp_path: Path) -> Iterator[Scene]:
    primary, standby = pair
    with private_database(primary.server) as written:
        written.execute(TABLES)
        written.execute("CREATE UNLOGGED TABLE scratch AS SELECT 1 AS a")
        _wait_for_replay(primary, standby)
        database = Database(standby.server, written.dbname)
        PRIMARIES[written.dbname] = written
        with through_proxy(database.login) as proxy:
            yield Scene(database, proxy, tmp_path, getattr(request, "param", "directory"), {}, {})


def _wait_for_replay(primary: Cluster, standby: Cluster) -> None:
    with primary.server.connect() as session:
        lsn = session.value(
            "SELECT pg_current_wal_insert_lsn()::text"
        )  # commits here don't wait for the disk
    with standby.server.connect() as session:
        until(
            lambda: session.value("SELECT pg_last_wal_replay_lsn() >= %(lsn)s::pg_lsn", {"lsn": lsn}),
            "replay",
        )


@fault("a standby's replay needs what the dump reads", *BOTH)
def recovery_conflict(scene: Scene) -> Outcome:
    written = PRIMARIES[scene.database.dbname]

    def blow() -> None:
        written.execute("DELETE FROM big WHERE id % 2 = 0")
        written.execute("VACUUM big")
        with written.connect() as session:
            lsn = str(session.value("SELECT pg_current_wal_insert_lsn()::text"))
        until(lambda: _is_in_the_way(scene.database, lsn), "a conflict")

    return scene.strike(scene.hold_the_dump(), blow)


def _is_in_the_way(standby: Database, lsn: str) -> bool:
    """Tell whether replay stands still before `lsn`, or has ended somebody.

    A session that is stopped in the middle of sending is told, and counted, only when it goes on.
    """
    return all(_has_conflict(standby, lsn, pause_s) for pause_s in (0.0, 1.0))


def _has_conflict(standby: Database, lsn: str, pause_s: float) -> bool:
    time.sleep(pause_s)
    return bool(
        standby.value(
            "SELECT sum(confl_snapshot) > 0"
            "    OR pg_last_wal_receive_lsn() >= %(lsn)s::pg_lsn"
            "   AND pg_last_wal_replay_lsn() < %(lsn)s::pg_lsn"
            "  FROM pg_stat_database_conflicts WHERE datname = current_database()",
            {"lsn": lsn},
        )
    )


@pytest.mark.parametrize(("scene", "name"), cases(__name__), indirect=["scene"])
def test_a_recovery_conflict_is_transient_and_names_the_settings(scene: Scene, name: str) -> None:
    play(scene, name)


def test_a_standby_is_backed_up_and_what_it_does_not_have_is_named(scene: Scene) -> None:
    result = back_up(scene.target())
    assert result.status == "ok"
    absent = {note.object: note.reason for note in result.skipped}
    assert absent == {"public.scratch": "an unlogged table, which is empty on a standby"}
    manifest = stored_manifest(scene.target(), result.details["backup_id"])
    assert manifest.not_in_dump == ("public.scratch: an unlogged table, which is empty on a standby",)
    assert manifest.snapshot_lsn
    assert result.details["proof"]["rows"] == 90001


@pytest.mark.parametrize("operation", [analyze_stale, refresh])
def test_maintenance_of_a_standby_is_refused_with_where_to_go(
    scene: Scene, operation: Callable[[Target], StepResult]
) -> None:
    with pytest.raises(PreconditionError, match=r"is a standby.*\[targets.NAME.maintenance\]"):
        operation(scene.target())


def test_a_janitor_on_the_primary_leaves_alone_what_a_backup_of_the_standby_makes(scene: Scene) -> None:
    on_the_primary = scene.target(login=PRIMARIES[scene.database.dbname].login)
    results: list[StepResult] = []
    done = scene.struck(scene.hold_the_dump(), lambda: results.append(clean_up(on_the_primary)))
    assert results[0].changed == ()
    assert ["another server of this cluster" in note.reason for note in results[0].skipped] == [True]
    assert verify(on_the_primary, done.details["backup_id"]).status == "ok"
