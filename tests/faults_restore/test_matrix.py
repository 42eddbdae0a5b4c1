"""The documentation has a row for each fault that is tested, and none for any other."""

from __future__ import annotations

from tests.faults.rows import check_page
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
    check_page(DOCS, matrix(), FAULTS, MODULES)
