"""The proof's own proof: backup, restore, compare, round after round, while the database is written to.

A round is a backup, of which every byte is verified and which must come back equal; the same backup with one
stored byte changed, which must be refused; and the same backup with one thing changed in the restored
database before it is compared, which must be named. `docs/backups.md` has the figures.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest
from pyrage import x25519

from pgsteward.backup.catalog import verify
from pgsteward.backup.manifest import backup_prefix
from pgsteward.backup.run import back_up_everywhere
from pgsteward.errors import PreconditionError, VerificationFailed
from pgsteward.restore.run import restore
from pgsteward.restore.scratch import PREFIX
from pgsteward.storage import Store
from pgsteward.targets import Target
from tests.integration.backup_targets import make_target, own_sessions
from tests.rounds.damage import KINDS, Damage, flip_byte
from tests.rounds.writer import Writers, whole
from tests.servers import Bucket, Database, Server

STORED_BYTE = "one byte of the stored object"


@dataclass(slots=True)
class Tally:
    """What came out of the rounds; misses and false alarms in words."""

    rounds: int = 0
    changes: Counter[str] = field(default_factory=Counter)
    misses: list[str] = field(default_factory=list)
    false_alarms: list[str] = field(default_factory=list)
    written: list[int] = field(default_factory=list)
    """Transactions of the writers during each backup."""
    seconds: float = 0.0

    def __str__(self) -> str:
        kinds = ", ".join(f"{kind} {times}" for kind, times in sorted(self.changes.items()))
        return (
            f"{self.rounds} rounds in {self.seconds:.0f} s, {len(self.false_alarms)} false alarms,"
            f" {len(self.misses)} misses of {self.changes.total()} changes ({kinds}); {sum(self.written)}"
            f" transactions during the backups, {min(self.written, default=0)} during the quietest"
        )


@pytest.fixture
def forms(busy_database: Database, bucket: Bucket, tmp_path: Path) -> list[Target]:
    """The same database as several targets: the ways in which a backup may lie in a store."""
    secret = x25519.Identity.generate()
    key = tmp_path / "key.txt"
    key.write_text(str(secret))
    encrypted: dict[str, Any] = {"encrypt_to": [str(secret.to_public())]}
    ways: list[tuple[tuple[str, ...], dict[str, Any]]] = [
        (("disk",), {"jobs": 2}),
        (("s3",), {"compress": "none", "mode": "stream"}),
        (("disk",), {"compress": "none", "jobs": 1}),
        (("disk", "s3"), {"compress": "gzip:1", "jobs": 2}),
        (("disk",), {"mode": "stream", **encrypted}),
        (("disk",), {"compress": "gzip:1", "jobs": 2}),
        (("s3",), {"plaintext_spool": True, **encrypted}),
    ]
    targets = []
    for number, (stores, settings) in enumerate(ways):
        folder = tmp_path / f"form{number}"
        folder.mkdir()
        identity = {"identity": {"file": str(key)}}
        targets.append(
            make_target(
                busy_database, folder, bucket=bucket, stores=stores, backup=settings, restore=identity
            )
        )
    return targets


@dataclass(frozen=True, slots=True)
class _Round:
    """One backup and what is made of it."""

    database: Database
    target: Target
    writers: Writers
    tally: Tally
    random: Random
    name: str

    def run(self, kind: str) -> None:
        before = self.writers.transactions
        made = back_up_everywhere(self.target)
        self.tally.written.append(self.writers.transactions - before)
        backup_id = str(made.details["backup_id"])
        store = self.random.choice(self.target.stores())
        if made.status != "ok":
            self._false_alarm(f"the backup is {made.status}: {made}")
        if (verified := verify(self.target, backup_id)).status != "ok":
            self._false_alarm(f"the verification is {verified.status}: {verified}")
        self._comes_back_equal(backup_id, store)
        self._is_refused_with_another_byte(backup_id, store)
        self._is_refused_with_damage(backup_id, store, kind)
        for each in self.target.stores():
            for stored in each.objects(self._prefix(backup_id)):
                each.delete(stored.key)

    def _comes_back_equal(self, backup_id: str, store: Store) -> None:
        what = "latest" if self.random.random() < 0.5 else backup_id
        copy = Database(self.database.server, f"copy_{uuid.uuid4().hex[:12]}")
        try:
            restored = restore(self.target, what, store=store.name, into=copy.dbname, jobs=2)
            if restored.status != "ok" or restored.details["proof"]["equal"] is not True:
                self._false_alarm(f"the restore is {restored.status}: {restored}")
            assert restored.details["backup_id"] == backup_id
            assert restored.details["proof"]["level"] == "full"
            with copy.connect() as session:
                assert whole(session), f"{self.name}: the copy is no single moment of the original"
        except VerificationFailed as exc:
            self._false_alarm(f"restored and not equal: {exc}")
        finally:
            self.database.server.drop(copy.dbname)

    def _is_refused_with_another_byte(self, backup_id: str, store: Store) -> None:
        found = store.objects(self._prefix(backup_id))
        keys = sorted(each.key for each in found if each.size_bytes)  # the list of no large objects is empty
        around = [key for key in keys if "/dump/" not in key]
        key = self.random.choice(around if self.random.random() < 0.3 else keys)
        stored = store.get_bytes(key)
        changed, what = flip_byte(stored, self.random)
        store.put_bytes(key, changed)
        self.tally.changes[STORED_BYTE] += 1
        what = f"{key} in {store.name}: {what}"
        if (verified := verify(self.target, backup_id, store=store.name)).status != "failed":
            self._miss(f"{what}: verification says {verified.status}")
        into = f"copy_{uuid.uuid4().hex[:12]}"
        try:
            restored = restore(self.target, backup_id, store=store.name, into=into)
            self._miss(f"{what}: the restore is {restored.status}")
        except (VerificationFailed, PreconditionError):
            if _databases(self.database.server, into) or _databases(self.database.server, f"{PREFIX}%"):
                self._miss(f"{what}: refused, but a database is left")
        finally:
            self.database.server.drop(into)
            store.put_bytes(key, stored)

    def _is_refused_with_damage(self, backup_id: str, store: Store, kind: str) -> None:
        """Change one thing in the restored database, after it was loaded and before it is compared."""
        damages: list[Damage] = []

        def damage(what: str, done: int = 0, total: int = 0) -> None:
            if what == "analyzing":
                (name,) = _databases(self.database.server, f"{PREFIX}%")
                settings = {"search_path": '"the rounds", public'}
                with Database(self.database.server, name).connect(settings=settings) as session:
                    damages.append(KINDS[kind](session, self.random))

        into = f"copy_{uuid.uuid4().hex[:12]}"
        said = "nothing"
        try:
            restore(self.target, backup_id, store=store.name, into=into, jobs=2, progress=damage)
        except VerificationFailed as exc:
            said = str(exc)
        finally:
            self.database.server.drop(into)
        (damaged,) = damages
        self.tally.changes[kind] += 1
        named = said.partition(" holds: ")[2]
        if not named.startswith(f"{damaged.object}: "):
            self._miss(f"{kind}, {damaged.object} ({damaged.what}): {said}")
        elif "; " in named:
            self._false_alarm(f"{damaged.object} was changed: {said}")

    def _prefix(self, backup_id: str) -> str:
        return backup_prefix(self.target.name, self.target.database, backup_id)

    def _miss(self, what: str) -> None:
        self.tally.misses.append(f"{self.name}: {what}")

    def _false_alarm(self, what: str) -> None:
        self.tally.false_alarms.append(f"{self.name}: {what}")


def _databases(server: Server, pattern: str) -> list[str]:
    with server.connect() as session:
        rows = session.rows(
            "SELECT datname::text AS name FROM pg_database WHERE datname LIKE %(pattern)s",
            {"pattern": pattern},
        )
    return [row["name"] for row in rows]


def test_no_change_is_missed_and_nothing_else_is_reported(
    busy_database: Database,
    forms: list[Target],
    seed: int,
    pytestconfig: pytest.Config,
    capsys: pytest.CaptureFixture[str],
) -> None:
    database, tally = busy_database, Tally()
    chosen = Random(f"{seed} rounds")
    kinds = endless(KINDS, chosen)
    began = time.monotonic()
    try:
        with Writers(database, seed).running() as writers:
            for number in range(pytestconfig.getoption("--rounds")):
                target = forms[number % len(forms)]
                _Round(database, target, writers, tally, chosen, f"round {number}").run(next(kinds))
                writers.raise_errors()
                tally.rounds += 1
                tally.seconds = time.monotonic() - began
                if tally.rounds % 20 == 0:
                    with capsys.disabled():
                        print(f"\n{tally}", flush=True)
    finally:
        with capsys.disabled():
            print(f"\nPostgreSQL {database.server.version}, --seed {seed}: {tally}", flush=True)
    assert (tally.misses, tally.false_alarms) == ([], []), f"--seed {seed}"
    assert sum(tally.written) > tally.rounds  # a quick backup on a loaded machine may meet none
    assert own_sessions(database.server) == []


def endless(kinds: Collection[str], chosen: Random) -> Iterator[str]:
    """Return every kind of damage equally often, without end."""
    while True:
        mixed = list(kinds)
        chosen.shuffle(mixed)
        yield from mixed
