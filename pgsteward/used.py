"""What a run over several databases has used of the limits that they share: one server, one disk, one WAL."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(slots=True)
class Used:
    """Grows from database to database.

    Attributes:
        since: When the run began; a dry run moves it back by what it foresees.
        wal_bytes: WAL that rebuilds have written.
    """

    since: datetime
    wal_bytes: int = 0
