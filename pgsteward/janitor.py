"""Remove what dead runs left behind, and nothing else.

Touched is only what carries our own mark, and only when the run that made it is dead: its advisory lock is
free. Where no such lock can be seen, because the database was replaced since or the run was connected to
another server of the cluster, only what has not changed for `orphan_days` is touched. Databases that restores
have replaced carry a mark too, and are dropped once they are old (`keep_replaced_days`); so are tables of
backups beside live ones (`keep_side_tables_days`). Unfinished backups and uploads belong to the runs that
hold the ``backup`` lock, and the janitor holds it while it works; databases of unfinished restores and
invalid indexes have locks of their own.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from pgsteward import results
from pgsteward.audit.create import drop_leftovers as drop_unfinished_indexes
from pgsteward.backup.home import spool_store
from pgsteward.backup.listing import is_there
from pgsteward.backup.manifest import BACKUP_ID, MANIFEST, MARK, backup_prefix, catalog_prefix
from pgsteward.backup.marks import made_elsewhere
from pgsteward.errors import StewardError, StoreFailed, StoreUnavailable
from pgsteward.leftovers import drop_leftovers as drop_leftover_indexes
from pgsteward.postgres import Row
from pgsteward.postgres_lock import operation_lock
from pgsteward.restore import side
from pgsteward.restore.replaced import drop_old
from pgsteward.restore.scratch import Dropped
from pgsteward.restore.scratch import drop_leftovers as drop_leftover_databases
from pgsteward.restore.throwaway import remove_dead_servers
from pgsteward.results import Item, Note, StepResult
from pgsteward.spool import clear_roots, remove_dead
from pgsteward.sql import load
from pgsteward.storage import Store, StoredObject, selftest
from pgsteward.targets import Target

_LONGEST_PUT = timedelta(days=1)
"""No receipt takes so long to write, whatever the clocks of two machines say."""


@dataclass(slots=True)
class _Tally:
    """What was found while looking around."""

    examined: int = 0
    changed: list[Item] = field(default_factory=list)
    skipped: list[Note] = field(default_factory=list)
    unknown: list[Note] = field(default_factory=list)
    failed: list[Note] = field(default_factory=list)


def clean_up(target: Target, *, dry_run: bool = False) -> StepResult:
    """Remove partial backups, open multipart uploads, unfinished restores and invalid indexes of dead runs.

    Args:
        target: Where to look: its stores, its server, its database.
        dry_run: Say what would be removed.

    Raises:
        PreconditionError: Another run works on the backups: what looks left behind may be its own.
    """
    began = time.monotonic()
    tally = _Tally()
    with operation_lock(target.login("backup"), "backup") as session:
        owner, node = session.row(load("whose_mark")), session.row(load("whose_node"))
        stores = target.stores()
        if (spool := spool_store(target)) is not None:
            stores = [*stores, spool]
        for store in stores:
            try:
                _clean_store(target, store, owner, node, dry_run, tally)
                tally.examined += 1
            except (StoreUnavailable, StoreFailed) as exc:
                tally.unknown.append(Note(f"store {store.name}", f"could not be looked at: {exc}"))
    roots = clear_roots(target.settings.backup)
    for folder in [folder for root in roots for folder in remove_dead(root, dry_run=dry_run)]:
        facts = {"what": "clear files of a dead backup"}
        tally.changed.append(Item(str(folder), "would remove" if dry_run else "removed", facts))
    removed, left = remove_dead_servers(dry_run=dry_run)
    tally.skipped += left
    for folder in removed:
        facts = {"what": "server of a dead drill"}
        tally.changed.append(Item(str(folder), "would remove" if dry_run else "removed", facts))
    _clean_server(target, dry_run, tally)
    return StepResult(
        step="janitor",
        target=target.name,
        status=results.judge(
            examined=tally.examined, failed=tally.failed, unknown=tally.unknown, changed=tally.changed
        ),
        examined=tally.examined,
        changed=tuple(tally.changed),
        skipped=tuple(tally.skipped),
        unknown=tuple(tally.unknown),
        failed=tuple(tally.failed),
        seconds=time.monotonic() - began,
        summary=_summary(tally, dry_run),
        dry_run=dry_run,
    )


def _clean_store(target: Target, store: Store, owner: Row, node: Row, dry_run: bool, tally: _Tally) -> None:
    seen: dict[str, bool] = {}
    catalog = catalog_prefix(target.name, target.database)
    for folder in store.folders(catalog):
        if BACKUP_ID.fullmatch(folder):
            tally.examined += 1
            seen[folder] = _clean_folder(target, store, folder, owner, node, dry_run, tally)

    def is_anothers(key: str, begun_at: datetime) -> bool:
        """Tell whether a run that has no lock here may be at work on an upload."""
        folder = key.removeprefix(catalog).partition("/")[0]
        if not BACKUP_ID.fullmatch(folder):  # a receipt, for which nobody holds a lock
            return datetime.now(UTC) - begun_at < _LONGEST_PUT
        if folder in seen:
            return not seen[folder]
        return is_there(store, f"{catalog}{folder}/{MARK}")  # begun since by a run on another server

    for name in selftest.remove_dead(store, f"{target.name}/", datetime.now(UTC), dry_run=dry_run):
        facts = {"what": "objects of a store's self-test"}
        tally.changed.append(Item(f"{name} in {store.name}", "would remove" if dry_run else "removed", facts))
    if not dry_run:  # a listing of uploads without aborting them is not part of the protocol
        for key in store.abort_uploads(catalog, is_anothers):
            tally.changed.append(Item(f"{key} in {store.name}", "aborted", {"what": "unfinished upload"}))


def _clean_folder(
    target: Target, store: Store, backup_id: str, owner: Row, node: Row, dry_run: bool, tally: _Tally
) -> bool:
    """Remove what is left of a dead run; False where the run may be alive."""
    prefix = backup_prefix(target.name, target.database, backup_id)
    name = f"{backup_id} in {store.name}"
    keys = {stored.key.removeprefix(prefix): stored for stored in store.objects(prefix)}
    if MARK not in keys:
        if MANIFEST not in keys:
            tally.skipped.append(Note(name, "neither a backup nor marked as ours; remove it by hand"))
        return True
    try:
        mark = json.loads(store.get_bytes(prefix + MARK))
    except (ValueError, FileNotFoundError):
        mark = None
    foreign = _not_ours_yet(target, store, mark if isinstance(mark, dict) else {}, owner, node, keys.values())
    if foreign:
        tally.skipped.append(Note(name, foreign))
        return False
    if MANIFEST in keys or is_there(store, prefix + MANIFEST):  # killed between the two: it is whole
        if not dry_run:
            store.delete(prefix + MARK)
        tally.changed.append(Item(name, "would unmark" if dry_run else "unmarked"))
        return True
    facts = {"files": len(keys) - 1, "bytes": sum(stored.size_bytes for stored in keys.values())}
    if not dry_run:
        for key in sorted(keys):
            if key != MARK:
                store.delete(prefix + key)
        store.delete(prefix + MARK)  # last: what a kill leaves of this is still marked
        left = store.local_folder(prefix)
        if left is not None and left.is_dir():
            # partial files and empty folders, which are no objects; NFS keeps what somebody still reads
            shutil.rmtree(left, ignore_errors=True)
    tally.changed.append(Item(name, "would remove" if dry_run else "removed", facts))
    return True


def _not_ours_yet(
    target: Target,
    store: Store,
    mark: Mapping[str, Any],
    owner: Row,
    node: Row,
    objects: Iterable[StoredObject],
) -> str:
    """Say why remains stay whose run may be alive, or that are not of this database; "" when they may go.

    A restore that replaced the database has changed its OID, an upgrade its cluster, and a run on a standby
    has its lock there: then no lock tells whether the run is dead, and only remains that nobody has touched
    for days are taken for dead.
    """
    if all(mark.get(key) == value for key, value in owner.items()):
        if not made_elsewhere(mark, node):
            return ""
        what = "made from another server of this cluster, whose locks are not to be seen here"
        return _not_old_enough(target, store, what, objects)
    clusters = (owner["system_identifier"], *target.settings.previous_clusters)
    if mark.get("system_identifier") not in clusters or mark.get("database") != owner["database"]:
        return "unfinished, but its mark names another server or database"
    return _not_old_enough(target, store, "of this database before it was replaced", objects)


def _not_old_enough(target: Target, store: Store, what: str, objects: Iterable[StoredObject]) -> str:
    days = target.settings.retention_in(store.name).orphan_days
    left_at = max(stored.modified_at for stored in objects) + timedelta(days=days)
    if left_at > datetime.now(UTC):
        return f"unfinished, {what}: removed after {left_at:%Y-%m-%d %H:%M} UTC (orphan_days = {days})"
    return ""


def _clean_server(target: Target, dry_run: bool, tally: _Tally) -> None:
    for what, drop in (
        ("databases of unfinished restores", _drop_unfinished),
        ("databases that restores have replaced", drop_old),
        ("tables of backups beside live ones", side.drop_old),
    ):
        try:
            dropped = drop(target, dry_run=dry_run)
        except StewardError as exc:
            tally.unknown.append(Note(what, str(exc)))
        else:
            tally.examined += dropped.examined
            tally.changed += dropped.changed
            tally.skipped += dropped.skipped
            tally.failed += dropped.failed
    for drop_indexes in (drop_leftover_indexes, drop_unfinished_indexes):
        try:
            items, notes = drop_indexes(target, dry_run=dry_run)
        except StewardError as exc:
            tally.unknown.append(Note("invalid indexes", str(exc)))
        else:
            tally.examined += 1
            tally.changed += items
            for note in notes:
                foreign = "not known to be ours" in note.reason
                (tally.skipped if foreign else tally.unknown).append(note)


def _drop_unfinished(target: Target, *, dry_run: bool) -> Dropped:
    return drop_leftover_databases(target.login("restore"), dry_run=dry_run)


def _summary(tally: _Tally, dry_run: bool) -> str:
    if not tally.changed:
        return f"Nothing was left behind ({tally.examined} places looked at)"
    verb = "Would clear away" if dry_run else "Cleared away"
    things = len(tally.changed)
    return f"{verb} {things} thing{'s' * (things != 1)} that dead runs left behind"
