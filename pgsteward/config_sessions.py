"""The settings of session cleanup: ``[[targets.NAME.sessions]]``."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import ByteSize, Field, field_validator, model_validator

from pgsteward.config_types import Duration, Minutes, Model, Number, Whole, Zone
from pgsteward.postgres_names import split_qualified


class SessionTable(Model):
    """A table whose rows expire.

    Attributes:
        table: Qualified name, quoted as in SQL where needed.
        expires: The column that says until when a row lives.
        time_zone: Required for a ``timestamp`` or ``date`` column: the zone its values are in.
        unit: Required for a number: seconds, milliseconds or microseconds since 1970 UTC.
        where: SQL; only rows for which it is true are deleted.
        grace: How long a row stays after it has expired.
        max_share: Of the table's rows; where more have expired nothing is deleted.
        max_rows: Deleted in one run at most.
        max_minutes: How long one run may work on this table.
        batch_ms: How long one transaction should take.
        batch_pages: Pages of the table in one transaction at most.
        max_replica_lag_bytes: Bytes of WAL that a replica may be behind; then the cleanup waits for it.
    """

    table: str
    expires: Annotated[str, Field(min_length=1)]
    time_zone: Zone | None = None
    unit: Literal["s", "ms", "us"] | None = None
    where: Annotated[str, Field(min_length=1)] | None = None
    grace: Duration | None = None
    max_share: Number = Field(0.9, gt=0, le=1)
    max_rows: Whole | None = Field(None, ge=1)
    max_minutes: Minutes = 60.0
    batch_ms: Whole = Field(200, ge=10, le=60_000)
    batch_pages: Whole = Field(10_000, ge=1, le=1_000_000)
    max_replica_lag_bytes: ByteSize = Field(default=ByteSize(64_000_000), ge=1)

    @field_validator("table")
    @classmethod
    def _qualified(cls, name: str) -> str:
        split_qualified(name)
        return name

    @model_validator(mode="after")
    def _one_kind_of_column(self) -> Self:
        if self.time_zone is not None and self.unit is not None:
            raise ValueError("give time_zone for a timestamp or date column, or unit for a number, not both")
        return self
