from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest

from pgsteward import results
from pgsteward.databases import Found
from pgsteward.errors import DatabaseUnavailable, QueryFailed
from pgsteward.night import NIGHT, NightStep, judge_lateness, run_night
from pgsteward.results import NightResult, Note, StepResult
from pgsteward.retries import call_with_retries
from pgsteward.several import merge

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
TWO = datetime(2026, 11, 23, 2, tzinfo=UTC)
SIX_HOURS = timedelta(hours=6)


def ok(step: str) -> StepResult:
    return StepResult(step=step, target="app", status="ok", examined=1)


def night(failing: Mapping[str, Exception] | None = None, **options: object) -> NightResult:
    def call(step: NightStep, done: Mapping[str, StepResult]) -> StepResult:
        if failing and step.name in failing:
            raise failing[step.name]
        return ok(step.name)

    return run_night("app", "shop", call, started_at=TWO, **options)  # type: ignore[arg-type]


def test_every_step_runs_in_the_order_of_the_house() -> None:
    assert [step.step for step in night().steps] == [
        "janitor",
        "backup",
        "upload",
        "drill",
        "prune",
        "sessions",
        "vacuum",
        "bloat",
        "reindex",
        "indexes",
        "analyze",
        "matviews",
    ]
    assert night().status == "ok"


def test_without_a_good_backup_nothing_is_pruned_or_deleted_but_the_rest_goes_on() -> None:
    found = night({"backup": QueryFailed("no rights", "42501")})
    statuses = {step.step: step.status for step in found.steps}
    assert statuses["backup"] == "failed"
    for blocked in ("upload", "prune", "sessions"):
        assert statuses[blocked] == "skipped"
    for independent in ("janitor", "vacuum", "bloat", "reindex", "analyze", "matviews"):
        assert statuses[independent] == "ok"
    assert found.step("upload").skipped == (Note("app", "backup failed"),)
    assert "backup failed" in found.step("sessions").skipped[0].reason
    assert found.status == "failed"


def test_a_failed_upload_keeps_old_backups_but_not_the_session_cleanup() -> None:
    statuses = {step.step: step.status for step in night({"upload": OSError("gone")}).steps}
    assert (statuses["prune"], statuses["sessions"]) == ("skipped", "ok")


def test_an_upload_that_broke_before_it_reached_any_database_keeps_all_their_old_backups() -> None:
    def call(step: NightStep, done: Mapping[str, StepResult]) -> StepResult:
        if step.name == "upload":
            raise OSError("gone")
        return merge(step.name, "app", [(name, ok(step.name)) for name in ("a", "b")], Found(("a", "b")))

    steps = {step.step: step for step in run_night("app", "a, b", call, started_at=TWO).steps}
    assert steps["prune"].skipped == (Note("app", "upload failed"),)
    assert steps["sessions"].status == "ok"


def test_what_fails_or_is_skipped_in_a_dry_run_is_no_real_run() -> None:
    assert all(step.dry_run for step in night({"backup": OSError("gone")}, dry_run=True).steps)
    assert all(step.dry_run for step in night(dry_run=True, lateness="backup only").steps)
    assert not any(step.dry_run for step in night({"backup": OSError("gone")}).steps)


def test_a_step_with_nothing_configured_is_no_obstacle() -> None:
    def call(step: NightStep, done: Mapping[str, StepResult]) -> StepResult:
        if step.name == "sessions":
            return results.skipped("sessions", "app", "no table is configured")
        return ok(step.name)

    found = run_night("app", "shop", call, started_at=TWO)
    assert found.status == "ok"


@pytest.mark.parametrize(
    ("why", "blocked", "status"),
    [
        pytest.param("no store but 'failed over' is configured", False, "ok", id="by-the-configuration"),
        pytest.param("there is nothing to send", True, "skipped", id="by-what-went-wrong"),
    ],
)
def test_whether_a_skipped_step_is_an_obstacle_hangs_on_no_word_of_its_reason(
    why: str, blocked: bool, status: str
) -> None:
    skipped = results.skipped("upload", "app", why, blocked=blocked)

    def one(step: NightStep, done: Mapping[str, StepResult]) -> StepResult:
        return skipped if step.name == "upload" else ok(step.name)

    def several(step: NightStep, done: Mapping[str, StepResult]) -> StepResult:
        parts = [(name, one(step, done)) for name in ("a", "b")]
        return merge(step.name, "app", parts, Found(("a", "b")))

    for call in (one, several):
        assert run_night("app", "shop", call, started_at=TWO).step("prune").status == status
    assert StepResult.from_json(skipped.as_json()) == skipped


def test_an_unexpected_exception_is_kept_as_that_steps_failure() -> None:
    found = night({"analyze": ZeroDivisionError("division by zero")})
    assert found.step("analyze").failed == (Note("app", "division by zero"),)
    assert found.step("matviews").status == "ok"


def test_every_need_names_an_earlier_step() -> None:
    seen: set[str] = set()
    for step in NIGHT:
        assert set(step.needs) <= seen
        seen.add(step.name)


@pytest.mark.parametrize("step", NIGHT, ids=lambda step: step.name)
def test_every_step_names_a_function_that_exists(step: NightStep) -> None:
    assert callable(step.operation())


@pytest.mark.parametrize(
    ("scheduled", "newest", "expected"),
    [
        pytest.param(None, None, "on time", id="by-hand-is-never-late"),
        pytest.param(NOON - SIX_HOURS, None, "on time", id="exactly-at-the-edge-is-on-time"),
        pytest.param(TWO, None, "backup only", id="never-backed-up"),
        pytest.param(TWO, TWO - timedelta(days=1), "backup only", id="only-yesterdays-backup"),
        pytest.param(TWO, TWO + timedelta(minutes=1), "skip", id="somebody-made-the-backup"),
    ],
)
def test_lateness(scheduled: datetime | None, newest: datetime | None, expected: str) -> None:
    assert judge_lateness(scheduled, NOON, SIX_HOURS, newest) == expected


def test_a_week_of_missed_nights_makes_one_backup() -> None:
    newest: datetime | None = None
    backups = 0
    for day in range(7):
        if judge_lateness(TWO - timedelta(days=day), NOON, SIX_HOURS, newest) == "backup only":
            backups += 1
            newest = NOON
    assert backups == 1


def test_a_late_run_only_backs_up() -> None:
    found = night(lateness="backup only")
    assert [step.step for step in found.steps if step.status == "ok"] == ["backup", "upload"]
    assert "late" in found.step("reindex").skipped[0].reason


def test_only_what_may_heal_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda seconds: None)
    calls: list[str] = []

    def flaky(name: str) -> StepResult:
        calls.append(name)
        if len(calls) < 3:
            raise DatabaseUnavailable("starting up")
        return ok(name)

    assert call_with_retries(flaky, "backup").status == "ok"
    assert len(calls) == 3

    def refused(name: str) -> StepResult:
        calls.append(name)
        raise QueryFailed("no", "42501")

    with pytest.raises(QueryFailed):
        call_with_retries(refused, "backup")
    assert len(calls) == 4
