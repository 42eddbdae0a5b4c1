"""A store is looked at before a backup goes there, and tried out before the first one."""

from __future__ import annotations

from pgsteward.backup.identity import refuse_twin
from pgsteward.progress import Progress, silent
from pgsteward.storage import Store, selftest
from pgsteward.targets import Target


def trusted(target: Target, store: Store, progress: Progress = silent) -> Store:
    """Return a store that may be written to, after its self-test where there is no verdict yet.

    Args:
        target: Whose backup is to go there.
        store: One of its stores, or the spool; a folder needs no test.
        progress: Is told when there is one.

    Raises:
        StoreFailed: It failed the test, it is not the store that backups went to, or another one's
            place; the text says what to do.
        StoreUnavailable: It can't be reached now.
    """
    config = target.config.stores.get(store.name)
    if config is not None and config.scheme == "s3" and selftest.remembered(config) is None:
        progress(f"trying out what store {store.name} does")
        selftest.examine(store, config, f"{target.name}/").refuse_bad(store)
        store = target.store(store.name)  # which knows the verdicts
    refuse_twin(target, store)
    return store
