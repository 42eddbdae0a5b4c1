"""Red receipts freeze the pruning of their database until a person clears that; both are in the store.

What is wrong with one backup may be wrong with all of them, and then the old ones are what is left. All
stores of the target are told, so that one which can't be asked does not hide it. A network failure is no
evidence: only bytes that were read and are not those that were written, and rows that were restored and are
not those of the proof.
"""

from __future__ import annotations

import contextlib
import getpass
import logging
import shlex
import socket
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version

from pgsteward import results
from pgsteward.backup.home import spool_store
from pgsteward.backup.receipts import (
    Compared,
    Entry,
    Receipt,
    Verdict,
    What,
    read_chain,
    read_receipts,
    red,
    write_receipt,
)
from pgsteward.errors import ConfigError, StewardError, StoreFailed, StoreUnavailable
from pgsteward.report.units import plural
from pgsteward.results import Item, Note, StepResult
from pgsteward.storage import Store
from pgsteward.targets import Target

log = logging.getLogger(__name__)

_MAX_DIFFERENCES = 20


def freezing(chain: Sequence[Entry]) -> list[Entry]:
    """Return the links of a chain that freeze pruning: what is red, and what nobody has cleared since.

    One that can't be read may be red, and counts as such. Clearing names what it clears: another machine may
    have found something red meanwhile, which nobody has looked at.
    """
    found: list[Entry] = []
    for entry in chain:
        if entry.receipt is None or entry.receipt.verdict == "red":
            found.append(entry)
        elif entry.receipt.verdict == "cleared":
            seen = {_name(key) for key in entry.receipt.differences}
            found = [each for each in found if _name(each.key) not in seen]
    return found


def _name(key: str) -> str:
    return key.rpartition("/")[2]


def why_frozen(entry: Entry) -> Note:
    """Say for people why pruning is frozen."""
    receipt = entry.receipt
    if receipt is None:
        return Note(entry.backup_id, f"{entry.trouble}: it may be a red one")
    first = f": {receipt.differences[0]}" if receipt.differences else ""
    more = f" and {len(receipt.differences) - 1} more" if len(receipt.differences) > 1 else ""
    when = f"{receipt.written_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    return Note(entry.backup_id, f"red {receipt.what} from store {receipt.store}, {when}{first}{more}")


def still_frozen(target: Target, found: Iterable[Note]) -> list[Note]:
    """Say for people what keeps a target's database from being pruned, and how it goes on.

    Args:
        target: Whose.
        found: What `why_frozen` said, in all stores; a red receipt is told to each of them.
    """
    todo = (
        "Pruning is frozen until you have looked at it and say so:"
        f" {prune_command(target)} --clear-freeze 'what was found out'"
    )
    return [Note(note.object, f"{note.reason}. {todo}") for note in dict.fromkeys(found)]


def prune_command(target: Target) -> str:
    """Return what prunes the database of a target, as a person writes it."""
    command = f"pgsteward prune {target.name}"
    if target.settings.databases is not None:
        command += f" --database {shlex.quote(target.database)}"
    return command


def leave_damage(
    store: Store, target: Target, backup_id: str, what: What, problems: Sequence[str]
) -> list[Note]:
    """Leave a red receipt beside a backup whose stored bytes are not what was written.

    What the newest receipt says already is not said again: a freeze that was cleared stays cleared.

    Returns:
        A note when it could not be written there; the target's other stores get a copy all the same.
    """
    last: Receipt | None = None
    with contextlib.suppress(StewardError):  # rather twice than never
        last = red(read_receipts(store, target.name, target.database, {backup_id})[0]).get(backup_id)
    if last is not None and (last.what, last.differences) == (what, tuple(problems[:_MAX_DIFFERENCES])):
        return []
    return _leave(store, target, backup_id, what, "red", problems[:_MAX_DIFFERENCES])


def leave_repair(store: Store, target: Target, backup_id: str) -> list[Note]:
    """Leave a green receipt where a `verify` before found damage and this one found none.

    The backup can be judged again, and is unproven; what is frozen stays so until somebody clears it.
    """
    try:
        receipts, _ = read_receipts(store, target.name, target.database, {backup_id})
    except StewardError as exc:
        return [Note(f"receipts in {store.name}", f"could not be read: {exc}")]
    last = red(receipts).get(backup_id)
    if last is None or last.what != "verify":
        return []
    return _leave(store, target, backup_id, "verify", "green", ())


def _leave(
    store: Store,
    target: Target,
    backup_id: str,
    what: What,
    verdict: Verdict,
    problems: Sequence[str],
    *,
    reason: str = "",
) -> list[Note]:
    receipt = Receipt(
        previous_sha256=None,
        written_at=datetime.now(UTC),
        backup_id=backup_id,
        target=target.name,
        database=target.database,
        store=store.name,
        what=what,
        pgsteward_version=version("pgsteward"),
        proof=Compared(level="none", relations=0, rows=0, equal=False),
        differences=tuple(problems),
        verdict=verdict,
        reason=reason,
        by=_whoever() if reason else "",
    )
    trouble: list[Note] = []
    try:
        write_receipt(store, receipt)
    except StewardError as exc:
        trouble = [Note(f"receipt in {store.name}", f"could not be written: {exc}")]
    if verdict == "red":
        log.warning("pruning of %s is frozen: backup %s is damaged", target.database, backup_id)
        tell_others(target, receipt)
    return trouble


def tell_others(target: Target, receipt: Receipt) -> None:
    """Leave a copy of a red receipt in the target's other stores, which freezes them by itself."""
    for store in target.stores():
        if store.name == receipt.store:
            continue
        try:
            write_receipt(store, receipt.model_copy(update={"copy_of": receipt.store}))
        except StewardError as exc:
            log.warning("the red receipt could not be told to store %s: %s", store.name, exc)


def clear_freeze(target: Target, reason: str, *, dry_run: bool = False) -> StepResult:
    """Let pruning go on after something red; who said so, when and why is kept in each store it concerns.

    Backups whose newest receipt is red stay where they are and count for no rule.

    Args:
        target: Whose backups.
        reason: What was found out about it, for those who ask later.
        dry_run: Say what would be cleared.

    Raises:
        ConfigError: The reason is empty.
    """
    began = time.monotonic()
    if not reason.strip():
        raise ConfigError("say why pruning may go on: --clear-freeze 'what was found out about it'")
    examined = 0
    changed: list[Item] = []
    unknown: list[Note] = []
    failed: list[Note] = []
    for store in prunable_stores(target):
        try:
            frozen = freezing(read_chain(store, target.name, target.database))
        except (StoreUnavailable, StoreFailed) as exc:
            unknown.append(Note(f"store {store.name}", f"could not be asked, and may be frozen still: {exc}"))
            continue
        examined += 1
        if not frozen:
            continue
        facts = {"store": store.name, "red": len(frozen), "reason": reason}
        last = frozen[-1].backup_id
        if dry_run:
            changed.append(Item(last, "would clear", facts))
            continue
        trouble = _leave(
            store, target, last, "clear-freeze", "cleared", [entry.key for entry in frozen], reason=reason
        )
        failed += trouble
        if not trouble:
            changed.append(Item(last, "cleared", facts))
    stores = ", ".join(str(item.facts["store"]) for item in changed)
    verb = "Would clear" if dry_run else "Cleared"
    return StepResult(
        step="clear-freeze",
        target=target.name,
        status=results.judge(examined=examined, failed=failed, unknown=unknown, changed=changed),
        examined=examined,
        changed=tuple(changed),
        unknown=tuple(unknown),
        failed=tuple(failed),
        seconds=time.monotonic() - began,
        summary=f"{verb} the freeze of {target.database} in {stores}: {reason}"
        if changed
        else f"Nothing was cleared: no freeze in {plural(examined, 'store')}",
        details={"reason": reason},
        dry_run=dry_run,
    )


def prunable_stores(target: Target) -> list[Store]:
    """Return the stores whose receipts can freeze the target: all of its own, and the spool."""
    stores = target.stores()
    spool = spool_store(target)
    return stores if spool is None else [*stores, spool]


def _whoever() -> str:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        user = "somebody"
    return f"{user}@{socket.gethostname()}"
