"""The documentation has a row for each fault that is tested, and none for any other."""

from __future__ import annotations

import re

from tests.faults_restore import (
    test_here,
    test_loading,
    test_refused,
    test_server,
    test_stopped,
    test_swapping,
)
from tests.faults_restore.scene import DOCS, FAULTS, matrix

MODULES = (test_here, test_loading, test_refused, test_server, test_stopped, test_swapping)


def test_the_documentation_names_each_fault_and_no_other() -> None:
    assert {strike.__module__ for strike in FAULTS.values()} == {module.__name__ for module in MODULES}
    assert set(matrix()) == set(FAULTS)
    rows = re.findall(r"^\| (?!fault |---)", DOCS.read_text(), re.MULTILINE)
    assert len(rows) == len(FAULTS)  # no row is written so that it can't be read
