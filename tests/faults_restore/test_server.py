"""The server goes down, crashes, or its disk fills up under a restore."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgsteward.demo.server import UNPRIVILEGED
from pgsteward.postgres import compose, identifier, literal
from tests.faults.clusters import Cluster, own_cluster
from tests.faults.disk import Disk, small_disk
from tests.faults_restore.scene import Outcome, Scene, fault, made_scene, made_stage, names_in, play
from tests.servers import Server

CLUSTERS: dict[str, Cluster] = {}
"""By the name of the stage's database."""
DISKS: dict[str, Disk] = {}
"""A small one of the server's, likewise: a tablespace."""


@pytest.fixture(scope="module")
def cluster(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if server.bin_dir is None:
        pytest.skip("a container can't be stopped from here")
    with own_cluster(server, tmp_path_factory.mktemp("cluster"), {"autovacuum": "off"}) as cluster:
        yield cluster


@pytest.fixture
def scene(
    cluster: Cluster,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Scene]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with made_stage(cluster.server, tmp_path_factory.mktemp("stage")) as stage:
        CLUSTERS[stage.name] = cluster
        with made_scene(stage, tmp_path) as scene:
            yield scene


def cluster_of(scene: Scene) -> Cluster:
    return CLUSTERS[scene.database.dbname]


@fault("the server is restarted while rows are loaded")
def restarted(scene: Scene) -> Outcome:
    cluster = cluster_of(scene)
    try:
        return scene.strike(scene.hold_the_load(), cluster.stop)
    finally:
        cluster.start()


@fault("the server crashes while rows are loaded")
def crashed(scene: Scene) -> Outcome:
    return scene.strike(scene.hold_the_load(), cluster_of(scene).crash)


@fault("the server crashes when the swap is committed")
def crashed_in_the_swap(scene: Scene) -> Outcome:
    hold = scene.proxy.hold("pgsteward restore", asked=b"COMMIT\0", after=b"RENAME TO")
    return scene.strike(hold, cluster_of(scene).crash)


@fault("the server's disk fills up")
def disk_full(scene: Scene) -> Outcome:
    """The original is in a tablespace of its own, and so is the copy that shall take its place."""
    folder = Path(tempfile.mkdtemp(prefix="pgsteward-test-", dir="/var/tmp"))
    folder.chmod(0o755)
    space = f"space of {scene.database.dbname}"
    name = identifier(scene.database.dbname)
    try:
        with small_disk(folder / "small", 40 << 20) as disk:
            if disk is None:
                pytest.skip("a tmpfs can't be mounted here; it takes root, and CAP_SYS_ADMIN")
            home = folder / "small" / "space"
            home.mkdir(mode=0o700)
            (folder / "small").chmod(0o755)
            if os.geteuid() == 0:
                shutil.chown(home, UNPRIVILEGED)
            with scene.server.connect() as session:
                session.execute(
                    compose("CREATE TABLESPACE {} LOCATION {}", identifier(space), literal(str(home)))
                )
                session.execute(compose("ALTER DATABASE {} SET TABLESPACE {}", name, identifier(space)))
                try:
                    with disk.filled_later() as fill:
                        return scene.strike(scene.hold_the_load(), fill)
                finally:
                    scene.settle()
                    session.execute(compose("ALTER DATABASE {} SET TABLESPACE pg_default", name))
                    session.execute(compose("DROP TABLESPACE {}", identifier(space)))
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("name", names_in(__name__))
def test_a_server_that_fails_is_one_clear_error_and_the_original_is_there_again(
    scene: Scene, name: str
) -> None:
    play(scene, name)
