"""A dump and a build of ours know of each other.

A concurrent build waits for every snapshot of its database, so one that runs when a dump begins would wait
for the whole dump. The dump lets it finish first; and no build is started from then on until it is over.

Each says that it comes before it looks for the other, by an advisory lock of its session, so that of two that
start at the same moment at least one sees the other. Where both do, the build steps back.
"""

from __future__ import annotations

import logging
import time

from pgsteward.postgres import Connection
from pgsteward.postgres_lock import holders_of, release, try_lock
from pgsteward.progress import Progress
from pgsteward.relations import name_holders

log = logging.getLogger(__name__)

DUMP = "announced dump"
_BUILD = "announced build"
_LOOK_S = 0.5


def let_builds_finish(session: Connection, max_wait_s: float, progress: Progress) -> tuple[str, ...]:
    """Announce a dump, and wait before it until no build of ours runs in its database.

    Args:
        session: Of the run that is about to dump; it says `dump_is_over` later, or ends.
        max_wait_s: The backup matters more: after this time it goes ahead.
        progress: Told for whom it waits.

    Returns:
        A warning, where a build goes on beside the dump.
    """
    try_lock(session, DUMP, shared=True)
    deadline = time.monotonic() + max_wait_s
    while running := holders_of(session, _BUILD):
        who = name_holders(running)
        if time.monotonic() >= deadline:
            warning = f"an index is built beside this dump and will wait for its end: {who}"
            log.warning("%s", warning)
            return (warning,)
        progress(f"waiting for the end of an index build: {who}")
        time.sleep(_LOOK_S)
    return ()


def dump_is_over(session: Connection) -> None:
    """Let builds start again: no snapshot of the dump is needed any more."""
    release(session, DUMP)


def may_build(work: Connection) -> bool:
    """Announce a build, for as long as its session lives; False where a dump was announced before.

    Args:
        work: The session that is about to build; to be closed where it may not.
    """
    try_lock(work, _BUILD, shared=True)
    return not holders_of(work, DUMP)
