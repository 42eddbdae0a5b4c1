"""How every flow here ends: the report is published, the history kept, and only then the run fails."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Completed

from pgsteward import results
from pgsteward.errors import PartialFailure, StewardError
from pgsteward.report import headline, troubles
from pgsteward.results import NightResult, StepResult
from tasks.report import publish_report, record_history

log = logging.getLogger("pgsteward.flows")  # below "pgsteward": its lines reach the run's page

_LONGEST_REASON = 300


def run_steps(
    target: str, database: str, calls: Mapping[str, Callable[[], StepResult]], *, dry_run: bool = False
) -> State[Any]:
    """Run a few steps by hand, in order, and conclude; after one that failed the others are skipped by name.

    Args:
        target: Name of the target.
        database: The one of its databases that is meant; empty for all of them.
        calls: The steps by name.
        dry_run: As the calls have it; what fails in a dry run is no real run.

    Raises:
        PartialFailure: Not everything was done; the report says what.
    """
    done: list[StepResult] = []
    for step, call in calls.items():
        failed = [result.step for result in done if result.status == "failed"]
        if failed:
            done.append(results.skipped(step, target, f"{failed[0]} failed", dry_run=dry_run, blocked=True))
            continue
        begun = time.monotonic()
        try:
            done.append(call().marked(dry_run))
        except Exception as exc:  # the report is published first; the run fails below
            log.log(logging.ERROR, "%s failed: %s", step, exc, exc_info=not isinstance(exc, StewardError))
            done.append(results.failure(step, target, exc, time.monotonic() - begun, dry_run=dry_run))
    notes = [note for result in done for note in _write_down(result, database)]
    return last_state(done, notes)


def conclude_night(night: NightResult, late: str = "") -> State[Any]:
    """Publish a night's report, keep its history, and return the run's last state, or fail.

    Args:
        night: What was done.
        late: Why only a part of it was; put in front of the last state's message.

    Raises:
        PartialFailure: Something failed or could not be looked at.
    """
    notes = ([late] if late else []) + _write_down(night)
    return last_state(night.steps, notes, night)


def last_state(
    done: Sequence[StepResult], notes: Sequence[str], night: NightResult | None = None
) -> State[Any]:
    """Return the state of a run whose steps all did their work; nothing unknown is ever green.

    It is named ``Findings`` when a person has to act on what was found, ``Skipped`` when nothing was to do.

    Raises:
        PartialFailure: Not all of them did; the text lists them.
    """
    odd = [step for step in done if step.status in {"failed", "partial", "unknown"}]
    wrong = [_what_is_wrong(step) for step in odd if not step.only_findings]
    if wrong or not done:
        of_several = [each[:_LONGEST_REASON] for each in troubles(night)] if night else []
        said = "; ".join([*notes, *(of_several or wrong)]) or "nothing was done"
        raise PartialFailure(said, night or tuple(done))
    if all(step.status == "skipped" for step in done):
        reasons = [f"{step.step}: {step.skipped[0].reason}" for step in done if step.skipped]
        return Completed(name="Skipped", message="; ".join([*notes, *reasons]), data=night or tuple(done))
    said = headline(night) if night else " ".join(headline(step) for step in done)
    if odd:
        found = [f"{note.object}: {note.reason[:_LONGEST_REASON]}" for step in odd for note in step.findings]
        return Completed(
            name="Findings", message="; ".join([*notes, said, *found]), data=night or tuple(done)
        )
    return Completed(message="; ".join([*notes, said]), data=night or tuple(done))


def _write_down(result: NightResult | StepResult, database: str = "") -> list[str]:
    """Publish the report and keep the history; return what an operator should know about the latter.

    A history that can't be written is lost history, never a lost backup: it does not make a night bad.
    """
    try:
        publish_report(result)
    finally:
        try:
            record_history(result, database or None)
            notes = []
        except Exception as exc:
            log.exception("The history of this run was not kept")
            notes = [f"history not kept ({exc})"]
    return notes


def _what_is_wrong(step: StepResult) -> str:
    reasons = ", ".join(f"{note.object}: {note.reason}" for note in (*step.failed, *step.unknown))
    return f"{step.step} {step.status} ({(reasons or step.summary)[:_LONGEST_REASON]})"
