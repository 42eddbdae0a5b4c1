"""The bloat formula and the thresholds."""

from __future__ import annotations

import math
from typing import Any

import pytest

from pgsteward.config import IndexBloatConfig
from pgsteward.index_bloat import Index, hides_bloat, is_bloated, reclaimable_ratio, why_excluded


def stats(size: int, leaf: int, internal: int, density: float) -> dict[str, Any]:
    return {"index_size": size, "leaf_pages": leaf, "internal_pages": internal, "avg_leaf_density": density}


@pytest.mark.parametrize(
    ("row", "fillfactor", "ratio"),
    [
        # rows of pgstatindex on PostgreSQL 17, with the share that REINDEX then really gave back
        pytest.param(stats(6758400, 820, 4, 90.05), 90, 0.0, id="fresh"),
        pytest.param(stats(6758400, 247, 2, 89.69), 90, 0.6994, id="oldest-70-percent-deleted"),
        pytest.param(stats(6758400, 820, 4, 27.22), 90, 0.6994, id="70-percent-deleted-evenly"),
        pytest.param(stats(12238848, 1486, 7, 49.82), 50, 0.0, id="fillfactor-50-and-full"),
        pytest.param(stats(2113536, 84, 3, 81.28), 90, 0.6938, id="deduplicated-oldest-deleted"),
        pytest.param(stats(12115968, 1470, 8, 70.49), 90, 0.217, id="random-keys"),
        pytest.param(stats(8192, 0, 0, math.nan), 90, 0.0, id="never-used"),
        pytest.param(stats(6758400, 1, 2, 0.05), 90, 0.9988, id="emptied"),
        pytest.param(stats(1982464, 240, 1, 94.25), 90, 0.0, id="would-grow"),
        pytest.param(stats(0, 0, 0, math.nan), 90, 0.0, id="no-page"),
    ],
)
def test_the_ratio_is_what_a_rebuild_gives_back(row: dict[str, Any], fillfactor: float, ratio: float) -> None:
    assert reclaimable_ratio(row, fillfactor) == pytest.approx(ratio, abs=0.01)


def index(size: int, ratio: float) -> Index:
    return Index(
        oid=1,
        table_oid=2,
        schema="public",
        name='a, "b"',
        table="public.t",
        owner="o",
        is_owner=True,
        bytes=size,
        ratio=ratio,
    )


@pytest.mark.parametrize(
    ("size", "ratio", "bloated"),
    [
        pytest.param(100_000_000, 0.5, True, id="both"),
        pytest.param(125_000_000, 0.4, True, id="exactly-at-both-edges"),
        pytest.param(1_000_000_000, 0.39, False, id="large-but-healthy"),
        pytest.param(60_000_000, 0.8, False, id="bloated-but-small"),
    ],
)
def test_both_thresholds_must_be_met(size: int, ratio: float, bloated: bool) -> None:
    assert is_bloated(index(size, ratio), IndexBloatConfig()) is bloated


def test_names_and_figures_are_ready_for_json() -> None:
    assert index(1000, 0.25).as_json() == {
        "index": 'public."a, ""b"""',
        "table": "public.t",
        "bytes": 1000,
        "reclaimable_bytes": 250,
        "ratio": 0.25,
        "method": "exact",
        "access_method": "btree",
    }


@pytest.mark.parametrize(
    ("dead", "live", "hidden"),
    [
        pytest.param(0, 0, False, id="empty"),
        pytest.param(900, 100, False, id="few-rows"),
        pytest.param(20_000, 80_000, False, id="exactly-a-fifth"),
        pytest.param(20_001, 80_000, True, id="more-than-a-fifth"),
    ],
)
def test_dead_rows_hide_bloat(dead: int, live: int, hidden: bool) -> None:
    assert hides_bloat(dead, live) is hidden


ROW = {
    "schema": "public",
    "name": "by_kind",
    "is_temporary": False,
    "is_exclusion": False,
    "is_valid": True,
    "method": "btree",
}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param({}, None, id="btree"),
        pytest.param({"is_valid": False}, "invalid", id="invalid"),
        pytest.param({"is_exclusion": True}, "exclusion constraint", id="exclusion"),
        pytest.param({"method": "gin"}, "no exact measure for gin yet", id="gin"),
        pytest.param({"method": "brin"}, "BRIN", id="brin"),
        pytest.param({"name": "tmp_1"}, "index_bloat.exclude", id="excluded-by-pattern"),
    ],
)
def test_what_is_left_out_has_a_reason(change: dict[str, Any], reason: str | None) -> None:
    found = why_excluded({**ROW, **change}, ["public.tmp_*"])
    assert found is None if reason is None else reason in str(found)
