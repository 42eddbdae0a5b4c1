"""What the tests of faults share: a database whose dump is held in the middle, and what must be left."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pgsteward.backup.catalog import backups, verify
from pgsteward.backup.dump import back_up
from pgsteward.backup.home import home_store
from pgsteward.errors import StewardError, TransientError
from pgsteward.janitor import clean_up
from pgsteward.postgres import Login
from pgsteward.results import StepResult
from pgsteward.targets import Target
from tests.faults.disk import Disk
from tests.faults.proxy import WAIT_S, Hold, Proxy, striking, through_proxy
from tests.faults.rows import Said, check_seen, read_rows, words_of
from tests.integration.backup_targets import make_target, nothing_left, own_sessions
from tests.servers import Database

DOCS = Path(__file__).parents[2] / "docs" / "faults.md"


Outcome = StewardError | StepResult | Said
Fault = Callable[["Scene"], Outcome]
TABLES = b"""
CREATE TABLE big AS SELECT g AS id, repeat(md5(g::text), 3) AS filler FROM generate_series(1, 90000) AS g;
CREATE TABLE small AS SELECT 1 AS a
"""
"""The first is larger than what may lie in the buffers of a connection."""

FAULTS: dict[str, Fault] = {}
"""Every fault of the matrix by its name; test_matrix.py compares them with the documentation."""


MODES: dict[str, tuple[str, ...]] = {}
BOTH = ("directory", "stream")


def fault(name: str, *modes: str) -> Callable[[Fault], Fault]:
    """Register what makes a fault happen and returns how the backup ended.

    Args:
        name: As the documentation calls it.
        modes: In which it is tried; without any, in a folder of files alone: they make no difference.
    """

    def register(strike: Fault) -> Fault:
        assert name not in FAULTS
        FAULTS[name] = strike
        MODES[name] = modes or ("directory",)
        return strike

    return register


def cases(module: str) -> list[Any]:
    """Return the parameters (mode, fault) of a module's test, in the order of the documentation."""
    return [
        pytest.param(mode, name, id=f"{name}-{mode}") for name in names_in(module) for mode in MODES[name]
    ]


def names_in(module: str) -> list[str]:
    """Return the faults that a module has registered, in the order of the documentation."""
    known = matrix()
    found = [name for name, strike in FAULTS.items() if strike.__module__ == module]
    return sorted(found, key=list(known).index) if set(found) <= set(known) else found


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the matrix in docs/faults.md."""

    fault: str
    phase: str
    seen: str
    again: str
    remains: str

    def check(self, outcome: Outcome) -> None:
        """Compare how a backup ended with what the documentation says; ``...`` stands for anything."""
        if isinstance(outcome, (Said, StewardError)):
            expected = "yes" if isinstance(outcome, TransientError) else "no"
            said = [words_of(self.fault, outcome)]
        else:
            expected = "at once" if outcome.details["retried"] else "goes on"
            notes = (*outcome.failed, *outcome.unknown, *outcome.findings)
            said = [*outcome.details["retried"], *outcome.details["warnings"]]
            said += [f"{note.object}: {note.reason}" for note in notes] or ["nothing"]
        check_seen(self.fault, self.seen, said)
        assert expected == self.again, f"{self.fault}: {outcome!r}"


def matrix() -> Mapping[str, Row]:
    """Return the documented faults by name."""
    return {row[0]: Row(*row) for row in read_rows(DOCS, 5)}


@dataclass(slots=True)
class Scene:
    """A database of some megabytes behind a proxy.

    Attributes:
        settings: Further settings of every backup here.
        whole: Further settings of the target.
        disk: What can be filled, where a test has such a thing.
    """

    database: Database
    proxy: Proxy
    folder: Path
    mode: str
    settings: dict[str, Any]
    whole: dict[str, Any]
    disk: Disk | None = None

    def target(self, *, login: Login | None = None, **backup: Any) -> Target:
        """Return a target that reaches the database through the proxy, if no other login is given."""
        settings = {"compress": "none", "mode": self.mode, "jobs": 2, **self.settings, **backup}
        return make_target(
            self.database, self.folder, login=login or self.proxy.login, backup=settings, **self.whole
        )

    def fail(self, target: Target | None = None) -> StewardError:
        """Run a backup and return why it failed."""
        with pytest.raises(StewardError) as caught:
            back_up(target or self.target())
        return caught.value

    def hold_the_dump(self) -> Hold:
        """Hold pg_dump in the middle of the rows of ``big``."""
        return self.proxy.hold("pgsteward dump", asked=b"COPY public.big", answered=100_000)

    def strike(self, hold: Hold, blow: Callable[[], object], **backup: Any) -> StewardError:
        """Run a backup, strike when a session is held, let it go on; return how the backup failed."""
        with pytest.raises(StewardError) as caught:
            self.struck(hold, blow, **backup)
        return caught.value

    def struck(self, hold: Hold, blow: Callable[[], object], **backup: Any) -> StepResult:
        """Do the same with a backup that goes well in the end."""
        dumping = threading.Event()

        def progress(what: str, done: int = 0, total: int = 0) -> None:
            if what.startswith("dumping"):
                dumping.set()

        def blow_in_time() -> None:
            if hold.answered is not None:  # the proof is done: nothing else can fail
                assert dumping.wait(WAIT_S)
            blow()

        with striking(hold, blow_in_time):
            return back_up(self.target(**backup), progress=progress)

    def end_sessions(self, name: str) -> None:
        """Terminate the sessions of an ``application_name``, as a DBA does, and see them end."""
        ended = self.database.rows(
            "SELECT pg_terminate_backend(pid, 60000) AS ended FROM pg_stat_activity"
            " WHERE application_name = %(name)s AND datname = current_database()",
            {"name": name},
        )
        assert ended
        assert all(row["ended"] for row in ended), "they were told to end, and went on"

    def check_aftermath(self, row: Row) -> None:
        """Nothing is left but what the row says, and the next run works."""
        target = self.target(login=self.database.login)
        until(lambda: not tools_of(self.database.dbname), "processes end")
        until(lambda: not own_sessions(self.database.server), "sessions end")
        before = 0
        if row.remains == "nothing":
            assert is_empty(target)
        elif row.remains == "what the next janitor removes":
            self._check_janitor(target)
        else:
            assert row.remains.startswith("a whole backup")
            [backup_id] = [each["backup_id"] for each in backups(target).details["backups"]]
            assert verify(target, backup_id).status == "ok"
            before = 1
        assert back_up(target).status == "ok"
        assert len(backups(target).details["backups"]) == before + 1

    def _check_janitor(self, target: Target) -> None:
        assert not is_empty(target)
        assert backups(target).details["backups"] == []
        assert [item.action for item in clean_up(target).changed] == ["removed"]
        assert is_empty(target)


def is_empty(target: Target) -> bool:
    """Tell whether the home store holds nothing at all, finished or not."""
    store = home_store(target)
    return nothing_left(target) if store.local_folder("") is not None else not list(store.objects(""))


def tools_of(dbname: str, program: str | None = None) -> list[int]:
    """Return the processes of PostgreSQL's tools, or of one of them, that work on a database, orphans too."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            name = Path(words[0].decode(errors="replace")).name
            wanted = name == program if program else name.startswith("pg_")
            if wanted and any(dbname.encode() in word for word in words):
                found.append(int(entry.name))
    return found


def leader_of(dbname: str) -> int:
    """Return the process of pg_dump that has started the others."""
    return min(tools_of(dbname, "pg_dump"), key=lambda pid: os.getsid(pid) != pid)


def until(fact: Callable[[], bool], what: str, timeout_s: float = 60.0) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + timeout_s
    while not fact():
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s} s"
        time.sleep(0.05)


@contextmanager
def made_scene(database: Database, folder: Path, mode: str) -> Iterator[Scene]:
    """Give a scene, of a database with `TABLES`, with its proxy, and end the proxy afterwards."""
    with through_proxy(database.login) as proxy:
        yield Scene(database, proxy, folder, mode, {}, {})


def play(scene: Scene, name: str) -> None:
    """Make a fault happen and compare it with its row in the documentation."""
    row = matrix()[name]
    row.check(FAULTS[name](scene))
    scene.check_aftermath(row)
