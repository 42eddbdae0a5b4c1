"""The settings of the VACUUM guard: ``[targets.NAME.vacuum]``."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from pydantic import ByteSize, Field

from pgsteward.config_types import Hours, Minutes, Model, Number, Seconds, Switch, Whole, Zone
from pgsteward.window import Window


class VacuumConfig(Model):
    """When a table is vacuumed, and with how much.

    Attributes:
        guard: Look at all tables; without it only those that session cleanup is configured for.
        freeze_fraction: Of `autovacuum_freeze_max_age` from which a table is vacuumed for its age.
        dead_fraction: Scales autovacuum's own threshold of dead rows.
        min_visible: Share of all-visible pages below which a table that indexes read is vacuumed.
        window: Hours of the day in which VACUUMs begin that are not urgent, on the clock of `time_zone`.
        max_minutes: How long one run may begin them.
        statement_timeout_s: For one table.
        lock_timeout_s: How long it waits for a table that stayed locked.
        buffer_usage_limit: Of shared buffers, where the server has it (16 and newer).
        parallel_tables: How many tables at the same time.
    """

    guard: Switch = True
    freeze_fraction: Number = Field(0.8, gt=0, le=1)
    dead_fraction: Number = Field(1.0, gt=0)
    min_visible: Number | None = Field(None, gt=0, le=1)
    window: Hours | None = None
    time_zone: Zone = "UTC"
    max_minutes: Minutes = 240.0
    statement_timeout_s: Seconds = 3600.0
    lock_timeout_s: Seconds = 30.0
    buffer_usage_limit: ByteSize = Field(default=ByteSize(16_000_000), ge=131_072)
    parallel_tables: Whole = Field(1, ge=1, le=16)

    @property
    def hours(self) -> Window | None:
        """The window on its clock."""
        return None if self.window is None else Window.parse(self.window, ZoneInfo(self.time_zone))
