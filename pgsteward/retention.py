"""The deletion of backups that no rule keeps.

`pgsteward.keep_rules` decides about each store's own catalog of one target and database, and nothing is
touched but the exact keys that a manifest there names.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from pgsteward import results
from pgsteward.backup.freeze import prune_command, still_frozen
from pgsteward.backup.home import spool_store
from pgsteward.backup.identity import identify
from pgsteward.backup.manifest import Manifest
from pgsteward.backup.marks import owner_of
from pgsteward.backup.removing import remove_backup
from pgsteward.config import RetentionConfig
from pgsteward.errors import ConfigError, PreconditionError, StoreFailed, StoreUnavailable
from pgsteward.keep_rules import Decision, apply_policy, asks_first
from pgsteward.ledger import Ledger
from pgsteward.old_versions import hidden_only, retained_until
from pgsteward.postgres_lock import operation_lock
from pgsteward.report.units import humanize_bytes, plural
from pgsteward.results import StepResult
from pgsteward.retention_catalog import (
    Catalog,
    newest_judged,
    newly_red,
    refuse_strangers,
    survey,
    undermined,
)
from pgsteward.storage import Store
from pgsteward.targets import Target

log = logging.getLogger(__name__)

_FROZEN = "pruning is frozen"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to become of one catalog.

    Attributes:
        stays_because: Why all of it stays, where that is so.
        retained: Until when a lock forbids the removal of backups that no rule keeps, by id.
    """

    catalog: Catalog
    decisions: tuple[Decision, ...] = ()
    stays_because: str = ""
    retained: Mapping[str, str] = field(default_factory=dict)

    @property
    def pending(self) -> list[Decision]:
        """The decisions, without those that a lock puts off."""
        return [decision for decision in self.decisions if decision.backup_id not in self.retained]

    @property
    def floors(self) -> list[Manifest]:
        """What no rule may remove: the removal of the others stands on it."""
        return [self.catalog.manifests[each.backup_id] for each in self.decisions if each.is_floor]

    @property
    def unkept(self) -> list[Manifest]:
        """The backups that no rule keeps, oldest first."""
        gone = [decision.backup_id for decision in self.decisions if not decision.keep]
        return [self.catalog.manifests[backup_id] for backup_id in reversed(gone)]

    @property
    def doomed(self) -> list[Manifest]:
        """Those of them that can be removed now."""
        if self.stays_because:
            return []
        return [manifest for manifest in self.unkept if manifest.backup_id not in self.retained]


def prune(
    target: Target, *, dry_run: bool = False, yes_remove: int | None = None, now: datetime | None = None
) -> StepResult:
    """Delete what the policy no longer keeps, in each of the target's stores, each with its own catalog.

    A manifest goes first (the backup stops existing), then the files it names, by exact key; the mark laid
    beside them before lets the janitor finish what a kill interrupts. Where something is red, or more than
    half of a catalog would go, nothing is deleted, and the result's `failed` says what a person can do.

    Args:
        target: Whose backups.
        dry_run: Decide, report, and delete nothing.
        yes_remove: So many backups may go, in all stores together: exactly these or none.
        now: Aware instant to judge by; the clock's when None.

    Raises:
        ConfigError: `yes_remove` is not the number of backups that would go.
        PreconditionError: No store holds a complete backup, one holds those of another cluster, or another
            run works on the backups.
    """
    ledger = Ledger("prune", target.name, dry_run=dry_run)
    moment = now or datetime.now(UTC)
    with operation_lock(target.login("backup"), "backup") as session:
        owner = owner_of(session)
        catalogs, spooled = _look(target, ledger)
        own = (str(owner["system_identifier"]), *target.settings.previous_clusters)
        refuse_strangers(catalogs, target.name, own)
        ledger.examined = sum(len(catalog.backups) for catalog in catalogs)
        if not ledger.examined and not ledger.unknown:
            why = (
                f"no store of target {target.name!r} holds a complete backup of {target.database!r}: nothing"
                " is pruned before a backup has succeeded"
            )
            if dry_run:  # a night that is only tried out has made no backup
                return results.skipped("prune", target.name, why, details={"decisions": [], "bytes": 0})
            raise PreconditionError(why)
        plans = make_plans(catalogs, target.settings.retention_in, moment, spooled)
        for plan in plans:
            if plan.stays_because:
                ledger.skip(f"store {plan.catalog.store.name}", plan.stays_because)
        plans = [_ask_for_locks(target, plan, ledger) for plan in plans]
        stopped = _stop(target, plans, [*catalogs, *spooled], yes_remove, ledger)
        if not stopped:
            for plan in plans:
                stopped = _remove(target, plan, owner, ledger) or stopped
    return _result(ledger, plans, stopped, moment)


def _look(target: Target, ledger: Ledger) -> tuple[list[Catalog], list[Catalog]]:
    """Return the catalogs of the target's stores, and that of its spool, where nothing is pruned."""

    def each(store: Store, found: list[Catalog]) -> None:
        try:
            _refuse_double(names, store.name, identify(target, store))
            catalog = survey(store, target.name, target.database)
        except (StoreUnavailable, StoreFailed) as exc:
            ledger.doubt(f"store {store.name}", str(exc))
            return
        ledger.unknown += catalog.unknown
        found.append(catalog)

    names: dict[str, str] = {}
    catalogs: list[Catalog] = []
    for store in target.stores():
        each(store, catalogs)
    spooled: list[Catalog] = []
    if (spool := spool_store(target)) is not None:
        each(spool, spooled)
    return catalogs, spooled


def _refuse_double(names: dict[str, str], store: str, name: str | None) -> None:
    """Refuse to prune where two stores may be one place: what one's policy keeps, the other's may not.

    Args:
        names: Of the stores before it; this one's is added.
        store: The store.
        name: What it bears.

    Raises:
        PreconditionError: Another one bears it, too.
    """
    if name is not None and names.setdefault(name, store) != store:
        raise PreconditionError(
            f"stores {names[name]} and {store} bear the same name: they are one place, or one is a copy of"
            " the other. Nothing is pruned; `pgsteward doctor` says which it is, and the next upload gives a"
            " copy a name of its own"
        )


def make_plans(
    catalogs: Sequence[Catalog],
    policy_of: Callable[[str], RetentionConfig],
    now: datetime,
    spooled: Sequence[Catalog] = (),
) -> list[Plan]:
    """Decide about each catalog.

    Args:
        catalogs: Of the target's stores.
        policy_of: Gives the policy of a store by its name.
        now: Aware instant to judge by.
        spooled: Of places where backups wait for their upload.
    """
    newest = newest_judged([*catalogs, *spooled], now)
    plans = []
    for catalog in catalogs:
        if not catalog.manifests:
            why = "holds no complete backup of this database; nothing is pruned there"
            plans.append(Plan(catalog, stays_because=why))
        elif newest is not None and newest not in catalog.manifests:
            why = f"does not hold the newest backup, {newest}; nothing is pruned there before its upload"
            decisions = tuple(
                Decision(each.backup_id, True, (f"the store {why}",)) for each in catalog.backups
            )
            plans.append(Plan(catalog, decisions, why))
        else:
            policy = policy_of(catalog.store.name)
            plans.append(Plan(catalog, tuple(apply_policy(catalog.backups, policy, now))))
    return plans


def _ask_for_locks(target: Target, plan: Plan, ledger: Ledger) -> Plan:
    """Find out what Object Lock retains: it goes later, and is no share of a catalog that would go now."""
    store = plan.catalog.store
    retained: dict[str, str] = {}
    for manifest in plan.unkept:
        name = f"{manifest.backup_id} in store {store.name}"
        try:
            until = retained_until(store, target.name, manifest)
        except (StoreUnavailable, StoreFailed) as exc:
            ledger.fail(name, str(exc))
            return replace(plan, stays_because="could not be asked for its locks")
        if until is not None:
            ledger.skip(name, until)
            retained[manifest.backup_id] = until
    return replace(plan, retained=retained)


def _stop(
    target: Target,
    plans: Sequence[Plan],
    catalogs: Sequence[Catalog],
    yes_remove: int | None,
    ledger: Ledger,
) -> str:
    """Say why nothing may be removed now, in a few words; the ledger has all of them. "" when all may go."""
    command = prune_command(target)
    frozen = still_frozen(target, (note for catalog in catalogs for note in catalog.frozen))
    if frozen:
        for note in frozen:
            ledger.fail(note.object, note.reason)
        return _FROZEN
    total = sum(len(plan.doomed) for plan in plans)
    if yes_remove is not None:
        if yes_remove != total:
            raise ConfigError(
                f"--yes-remove {yes_remove} was given and {plural(total, 'backup')} would go: nothing was"
                f" removed. Look at `{command} --dry-run` again"
            )
        return ""
    too_many = [plan for plan in plans if asks_first(plan.pending, plan.catalog.backups)]
    for plan in too_many:
        ledger.fail(
            f"store {plan.catalog.store.name}",
            f"{len(plan.doomed)} of {plural(len(plan.decisions), 'backup')} would go, more than half: nothing"
            f" was removed. Look at `{command} --dry-run`; if that is right: {command} --yes-remove {total}",
        )
    return "more than half would go" if too_many else ""


def _remove(target: Target, plan: Plan, owner: Mapping[str, Any], ledger: Ledger) -> str:
    """Remove what is to go, as long as that is still right; say like `_stop` what has stopped it."""
    store = plan.catalog.store
    removed = False
    stopped = ""

    def objection() -> str:
        nonlocal stopped
        if red := still_frozen(target, newly_red(plan.catalog, target.name, target.database)):
            stopped = _FROZEN
            for note in red:
                ledger.fail(note.object, note.reason)
            return "something red was found while backups were removed; see there"
        return undermined(plan.catalog, plan.floors, target.name)

    for manifest in plan.doomed:
        facts = {"store": store.name, "bytes": manifest.size_bytes, "files": len(manifest.files)}
        name = f"{manifest.backup_id} in store {store.name}"
        try:
            why = "" if ledger.dry_run else remove_backup(store, target.name, manifest, owner, objection)
        except (StoreUnavailable, StoreFailed) as exc:
            ledger.fail(name, str(exc))
            break  # the store has trouble; what is left is removed next time
        if why:
            ledger.skip(name, why)
            break
        removed = True
        if not ledger.dry_run:
            log.info("Removed backup %s from store %s", manifest.backup_id, store.name)
        ledger.change(manifest.backup_id, "would remove" if ledger.dry_run else "removed", **facts)
    if removed and (hides := hidden_only(store, target)) is not None:
        ledger.skip(f"store {store.name}", hides)
    return stopped


def _result(ledger: Ledger, plans: Sequence[Plan], stopped: str, now: datetime) -> StepResult:
    freed = sum(int(item.facts.get("bytes", 0)) for item in ledger.changed)
    verb = "Would remove" if ledger.dry_run else "Removed"
    there = f"{plural(ledger.examined, 'backup')} in {plural(len(plans), 'store')}"
    summary = f"{verb} {len(ledger.changed)} of {there}"
    if freed:
        summary += f" ({humanize_bytes(freed)})"
    if stopped:
        summary += f": {stopped}"
    decisions = [_row(plan, decision, now) for plan in plans for decision in plan.decisions]
    return ledger.result(
        summary, {"decisions": decisions, "bytes": freed}, status="partial" if stopped else None
    )


def _row(plan: Plan, decision: Decision, now: datetime) -> dict[str, Any]:
    manifest = plan.catalog.manifests[decision.backup_id]
    backup = next(each for each in plan.catalog.backups if each.backup_id == decision.backup_id)
    return {
        "backup_id": decision.backup_id,
        "store": plan.catalog.store.name,
        "started_at": manifest.started_at.isoformat(),
        "age_seconds": round((now - manifest.started_at).total_seconds()),
        "proven": backup.proven,
        "keep": decision.keep,
        "action": "keep" if decision.keep else "remove",
        "reasons": list(decision.reasons),
    }
