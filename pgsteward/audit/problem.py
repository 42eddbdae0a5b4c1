"""One thing that the audit found, with the statements that mend it and those that take the mending back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Problem:
    """What a person has to act on.

    Attributes:
        kind: ``missing``, ``different``, ``invalid``, ``duplicate``, ``redundant``, ``unused``,
            ``foreign key``, ``constraint`` or ``migrations``.
        object: Name of the index, the constraint or the requirement.
        table: Name of its table; empty where there is none.
        reason: What is wrong, as a clause.
        ddl: Statements that mend it, in the order in which they are safe.
        undo: Statements that bring back what was there before.
        bytes: What mending it gives back.
    """

    kind: str
    object: str
    table: str
    reason: str
    ddl: tuple[str, ...] = ()
    undo: tuple[str, ...] = ()
    bytes: int | None = None

    @property
    def sentence(self) -> str:
        """The reason with its statements; of many only the first, as all are in the JSON."""
        run = f"; run: {_few(self.ddl)}" if self.ddl else ""
        return f"{self.reason}{run}" + (f" -- undo: {_few(self.undo)}" if self.undo else "")

    def as_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "object": self.object,
            "table": self.table,
            "reason": self.reason,
            "ddl": list(self.ddl),
            "undo": list(self.undo),
            "bytes": self.bytes,
        }


def _few(statements: Sequence[str]) -> str:
    more = len(statements) - _SHOWN
    rest = f" ... and {more} more" if more > 0 else ""
    return " ".join(statements[:_SHOWN]) + rest
