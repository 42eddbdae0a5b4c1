"""The plan of a night: what is rebuilt, what has to wait, what never will be, and what experience says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pgsteward.config import IndexBloatConfig
from pgsteward.index_bloat import Index
from pgsteward.reindex_memory import DEFAULT_BYTES_PER_S, Memory, Past
from pgsteward.reindex_plan import Candidate, Entry, Limits, Plan, make_plan
from pgsteward.used import Used
from pgsteward.window import Window

NOW = datetime(2026, 11, 30, 2, 0, tzinfo=UTC)
MB = 1_000_000
NOTHING = Memory({})


def candidate(name: str = "a", size: int = 200, ratio: float = 0.5, table: int = 0, **more: Any) -> Candidate:
    """Return an index of so many MB."""
    index = Index(
        oid=sum(name.encode()),
        table_oid=table or sum(name.encode()),
        schema="public",
        name=name,
        table=f"public.t{table}",
        owner="app",
        is_owner=True,
        bytes=size * MB,
        ratio=ratio,
    )
    return Candidate(index, **more)


def past(days_ago: float, after: int | None = 100, before: int = 200, seconds: float = 4.0) -> Past:
    """Return a rebuild; sizes in MB."""
    done = None if after is None else after * MB
    return Past(NOW - timedelta(days=days_ago), before * MB, done, seconds, (after or before) * MB)


def names(entries: tuple[Entry, ...]) -> list[str]:
    return [entry.index.name for entry in entries]


def planned(plan: Plan) -> dict[str, str]:
    return {entry.index.name: entry.verdict for entry in plan.entries}


def reason(plan: Plan, name: str) -> str:
    return next(entry.reason for entry in plan.entries if entry.index.name == name)


def test_only_what_is_over_both_thresholds_has_a_place_in_the_plan() -> None:
    candidates = [
        candidate("exactly", 125, 0.4),
        candidate("ratio", 1000, 0.39),
        candidate("bytes", 110, 0.45),
    ]
    assert planned(make_plan(candidates, NOTHING, Limits(), NOW)) == {"exactly": "tonight"}
    limits = Limits(IndexBloatConfig(min_ratio=0.3, min_reclaimable=1000))
    assert len(make_plan(candidates, NOTHING, limits, NOW).tonight) == 3


def test_what_gives_most_bytes_back_per_second_comes_first() -> None:
    candidates = [
        candidate("small and empty", 100, 0.9),
        candidate("huge and half empty", 1000, 0.5),
        candidate("on a huge table", 1000, 0.9, table_bytes=100_000 * MB),
        candidate("huge and empty", 1000, 0.9),
    ]
    order = names(make_plan(candidates, NOTHING, Limits(), NOW).tonight)
    assert order == ["huge and empty", "small and empty", "huge and half empty", "on a huge table"]


def test_what_could_not_be_cleaned_up_after_is_never_rebuilt() -> None:
    plan = make_plan([candidate(obstacle="run: GRANT")], NOTHING, Limits(), NOW)
    assert planned(plan) == {"a": "never"}
    assert plan.never[0].needs_a_person
    assert reason(plan, "a") == "run: GRANT"


def test_a_smaller_one_takes_the_time_that_a_larger_one_does_not_fit_into() -> None:
    candidates = [candidate("large", 600, 0.9), candidate("long", 2400, 0.5), candidate("short", 120, 0.5)]
    plan = make_plan(candidates, NOTHING, Limits(max_minutes=0.7), NOW)
    assert planned(plan) == {"large": "tonight", "short": "tonight", "long": "later"}
    assert "would not be done by 2026-11-30 02:00:42 UTC" in reason(plan, "long")
    assert not plan.later[0].needs_a_person


def test_what_is_longer_than_any_night_is_said_to_be() -> None:
    plan = make_plan([candidate(size=20_000)], NOTHING, Limits(max_minutes=1), NOW)
    assert planned(plan) == {"a": "never"}
    assert plan.never[0].needs_a_person
    assert "longer than a whole night (1 min 00 s)" in reason(plan, "a")


def test_the_window_bounds_the_night_and_is_named_when_it_is_closed() -> None:
    limits = Limits(window=Window.parse("01:00-02:05"), max_minutes=60)
    assert make_plan([candidate()], NOTHING, limits, NOW).deadline == NOW + timedelta(minutes=5)
    closed = make_plan([candidate()], NOTHING, limits, NOW + timedelta(hours=1))
    assert planned(closed) == {"a": "later"}
    assert "opens at 2026-12-01 01:00:00 UTC" in reason(closed, "a")
    assert make_plan([candidate()], NOTHING, Limits(), NOW).deadline is None


def test_indexes_of_one_table_share_no_time_and_those_of_several_do() -> None:
    two_tables = [candidate("a", table=1), candidate("b", table=2)]
    one_table = [candidate("a", table=1), candidate("b", table=1)]
    limits = Limits(max_minutes=5 / 60, parallel_tables=2)
    assert len(make_plan(two_tables, NOTHING, limits, NOW).tonight) == 2
    assert len(make_plan(one_table, NOTHING, limits, NOW).tonight) == 1


def test_wal_is_counted_over_the_night() -> None:
    candidates = [candidate("a"), candidate("b"), candidate("far too much", 10_000)]
    plan = make_plan(candidates, NOTHING, Limits(max_wal_bytes=100 * MB), NOW)
    assert planned(plan) == {"a": "tonight", "b": "later", "far too much": "never"}
    assert "max_wal_bytes" in reason(plan, "far too much")
    assert plan.tonight[0].as_json()["predicted_wal_bytes"] == 90 * MB


def test_what_other_databases_have_used_of_the_night_is_gone() -> None:
    used = Used(NOW - timedelta(seconds=50), 50 * MB)
    limits = Limits(max_minutes=1, max_wal_bytes=300 * MB, used=used)
    plan = make_plan([candidate("a"), candidate("b", 400)], NOTHING, limits, NOW)
    assert planned(plan) == {"a": "later", "b": "tonight"}
    assert plan.deadline == NOW + timedelta(seconds=10)
    assert (plan.wal_bytes, plan.seconds) == (180 * MB, plan.tonight[0].predicted_s)
    used.wal_bytes = 250 * MB
    assert "more WAL" in reason(make_plan([candidate()], NOTHING, limits, NOW), "a")


def test_a_disk_without_room_beside_the_old_index_is_named() -> None:
    room = {"": 250 * MB, "/ssd": 10 * MB}
    candidates = [
        candidate("a"),
        candidate("b"),
        candidate("c", space="/ssd"),
        candidate("d", space="/unseen"),
    ]
    plan = make_plan(candidates, NOTHING, Limits(free_bytes=room), NOW)
    assert planned(plan) == {"a": "tonight", "b": "tonight", "c": "later", "d": "tonight"}
    assert "needs about 200 MB of disk" in reason(plan, "c")
    assert plan.later[0].needs_a_person
    beside = make_plan(candidates, NOTHING, Limits(free_bytes=room, parallel_tables=2), NOW)
    assert planned(beside)["b"] == "later", "the two new indexes lie beside each other"


def test_speed_is_learned_from_the_rebuilds_of_the_database() -> None:
    plan = make_plan([candidate()], NOTHING, Limits(), NOW)
    assert (plan.bytes_per_s, plan.learned_from) == (DEFAULT_BYTES_PER_S, 0)
    slow = Memory({"public.b": (past(2, seconds=50.1), past(1, seconds=150.1), past(1, None, seconds=999))})
    plan = make_plan([candidate()], slow, Limits(), NOW)
    assert (plan.bytes_per_s, plan.learned_from) == (MB, 2)
    assert plan.tonight[0].predicted_s == pytest.approx(100.1)


def test_what_was_not_done_in_time_is_known_to_take_longer() -> None:
    memory = Memory({"public.a": (past(60), past(2, None, seconds=40), past(1, None, seconds=30))})
    assert make_plan([candidate()], memory, Limits(), NOW).tonight[0].predicted_s == 60
    memory = Memory({"public.a": (past(40, None, seconds=40), past(39))})
    assert make_plan([candidate()], memory, Limits(), NOW).tonight[0].predicted_s < 10


@pytest.mark.parametrize(
    ("rebuilds", "words"),
    [
        pytest.param(
            [past(3)], "left alone until 2026-12-04: the bloat was soon back", id="back-after-3-days"
        ),
        pytest.param([past(8)], "", id="the-first-pause-is-over"),
        pytest.param(
            [past(17), past(10)], "2026-12-04: the bloat was soon back after each of its last 2", id="twice"
        ),
        pytest.param([past(22), past(15)], "", id="the-second-pause-is-over"),
        pytest.param([past(80, 190), past(3, 190)], "gave back only 5%", id="gained-little"),
        pytest.param([past(30, 190), past(29, None)], "", id="what-was-not-finished-teaches-nothing"),
        pytest.param([past(117), past(110), past(96), past(68), past(10)], "each of its last 5", id="row"),
        pytest.param(
            [past(117), past(110), past(3)], "after its last rebuild", id="one-that-held-out-ends-the-row"
        ),
        pytest.param([past(10_000, None)], "", id="never-finished"),
    ],
)
def test_an_index_whose_rebuilds_do_not_pay_is_left_alone_ever_longer(
    rebuilds: list[Past], words: str
) -> None:
    plan = make_plan([candidate()], Memory({"public.a": tuple(rebuilds)}), Limits(), NOW)
    if not words:
        assert planned(plan) == {"a": "tonight"}
        return
    assert planned(plan) == {"a": "later"}
    assert words in reason(plan, "a")
    assert plan.later[0].back_off is not None


def test_no_pause_is_longer_than_half_a_year() -> None:
    weekly = tuple(past(days, 195) for days in range(2000, 0, -100))
    plan = make_plan([candidate()], Memory({"public.a": weekly}), Limits(), NOW)
    paused = plan.later[0].back_off
    assert paused is not None
    assert paused.until - paused.last.at == timedelta(days=180)


def test_what_is_kept_of_a_rebuild_is_read_back() -> None:
    for each in (past(1), past(2, None)):
        assert Past.from_json(each.as_json()) == each
