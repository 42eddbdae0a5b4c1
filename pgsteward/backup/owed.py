"""Which copies a store still lacks, because it was down or an upload broke off: the next upload makes them.

This machine's state folder remembers it, so that a store never gets back what it has pruned, nor a new one
what is older than it. Where that state is lost, the next upload brings the newest backup alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path

from pgsteward.backup.manifest import BACKUP_ID, catalog_prefix
from pgsteward.places import state_folder
from pgsteward.targets import Target


def begin(target: Target, store: str, backup_id: str) -> None:
    """Note down that a store is to get a copy of a backup."""
    owed = read(target)
    _write(target, {**owed, store: {*owed.get(store, ()), backup_id}})


def settle(target: Target, store: str, backup_id: str) -> None:
    """Strike a copy out: the store has it, or nobody can make it any more."""
    owed = read(target)
    _write(target, {**owed, store: owed.get(store, frozenset()) - {backup_id}})


def read(target: Target) -> dict[str, frozenset[str]]:
    """Return the ids of the backups that the stores of a target lack, by store."""
    try:
        noted = json.loads(_file(target).read_bytes())
        return {
            store: frozenset(each for each in noted.get(store, ()) if BACKUP_ID.fullmatch(each))
            for store in target.settings.stores
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _write(target: Target, owed: dict[str, frozenset[str] | set[str]]) -> None:
    file = _file(target)
    noted = {store: sorted(ids) for store, ids in owed.items() if ids}
    with contextlib.suppress(OSError):
        if not noted:
            file.unlink(missing_ok=True)
            return
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = file.with_suffix(".new")
        partial.write_text(json.dumps(noted, indent=1))
        partial.replace(file)


def _file(target: Target) -> Path:
    digest = hashlib.sha256(catalog_prefix(target.name, target.database).encode()).hexdigest()[:16]
    return state_folder() / "owed" / f"{digest}.json"
