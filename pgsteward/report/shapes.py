"""What a page is made of, before it is known how it is set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MAX_ROWS = 50
"""Rows of one table of a report; the rest is counted, and complete in the JSON."""

Shown = Literal["ok", "findings", "partial", "failed", "skipped", "unknown"]
"""A status for people: all work done, but with findings, is another thing than work left undone."""


@dataclass(frozen=True, slots=True)
class Table:
    """Cells that are ready to print.

    Attributes:
        columns: Captions.
        rows: As many cells each as there are columns.
        right: Indexes of the columns that are set to the right.
        caption: What the table lists.
        more: Rows left out for length.
        wrap: The last column holds sentences.
        statuses: One for each row, where there is a column ``status``; a form may set signs for them.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: frozenset[int] = frozenset()
    caption: str = ""
    more: int = 0
    wrap: bool = False
    statuses: tuple[Shown, ...] = ()


@dataclass(frozen=True, slots=True)
class Remark:
    """One thing that failed, is unknown, was found or skipped; or the fix for it."""

    kind: str
    step: str
    object: str
    reason: str


@dataclass(frozen=True, slots=True)
class Section:
    """One step.

    Attributes:
        script: SQL for a person to read, line by line as it is.
    """

    title: str
    status: Shown
    sentence: str
    facts: tuple[tuple[str, str], ...] = ()
    tables: tuple[Table, ...] = ()
    remarks: tuple[Remark, ...] = ()
    script: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """A whole report."""

    status: Shown
    title: str
    verdict: str
    facts: tuple[tuple[str, str], ...]
    attention: tuple[Remark, ...] = ()
    databases: Table | None = None
    steps: Table | None = None
    sections: tuple[Section, ...] = ()
