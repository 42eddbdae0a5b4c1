"""What comes out of every step: one frozen shape, so that nothing can be left out silently.

A step says what it examined, what it changed, what it skipped and why, what failed, and what it
could not know. `judge` turns that into a status, and it has no way to say "ok" about nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from pgsteward.errors import NoGo, PreconditionError

Status = Literal["ok", "partial", "failed", "skipped", "unknown"]

EXIT_STATUS: Mapping[Status, int] = {"ok": 0, "skipped": 0, "failed": 1, "partial": 3, "unknown": 3}
"""Exit status of the command line: 0 done, 1 failed, 3 done but not everything (2 is misuse)."""

_SEVERITY: Mapping[Status, int] = {"ok": 0, "skipped": 1, "unknown": 2, "partial": 3, "failed": 4}


@dataclass(frozen=True, slots=True)
class Item:
    """One object that a step changed.

    Attributes:
        object: Qualified name, e.g. ``public.sessions`` or a backup id.
        action: What was done in one word: ``deleted``, ``rebuilt``, ``analyzed``, ``refreshed`` ...; in a dry
            run what would be done: ``would delete``.
        facts: Figures with the unit in the key: ``rows``, ``bytes_before``, ``bytes_after``, ``seconds``.
    """

    object: str
    action: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {"object": self.object, "action": self.action, **self.facts}


@dataclass(frozen=True, slots=True)
class Note:
    """One object with the reason why it was skipped, failed, or is unknown."""

    object: str
    reason: str

    def as_json(self) -> dict[str, str]:
        return {"object": self.object, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one step did to one target.

    Attributes:
        step: Name of the step, as on the command line (``backup``, ``sessions``, ``reindex`` ...).
        target: Name of the entry in the configuration.
        status: See `judge`.
        examined: How many objects were really looked at.
        changed: What was changed (or would be, when `dry_run`).
        skipped: What was left alone on purpose, and why.
        unknown: What could not be examined, and why. Never empty when the status is ``unknown``.
        failed: What was tried and did not work, and why.
        findings: What a person has to act on; the step itself did all of its work.
        seconds: Wall time.
        summary: One sentence with numbers for an operator.
        details: What belongs to this step alone, JSON-able; merged into the top level of `as_json`.
        dry_run: Nothing was changed; `changed` lists what would have been.
        blocked: It was skipped because a step that it needs has not done its work.
    """

    step: str
    target: str
    status: Status
    examined: int
    changed: tuple[Item, ...] = ()
    skipped: tuple[Note, ...] = ()
    unknown: tuple[Note, ...] = ()
    failed: tuple[Note, ...] = ()
    findings: tuple[Note, ...] = ()
    seconds: float = 0.0
    summary: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    dry_run: bool = False
    blocked: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints."""
        return {
            "step": self.step,
            "target": self.target,
            "status": self.status,
            "blocked": self.blocked,
            "dry_run": self.dry_run,
            "examined": self.examined,
            "changed": [item.as_json() for item in self.changed],
            "skipped": [note.as_json() for note in self.skipped],
            "unknown": [note.as_json() for note in self.unknown],
            "failed": [note.as_json() for note in self.failed],
            "findings": [note.as_json() for note in self.findings],
            "seconds": round(self.seconds, 3),
            "summary": self.summary,
            **self.details,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> StepResult:
        """Return the result that `as_json` made this of; keys that are not ours are its details."""
        own = {
            "step",
            "target",
            "status",
            "blocked",
            "dry_run",
            "examined",
            "changed",
            "skipped",
            "unknown",
            "failed",
            "findings",
            "seconds",
            "summary",
        }
        notes = {
            kind: tuple(Note(note["object"], note["reason"]) for note in data.get(kind, ()))
            for kind in ("skipped", "unknown", "failed", "findings")
        }
        changed = tuple(
            Item(i["object"], i["action"], {k: v for k, v in i.items() if k not in ("object", "action")})
            for i in data.get("changed", ())
        )
        return cls(
            step=data["step"],
            target=data["target"],
            status=data["status"],
            examined=data["examined"],
            changed=changed,
            **notes,
            seconds=data.get("seconds", 0.0),
            summary=data.get("summary", ""),
            details={key: value for key, value in data.items() if key not in own},
            dry_run=data.get("dry_run", False),
            blocked=data.get("blocked", False),
        )

    @property
    def only_findings(self) -> bool:
        """True when all work was done and nothing is unknown, but a person has to act on what was found."""
        return self.status == "partial" and bool(self.findings) and not (self.failed or self.unknown)

    def marked(self, dry_run: bool) -> StepResult:
        """Return the same result as one of a dry run, where it is: also what failed or was skipped in one."""
        return replace(self, dry_run=True) if dry_run else self

    def took(self, seconds: float) -> StepResult:
        """Return the same result with its wall time."""
        return replace(self, seconds=seconds)


def judge(
    *,
    examined: int,
    failed: Iterable[Note] = (),
    unknown: Iterable[Note] = (),
    changed: Iterable[Item] = (),
    findings: Iterable[Note] = (),
) -> Status:
    """Return the status that the evidence allows.

    Nothing examined is ``unknown``, never ``ok``. Something failed is ``failed`` when nothing else was
    done, else ``partial``. Something unknown beside what was examined, or left for a person to do, is
    ``partial`` as well.
    """
    failed, unknown, changed = tuple(failed), tuple(unknown), tuple(changed)
    if failed:
        return "partial" if changed or examined > len(failed) else "failed"
    if examined == 0:
        return "unknown"
    return "partial" if unknown or tuple(findings) else "ok"


def worst(statuses: Iterable[Status]) -> Status:
    """Return the most serious of several statuses; of none at all it is ``unknown``."""
    return max(statuses, key=_SEVERITY.__getitem__, default="unknown")


def failure(
    step: str, target: str, error: BaseException, seconds: float = 0.0, *, dry_run: bool = False
) -> StepResult:
    """Return the result of a step that ended with `error` before it could say anything itself."""
    details: dict[str, Any] = {"error": type(error).__name__}
    if isinstance(error, NoGo):
        details = {"error": PreconditionError.__name__, "preflight": [dict(each) for each in error.checks]}
    return StepResult(
        step=step,
        target=target,
        status="failed",
        examined=0,
        failed=(Note(target or step, str(error) or type(error).__name__),),
        seconds=seconds,
        summary=str(error) or type(error).__name__,
        details=details,
        dry_run=dry_run,
    )


def skipped(
    step: str,
    target: str,
    reason: str,
    *,
    dry_run: bool = False,
    blocked: bool = False,
    details: Mapping[str, Any] | None = None,
) -> StepResult:
    """Return the result of a step that was not run, and says why; `blocked` is in `StepResult`."""
    return StepResult(
        step=step,
        target=target,
        status="skipped",
        examined=0,
        skipped=(Note(target, reason),),
        summary=f"Skipped: {reason}",
        details=details or {},
        dry_run=dry_run,
        blocked=blocked,
    )


@dataclass(frozen=True, slots=True)
class NightResult:
    """A whole night of one target: its steps in the order they ran, the report's raw material."""

    target: str
    database: str
    started_at: datetime
    seconds: float
    steps: tuple[StepResult, ...]
    dry_run: bool = False

    @property
    def status(self) -> Status:
        """The worst of the steps; one that was skipped for a stated reason is not bad by itself."""
        ran = [step.status for step in self.steps if step.status != "skipped"]
        if not ran:
            return "skipped" if self.steps else "unknown"
        found = worst(ran)
        return "partial" if found == "unknown" and any(s == "ok" for s in ran) else found

    @property
    def only_findings(self) -> bool:
        """True when every step did its work and only findings keep the night from being ``ok``."""
        odd = [step for step in self.steps if step.status not in ("ok", "skipped")]
        return bool(odd) and all(step.only_findings for step in odd)

    def step(self, name: str) -> StepResult:
        """Return the result of one step.

        Raises:
            KeyError: No such step ran.
        """
        for step in self.steps:
            if step.step == name:
                return step
        raise KeyError(name)

    def as_json(self) -> dict[str, Any]:
        from pgsteward.report import headline  # which imports us

        return {
            "step": "nightly",
            "target": self.target,
            "database": self.database,
            "status": self.status,
            "dry_run": self.dry_run,
            "started_at": self.started_at.isoformat(),
            "examined": sum(step.examined for step in self.steps),
            "changed": [{"step": s.step, **i.as_json()} for s in self.steps for i in s.changed],
            "skipped": [{"step": s.step, **n.as_json()} for s in self.steps for n in s.skipped],
            "unknown": [{"step": s.step, **n.as_json()} for s in self.steps for n in s.unknown],
            "failed": [{"step": s.step, **n.as_json()} for s in self.steps for n in s.failed],
            "findings": [{"step": s.step, **n.as_json()} for s in self.steps for n in s.findings],
            "seconds": round(self.seconds, 3),
            "summary": headline(self),
            "steps": [step.as_json() for step in self.steps],
        }
