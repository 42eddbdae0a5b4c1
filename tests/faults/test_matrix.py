"""The documentation has a row for each fault that is tested, and none for any other."""

from __future__ import annotations

import re

from tests.faults import (
    test_disk,
    test_dumping,
    test_locks,
    test_refused,
    test_server,
    test_standby,
    test_stopped,
    test_store,
)
from tests.faults.scene import DOCS, FAULTS, matrix

MODULES = (
    test_disk,
    test_dumping,
    test_locks,
    test_refused,
    test_server,
    test_standby,
    test_stopped,
    test_store,
)


def test_the_documentation_names_each_fault_and_no_other() -> None:
    assert {strike.__module__ for strike in FAULTS.values()} == {module.__name__ for module in MODULES}
    assert set(matrix()) == set(FAULTS)
    rows = re.findall(r"^\| (?!fault |---)", DOCS.read_text(), re.MULTILINE)
    assert len(rows) == len(FAULTS)  # no row is written so that it can't be read
