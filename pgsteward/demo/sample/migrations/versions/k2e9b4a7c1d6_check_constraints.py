"""Check constraints for data validation."""

from alembic import op

revision = "k2e9b4a7c1d6"
down_revision = "h8c2d6e5f4g3"

CHECKS = (
    (
        "check_job_salary_range",
        "jobs",
        "salary_min IS NULL OR salary_max IS NULL OR salary_min <= salary_max",
    ),
    (
        "check_candidate_salary_range",
        "candidates",
        "salary_expectation_min IS NULL OR salary_expectation_max IS NULL"
        " OR salary_expectation_min <= salary_expectation_max",
    ),
    ("check_job_dates", "jobs", "posted_at IS NULL OR expires_at IS NULL OR posted_at <= expires_at"),
    (
        "check_application_status",
        "job_applications",
        "status IN ('applied', 'viewed', 'shortlisted', 'interview', 'rejected', 'accepted')",
    ),
)


def upgrade() -> None:
    for name, table, condition in CHECKS:
        op.create_check_constraint(name, table, condition)


def downgrade() -> None:
    for name, table, _ in reversed(CHECKS):
        op.drop_constraint(name, table, type_="check")
