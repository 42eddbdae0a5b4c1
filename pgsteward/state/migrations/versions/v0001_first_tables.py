"""Runs, their steps, and the objects that a step touched."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "runs",
        sa.Column("id", sa.Uuid(as_uuid=False), primary_key=True),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("database", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False, comment="nightly, or step for one started on its own"),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seconds", sa.Float, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("dry_run", sa.Boolean, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
    )
    op.create_index("runs_target_started_at_idx", "runs", ["target", "started_at"])
    op.create_table(
        "steps",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column(
            "run_id", sa.Uuid(as_uuid=False), sa.ForeignKey("runs.id", ondelete="CASCADE"), nullable=False
        ),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("step", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("seconds", sa.Float, nullable=False),
        sa.Column("examined", sa.BigInteger, nullable=False),
        sa.Column("summary", sa.Text, nullable=False),
        sa.Column("json", sa.JSON, nullable=False, comment="the whole result, as --json prints it"),
    )
    op.create_index("steps_run_id_idx", "steps", ["run_id"])
    op.create_table(
        "objects",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("step_id", sa.Integer, sa.ForeignKey("steps.id", ondelete="CASCADE"), nullable=False),
        sa.Column("object", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False, comment="changed, skipped, unknown or failed"),
        sa.Column("action", sa.Text, comment="what was done, where something was"),
        sa.Column("reason", sa.Text, comment="why not, where it was not"),
        sa.Column("bytes_before", sa.BigInteger),
        sa.Column("bytes_after", sa.BigInteger),
        sa.Column("wal_bytes", sa.BigInteger),
        sa.Column("rows", sa.BigInteger),
        sa.Column("seconds", sa.Float),
    )
    op.create_index("objects_step_id_idx", "objects", ["step_id"])
    op.create_index("objects_object_idx", "objects", ["object"])
