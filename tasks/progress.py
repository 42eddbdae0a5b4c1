"""Progress of long work, shown on the run's page: a bar where the total is known, and a line in the log.

The work calls back often and must never wait for the Prefect server: a thread passes on the latest word.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from pgsteward.progress import Progress

log = logging.getLogger("pgsteward.progress")

ARTIFACT_EVERY_S = 2.0
LOG_EVERY_S = 30.0


@dataclass(slots=True)
class _Latest:
    what: str = ""
    done: int = 0
    total: int = 0
    news: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)

    def __call__(self, what: str, done: int = 0, total: int = 0) -> None:
        self.what, self.done, self.total = what, done, total
        self.news.set()


@contextlib.contextmanager
def shown_progress(step: str, target: str) -> Iterator[Progress]:
    """Yield what the work calls; what it says appears in the run's log and as a progress artifact.

    Args:
        step: Name of the step.
        target: Name of the target.
    """
    latest = _Latest()
    run_in_context = contextvars.copy_context().run  # the artifact and the log lines belong to this task run
    thread = threading.Thread(
        target=lambda: run_in_context(_pass_on, latest, f"progress-{step}-{target}".replace("_", "-")),
        name=f"progress of {step}",
        daemon=True,
    )
    thread.start()
    try:
        yield latest
    finally:
        latest.over.set()
        latest.news.set()
        thread.join(timeout=ARTIFACT_EVERY_S)


def _pass_on(latest: _Latest, key: str) -> None:
    artifact: UUID | None = None
    logged = ("", 0.0)
    while True:
        latest.news.wait()
        latest.news.clear()
        what, done, total = latest.what, latest.done, latest.total
        if (
            what
            and (what != logged[0] or latest.over.is_set())
            and time.monotonic() - logged[1] > LOG_EVERY_S
        ):
            log.info("%s (%d of %d)" if total else "%s", *((what, done, total) if total else (what,)))
            logged = (what, time.monotonic())
        if total > 0:
            percent = min(100.0, 100.0 * done / total)
            with contextlib.suppress(Exception):  # a bar that is not drawn must never end a backup
                artifact = _draw(artifact, key, what, percent)
        if latest.over.is_set():
            return
        latest.over.wait(ARTIFACT_EVERY_S)


def _draw(artifact: UUID | None, key: str, what: str, percent: float) -> UUID:
    if artifact is None:
        return cast("UUID", create_progress_artifact(progress=percent, key=key, description=what))
    update_progress_artifact(artifact_id=artifact, progress=percent, description=what)
    return artifact
