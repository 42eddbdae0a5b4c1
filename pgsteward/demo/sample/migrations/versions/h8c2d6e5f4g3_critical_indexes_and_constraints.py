"""Critical indexes and unique constraints."""

import sqlalchemy as sa
from alembic import op

revision = "h8c2d6e5f4g3"
down_revision = "e6d1a8b3c7f2"

INDEXES = (
    ("idx_jobs_status_job_type", "jobs", ["status", "job_type"]),
    ("idx_jobs_created_at", "jobs", ["created_at"]),
    ("idx_jobs_company_id", "jobs", ["company_id"]),
    ("idx_jobs_employer_id", "jobs", ["employer_id"]),
    ("idx_job_applications_candidate_id_status", "job_applications", ["candidate_id", "status"]),
    ("idx_job_applications_job_id_status", "job_applications", ["job_id", "status"]),
    ("idx_sessions_user_id", "sessions", ["user_id"]),
    ("idx_sessions_expires", "sessions", ["expires"]),
)


def upgrade() -> None:
    op.create_unique_constraint(
        "unique_user_provider_account", "accounts", ["user_id", "provider", "provider_account_id"]
    )
    op.create_index(
        "unique_candidate_job_application",
        "job_applications",
        ["candidate_id", "job_id"],
        unique=True,
        postgresql_where=sa.text("status != 'rejected'"),
    )
    op.create_index(
        "idx_jobs_status_location_type",
        "jobs",
        ["status", "location_type"],
        postgresql_where=sa.text("status = 'PUBLISHED'"),
    )
    for name, table, columns in INDEXES:
        op.create_index(name, table, columns)


def downgrade() -> None:
    for name, table, _ in reversed(INDEXES):
        op.drop_index(name, table, if_exists=True)
    op.drop_index("idx_jobs_status_location_type", "jobs")
    op.drop_index("unique_candidate_job_application", "job_applications")
    op.drop_constraint("unique_user_provider_account", "accounts", type_="unique")
