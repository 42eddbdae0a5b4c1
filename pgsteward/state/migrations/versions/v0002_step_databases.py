"""One row for each database that a step worked on: a target may have several."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "step_databases",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("step_id", sa.Integer, sa.ForeignKey("steps.id", ondelete="CASCADE"), nullable=False),
        sa.Column("database", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("seconds", sa.Float, comment="null where nothing was tried"),
        sa.Column("examined", sa.BigInteger, comment="null where nothing was tried"),
        sa.Column("bytes", sa.BigInteger, comment="stored bytes of a backup"),
        sa.Column("summary", sa.Text, nullable=False),
    )
    op.create_index("step_databases_step_id_idx", "step_databases", ["step_id"])
    op.create_index("step_databases_database_idx", "step_databases", ["database"])
