"""What the tests of restores under attack share: a database, its backup, and what must hold afterwards."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pyrage import x25519

from pgsteward.backup.dump import back_up
from pgsteward.backup.manifest import MANIFEST
from pgsteward.backup.receipt_chain import verify_receipts
from pgsteward.errors import StewardError
from pgsteward.janitor import clean_up
from pgsteward.postgres import Login, compose, identifier
from pgsteward.restore.fetch import spool_root
from pgsteward.restore.run import restore
from pgsteward.restore.scratch import PREFIX
from pgsteward.results import StepResult
from pgsteward.targets import Target
from tests.faults.proxy import Hold, Proxy, striking, through_proxy
from tests.faults.rows import Said, check_seen, read_rows, words_of
from tests.faults.scene import tools_of, until
from tests.integration.backup_targets import backup_folder, make_target, own_sessions
from tests.servers import Database, Server

DOCS = Path(__file__).parents[2] / "docs" / "faults-restore.md"
TABLES = """
CREATE TABLE big AS SELECT g AS id, md5(g::text) AS filler FROM generate_series(1, 2000) AS g;
ALTER TABLE big ADD PRIMARY KEY (id);
CREATE TABLE small AS SELECT 1 AS a, 'backed up' AS says;
CREATE SEQUENCE numbers START 7;
CREATE MATERIALIZED VIEW how_many AS SELECT count(*) AS n FROM public.big;
CREATE FUNCTION stay() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER stays BEFORE INSERT ON big FOR EACH ROW EXECUTE FUNCTION stay();
"""
MOVED_ON = "UPDATE small SET says = 'moved on'"
SAYS = "SELECT says || ', ' || (SELECT count(*) FROM big) FROM small"
BACKED_UP, ORIGINAL = "backed up, 2000", "moved on, 2000"
IDENTITY = """
SELECT d.oid, pg_get_userbyid(d.datdba) AS owner, d.datacl::text AS acl, d.datconnlimit,
       d.datallowconn, shobj_description(d.oid, 'pg_database') AS comment,
       (SELECT json_agg(s.setconfig) FROM pg_db_role_setting AS s WHERE s.setdatabase = d.oid)::text AS sets
  FROM pg_database AS d
 WHERE d.datname = %(name)s
"""

Outcome = StewardError | StepResult | Said
Fault = Callable[["Scene"], Outcome]
FAULTS: dict[str, Fault] = {}
"""Every fault by its name; test_matrix.py compares them with the documentation."""


def fault(name: str) -> Callable[[Fault], Fault]:
    """Register what makes a fault of the documentation happen and returns how the restore ended."""

    def register(strike: Fault) -> Fault:
        assert name not in FAULTS
        FAULTS[name] = strike
        return strike

    return register


def names_in(module: str) -> list[str]:
    """Return the faults that a module has registered."""
    return [name for name, strike in FAULTS.items() if strike.__module__ == module]


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the matrix in docs/faults-restore.md."""

    fault: str
    phase: str
    seen: str
    remains: str

    def check(self, outcome: Outcome) -> None:
        """Compare how a restore ended with what the documentation says; ``...`` stands for anything."""
        if isinstance(outcome, (Said, StewardError)):
            said = [words_of(self.fault, outcome)]
        else:
            notes = (*outcome.failed, *outcome.unknown, *outcome.skipped)
            said = [f"{note.object}: {note.reason}" for note in notes] or ["nothing"]
        check_seen(self.fault, self.seen, said)
        ended_well = isinstance(outcome, StepResult)
        assert ended_well == self.remains.startswith("a "), f"{self.fault}: {outcome!r}"


def matrix() -> Mapping[str, Row]:
    """Return the documented faults by name."""
    return {row[0]: Row(*row) for row in read_rows(DOCS, 4)}


@dataclass(frozen=True, slots=True)
class Stage:
    """What is made once for all faults: a template, and its backup in two stores, one of them encrypted.

    Attributes:
        name: The database's, which is made anew for each fault.
        owner: Of its table ``small``.
        folder: Holds ``plain/store``, ``sealed/store`` and the key.
    """

    server: Server
    name: str
    owner: str
    folder: Path

    @property
    def template(self) -> str:
        return f"{self.name}_template"

    @property
    def key(self) -> Path:
        return self.folder / "key.txt"


@contextmanager
def made_stage(server: Server, folder: Path) -> Iterator[Stage]:
    """Make the backup."""
    suffix = uuid.uuid4().hex[:8]
    stage = Stage(server, f"test_Attacked {suffix}", f"Owner {suffix}", folder)
    key = x25519.Identity.generate()
    stage.key.write_text(str(key))
    server.create(stage.name)
    original = Database(server, stage.name)
    original.execute(compose("CREATE ROLE {}", identifier(stage.owner)))
    original.execute(TABLES.encode())
    original.execute(compose("ALTER TABLE small OWNER TO {}", identifier(stage.owner)))
    for name, settings in {"plain": {}, "sealed": {"encrypt_to": [str(key.to_public())]}}.items():
        (folder / name).mkdir()
        back_up(make_target(original, folder / name, backup={"compress": "none", **settings}))
    original.execute(MOVED_ON.encode())
    server.rename(stage.name, stage.template)
    try:
        yield stage
    finally:
        server.drop(stage.template)
        with server.connect() as session:
            session.execute(compose("DROP ROLE {}", identifier(stage.owner)))


@dataclass(slots=True)
class Scene:
    """The original behind a proxy, and a store with its backup for this fault alone.

    Attributes:
        sealed: Take the encrypted backup, which is downloaded before it is loaded.
        whole: Further settings of the target.
        login: Of restores, in place of the superuser through the proxy.
        key: File of the secret key that opens the encrypted backup; None for none.
    """

    stage: Stage
    database: Database
    proxy: Proxy
    folder: Path
    sealed: bool = False
    whole: dict[str, Any] = field(default_factory=dict)
    login: Login | None = None
    key: Path | None = None

    @property
    def server(self) -> Server:
        return self.database.server

    @property
    def into(self) -> str:
        """Name of a copy."""
        return f"{self.database.dbname} copy"

    @property
    def store(self) -> Path:
        """The folder of the backup, to be tampered with."""
        target = self.target()
        (manifest,) = (self._home / "store").rglob(MANIFEST)
        return backup_folder(target, manifest.parent.name)

    @property
    def _home(self) -> Path:
        return self.folder / ("sealed" if self.sealed else "plain")

    def target(self, *, direct: bool = False) -> Target:
        """Return a target whose restores go through the proxy; its other work never does."""
        home = self._home
        if not home.exists():
            shutil.copytree(self.stage.folder / home.name, home)
        login = self.login or self.proxy.login
        settings: dict[str, Any] = {"backup": {"compress": "none"}, **self.whole}
        way: dict[str, Any] = {} if direct else {"conninfo": login.conninfo}
        if not direct and login.password is not None:
            (home / "restore password").write_text(login.password)
            way["password"] = {"file": str(home / "restore password")}
        if self.sealed and self.key is not None:
            way["identity"] = {"file": str(self.key)}
        return make_target(self.database, home, restore=way, **settings)

    def replace(self, target: Target | None = None, **options: Any) -> StepResult:
        """Replace the original."""
        name = self.database.dbname
        return restore(target or self.target(), replace=True, confirm_database=name, jobs=2, **options)

    def beside(self, target: Target | None = None, **options: Any) -> StepResult:
        """Restore a copy."""
        return restore(target or self.target(), into=self.into, jobs=2, **options)

    def fail(self, **options: Any) -> StewardError:
        """Try to replace the original and return why that failed."""
        with pytest.raises(StewardError) as caught:
            self.replace(**options)
        return caught.value

    def fail_beside(self, into: str) -> StewardError:
        """Try to restore a copy and return why that failed."""
        with pytest.raises(StewardError) as caught:
            restore(self.target(), into=into, jobs=2)
        return caught.value

    def hold_the_load(self) -> Hold:
        """Hold pg_restore before the rows of ``big``."""
        return self.proxy.hold("pgsteward restore", asked=b"COPY public.big")

    def strike(self, hold: Hold, blow: Callable[[], object], *, beside: bool = False) -> StewardError:
        """Start a restore, strike when a session is held, let it go on; return how the restore failed."""
        with pytest.raises(StewardError) as caught:
            self.struck(hold, blow, beside=beside)
        return caught.value

    def struck(self, hold: Hold, blow: Callable[[], object], *, beside: bool = False) -> StepResult:
        """Do the same with a restore that goes well in the end."""
        with striking(hold, blow):
            return self.beside() if beside else self.replace()

    def tools(self) -> list[int]:
        """Return the processes of pg_restore, its leader first."""
        return sorted(tools_of(f"port={self.proxy.port}", "pg_restore"))

    def scratch(self) -> list[str]:
        """Return the databases of unfinished restores."""
        return databases(self.server, f"{PREFIX}%")

    def end_sessions(self, name: str) -> None:
        """Terminate the sessions of an ``application_name``, as a DBA does, and see them end."""
        with self.server.connect() as session:
            ended = session.rows(
                "SELECT pg_terminate_backend(pid, 60000) AS ended FROM pg_stat_activity"
                " WHERE application_name = %(name)s",
                {"name": name},
            )
        assert any(row["ended"] for row in ended)  # some end with the others

    def settle(self) -> None:
        """Wait until nothing of a run is left that is on its way out."""
        until(lambda: not self.tools(), "processes end")
        until(lambda: not own_sessions(self.server), "sessions end")

    def check_aftermath(self, row: Row, before: Mapping[str, Any]) -> None:
        """The original is as it was, nothing is left but what the row says, and the next restore works."""
        self.settle()
        self.key = self.stage.key
        copies = {self.into} if row.remains.startswith("a whole copy") else set()
        if row.remains == "what the next janitor removes":
            assert self.scratch()
        if row.remains.startswith("a replaced original"):
            (aside,) = databases(self.server, f"{self.database.dbname}\\_before\\_%")
            assert self.identity_of(aside)["oid"] == before["oid"]
            assert Database(self.server, aside).value(SAYS.encode()) == ORIGINAL
            assert self.database.value(SAYS.encode()) == BACKED_UP
            self.server.drop(self.database.dbname)
            self.server.rename(aside, self.database.dbname)
        else:
            self.check_original(before)
        target = self.target(direct=True)
        if row.remains == "what the next janitor removes":
            assert {item.action for item in clean_up(target).changed} <= {"dropped", "removed"}
        for name in copies:
            assert Database(self.server, name).value(SAYS.encode()) == BACKED_UP
            self.server.drop(name)
        self.check_nothing_left()
        assert self.beside(target).details["proof"]["equal"] is True
        assert Database(self.server, self.into).value(SAYS.encode()) == BACKED_UP
        self.server.drop(self.into)
        assert verify_receipts(target).status == "ok"
        self.check_nothing_left()

    def identity_of(self, name: str) -> Mapping[str, Any]:
        with self.server.connect() as session:
            return session.row(IDENTITY, {"name": name})

    def check_original(self, before: Mapping[str, Any]) -> None:
        assert self.identity_of(self.database.dbname) == before
        assert self.database.value(SAYS.encode()) == ORIGINAL

    def check_nothing_left(self) -> None:
        """No database but the original, no download, no lock."""
        assert self.scratch() == []
        assert databases(self.server, f"{self.database.dbname}%") == [
            self.database.dbname,
            self.stage.template,
        ]
        root = spool_root()
        assert not root.exists() or list(root.iterdir()) == []
        with self.server.connect() as session:
            assert session.rows("SELECT pid FROM pg_locks WHERE locktype = 'advisory'") == []


def databases(server: Server, pattern: str) -> list[str]:
    """Return the names of databases that are like a pattern."""
    with server.connect() as session:
        rows = session.rows(
            "SELECT datname::text AS name FROM pg_database WHERE datname LIKE %(pattern)s ORDER BY 1",
            {"pattern": pattern},
        )
    return [row["name"] for row in rows]


@contextmanager
def made_scene(stage: Stage, folder: Path) -> Iterator[Scene]:
    """Give a scene with its original and its proxy; afterwards both are gone."""
    stage.server.create(stage.name, stage.template)
    original = Database(stage.server, stage.name)
    with stage.server.connect() as session:
        for statement in (
            "COMMENT ON DATABASE {} IS 'it''s production'",
            "ALTER DATABASE {} SET work_mem TO '7MB'",
            "ALTER DATABASE {} CONNECTION LIMIT 42",
        ):
            session.execute(compose(statement, identifier(stage.name)))
    try:
        with through_proxy(original.login) as proxy:
            yield Scene(stage, original, proxy, folder, key=stage.key)
    finally:
        left = databases(stage.server, f"{PREFIX}%") + databases(stage.server, f"{stage.name}%")
        for name in left:
            if name != stage.template:
                stage.server.drop(name)


def play(scene: Scene, name: str) -> None:
    """Make a fault happen and compare it with its row in the documentation."""
    row = matrix()[name]
    before = scene.identity_of(scene.database.dbname)
    row.check(FAULTS[name](scene))
    scene.check_aftermath(row, before)
