"""Copy a backup from where it was made into every other store: read back, compared, manifest last."""

from __future__ import annotations

import logging
import time
from dataclasses import replace

from pgsteward import results
from pgsteward.backup import owed as owed_copies
from pgsteward.backup.catalog import newest_id
from pgsteward.backup.copying import copy_backup
from pgsteward.backup.home import SPOOL, has_one_place, home_store, spool_store
from pgsteward.backup.identity import identify, refuse_twin, remember
from pgsteward.backup.listing import list_manifests, read_manifest
from pgsteward.backup.manifest import Manifest, backup_prefix
from pgsteward.backup.marks import owner_of
from pgsteward.backup.published import lacking
from pgsteward.backup.removing import remove_backup
from pgsteward.backup.trust import trusted
from pgsteward.errors import (
    PreconditionError,
    StewardError,
    StoreFailed,
    StoreUnavailable,
    TransientError,
    VerificationFailed,
)
from pgsteward.postgres import Connection
from pgsteward.postgres_lock import operation_lock
from pgsteward.progress import Progress, silent
from pgsteward.results import Item, Note, StepResult
from pgsteward.storage import Store
from pgsteward.targets import Target

log = logging.getLogger(__name__)


def upload(
    target: Target, *, backup_id: str | None = None, dry_run: bool = False, progress: Progress = silent
) -> StepResult:
    """Copy one backup from the store that it was made in, or any that has it, to those that lack it.

    Each object is read back and compared with the SHA-256 in the manifest before the manifest is put there:
    a copy that exists is a verified one. A copy that was cut off goes on where it stopped. A target without a
    folder store also gets rid of what earlier nights had to leave in the spool.

    Args:
        target: Whose backup.
        backup_id: Which one; None takes the newest where backups are made.
        dry_run: Say what would be copied.
        progress: Is told every file.

    Raises:
        PreconditionError: No store has such a backup, or another run works on the backups.
        TransientError: Nothing could be copied now, but it may heal.
    """
    began = time.monotonic()
    home, spool = home_store(target), spool_store(target)
    if has_one_place(target):
        return results.skipped("upload", target.name, f"{home.name} is the only store of this target")
    made_in = [home] if spool is None or spool.name == home.name else [home, spool]
    with operation_lock(target.login("backup"), "backup") as session:
        if (
            backup_id is None
            and (spool is not None or dry_run)
            and not any(list_manifests(place, target.name, target.database)[0] for place in made_in)
        ):
            return results.skipped("upload", target.name, "no backup waits for its upload")
        findings: list[Note] = []
        wanted = backup_id
        if wanted is None:
            wanted, findings = newest_id(target, made_in, partial=True)
        source, manifest = _source(target, [*made_in, *target.stores()], wanted)
        outcome = _copy_everywhere(target, source, manifest, session, dry_run, progress)
        if spool is None:
            outcome = _catch_up(outcome, target, home, wanted, session, dry_run, progress)
        else:
            if not dry_run and not outcome.failed and source.name == spool.name:
                _leave_spool(target, spool, manifest, session)
            waiting = [m for m in list_manifests(spool, target.name, target.database)[0] if m != manifest]
            for earlier in waiting:
                outcome = _also(outcome, target, spool, earlier, session, dry_run, progress)
    return _with_findings(outcome, findings).took(time.monotonic() - began)


def _with_findings(outcome: StepResult, findings: list[Note]) -> StepResult:
    if not findings:
        return outcome
    status = "partial" if outcome.status == "ok" else outcome.status
    return replace(outcome, status=status, findings=tuple(findings))


def _source(target: Target, places: list[Store], backup_id: str) -> tuple[Store, Manifest]:
    """Return the first of some stores that has a backup; one that can't be asked does not hide the others."""
    trouble: list[StewardError] = []
    for place in places:
        try:
            return place, read_manifest(place, target.name, target.database, backup_id)
        except FileNotFoundError:
            continue
        except (StoreUnavailable, StoreFailed, VerificationFailed) as exc:
            trouble.append(exc)
    if trouble:
        raise trouble[0]
    names = ", ".join(dict.fromkeys(place.name for place in places))
    raise PreconditionError(f"there is no complete backup {backup_id} of {target.database!r} in {names}")


def _leave_spool(target: Target, home: Store, manifest: Manifest, lock: Connection) -> None:
    remove_backup(home, target.name, manifest, owner_of(lock))
    log.info("backup %s left the spool: every store of %s holds it", manifest.backup_id, target.name)


def _catch_up(
    outcome: StepResult,
    target: Target,
    home: Store,
    done: str,
    lock: Connection,
    dry_run: bool,
    progress: Progress,
) -> StepResult:
    """Make the copies that stores could not take earlier, of backups that are there still."""
    owed = owed_copies.read(target)
    for backup_id in sorted({id_ for ids in owed.values() for id_ in ids} - {done}):
        stores = frozenset(store for store, ids in owed.items() if backup_id in ids)
        try:
            earlier = read_manifest(home, target.name, target.database, backup_id)
        except (FileNotFoundError, VerificationFailed):  # pruned, or damaged, which the listing names
            for store in stores if not dry_run else ():
                owed_copies.settle(target, store, backup_id)
            continue
        outcome = _also(outcome, target, home, earlier, lock, dry_run, progress, only=stores)
    return outcome


def _also(
    outcome: StepResult,
    target: Target,
    source: Store,
    earlier: Manifest,
    lock: Connection,
    dry_run: bool,
    progress: Progress,
    *,
    only: frozenset[str] | None = None,
) -> StepResult:
    """Copy a backup that an earlier night could not copy, and add what became of it."""
    try:
        copied = _copy_everywhere(target, source, earlier, lock, dry_run, progress, only=only)
        if source.name == SPOOL and not dry_run and not copied.failed:
            _leave_spool(target, source, earlier, lock)
    except (TransientError, StoreFailed) as exc:
        copied = results.failure("upload", target.name, exc)
    failed = (*outcome.failed, *(Note(f"{earlier.backup_id}: {n.object}", n.reason) for n in copied.failed))
    changed = (*outcome.changed, *copied.changed)
    examined = outcome.examined + copied.examined
    return replace(
        outcome,
        status=results.judge(examined=examined, failed=failed, changed=changed),
        examined=examined,
        changed=changed,
        skipped=(*outcome.skipped, *copied.skipped),
        failed=failed,
        summary=f"{outcome.summary}. {copied.summary}",
    )


def _copy_everywhere(
    target: Target,
    source: Store,
    manifest: Manifest,
    lock: Connection,
    dry_run: bool,
    progress: Progress,
    *,
    only: frozenset[str] | None = None,
) -> StepResult:
    """Copy one backup from a store that has it into every store of the target, or some, that lacks it."""
    others = [s for s in target.stores() if s.name != source.name and (only is None or s.name in only)]
    if not others:
        return results.skipped("upload", target.name, f"{source.name} is the only store of this target")
    changed: list[Item] = []
    skipped: list[Note] = []
    failed: list[Note] = []
    transient: list[TransientError] = []
    look = identify if dry_run else refuse_twin
    for store in others:
        if not dry_run:
            owed_copies.begin(target, store.name, manifest.backup_id)
        try:
            look(target, store)
            if _is_complete(store, target, manifest):
                skipped.append(Note(store.name, f"holds {manifest.backup_id} already"))
            elif dry_run:
                facts = {"files": len(manifest.files), "bytes": manifest.size_bytes}
                changed.append(Item(f"{manifest.backup_id} to {store.name}", "would upload", facts))
            else:
                into = trusted(target, store, progress)
                changed.append(copy_backup(target, source, into, manifest, lock, progress))
            if not dry_run:
                owed_copies.settle(target, store.name, manifest.backup_id)
                remember(target, store)
        except StoreUnavailable as exc:
            transient.append(exc)
            failed.append(Note(store.name, str(exc)))
        except (StoreFailed, VerificationFailed) as exc:
            failed.append(Note(store.name, str(exc)))
    if transient and not changed and len(transient) == len(failed):
        raise transient[0]
    stores = [source.name] if source.name in target.settings.stores else []
    stores += [store.name for store in others if store.name not in {note.object for note in failed}]
    return StepResult(
        step="upload",
        target=target.name,
        status=results.judge(examined=len(others), failed=failed, changed=changed),
        examined=len(others),
        changed=tuple(changed),
        skipped=tuple(skipped),
        failed=tuple(failed),
        summary=_summary(manifest, changed, skipped, failed),
        details={
            "backup_id": manifest.backup_id,
            "bytes": manifest.size_bytes,
            "files": len(manifest.files),
            "stores": stores,
        },
        dry_run=dry_run,
    )


def _is_complete(store: Store, target: Target, manifest: Manifest) -> bool:
    """Tell whether a store has exactly this manifest, and every file in the size it names.

    Raises:
        StoreFailed: It holds another manifest under this id, or not all the files: nothing is overwritten.
    """
    try:
        there = read_manifest(store, target.name, target.database, manifest.backup_id)
    except FileNotFoundError:
        return False
    except VerificationFailed as exc:
        raise StoreFailed(f"nothing is written over it: {exc}") from exc
    prefix = backup_prefix(target.name, target.database, manifest.backup_id)
    if there != manifest:
        raise StoreFailed(f"store {store.name!r} holds another backup under the id {manifest.backup_id}")
    damaged = lacking(store, prefix, manifest.files)
    if damaged is not None:
        raise StoreFailed(
            f"backup {manifest.backup_id} in store {store.name!r} is damaged ({damaged}); run verify, then"
            " remove its manifest there and upload again"
        )
    return True


def _summary(manifest: Manifest, changed: list[Item], skipped: list[Note], failed: list[Note]) -> str:
    own = f"{manifest.backup_id} "  # named once
    parts = [f"{item.action} {item.object.removeprefix(own)}" for item in changed]
    parts += [f"{note.object.removeprefix(own)}: {note.reason}" for note in skipped]
    parts += [f"{note.object.removeprefix(own)} failed: {note.reason}" for note in failed]
    return f"Backup {manifest.backup_id}: " + "; ".join(parts)
