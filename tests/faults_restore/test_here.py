"""What fails on the machine that restores, and in the store: the disk of the download, the endpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgsteward.backup.upload import upload
from pgsteward.children import Children
from pgsteward.demo.s3 import LocalS3
from tests.faults.disk import small_disk
from tests.faults_restore.scene import Outcome, Scene, fault, names_in, play
from tests.integration.backup_targets import make_target
from tests.servers import Bucket


@fault("the download does not fit on the disk")
def no_room(scene: Scene) -> Outcome:
    return _small_spool(scene, 40 << 10)


@fault("the disk fills up under the download")
def fills_up(scene: Scene) -> Outcome:
    return _small_spool(scene, 1 << 20, fill=True)


def _small_spool(scene: Scene, size_bytes: int, *, fill: bool = False) -> Outcome:
    """Download an encrypted backup into a state folder that is a small disk."""
    scene.sealed = True
    with (
        small_disk(scene.folder / "small", size_bytes) as disk,
        pytest.MonkeyPatch.context() as patch,
    ):
        if disk is None:
            pytest.skip("a tmpfs can't be mounted here; it takes root, and CAP_SYS_ADMIN")
        patch.setenv("XDG_STATE_HOME", str(scene.folder / "small"))
        with disk.filled_later() as fill_it:

            def progress(what: str, done: int = 0, total: int = 0) -> None:
                if fill and what == "reading the backup":
                    fill_it()

            return scene.fail(progress=progress)


@fault("the store goes down under the download")
def store_down(scene: Scene) -> Outcome:
    with Children() as children:
        s3 = LocalS3(scene.folder / "s3", children).start()
        home = scene.target(direct=True).store("disk").local_folder("")
        assert isinstance(home, Path)
        target = make_target(
            scene.database,
            home.parent,
            bucket=Bucket(s3, "faults"),
            stores=("disk", "s3"),
        )
        upload(target)

        def progress(what: str, done: int = 0, total: int = 0) -> None:
            if what == "reading the backup":
                s3.stop()

        return scene.fail(target=target, store="s3", progress=progress)


@pytest.mark.parametrize("name", names_in(__name__))
def test_what_fails_before_the_load_leaves_nothing(scene: Scene, name: str) -> None:
    play(scene, name)
