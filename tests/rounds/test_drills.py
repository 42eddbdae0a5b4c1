"""Drills while the database is written to: what is whole is green, and what is not is red and named.

A round is a backup, a drill of it, and a drill of it with one thing changed: a byte or file of the store, or
something in the throwaway server, after the load and before the comparison. `docs/drills.md` has the figures.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from pgsteward.backup.dump import back_up
from pgsteward.backup.receipt_chain import verify_receipts
from pgsteward.postgres import connect
from pgsteward.restore import throwaway
from pgsteward.restore.drill import drill
from pgsteward.restore.scratch import PREFIX
from pgsteward.results import StepResult
from pgsteward.targets import Target
from tests.integration.backup_targets import backup_folder, make_target, own_sessions
from tests.integration.test_drill import nothing_runs, throwaway_servers
from tests.rounds.damage import KINDS, Damage, flip_byte
from tests.rounds.test_rounds import STORED_BYTE, Tally, endless
from tests.rounds.writer import Writers
from tests.servers import Database

FORMS = ({"compress": "none", "jobs": 2}, {"compress": "gzip:1", "mode": "stream"})
MISSING_FILE = "a stored file is missing"


@dataclass(frozen=True, slots=True)
class _Round:
    """One backup, and its drills."""

    target: Target
    writers: Writers
    tally: Tally
    random: Random
    name: str

    def run(self, kind: str) -> None:
        before = self.writers.transactions
        backup_id = str(back_up(self.target).details["backup_id"])
        self.tally.written.append(self.writers.transactions - before)
        whole = drill(self.target, backup_id)
        if (whole.details["verdict"], whole.status) != ("green", "ok"):
            self.tally.false_alarms.append(f"{self.name}: {whole.as_json()}")
        self.tally.changes[kind] += 1
        if kind in KINDS:
            damage, result = self._changed(backup_id, kind)
        else:
            with self._stored(backup_id, kind) as damage:
                result = drill(self.target, backup_id)
        said = f"{self.name}, {kind}, {damage.object} ({damage.what}): {result.as_json()}"
        found = [f"{note.object}: {note.reason}" for note in result.failed]
        if result.details["verdict"] != "red" or not any(damage.object in each for each in found):
            self.tally.misses.append(said)
        elif len(found) > 1:
            self.tally.false_alarms.append(said)

    def _changed(self, backup_id: str, kind: str) -> tuple[Damage, StepResult]:
        """Change one thing in the throwaway server."""
        damages: list[Damage] = []

        def change(what: str, done: int = 0, total: int = 0) -> None:
            if what != "analyzing":
                return
            with connect(servers[0].login(), purpose="test") as session:
                named = "SELECT datname::text FROM pg_database WHERE starts_with(datname, %(prefix)s)"
                name = session.value(named, {"prefix": PREFIX})
            settings = {"search_path": '"the rounds", public'}
            with connect(servers[0].login(name), purpose="test", settings=settings) as session:
                damages.append(KINDS[kind](session, self.random))

        with throwaway_servers() as servers:
            result = drill(self.target, backup_id, progress=change)
        (damage,) = damages
        return damage, result

    @contextlib.contextmanager
    def _stored(self, backup_id: str, kind: str) -> Iterator[Damage]:
        """Change one byte of the stored object, or take one of its files away."""
        folder = backup_folder(self.target, backup_id)
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
        if kind == MISSING_FILE:
            files = [path for path in files if path.parent.name == "dump"]
        path = self.random.choice(files)
        before = path.read_bytes()
        if kind == MISSING_FILE:
            path.unlink()
            what = "taken away"
        else:
            data, what = flip_byte(before, self.random)
            path.write_bytes(data)
        try:
            yield Damage(path.name, what)
        finally:
            path.write_bytes(before)


def test_drills_under_write_load_miss_nothing_and_raise_no_false_alarm(
    busy_database: Database,
    tmp_path: Path,
    seed: int,
    pytestconfig: pytest.Config,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One round, which is two drills, for each five of ``--rounds``."""
    chosen, tally = Random(f"{seed} drills"), Tally()
    targets = []
    for number, form in enumerate(FORMS):
        (tmp_path / f"form{number}").mkdir()
        targets.append(make_target(busy_database, tmp_path / f"form{number}", backup=form))
    kinds = endless([*KINDS, STORED_BYTE, MISSING_FILE], chosen)
    rounds = max(len(FORMS), pytestconfig.getoption("--rounds") // 5)
    began = time.monotonic()
    try:
        with Writers(busy_database, seed).running() as writers:
            for number in range(rounds):
                target = targets[number % len(targets)]
                _Round(target, writers, tally, chosen, f"round {number}").run(next(kinds))
                writers.raise_errors()
                tally.rounds += 1
                tally.seconds = time.monotonic() - began
    finally:
        with capsys.disabled():
            print(f"\nPostgreSQL {busy_database.server.version}, --seed {seed}, drills: {tally}")
    assert (tally.misses, tally.false_alarms) == ([], []), f"--seed {seed}"
    assert [verify_receipts(target).status for target in targets] == ["ok", "ok"]
    assert sum(tally.written) > rounds
    assert nothing_runs(throwaway.root())
    assert own_sessions(busy_database.server) == []
