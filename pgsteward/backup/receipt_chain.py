"""Whether the receipts of a database are all there, in order, and as they were written.

Each receipt holds the SHA-256 of the one before it, and ``HEAD.json`` that of the newest. This finds what an
accident or an edit changed. Who may write all of the store can write a new chain: against that help a store
with Object Lock, and a page that somebody took away.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from pgsteward import results
from pgsteward.backup.freeze import prunable_stores
from pgsteward.backup.listing import list_manifests
from pgsteward.backup.receipts import (
    HEAD,
    Receipt,
    backup_id_of,
    page_key,
    receipt_keys,
    receipts_prefix,
    written_at_of,
)
from pgsteward.errors import StoreFailed, StoreUnavailable
from pgsteward.report.units import plural
from pgsteward.results import Note, StepResult
from pgsteward.storage import Store
from pgsteward.targets import Target

READERS = 8
NO_HEAD = (
    f"there is no {HEAD}, so nobody can tell whether the newest receipts were taken away; the next receipt"
    " writes it"
)
_PAGE = re.compile(r"SHA-256 of this receipt, `[^`]*`: `([0-9a-f]{64})`")


@dataclass(frozen=True, slots=True)
class Link:
    """One receipt of a chain.

    Attributes:
        key: Where it is.
        sha256: Of its stored bytes.
        receipt: What it says; None where it can't be read.
        page_says: The SHA-256 that the page beside it holds; None where there is no such page.
    """

    key: str
    sha256: str
    receipt: Receipt | None
    page_says: str | None = None

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Chain:
    """All receipts of one database in one store, and what is wrong with them.

    Attributes:
        broken: In the order of the chain: the first is the first broken link.
        odd: What breaks nothing.
        forks: Receipts that were written at one time with another one, on two machines.
        unknown: What could not be told.
    """

    store: str
    links: tuple[Link, ...]
    broken: tuple[Note, ...] = ()
    odd: tuple[Note, ...] = ()
    forks: tuple[Note, ...] = ()
    unknown: tuple[Note, ...] = ()

    def as_json(self) -> dict[str, Any]:
        first = self.broken[0] if self.broken else None
        return {
            "store": self.store,
            "receipts": len(self.links),
            "intact": not self.broken,
            "first_broken": first.as_json() if first else None,
            "oldest_at": written_at_of(self.links[0].key).isoformat() if self.links else None,
            "newest_at": written_at_of(self.links[-1].key).isoformat() if self.links else None,
            "newest_sha256": self.links[-1].sha256 if self.links else None,
        }


def examine_chain(store: Store, target_name: str, database: str) -> Chain:
    """Read all receipts of a database in one store and follow their chain.

    Raises:
        StoreUnavailable: The store can't be asked now.
        StoreFailed: The store refuses.
    """
    prefix = receipts_prefix(target_name, database)
    links = _read(store, receipt_keys(store, prefix), target_name, database, pages=True)
    broken: list[Note] = []
    odd: list[Note] = []
    forks: list[Note] = []
    for number, link in enumerate(links):
        before = links[number - 1] if number else None
        own = _trouble(link)
        if own is not None:
            broken.append(Note(link.key, own))
        if link.receipt is not None:
            _follow(link, before, links[:number], links, broken, forks)
    unknown: list[Note] = []
    _look_at_head(store, prefix, links, len(forks), broken, unknown)
    named = {note.object for note in broken}
    for link in links:
        if link.page_says is None:
            odd.append(Note(page_key(link.key), "is missing: the page for people beside a receipt"))
        elif link.page_says != link.sha256 and link.key not in named:
            what = "is of other bytes than the receipt beside it: one of the two was changed"
            broken.append(Note(page_key(link.key), what))
    order = {link.name.partition(".json")[0]: number for number, link in enumerate(links)}
    broken.sort(key=lambda note: order.get(note.object.rpartition("/")[2].rpartition(".")[0], len(links)))
    return Chain(store.name, tuple(links), tuple(broken), tuple(odd), tuple(forks), tuple(unknown))


def _follow(
    link: Link,
    before: Link | None,
    earlier: Sequence[Link],
    links: Sequence[Link],
    broken: list[Note],
    forks: list[Note],
) -> None:
    """Compare what a receipt says about the one before it with that one.

    Two machines that write at the same time follow the same receipt, or one that is older by several where
    one of them is slow: none is missing then.
    """
    assert link.receipt is not None
    says = link.receipt.previous_sha256
    if says == (before.sha256 if before else None):
        return
    if before is None:
        what = f"it follows a receipt with SHA-256 {says}, which is missing: the chain's beginning is cut off"
    elif says is None:
        what = f"it says that it is the first one, but {before.name} is older"
    elif any(other.sha256 == says for other in links):
        other = next(other for other in links if other.sha256 == says)
        if other in earlier:
            what = f"follows {other.name}, not {before.name}: two machines have written at one time"
            forks.append(Note(link.key, what))
            return
        what = f"out of order: it follows {other.name}, but {before.name} is the one before it"
    elif before.receipt is None:
        return  # which is named already
    elif before.page_says == before.sha256:
        what = f"it follows a receipt with SHA-256 {says}, which is missing between {before.name} and it"
    else:
        why = "the page beside it has other words" if before.page_says else "or one behind it is missing"
        what = f"it was changed after {link.name} was written: {why}"
        broken.append(Note(before.key, what))
        return
    broken.append(Note(link.key, what))


def _trouble(link: Link) -> str | None:
    """Say what is wrong with a receipt by itself, or None."""
    if link.receipt is None:
        return "it can't be read: it is not what was written"
    if link.receipt.written_at.astimezone(UTC) != written_at_of(link.key):
        return f"it was renamed, or changed: it was written at {link.receipt.written_at.isoformat()}"
    if link.receipt.backup_id != backup_id_of(link.key):
        return f"it was renamed, or changed: it is about backup {link.receipt.backup_id}"
    return None


def _look_at_head(
    store: Store, prefix: str, links: Sequence[Link], forks: int, broken: list[Note], unknown: list[Note]
) -> None:
    """Find out whether the newest receipt that was written is still there.

    Args:
        store: Which one.
        prefix: Of the receipts.
        links: The receipts.
        forks: Receipts that were written at one time with another, which their counts may leave out.
        broken: Gets what is wrong.
        unknown: Gets what can't be told.
    """
    key = prefix + HEAD
    try:
        head = json.loads(store.get_bytes(key))
        newest, digest, count = str(head["newest"]), str(head["sha256"]), int(head["receipts"])
    except FileNotFoundError:
        if links:
            unknown.append(Note(key, NO_HEAD))
        return
    except (ValueError, KeyError, TypeError):
        broken.append(Note(key, "it can't be read: it is not what was written"))
        return
    number, found = next(((n, link) for n, link in enumerate(links, 1) if link.name == newest), (0, None))
    if found is None:
        broken.append(Note(prefix + newest, f"it is missing: {HEAD} says that it was the newest one"))
    elif found.sha256 != digest and not any(note.object == found.key for note in broken):
        broken.append(Note(found.key, f"it was changed: {HEAD} has another SHA-256 of it"))
    elif not broken and not number - forks <= count <= number:
        what = f"it counts {plural(count, 'receipt')} up to the newest one it knows, but {number} are there"
        broken.append(Note(key, what))
    if found is not None and number < len(links):
        what = (
            f"it is older than {plural(len(links) - number, 'receipt')} (its last write failed, or two were"
            " written at one time), so nobody can tell whether still newer ones were taken away; the next"
            " receipt writes it"
        )
        unknown.append(Note(key, what))


def _read(store: Store, keys: Sequence[str], target_name: str, database: str, *, pages: bool) -> list[Link]:
    def one(key: str) -> Link:
        data = store.get_bytes(key)
        receipt = None
        with contextlib.suppress(ValidationError):
            receipt = Receipt.model_validate_json(data)
        if receipt is not None and (receipt.target, receipt.database) != (target_name, database):
            receipt = None
        link = Link(key, hashlib.sha256(data).hexdigest(), receipt)
        return replace(link, page_says=_page_says(store, key)) if pages else link

    with ThreadPoolExecutor(READERS, thread_name_prefix="receipts") as readers:
        return list(readers.map(one, keys))


def _page_says(store: Store, key: str) -> str | None:
    try:
        found = _PAGE.search(store.get_bytes(page_key(key)).decode(errors="replace"))
    except FileNotFoundError:
        return None
    return found[1] if found else ""


def verify_receipts(target: Target) -> StepResult:
    """Follow the chain of a database's receipts in every store.

    Returns:
        Status ``failed`` when one is broken: ``failed`` names what is wrong, the first broken link first.
        ``unknown`` when there is no receipt anywhere.
    """
    began = time.monotonic()
    chains: list[Chain] = []
    unknown: list[Note] = []
    skipped: list[Note] = []
    without: list[Store] = []
    for store in prunable_stores(target):
        try:
            chain = examine_chain(store, target.name, target.database)
        except (StoreUnavailable, StoreFailed) as exc:
            unknown.append(Note(f"store {store.name}", f"could not be asked: {exc}"))
            continue
        if not chain.links and not chain.broken:
            without.append(store)
            continue
        chains.append(chain)
    for store in without:
        _explain_none(target, store, chains, skipped, unknown)
    failed = [Note(f"{n.object} in {chain.store}", n.reason) for chain in chains for n in chain.broken]
    unknown += [Note(f"{n.object} in {chain.store}", n.reason) for chain in chains for n in chain.unknown]
    odd = [Note(f"{n.object} in {chain.store}", n.reason) for chain in chains for n in chain.odd]
    skipped += [Note(f"{n.object} in {chain.store}", n.reason) for chain in chains for n in chain.forks]
    examined = sum(len(chain.links) for chain in chains)
    if not chains and not unknown:
        unknown.append(Note(target.database, "no store has a receipt: nothing was restored or drilled yet"))
    return StepResult(
        step="receipts-verify",
        target=target.name,
        status="failed" if failed else results.judge(examined=examined, unknown=unknown, findings=odd),
        examined=examined,
        skipped=tuple(skipped),
        unknown=tuple(unknown),
        failed=tuple(failed),
        findings=tuple(odd),
        seconds=time.monotonic() - began,
        summary=_summary(chains, failed, unknown, examined),
        details={"chains": [chain.as_json() for chain in chains]},
    )


def _explain_none(
    target: Target, store: Store, chains: Sequence[Chain], skipped: list[Note], unknown: list[Note]
) -> None:
    """Say what it means that a store has neither a receipt nor a note of which one is the newest."""
    what, name = f"store {store.name}", target.database
    told = [
        chain.store
        for chain in chains
        if any(link.receipt is not None and link.receipt.copy_of == store.name for link in chain.links)
    ]
    if told:
        why = f"has no receipt of {name}, but {told[0]} has a copy of one: all may have been taken away"
        unknown.append(Note(what, why))
        return
    try:
        backups, damaged = list_manifests(store, target.name, name) if chains else ([], [])
    except (StoreUnavailable, StoreFailed) as exc:
        unknown.append(
            Note(what, f"has no receipt of {name}; whether it has backups could not be asked: {exc}")
        )
        return
    has = f"has no receipt of {name}"
    if count := len(backups) + len(damaged):
        has += (
            f", and {plural(count, 'backup')}: none was restored from there, or all receipts were taken"
            f" away with {HEAD}"
        )
    skipped.append(Note(what, has))


def _summary(chains: Sequence[Chain], failed: Sequence[Note], unknown: Sequence[Note], examined: int) -> str:
    if failed:
        more = f", and {len(failed) - 1} more" if len(failed) > 1 else ""
        return f"The chain of receipts is broken, first at {failed[0].object}: {failed[0].reason}{more}"
    if not chains:
        return "There is no receipt yet"
    stores = ", ".join(chain.store for chain in chains)
    intact = f"{plural(examined, 'receipt')} in {stores}: each is as it was written"
    if unknown:
        return f"{intact}; whether one is missing is unknown: {unknown[0].object} {unknown[0].reason}"
    return f"{intact}, and none is missing"


def list_receipts(target: Target) -> StepResult:
    """List the receipts of a database in every store, newest first; the chain is not followed."""
    began = time.monotonic()
    entries: list[dict[str, Any]] = []
    unknown: list[Note] = []
    now = datetime.now(UTC)
    asked = 0
    for store in prunable_stores(target):
        try:
            prefix = receipts_prefix(target.name, target.database)
            links = _read(store, receipt_keys(store, prefix), target.name, target.database, pages=False)
        except (StoreUnavailable, StoreFailed) as exc:
            unknown.append(Note(f"store {store.name}", f"could not be asked: {exc}"))
            continue
        asked += 1
        unknown += [Note(f"{x.key} in {store.name}", "can't be read") for x in links if x.receipt is None]
        entries += [_entry(store.name, link, link.receipt, now) for link in links if link.receipt]
    entries.sort(key=lambda entry: entry["written_at"], reverse=True)
    return StepResult(
        step="receipts",
        target=target.name,
        status=results.judge(examined=asked, unknown=unknown),
        examined=len(entries),
        unknown=tuple(unknown),
        seconds=time.monotonic() - began,
        summary=f"{plural(len(entries), 'receipt')} of {target.database}",
        details={"receipts": entries},
    )


def _entry(store: str, link: Link, receipt: Receipt, now: datetime) -> dict[str, Any]:
    return {
        "store": store,
        "key": link.key,
        "written_at": receipt.written_at.isoformat(),
        "age_seconds": round((now - receipt.written_at).total_seconds()),
        "what": receipt.what,
        "verdict": receipt.verdict,
        "backup_id": receipt.backup_id,
        "level": receipt.proof.level,
        "rows": receipt.proof.rows,
        "into": receipt.into,
        "differences": list(receipt.differences),
        "recovery_seconds": round(sum(receipt.seconds.values()), 3),
        "reason": receipt.reason,
        "copy_of": receipt.copy_of,
        "sha256": link.sha256,
        "previous_sha256": receipt.previous_sha256,
    }
