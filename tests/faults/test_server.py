"""The server goes down, crashes, or has no room for another session."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from pgsteward.errors import StewardError
from pgsteward.postgres import Connection
from tests.faults.clusters import Cluster, own_cluster
from tests.faults.scene import BOTH, TABLES, Outcome, Scene, cases, fault, made_scene, play, until
from tests.servers import Server, private_database

CLUSTERS: dict[str, Cluster] = {}
"""By the host and port of its login."""

SETTINGS = {"max_connections": "30", "autovacuum": "off"}


@pytest.fixture(scope="module")
def cluster(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if server.bin_dir is None:
        pytest.skip("a container can't be stopped from here")
    with own_cluster(server, tmp_path_factory.mktemp("cluster"), SETTINGS) as cluster:
        CLUSTERS[cluster.server.login.conninfo] = cluster
        yield cluster


@pytest.fixture
def scene(request: pytest.FixtureRequest, cluster: Cluster, tmp_path: Path) -> Iterator[Scene]:
    with private_database(cluster.server) as database:
        database.execute(TABLES)
        with made_scene(database, tmp_path, request.param) as scene:
            yield scene


def cluster_of(scene: Scene) -> Cluster:
    return CLUSTERS[scene.database.server.login.conninfo]


@fault("the server is restarted", *BOTH)
def restarted(scene: Scene) -> Outcome:
    cluster = cluster_of(scene)
    try:
        return scene.strike(scene.hold_the_dump(), cluster.stop)
    finally:
        cluster.start()  # not in the thread that strikes: the kernel would end it with that


@fault("the server crashes", *BOTH)
def crashed(scene: Scene) -> Outcome:
    return scene.strike(scene.hold_the_dump(), cluster_of(scene).crash)


@contextmanager
def full_house(scene: Scene) -> Iterator[None]:
    """Take every connection that is left, those for superusers too."""
    with ExitStack() as stack:
        guests: list[Connection] = []

        def take_all() -> bool:
            with suppress(StewardError):
                while True:
                    guests.append(stack.enter_context(scene.database.connect()))
            # sessions of this test that are on their way out make room in a moment
            ours = "SELECT pid FROM pg_stat_activity WHERE application_name = 'pgsteward test'"
            return {row["pid"] for row in guests[0].rows(ours)} == {guest.backend_pid for guest in guests}

        until(take_all, "no connection is left")
        yield


@fault("the connection table is full")
def full(scene: Scene) -> Outcome:
    with full_house(scene):
        return scene.fail()


@fault("the connection table fills up under pg_dump")
def fills_up(scene: Scene) -> Outcome:
    """Its workers still have to connect; a stream has all of its sessions about then, and may go on."""
    hold = scene.proxy.hold("pgsteward dump", asked=b"SET TRANSACTION SNAPSHOT")
    with ExitStack() as guests:
        return scene.strike(hold, lambda: guests.enter_context(full_house(scene)))


@pytest.mark.parametrize(("scene", "name"), cases(__name__), indirect=["scene"])
def test_a_server_that_fails_is_one_clear_error(scene: Scene, name: str) -> None:
    play(scene, name)
