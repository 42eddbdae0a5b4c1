"""What backups there are, in all stores of a target; and whether their bytes are still what was written."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from typing import Any

from pgsteward import results
from pgsteward.backup import receipts
from pgsteward.backup.home import spool_store
from pgsteward.backup.listing import list_manifests, read_manifest
from pgsteward.backup.manifest import BACKUP_ID, MANIFEST, MARK, Manifest, StoredFile, backup_prefix
from pgsteward.backup.proof import proof_facts
from pgsteward.errors import PreconditionError, StoreFailed, StoreUnavailable, VerificationFailed
from pgsteward.progress import Progress, silent
from pgsteward.report.units import plural
from pgsteward.results import Item, Note, StepResult
from pgsteward.storage import Store
from pgsteward.targets import Target


def backups(target: Target) -> StepResult:
    """List the complete backups of a target's database, newest first, with the stores that hold each.

    ``details["backups"]`` holds one entry per backup; its ``state`` is ``proven`` where a green receipt says
    that it was restored and found equal, else ``complete``. What waits in the spool is in ``spool``.
    """
    began = time.monotonic()
    stores = target.stores()
    if (spool := spool_store(target)) is not None:
        stores = [*stores, spool]
    found: dict[str, dict[str, Any]] = {}
    unknown: list[Note] = []
    asked = 0
    for store in stores:
        try:
            manifests, damaged = list_manifests(store, target.name, target.database)
            proven = receipts.proven_ids(store, target.name, target.database)
        except (StoreUnavailable, StoreFailed) as exc:
            unknown.append(Note(f"store {store.name}", f"could not be asked: {exc}"))
            continue
        asked += 1
        unknown += [Note(f"{note.object} in {store.name}", note.reason) for note in damaged]
        for manifest in manifests:
            entry = found.setdefault(manifest.backup_id, _entry(manifest))
            entry["stores"].append(store.name)
            if manifest.backup_id in proven:
                entry["state"] = "proven"
    listed = sorted(found.values(), key=lambda each: (each["started_at"], each["backup_id"]), reverse=True)
    count = plural(len(listed), "backup")
    none = () if listed or not asked else (Note(target.database, "there is no complete backup of it"),)
    return StepResult(
        step="backups",
        target=target.name,
        status=results.judge(examined=asked, unknown=unknown, findings=none),
        examined=asked,
        unknown=tuple(unknown),
        findings=none,
        seconds=time.monotonic() - began,
        summary=f"{count} of {target.database} in {asked} of {plural(len(stores), 'store')}",
        details={"backups": listed},
    )


def _entry(manifest: Manifest) -> dict[str, Any]:
    return {
        "backup_id": manifest.backup_id,
        "started_at": manifest.started_at.isoformat(),
        "finished_at": manifest.finished_at.isoformat(),
        "bytes": manifest.size_bytes,
        "files": len(manifest.files),
        "database_bytes": manifest.database_bytes,
        "server_version": manifest.server.version,
        "stores": [],
        "state": "complete",
        "partial": list(manifest.partial),
        "proof": proof_facts(manifest.proof),
        "warnings": len(manifest.warnings),
        "seconds": manifest.seconds.get("total"),
    }


def verify(
    target: Target, backup_id: str, *, store: str | None = None, progress: Progress = silent
) -> StepResult:
    """Read every byte of a backup again and compare it with the manifest.

    Args:
        target: Whose backup.
        backup_id: An id, or ``latest``.
        store: Name of the store to read; None reads the backup in every store that has it.
        progress: Is told every file.

    Returns:
        Status ``failed`` when a file is changed, cut off, missing or too many; each is named.
        ``details["stores"]`` names the stores in which every byte was right, ``skipped`` those without it.

    Raises:
        PreconditionError: No store has a complete backup of this id.
        StoreUnavailable: Nothing could be read now.
    """
    began = time.monotonic()
    stores = [target.store(store)] if store is not None else target.stores()
    wanted = newest_id(target, stores) if backup_id == "latest" else backup_id
    if not BACKUP_ID.fullmatch(wanted):
        raise PreconditionError(f"{wanted!r} is no backup id; write latest or one that `backups` lists")
    changed: list[Item] = []
    failed: list[Note] = []
    unknown: list[Note] = []
    silent_stores: list[StoreUnavailable | StoreFailed] = []
    absent: list[Note] = []
    verified: list[str] = []
    read = 0
    for place in stores:
        try:
            manifest = read_manifest(place, target.name, target.database, wanted)
            problems = problems_of(place, target.name, manifest, progress)
            if problems:
                read_manifest(place, target.name, target.database, wanted)  # pruned meanwhile is not damaged
        except FileNotFoundError:
            absent.append(Note(f"store {place.name}", f"does not hold {wanted}"))
            continue
        except VerificationFailed as exc:
            failed.append(Note(f"{MANIFEST} in {place.name}", str(exc)))
            continue
        except (StoreUnavailable, StoreFailed) as exc:
            silent_stores.append(exc)
            unknown.append(Note(f"store {place.name}", f"could not be read: {exc}"))
            continue
        read += len(manifest.files)
        failed += [Note(f"{note.object} in {place.name}", note.reason) for note in problems]
        if not problems:
            facts = {"files": len(manifest.files), "bytes": manifest.size_bytes}
            changed.append(Item(f"{wanted} in {place.name}", "verified", facts))
            verified.append(place.name)
    if not changed and not failed:
        if silent_stores:
            raise silent_stores[0]
        names = ", ".join(place.name for place in stores)
        raise PreconditionError(f"there is no complete backup {wanted} of {target.database!r} in {names}")
    return StepResult(
        step="verify",
        target=target.name,
        status="failed" if failed else results.judge(examined=read, unknown=unknown),
        examined=read,
        changed=tuple(changed),
        skipped=tuple(absent),
        unknown=tuple(unknown),
        failed=tuple(failed),
        seconds=time.monotonic() - began,
        summary=_verdict(wanted, read, verified, failed),
        details={"backup_id": wanted, "files": read, "stores": verified},
    )


def newest_id(target: Target, stores: Sequence[Store], *, partial: bool = False) -> str:
    """Return the id of the newest complete backup in any of some stores.

    Args:
        target: Whose backup.
        stores: Where to look.
        partial: One that holds a part of the database only will do; `latest` never means such a one.

    Raises:
        PreconditionError: None of them has one.
        StoreUnavailable: One of them can't be asked; the newest may be there.
    """
    found: list[Manifest] = []
    for store in stores:
        found += list_manifests(store, target.name, target.database)[0]
    meant = [manifest for manifest in found if partial or not manifest.partial]
    if not meant:
        names = ", ".join(store.name for store in stores)
        raise PreconditionError(
            f"there is no complete backup of {target.database!r} in {names}{but_partial(found)}"
        )
    return max(meant, key=lambda manifest: (manifest.started_at, manifest.backup_id)).backup_id


def but_partial(found: Sequence[Manifest]) -> str:
    """Return the end of a sentence that says that there is none: there are partial ones."""
    if not found:
        return ""
    newest = max(found, key=lambda manifest: manifest.started_at)
    return (
        f" but {plural(len(found), 'partial one')}, the newest {newest.backup_id}"
        f" ({'; '.join(newest.partial)}); latest never means those: name one by its id"
    )


def problems_of(
    store: Store, target_name: str, manifest: Manifest, progress: Progress = silent
) -> list[Note]:
    """Read every file of a backup and return what is wrong: nothing, when every byte is right."""
    prefix = backup_prefix(target_name, manifest.database, manifest.backup_id)
    there = {stored.key.removeprefix(prefix) for stored in store.objects(prefix)}
    problems = []
    for number, file in enumerate(manifest.files):
        progress(f"verifying {file.path} in {store.name}", number, len(manifest.files))
        problem = problem_of(store, prefix, file)
        if problem is not None:
            problems.append(Note(file.path, problem))
    expected = {file.path for file in manifest.files} | {MANIFEST, MARK}
    problems += [Note(name, "is not in the manifest") for name in sorted(there - expected)]
    return problems


def problem_of(store: Store, prefix: str, file: StoredFile) -> str | None:
    """Read one stored file and return what is wrong with it, or None."""
    digest = hashlib.sha256()
    size = 0
    try:
        for chunk in store.read(prefix + file.path):
            digest.update(chunk)
            size += len(chunk)
    except FileNotFoundError:
        return "is missing"
    if size != file.size_bytes:
        return f"has {size} bytes, {file.size_bytes} were written"
    if digest.hexdigest() != file.sha256:
        return "is not what was written: its SHA-256 differs"
    return None


def _verdict(backup_id: str, read: int, verified: list[str], failed: list[Note]) -> str:
    if failed:
        first = f"{failed[0].object} {failed[0].reason}"
        more = f", and {len(failed) - 1} more" if len(failed) > 1 else ""
        return f"Backup {backup_id} is damaged: {first}{more}"
    places = ", ".join(verified)
    return f"Backup {backup_id} is verified in {places}: {read} files read again, every byte is right"
