"""What went to a store while the dump still ran: remembered in this process, for the upload.

A store is known here by its name in the configuration: one URL may be there at two endpoints.
Some stores hash every object that they list, so that a listing costs as much as reading them all again.
"""

from __future__ import annotations

import hashlib
import threading

from pgsteward.storage import Store

_lock = threading.Lock()
_sent: dict[tuple[str, str], int] = {}
_read: dict[tuple[str, str], tuple[int, str]] = {}


def sent(store: Store, key: str, size_bytes: int) -> None:
    """Remember an object that was just put, whose checksum the store is to be asked for."""
    with _lock:
        _sent[store.name, key] = size_bytes


def read_back(store: Store, key: str) -> None:
    """Read an object that was just put, and remember its size and SHA-256."""
    digest = hashlib.sha256()
    size = 0
    for chunk in store.read(key):
        digest.update(chunk)
        size += len(chunk)
    with _lock:
        _sent[store.name, key] = size
        _read[store.name, key] = size, digest.hexdigest()


def take_sizes(store: Store, prefix: str) -> dict[str, int]:
    """Return, once, what was sent below a prefix: bytes by path below it; empty where nothing was."""
    with _lock:
        known = [key for name, key in _sent if name == store.name and key.startswith(prefix)]
        return {key.removeprefix(prefix): _sent.pop((store.name, key)) for key in known}


def take(store: Store, key: str) -> tuple[int, str] | None:
    """Return, once, what was read back; None where nothing was."""
    with _lock:
        return _read.pop((store.name, key), None)


def forget(store: Store, prefix: str) -> None:
    """Forget all keys below a prefix: the backup was given up."""
    with _lock:
        for known in (_sent, _read):
            for each in [each for each in known if each[0] == store.name and each[1].startswith(prefix)]:
                del known[each]
