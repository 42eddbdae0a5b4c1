"""Foreign keys."""

from alembic import op

revision = "e6d1a8b3c7f2"
down_revision = "c4b7e9a1d2f3"

KEYS = (
    ("accounts", "user_id", "users"),
    ("sessions", "user_id", "users"),
    ("candidates", "user_id", "users"),
    ("jobs", "company_id", "companies"),
    ("jobs", "employer_id", "users"),
    ("job_applications", "job_id", "jobs"),
    ("job_applications", "candidate_id", "candidates"),
)


def upgrade() -> None:
    for table, column, referenced in KEYS:
        op.create_foreign_key(f"fk_{table}_{column}", table, referenced, [column], ["id"], ondelete="CASCADE")


def downgrade() -> None:
    for table, column, _ in reversed(KEYS):
        op.drop_constraint(f"fk_{table}_{column}", table, type_="foreignkey")
