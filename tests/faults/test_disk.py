"""Disks that fill up, at each place where a backup writes: a tmpfs that is filled in the middle.

Where none may be mounted, only the limits on the size of files are left, which have rows of their own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from pyrage import x25519

from tests.faults.disk import Disk, allow_files, limit_files, small_disk
from tests.faults.proxy import Hold
from tests.faults.scene import Outcome, Scene, fault, made_scene, names_in, play, tools_of
from tests.servers import Database

pytestmark = pytest.mark.any_server

ROOM = 96 << 20


class Place(NamedTuple):
    """What a fault needs: the mode, the folder that is a small disk, its size."""

    mode: str
    folder: str | None = None
    size_bytes: int = ROOM


PLACES = {
    "the disk fills up under pg_dump": Place("directory", "store"),
    "the disk fills up under a stream": Place("stream", "store"),
    "the spool fills up": Place("directory", "spool"),
    "the spool is too small": Place("directory", "spool", 1 << 20),
    "the disk is full when the manifest is written": Place("directory", "store"),
    "a file of pg_dump meets a limit": Place("directory"),
    "a file of a stream meets a limit": Place("stream"),
    "the manifest meets a limit": Place("directory"),
}


@pytest.fixture
def place(request: pytest.FixtureRequest, database: Database, tmp_path: Path) -> Iterator[Scene]:
    mode, folder, size_bytes = PLACES[request.param]
    if folder is None:
        with made_scene(database, tmp_path, mode) as scene:
            yield scene
        return
    with small_disk(tmp_path / folder, size_bytes) as disk:
        if disk is None:
            pytest.skip("a tmpfs can't be mounted here; it takes root, and CAP_SYS_ADMIN")
        with made_scene(database, tmp_path, mode) as scene:
            scene.disk = disk
            yield scene
            scene.disk = None


def _spooled(scene: Scene) -> None:
    scene.settings |= {
        "encrypt_to": [str(x25519.Identity.generate().to_public())],
        "spool": str(scene.folder / "spool"),
    }


def _disk(scene: Scene) -> Disk:
    assert scene.disk is not None
    return scene.disk


@fault("the disk fills up under pg_dump")
@fault("the disk fills up under a stream")
def disk_fills_up(scene: Scene) -> Outcome:
    with _disk(scene).filled_later() as fill:
        return scene.strike(scene.hold_the_dump(), fill)


@fault("the spool fills up")
def spool_fills_up(scene: Scene) -> Outcome:
    _spooled(scene)
    return disk_fills_up(scene)


@fault("the spool is too small")
def spool_too_small(scene: Scene) -> Outcome:
    _spooled(scene)
    try:
        return scene.fail()
    finally:
        scene.settings["spool"] = "/dev/shm"


@fault("the disk is full when the manifest is written")
def no_room_for_the_manifest(scene: Scene) -> Outcome:
    with _disk(scene).filled_later() as fill:
        return scene.strike(_before_the_manifest(scene), fill)


def _before_the_manifest(scene: Scene) -> Hold:
    """The lock's session is asked whether it lives twice: after the dump, and right before the manifest."""
    return scene.proxy.hold("pgsteward lock backup", asked=b"SELECT 1\0", passing=1)


@fault("a file of pg_dump meets a limit")
@fault("a file of a stream meets a limit")
def file_limit(scene: Scene) -> Outcome:
    def blow() -> None:
        pids = tools_of(scene.database.dbname) if scene.mode == "directory" else [os.getpid()]
        limit_files(pids, 2 << 20)

    try:
        return scene.strike(scene.hold_the_dump(), blow)
    finally:
        allow_files()


@fault("the manifest meets a limit")
def manifest_limit(scene: Scene) -> Outcome:
    try:
        return scene.strike(_before_the_manifest(scene), lambda: limit_files([os.getpid()], 0))
    finally:
        allow_files()


@pytest.mark.parametrize(("place", "name"), [(name, name) for name in names_in(__name__)], indirect=["place"])
def test_a_full_disk_is_one_clear_error(place: Scene, name: str) -> None:
    play(place, name)
