"""What backups there are, in all stores of a target; and whether their bytes are still what was written."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pgsteward import results
from pgsteward.backup import freeze
from pgsteward.backup.home import spool_store
from pgsteward.backup.identity import identify
from pgsteward.backup.listing import list_manifests, problem_of, read_manifest
from pgsteward.backup.manifest import BACKUP_ID, MANIFEST, MARK, Manifest, backup_prefix
from pgsteward.backup.newest import ahead, newest, order
from pgsteward.backup.proof_gaps import proof_facts
from pgsteward.backup.receipts import Receipt
from pgsteward.errors import (
    DamagedBackup,
    PreconditionError,
    StoreFailed,
    StoreUnavailable,
    VerificationFailed,
)
from pgsteward.progress import Progress, silent
from pgsteward.report.units import plural
from pgsteward.results import Item, Note, StepResult
from pgsteward.retention import Plan, make_plans
from pgsteward.retention_catalog import Catalog, survey
from pgsteward.storage import Store
from pgsteward.targets import Target

WAITS = "waits for its upload"
"""Why a backup stays in the spool, which retention does not look at."""


def backups(target: Target, *, now: datetime | None = None) -> StepResult:
    """List the complete backups of a target's database, newest first: what each is worth, and why it is kept.

    ``details["backups"]`` holds one entry per backup. Its ``state`` is ``proven`` where a green receipt says
    that it was restored and found equal, ``differs`` where the newest receipt is red, ``damaged`` where no
    store has all of its files, else ``complete``. Why it is kept is what `pgsteward.retention.make_plans`
    says, as ``prune`` would decide now. What waits for its upload is in the store ``spool``.

    Args:
        target: Whose backups.
        now: Aware instant to judge by; the clock's when None.
    """
    began = time.monotonic()
    moment = now or datetime.now(UTC)
    stores = target.stores()
    if (spool := spool_store(target)) is not None:
        stores = [*stores, spool]
    unknown: list[Note] = []
    catalogs: list[Catalog] = []
    for store in stores:
        try:
            identify(target, store)
            catalogs.append(survey(store, target.name, target.database))
        except (StoreUnavailable, StoreFailed) as exc:
            unknown.append(Note(f"store {store.name}", f"could not be asked: {exc}"))
    asked = len(catalogs)
    for catalog in catalogs:
        unknown += [Note(f"{note.object} in {catalog.store.name}", note.reason) for note in catalog.unknown]
    found: dict[str, _Listed] = {}
    for plan in make_plans(catalogs, target.settings.retention_in, moment):
        _take(found, plan, waits=spool is not None and plan.catalog.store.name == spool.name)
    listed = sorted(found.values(), key=lambda each: order(each.manifest))
    entries = [each.as_json(moment) for each in reversed(listed)]
    findings = [Note(each.manifest.backup_id, why) for each in reversed(listed) for why in each.disproofs]
    findings += ahead((each.manifest for each in listed), moment)
    if any(catalog.frozen for catalog in catalogs):
        findings.append(Note(target.database, "pruning is frozen, as prune says; look at what is red first"))
    if asked and not any(each.stores for each in listed):
        findings.append(Note(target.database, "there is no complete backup of it"))
    return StepResult(
        step="backups",
        target=target.name,
        status=results.judge(examined=asked, unknown=unknown, findings=findings),
        examined=asked,
        unknown=tuple(unknown),
        findings=tuple(findings),
        seconds=time.monotonic() - began,
        summary=f"{plural(len(entries), 'backup')} of {target.database} in {asked} of"
        f" {plural(len(stores), 'store')}",
        details={"backups": entries},
    )


@dataclass(slots=True)
class _Listed:
    """One backup, while the stores are asked for it one after the other."""

    manifest: Manifest
    stores: list[str] = field(default_factory=list)
    damaged_in: list[str] = field(default_factory=list)
    kept: list[dict[str, Any]] = field(default_factory=list)
    receipts: list[tuple[str, Receipt]] = field(default_factory=list)
    proven: bool = False

    @property
    def disproofs(self) -> list[str]:
        """What the newest receipt in each store says that was not equal."""
        last = dict(self.receipts)
        return [
            f"a {r.what} from {store} {'was not equal' if r.compared else 'found damage'}"
            f" ({'; '.join(r.differences) or 'it is not said where'})"
            for store, r in last.items()
            if r.verdict == "red"
        ]

    def as_json(self, now: datetime) -> dict[str, Any]:
        """Return the entry that is printed; every key is always there."""
        manifest = self.manifest
        state = "proven" if self.proven else "complete"
        return {
            "backup_id": manifest.backup_id,
            "started_at": manifest.started_at.isoformat(),
            "finished_at": manifest.finished_at.isoformat(),
            "age_seconds": round((now - manifest.started_at).total_seconds()),
            "bytes": manifest.size_bytes,
            "files": len(manifest.files),
            "database_bytes": manifest.database_bytes,
            "server_version": manifest.server.version,
            "mode": manifest.mode,
            "encrypted_to": list(manifest.encryption.recipients) if manifest.encryption else [],
            "partial": list(manifest.partial),
            "stores": self.stores,
            "damaged_in": self.damaged_in,
            "state": "damaged" if not self.stores else "differs" if self.disproofs else state,
            "proof": proof_facts(manifest.proof),
            "last_restore": _last_restore(self.receipts, now),
            "kept": self.kept,
            "anomalies": list(manifest.anomalies),
            "warnings": len(manifest.warnings),
            "seconds": manifest.seconds.get("total"),
        }


def _take(found: dict[str, _Listed], plan: Plan, *, waits: bool) -> None:
    """Add what one store holds."""
    catalog = plan.catalog
    store = catalog.store.name
    for backup_id, manifest in catalog.manifests.items():
        listed = found.setdefault(backup_id, _Listed(manifest))
        (listed.damaged_in if backup_id in catalog.broken else listed.stores).append(store)
    for backup in catalog.backups:
        if backup.proven and backup.backup_id not in catalog.broken:
            found[backup.backup_id].proven = True
    for receipt in catalog.receipts:
        found[receipt.backup_id].receipts.append((store, receipt))  # which may have had another name then
    for decision in plan.decisions:
        if decision.backup_id in catalog.broken:
            continue
        reasons = [WAITS] if waits else list(decision.reasons)
        kept = {"store": store, "keep": waits or decision.keep, "reasons": reasons}
        found[decision.backup_id].kept.append(kept)


def _last_restore(receipts: Sequence[tuple[str, Receipt]], now: datetime) -> dict[str, Any] | None:
    """Return what the newest receipt of a restore from any store says; None where there is none."""
    restores = [each for each in receipts if each[1].what != "verify"]
    if not restores:
        return None
    store, last = max(restores, key=lambda each: each[1].written_at)
    return {
        "what": last.what,
        "at": last.written_at.isoformat(),
        "age_seconds": round((now - last.written_at).total_seconds()),
        "verdict": last.verdict,
        "store": store,
        "into": last.into,
        "level": last.proof.level,
        "rows": last.proof.rows,
        "differences": list(last.differences),
        "seconds": round(sum(last.seconds.values()), 3),
    }


def verify(
    target: Target, backup_id: str, *, store: str | None = None, progress: Progress = silent
) -> StepResult:
    """Read every byte of a backup again and compare it with the manifest.

    Bytes that are not what was written leave a red receipt in their store, which freezes pruning.

    Args:
        target: Whose backup.
        backup_id: An id, or ``latest``.
        store: Name of the store to read; None reads the backup in every store that has it, and where it
            waits for its upload.
        progress: Is told every file.

    Returns:
        Status ``failed`` when a file is changed, cut off, missing or too many; each is named.
        ``details["stores"]`` names the stores in which every byte was right, ``skipped`` those without it.

    Raises:
        PreconditionError: No store has a complete backup of this id.
        StoreUnavailable: Nothing could be read now.
    """
    began = time.monotonic()
    spool = spool_store(target) if store is None else None
    stores = [target.store(store)] if store is not None else target.stores()
    if spool is not None:
        stores = [*stores, spool]
    findings: list[Note] = []
    wanted = backup_id
    if backup_id == "latest":
        wanted, findings = newest_id(target, stores, all_asked=False)  # which are named below
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
            identify(target, place)
            manifest = read_manifest(place, target.name, target.database, wanted)
            problems = problems_of(place, target.name, manifest, progress)
            if problems:
                read_manifest(place, target.name, target.database, wanted)  # pruned meanwhile is not damaged
        except FileNotFoundError:
            if place is not spool:
                absent.append(Note(f"store {place.name}", f"does not hold {wanted}"))
            continue
        except VerificationFailed as exc:
            failed.append(Note(f"{MANIFEST} in {place.name}", str(exc)))
            if isinstance(exc, DamagedBackup):
                unknown += freeze.leave_damage(place, target, wanted, "verify", [str(exc)])
            continue
        except (StoreUnavailable, StoreFailed) as exc:
            silent_stores.append(exc)
            unknown.append(Note(f"store {place.name}", f"could not be read: {exc}"))
            continue
        read += len(manifest.files)
        failed += [Note(f"{note.object} in {place.name}", note.reason) for note in problems]
        unknown += _leave_evidence(place, target, manifest, problems)
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
        status="failed" if failed else results.judge(examined=read, unknown=unknown, findings=findings),
        examined=read,
        changed=tuple(changed),
        skipped=tuple(absent),
        unknown=tuple(unknown),
        failed=tuple(failed),
        findings=tuple(findings),
        seconds=time.monotonic() - began,
        summary=_verdict(wanted, read, verified, failed),
        details={"backup_id": wanted, "files": read, "stores": verified},
    )


def _leave_evidence(place: Store, target: Target, manifest: Manifest, problems: Sequence[Note]) -> list[Note]:
    """Leave a receipt of damage, or of its end; a file too many is no damage to the others."""
    known = {file.path for file in manifest.files}
    damage = [f"{note.object} {note.reason}" for note in problems if note.object in known]
    if damage:
        return freeze.leave_damage(place, target, manifest.backup_id, "verify", damage)
    return [] if problems else freeze.leave_repair(place, target, manifest.backup_id)


def newest_id(
    target: Target, stores: Sequence[Store], *, partial: bool = False, all_asked: bool = True
) -> tuple[str, list[Note]]:
    """Return the id of the newest complete backup in any of some stores, and what else may be meant.

    Named are those that are dated after now, and those that would be newer but for a damaged manifest.

    Args:
        target: Whose backup.
        stores: Where to look.
        partial: One that holds a part of the database only will do; `latest` never means such a one.
        all_asked: All of them must answer; else those that do decide, and the caller names the others.

    Raises:
        PreconditionError: None of them has one.
        StoreUnavailable: One of them can't be asked; the newest may be there.
        StoreFailed: One of them refuses.
    """
    found: list[Manifest] = []
    damaged: list[Note] = []
    trouble: list[StoreUnavailable | StoreFailed] = []
    for store in stores:
        try:
            manifests, unreadable = list_manifests(store, target.name, target.database)
        except (StoreUnavailable, StoreFailed) as exc:
            trouble.append(exc)
            continue
        found += manifests
        damaged += unreadable
    if trouble and (all_asked or not found):
        raise trouble[0]
    now = datetime.now(UTC)
    meant = newest((manifest for manifest in found if partial or not manifest.partial), now)
    if meant is None:
        names = ", ".join(store.name for store in stores)
        raise PreconditionError(
            f"there is no complete backup of {target.database!r} in {names}{but_others(found, now)}"
            + "".join(f"; {note.reason}" for note in damaged)
        )
    newer = [note for note in damaged if note.object > meant.backup_id]
    return meant.backup_id, [*newer, *ahead(found, now)]


def but_others(found: Sequence[Manifest], now: datetime) -> str:
    """Return the end of a sentence that says that there is none: those there are are never meant."""
    text = ""
    partial = [manifest for manifest in found if manifest.partial]
    if (last := newest(partial, now)) is not None:
        text = (
            f" but {plural(len(partial), 'partial one')}, the newest {last.backup_id}"
            f" ({'; '.join(last.partial)}); latest never means those: name one by its id"
        )
    return text + "".join(f"; {note.object} {note.reason}" for note in ahead(found, now))


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


def _verdict(backup_id: str, read: int, verified: list[str], failed: list[Note]) -> str:
    if failed:
        first = f"{failed[0].object} {failed[0].reason}"
        more = f", and {len(failed) - 1} more" if len(failed) > 1 else ""
        return f"Backup {backup_id} is damaged: {first}{more}"
    places = ", ".join(verified)
    return f"Backup {backup_id} is verified in {places}: {read} files read again, every byte is right"
