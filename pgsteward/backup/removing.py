"""The removal of one backup from one store, beside other machines that may remove others there.

A machine that is connected to another server of the cluster has locks of its own, so two may prune one store
at once. Each lays its mark first and looks then whether what its decision stands on is still there and not
marked by another one: of two that would take each other's ground away, at least one sees the other's mark.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from pgsteward.backup.home import mark
from pgsteward.backup.listing import is_there
from pgsteward.backup.manifest import MANIFEST, MARK, Manifest, backup_prefix
from pgsteward.storage import Store

_REMOVES = "removes"
"""In a mark: it is there because somebody removes the backup, not because somebody makes it."""


def remove_backup(
    store: Store,
    target_name: str,
    manifest: Manifest,
    owner: Mapping[str, Any],
    objection: Callable[[], str] = str,
) -> str:
    """Delete one backup from one store: mark, manifest, files, mark; each by exact key.

    From the second step on it is no backup any more. Killed in between, the mark tells the janitor whose
    remains these are. Doing it again, or for a backup that is gone already, changes nothing.

    Args:
        store: Where from.
        target_name: Name of the target.
        manifest: The backup's own.
        owner: What `pgsteward.backup.marks.owner_of` returned: the mark names it.
        objection: Asked once the mark is there: why the backup stays, or "".

    Returns:
        Why it was not removed; "" where it was.
    """
    prefix = backup_prefix(target_name, manifest.database, manifest.backup_id)
    ours = mark({**owner, _REMOVES: True}, manifest.backup_id, manifest.started_at)
    store.put_bytes(prefix + MARK, ours, passing=True)
    why = objection()
    if not why:
        store.delete(prefix + MANIFEST)
        for file in manifest.files:
            store.delete(prefix + file.path)
        if is_there(store, prefix + MANIFEST):  # copied here by another machine meanwhile, and not whole now
            store.delete(prefix + MANIFEST)
    store.delete(prefix + MARK)
    return why


def is_going(store: Store, prefix: str) -> bool:
    """Tell whether a backup is gone, or somebody has begun to remove it.

    Args:
        store: Where it is.
        prefix: Of its keys.
    """
    try:
        said = json.loads(store.get_bytes(prefix + MARK))
    except FileNotFoundError:
        said = None
    except ValueError:
        said = {_REMOVES: True}  # it may say so
    if isinstance(said, dict) and said.get(_REMOVES):
        return True
    return not is_there(store, prefix + MANIFEST)
