"""The parts of a file on their way to S3, two at a time: one request hardly fills a line, or a core."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from pgsteward.storage.s3_body import Body
from pgsteward.storage.s3_stream import ABORT_S, IN_FLIGHT

_POLL_S = 0.2
_LONG_S = 60.0
"""How long parts on their way are waited for after an error; when the run is cancelled, `ABORT_S`."""


def send_parts(send: Callable[[int, Body], dict[str, Any]], bodies: Iterator[Body]) -> list[dict[str, Any]]:
    """Send all parts of a file and return what became of each, in order.

    After an error those on their way are waited for: one that arrives after the abort would stay.

    Args:
        send: Sends one part, by its number counted from 1; called in threads.
        bodies: The parts.
    """
    numbered = enumerate(bodies, start=1)
    lock = threading.Lock()
    stop = threading.Event()
    entries: dict[int, dict[str, Any]] = {}
    errors: list[BaseException] = []

    def run() -> None:
        try:
            while not stop.is_set():
                with lock:
                    number, body = next(numbered, (0, None))
                if body is None:
                    return
                entries[number] = send(number, body)
        except BaseException as exc:  # noqa: BLE001 - raised again in the caller's thread
            errors.append(exc)
            stop.set()

    threads = [threading.Thread(target=run, name="part", daemon=True) for _ in range(IN_FLIGHT)]
    try:
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads) and not errors:
            for thread in threads:
                thread.join(_POLL_S)
        if errors:
            raise errors[0]
    except BaseException as exc:
        stop.set()
        deadline = time.monotonic() + (_LONG_S if isinstance(exc, Exception) else ABORT_S)
        for thread in threads:
            if thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))
        raise
    return [entry for _, entry in sorted(entries.items())]
