"""Rebuilds on a primary with a standby that is behind, and on the standby itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pgsteward.errors import PreconditionError
from pgsteward.reindex import reindex
from tests import servers
from tests.faults.clusters import Cluster, own_cluster, standby_of
from tests.integration.maintenance import fill_bloated, temporary_role
from tests.integration.rebuilds import NAMES, ROWS, bloated_target, wait_until
from tests.servers import Database

pytestmark = pytest.mark.contrib

BEHIND = "SELECT FROM pg_stat_replication WHERE pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn) > 500000"


@pytest.fixture(scope="module")
def pair(
    server: servers.Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Cluster, Cluster]]:
    if server.bin_dir is None:
        pytest.skip("a container's data can't be copied from here")
    with (
        own_cluster(server, tmp_path_factory.mktemp("primary"), {}) as primary,
        standby_of(primary) as standby,
    ):
        yield primary, standby


@pytest.fixture
def database(pair: tuple[Cluster, Cluster]) -> Iterator[Database]:
    with servers.private_database(pair[0].server) as private:
        private.execute("CREATE EXTENSION pgstattuple")
        fill_bloated(private, ROWS)
        yield private


def test_a_standby_that_is_behind_holds_rebuilds_back_until_it_has_caught_up(
    database: Database, pair: tuple[Cluster, Cluster], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    target = bloated_target(database, tmp_path, max_replica_lag_bytes=400_000)
    standby = Database(pair[1].server, "postgres")
    wait_until(database, "SELECT FROM pg_stat_replication WHERE replay_lsn = pg_current_wal_lsn()")
    standby.execute("SELECT pg_wal_replay_pause()")
    try:
        database.execute("CREATE TABLE filler AS SELECT * FROM generate_series(1, 50000)")
        wait_until(database, BEHIND)
        found = reindex(target)
        assert {note.object for note in found.skipped} == NAMES
        assert all("behind" in note.reason for note in found.skipped)
        assert found.only_findings
        with temporary_role(database, "pg_stat_scan_tables") as login:
            blind = reindex(bloated_target(database, tmp_path, login, max_replica_lag_bytes=400_000))
        assert "GRANT pg_read_all_stats TO" in blind.unknown[0].reason
        with pytest.raises(PreconditionError, match="primary"):
            reindex(bloated_target(Database(pair[1].server, database.dbname), tmp_path))
    finally:
        standby.execute("SELECT pg_wal_replay_resume()")
    wait_until(database, BEHIND, there=False)
    assert {item.object for item in reindex(target).changed} == NAMES
