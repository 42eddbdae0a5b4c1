"""What the sample database holds for a night to find; tests and the demo's report read it from here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

TABLES = ("users", "accounts", "sessions", "companies", "candidates", "jobs", "job_applications")

REQUIRED_INDEXES: Mapping[str, Mapping[str, object]] = {
    "unique_candidate_job_application": {
        "table": "job_applications",
        "columns": ["candidate_id", "job_id"],
        "where": "status != 'rejected'",
        "unique": True,
    },
    "unique_user_provider_account": {
        "table": "accounts",
        "columns": ["user_id", "provider", "provider_account_id"],
        "unique": True,
    },
    "idx_jobs_status_location_type": {
        "table": "jobs",
        "columns": ["status", "location_type"],
        "where": "status = 'PUBLISHED'",
    },
    "idx_jobs_status_job_type": {"table": "jobs", "columns": ["status", "job_type"]},
    "idx_job_applications_candidate_id_status": {
        "table": "job_applications",
        "columns": ["candidate_id", "status"],
    },
    "idx_job_applications_job_id_status": {"table": "job_applications", "columns": ["job_id", "status"]},
}
"""The indexes that IntoWork's operations guide calls critical, as an audit is told of them."""


@dataclass(frozen=True, slots=True)
class Planted:
    """Names are qualified, in schema ``public``.

    Attributes:
        sessions: The table with expired rows.
        expired_share: How much of it has expired (0..1); the oldest rows, as in life.
        purged_table: 5 of 9 rows were deleted and vacuumed away, evenly all over the table.
        bloated_indexes: Indexes of it that kept their size: half of each and more is reclaimable. The other
            two are smaller, deduplicated, and at a quarter: below any sensible limit.
        never_analyzed: Tables without statistics.
        outdated_statistics: Analyzed before the purge.
        stale_matview: Refreshed before the purge.
        unpopulated_matview: Created ``WITH NO DATA``; reads the stale one through `plain_view`.
        plain_view: Between the two.
        missing_index: One of `REQUIRED_INDEXES`, dropped by hand behind Alembic's back.
    """

    sessions: str = "public.sessions"
    expired_share: float = 0.7
    purged_table: str = "public.job_applications"
    bloated_indexes: tuple[str, ...] = (
        "public.job_applications_pkey",
        "public.unique_candidate_job_application",
    )
    never_analyzed: tuple[str, ...] = ("public.accounts",)
    outdated_statistics: str = "public.job_applications"
    stale_matview: str = "public.job_stats_summary"
    unpopulated_matview: str = "public.company_hiring_summary"
    plain_view: str = "public.company_job_stats"
    missing_index: str = "idx_jobs_status_job_type"


PLANTED = Planted()
