"""One database with everything that makes dumps, restores and proofs go wrong: there and back again."""

from __future__ import annotations

import os
import re
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgsteward import postgres
from pgsteward.backup.catalog import backups, verify
from pgsteward.backup.dump import back_up
from pgsteward.backup.proof import take_proof
from pgsteward.backup.proof_compare import compare
from pgsteward.backup.run import back_up_everywhere
from pgsteward.clients import choose_client, find_clients
from pgsteward.errors import StewardError, VerificationFailed
from pgsteward.pgtools import run_tool
from pgsteward.postgres import Connection, Row, compose, identifier
from pgsteward.restore.drill import drill
from pgsteward.restore.properties import read_properties
from pgsteward.restore.run import restore
from pgsteward.restore.scope import Scope
from pgsteward.targets import Target
from tests import servers
from tests.conftest import missing
from tests.integration.backup_targets import make_target, own_sessions, stored_manifest
from tests.servers import Bucket, Database, Server, private_database

SCRIPTS = Path(__file__).parent.parent / "hard_database"
ROLES = ("Hard Owner", "hard_reader")
OLDEST = 15
TRAPS = ["hard.search_path_trap", "hard.upon_the_trap"]
FOREIGN = {"hard.far", "hard.with_far_away"}
MATVIEWS = ("mv_base", "a_before_b", "A top", "stale")

LARGE_OBJECTS = """
SELECT m.oid, pg_get_userbyid(m.lomowner) AS owner, m.lomacl::text AS acl, md5(lo_get(m.oid)) AS content,
       obj_description(m.oid, 'pg_largeobject') AS comment
  FROM pg_largeobject_metadata AS m
 ORDER BY m.oid
"""


def parts(server: Server, connection: Connection) -> list[str]:
    """Return the scripts of the hard database that this server understands."""
    collations = connection.value(
        "SELECT count(*) FROM pg_collation WHERE collprovider = 'i'"
    )  # a build without ICU brings the one that initdb always makes
    has_xml = connection.value("SELECT xpath_exists('/a', '<a/>')") if _built_with_xml(connection) else False
    wanted = ["base"]
    wanted += ["contrib"] if server.contrib else []
    wanted += ["xml"] if has_xml else []
    wanted += ["icu"] if collations > 1 else []
    wanted += [f"since{major}" for major in (17, 18) if server.version >= major]
    wanted += ["before17"] if server.version < 17 else []
    return wanted


def _built_with_xml(connection: Connection) -> bool:
    try:
        connection.value("SELECT '<a/>'::xml::text")
    except StewardError:
        return False
    return True


@pytest.fixture(scope="session")
def hard_template(server: Server) -> str:
    """Name of the hard database, to be cloned."""
    name = "pgsteward_hard"
    server.create(name)
    with server.connect() as connection:
        for role in ROLES:
            connection.execute(compose("CREATE ROLE {}", identifier(role)))
    with server.connect(name) as connection:
        for part in parts(server, connection):
            connection.execute((SCRIPTS / f"{part}.sql").read_bytes())
    return name


@pytest.fixture
def hard(server: Server, hard_template: str) -> Iterator[Database]:
    """A copy of the hard database for this test alone, with what belongs to a database and is not cloned."""
    with private_database(server, hard_template) as private:
        set_up_database(private.server, private.dbname)
        yield private


def set_up_database(server: Server, dbname: str) -> None:
    name = identifier(dbname)
    with server.connect() as connection:
        for template in (
            'ALTER DATABASE {} OWNER TO "Hard Owner"',
            "ALTER DATABASE {} SET work_mem = '7MB'",
            'ALTER DATABASE {} SET search_path = hard, "Sch ""q"" 100%s.x", public',
            "ALTER ROLE hard_reader IN DATABASE {} SET \"DateStyle\" = 'SQL, DMY'",
            "REVOKE ALL ON DATABASE {} FROM PUBLIC",
            "GRANT CONNECT, TEMPORARY ON DATABASE {} TO hard_reader WITH GRANT OPTION",
            "ALTER DATABASE {} CONNECTION LIMIT 50",
            "COMMENT ON DATABASE {} IS 'it''s hard'",
        ):
            connection.execute(compose(template, name))


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def copy(server: Server) -> Iterator[Database]:
    """The name of a database to restore into, dropped in the end."""
    name = f"Copy %s {uuid.uuid4().hex[:8]}"
    yield Database(server, name)
    server.drop(name)


def schema(target: Target, database: Database) -> list[str]:
    """Return what pg_dump prints of a database's schema, less what is another one each time.

    A restored inheritance child has its inherited columns first: within a table the order does not count.
    """
    client = choose_client(find_clients(target.settings.client_dirs), database.server.version * 10_000)
    script = run_tool(
        [
            client.tool("pg_dump"),
            "--schema-only",
            "--no-publications",
            "--no-subscriptions",
            f"--dbname={database.conninfo}",
        ],
        env=database.login.tool_env(),
    ).stdout.decode()
    blocks = re.sub(r"(?m)^\\(?:un)?restrict .*\n", "", script).split("\n\n")
    return [
        "\n".join(sorted(line.rstrip(",") for line in block.splitlines()))
        if block.lstrip("\n").startswith("CREATE TABLE hard.")
        else block
        for block in blocks
    ]


@pytest.mark.parametrize(
    ("store", "proof", "mode"),
    [
        ("disk", "full", "directory"),
        ("disk", "counts", "directory"),
        ("s3", "full", "directory"),
        ("s3", "counts", "directory"),
        ("s3", "full", "stream"),
    ],
)
def test_it_comes_back_equal(
    hard: Database, copy: Database, bucket: Bucket, tmp_path: Path, store: str, proof: str, mode: str
) -> None:
    settings = {"proof": proof, "mode": mode, "compress": "gzip:1", "jobs": 2}
    target = make_target(hard, tmp_path, bucket=bucket, stores=(store,), backup=settings)
    made = back_up_everywhere(target)
    assert made.status == "ok", made
    assert {note.object for note in made.skipped} >= FOREIGN | {"hard.not_filled"}
    assert verify(target, "latest").status == "ok"
    restored = restore(target, into=copy.dbname)
    traps = TRAPS if hard.server.version < 17 else []
    unfilled = [note.object for note in restored.skipped if "not filled" in note.reason]
    assert sorted(unfilled) == traps
    assert restored.status == ("partial" if traps else "ok"), restored
    assert not restored.unknown
    assert restored.details["proof"]["equal"] is True
    assert restored.details["proof"]["level"] == proof
    assert backups(target).details["backups"][0]["state"] == "proven"
    assert schema(target, copy) == schema(target, hard)


def test_what_a_proof_does_not_count_comes_back_too(hard: Database, copy: Database, tmp_path: Path) -> None:
    target = make_target(hard, tmp_path, backup={"compress": "gzip:1"})
    assert back_up(target).status == "ok"
    restored = restore(target, into=copy.dbname)
    reasons = {note.object: note.reason for note in restored.skipped}
    assert {"publication Some tables", "publication of_schema"} <= set(reasons)
    assert "foreign children" in reasons["hard.with_far"]
    assert copy.rows(LARGE_OBJECTS) == hard.rows(LARGE_OBJECTS)
    assert copy.value("SELECT count(*) FROM pg_largeobject_metadata") == 5
    for name in MATVIEWS:
        content = compose("SELECT array_agg(m::text ORDER BY m::text) FROM {} AS m", identifier("hard", name))
        original, found = hard.value(content), copy.value(content)
        assert found == ({"stale": ["(0)"]}.get(name, original)), name
    ungathered = copy.value(
        "SELECT count(*) FROM pg_class AS c WHERE c.relkind = 'r' AND c.relname IN ('every_type', 'tree')"
        " AND NOT EXISTS (SELECT FROM pg_statistic AS s WHERE s.starelid = c.oid)"
    )
    assert ungathered == 0
    assert copy.value("SELECT count(*) FROM pg_event_trigger WHERE evtenabled = 'A'") == 1


def test_the_database_that_takes_its_place_has_its_settings(hard: Database, tmp_path: Path) -> None:
    target = make_target(hard, tmp_path, backup={"compress": "gzip:1"})
    assert back_up(target).status == "ok"
    before = properties(hard.server, hard.dbname)
    assert before["settings"]
    assert before["connection_limit"] == 50
    restored = restore(target, replace=True, confirm_database=hard.dbname)
    try:
        assert restored.details["proof"]["equal"] is True
        assert properties(hard.server, hard.dbname) == before
    finally:
        hard.server.drop(restored.details["replaced"])


def properties(server: Server, dbname: str) -> Row:
    with server.connect() as connection:
        found = read_properties(connection, dbname)
    assert found is not None
    for key in ("acl", "settings"):
        found[key] = sorted(map(str, found[key]))
    return found


def test_rows_that_a_restore_moves_between_partitions_are_proven_all_the_same(
    hard: Database, copy: Database, tmp_path: Path
) -> None:
    """A hash partition key of an enum: in the copy the rows lie in other partitions."""
    target = make_target(hard, tmp_path, backup={"compress": "gzip:1"})
    manifest = stored_manifest(target, back_up(target).details["backup_id"])
    assert {r.moves_within for r in manifest.proof.relations if r.name.startswith("by_mood")} == {
        ("hard", "by_mood")
    }
    restore(target, into=copy.dbname)

    def differences() -> dict[str, str]:
        found = take_proof(copy.login, "full", snapshot_id=None)
        found = found.model_copy(update={"sequences": manifest.proof.sequences})
        known = {"hard.logins", *TRAPS}  # a row for each session, this test's too; not filled
        return {d.object: d.what for d in compare(manifest.proof, found) if d.object not in known}

    assert differences() == {}
    copy.execute("UPDATE hard.by_mood SET n = 5 WHERE n = 6")
    assert differences().keys() == {"hard.by_mood"}
    copy.execute("DELETE FROM hard.by_mood WHERE n = 4")
    assert differences() == {"hard.by_mood": "has 99 rows, the backup has 100"}


SLOW_INDEX = """
CREATE FUNCTION slow(a int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    PERFORM pg_sleep(CASE WHEN current_database() LIKE 'pgsteward_tmp%' THEN 4.0 ELSE 0 END);
    RETURN a;
END $$;
CREATE TABLE t (a int); INSERT INTO t VALUES (1);
CREATE INDEX "Slow one" ON t (slow(a)); COMMENT ON INDEX "Slow one" IS 'kept';
"""


@pytest.mark.parametrize("times", [1, 2])
def test_what_the_workers_keep_each_other_from_making_is_made_alone(
    database: Database, copy: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture, times: int
) -> None:
    """As in a deadlock of workers, the first attempt is ended from outside; in one case the second too."""
    database.execute(SLOW_INDEX)
    target = make_target(database, tmp_path, backup={"compress": "gzip:1", "jobs": 2})
    assert back_up(target).status == "ok"
    ended: list[int] = []
    over = threading.Event()

    def end() -> None:
        with database.server.connect() as connection:
            while not over.is_set() and len(ended) < times:
                rows = connection.rows(
                    "SELECT pid, pg_cancel_backend(pid) FROM pg_stat_activity"
                    " WHERE query LIKE 'CREATE INDEX \"Slow one\"%%' AND state = 'active'"
                    "   AND pid <> ALL (%(ended)s)",
                    {"ended": ended},
                )
                ended.extend(row["pid"] for row in rows)
                time.sleep(0.05)

    ender = threading.Thread(target=end)
    ender.start()
    try:
        if times == 2:
            with pytest.raises(VerificationFailed, match="Slow one"):
                restore(target, into=copy.dbname)
        else:
            restored = restore(target, into=copy.dbname)
            assert restored.status == "ok"
            assert copy.value("SELECT obj_description('\"Slow one\"'::regclass)") == "kept"
    finally:
        over.set()
        ender.join()
    assert len(ended) == times
    assert "trying again with one" in caplog.text
    assert own_sessions(database.server) == []


@pytest.fixture
def older(
    server: Server, hard_template: str, pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Database]:
    """The hard database on PostgreSQL 15, as far as both servers can have it; its roles are on both."""
    if server.version <= OLDEST:
        pytest.skip(f"needs a server newer than PostgreSQL {OLDEST}")
    try:
        running = servers.running(str(OLDEST), tmp_path_factory.mktemp("older"))
        old = running.__enter__()
    except StewardError as exc:
        missing(pytestconfig, f"no PostgreSQL {OLDEST}: {exc}")
        raise
    try:
        old.create("hard one")
        with old.connect() as connection:
            for role in ROLES:
                connection.execute(compose("CREATE ROLE {}", identifier(role)))
        with old.connect("hard one") as connection, server.connect(hard_template) as newer:
            can = set(parts(server, newer))
            for part in parts(old, connection):
                if part in can or part.startswith("before"):
                    connection.execute((SCRIPTS / f"{part}.sql").read_bytes())
        set_up_database(old, "hard one")
        yield Database(old, "hard one")
    finally:
        running.__exit__(None, None, None)


@pytest.mark.parametrize("mode", ["directory", "stream"])
def test_a_backup_of_15_is_proven_on_a_newer_server(
    older: Database, copy: Database, tmp_path: Path, mode: str
) -> None:
    """By the client of the newer one: what majors print and hash differently is no difference."""
    (tmp_path / "newer").write_text(copy.server.login.password or "")
    there = {"conninfo": copy.server.login.conninfo, "password": {"file": str(tmp_path / "newer")}}
    target = make_target(older, tmp_path, backup={"compress": "gzip:1", "mode": mode}, restore=there)
    manifest = stored_manifest(target, back_up(target).details["backup_id"])
    assert manifest.server.version_num // 10_000 == OLDEST
    restored = restore(target, into=copy.dbname)
    assert restored.details["client"].partition(".")[0] == str(copy.server.version)
    assert restored.details["proof"]["equal"] is True
    assert sorted(note.object for note in restored.skipped if "not filled" in note.reason) == TRAPS
    assert not restored.unknown
    assert backups(target).details["backups"][0]["state"] == "proven"
    assert copy.rows(LARGE_OBJECTS) == older.rows(LARGE_OBJECTS)
    assert copy.value("SELECT count(*) FROM pg_event_trigger WHERE evtenabled = 'A'") == 1


def test_each_of_its_relations_comes_back_alone(hard: Database, copy: Database, tmp_path: Path) -> None:
    """A few of them; all where PGSTEWARD_EVERY_PART is set."""
    target = make_target(hard, tmp_path, backup={"compress": "gzip:1"})
    assert back_up(target).status == "ok"
    relations = hard.rows(
        "SELECT n.nspname AS schema, c.relname AS name FROM pg_class AS c"
        "  JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'v', 'm')"
        "   AND n.nspname !~ '^(pg_|information_schema)' AND NOT EXISTS (SELECT FROM pg_depend AS d"
        "       WHERE d.objid = c.oid AND d.deptype = 'e') ORDER BY 1, 2"
    )
    for row in relations[:: 1 if "PGSTEWARD_EVERY_PART" in os.environ else 10]:
        name = postgres.quote_name(row["schema"], row["name"])
        part = restore(target, into=copy.dbname, scope=Scope(tables=(name.replace("\n", " "),)))
        filled = [note for note in part.skipped if "not filled" in note.reason]
        assert part.status == "ok" or filled or not part.details["proof"]["relations"], part.as_json()
        assert part.details["proof"]["equal"] is True
        copy.server.drop(copy.dbname)


@pytest.mark.parametrize("mode", ["directory", "stream"])
def test_a_drill_of_it_raises_no_false_alarm(hard: Database, tmp_path: Path, mode: str) -> None:
    """Matviews that nobody can fill are named; nothing of it is called a mismatch."""
    target = make_target(hard, tmp_path, backup={"mode": mode})
    back_up(target)
    result = drill(target)
    said = result.as_json()
    assert said["verdict"] == "green", said
    assert (result.failed, said["schema_equal"]) == ((), True)
    unfilled = [note.object for note in result.findings if "not filled" in note.reason]
    assert sorted(unfilled) == (TRAPS if hard.server.version < 17 else [])
