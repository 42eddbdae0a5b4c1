"""When statistics are stale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pgsteward.analyze_plan import (
    TableState,
    changed_in_leaves,
    count_leaves,
    find_stale,
    read_counters,
)

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
TABLE = TableState(
    kind="r",
    is_populated=True,
    last_analyze=NOON,
    last_autoanalyze=None,
    row_count=1000,
    live_rows=1000,
    changed_rows=0,
    changes=5000,
    leaves=(),
    leaf_last_autoanalyze=None,
    leaf_last_any=None,
    parents=(),
    base_threshold=50,
    scale_factor=0.1,
)
PARENT = replace(TABLE, kind="p", leaves=(2, 3))


def stale_oids(states: Mapping[int, TableState], **options: Any) -> list[int]:
    return [each.oid for each in find_stale(states, options.pop("fraction", 1.0), **options)]


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
            {"kind": "p", "leaves": (), "last_analyze": None}, 1.0, False, id="parent-without-leaves"
        ),
        pytest.param(
            {"kind": "p", "leaves": (2,), "last_analyze": None, "last_autoanalyze": NOON},
            1.0,
            True,
            id="parent",
        ),
    ],
)
def test_a_table_is_stale_by_autovacuums_rule(
    changes: dict[str, object], fraction: float, stale: bool
) -> None:
    table = replace(TABLE, **changes)  # type: ignore[arg-type]
    assert stale_oids({1: table}, fraction=fraction, can_do_only=True) == [1] * stale


def test_a_parent_that_nobody_has_counted_is_stale_with_its_leaf() -> None:
    states = {1: PARENT, 2: replace(TABLE, parents=(1,), changed_rows=900), 3: replace(TABLE, parents=(1,))}
    assert stale_oids(states, can_do_only=True) == [2, 1]


def test_an_analyze_of_the_parent_itself_does_not_make_it_stale_before_18() -> None:
    later = NOON + timedelta(seconds=1)
    by_us = {1: replace(PARENT, leaf_last_any=later)}
    assert stale_oids(by_us, can_do_only=False) == []
    assert stale_oids(by_us, can_do_only=True) == [1]
    by_autovacuum = {1: replace(PARENT, leaf_last_any=later, leaf_last_autoanalyze=later)}
    assert stale_oids(by_autovacuum, can_do_only=False) == [1]


COUNTED = {2: (5000, 1000.0), 3: (5000, 1000.0)}


@pytest.mark.parametrize(
    ("leaves", "changed"),
    [
        pytest.param({}, 0, id="nothing"),
        pytest.param({2: {"changes": 5100}, 3: {"changes": 5051}}, 151, id="in-all"),
        pytest.param({2: {"changes": 40}}, 1000, id="counters-went-backwards"),
        pytest.param(
            {2: {"changes": 40, "row_count": -1, "live_rows": 40}}, 40, id="lost-and-never-analyzed"
        ),
        pytest.param({3: None}, 1000, id="dropped"),
        pytest.param({4: {"row_count": 10, "live_rows": 700}}, 700, id="attached"),
    ],
)
def test_a_counted_parent_goes_by_what_changed_in_its_leaves(
    leaves: dict[int, dict[str, Any] | None], changed: int
) -> None:
    later = NOON + timedelta(days=1)
    leaf = replace(TABLE, parents=(1,), last_autoanalyze=later)
    states = {2: leaf, 3: leaf}
    for oid, changes in leaves.items():
        if changes is None:
            del states[oid]
        else:
            states[oid] = replace(leaf, **changes)
    parent = replace(PARENT, leaves=tuple(states), leaf_last_any=later, leaf_last_autoanalyze=later)
    assert changed_in_leaves(parent, states, COUNTED) == changed
    found = stale_oids({1: parent, **states}, can_do_only=True, counters={1: COUNTED})
    assert (1 in found) is (changed > 150)


def test_a_parent_is_counted_as_it_was_at_its_last_analyze() -> None:
    states = {1: PARENT, 2: replace(TABLE, changed_rows=7), 3: replace(TABLE, changes=3, changed_rows=9)}
    now = read_counters(count_leaves(PARENT, states, now=True))
    assert now == {2: (5000, 1000.0), 3: (3, 1000.0)}
    then = read_counters(count_leaves(PARENT, states, now=False))
    assert then == {2: (4993, 1000.0), 3: (0, 1000.0)}
    assert changed_in_leaves(PARENT, states, then) == 7 + 3


def test_what_has_no_statistics_comes_first_and_the_larger_before_the_smaller() -> None:
    states = {
        1: replace(TABLE, changed_rows=200),
        2: replace(TABLE, changed_rows=15_000),
        3: TABLE,
        4: replace(TABLE, last_analyze=None, row_count=5000),
    }
    found = find_stale(states, 1.0, can_do_only=True, missing={3: ["column a", "column b", "c", "d", "e"]})
    assert [each.oid for each in found] == [4, 3, 2, 1]
    assert found[1].reason == "no statistics of column a, column b, c and 2 more"
    assert found[2].weight == 100
