"""What makes a DELETE impossible, or something else than it looks, said before a row goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, LiteralString

import pytest
from psycopg.conninfo import conninfo_to_dict

from pgsteward.errors import PreconditionError
from pgsteward.matviews import refresh
from pgsteward.postgres import Login, compose, identifier, raw
from pgsteward.results import StepResult
from pgsteward.sessions import clean_sessions
from tests.integration.backup_targets import make_target
from tests.integration.maintenance import temporary_role
from tests.servers import Database

SESSIONS = {"table": "sessions", "expires": "expires"}
_FILL = (
    "INSERT INTO sessions SELECT i, now() + make_interval(days => 1 - 2 * mod(i, 2))"
    "  FROM generate_series(1, 1000) AS i"
)
_ARCHIVE = (
    "CREATE TABLE archive (id int);"
    "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS"
    " 'BEGIN INSERT INTO archive SELECT id FROM gone; RETURN NULL; END'"
)


def make_sessions(database: Database, kind: str = "") -> None:
    """Make a table of sessions without a key, half of them expired."""
    with database.connect() as connection:
        if kind == "partitioned":
            connection.execute("CREATE TABLE sessions (id int, expires timestamptz) PARTITION BY RANGE (id)")
            connection.execute("CREATE TABLE part PARTITION OF sessions DEFAULT")
        else:
            connection.execute("CREATE TABLE sessions (id int, expires timestamptz)")
        connection.execute(_FILL)
        if kind == "inherited":
            connection.execute("CREATE TABLE part () INHERITS (sessions)")
            connection.execute("INSERT INTO part SELECT id, expires FROM ONLY sessions")


def clean(
    database: Database, tmp_path: Path, *, login: Login | None = None, dry_run: bool = False, **settings: Any
) -> StepResult:
    target = make_target(database, tmp_path, login=login, sessions=({**SESSIONS, **settings},))
    return clean_sessions(target, dry_run=dry_run)


def set_role(database: Database, login: Login, setting: LiteralString) -> None:
    role = identifier(str(conninfo_to_dict(login.conninfo)["user"]))
    with database.connect() as admin:
        admin.execute(compose("ALTER ROLE {} {}", role, raw(setting)))


@pytest.mark.parametrize("kind", ["partitioned", "inherited"])
@pytest.mark.parametrize(
    ("obstacle", "words"),
    [
        pytest.param(
            f"{_ARCHIVE}; CREATE TRIGGER keep AFTER DELETE ON sessions REFERENCING OLD TABLE AS gone"
            " FOR EACH STATEMENT EXECUTE FUNCTION keep()",
            "the trigger 'keep' of public.sessions is for statements",
            id="trigger",
        ),
        pytest.param(
            f"{_ARCHIVE}; CREATE RULE keep AS ON DELETE TO sessions"
            " DO ALSO INSERT INTO archive VALUES (old.id)",
            "the rule 'keep' of public.sessions makes something else of a DELETE",
            id="rule",
        ),
    ],
)
def test_what_only_the_parent_does_is_not_passed_by(
    database: Database, tmp_path: Path, kind: str, obstacle: str, words: str
) -> None:
    make_sessions(database, kind)
    database.execute(obstacle)
    before = database.value("SELECT count(*) FROM part")
    for dry_run in (True, False):
        reasons = {note.object: note.reason for note in clean(database, tmp_path, dry_run=dry_run).failed}
        assert words in reasons["public.part"]
    assert database.value("SELECT count(*) FROM part") == before
    assert clean(database, tmp_path, table="part").as_json()["rows"] == 500


def test_a_table_that_can_not_publish_its_deletes_is_named_also_by_a_dry_run(
    database: Database, tmp_path: Path
) -> None:
    make_sessions(database)
    database.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    for dry_run in (True, False):
        found = clean(database, tmp_path, dry_run=dry_run)
        assert found.status == "failed"
        assert "does not have a replica identity" in found.failed[0].reason
    database.execute("ALTER TABLE sessions REPLICA IDENTITY FULL")
    assert clean(database, tmp_path).as_json()["rows"] == 500


def test_nothing_begins_where_transactions_are_read_only(database: Database, tmp_path: Path) -> None:
    make_sessions(database)
    database.execute("CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM sessions")
    with temporary_role(database) as login:
        database.execute("GRANT SELECT, DELETE ON sessions TO PUBLIC")
        set_role(database, login, "SET default_transaction_read_only = on")
        for dry_run in (True, False):
            with pytest.raises(PreconditionError, match="default_transaction_read_only"):
                clean(database, tmp_path, login=login, dry_run=dry_run)
        with pytest.raises(PreconditionError, match="default_transaction_read_only"):
            refresh(make_target(database, tmp_path, login=login))


def test_a_server_that_becomes_read_only_is_not_taken_for_a_lock(database: Database, tmp_path: Path) -> None:
    """Some hosts do that when a disk is nearly full; here the first batch does it."""
    make_sessions(database)
    database.execute(
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN"
        " PERFORM set_config(''default_transaction_read_only'', ''on'', false); RETURN NULL; END';"
        "CREATE TRIGGER full_disk AFTER DELETE ON sessions FOR EACH STATEMENT EXECUTE FUNCTION full_disk()"
    )
    found = clean(database, tmp_path, batch_pages=1)
    assert found.status == "partial"
    (note,) = found.failed
    assert "read-only transaction" in note.reason
    assert "locked" not in note.reason


def test_a_temporary_child_of_another_session_is_left_alone(database: Database, tmp_path: Path) -> None:
    make_sessions(database)
    with database.connect() as application:
        application.execute("CREATE TEMP TABLE mine () INHERITS (sessions)")
        application.execute("INSERT INTO mine SELECT id, expires FROM ONLY sessions")
        found = clean(database, tmp_path)
        assert (found.status, found.as_json()["rows"]) == ("ok", 500)
        assert application.value("SELECT count(*) FROM mine") == 1000


def test_an_operator_of_the_application_does_not_decide_what_has_expired(
    database: Database, tmp_path: Path
) -> None:
    database.execute(
        "CREATE DOMAIN due AS timestamptz;"
        "CREATE FUNCTION always(due, timestamptz) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT true';"
        "CREATE OPERATOR < (LEFTARG = due, RIGHTARG = timestamptz, FUNCTION = always);"
        f"CREATE TABLE sessions (id int, expires due); {_FILL}"
    )
    assert clean(database, tmp_path, max_share=1).as_json()["rows"] == 500
    assert database.value("SELECT count(*) FROM sessions") == 500


@pytest.mark.parametrize(
    "hidden",
    [
        pytest.param("SELECT 1", id="no right"),
        pytest.param(
            "GRANT SELECT ON log TO PUBLIC; ALTER TABLE log ENABLE ROW LEVEL SECURITY",
            id="row-level security",
        ),
    ],
)
def test_a_dry_run_that_can_not_see_what_goes_along_says_so(
    database: Database, tmp_path: Path, hidden: str
) -> None:
    """The DELETE takes it along all the same, by the rights of the tables' owners."""
    make_sessions(database)
    database.execute(
        "ALTER TABLE sessions ADD PRIMARY KEY (id);"
        "CREATE TABLE log (s int PRIMARY KEY REFERENCES sessions ON DELETE CASCADE);"
        "INSERT INTO log SELECT id FROM sessions"
    )
    database.execute(hidden)
    with temporary_role(database) as login:
        database.execute("GRANT SELECT, DELETE ON sessions TO PUBLIC")
        planned = clean(database, tmp_path, login=login, dry_run=True)
        assert planned.as_json()["rows"] == 500
        assert "would take along was not counted" in planned.unknown[0].reason
        assert clean(database, tmp_path, login=login).as_json()["cascaded_rows"] == 500


def test_a_cleanup_that_nobody_watches_says_so(database: Database, tmp_path: Path) -> None:
    make_sessions(database)
    with temporary_role(database) as login:
        database.execute("GRANT SELECT, DELETE ON sessions TO PUBLIC")
        set_role(database, login, "CONNECTION LIMIT 3")
        found = clean(database, tmp_path, login=login)
        assert found.as_json()["rows"] == 500
        assert "nobody looked who waits" in found.skipped[0].reason


def test_a_trigger_that_finds_no_table_is_not_taken_for_a_dropped_one(
    database: Database, tmp_path: Path
) -> None:
    make_sessions(database)
    database.execute(
        "CREATE FUNCTION lost() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN INSERT INTO nowhere VALUES (old.id); RETURN OLD; END';"
        "CREATE TRIGGER lost BEFORE DELETE ON sessions FOR EACH ROW EXECUTE FUNCTION lost()"
    )
    (note,) = clean(database, tmp_path).failed
    assert "nowhere" in note.reason
