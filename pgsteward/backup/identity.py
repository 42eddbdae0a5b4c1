"""Whether a store is still the place that backups went to, and whether two stores are two places.

A folder whose disk is not mounted is an empty folder, which looks like a store that never had a backup. So
each target keeps a small file with a random name in each of its stores, and this machine's state folder
remembers the name. Where that state is lost, no store is suspected, and what is there is remembered after the
next backup.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import secrets
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from pgsteward.config_stores import endpoint_in_environment
from pgsteward.errors import ConfigError, StoreFailed, StoreUnavailable
from pgsteward.places import state_folder
from pgsteward.results import Item, StepResult
from pgsteward.storage import Store, selftest
from pgsteward.targets import Target

log = logging.getLogger(__name__)

STEP = "accept-store"
FOLDER = ".pgsteward-store"
"""Below a target's folder; no database's backups lie there."""
_FILE = "identity.json"


def identify(target: Target, store: Store) -> str | None:
    """Return the name that a store bears; None where it has none yet, as before its first backup.

    Raises:
        StoreFailed: It is not the one that this machine knows; the text says what to do.
        StoreUnavailable: It can't be asked now.
    """
    if store.name not in target.settings.stores:  # the spool lies beside what is remembered
        return None
    seen, known = _read(target, store), _known(target, store.name)
    if known is None or seen == known:
        return seen
    what = "lacks the file" if seen is None else "has another file"
    raise StoreFailed(
        f"store {store.name!r} ({store.location}) is not the one that backups of {target.name!r} went to: it"
        f" {what} {_key(target)} by which it was known. Mount its disk, or bring back what was moved; if it"
        f" shall be used as it is: pgsteward accept-store {target.name} {store.name}"
    )


def refuse_twin(target: Target, store: Store) -> None:
    """Make sure that a store is the known one, and another place than each other store of the target.

    A copy of a store bears the same name; it gets one of its own.

    Raises:
        StoreFailed: It is not; the text says what to do.
        StoreUnavailable: One of them can't be asked now.
    """
    seen = identify(target, store)
    for name in target.settings.stores:
        if seen is None or name == store.name or _known(target, name) != seen:
            continue
        if is_same_place(target, target.store(name), store):
            raise StoreFailed(
                f"store {store.name!r} ({store.location}) is the same place as store {name!r}: a backup in"
                f" both is there only once; take one of them out of targets.{target.name}.stores"
            )
        store.delete(_key(target))
        _name_it(target, store)


def is_same_place(target: Target, one: Store, other: Store) -> bool:
    """Tell whether what is put into one store is there in the other; it is removed again."""
    folders = [store.local_folder("") for store in (one, other)]
    if any(folder is not None and not folder.is_dir() for folder in folders):  # none is made for this
        return False
    key = f"{selftest.new_prefix(f'{target.name}/', datetime.now(UTC))}place"
    data = secrets.token_bytes(32)
    try:
        one.put_bytes(key, data, passing=True)
        return other.get_bytes(key) == data
    except FileNotFoundError:
        return False
    finally:
        one.delete(key)


def remember(target: Target, store: Store) -> None:
    """Remember a store that has just taken a backup; it gets a name where it has none."""
    if store.name not in target.settings.stores or _known(target, store.name) is not None:
        return
    try:
        _learn(target, store)
    except (StoreFailed, StoreUnavailable) as exc:
        log.warning("the next run can't tell whether store %s is still the same: %s", store.name, exc)


def _learn(target: Target, store: Store) -> None:
    with _alone():
        seen = _read(target, store)
        if seen is None:
            _name_it(target, store)
        else:
            _keep(target, store.name, seen)


def accept(target: Target, store_name: str | None = None) -> StepResult:
    """Take a store as it is from now on: an empty one in the place of one that is gone, or another disk.

    Args:
        target: Whose store.
        store_name: Its name in the configuration; None where the target has only one.

    Raises:
        ConfigError: The target has no such store, or several, and it is not said which.
        StoreFailed: It refuses.
        StoreUnavailable: May heal.
    """
    began = time.monotonic()
    names = target.settings.stores
    if store_name is None and len(names) > 1:
        raise ConfigError(f"target {target.name!r} has several stores; say which: {', '.join(names)}")
    store = target.store(store_name or names[0])
    _learn(target, store)
    return StepResult(
        step=STEP,
        target=target.name,
        status="ok",
        examined=1,
        changed=(Item(store.name, "accepted", {"location": store.location}),),
        summary=f"Store {store.name} ({store.location}) is known as it is now",
        seconds=time.monotonic() - began,
    )


def _key(target: Target) -> str:
    return f"{target.name}/{FOLDER}/{_FILE}"


def _read(target: Target, store: Store) -> str | None:
    """Return the name that a store bears; what can't be read as one is a name that nobody knows."""
    try:
        data = store.get_bytes(_key(target))
    except FileNotFoundError:
        return None
    try:
        return str(json.loads(data)["name"])
    except (ValueError, KeyError, TypeError):
        return ""


def _name_it(target: Target, store: Store) -> None:
    """Give a store a name, and remember the one that it has: another machine may have been first."""
    what = f"pgsteward knows this store of target {target.name} by it; leave it here"
    data = json.dumps({"name": secrets.token_hex(16), "what": what}, indent=1).encode() + b"\n"
    store.put_new(_key(target), data)
    seen = _read(target, store)
    if seen is not None:
        _keep(target, store.name, seen)


def _known(target: Target, store_name: str) -> str | None:
    try:
        return str(json.loads(_remembered(target, store_name).read_bytes())["name"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _keep(target: Target, store_name: str, name: str) -> None:
    """Remember a name; a machine that can't will suspect nothing."""
    file = _remembered(target, store_name)
    with contextlib.suppress(OSError):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
        partial.write_text(json.dumps({"name": name, "target": target.name, "store": store_name}, indent=1))
        partial.replace(file)


def _remembered(target: Target, store_name: str) -> Path:
    """Return where the name is kept of the store that is configured so: another URL is another store."""
    config = target.config.stores[store_name]
    where = [target.name, config.url, config.endpoint_url or "", endpoint_in_environment()]
    digest = hashlib.sha256(json.dumps(where).encode()).hexdigest()[:16]
    return state_folder() / "stores" / f"identity-{digest}.json"


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Let one process of this machine at a time name a store: databases are backed up side by side."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):
            folder = state_folder() / "stores"
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            fcntl.flock(held.enter_context((folder / "identity.lock").open("wb")), fcntl.LOCK_EX)
        yield
