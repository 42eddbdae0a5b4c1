"""An object store that goes down: a dump that is made is not made again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pgsteward.backup.catalog import backups
from pgsteward.backup.run import back_up_everywhere
from pgsteward.backup.upload import upload
from pgsteward.children import Children
from pgsteward.demo.s3 import LocalS3
from tests.faults.scene import Outcome, Scene, cases, fault, made_scene, play
from tests.servers import Bucket, Database

pytestmark = pytest.mark.any_server

STORES: dict[str, LocalS3] = {}
"""By the name of the scene's database."""


@pytest.fixture
def scene(request: pytest.FixtureRequest, database: Database, tmp_path: Path) -> Iterator[Scene]:
    with Children() as children, made_scene(database, tmp_path, request.param) as scene:
        STORES[database.dbname] = LocalS3(tmp_path / "s3", children).start()
        scene.whole["bucket"] = Bucket(STORES[database.dbname], "faults")
        yield scene


@fault("the store goes down while a backup is uploaded")
def down_while_uploading(scene: Scene) -> Outcome:
    s3 = STORES[scene.database.dbname]
    scene.whole["stores"] = ("disk", "s3")

    def progress(what: str, done: int = 0, total: int = 0) -> None:
        if what.startswith("uploading"):
            s3.stop()

    target = scene.target()
    result = back_up_everywhere(target, progress=progress)
    assert result.status == "partial"
    assert result.details["stores"] == ["disk"]
    s3.start()
    backup_id = result.details["backup_id"]
    assert [each["stores"] for each in backups(target).details["backups"]] == [["disk"]]
    assert upload(target).status == "ok"  # as the next night does
    assert [(each["backup_id"], each["stores"]) for each in backups(target).details["backups"]] == [
        (backup_id, ["disk", "s3"])
    ]
    return result


@fault("the store goes down under a stream", "stream")
def down_under_a_stream(scene: Scene) -> Outcome:
    s3 = STORES[scene.database.dbname]
    scene.whole["stores"] = ("s3",)
    try:
        return scene.strike(scene.hold_the_dump(), s3.stop)
    finally:
        s3.start()


@pytest.mark.parametrize(("scene", "name"), cases(__name__), indirect=["scene"])
def test_a_store_that_goes_down_costs_no_dump_that_is_made(scene: Scene, name: str) -> None:
    play(scene, name)
