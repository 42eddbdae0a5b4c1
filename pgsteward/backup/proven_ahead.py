"""What was read back from a store while the dump still ran: remembered in this process, for the upload."""

from __future__ import annotations

import hashlib
import threading

from pgsteward.storage import Store

_lock = threading.Lock()
_read: dict[tuple[str, str], tuple[int, str]] = {}


def read_back(store: Store, key: str) -> None:
    """Read an object that was just put, and remember its size and SHA-256."""
    digest = hashlib.sha256()
    size = 0
    for chunk in store.read(key):
        digest.update(chunk)
        size += len(chunk)
    with _lock:
        _read[store.location, key] = size, digest.hexdigest()


def take(store: Store, key: str) -> tuple[int, str] | None:
    """Return, once, what was read back; None where nothing was."""
    with _lock:
        return _read.pop((store.location, key), None)


def forget(store: Store, prefix: str) -> None:
    """Forget all keys below a prefix: the backup was given up."""
    with _lock:
        for known in [known for known in _read if known[0] == store.location and known[1].startswith(prefix)]:
            del _read[known]
