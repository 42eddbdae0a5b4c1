"""Frees what retention could only hide: older versions, in buckets that keep them, where no lock forbids it.

Only versions of backups that do not exist any more, by the exact keys that their own manifest named, and of
the marks that every backup leaves. Files go first and the manifest's versions last: until then they say, also
after a kill, which keys are ours.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import MAXYEAR, datetime
from typing import Any

from pgsteward import results, sql
from pgsteward.backup.freeze import freezing, prunable_stores, still_frozen, why_frozen
from pgsteward.backup.identity import identify
from pgsteward.backup.manifest import BACKUP_ID, MANIFEST, MARK, Manifest, backup_prefix, catalog_prefix
from pgsteward.backup.receipts import read_chain
from pgsteward.errors import StoreFailed, StoreUnavailable, VerificationFailed
from pgsteward.ledger import Ledger
from pgsteward.postgres_lock import operation_lock
from pgsteward.report.units import humanize_bytes, plural
from pgsteward.results import Note, StepResult
from pgsteward.storage import ObjectVersion, Store
from pgsteward.targets import Target

log = logging.getLogger(__name__)

STEP = "prune-versions"


def retained_until(store: Store, target_name: str, manifest: Manifest) -> str | None:
    """Say until when Object Lock retains a backup; None where nothing does.

    The manifest was put last, so that its lock ends last.
    """
    until = store.retained_until(backup_prefix(target_name, manifest.database, manifest.backup_id) + MANIFEST)
    return None if until is None else _retained(until)


def _retained(until: datetime) -> str:
    if until.year == MAXYEAR:
        return "retained until its legal hold ends (Object Lock)"
    return f"retained until {until:%Y-%m-%d %H:%M} UTC (Object Lock)"


def hidden_only(store: Store, target: Target) -> str | None:
    """Say what deleting means in a bucket that keeps versions; None in one that does not, or won't tell."""
    try:
        if not store.keeps_versions():
            return None
    except (StoreUnavailable, StoreFailed):
        return None
    return (
        "the bucket keeps versions: what was removed is hidden by delete markers and costs on until"
        f" `pgsteward prune {target.name} --versions`, or a lifecycle rule, removes the older versions"
    )


@dataclass(frozen=True, slots=True)
class _Folder:
    """All versions below one backup's prefix, by key without the prefix."""

    backup_id: str
    prefix: str
    versions: Mapping[str, list[ObjectVersion]]

    def is_gone(self, name: str) -> bool:
        """Tell whether reads and listings see nothing under a name."""
        return all(version.is_marker or not version.is_latest for version in self.versions.get(name, ()))


def prune_versions(target: Target, *, dry_run: bool = False) -> StepResult:
    """Delete older versions of removed backups of one database for good, in every store that keeps versions.

    Args:
        target: Whose.
        dry_run: Say what would be deleted.

    Raises:
        PreconditionError: Another run works on the backups.
    """
    ledger = Ledger(STEP, target.name, dry_run=dry_run)
    with operation_lock(target.login("backup"), "backup") as session:
        owner = session.row(sql.load("whose_mark"))
        frozen = _is_frozen(target, ledger)
        for store in [] if frozen else target.stores():
            try:
                identify(target, store)
                _look_at(target, store, owner, ledger)
            except (StoreUnavailable, StoreFailed) as exc:
                ledger.doubt(f"store {store.name}", str(exc))
    freed = sum(int(item.facts["bytes"]) for item in ledger.changed)
    verb = "Would delete" if dry_run else "Deleted"
    what = plural(sum(int(item.facts["versions"]) for item in ledger.changed), "older version")
    of = plural(len(ledger.changed), "removed backup")
    if frozen:
        return ledger.result("Deleted nothing: pruning is frozen", {"bytes": 0}, status="partial")
    if not ledger.examined and not ledger.unknown:
        return results.skipped(STEP, target.name, "no store of this target keeps older versions")
    return ledger.result(f"{verb} {what} of {of} ({humanize_bytes(freed)})", {"bytes": freed})


def _is_frozen(target: Target, ledger: Ledger) -> bool:
    """Tell whether something is red in a store: then older versions may be what is left."""
    found: list[Note] = []
    for store in prunable_stores(target):
        with contextlib.suppress(StoreUnavailable, StoreFailed):  # told of later; the others have copies
            found += map(why_frozen, freezing(read_chain(store, target.name, target.database)))
    for note in still_frozen(target, found):
        ledger.fail(note.object, note.reason)
    return bool(found)


def _look_at(target: Target, store: Store, owner: Mapping[str, Any], ledger: Ledger) -> None:
    keeps = store.keeps_versions()
    if keeps is None:
        why = "does not say whether it keeps versions; allow s3:GetBucketVersioning"
        ledger.doubt(f"store {store.name}", why)
    if not keeps:
        return
    ledger.examined += 1
    for folder in _folders(target, store):
        name = f"{folder.backup_id} in {store.name}"
        names, unclear = _ours(target, store, folder, owner)
        if unclear is not None:
            ledger.doubt(name, unclear)
        stray = sorted(set(folder.versions) - names)
        if stray and names and folder.is_gone(MANIFEST):
            ledger.skip(name, f"left alone, as no manifest names it: {', '.join(stray[:3])}")
        versions = [folder.versions[each] for each in _manifest_last(names) if each in folder.versions]
        _delete(store, name, versions, ledger)


def _folders(target: Target, store: Store) -> Iterable[_Folder]:
    found: dict[str, dict[str, list[ObjectVersion]]] = defaultdict(lambda: defaultdict(list))
    catalog = catalog_prefix(target.name, target.database)
    for version in store.versions(catalog):
        backup_id, _, name = version.key.removeprefix(catalog).partition("/")
        if BACKUP_ID.fullmatch(backup_id) and name:
            found[backup_id][name].append(version)
    for backup_id, versions in sorted(found.items()):
        yield _Folder(backup_id, backup_prefix(target.name, target.database, backup_id), versions)


def _ours(
    target: Target, store: Store, folder: _Folder, owner: Mapping[str, Any]
) -> tuple[set[str], str | None]:
    """Return the names whose older versions may go, and what could not be found out."""
    if not folder.is_gone(MANIFEST):  # it is there: only what its making left behind
        return {MARK} if folder.is_gone(MARK) else set(), None
    manifests = _newest_first(folder.versions.get(MANIFEST, ()))
    if manifests:
        try:
            manifest = Manifest.from_bytes(store.read_version(manifests[0]), f"{folder.backup_id}, removed")
        except (VerificationFailed, FileNotFoundError) as exc:
            return set(), f"its older versions are left alone: {exc}"
        if (manifest.target, manifest.database, manifest.backup_id) != (
            target.name,
            target.database,
            folder.backup_id,
        ):
            return set(), "its older versions are left alone: its manifest is of another backup"
        return {
            name for name in (*(f.path for f in manifest.files), MANIFEST, MARK) if folder.is_gone(name)
        }, None
    for version in _newest_first(folder.versions.get(MARK, ())):
        try:
            mark = json.loads(store.read_version(version))
        except (ValueError, FileNotFoundError):
            continue
        if isinstance(mark, dict) and {key: mark.get(key) for key in owner} == dict(owner):
            return {name for name in folder.versions if folder.is_gone(name)}, None
    return set(), None


def _newest_first(versions: Iterable[ObjectVersion]) -> list[ObjectVersion]:
    return sorted((v for v in versions if not v.is_marker), key=lambda v: v.modified_at, reverse=True)


def _manifest_last(names: set[str]) -> list[str]:
    return sorted(names, key=lambda name: (name in (MANIFEST, MARK), name == MANIFEST, name))


def _delete(store: Store, name: str, keys: list[list[ObjectVersion]], ledger: Ledger) -> None:
    """Delete all versions of some keys, each key's markers last: without them an older one would be back."""
    count = freed = 0
    until: datetime | None = None
    for versions in keys:
        if until is not None and versions[0].key.endswith((MANIFEST, MARK)):
            break  # they say whose the retained ones are
        here: datetime | None = None
        for version in sorted(versions, key=lambda each: each.is_marker):
            if version.is_marker and here is not None:
                continue
            held = _held(store, version) if ledger.dry_run else store.delete_version(version)
            if held is not None:
                here = max(here or held, held)
            else:
                count += 1
                freed += version.size_bytes
        until = max(filter(None, (until, here)), default=None)
    if count:
        ledger.change(name, "would delete" if ledger.dry_run else "deleted", versions=count, bytes=freed)
        log.info("%d older versions of %s deleted", count, name)
    if until is not None:
        ledger.skip(name, _retained(until))


def _held(store: Store, version: ObjectVersion) -> datetime | None:
    return None if version.is_marker else store.version_retained_until(version)
