"""The last request of an upload in parts: the store puts them together, and may be silent for long meanwhile.

Where its answer is lost, or is that of a request that was repeated while the first one was still at work, the
object itself says whether it has been made.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from botocore import exceptions as boto

from pgsteward.errors import StewardError
from pgsteward.storage.s3_errors import CONNECTION_ERRORS, code_of, status_of
from pgsteward.storage.s3_stream import composite

_JOINED_BYTES_PER_S = 16 << 20
"""What a slow store puts together: one that copies all parts, on a disk of its own."""
_AGAIN_S = 5.0
_GONE = frozenset({"InvalidPart", "NoSuchUpload"})
"""What a store says of parts that it is putting together, or has put together."""
_BUSY = frozenset({408, 429})
_NEVER_SENT = (
    boto.EndpointConnectionError,
    boto.ConnectTimeoutError,
    boto.ProxyConnectionError,
    boto.SSLError,
)
_CLOCK = timedelta(seconds=1)
"""Last-Modified knows no fractions."""

Head = Callable[[], dict[str, Any] | None]


def patience_s(size_bytes: int, timeout_s: float) -> float:
    """Return how long a store may take to put an object of this size together."""
    return max(timeout_s, size_bytes / _JOINED_BYTES_PER_S)


def begun_at(answer: dict[str, Any]) -> datetime | None:
    """Return when an upload was begun, by the store's own clock; None where it does not tell the time."""
    said = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    with suppress(TypeError, ValueError):
        return parsedate_to_datetime(said)
    return None


def complete(
    ask: Callable[[], object],
    head: Head,
    parts: list[dict[str, Any]],
    size_bytes: int,
    begun: datetime | None,
    look_s: float,
    tries: int = 1,
) -> None:
    """Ask for the parts to be put together, and make sure of it where the answer leaves that open.

    Args:
        ask: Sends the request.
        head: Asks for the object as it is now; None where there is none.
        parts: What the request says of the parts.
        size_bytes: Of the object.
        begun: What `begun_at` returned.
        look_s: How long to look for the object where a first request may still be at work.
        tries: How often it is sent where the store is too busy to take it.

    Raises:
        ClientError: The store refuses, and there is no object.
        BotoCoreError: The answer was lost, and there is no object.
    """
    for left in reversed(range(tries)):
        error, at_work = _trouble(ask)
        if error is None:
            return
        until = time.monotonic() + (look_s if at_work else 0)
        for pause_s in _pauses():
            if _is_made(head, parts, size_bytes, begun):
                return
            if time.monotonic() >= until:
                break
            time.sleep(min(pause_s, max(0.0, until - time.monotonic())))
        if at_work or not left:
            raise error
        time.sleep(_AGAIN_S)


def _trouble(ask: Callable[[], object]) -> tuple[Exception | None, bool]:
    """Send the request; return what went wrong, and whether it, or one before it, may be at work still."""
    try:
        ask()
    except boto.ClientError as exc:
        if code_of(exc) not in _GONE and status_of(exc) not in _BUSY and status_of(exc) < 500:
            raise
        repeated = exc.response.get("ResponseMetadata", {}).get("RetryAttempts", 0) > 0
        return exc, repeated and code_of(exc) in _GONE
    except CONNECTION_ERRORS as exc:
        return exc, not isinstance(exc, _NEVER_SENT)
    return None, False


def _pauses() -> Iterator[float]:
    return (min(5.0, 0.2 * 2**number) for number in itertools.count())


def _is_made(head: Head, parts: list[dict[str, Any]], size_bytes: int, begun: datetime | None) -> bool:
    """Tell whether the object is there as it was sent: by its checksum, else by its size and age."""
    try:
        there = head()
    except StewardError:
        return False
    if there is None or there.get("ContentLength") != size_bytes:
        return False
    if there.get("ChecksumSHA256") and all("ChecksumSHA256" in part for part in parts):
        return bool(there["ChecksumSHA256"] == composite([part["ChecksumSHA256"] for part in parts]))
    return begun is None or there["LastModified"] >= begun - _CLOCK
