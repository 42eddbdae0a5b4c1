"""The keep rules of one target, or of one store of it."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from pgsteward.config_types import Duration, Model, Whole, Zone


class RetentionConfig(Model):
    """Which backups are kept; restic's words, ORed. Calendar periods are those of `time_zone`.

    Attributes:
        keep_min: So many of the newest stay, whatever the rules say.
        keep_proven: So many of the newest proven ones stay.
        orphan_days: How long remains are left alone whose run can't be asked any more.
    """

    keep_last: Whole = Field(0, ge=0)
    keep_hourly: Whole = Field(0, ge=0)
    keep_daily: Whole = Field(0, ge=0)
    keep_weekly: Whole = Field(0, ge=0)
    keep_monthly: Whole = Field(0, ge=0)
    keep_yearly: Whole = Field(0, ge=0)
    keep_within: Duration | None = None
    keep_within_hourly: Duration | None = None
    keep_within_daily: Duration | None = None
    keep_within_weekly: Duration | None = None
    keep_within_monthly: Duration | None = None
    keep_within_yearly: Duration | None = None
    keep_min: Whole = Field(2, ge=1)
    keep_proven: Whole = Field(3, ge=1)
    orphan_days: Whole = Field(7, ge=1)
    time_zone: Zone = "UTC"

    @property
    def counts(self) -> dict[str, int]:
        """The rules that count backups or periods which have one, by the name of what they count."""
        return {
            "last": self.keep_last,
            "hourly": self.keep_hourly,
            "daily": self.keep_daily,
            "weekly": self.keep_weekly,
            "monthly": self.keep_monthly,
            "yearly": self.keep_yearly,
        }

    @property
    def spans(self) -> dict[str, str | None]:
        """The rules that look back from the newest backup, by what they keep there."""
        return {
            "all": self.keep_within,
            "hourly": self.keep_within_hourly,
            "daily": self.keep_within_daily,
            "weekly": self.keep_within_weekly,
            "monthly": self.keep_within_monthly,
            "yearly": self.keep_within_yearly,
        }

    @property
    def is_empty(self) -> bool:
        """True when no rule keeps anything."""
        return not any(self.counts.values()) and not any(self.spans.values())

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.is_empty:
            raise ValueError("an empty policy would remove everything; give at least keep_last")
        return self
