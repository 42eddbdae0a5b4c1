"""Index bloat, measured: how much smaller an index would be after a rebuild.

Two stages. The catalogs say for free how large everything is, and how large it need be at most; then indexes
are read page by page, largest possible gain first, as far as one run may go. The next run carries on where it
stopped. What can't be measured is unknown, by name, and never "no bloat".
"""

from __future__ import annotations

from pgsteward.bloat_catalog import read_catalog
from pgsteward.bloat_census import Census, Index, is_bloated, status_without_candidates
from pgsteward.bloat_order import Memory
from pgsteward.bloat_survey import QUERY_TIMEOUT_S, Survey
from pgsteward.config import IndexBloatConfig
from pgsteward.ledger import Ledger
from pgsteward.postgres import Login, connect
from pgsteward.progress import Progress, silent
from pgsteward.results import StepResult
from pgsteward.targets import Target

__all__ = ["Census", "Index", "detect", "is_bloated", "status_without_candidates", "take_census"]

STEP = "bloat"
_LOCK_TIMEOUT_S = 0.1


def detect(target: Target, *, progress: Progress = silent) -> StepResult:
    """Measure the indexes and tables that are large enough to matter. Changes nothing.

    Args:
        target: Whose database.
        progress: Told about bytes.
    """
    ledger = Ledger(STEP, target.name)
    settings = target.settings.index_bloat
    memory = Memory(target)
    census = take_census(target.login("maintenance"), settings, ledger, progress, memory=memory, is_full=True)
    summary = census.sentence()
    if ledger.unknown and not census.measured:
        summary += f"; {ledger.unknown[0].reason}"
    return ledger.result(summary, census.details(), status_without_candidates(census, ledger))


def take_census(
    login: Login,
    settings: IndexBloatConfig,
    ledger: Ledger,
    progress: Progress = silent,
    *,
    memory: Memory | None = None,
    is_full: bool = False,
) -> Census:
    """Measure, and write into the ledger what was skipped and what could not be measured.

    Args:
        login: Of the role that measures.
        settings: Thresholds, and how far one run goes.
        ledger: Counts indexes as examined, not tables.
        progress: Told about bytes.
        memory: What earlier runs have seen; without it this is always the first one.
        is_full: All that is worth knowing, tables as well, what waits longest first; the looks are kept for
            the next run. Otherwise what a rebuild may be worth: indexes that can reach ``min_reclaimable``,
            first those that the last full census found to be bloated.
    """
    with connect(
        login, purpose="bloat", lock_timeout_s=_LOCK_TIMEOUT_S, statement_timeout_s=QUERY_TIMEOUT_S
    ) as connection:
        catalog = read_catalog(connection, toast=settings.toast)
        survey = Survey(connection, catalog, settings, ledger, progress, memory, is_full)
        try:
            survey.take()
        finally:
            if is_full and memory is not None:
                memory.save({row["qualified"] for row in (*catalog.indexes, *catalog.heaps.values())})
    return survey.census()
