"""What rows of both pages of faults have in common: they are read from there, and say what is to be seen."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from pgsteward.errors import StewardError

_LONGEST = 900
"""Of an error, in characters."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a command printed that was stopped."""

    text: str


def read_rows(page: Path, columns: int) -> list[tuple[str, ...]]:
    """Return the rows of a matrix; the third column is in backquotes."""
    cells = [" (.+?) "] * columns
    cells[2] = " `(.+?)` "
    pattern = r"\|".join(cells)
    return re.findall(rf"^\|{pattern}\|$", page.read_text(), re.MULTILINE)


def words_of(fault: str, outcome: StewardError | Said) -> str:
    """Return what somebody reads where a run failed: one line that is not too long."""
    if isinstance(outcome, Said):
        return outcome.text
    assert "\n" not in str(outcome), f"{fault}: {outcome}"
    assert len(str(outcome)) < _LONGEST, f"{fault}: {outcome}"
    return str(outcome)


def check_seen(fault: str, seen: str, said: Sequence[str]) -> None:
    """Compare what was said with what the documentation says; ``...`` stands for anything."""
    pattern = re.compile(".*".join(re.escape(part) for part in seen.split("...")), re.DOTALL)
    assert any(pattern.search(text) for text in said), f"{fault}: {said}"


def check_page(
    page: Path,
    documented: Collection[str],
    strikes: Mapping[str, Callable[..., Any]],
    modules: Collection[ModuleType],
) -> None:
    """See that a page has a row for each fault that these modules make happen, and none for any other."""
    assert {strike.__module__ for strike in strikes.values()} == {module.__name__ for module in modules}
    assert set(documented) == set(strikes)
    rows = re.findall(r"^\| (?!fault |---)", page.read_text(), re.MULTILINE)
    assert len(rows) == len(strikes)  # no row is written so that it can't be read
