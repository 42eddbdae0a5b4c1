"""What is measured first, how far one run goes, and what is remembered of it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from pgsteward.bloat_order import Budget, Candidate, Memory, rank
from pgsteward.config import Config
from pgsteward.state import keep
from pgsteward.targets import Target

MONDAY, TUESDAY = datetime(2026, 11, 23, 2, tzinfo=UTC), datetime(2026, 11, 24, 2, tzinfo=UTC)


def candidate(
    name: str, gain: int, looked_at: datetime | None = None, *, is_table: bool = False, known: int = 0
) -> Candidate:
    return Candidate(1, name, 100, gain, is_table, known, looked_at)


@pytest.mark.parametrize(
    ("candidates", "order"),
    [
        pytest.param(
            [candidate("a", 1), candidate("b", 3), candidate("c", 2)], "bca", id="largest-possible-gain-first"
        ),
        pytest.param(
            [candidate("a", 9, MONDAY), candidate("b", 1), candidate("c", 2)],
            "cba",
            id="what-was-left-comes-first",
        ),
        pytest.param(
            [candidate("a", 9, TUESDAY), candidate("b", 1, MONDAY), candidate("c", 2, MONDAY)],
            "cba",
            id="then-what-waits-longest",
        ),
        pytest.param([candidate("a", 9, is_table=True), candidate("b", 1)], "ba", id="tables-after-indexes"),
        pytest.param(
            [candidate("a", 1, MONDAY), candidate("b", 9, is_table=True)],
            "ba",
            id="but-no-table-waits-for-ever",
        ),
        pytest.param(
            [candidate("a", 9), candidate("b", 1, MONDAY, known=5)],
            "ba",
            id="what-is-known-to-be-bloated-first",
        ),
        pytest.param([candidate("b", 1), candidate("a", 1)], "ab", id="the-same-order-every-time"),
        pytest.param([], "", id="nothing"),
    ],
)
def test_what_waits_longest_and_promises_most_is_first(candidates: list[Candidate], order: str) -> None:
    assert "".join(each.name for each in rank(candidates)) == order


def test_a_budget_ends_by_bytes_and_by_time() -> None:
    budget = Budget(max_bytes=100, max_seconds=3600)
    assert budget.has_room(100)
    assert not budget.has_room(101)
    budget.spent_bytes = 60
    assert budget.has_room(40)
    assert not budget.has_room(41)
    assert not Budget(max_bytes=100, max_seconds=0).has_room(1)


@pytest.fixture
def target(tmp_path: Path) -> Target:
    config = Config.model_validate(
        {
            "state_url": f"sqlite:///{tmp_path}/state.db",
            "stores": {"disk": {"url": "file:///nowhere"}},
            "targets": {"app": {"conninfo": "host=nowhere dbname=shop", "stores": ["disk"]}},
        }
    )
    return Target("app", config.target("app"), config)


def test_the_best_size_per_row_is_that_of_this_build(target: Target) -> None:
    first = Memory(target)
    assert first.best_bytes_per_row("public.g", 7, 50.0) is None
    first.add("public.g", 7, bytes_per_row=50.0)
    first.save({"public.g"})
    second = Memory(target)
    assert second.best_bytes_per_row("public.g", 7, 80.0) == 50.0
    assert second.best_bytes_per_row("public.g", 7, 40.0) == 40.0
    assert second.best_bytes_per_row("public.g", 8, 60.0) == 60.0, "a rebuild is as good as it gets"


def test_a_look_is_remembered_until_its_object_is_gone(target: Target) -> None:
    first = Memory(target)
    assert first.looked_at("public.a") is None
    first.add("public.a", 1)
    first.add("public.b", 2)
    first.save({"public.a", "public.b"})
    second = Memory(target)
    seen = second.looked_at("public.a")
    assert seen is not None
    assert seen == second.looked_at("public.b"), "all looks of a run are of one time"
    second.save({"public.b"})
    third = Memory(target)
    assert third.looked_at("public.a") is None
    assert third.looked_at("public.b") == seen


def test_what_another_version_has_kept_is_no_look(target: Target) -> None:
    keep(target, "bloat", {"public.a": {"filenode": 1, "seen": "yesterday"}, "public.b": 7})
    memory = Memory(target)
    assert memory.looked_at("public.a") is None
    assert memory.looked_at("public.b") is None
