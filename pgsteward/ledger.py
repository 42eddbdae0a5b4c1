"""What a step writes down while it works on many objects; at its end the ledger becomes the result."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pgsteward import results
from pgsteward.results import Item, Note, Status, StepResult


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one object in a thread of its own; `Ledger.take` writes it down.

    Attributes:
        text: The action of what was changed, else the reason.
        facts: Of what was changed.
        finding: What a person has to act on besides.
    """

    kind: Literal["changed", "skipped", "unknown", "failed"]
    text: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    finding: str = ""


@dataclass(slots=True)
class Ledger:
    """The items and notes of a running step.

    Attributes:
        step: Name of the step.
        target: Name of the target.
        dry_run: Nothing is changed; items say what would be.
        examined: How many objects were really looked at.
    """

    step: str
    target: str
    dry_run: bool = False
    examined: int = 0
    changed: list[Item] = field(default_factory=list)
    skipped: list[Note] = field(default_factory=list)
    unknown: list[Note] = field(default_factory=list)
    failed: list[Note] = field(default_factory=list)
    findings: list[Note] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def change(self, name: str, action: str, **facts: Any) -> None:
        """Write down that something was changed, or in a dry run would be."""
        self.changed.append(Item(name, action, facts))

    def skip(self, name: str, reason: str) -> None:
        """Write down what was left alone on purpose."""
        self.skipped.append(Note(name, reason))

    def doubt(self, name: str, reason: str) -> None:
        """Write down what could not be examined."""
        self.unknown.append(Note(name, reason))

    def fail(self, name: str, reason: str) -> None:
        """Write down what was tried and did not work."""
        self.failed.append(Note(name, reason))

    def find(self, name: str, reason: str) -> None:
        """Write down what a person has to act on."""
        self.findings.append(Note(name, reason))

    def take(self, name: str, outcome: Outcome) -> None:
        """Write down what came of an object."""
        match outcome.kind:
            case "changed":
                self.change(name, outcome.text, **outcome.facts)
            case "skipped":
                self.skip(name, outcome.text)
            case "unknown":
                self.doubt(name, outcome.text)
            case "failed":
                self.fail(name, outcome.text)
        if outcome.finding:
            self.find(name, outcome.finding)

    def result(
        self, summary: str, details: Mapping[str, Any] | None = None, status: Status | None = None
    ) -> StepResult:
        """Return the step's result; its status is what the evidence allows, unless a step knows better."""
        return StepResult(
            step=self.step,
            target=self.target,
            status=status
            or results.judge(
                examined=self.examined,
                failed=self.failed,
                unknown=self.unknown,
                changed=self.changed,
                findings=self.findings,
            ),
            examined=self.examined,
            changed=tuple(self.changed),
            skipped=tuple(self.skipped),
            unknown=tuple(self.unknown),
            failed=tuple(self.failed),
            findings=tuple(self.findings),
            seconds=time.monotonic() - self.started,
            summary=summary,
            details=details or {},
            dry_run=self.dry_run,
        )
