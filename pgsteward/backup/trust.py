"""A store is tried out before the first backup goes there."""

from __future__ import annotations

from pgsteward.progress import Progress, silent
from pgsteward.storage import Store, selftest
from pgsteward.targets import Target


def trusted(target: Target, store: Store, progress: Progress = silent) -> Store:
    """Return a store that may be written to, after its self-test where there is no verdict yet.

    Args:
        target: Whose backup is to go there.
        store: One of its stores; a folder needs no test.
        progress: Is told when there is one.

    Raises:
        StoreFailed: It failed the test; the text says what to do.
        StoreUnavailable: It can't be reached now.
    """
    config = target.config.stores.get(store.name)
    if config is None or config.scheme == "file" or selftest.remembered(config) is not None:
        return store
    progress(f"trying out what store {store.name} does")
    selftest.examine(store, config, f"{target.name}/").refuse_bad(store)
    return target.store(store.name)  # which knows the verdicts
