"""What a server allows a rebuild: versions, standbys, replicas, disk; and why bloat comes back."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from pgsteward.config import ReindexConfig
from pgsteward.errors import PreconditionError
from pgsteward.reindex_server import Server, lagging, likely_cause, refuse_server

FACTS = {"table_bytes": 0, "space": "", "fillfactor": 90, "key_type": "bigint", "correlation": None}


def server(*horizon: dict[str, Any], facts: dict[str, Any] | None = None, **row: Any) -> Server:
    return Server(row, {1: {**FACTS, **(facts or {})}}, horizon)


@pytest.mark.parametrize("version", [140_000, 140_003])
def test_servers_that_lose_rows_are_refused(version: int) -> None:
    with pytest.raises(PreconditionError, match=r"newest 14\.x"):
        refuse_server(version, is_standby=False)


def test_standbys_are_refused_and_others_are_not() -> None:
    refuse_server(140_004, is_standby=False)
    refuse_server(150_000, is_standby=False)
    with pytest.raises(PreconditionError, match="primary"):
        refuse_server(170_000, is_standby=True)


def replica(lag_bytes: int | None, lag_s: float | None = None, *, is_hidden: bool = False) -> dict[str, Any]:
    return {
        "application_name": "walreceiver",
        "address": "10.0.0.7",
        "lag_bytes": lag_bytes,
        "lag_s": lag_s,
        "is_hidden": is_hidden,
    }


@pytest.mark.parametrize(
    ("row", "is_behind"),
    [
        pytest.param(replica(1_000_001), True, id="bytes"),
        pytest.param(replica(1_000_000), False, id="exactly-at-the-limit"),
        pytest.param(replica(10, 31.0), True, id="seconds"),
        pytest.param(replica(0, 31.0), False, id="an-old-figure-of-one-that-has-caught-up"),
        pytest.param(replica(10, None), False, id="no-figure"),
    ],
)
def test_a_replica_is_behind_by_bytes_or_by_time(row: dict[str, Any], is_behind: bool) -> None:
    settings = ReindexConfig.model_validate({"max_replica_lag_bytes": 1_000_000, "max_replica_lag_s": 30.0})
    said = lagging([row], settings)
    assert bool(said) is is_behind
    assert not said or "replica walreceiver 10.0.0.7 is" in said


def test_the_disk_is_what_the_settings_say_before_anything_is_asked() -> None:
    found = server().free_disk(ReindexConfig.model_validate({"free_disk_bytes": "5GB"}))
    assert found == ({"": 5_000_000_000}, "free_disk_bytes")


def test_the_disk_of_another_machine_is_unknown(tmp_path: Path) -> None:
    elsewhere = server(data_folder=str(tmp_path), is_here=False, by_socket=False, system_identifier=7)
    free, why = elsewhere.free_disk(ReindexConfig())
    assert free == {}
    assert why.startswith("unknown")


@pytest.mark.parametrize(("identifier", "is_its_own"), [(7, True), (8, False)])
def test_a_folder_counts_only_when_it_is_this_servers(
    tmp_path: Path, identifier: int, is_its_own: bool
) -> None:
    """Behind a tunnel another server's path may lead to a folder here."""
    (tmp_path / "global").mkdir()
    (tmp_path / "global" / "pg_control").write_bytes(struct.pack("=q", identifier) + bytes(100))
    here = server(data_folder=str(tmp_path), is_here=True, by_socket=False, system_identifier=7)
    assert ("" in here.free_disk(ReindexConfig())[0]) is is_its_own


HOLDER = {
    "kind": "replication slot",
    "pid": None,
    "gid": "debezium",
    "role_name": None,
    "application_name": None,
    "since": None,
    "holds": "all",
    "age_xids": 2_000_000,
}


@pytest.mark.parametrize(
    ("found", "gained_little", "cause"),
    [
        pytest.param(server(HOLDER), False, "replication slot debezium keeps dead rows", id="horizon"),
        pytest.param(server({**HOLDER, "holds": "catalogs"}), False, "autovacuum", id="catalogs-only"),
        pytest.param(server(facts={"key_type": "uuid"}), False, "random order", id="uuid"),
        pytest.param(server(facts={"correlation": -0.01}), False, "random order", id="uncorrelated"),
        pytest.param(server(facts={"fillfactor": 50}), True, "fillfactor of 50", id="fillfactor"),
        pytest.param(server(), False, "autovacuum_vacuum_scale_factor", id="vacuum"),
    ],
)
def test_the_likely_cause_of_bloat_that_comes_back(found: Server, gained_little: bool, cause: str) -> None:
    assert cause in likely_cause(found, 1, gained_little=gained_little)


def test_slots_are_named_for_vacuum_only() -> None:
    (named,) = server(HOLDER, {**HOLDER, "kind": "session"}).only_for_vacuum
    assert named == "replication slot debezium, 2,000,000 transactions behind"
