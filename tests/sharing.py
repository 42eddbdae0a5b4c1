"""Which test is begun when, and by which process: the long ones first, so that none runs alone at the end."""

from __future__ import annotations

from collections import Counter

import pytest
from xdist.scheduler import LoadFileScheduling

PREFECT = ("tests/e2e/test_demo.py", "tests/flows/")
"""One process runs all of these: they share a Prefect server, or start one that keeps a processor busy."""

LONG = (
    *PREFECT,
    "tests/rounds/",
    "tests/e2e/",
    "tests/integration/test_drill.py",
    "tests/integration/test_hard_database.py",
    "tests/integration/test_bloat_shootout.py",
    "tests/faults",
)
"""Beginnings of the names of tests that take longer than others, in the order in which they are begun."""


def sort_by_length(items: list[pytest.Item]) -> None:
    """Put the long ones before the rest, and files of many tests before those of few."""
    tests = Counter(item.path for item in items)

    def place(item: pytest.Item) -> tuple[int, int, str]:
        rank = next((at for at, name in enumerate(LONG) if item.nodeid.startswith(name)), len(LONG))
        return rank, -tests[item.path], str(item.path)

    items.sort(key=place)


class ByFile(LoadFileScheduling):  # type: ignore[misc]
    """The tests of a file stay together, and so do those of `PREFECT`."""

    def _split_scope(self, nodeid: str) -> str:
        together: str = super()._split_scope(nodeid)
        return "Prefect" if together.startswith(PREFECT) else together
