"""When statistics are stale."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pgsteward.analyze import TableState, find_stale, why_stale

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
TABLE = TableState(
    kind="r",
    is_populated=True,
    last_analyze=NOON,
    last_autoanalyze=None,
    row_count=1000,
    changed_rows=0,
    leaves=0,
    leaf_last_autoanalyze=None,
    leaf_last_any=None,
    parents=(),
    base_threshold=50,
    scale_factor=0.1,
)
PARENT = replace(TABLE, kind="p", leaves=2)


@pytest.mark.parametrize(
    ("changes", "fraction", "stale"),
    [
        pytest.param({}, 1.0, False, id="fresh"),
        pytest.param({"changed_rows": 150}, 1.0, False, id="exactly-at-the-edge"),
        pytest.param({"changed_rows": 151}, 1.0, True, id="one-more"),
        pytest.param({"changed_rows": 76}, 0.5, True, id="half-the-threshold"),
        pytest.param({"changed_rows": 151}, 2.0, False, id="twice-the-threshold"),
        pytest.param({"changed_rows": 51, "row_count": -1}, 1.0, True, id="row-count-never-known"),
        pytest.param({"changed_rows": 151, "scale_factor": 0.2}, 1.0, False, id="own-scale-factor"),
        pytest.param({"last_analyze": None}, 1.0, True, id="never-analyzed"),
        pytest.param({"last_analyze": None, "last_autoanalyze": NOON}, 1.0, False, id="by-autovacuum"),
        pytest.param(
            {"kind": "m", "is_populated": False, "last_analyze": None}, 1.0, False, id="empty-matview"
        ),
        pytest.param(
            {"kind": "p", "leaves": 0, "last_analyze": None}, 1.0, False, id="parent-without-leaves"
        ),
        pytest.param(
            {"kind": "p", "leaves": 1, "last_analyze": None, "last_autoanalyze": NOON}, 1.0, True, id="parent"
        ),
    ],
)
def test_a_table_is_stale_by_autovacuums_rule(
    changes: dict[str, object], fraction: float, stale: bool
) -> None:
    assert (why_stale(replace(TABLE, **changes), fraction) is not None) is stale  # type: ignore[arg-type]


def test_a_parent_is_stale_with_its_leaf_and_comes_after_it() -> None:
    states = {1: PARENT, 2: replace(TABLE, parents=(1,), changed_rows=900), 3: replace(TABLE, parents=(1,))}
    assert list(find_stale(states, 1.0, can_do_only=True)) == [2, 1]


def test_an_analyze_of_the_parent_itself_does_not_make_it_stale_before_18() -> None:
    later = NOON + timedelta(seconds=1)
    by_us = {1: replace(PARENT, leaf_last_any=later)}
    assert find_stale(by_us, 1.0, can_do_only=False) == {}
    assert list(find_stale(by_us, 1.0, can_do_only=True)) == [1]
    by_autovacuum = {1: replace(PARENT, leaf_last_any=later, leaf_last_autoanalyze=later)}
    assert list(find_stale(by_autovacuum, 1.0, can_do_only=False)) == [1]
