"""The documentation has a row for each fault that is tested, and none for any other."""

from __future__ import annotations

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
from tests.faults.rows import check_page
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
    check_page(DOCS, matrix(), FAULTS, MODULES)
