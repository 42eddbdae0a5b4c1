"""What every part of the configuration is made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from pgsteward import config_checks as checks


class Model(BaseModel):
    """Frozen, and refuses keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Whole = Annotated[int, Field(strict=True)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Seconds = Annotated[Number, Field(gt=0, le=2_147_483)]
"""As long as PostgreSQL's timeouts can be: milliseconds in 32 bits."""
Minutes = Annotated[Number, Field(gt=0, le=35_791)]
"""Likewise."""
Switch = Annotated[bool, Field(strict=True)]
Zone = Annotated[str, AfterValidator(checks.time_zone)]
Hours = Annotated[str, AfterValidator(checks.hours)]
"""A window of the day: ``01:00-05:00``."""
Duration = Annotated[str, AfterValidator(checks.span)]
"""A span as restic writes it: ``2y5m7d3h``."""
Conninfo = Annotated[str, Field(min_length=1), AfterValidator(checks.conninfo)]
