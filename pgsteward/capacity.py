"""What a server and this machine have room for: sessions, processors, bytes on a file system."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pgsteward.postgres import Connection
from pgsteward.sql import load

MAX_JOBS = 8
"""More workers than this are only started where the configuration says so."""


def free_connections(session: Connection, *, here: bool = True) -> int:
    """Return how many more sessions the session's role can open.

    Args:
        session: Whose role and server.
        here: In its database, whose own limit counts as well; otherwise in others of its server.
    """
    return int(session.value(load("connection_room"), {"here": here}))


def usable_processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0))


def jobs_that_fit(free: int, beside: int = 0) -> int:
    """Return how many workers take no more than half of the free connections; at least one.

    Args:
        free: What `free_connections` returned.
        beside: Sessions that the operation opens besides its workers.
    """
    return max(1, free // 2 - beside)


def choose_jobs(free: int, beside: int = 0) -> int:
    """Return how many workers to start where nobody has said so; see `jobs_that_fit` for the arguments."""
    return min(usable_processors(), MAX_JOBS, jobs_that_fit(free, beside))


def free_bytes(folder: Path) -> tuple[int, Path]:
    """Return how much the file system of a folder has free for us, and the folder that could be asked.

    Args:
        folder: It, or the nearest of its parents that exists, is asked.
    """
    there = next(place for place in (folder, *folder.parents) if place.exists())
    return shutil.disk_usage(there).free, there
