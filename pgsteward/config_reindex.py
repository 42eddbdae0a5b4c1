"""When and how bloated indexes are rebuilt."""

from __future__ import annotations

from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, ByteSize, Field, model_validator

from pgsteward import config_checks as checks
from pgsteward.config_types import Hours, Minutes, Model, Seconds, Switch, Whole, Zone
from pgsteward.window import Window


class ReindexConfig(Model):
    """What bounds the rebuilds of one run; what is None bounds nothing.

    Attributes:
        window: Hours of the day on the clock of `time_zone`.
        at_window_end: What becomes of a rebuild that still runs when the time is over.
        free_disk_bytes: For a server whose disk can't be seen from here.
        data_folder: The same, where its disk is mounted here.
        max_wait_s: How long a rebuild may be held up by others, before `on_blocker` says what to do.
        returns_within_days: Bloat that is back so soon makes the pauses before the next rebuild grow.
        back_off_days: The first of these pauses; each further one is twice as long.
        adopt_orphans: The janitor also drops dead ``_ccnew`` and ``_ccold`` indexes without a mark of ours.
    """

    window: Hours | None = None
    time_zone: Zone = "UTC"
    at_window_end: Literal["cancel", "finish"] = "cancel"
    max_minutes: Minutes | None = None
    max_wal_bytes: ByteSize | None = Field(None, gt=0)
    free_disk_bytes: ByteSize | None = Field(None, ge=0)
    data_folder: Annotated[str, AfterValidator(checks.folder)] | None = None
    max_replica_lag_bytes: ByteSize | None = Field(None, ge=0)
    max_replica_lag_s: Seconds | None = None
    on_replica_lag: Literal["wait", "stop"] = "wait"
    max_wait_s: Seconds = 600.0
    on_blocker: Literal["wait", "skip", "cancel"] = "cancel"
    parallel_tables: Whole = Field(1, ge=1, le=16)
    returns_within_days: Whole = Field(30, ge=1)
    back_off_days: Whole = Field(7, ge=1)
    adopt_orphans: Switch = False

    @model_validator(mode="after")
    def _one_figure_of_the_disk(self) -> Self:
        if self.free_disk_bytes is not None and self.data_folder is not None:
            raise ValueError("give free_disk_bytes or data_folder, not both")
        return self

    @property
    def hours(self) -> Window | None:
        """The window on its clock."""
        return None if self.window is None else Window.parse(self.window, ZoneInfo(self.time_zone))
