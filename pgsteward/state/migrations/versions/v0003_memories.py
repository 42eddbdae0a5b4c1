"""What operations remember of a database from one night to the next, each under a topic of its own."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "memories",
        sa.Column("target", sa.Text, primary_key=True),
        sa.Column("database", sa.Text, primary_key=True),
        sa.Column("topic", sa.Text, primary_key=True, comment="which operation keeps it, and what for"),
        sa.Column("object", sa.Text, primary_key=True),
        sa.Column("kept_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("json", sa.JSON, nullable=False),
    )
