"""How a database is marked that a restore has not finished: others leave it alone."""

from __future__ import annotations

MARK = "pgsteward:restore:"
"""What its comment begins with."""
