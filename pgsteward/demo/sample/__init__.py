"""IntoWork, a job board: a sample database with its own Alembic history and plants for a night to find."""

from __future__ import annotations

from pgsteward.demo.sample.generator import Seeded, seed
from pgsteward.demo.sample.planted import PLANTED, REQUIRED_INDEXES, TABLES, Planted

__all__ = ["PLANTED", "REQUIRED_INDEXES", "TABLES", "Planted", "Seeded", "seed"]
