"""How long a proof may take, and what is said of what it did not come to."""

from __future__ import annotations

import time
from dataclasses import dataclass

from pgsteward.errors import QueryFailed
from pgsteward.postgres import Connection

NOT_REACHED = "not reached within proof_max_seconds"
_CANCELED = "57014"
_CLOCKS_S = 0.5
"""By how much the server may end a statement before our clock is there."""


@dataclass(frozen=True, slots=True)
class Bound:
    """The instant, of the monotonic clock, after which nothing more is examined; None is no bound."""

    until: float | None = None

    @classmethod
    def after(cls, seconds: float | None) -> Bound:
        """Return the bound that lies so many seconds ahead."""
        return cls(None if seconds is None else time.monotonic() + seconds)

    @property
    def reached(self) -> bool:
        return self.until is not None and time.monotonic() >= self.until

    def limit(self, connection: Connection) -> None:
        """Let the statements of the running transaction end at the bound."""
        if self.until is not None:
            left_ms = max(1, int((self.until - time.monotonic()) * 1000))
            connection.value(
                "SELECT set_config('statement_timeout', %(left_ms)s::text, true)", {"left_ms": left_ms}
            )

    def ended(self, error: QueryFailed) -> bool:
        """Tell whether it was the bound that ended a statement."""
        at_hand = self.until is not None and time.monotonic() >= self.until - _CLOCKS_S
        return error.sqlstate == _CANCELED and at_hand
