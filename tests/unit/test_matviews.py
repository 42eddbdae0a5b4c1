"""The order and the manner of refreshing materialized views."""

from __future__ import annotations

import pytest

from pgsteward.matviews import Matview, choose_mode, refresh_order
from pgsteward.relations import Relation


@pytest.mark.parametrize(
    ("sources", "order", "circle"),
    [
        pytest.param({}, "abcd", "", id="independent-ones-by-name"),
        pytest.param({"a": "d"}, "bcda", "", id="after-what-it-reads"),
        pytest.param({"a": "b", "b": "c", "c": "d"}, "dcba", "", id="chain"),
        pytest.param({"a": "bc", "b": "d", "c": "d"}, "dbca", "", id="diamond"),
        pytest.param({"a": "a"}, "abcd", "", id="reads-itself"),
        pytest.param({"a": "b", "b": "a"}, "cdab", "ab", id="circle"),
    ],
)
def test_views_come_after_what_they_read(sources: dict[str, str], order: str, circle: str) -> None:
    oids = {name: number for number, name in enumerate("abcd")}
    reads = {oids[name]: {oids[source] for source in read} for name, read in sources.items()}
    found, found_circle = refresh_order({oid: name for name, oid in oids.items()}, reads)
    assert "".join("abcd"[oid] for oid in found) == order
    assert "".join("abcd"[oid] for oid in found_circle) == circle


def test_a_long_chain_is_ordered_without_recursion() -> None:
    order, _ = refresh_order({oid: f"v{oid}" for oid in range(5000)}, {oid: {oid + 1} for oid in range(4999)})
    assert order == list(reversed(range(5000)))


@pytest.mark.parametrize(
    ("is_populated", "has_unique_index", "allow_exclusive", "mode"),
    [
        pytest.param(True, True, False, "concurrently", id="unique-index"),
        pytest.param(True, False, True, "exclusive", id="allowed"),
        pytest.param(True, False, False, None, id="not-allowed"),
        pytest.param(False, True, False, "populate", id="never-populated"),
    ],
)
def test_a_view_is_refreshed_with_the_weakest_lock_that_works(
    is_populated: bool, has_unique_index: bool, allow_exclusive: bool, mode: str | None
) -> None:
    relation = Relation(
        1, "public", "a", "m", "o", is_owner=True, has_maintain=False, is_database_owner=False
    )
    view = Matview(relation, is_populated, has_unique_index)
    assert choose_mode(view, allow_exclusive=allow_exclusive) == mode
