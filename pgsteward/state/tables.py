"""The tables of the history, as the newest migration leaves them (a test compares the two)."""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa

NAMING = {
    "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    "pk": "%(table_name)s_pkey",
    "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
}


class Instant(sa.TypeDecorator[datetime]):
    """An aware instant, kept in UTC; naive ones are refused, also where the database has no time zones."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value} has no time zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = sa.MetaData(naming_convention=NAMING)

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("id", sa.Uuid(as_uuid=False), primary_key=True),
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("database", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False, comment="nightly, or step for one started on its own"),
    sa.Column("started_at", Instant, nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("dry_run", sa.Boolean, nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Index(None, "target", "started_at"),
)

steps = sa.Table(
    "steps",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column(
        "run_id",
        sa.Uuid(as_uuid=False),
        sa.ForeignKey("runs.id", ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("step", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("examined", sa.BigInteger, nullable=False),
    sa.Column("summary", sa.Text, nullable=False),
    sa.Column("json", sa.JSON, nullable=False, comment="the whole result, as --json prints it"),
)

objects = sa.Table(
    "objects",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column(
        "step_id", sa.Integer, sa.ForeignKey("steps.id", ondelete="CASCADE"), nullable=False, index=True
    ),
    sa.Column("object", sa.Text, nullable=False, index=True),
    sa.Column("outcome", sa.Text, nullable=False, comment="changed, skipped, unknown or failed"),
    sa.Column("action", sa.Text, comment="what was done, where something was"),
    sa.Column("reason", sa.Text, comment="why not, where it was not"),
    sa.Column("bytes_before", sa.BigInteger),
    sa.Column("bytes_after", sa.BigInteger),
    sa.Column("wal_bytes", sa.BigInteger),
    sa.Column("rows", sa.BigInteger),
    sa.Column("seconds", sa.Float),
)

step_databases = sa.Table(
    "step_databases",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column(
        "step_id", sa.Integer, sa.ForeignKey("steps.id", ondelete="CASCADE"), nullable=False, index=True
    ),
    sa.Column("database", sa.Text, nullable=False, index=True),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("seconds", sa.Float, comment="null where nothing was tried"),
    sa.Column("examined", sa.BigInteger, comment="null where nothing was tried"),
    sa.Column("bytes", sa.BigInteger, comment="stored bytes of a backup"),
    sa.Column("summary", sa.Text, nullable=False),
)

memories = sa.Table(
    "memories",
    metadata,
    sa.Column("target", sa.Text, primary_key=True),
    sa.Column("database", sa.Text, primary_key=True),
    sa.Column("topic", sa.Text, primary_key=True, comment="which operation keeps it, and what for"),
    sa.Column("object", sa.Text, primary_key=True),
    sa.Column("kept_at", Instant, nullable=False),
    sa.Column("json", sa.JSON, nullable=False),
)
