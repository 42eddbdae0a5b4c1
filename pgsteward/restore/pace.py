"""Settings of the sessions that load, from the size of the server; its own settings stay as they are."""

from __future__ import annotations

from collections.abc import Mapping

from pgsteward import sql
from pgsteward.capacity import usable_processors
from pgsteward.postgres import Connection

MOST_BYTES = 1024**3
"""More memory makes no sort of an index faster that needs one pass already."""


def choose(session: Connection, jobs: int) -> Mapping[str, str]:
    """Return run-time settings that any role may give its own sessions.

    - ``maintenance_work_mem``: all sessions together take at most half as much as ``shared_buffers``, which
      an administrator sets by the machine's memory; one never takes less than the server's own setting.
    - ``max_parallel_maintenance_workers``: none where as many sessions load as there are processors. A
      worker writes its part of a sort into a file; a session alone sorts in memory.
    - ``synchronous_commit``: off, as nobody needs a half-loaded database after a crash. The rename that
      publishes it waits for all that was written before.

    Args:
        session: To the server, with the settings of the role that loads.
        jobs: Sessions that load at the same time.
    """
    server = session.row(sql.load("restore_pace"))
    share = min(MOST_BYTES, server["shared_buffers_bytes"] // 2 // jobs)
    chosen = {"synchronous_commit": "off"}
    if share > server["sort_bytes"]:
        chosen["maintenance_work_mem"] = f"{share // 1024}kB"
    if server["same_machine"] and jobs >= usable_processors() and server["parallel_workers"] > 0:
        chosen["max_parallel_maintenance_workers"] = "0"
    return chosen
