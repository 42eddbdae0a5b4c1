"""Find the backup that somebody means, in the stores of a target."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from pgsteward.backup.catalog import but_others
from pgsteward.backup.home import spool_store
from pgsteward.backup.identity import identify
from pgsteward.backup.listing import list_manifests, read_manifest
from pgsteward.backup.manifest import Manifest, backup_prefix
from pgsteward.backup.newest import ahead, order
from pgsteward.backup.receipts import proven, read_receipts
from pgsteward.errors import PreconditionError, StewardError, StoreFailed, StoreUnavailable
from pgsteward.restore import choice
from pgsteward.results import Note
from pgsteward.storage import Store
from pgsteward.targets import Target


@dataclass(frozen=True, slots=True)
class Found:
    """A backup, where it is, and what could not be looked at while it was searched for.

    Attributes:
        seen: What it was chosen from as the newest; empty where it was named by its id.
    """

    store: Store
    manifest: Manifest
    notes: tuple[Note, ...] = ()
    seen: tuple[Manifest, ...] = ()

    def prefix_in(self, target_name: str) -> str:
        """Return the key prefix of the backup in a target's catalog."""
        return backup_prefix(target_name, self.manifest.database, self.manifest.backup_id)


def find_backup(
    target: Target, what: str, store_name: str | None = None, *, as_of: datetime | None = None
) -> Found:
    """Return the backup that is meant.

    Args:
        target: Whose.
        what: ``latest``, ``latest-proven`` (a receipt in its store says that it was restored from there and
            equal), or a backup id.
        store_name: Look in this store only; None takes the first store that has it.
        as_of: The newest that saw the database not after this moment.

    Raises:
        PreconditionError: There is none.
        ConfigError: `what` is none of these.
        VerificationFailed: Its manifest is damaged.
        StoreUnavailable: Not found, and a store that may have it can't be asked.
    """
    choice.refuse_unknown(what, as_of)
    if store_name is not None:
        stores = [target.store(store_name)]
    else:
        stores = target.stores()
        spool = spool_store(target)
        if spool is not None:  # a backup that could not be uploaded yet lies there
            stores.append(spool)
    candidates: list[Found] = []
    silent_stores: list[StewardError] = []
    notes: list[Note] = []
    seen: list[Manifest] = []
    for store in stores:
        try:
            notes += _strange(target, store)
            found, damaged, listed = _look(store, target, what, as_of)
        except (StoreUnavailable, StoreFailed) as exc:
            silent_stores.append(exc)
            notes.append(Note(f"store {store.name}", f"could not be asked: {exc}"))
            continue
        notes += damaged
        seen += listed
        if found is not None:
            candidates.append(Found(store, found))
            if what not in choice.WORDS:
                break
    if candidates:
        newest = max(candidates, key=lambda each: order(each.manifest))
        first = next(c for c in candidates if c.manifest.backup_id == newest.manifest.backup_id)
        by_id = {manifest.backup_id: manifest for manifest in seen}
        notes += ahead(seen, datetime.now(UTC))
        return Found(first.store, first.manifest, tuple(notes), tuple(by_id.values()))
    if silent_stores:
        raise silent_stores[0]
    where = " or ".join(store.name for store in stores)
    damage = f" ({notes[0].reason})" if notes else ""
    if what in choice.WORDS:
        none = choice.whats_missing(what, as_of, seen, target.name, target.database, where)
    else:
        none = f"there is no complete backup {what} of {target.database!r} in {where}"
    raise PreconditionError(f"{none}{damage}{but_others(seen, datetime.now(UTC))}")


def _strange(target: Target, store: Store) -> list[Note]:
    """Say so where a store is not the one that backups went to; what it holds is restored all the same."""
    try:
        identify(target, store)
    except StoreFailed as exc:
        return [Note(f"store {store.name}", str(exc))]
    return []


def _look(
    store: Store, target: Target, what: str, as_of: datetime | None
) -> tuple[Manifest | None, list[Note], list[Manifest]]:
    """Return the backup that is meant, notes on what can't be judged, and all that was looked at."""
    if what in choice.WORDS:
        manifests, damaged = list_manifests(store, target.name, target.database)
        only = None
        if what == choice.PROVEN:
            here = {manifest.backup_id for manifest in manifests}
            receipts, unread = read_receipts(store, target.name, target.database, here)
            only = proven(receipts) - {note.object for note in unread}
            damaged += unread
        return choice.newest_whole(manifests, datetime.now(UTC), as_of, only), damaged, manifests
    try:
        return read_manifest(store, target.name, target.database, what), [], []
    except FileNotFoundError:
        return None, [], []
