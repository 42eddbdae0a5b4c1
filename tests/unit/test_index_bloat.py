"""The bloat formula and the thresholds."""

from __future__ import annotations

import math
from typing import Any

import pytest

from pgsteward.bloat_catalog import hides_bloat, why_excluded
from pgsteward.bloat_census import Census, Index, Method, Table, is_bloated, may_rebuild, way_out
from pgsteward.bloat_measures import packed_share, reclaimable_ratio, rewritable_ratio
from pgsteward.config import IndexBloatConfig


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


def index(size: int, ratio: float, method: Method = "exact") -> Index:
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
        method=method,
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
        "note": "",
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
    "is_unlogged": False,
    "is_exclusion": False,
    "is_valid": True,
    "method": "btree",
}
HEAP = {"schema": "public", "name": "t"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param({}, None, id="btree"),
        pytest.param({"is_valid": False}, "invalid", id="invalid"),
        pytest.param({"is_exclusion": True}, "exclusion constraint", id="exclusion"),
        pytest.param({"method": "gin"}, None, id="gin-is-compared-with-its-history"),
        pytest.param({"method": "brin"}, "BRIN", id="brin"),
        pytest.param({"name": "tmp_1"}, "index_bloat.exclude", id="excluded-by-pattern"),
    ],
)
def test_what_is_left_out_has_a_reason(change: dict[str, Any], reason: str | None) -> None:
    found = why_excluded({**ROW, **change}, HEAP, ["public.tmp_*"])
    assert found is None if reason is None else reason in str(found)


@pytest.mark.parametrize(
    ("method", "allowed", "rebuilt"),
    [
        pytest.param("exact", False, True, id="exact"),
        pytest.param("history", False, True, id="its-own-history"),
        pytest.param("estimate", False, False, id="an-estimate-is-no-reason"),
        pytest.param("estimate", True, True, id="unless-the-user-says-so"),
    ],
)
def test_an_estimate_alone_rebuilds_nothing(method: Method, allowed: bool, rebuilt: bool) -> None:
    settings = IndexBloatConfig(rebuild_on_estimate=allowed)
    assert may_rebuild(index(200_000_000, 0.9, method), settings) is rebuilt
    assert not may_rebuild(index(200_000_000, 0.1, method), settings)


@pytest.mark.parametrize(
    ("size", "rows", "free", "dead", "fillfactor", "width", "ratio"),
    [
        # rows of pgstattuple_approx on PostgreSQL 17, with the share that VACUUM FULL then really gave back
        pytest.param(1572864, 6000, 1108264, 0, 100, 37.0, 0.740, id="70-percent-deleted-evenly"),
        pytest.param(1572864, 9627, 1158740, 0, 100, 37.0, 0.734, id="oldest-70-percent-deleted"),
        pytest.param(3145728, 6000, 2674964, 0, 50, 37.0, 0.734, id="half-full-on-purpose"),
        pytest.param(1048576, 6000, 774296, 0, 100, 8.0, 0.789, id="narrow"),
        pytest.param(1048576, 6000, 774296, 0, 100, None, 0.739, id="of-unknown-width-on-the-careful-side"),
        pytest.param(13107200, 20000, 6895144, 0, 50, 273.5, 0.016, id="half-full-and-healthy"),
        pytest.param(4194304, 2000, 300016, 0, 100, 1908.0, 0.023, id="a-rest-of-each-page-is-no-bloat"),
        pytest.param(1572864, 6000, 0, 1108264, 100, 37.0, 0.740, id="dead-and-not-vacuumed"),
        pytest.param(8028160, 0, 7970000, 0, 100, None, 1.0, id="emptied"),
        pytest.param(0, 0, 0, 0, 100, None, 0.0, id="no-page"),
    ],
)
def test_the_ratio_of_a_table_is_what_a_rewrite_gives_back(
    size: int, rows: int, free: int, dead: int, fillfactor: int, width: float | None, ratio: float
) -> None:
    stats = {
        "table_len": size,
        "row_count": float(rows),
        "approx_free_space": free,
        "dead_tuple_len": dead,
    }
    assert rewritable_ratio(stats, fillfactor, width=width) == pytest.approx(ratio, abs=0.03)


@pytest.mark.parametrize(
    ("entry", "fillfactor", "share"),
    [
        pytest.param(20, 90, 0.900, id="narrow"),
        pytest.param(20, 50, 0.500, id="half-full"),
        pytest.param(276, 90, 0.915, id="the-last-entry-goes-over"),
        pytest.param(1000, 90, 0.960, id="wide"),
        pytest.param(0, 90, 0.900, id="unknown"),
    ],
)
def test_a_rebuild_packs_wide_entries_closer_than_the_fillfactor(
    entry: float, fillfactor: float, share: float
) -> None:
    assert packed_share(entry, fillfactor) == pytest.approx(share, abs=0.005)


@pytest.mark.parametrize(
    ("version", "words"),
    [
        pytest.param(170010, ("VACUUM a.b;", "pg_repack --table=a.b", "VACUUM FULL a.b;"), id="17"),
        pytest.param(190000, ("VACUUM a.b;", "REPACK (CONCURRENTLY) a.b;", "VACUUM FULL a.b;"), id="19"),
    ],
)
def test_the_way_out_of_a_bloated_table_is_a_text(version: int, words: tuple[str, ...]) -> None:
    assert all(each in way_out("a.b", version) for each in words)


def test_an_unlogged_index_has_no_data_on_a_standby() -> None:
    unlogged = {**ROW, "is_unlogged": True}
    assert why_excluded(unlogged, HEAP, []) is None
    assert "standby" in str(why_excluded(unlogged, HEAP, [], is_standby=True))


def test_the_way_out_can_be_pasted_into_a_shell() -> None:
    assert """pg_repack --table='a."b c"' """ in way_out('a."b c"', 170010)


def test_a_census_says_what_it_looked_at_and_what_not() -> None:
    census = Census(
        measured=(index(100_000_000, 0.5),),
        bloated=(index(100_000_000, 0.5),),
        total=9,
        total_bytes=2_000_000_000,
        small=3,
        estimated=(index(50_000_000, 0.9, "estimate"),),
        suspected=(index(50_000_000, 0.9, "estimate"),),
        left=4,
        tables=(Table("public.t", 10, 0.5, 0, "VACUUM"), Table("public.u", 10, 0.0, 0)),
    )
    assert census.sentence() == (
        "examined 2 of 9 indexes, 150.0 MB of 2.00 GB (1 by estimate, 3 too small to matter, 4 left for the"
        " next run); 1 bloated, 50.0 MB to gain; 1 bloated by estimate; 1 bloated tables"
    )
