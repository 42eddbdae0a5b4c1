"""Companies, candidates, jobs and the applications for them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "c4b7e9a1d2f3"
down_revision = "a1f0c3d2b4e5"

job_status = postgresql.ENUM("DRAFT", "PUBLISHED", "CLOSED", "ARCHIVED", name="job_status", create_type=False)


def upgrade() -> None:
    op.create_table(
        "companies",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("slug", sa.Text, nullable=False, unique=True),
        sa.Column("industry", sa.Text),
        sa.Column("website", sa.Text),
        sa.Column("description", sa.Text),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
    )
    op.create_table(
        "candidates",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("user_id", sa.BigInteger, nullable=False, unique=True),
        sa.Column("headline", sa.Text),
        sa.Column("location", sa.Text),
        sa.Column("skills", postgresql.ARRAY(sa.Text), nullable=False, server_default="{}"),
        sa.Column("profile", postgresql.JSONB, nullable=False, server_default="{}"),
        sa.Column("salary_expectation_min", sa.Integer),
        sa.Column("salary_expectation_max", sa.Integer),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
    )
    job_status.create(op.get_bind(), checkfirst=False)
    op.create_table(
        "jobs",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("company_id", sa.BigInteger, nullable=False),
        sa.Column("employer_id", sa.BigInteger, nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("location", sa.Text),
        sa.Column("location_type", sa.Text, nullable=False, server_default="on_site"),
        sa.Column("job_type", sa.Text, nullable=False, server_default="full_time"),
        sa.Column("status", job_status, nullable=False, server_default="DRAFT"),
        sa.Column("salary_min", sa.Numeric(10, 2)),
        sa.Column("salary_max", sa.Numeric(10, 2)),
        sa.Column("views_count", sa.Integer, nullable=False, server_default="0"),
        sa.Column("posted_at", sa.DateTime(timezone=True)),
        sa.Column("expires_at", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
    )
    op.create_table(
        "job_applications",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("job_id", sa.BigInteger, nullable=False),
        sa.Column("candidate_id", sa.BigInteger, nullable=False),
        sa.Column("status", sa.Text, nullable=False, server_default="applied"),
        sa.Column("cover_letter", sa.Text),
        sa.Column("resume_key", sa.Text),
        sa.Column("applied_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
    )


def downgrade() -> None:
    op.drop_table("job_applications")
    op.drop_table("jobs")
    job_status.drop(op.get_bind(), checkfirst=False)
    op.drop_table("candidates")
    op.drop_table("companies")
