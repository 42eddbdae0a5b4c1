"""A crash takes all counters along; what goes by them must not take that for quiet."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgsteward.analyze import analyze_stale
from pgsteward.matviews import refresh
from tests.faults.clusters import own_cluster
from tests.integration.backup_targets import make_target
from tests.integration.maintenance import flush_counters
from tests.servers import Server, private_database


def test_after_a_crash_nothing_counts_as_unchanged(server: Server, tmp_path: Path) -> None:
    if server.bin_dir is None:
        pytest.skip("a container's server can't be killed from here")
    with own_cluster(server, tmp_path / "cluster", {"autovacuum": "off"}) as cluster:
        with private_database(cluster.server) as database:
            with database.connect() as connection:
                connection.execute("CREATE UNLOGGED TABLE base (a int)")
                connection.execute("CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM base")
                connection.execute("INSERT INTO base VALUES (1)")
                connection.execute("SELECT pg_stat_reset()")  # as many changes are counted as after a crash
                flush_counters(connection)
            target = make_target(database, tmp_path)
            assert [item.object for item in refresh(target).changed] == ["public.v"]
            assert refresh(target).changed == ()
            analyze_stale(target)
            assert analyze_stale(target).changed == ()
            cluster.crash()
            found = refresh(target)
            assert found.changed[0].facts["reason"] == "the counters have begun anew since"
            assert database.value("SELECT n FROM v") == 0
            assert {item.object for item in analyze_stale(target).changed} == {"public.base", "public.v"}
