"""A run that is killed (SIGKILL) in any phase of a rebuild: the next one is clean.

What keeps a rebuild in its phase is always somebody else: a writer, a reader, a snapshot, or a lock that the
expression of the index asks for. ``PGSTEWARD_KILL_ROUNDS`` adds rounds that are killed at any moment.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import LiteralString

import pytest

from pgsteward.leftovers import drop_leftovers
from pgsteward.postgres import Connection, compose, identifier
from pgsteward.reindex import reindex
from pgsteward.targets import Target, load_target
from tests import servers
from tests.integration.maintenance import invalid_indexes
from tests.integration.rebuilds import marks, open_snapshot, wait_until
from tests.servers import Database

pytestmark = pytest.mark.contrib

NAME = "l" * 63
"""PostgreSQL cuts it for what a rebuild makes of it."""
ROWS = 20_000
KEY = 7
ROUNDS = int(os.environ.get("PGSTEWARD_KILL_ROUNDS", "1"))

CHILD = """
import sys
from pathlib import Path
from pgsteward import reindex, reindex_run
from pgsteward.targets import load_target

real = reindex_run.start_rebuild

def held(*arguments):
    print("nobody is in the way", flush=True)
    sys.stdin.readline()
    return real(*arguments)

reindex_run.start_rebuild = held
reindex.reindex(load_target("app", Path(sys.argv[1])))
"""

OURS_IN_PHASE: LiteralString = (
    "SELECT FROM pg_stat_progress_create_index WHERE datname = current_database() AND phase LIKE '{}%'"
)


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(scope="module")
def killing_template(server: servers.Server, template: str) -> str:
    name = "pgsteward_killing"
    server.create(name, template)
    with Database(server, name).connect() as connection:
        connection.execute(
            "CREATE FUNCTION slowly(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$BEGIN"
            "  PERFORM pg_advisory_lock_shared(7); PERFORM pg_advisory_unlock_shared(7); RETURN i; END$$"
        )
        connection.execute("CREATE TABLE t AS SELECT * FROM generate_series(1, %(n)s) AS id", {"n": ROWS})
        connection.execute(compose("CREATE INDEX {} ON t (slowly(id))", identifier(NAME)))
        connection.execute("DELETE FROM t WHERE id <= %(n)s", {"n": ROWS * 9 // 10})
        connection.execute("VACUUM t")
    return name


@pytest.fixture
def database(server: servers.Server, killing_template: str) -> Iterator[Database]:
    with servers.private_database(server, killing_template) as private:
        yield private


@pytest.fixture
def config(database: Database, tmp_path: Path) -> Path:
    file = tmp_path / "pgsteward.toml"
    (tmp_path / "password").write_text(database.password or "")
    file.write_text(
        f'[stores.disk]\nurl = "file://{tmp_path}/store"\n[targets.app]\n'
        f'conninfo = "{database.conninfo}"\nstores = ["disk"]\n'
        f'password = {{ file = "{tmp_path}/password" }}\n'
        "[targets.app.index_bloat]\nmin_reclaimable = 100000\n"
    )
    return file


@pytest.fixture
def target(config: Path) -> Target:
    return load_target("app", config)


@contextlib.contextmanager
def run_about_to_rebuild(config: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a run that has seen that nobody is in the way; a line on its standard input lets it go on."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(config)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == b"nobody is in the way\n"
        yield child
    finally:
        child.kill()
        child.communicate()


def go_on(child: subprocess.Popen[bytes]) -> None:
    assert child.stdin is not None
    child.stdin.write(b"go on\n")
    child.stdin.flush()


def kill(child: subprocess.Popen[bytes], database: Database) -> None:
    """Kill a run; the server ends its statement soon after."""
    child.send_signal(signal.SIGKILL)
    child.wait()
    gone = "SELECT FROM pg_stat_activity WHERE application_name LIKE 'pgsteward%reindex%'"
    wait_until(database, gone, there=False)


def wait_for_phase(database: Database, phase: str) -> None:
    wait_until(database, OURS_IN_PHASE.replace("{}", phase))


def indexes(database: Database) -> list[tuple[str, bool]]:
    rows = database.rows(
        "SELECT c.relname AS name, i.indisvalid FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid"
        " WHERE i.indrelid = 't'::regclass ORDER BY 1"
    )
    return [(row["name"], row["indisvalid"]) for row in rows]


class Others:
    """The sessions of others that keep a rebuild where it is."""

    def __init__(self, database: Database, stack: contextlib.ExitStack) -> None:
        def session() -> Connection:
            return stack.enter_context(database.connect(purpose="somebody", autocommit=False))

        self.first, self.second = session(), session()
        self.lock = stack.enter_context(database.connect(purpose="somebody"))

    def let_go(self) -> None:
        self.first.execute("ROLLBACK")
        self.second.execute("ROLLBACK")
        self.lock.execute("SELECT pg_advisory_unlock_all()")

    def write(self, session: Connection) -> None:
        session.execute("INSERT INTO t VALUES (-1)")

    def read(self, session: Connection) -> None:
        session.rows("SELECT FROM t LIMIT 1")

    def hold(self) -> None:
        self.lock.execute("SELECT pg_advisory_lock(%(key)s)", {"key": KEY})


def reach(phase: str, child: subprocess.Popen[bytes], database: Database, others: Others) -> None:
    """Bring a rebuild into a phase, and keep it there."""
    if phase == "building index":
        others.hold()
    elif phase == "waiting for old snapshots":
        open_snapshot(others.first)
    elif "readers" in phase:
        others.read(others.first)
    else:
        others.write(others.first)
    go_on(child)
    if phase in ("waiting for writers before validation", "index validation: scanning table"):
        wait_for_phase(database, "waiting for writers before build")
        others.write(others.second)
        others.first.execute("COMMIT")
    if phase == "index validation: scanning table":
        wait_for_phase(database, "waiting for writers before validation")
        others.hold()
        others.second.execute("COMMIT")
    if phase == "waiting for readers before dropping":
        wait_for_phase(database, "waiting for readers before marking dead")
        others.read(others.second)
        others.first.execute("ROLLBACK")
    wait_for_phase(database, phase)


@pytest.mark.parametrize(
    ("phase", "left"),
    [
        ("waiting for writers before build", "_ccnew"),
        ("building index", "_ccnew"),
        ("waiting for writers before validation", "_ccnew"),
        ("index validation: scanning table", "_ccnew"),
        ("waiting for old snapshots", "_ccnew"),
        ("waiting for readers before marking dead", "_ccold"),
        ("waiting for readers before dropping", "_ccold"),
    ],
)
def test_a_run_killed_in_a_phase_is_finished_by_the_next(
    phase: str, left: str, target: Target, database: Database, config: Path
) -> None:
    with contextlib.ExitStack() as stack:
        others = Others(database, stack)
        child = stack.enter_context(run_about_to_rebuild(config))
        reach(phase, child, database, others)
        kill(child, database)
        assert invalid_indexes(database) == [NAME[:57] + left]
        assert marks(database) == 1
        others.let_go()
    found = reindex(target)
    assert found.status == "ok"
    assert [item.action for item in found.changed] == ["dropped", *(["rebuilt"] if left == "_ccnew" else [])]
    assert indexes(database) == [(NAME, True)]
    assert marks(database) == 0


def test_what_is_numbered_because_names_are_taken_is_found_and_others_stay(
    target: Target, database: Database, config: Path
) -> None:
    """A user's own valid index has the first name, somebody's orphan the second: ours is ``_ccnew2``."""
    with database.connect() as connection:
        connection.execute(compose("CREATE INDEX {} ON t (id)", identifier(NAME[:57] + "_ccnew")))
        connection.execute(compose("CREATE INDEX {} ON t (id)", identifier(NAME[:56] + "_ccnew1")))
        connection.execute(
            "UPDATE pg_index SET indisvalid = false"
            " WHERE indexrelid = (SELECT oid FROM pg_class WHERE relname = %(name)s)",
            {"name": NAME[:56] + "_ccnew1"},
        )
    with contextlib.ExitStack() as stack:
        others = Others(database, stack)
        child = stack.enter_context(run_about_to_rebuild(config))
        reach("waiting for old snapshots", child, database, others)
        kill(child, database)
        assert invalid_indexes(database) == [NAME[:56] + "_ccnew1", NAME[:56] + "_ccnew2"]
        others.let_go()
    dropped, notes = drop_leftovers(target)
    assert [item.object for item in dropped] == [f"public.{NAME[:56]}_ccnew2"]
    assert [note.object for note in notes] == [f"public.{NAME[:56]}_ccnew1"]
    assert indexes(database) == [(NAME[:56] + "_ccnew1", False), (NAME[:57] + "_ccnew", True), (NAME, True)]


def test_orphans_are_adopted_only_when_asked_for_and_only_dead_ones_with_a_twin(
    target: Target, database: Database
) -> None:
    with contextlib.ExitStack() as stack:
        others = Others(database, stack)
        builder = stack.enter_context(database.connect(purpose="somebody else", statement_timeout_s=3))
        open_snapshot(others.first)
        with contextlib.suppress(Exception):
            builder.execute(compose("REINDEX INDEX CONCURRENTLY {}", identifier(NAME)))
        others.let_go()
    orphan = NAME[:57] + "_ccnew"
    with database.connect() as connection:
        connection.execute("CREATE INDEX lone_ccnew ON t ((id + 1))")
        connection.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'lone_ccnew'::regclass")
    assert invalid_indexes(database) == [orphan, "lone_ccnew"]
    assert drop_leftovers(target)[0] == []
    eager = target.settings.model_copy(
        update={"reindex": target.settings.reindex.model_copy(update={"adopt_orphans": True})}
    )
    adopting = Target(target.name, eager, target.config)
    dry, _ = drop_leftovers(adopting, dry_run=True)
    assert [(item.object, item.action) for item in dry] == [(f"public.{orphan}", "would drop")]
    dropped, notes = drop_leftovers(adopting)
    assert [item.object for item in dropped] == [f"public.{orphan}"]
    assert [note.object for note in notes] == ["public.lone_ccnew"]
    assert invalid_indexes(database) == ["lone_ccnew"]


def test_a_live_build_of_somebody_else_is_not_an_orphan(target: Target, database: Database) -> None:
    eager = target.settings.model_copy(
        update={"reindex": target.settings.reindex.model_copy(update={"adopt_orphans": True})}
    )
    with contextlib.ExitStack() as stack:
        others = Others(database, stack)
        builder = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-c", SOMEBODY, database.conninfo, NAME],
                env={**os.environ, "PGPASSWORD": database.password or ""},
            )
        )
        stack.callback(builder.kill)
        open_snapshot(others.first)
        wait_for_phase(database, "waiting for old snapshots")
        dropped, notes = drop_leftovers(Target(target.name, eager, target.config))
        assert (dropped, notes) == ([], [])
        others.let_go()
        assert builder.wait(60) == 0
    assert indexes(database) == [(NAME, True)]


SOMEBODY = """
import sys
from pgsteward.postgres import Login, compose, connect, identifier
with connect(Login(sys.argv[1]), purpose="somebody", lock_timeout_s=0) as session:
    session.execute(compose("REINDEX INDEX CONCURRENTLY {}", identifier(sys.argv[2])))
"""


@pytest.mark.parametrize("number", range(ROUNDS))
def test_a_run_killed_at_any_moment_is_finished_by_the_next(
    number: int, target: Target, database: Database, config: Path
) -> None:
    with run_about_to_rebuild(config) as child:
        go_on(child)
        time.sleep(random.Random(number).uniform(0, 0.4))
        kill(child, database)
    reindex(target)
    assert indexes(database) == [(NAME, True)]
    assert marks(database) == 0
    assert reindex(target).changed == ()
