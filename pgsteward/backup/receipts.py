"""Receipts: who restored what, and was it equal. One hash chain per database and store, never pruned.

A backup is *proven* when a green receipt in the same store says that it was restored from there and that
the whole database was equal to the proof in its manifest. A *red* one says that it was not equal, or that
stored bytes are not what was written: from then on nothing of this database is pruned, until somebody says in
a receipt of its own why that may go on.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from pgsteward.backup.manifest import BACKUP_ID, ProofLevel, catalog_prefix
from pgsteward.backup.reading import contents
from pgsteward.backup.receipt_page import page_of
from pgsteward.errors import StewardError
from pgsteward.places import state_folder
from pgsteward.results import Note
from pgsteward.storage import Store

log = logging.getLogger(__name__)

RECEIPTS = "receipts/"
HEAD = "HEAD.json"
"""Says which receipt is the newest one: without it nobody could tell that the end of a chain is missing."""
FORMAT_VERSION = 1
_STAMP = "%Y%m%dT%H%M%S.%fZ"

What = Literal["restore", "drill", "verify", "clear-freeze"]
Verdict = Literal["green", "red", "cleared"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Compared(_Model):
    """What was compared with the manifest, and how closely."""

    level: ProofLevel
    relations: int
    rows: int
    equal: bool


class Receipt(_Model):
    """Evidence of one restore, of damage that was found, or of a freeze that somebody cleared.

    Attributes:
        previous_sha256: SHA-256 of the stored bytes of the receipt before this one; None in the first.
        what: Which work it was.
        differences: What was not equal or is damaged, in sentences; empty in a green one.
        copy_of: Of a red one that is told in the target's other stores as well: the store it is about.
        reason: Of a cleared freeze: why pruning may go on.
        by: Of a cleared freeze: the user and the machine that said so.
    """

    format_version: int = FORMAT_VERSION
    previous_sha256: str | None
    written_at: AwareDatetime
    backup_id: str
    target: str
    database: str
    store: str
    what: What
    into: str = ""
    server_version: str = ""
    pgsteward_version: str
    proof: Compared
    differences: tuple[str, ...] = ()
    seconds: dict[str, float] = Field(default_factory=dict)
    verdict: Verdict
    copy_of: str = ""
    reason: str = ""
    by: str = ""

    @property
    def is_evidence(self) -> bool:
        """True when it is about the copy of a backup that lies in the same store."""
        return self.verdict != "cleared" and not self.copy_of

    @property
    def compared(self) -> bool:
        """True for a restore that came as far as comparing rows; damage is found before."""
        return self.proof.level != "none"

    def to_bytes(self) -> bytes:
        """Return the JSON that is stored."""
        return self.model_dump_json(indent=1).encode() + b"\n"


def write_receipt(store: Store, receipt: Receipt) -> str:
    """Chain a receipt to the newest one of its database, store it and return its key.

    Its `previous_sha256` and, where the clock went backwards, its `written_at` are set here. Beside it go a
    page for people and the note of which one is the newest; a receipt without them is one all the same.
    """
    prefix = receipts_prefix(receipt.target, receipt.database)
    with _one_at_a_time():
        keys = receipt_keys(store, prefix)
        written_at = receipt.written_at.astimezone(UTC)
        previous = None
        if keys:
            previous = hashlib.sha256(store.get_bytes(keys[-1])).hexdigest()
            written_at = max(written_at, written_at_of(keys[-1]) + timedelta(microseconds=1))
        chained = receipt.model_copy(update={"previous_sha256": previous, "written_at": written_at})
        key = f"{prefix}{written_at.strftime(_STAMP)}-{receipt.backup_id}.json"
        data = chained.to_bytes()
        store.put_bytes(key, data)
        page = page_of(chained, key.removeprefix(prefix), hashlib.sha256(data).hexdigest())
        _put_beside(store, page_key(key), page.encode())
        _put_head(store, prefix, [*keys, key], data)
    return key


def _put_head(store: Store, prefix: str, keys: Sequence[str], newest: bytes) -> None:
    """Note down which receipt is the newest, until no other machine has written one meanwhile.

    Args:
        store: Where they are.
        prefix: Of the receipts.
        keys: Of all that are known, oldest first.
        newest: What the last of them holds.
    """
    while True:
        head = {
            "newest": keys[-1].removeprefix(prefix),
            "sha256": hashlib.sha256(newest).hexdigest(),
            "receipts": len(keys),
        }
        _put_beside(store, prefix + HEAD, json.dumps(head, indent=1).encode() + b"\n")
        try:
            there = sorted({*keys, *receipt_keys(store, prefix)})
            if there == sorted(keys):
                return
            newest = store.get_bytes(there[-1])
        except StewardError as exc:
            log.warning("a receipt was written; whether another one was meanwhile is unknown: %s", exc)
            return
        keys = there


def _put_beside(store: Store, key: str, data: bytes) -> None:
    """Store what belongs to a receipt; tried twice, as a verification misses it."""
    for last in (False, True):
        try:
            store.put_bytes(key, data)
        except StewardError as exc:
            if last:
                log.warning("a receipt was written, but %s beside it could not be: %s", key, exc)
        else:
            return


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Let no two runs on this machine chain their receipts to the same one."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError, StewardError):  # without state: only others on this machine matter
            folder = state_folder()
            folder.mkdir(parents=True, exist_ok=True)
            fcntl.flock(held.enter_context((folder / "receipts.lock").open("wb")), fcntl.LOCK_EX)
        yield


@dataclass(frozen=True, slots=True)
class Entry:
    """One link of the chain; without a receipt where it can't be read, and then `trouble` says why."""

    key: str
    backup_id: str
    receipt: Receipt | None
    trouble: str = ""

    @property
    def note(self) -> Note:
        return Note(self.backup_id, self.trouble)


def read_chain(
    store: Store,
    target_name: str,
    database: str,
    backup_ids: Collection[str] | None = None,
    *,
    but: Collection[str] = (),
) -> list[Entry]:
    """Return the receipts of one database in one store, oldest first, those that can't be read too.

    Args:
        store: Where to look.
        target_name: Name of the target.
        database: Name of the database.
        backup_ids: Read only the receipts of these backups; the chain grows for ever.
        but: Keys of receipts that are left out.
    """
    chain: list[Entry] = []
    keys = [key for key in receipt_keys(store, receipts_prefix(target_name, database)) if key not in but]
    if backup_ids is not None:
        keys = [key for key in keys if backup_id_of(key) in backup_ids]
    for key, data in zip(keys, contents(store, keys), strict=True):
        backup_id = backup_id_of(key)
        receipt, trouble = None, ""
        try:
            receipt = Receipt.model_validate_json(data)
        except ValidationError:
            trouble = f"its receipt {key} in store {store.name!r} is damaged"
        if receipt is not None and (receipt.backup_id, receipt.database) != (backup_id, database):
            receipt, trouble = None, f"the receipt {key} in store {store.name!r} is of another backup"
        chain.append(Entry(key, backup_id, receipt, trouble))
    return chain


def read_receipts(
    store: Store, target_name: str, database: str, backup_ids: Collection[str] | None = None
) -> tuple[list[Receipt], list[Note]]:
    """Return the receipts of one database in one store, oldest first, and notes on damaged ones.

    Args:
        store: Where to look.
        target_name: Name of the target.
        database: Name of the database.
        backup_ids: Read only the receipts of these backups; the chain grows for ever.

    Returns:
        Receipts, and one note per receipt that can't be read; its object is the **backup id**.
    """
    chain = read_chain(store, target_name, database, backup_ids)
    receipts = [entry.receipt for entry in chain if entry.receipt is not None]
    return receipts, [entry.note for entry in chain if entry.receipt is None]


def newest_store(store: Store, target_name: str, database: str) -> str | None:
    """Return what the configuration calls a store, where one of its newest receipts says it."""
    for key in reversed(receipt_keys(store, catalog_prefix(target_name, database) + RECEIPTS)[-5:]):
        try:
            receipt = Receipt.model_validate_json(store.get_bytes(key))
        except ValidationError:
            continue
        if receipt.is_evidence and receipt.store:
            return receipt.store
    return None


def proven(receipts: Collection[Receipt]) -> frozenset[str]:
    """Return the ids that the receipts prove: the newest receipt of a backup decides."""
    return frozenset(
        backup_id
        for backup_id, receipt in _newest(receipts).items()
        if receipt.verdict == "green" and receipt.proof.equal and receipt.proof.level != "none"
    )


def red(receipts: Collection[Receipt]) -> dict[str, Receipt]:
    """Return the newest receipts of those backups for which that is a red one, by id."""
    return {id_: receipt for id_, receipt in _newest(receipts).items() if receipt.verdict == "red"}


def _newest(receipts: Collection[Receipt]) -> dict[str, Receipt]:
    """Return the newest evidence on each backup."""
    evidence = [receipt for receipt in receipts if receipt.is_evidence]
    return {receipt.backup_id: receipt for receipt in sorted(evidence, key=lambda r: r.written_at)}


def receipts_prefix(target_name: str, database: str) -> str:
    """Return the key prefix of one database's receipts, with its slash."""
    return catalog_prefix(target_name, database) + RECEIPTS


def page_key(key: str) -> str:
    """Return the key of the page for people beside a receipt."""
    return key.removesuffix(".json") + ".md"


def receipt_keys(store: Store, prefix: str) -> list[str]:
    """Return the keys of the receipts below `prefix`, oldest first."""
    return [stored.key for stored in store.objects(prefix) if _is_receipt(stored.key.removeprefix(prefix))]


def _is_receipt(name: str) -> bool:
    stamp, _, rest = name.partition("-")
    if not rest.endswith(".json") or not BACKUP_ID.fullmatch(rest.removesuffix(".json")):
        return False
    try:
        datetime.strptime(stamp, _STAMP).replace(tzinfo=UTC)
    except ValueError:
        return False
    return True


def backup_id_of(key: str) -> str:
    """Return the backup that a receipt is about, as its name says."""
    return key.rpartition("/")[2].partition("-")[2].removesuffix(".json")


def written_at_of(key: str) -> datetime:
    """Return when a receipt was written, as its name says."""
    return datetime.strptime(key.rpartition("/")[2].partition("-")[0], _STAMP).replace(tzinfo=UTC)
