from __future__ import annotations

import pickle
from datetime import UTC, datetime

import pytest

from pgsteward import errors
from pgsteward.results import Item, NightResult, Note, Status, StepResult, failure, judge, skipped, worst

NOTE = (Note("public.jobs", "locked"),)


@pytest.mark.parametrize(
    ("evidence", "status"),
    [
        pytest.param({"examined": 0}, "unknown", id="nothing-examined-is-never-ok"),
        pytest.param({"examined": 3}, "ok", id="all-examined"),
        pytest.param({"examined": 3, "unknown": NOTE}, "partial", id="one-unknown"),
        pytest.param({"examined": 3, "findings": NOTE}, "partial", id="something-for-a-person"),
        pytest.param({"examined": 1, "failed": NOTE}, "failed", id="all-failed"),
        pytest.param({"examined": 2, "failed": NOTE}, "partial", id="one-of-two-failed"),
        pytest.param(
            {"examined": 1, "failed": NOTE, "changed": (Item("a", "rebuilt"),)}, "partial", id="some-done"
        ),
    ],
)
def test_the_status_is_what_the_evidence_allows(evidence: dict[str, object], status: Status) -> None:
    assert judge(**evidence) == status  # type: ignore[arg-type]


def step(status: Status, **extra: object) -> StepResult:
    return StepResult(step="indexes", target="app", status=status, examined=2, **extra)  # type: ignore[arg-type]


def night(*steps: StepResult) -> NightResult:
    return NightResult("app", "shop", datetime(2026, 11, 23, tzinfo=UTC), 1.0, steps)


def test_the_worst_step_decides_the_night_and_nothing_at_all_is_unknown() -> None:
    assert worst([]) == "unknown"
    assert night().status == "unknown"
    assert night(step("ok"), step("skipped")).status == "ok"
    assert night(step("ok"), step("failed"), step("partial")).status == "failed"
    assert night(step("ok"), step("unknown")).status == "partial"
    assert night(step("skipped")).status == "skipped"


def test_findings_alone_are_told_from_work_that_was_not_done() -> None:
    found = step("partial", findings=NOTE)
    assert night(step("ok"), found).only_findings
    assert not night(step("ok")).only_findings
    assert not night(found, step("failed", failed=NOTE)).only_findings
    assert not night(found, step("unknown", unknown=NOTE)).only_findings
    assert not night(step("partial", findings=NOTE, unknown=NOTE)).only_findings


def test_a_result_survives_its_json() -> None:
    result = StepResult(
        step="reindex",
        target="app",
        status="partial",
        examined=2,
        changed=(Item("public.i", "rebuilt", {"bytes_before": 10, "bytes_after": 4}),),
        skipped=NOTE,
        unknown=NOTE,
        failed=NOTE,
        findings=NOTE,
        seconds=1.5,
        summary="1 of 2 rebuilt",
        details={"bloated": ["public.i"]},
    )
    assert StepResult.from_json(result.as_json()) == result


def test_a_failure_keeps_the_error_and_a_skip_its_reason() -> None:
    assert failure("backup", "app", errors.ToolFailed("pg_dump ended with 1")).failed[0].reason == (
        "pg_dump ended with 1"
    )
    assert failure("backup", "app", ValueError()).summary == "ValueError"
    assert skipped("vacuum", "app", "sessions failed").summary == "Skipped: sessions failed"


@pytest.mark.parametrize(
    "error",
    [
        errors.QueryFailed("no", "42501"),
        errors.PartialFailure("1 of 2", {"a": 1}),
        errors.StoreUnavailable("503"),
    ],
)
def test_errors_survive_pickling(error: errors.StewardError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.__dict__) == (type(error), str(error), error.__dict__)
