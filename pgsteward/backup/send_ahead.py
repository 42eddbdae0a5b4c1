"""Files of a backup go up while the dump still writes the next ones: each as soon as it is closed.

Nothing depends on it: the upload that follows proves every file that is there, sends what is missing,
and puts the manifest last. An error here ends the sending ahead to that store, never the dump.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pgsteward.backup import proven_ahead
from pgsteward.backup.closed_files import ClosedFiles
from pgsteward.backup.copying import upload_jobs
from pgsteward.backup.home import discard_objects
from pgsteward.backup.manifest import DUMP, MARK
from pgsteward.backup.plan import Plan
from pgsteward.backup.trust import trusted
from pgsteward.errors import StewardError
from pgsteward.storage import Store
from pgsteward.storage.briefly import briefly
from pgsteward.targets import Target

log = logging.getLogger(__name__)

_POLL_S = 0.05
_LEAVE_S = 2.0
"""How long files on their way are waited for when the run is told to stop."""
_LONG_S = 60.0
"""The same when the dump failed."""


@dataclass(slots=True)
class Sent:
    """What has gone up: bytes by store."""

    bytes_by_store: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Lane:
    """One store, and what waits for it; the mark comes before anything else there."""

    store: Store
    marked: threading.Event = field(default_factory=threading.Event)
    waiting: queue.Queue[Path] = field(default_factory=queue.Queue)
    threads: list[threading.Thread] = field(default_factory=list)
    broken: StewardError | None = None


@contextlib.contextmanager
def sending_ahead(plan: Plan | None, prefix: str, owner: bytes) -> Iterator[Sent]:
    """Send what is finished of a dump to the other stores while the block runs.

    No store is asked anything before the block begins: one that hangs does not hold up the dump.
    After an error in the block nothing of it stays there; what a kill leaves is marked, and the janitor's.

    Args:
        plan: Of the backup; None sends nothing.
        prefix: Of its keys.
        owner: The mark that says whose it is.
    """
    sent = Sent()
    folder = plan.home.local_folder(prefix) if plan is not None else None
    lanes = [] if plan is None or folder is None else _lanes(plan)
    if plan is None or folder is None or not lanes:
        yield sent
        return
    stop = threading.Event()
    try:
        watch = ClosedFiles(folder / DUMP)
    except OSError as exc:
        log.info("nothing is sent ahead: %s", exc)
        yield sent
        return
    watcher = threading.Thread(target=_watch, args=(watch, lanes, stop), name="closed files", daemon=True)
    for lane in lanes:
        sent.bytes_by_store[lane.store.name] = 0
        marking = (lane, plan.target, prefix + MARK, owner, stop)
        lane.threads.append(threading.Thread(target=_mark, args=marking, name="mark", daemon=True))
        for _ in range(upload_jobs(plan.target, lane.store)):
            args = (lane, folder, prefix, stop, sent)
            lane.threads.append(threading.Thread(target=_send, args=args, name="send ahead", daemon=True))
    for thread in (watcher, *(thread for lane in lanes for thread in lane.threads)):
        thread.start()
    try:
        yield sent
    except BaseException as exc:
        stop.set()
        told_to_stop = not isinstance(exc, Exception)
        deadline = time.monotonic() + (_LEAVE_S if told_to_stop else _LONG_S)
        for lane in lanes:
            for thread in lane.threads:
                thread.join(max(0.0, deadline - time.monotonic()))
            proven_ahead.forget(lane.store, prefix)
            if lane.marked.is_set() and not any(thread.is_alive() for thread in lane.threads):
                # else its mark stays, for the janitor
                discard = functools.partial(discard_objects, lane.store, prefix)
                if told_to_stop:
                    briefly(discard)
                else:
                    with contextlib.suppress(StewardError, OSError):
                        discard()
        raise
    finally:
        stop.set()
        watch.wake()
        watcher.join()
        watch.close()
    for lane in lanes:
        for thread in lane.threads:
            thread.join()
        if lane.broken is not None:
            log.warning("store %s gets later what is missing there: %s", lane.store.name, lane.broken)


def _lanes(plan: Plan) -> list[_Lane]:
    return [_Lane(store) for store in plan.target.stores() if store.name != plan.home.name]


def _mark(lane: _Lane, target: Target, key: str, owner: bytes, stop: threading.Event) -> None:
    """See that a store can be relied on, and say there whose all of it is."""
    try:
        lane.store = trusted(target, lane.store)
        if stop.is_set():
            return
        lane.store.put_bytes(key, owner, passing=True)
    except StewardError as exc:
        lane.broken = exc
    else:
        lane.marked.set()


def _watch(watch: ClosedFiles, lanes: list[_Lane], stop: threading.Event) -> None:
    told: set[Path] = set()
    while not stop.is_set():
        for path in watch.wait():
            if path not in told:  # what is written once more is sent by the upload
                told.add(path)
                for lane in lanes:
                    lane.waiting.put(path)


def _send(lane: _Lane, folder: Path, prefix: str, stop: threading.Event, sent: Sent) -> None:
    while not stop.is_set() and lane.broken is None:
        if not lane.marked.wait(_POLL_S):
            continue
        try:
            path = lane.waiting.get(timeout=_POLL_S)
        except queue.Empty:
            continue
        try:
            size = path.stat().st_size
            key = prefix + path.relative_to(folder).as_posix()
            lane.store.put_file(key, path)
            if lane.store.trusts_checksums:
                proven_ahead.sent(lane.store, key, size)
            else:
                proven_ahead.read_back(lane.store, key)
        except OSError as exc:  # the dump was given up, or the store lost it; the upload will tell
            log.info("%s is not sent ahead: %s", path.name, exc)
        except StewardError as exc:
            lane.broken = exc
        else:
            sent.bytes_by_store[lane.store.name] += size
