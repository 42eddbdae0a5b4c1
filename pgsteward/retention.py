"""Which backups are kept, and why; and the deletion of the others.

The decision is pure and has restic's semantics. The deletion walks each store's own catalog of one target
and database, and touches nothing but the exact keys that a manifest there names.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from pgsteward import results, sql
from pgsteward.backup.home import mark
from pgsteward.backup.listing import list_manifests, missing_file
from pgsteward.backup.manifest import MANIFEST, MARK, Manifest, backup_prefix, catalog_prefix
from pgsteward.backup.receipts import Receipt, proven, read_receipts
from pgsteward.config import RetentionConfig
from pgsteward.errors import PreconditionError, StoreFailed, StoreUnavailable
from pgsteward.old_versions import hidden_only, retained
from pgsteward.postgres import operation_lock
from pgsteward.report.units import humanize_bytes, plural
from pgsteward.results import Item, Note, StepResult
from pgsteward.storage import Store
from pgsteward.targets import Target

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Backup:
    """One complete backup, as far as retention cares."""

    backup_id: str
    started_at: datetime
    proven: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of one backup; a kept one names every rule that keeps it."""

    backup_id: str
    keep: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Rule:
    name: str
    count: int
    period: Callable[[datetime], object] | None
    """What a backup's local time is grouped by; None counts each backup on its own."""


def apply_policy(backups: Sequence[Backup], policy: RetentionConfig, now: datetime) -> list[Decision]:
    """Decide about every backup of one database in one store.

    The rules are ORed and work as restic's: each keeps the newest backup of each of the last N periods that
    have one, and, as long as it has not found N, the oldest of all. Periods are those of the calendar in the
    policy's time zone; weeks are ISO weeks. Three things no rule can turn off: the `keep_min` newest stay,
    the newest proven one stays, and one dated after `now` stays and takes nobody's place.

    Args:
        backups: Complete backups, in any order.
        policy: The rules.
        now: Aware instant.

    Returns:
        One decision per backup, newest first.

    Raises:
        ValueError: `now` is naive.
        PreconditionError: The policy is empty, which would remove everything.
    """
    if now.tzinfo is None:
        raise ValueError("now must be an aware datetime")
    rules = _rules(policy)
    if not any(rule.count for rule in rules):
        raise PreconditionError(
            "an empty retention policy would remove every backup; give at least keep_last"
        )
    ordered = sorted(backups, key=lambda b: (b.started_at, b.backup_id), reverse=True)
    present = [backup for backup in ordered if backup.started_at <= now]
    reasons: dict[str, list[str]] = {backup.backup_id: [] for backup in ordered}
    for backup in ordered[: len(ordered) - len(present)]:
        reasons[backup.backup_id].append("dated in the future")
    zone = ZoneInfo(policy.time_zone)
    for rule in rules:
        for backup_id, why in _kept_by(rule, present, zone):
            reasons[backup_id].append(why)
    for backup in present[: policy.keep_min]:
        reasons[backup.backup_id].append(f"one of the {policy.keep_min} newest (keep_min)")
    newest_proven = next((backup for backup in present if backup.proven), None)
    if newest_proven is not None:
        reasons[newest_proven.backup_id].append("newest proven")
    return [
        Decision(
            b.backup_id, bool(reasons[b.backup_id]), tuple(reasons[b.backup_id]) or ("no rule keeps it",)
        )
        for b in ordered
    ]


def _rules(policy: RetentionConfig) -> tuple[_Rule, ...]:
    return (
        _Rule("last", policy.keep_last, None),
        _Rule("daily", policy.keep_daily, lambda at: (at.year, at.month, at.day)),
        _Rule("weekly", policy.keep_weekly, lambda at: tuple(at.isocalendar())[:2]),
        _Rule("monthly", policy.keep_monthly, lambda at: (at.year, at.month)),
    )


def _kept_by(rule: _Rule, newest_first: Sequence[Backup], zone: ZoneInfo) -> list[tuple[str, str]]:
    kept: list[tuple[str, str]] = []
    before: object = None
    for number, backup in enumerate(newest_first):
        if len(kept) == rule.count:
            break
        period = rule.period(backup.started_at.astimezone(zone)) if rule.period else number
        if period != before:
            kept.append((backup.backup_id, f"{rule.name} {len(kept) + 1} of {rule.count}"))
        elif number == len(newest_first) - 1:
            kept.append((backup.backup_id, f"oldest, as {rule.name} has found only {len(kept)}"))
        before = period
    return kept


def prune(target: Target, *, dry_run: bool = False, now: datetime | None = None) -> StepResult:
    """Delete what the policy no longer keeps, in each of the target's stores, each with its own catalog.

    A manifest goes first (the backup stops existing), then the files it names, by exact key; the mark laid
    beside them before lets the janitor finish what a kill interrupts. Damaged backups are left alone.

    Args:
        target: Whose backups.
        dry_run: Decide, report, and delete nothing.
        now: Aware instant to judge by; the clock's when None.

    Raises:
        PreconditionError: No store holds a complete backup, or another run works on the backups.
    """
    began = time.monotonic()
    moment = now or datetime.now(UTC)
    with operation_lock(target.login("backup"), "backup") as session:
        owner = session.row(sql.load("whose_mark"))
        catalogs = [_prune_store(target, store, moment, dry_run, owner) for store in target.stores()]
    examined = sum(catalog.examined for catalog in catalogs)
    changed = tuple(item for catalog in catalogs for item in catalog.changed)
    unknown = tuple(note for catalog in catalogs for note in catalog.unknown)
    failed = tuple(note for catalog in catalogs for note in catalog.failed)
    if examined == 0 and not unknown and not failed:
        why = (
            f"no store of target {target.name!r} holds a complete backup of {target.database!r}: nothing is"
            " pruned before a backup has succeeded"
        )
        if dry_run:  # a night that is only tried out has made no backup
            return results.skipped("prune", target.name, why)
        raise PreconditionError(why)
    freed = sum(int(item.facts.get("bytes", 0)) for item in changed)
    verb = "Would remove" if dry_run else "Removed"
    return StepResult(
        step="prune",
        target=target.name,
        status=results.judge(examined=examined, failed=failed, unknown=unknown, changed=changed),
        examined=examined,
        changed=changed,
        skipped=tuple(note for catalog in catalogs for note in catalog.skipped),
        unknown=unknown,
        failed=failed,
        seconds=time.monotonic() - began,
        summary=f"{verb} {len(changed)} of {plural(examined, 'backup')} in {plural(len(catalogs), 'store')}"
        + (f" ({humanize_bytes(freed)})" if freed else ""),
        details={
            "decisions": [
                {
                    "backup_id": decision.backup_id,
                    "store": catalog.store,
                    "keep": decision.keep,
                    "reasons": list(decision.reasons),
                }
                for catalog in catalogs
                for decision in catalog.decisions
            ],
            "bytes": freed,
        },
        dry_run=dry_run,
    )


@dataclass(frozen=True, slots=True)
class _Catalog:
    store: str
    decisions: tuple[Decision, ...] = ()
    changed: tuple[Item, ...] = ()
    skipped: tuple[Note, ...] = ()
    unknown: tuple[Note, ...] = ()
    failed: tuple[Note, ...] = ()

    @property
    def examined(self) -> int:
        return len(self.decisions)


@dataclass(frozen=True, slots=True)
class Holding:
    """What one store holds of one database, and what the policy decides about it.

    Attributes:
        whole: Backups whose files are all there, newest first.
        broken: Backups that lack a file, and what they lack; they count for no rule.
        receipts: Of all these backups, oldest first; those that can't be read are in `unknown`.
        proven: Ids of the whole backups that a receipt shows to be equal.
        decisions: One per whole backup, newest first.
        unknown: What is damaged, and so left alone.
    """

    whole: tuple[Manifest, ...]
    broken: tuple[tuple[Manifest, str], ...]
    receipts: tuple[Receipt, ...]
    proven: frozenset[str]
    decisions: tuple[Decision, ...]
    unknown: tuple[Note, ...]


def survey(target: Target, store: Store, now: datetime) -> Holding:
    """Find out what a store holds and what `prune` would decide; nothing is changed.

    Raises:
        StoreUnavailable: The store can't be asked now.
        StoreFailed: The store refuses.
    """
    manifests, damaged = list_manifests(store, target.name, target.database)
    ids = {manifest.backup_id for manifest in manifests}
    receipts, unreadable = read_receipts(store, target.name, target.database, ids)
    catalog = catalog_prefix(target.name, target.database)
    sizes = {stored.key: stored.size_bytes for stored in store.objects(catalog)}
    whole, broken = _whole(manifests, sizes, target)
    why = "it counts for no rule and is left alone; remove its manifest if it is of no use"
    protected = {note.object for note in unreadable}
    shown = proven(receipts) - protected
    decisions = _decide(
        whole,
        [Backup(m.backup_id, m.started_at, m.backup_id in shown) for m in whole],
        target.settings.retention,
        now,
    )
    return Holding(
        whole=tuple(whole),
        broken=tuple(broken),
        receipts=tuple(receipts),
        proven=shown,
        decisions=tuple(
            _spared(decision) if decision.backup_id in protected and not decision.keep else decision
            for decision in decisions
        ),
        unknown=(*damaged, *unreadable, *(Note(m.backup_id, f"{lack}: {why}") for m, lack in broken)),
    )


def _prune_store(
    target: Target, store: Store, now: datetime, dry_run: bool, owner: Mapping[str, Any]
) -> _Catalog:
    try:
        held = survey(target, store, now)
    except (StoreUnavailable, StoreFailed) as exc:
        return _Catalog(store.name, unknown=(Note(f"store {store.name}", str(exc)),))
    if not (held.whole or held.broken):
        why = "holds no complete backup of this database; nothing is pruned there"
        return _Catalog(store.name, skipped=(Note(f"store {store.name}", why),), unknown=held.unknown)
    by_id = {manifest.backup_id: manifest for manifest in held.whole}
    changed: list[Item] = []
    failed: list[Note] = []
    skipped: list[Note] = []
    for decision in reversed(held.decisions):  # oldest first
        if decision.keep:
            continue
        manifest = by_id[decision.backup_id]
        facts = {"store": store.name, "bytes": manifest.size_bytes, "files": len(manifest.files)}
        try:
            if (locked := retained(store, target.name, manifest)) is not None:
                skipped.append(Note(f"{decision.backup_id} in store {store.name}", locked))
                continue
            if dry_run:
                changed.append(Item(decision.backup_id, "would remove", facts))
                continue
            remove_backup(store, target.name, manifest, owner)
        except (StoreUnavailable, StoreFailed) as exc:
            failed.append(Note(f"{decision.backup_id} in store {store.name}", str(exc)))
            break  # the store has trouble; what is left is removed next time
        log.info("Removed backup %s from store %s", decision.backup_id, store.name)
        changed.append(Item(decision.backup_id, "removed", facts))
    if changed and (hides := hidden_only(store, target)) is not None:
        skipped.append(Note(f"store {store.name}", hides))
    return _Catalog(
        store.name,
        held.decisions,
        tuple(changed),
        skipped=tuple(skipped),
        unknown=held.unknown,
        failed=tuple(failed),
    )


def _decide(
    manifests: Sequence[Manifest], backups: Sequence[Backup], policy: RetentionConfig, now: datetime
) -> list[Decision]:
    """Apply the policy to whole backups, and to each kind of partial ones by itself: none replaces another.

    Args:
        manifests: Of the backups, in the same order.
        backups: Complete backups.
        policy: The rules.
        now: Aware instant.

    Returns:
        One decision per backup, newest first.
    """
    kinds: dict[tuple[str, ...], list[Backup]] = {}
    for manifest, backup in zip(manifests, backups, strict=True):
        kinds.setdefault(manifest.partial, []).append(backup)
    decisions = {each.backup_id: each for kind in kinds.values() for each in apply_policy(kind, policy, now)}
    ordered = sorted(backups, key=lambda b: (b.started_at, b.backup_id), reverse=True)
    return [decisions[backup.backup_id] for backup in ordered]


def _whole(
    manifests: Sequence[Manifest], sizes: Mapping[str, int], target: Target
) -> tuple[list[Manifest], list[tuple[Manifest, str]]]:
    """Tell the backups whose files are all there from the others, which may push no good one out."""
    whole: list[Manifest] = []
    broken: list[tuple[Manifest, str]] = []
    for manifest in manifests:
        prefix = backup_prefix(target.name, manifest.database, manifest.backup_id)
        there = {key.removeprefix(prefix): size for key, size in sizes.items() if key.startswith(prefix)}
        missing = missing_file(manifest, there)
        if missing is None:
            whole.append(manifest)
        else:
            broken.append((manifest, missing))
    return whole, broken


def _spared(decision: Decision) -> Decision:
    return replace(decision, keep=True, reasons=("its receipt can't be read, so it may be proven",))


def remove_backup(store: Store, target_name: str, manifest: Manifest, owner: Mapping[str, Any]) -> None:
    """Delete one backup from one store: mark, manifest, files, mark; each by exact key.

    From the second step on it is no backup any more. Killed in between, the mark tells the janitor whose
    remains these are.

    Args:
        store: Where from.
        target_name: Name of the target.
        manifest: The backup's own.
        owner: Server and database that the mark names.
    """
    prefix = backup_prefix(target_name, manifest.database, manifest.backup_id)
    store.put_bytes(prefix + MARK, mark(owner, manifest.backup_id, manifest.started_at), passing=True)
    store.delete(prefix + MANIFEST)
    for file in manifest.files:
        store.delete(prefix + file.path)
    store.delete(prefix + MARK)
