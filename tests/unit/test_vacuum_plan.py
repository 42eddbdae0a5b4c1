"""The pure decisions of the VACUUM guard."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from pgsteward.config import VacuumConfig
from pgsteward.relations import Relation
from pgsteward.vacuum import seconds_to_begin
from pgsteward.vacuum_plan import Candidate, choose_due

MILLION = 1_000_000


def candidate(name: str = "t", oid: int = 1, *, owned: bool = True, **changes: Any) -> Candidate:
    """Return a healthy table of ten thousand rows, but for the changes."""
    values: dict[str, Any] = {
        "relation": Relation(oid, "public", name, "r", "app", owned, False, False),
        "is_shared": False,
        "is_catalog": False,
        "is_temporary": False,
        "xid_age": 10 * MILLION,
        "multixact_age": 0,
        "freeze_max_age": 200.0 * MILLION,
        "multixact_freeze_max_age": 400.0 * MILLION,
        "failsafe_age": 1600.0 * MILLION,
        "multixact_failsafe_age": 1600.0 * MILLION,
        "is_toast_older": False,
        "row_count": 10_000.0,
        "dead_rows": 0,
        "dead_threshold": 2050.0,
        "toast_dead_rows": 0,
        "toast_dead_threshold": 50.0,
        "is_reached": True,
        "pages": 5_000,
        "visible_pages": 5_000,
        "index_scans": 100,
        "table_scans": 1,
        "is_counted": True,
    }
    return Candidate(**{**values, **changes})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({}, None, id="healthy"),
        pytest.param({"xid_age": 160 * MILLION}, "160,000,000 transactions old", id="at-four-fifths"),
        pytest.param({"xid_age": 160 * MILLION - 1}, None, id="just-younger"),
        pytest.param({"multixact_age": 320 * MILLION}, "320,000,000 multixacts old", id="multixact"),
        pytest.param(
            {"xid_age": 900 * MILLION, "freeze_max_age": 2000.0 * MILLION}, "over 800,000,000", id="failsafe"
        ),
        pytest.param({"xid_age": 170 * MILLION, "is_toast_older": True}, "of its TOAST table", id="toast"),
        pytest.param({"dead_rows": 2050}, None, id="at-the-threshold"),
        pytest.param({"dead_rows": 2051}, "2,051 dead rows, over 2,050", id="over-the-threshold"),
        pytest.param({"dead_rows": 2051, "is_reached": False}, "autovacuum is off here", id="switched-off"),
        pytest.param({"toast_dead_rows": 51}, "51 dead rows in its TOAST table", id="dead-toast"),
        pytest.param({"visible_pages": 100}, None, id="visibility-is-an-option"),
        pytest.param({"xid_age": 500 * MILLION, "is_temporary": True}, None, id="temporary"),
        pytest.param({"dead_rows": 9000, "is_catalog": True, "owned": False}, None, id="catalog-of-others"),
        pytest.param({"dead_rows": 9000, "is_shared": True}, None, id="catalog-of-all-databases"),
        pytest.param({"dead_rows": 9000, "owned": False}, "9,000 dead rows", id="table-of-others"),
    ],
)
def test_a_table_is_due_for_a_reason(changes: dict[str, Any], reason: str | None) -> None:
    due = choose_due([candidate(**changes)], VacuumConfig(), set())
    assert [reason in one.reason for one in due if reason] == ([True] if reason else [])
    assert bool(due) is bool(reason)


def test_fractions_scale_the_limits() -> None:
    settings = VacuumConfig(freeze_fraction=0.1, dead_fraction=0.5, min_visible=0.9)
    old = candidate("old", 1, xid_age=20 * MILLION)
    dead = candidate("dead", 2, dead_rows=1026)
    hidden = candidate("hidden", 3, visible_pages=4_000)
    scanned = candidate("scanned", 4, visible_pages=4_000, table_scans=100)
    small = candidate("small", 5, visible_pages=0, pages=999)
    due = choose_due([hidden, dead, old, scanned, small], settings, set())
    assert [one.relation.name for one in due] == ["old", "dead", "hidden"]
    assert "80% of its pages are all-visible" in due[2].reason


def test_the_oldest_comes_first_then_what_was_cleaned_then_the_dead() -> None:
    tables = [
        candidate("dead", 1, dead_rows=9_000),
        candidate("cleaned", 2),
        candidate("old", 3, xid_age=170 * MILLION),
        candidate("older", 4, multixact_age=390 * MILLION),
        candidate("cleaned and old", 5, xid_age=165 * MILLION, dead_rows=9_000),
    ]
    due = choose_due(tables, VacuumConfig(), {2, 5})
    assert [one.relation.name for one in due] == ["older", "old", "cleaned and old", "cleaned", "dead"]
    assert [one.for_age for one in due] == [True, True, True, False, False]
    assert [one.index_cleanup for one in due] == [False, False, True, True, False]


@pytest.mark.parametrize(
    ("now", "seconds"),
    [
        pytest.param("2026-11-30T01:30:00+00:00", 3600, id="until-max-minutes"),
        pytest.param("2026-11-30T02:45:00+00:00", 900, id="until-the-window-closes"),
        pytest.param("2026-11-30T03:00:00+00:00", 0, id="closed"),
        pytest.param("2026-11-30T00:59:59+00:00", 0, id="not-open-yet"),
    ],
)
def test_what_is_not_urgent_begins_in_the_window_and_its_time(now: str, seconds: float) -> None:
    settings = VacuumConfig(window="02:00-04:00", time_zone="Europe/Rome", max_minutes=60)
    assert seconds_to_begin(settings, datetime.fromisoformat(now)) == seconds


def test_without_the_guard_only_what_is_wanted() -> None:
    tables = [candidate("old", 1, xid_age=199 * MILLION), candidate("wanted", 2)]
    due = choose_due(tables, VacuumConfig(guard=False), {2})
    assert [one.relation.name for one in due] == ["wanted"]
