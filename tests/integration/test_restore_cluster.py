"""Two clusters may share a target's name: a restore says whose backup it takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgsteward.backup.dump import back_up
from pgsteward.errors import PreconditionError
from pgsteward.restore.run import restore
from pgsteward.results import StepResult
from pgsteward.targets import Target
from tests.integration.backup_targets import make_target
from tests.integration.old_backups import of_cluster
from tests.servers import Database

pytestmark = pytest.mark.any_server


@pytest.fixture
def target(database: Database, tmp_path: Path) -> Target:
    database.execute("CREATE TABLE t (a int)")
    return make_target(database, tmp_path)


def backed_up(target: Target, cluster: str | None = "") -> str:
    """Make a backup; of another cluster where one is named, of an unknown one with None."""
    backup_id = str(back_up(target).details["backup_id"])
    if cluster != "":
        of_cluster(target, target.store("disk"), backup_id, cluster)
    return backup_id


def said(result: StepResult) -> tuple[str, str]:
    ((verdict, says),) = [
        (check["verdict"], check["says"])
        for check in result.details["preflight"]
        if check["check"] == "cluster"
    ]
    return verdict, says


def test_a_backup_of_this_very_server_is_a_go(target: Target) -> None:
    backed_up(target)
    verdict, says = said(restore(target, dry_run=True))
    assert verdict == "go"
    assert "this server's own cluster" in says


def test_latest_of_a_stranger_is_named_and_replaces_nothing(target: Target) -> None:
    own = backed_up(target)
    strange = backed_up(target, "42")
    result = restore(target)
    verdict, says = said(result)
    assert verdict == "warning"
    assert "the backup is of cluster 42, and this server is cluster" in says
    assert "there is 1 backup, the newest of" in says
    assert says in [note.reason for note in result.skipped]
    with pytest.raises(PreconditionError, match=rf"{own} is the newest of this server's"):
        restore(target, replace=True, confirm_database=target.database, dry_run=True)
    named = restore(target, strange, replace=True, confirm_database=target.database, dry_run=True)
    assert named.changed[0].action == "would replace"
    assert said(named)[0] == "warning"


def test_an_own_backup_beside_those_of_a_stranger_names_them(target: Target) -> None:
    backed_up(target, "42")
    backed_up(target, "42")
    backed_up(target)
    verdict, says = said(restore(target, replace=True, confirm_database=target.database, dry_run=True))
    assert verdict == "warning"
    assert "this server's own cluster" in says
    assert "there are 2 backups" in says
    assert says.endswith("of cluster 42")


def test_after_a_loss_there_are_only_backups_of_the_lost_cluster(target: Target) -> None:
    backed_up(target, "42")
    result = restore(target, replace=True, confirm_database=target.database, dry_run=True)
    assert result.changed[0].action == "would replace"
    assert said(result)[0] == "warning"
    verdict, says = said(restore(target, dry_run=True))  # as every drill on another server is
    assert verdict == "go"
    assert says.startswith("the backup is of cluster 42, and this server is cluster")


def test_a_former_cluster_that_is_configured_is_no_stranger(target: Target) -> None:
    backed_up(target)
    backed_up(target, "42")
    settings = target.settings.model_copy(update={"previous_clusters": ("42",)})
    same = Target(target.name, settings, target.config)
    result = restore(same, replace=True, confirm_database=target.database, dry_run=True)
    assert said(result) == ("go", "the backup is of cluster 42, one of previous_clusters")


def test_a_manifest_that_names_no_cluster_leaves_it_unknown(target: Target) -> None:
    backed_up(target, None)
    assert said(restore(target, dry_run=True))[0] == "unknown"
