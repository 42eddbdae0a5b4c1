"""A dump and a rebuild of ours know of each other.

A rebuild waits for every snapshot of its database, so one that runs when a dump begins would wait for the
whole dump. The dump lets it finish first; and no other rebuild is started while a dump waits or works, as
`pgsteward.hold_ups` counts both.
"""

from __future__ import annotations

import logging
import time

from pgsteward.postgres import Connection, connect
from pgsteward.progress import Progress
from pgsteward.relations import name_holders
from pgsteward.sql import load

log = logging.getLogger(__name__)

_LOOK_S = 0.5


def let_rebuild_finish(session: Connection, max_wait_s: float, progress: Progress) -> tuple[str, ...]:
    """Wait before a dump until no rebuild of ours runs in its database.

    Args:
        session: Of the run that is about to dump.
        max_wait_s: The backup matters more: after this time it goes ahead.
        progress: Told for whom it waits.

    Returns:
        A warning, where a rebuild goes on beside the dump.
    """
    if not session.rows(load("running_rebuilds")):
        return ()
    deadline = time.monotonic() + max_wait_s
    with connect(session.pinned(), purpose="dump waits", statement_timeout_s=30) as waiting:
        while running := waiting.rows(load("running_rebuilds")):
            who = name_holders(running)
            if time.monotonic() >= deadline:
                warning = f"an index is rebuilt beside this dump and will wait for its end: {who}"
                log.warning("%s", warning)
                return (warning,)
            progress(f"waiting for the end of a rebuild: {who}")
            time.sleep(_LOOK_S)
    return ()
