"""Copy a backup from its home into every other store: files, read back and compared, manifest last."""

from __future__ import annotations

import logging
import time
from dataclasses import replace

from pgsteward import postgres, results
from pgsteward.backup.catalog import newest_id, problem_of
from pgsteward.backup.home import folder_of, has_spool, home_store, mark
from pgsteward.backup.listing import list_manifests, missing_file, read_manifest
from pgsteward.backup.manifest import MANIFEST, MARK, Manifest, backup_prefix
from pgsteward.errors import (
    PreconditionError,
    StoreFailed,
    StoreUnavailable,
    TransientError,
    VerificationFailed,
)
from pgsteward.postgres import Connection
from pgsteward.progress import Progress, silent
from pgsteward.results import Item, Note, StepResult
from pgsteward.retention import remove_backup
from pgsteward.sql import load
from pgsteward.storage import Store
from pgsteward.targets import Target

log = logging.getLogger(__name__)


def upload(
    target: Target, *, backup_id: str | None = None, dry_run: bool = False, progress: Progress = silent
) -> StepResult:
    """Copy one backup to every store of the target that does not hold it yet.

    Each object is read back and compared with the SHA-256 in the manifest before the manifest is put there:
    a copy that exists is a verified one. A copy that was cut off goes on where it stopped. A target without a
    folder store also gets rid of what earlier nights had to leave in the spool.

    Args:
        target: Whose backup.
        backup_id: Which one; None takes the newest in the home store.
        dry_run: Say what would be copied.
        progress: Is told every file.

    Raises:
        PreconditionError: The home store has no such backup, or another run works on the backups.
        VerificationFailed: A file in the home store is not what was written.
        TransientError: Nothing could be copied now, but it may heal.
    """
    began = time.monotonic()
    home = home_store(target)
    others = [store for store in target.stores() if store.name != home.name]
    if not others:
        return results.skipped("upload", target.name, f"{home.name} is the only store of this target")
    with postgres.operation_lock(target.login("backup"), "backup") as session:
        if (
            backup_id is None
            and (has_spool(target) or dry_run)
            and not list_manifests(home, target.name, target.database)[0]
        ):
            return results.skipped("upload", target.name, "no backup waits for its upload")
        wanted = backup_id or newest_id(target, [home])
        try:
            manifest = read_manifest(home, target.name, target.database, wanted)
        except FileNotFoundError:
            raise PreconditionError(
                f"there is no complete backup {wanted} of {target.database!r} in {home.name}"
            ) from None
        outcome = _copy_everywhere(target, home, others, manifest, session, dry_run, progress)
        if has_spool(target):
            if not dry_run and not outcome.failed:
                _leave_spool(target, home, manifest, session)
            waiting = [m for m in list_manifests(home, target.name, target.database)[0] if m != manifest]
            for earlier in waiting:
                outcome = _also(outcome, target, home, others, earlier, session, dry_run, progress)
    return outcome.took(time.monotonic() - began)


def _leave_spool(target: Target, home: Store, manifest: Manifest, lock: Connection) -> None:
    remove_backup(home, target.name, manifest, lock.row(load("whose_mark")))
    log.info("backup %s left the spool: every store of %s holds it", manifest.backup_id, target.name)


def _also(
    outcome: StepResult,
    target: Target,
    home: Store,
    others: list[Store],
    earlier: Manifest,
    lock: Connection,
    dry_run: bool,
    progress: Progress,
) -> StepResult:
    """Copy a backup that an earlier night had to leave in the spool, and add what became of it."""
    try:
        copied = _copy_everywhere(target, home, others, earlier, lock, dry_run, progress)
        if not dry_run and not copied.failed:
            _leave_spool(target, home, earlier, lock)
    except (TransientError, StoreFailed) as exc:
        copied = results.failure("upload", target.name, exc)
    failed = (*outcome.failed, *(Note(f"{earlier.backup_id}: {n.object}", n.reason) for n in copied.failed))
    changed = (*outcome.changed, *copied.changed)
    examined = outcome.examined + len(others)
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
    home: Store,
    others: list[Store],
    manifest: Manifest,
    lock: Connection,
    dry_run: bool,
    progress: Progress,
) -> StepResult:
    changed: list[Item] = []
    skipped: list[Note] = []
    failed: list[Note] = []
    transient: list[TransientError] = []
    for store in others:
        try:
            if _is_complete(store, target, manifest):
                skipped.append(Note(store.name, f"holds {manifest.backup_id} already"))
            elif dry_run:
                facts = {"files": len(manifest.files), "bytes": manifest.size_bytes}
                changed.append(Item(f"{manifest.backup_id} to {store.name}", "would upload", facts))
            else:
                changed.append(_copy(target, home, store, manifest, lock, progress))
        except StoreUnavailable as exc:
            transient.append(exc)
            failed.append(Note(store.name, str(exc)))
        except (StoreFailed, VerificationFailed) as exc:
            failed.append(Note(store.name, str(exc)))
    if transient and not changed and len(transient) == len(failed):
        raise transient[0]
    stores = [home.name] if not has_spool(target) else []
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
    sizes = {stored.key.removeprefix(prefix): stored.size_bytes for stored in store.objects(prefix)}
    if there != manifest:
        raise StoreFailed(f"store {store.name!r} holds another backup under the id {manifest.backup_id}")
    damaged = missing_file(manifest, sizes)
    if damaged is not None:
        raise StoreFailed(
            f"backup {manifest.backup_id} in store {store.name!r} is damaged ({damaged}); run verify, then"
            " remove its manifest there and upload again"
        )
    return True


def _copy(
    target: Target, home: Store, store: Store, manifest: Manifest, lock: Connection, progress: Progress
) -> Item:
    """Copy one backup into one store; what is there already and right is not sent again."""
    began = time.monotonic()
    prefix = backup_prefix(target.name, target.database, manifest.backup_id)
    folder = folder_of(home, prefix)
    owner = lock.row(load("whose_mark"))
    store.put_bytes(prefix + MARK, mark(owner, manifest.backup_id, manifest.started_at))
    sizes = {stored.key.removeprefix(prefix): stored.size_bytes for stored in store.objects(prefix)}
    sent = 0
    done = 0
    for file in manifest.files:
        progress(f"uploading {file.path} to {store.name}", done, manifest.size_bytes)
        damaged = problem_of(home, prefix, file)
        if damaged is not None:
            raise VerificationFailed(f"{file.path} in {home.name} {damaged}; it is not uploaded")
        if sizes.get(file.path) != file.size_bytes or problem_of(store, prefix, file) is not None:
            store.put_file(prefix + file.path, folder / file.path)
            wrong = problem_of(store, prefix, file)
            if wrong is not None:
                raise VerificationFailed(f"{file.path} was uploaded to {store.name}, but there it {wrong}")
            sent += file.size_bytes
        done += file.size_bytes
    lock.execute("SELECT 1")  # raises when the lock is gone: a janitor may have removed what we copied
    data = manifest.to_bytes()
    store.put_bytes(prefix + MANIFEST, data)
    if store.get_bytes(prefix + MANIFEST) != data:
        store.delete(prefix + MANIFEST)
        raise VerificationFailed(f"{store.name} answers with another manifest than it was given; removed it")
    store.delete(prefix + MARK)
    facts = {
        "files": len(manifest.files),
        "bytes": manifest.size_bytes,
        "bytes_sent": sent,
        "seconds": round(time.monotonic() - began, 3),
    }
    return Item(f"{manifest.backup_id} to {store.name}", "uploaded", facts)


def _summary(manifest: Manifest, changed: list[Item], skipped: list[Note], failed: list[Note]) -> str:
    own = f"{manifest.backup_id} "  # named once
    parts = [f"{item.action} {item.object.removeprefix(own)}" for item in changed]
    parts += [f"{note.object.removeprefix(own)}: {note.reason}" for note in skipped]
    parts += [f"{note.object.removeprefix(own)} failed: {note.reason}" for note in failed]
    return f"Backup {manifest.backup_id}: " + "; ".join(parts)
