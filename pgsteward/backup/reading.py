"""Many small objects of a store: a remote one is asked for several at the same time."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from pgsteward.storage import Store

AT_ONCE = 8


def contents(store: Store, keys: Sequence[str]) -> list[bytes]:
    """Return what some objects hold, in the order of the keys; the first error ends it.

    Args:
        store: Where they are; a folder of this machine is read one after the other.
        keys: Of the objects.

    Raises:
        FileNotFoundError: One is not there.
    """
    if store.local_folder("") is not None or len(keys) < 2:
        return [store.get_bytes(key) for key in keys]
    with ThreadPoolExecutor(min(AT_ONCE, len(keys)), "read") as pool:
        asked = [pool.submit(store.get_bytes, key) for key in keys]
        try:
            return [each.result() for each in asked]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
