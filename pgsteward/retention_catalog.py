"""What one store holds of one database, as retention sees it: what may be judged, and what may not."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from pgsteward.backup.freeze import freezing, why_frozen
from pgsteward.backup.listing import is_there, list_manifests, missing_file, problem_of
from pgsteward.backup.manifest import MANIFEST, Manifest, backup_prefix, catalog_prefix
from pgsteward.backup.newest import newest
from pgsteward.backup.receipts import Receipt, proven, read_chain, red
from pgsteward.backup.removing import is_going
from pgsteward.errors import PreconditionError
from pgsteward.keep_rules import Backup
from pgsteward.report.units import plural
from pgsteward.results import Note
from pgsteward.storage import Store

_LEFT = "it counts for no rule and is left alone"
UNREADABLE = f"its receipt can't be read, so it may be damaged or proven: {_LEFT}"
UNKNOWN_CLUSTER = f"its manifest does not say which cluster it is of: {_LEFT}"


@dataclass(frozen=True, slots=True)
class Catalog:
    """The complete backups of one database in one store.

    Attributes:
        store: Where they are.
        manifests: By backup id.
        backups: One for each manifest, newest first.
        broken: Ids of those that lack a file.
        receipts: Evidence on all these backups, oldest first; what can't be read is in `unknown`.
        unknown: What could not be read or judged.
        frozen: What is red, or may be, and nobody has cleared.
        chain: Keys of all receipts.
    """

    store: Store
    manifests: Mapping[str, Manifest]
    backups: tuple[Backup, ...]
    broken: frozenset[str] = frozenset()
    receipts: tuple[Receipt, ...] = ()
    unknown: tuple[Note, ...] = ()
    frozen: tuple[Note, ...] = ()
    chain: frozenset[str] = frozenset()


def survey(store: Store, target_name: str, database: str) -> Catalog:
    """Look at everything that a store holds of one database.

    Raises:
        StoreUnavailable: The store can't be asked now.
        StoreFailed: The store refuses.
    """
    listed, damaged = list_manifests(store, target_name, database)
    chain = read_chain(store, target_name, database)
    sizes = {stored.key: stored.size_bytes for stored in store.objects(catalog_prefix(target_name, database))}
    lacking = {manifest.backup_id: _missing(store, manifest, sizes, target_name) for manifest in listed}
    manifests = [
        manifest
        for manifest in listed
        if lacking[manifest.backup_id] is None or _is_still_there(store, manifest, target_name)
    ]
    receipts = [entry.receipt for entry in chain if entry.receipt is not None]
    here = {manifest.backup_id for manifest in manifests}
    doubtful = [entry.note for entry in chain if entry.receipt is None and entry.backup_id in here]
    unreadable = {note.object for note in doubtful}
    shown, reds = proven(receipts) - unreadable, red(receipts)
    unknown = [*damaged, *doubtful]
    backups: list[Backup] = []
    broken: set[str] = set()
    for manifest in manifests:
        left_alone = ""
        missing = lacking[manifest.backup_id]
        if missing is not None:
            broken.add(manifest.backup_id)
            left_alone = f"{missing}: {_LEFT}; remove its folder if it is of no use"
            unknown.append(Note(manifest.backup_id, left_alone))
        elif manifest.backup_id in unreadable:
            left_alone = UNREADABLE
        elif manifest.backup_id in reds:
            left_alone = f"its newest receipt is red ({reds[manifest.backup_id].what}): {_LEFT}"
        elif manifest.server.system_identifier is None:
            left_alone = UNKNOWN_CLUSTER
            unknown.append(Note(manifest.backup_id, left_alone))
        backups.append(
            Backup(
                manifest.backup_id,
                manifest.started_at,
                manifest.backup_id in shown,
                manifest.partial,
                left_alone,
            )
        )
    return Catalog(
        store,
        {manifest.backup_id: manifest for manifest in manifests},
        tuple(backups),
        frozenset(broken),
        tuple(each for each in receipts if each.backup_id in here and each.is_evidence),
        tuple(unknown),
        tuple(why_frozen(entry) for entry in freezing(chain)),
        frozenset(entry.key for entry in chain),
    )


def _missing(store: Store, manifest: Manifest, sizes: Mapping[str, int], target_name: str) -> str | None:
    """Say which file a backup lacks; what a listing does not show is read, as some stores list late."""
    prefix = backup_prefix(target_name, manifest.database, manifest.backup_id)
    there = {file.path: sizes[prefix + file.path] for file in manifest.files if prefix + file.path in sizes}
    missing = missing_file([file for file in manifest.files if file.path in there], there)
    unlisted = [file for file in manifest.files if file.path not in there]
    if missing is not None or all(problem_of(store, prefix, file) is None for file in unlisted):
        return missing
    return missing_file(unlisted, there)


def _is_still_there(store: Store, manifest: Manifest, target_name: str) -> bool:
    """Tell whether a backup is one still: whoever removes it meanwhile begins with its manifest."""
    return is_there(store, backup_prefix(target_name, manifest.database, manifest.backup_id) + MANIFEST)


def newly_red(catalog: Catalog, target_name: str, database: str) -> list[Note]:
    """Return what freezes pruning and was not there yet when the catalog was looked at."""
    chain = read_chain(catalog.store, target_name, database, but=catalog.chain)
    return [why_frozen(entry) for entry in freezing(chain)]


def undermined(catalog: Catalog, floors: Sequence[Manifest], target_name: str) -> str:
    """Say which of the backups that have to stay is not there any more, or is being removed; "" when none is.

    Args:
        catalog: As it was looked at.
        floors: Those that have to stay.
        target_name: Name of the target.
    """
    for manifest in floors:
        if is_going(catalog.store, backup_prefix(target_name, manifest.database, manifest.backup_id)):
            return (
                f"left for the next run: {manifest.backup_id}, which has to stay, is being removed or was,"
                " by another machine or by hand; do all machines that prune here have the same rules?"
            )
    return ""


def refuse_strangers(catalogs: Sequence[Catalog], target_name: str, own: Collection[str]) -> None:
    """Refuse to prune where another cluster keeps its backups under the same names.

    Args:
        catalogs: Of all stores.
        target_name: Name of the target.
        own: System identifiers of the server that is asked now, first, and of what it was before.

    Raises:
        PreconditionError: There are backups of another one; the text says what to do.
    """
    for catalog in catalogs:
        strangers: dict[str, int] = {}
        for manifest in catalog.manifests.values():
            cluster = manifest.server.system_identifier
            if cluster is not None and cluster not in own:
                strangers[cluster] = strangers.get(cluster, 0) + 1
        if strangers:
            database = next(iter(catalog.manifests.values())).database
            listed = ", ".join(f"{plural(n, 'backup')} of cluster {id_}" for id_, n in strangers.items())
            names = ", ".join(f'"{cluster}"' for cluster in strangers)
            raise PreconditionError(
                f"store {catalog.store.name} holds {listed} under {target_name}/{database}, and this server"
                f" is cluster {next(iter(own))}: nothing is pruned. If it was upgraded, rebuilt or moved, add"
                f" previous_clusters = [{names}] to [targets.{target_name}]. If that cluster lives, two of"
                " them share a name: give each a target name, or a store, of its own"
            )


def newest_judged(catalogs: Sequence[Catalog], now: datetime) -> str | None:
    """Return the id of the newest backup that can be judged, in any of some stores, partial or whole."""
    judged = (each for catalog in catalogs for each in catalog.backups if not each.left_alone)
    found = newest(judged, now)
    return found.backup_id if found else None
