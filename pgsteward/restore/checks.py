"""What was looked at beforehand: go or no-go, and how to mend it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pgsteward.errors import NoGo
from pgsteward.results import Note

Go = Literal["go", "warning", "unknown", "no-go"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at beforehand.

    Attributes:
        fix: What to do, where it is no go or a warning.
        expects_failure: A warning only because some servers allow it all the same: no dry run is ok with it.
    """

    name: str
    go: Go
    says: str
    fix: str = ""
    expects_failure: bool = False

    def __str__(self) -> str:
        return f"{self.name}: {self.says}{f'; {self.fix}' if self.fix else ''}"

    def as_json(self) -> dict[str, str]:
        return {"check": self.name, "verdict": self.go, "says": self.says, "fix": self.fix}


def refuse(checks: Sequence[Check], what: str = "the restore can't start") -> None:
    """Raise when one of the checks says no.

    Args:
        checks: What was looked at.
        what: What is refused, in words.

    Raises:
        NoGo: Lists every no-go with its remedy.
    """
    no = [check for check in checks if check.go == "no-go"]
    if no:
        said = f"{what}, and nothing was changed. {'; '.join(map(str, no))}"
        raise NoGo(said, as_json(checks))


def expected_failures(checks: Sequence[Check]) -> tuple[Note, ...]:
    """Return why a restore that may be tried will most likely fail."""
    return tuple(
        Note(check.name, f"{check.says}; {check.fix}" if check.fix else check.says)
        for check in checks
        if check.expects_failure
    )


def as_json(checks: Sequence[Check]) -> list[dict[str, Any]]:
    """Return what ``details["preflight"]`` holds."""
    return [check.as_json() for check in checks]
