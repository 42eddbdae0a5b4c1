"""Foreign keys, triggers and rules around a table of expiring rows, against a real server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pgsteward.errors import PreconditionError
from pgsteward.postgres import compose, identifier
from pgsteward.results import StepResult
from pgsteward.sessions import clean_sessions
from tests.integration.backup_targets import make_target
from tests.servers import Database

SESSIONS = {"table": "sessions", "expires": "expires"}

LIVE, EXPIRED = "now() + interval '1 day'", "now() - interval '1 day'"


def clean(database: Database, tmp_path: Path, *, dry_run: bool = False, **settings: Any) -> StepResult:
    return clean_sessions(
        make_target(database, tmp_path, sessions=({**SESSIONS, **settings},)), dry_run=dry_run
    )


def make_sessions(database: Database, rows: int = 1000) -> None:
    """Make a table of sessions with a key of two columns, half of them expired: those with an odd number."""
    with database.connect() as connection:
        connection.execute(
            'CREATE TABLE sessions (id int, "k 2" text, expires timestamptz, PRIMARY KEY (id, "k 2"))'
        )
        connection.execute(
            "INSERT INTO sessions SELECT i, 'x', now() + make_interval(days => 1 - 2 * mod(i, 2))"
            "  FROM generate_series(1, %(rows)s) AS i",
            {"rows": rows},
        )


def test_what_goes_by_cascade_is_counted_at_any_depth(database: Database, tmp_path: Path) -> None:
    make_sessions(database)
    with database.connect() as connection:
        connection.execute(
            'CREATE TABLE "Log, old" (id int PRIMARY KEY, s int, k text,'
            '  FOREIGN KEY (k, s) REFERENCES sessions ("k 2", id) ON DELETE CASCADE)'
        )
        connection.execute("""INSERT INTO "Log, old" SELECT i, i, 'x' FROM generate_series(1, 200) AS i""")
        connection.execute('CREATE INDEX ON "Log, old" (s, k, id)')
        connection.execute(
            'CREATE TABLE lines (log int REFERENCES "Log, old" ON DELETE CASCADE) PARTITION BY HASH (log)'
        )
        connection.execute("CREATE TABLE lines0 PARTITION OF lines FOR VALUES WITH (MODULUS 2, REMAINDER 0)")
        connection.execute("CREATE TABLE lines1 PARTITION OF lines FOR VALUES WITH (MODULUS 2, REMAINDER 1)")
        connection.execute("CREATE INDEX ON lines (log)")
        connection.execute("INSERT INTO lines SELECT 1 + mod(i, 100) FROM generate_series(0, 299) AS i")
        connection.execute(
            "CREATE TABLE devices (s int, k text, FOREIGN KEY (s, k) REFERENCES sessions ON DELETE SET NULL)"
        )
        connection.execute("INSERT INTO devices SELECT i, 'x' FROM generate_series(1, 50) AS i")
        connection.execute("CREATE INDEX ON devices (s, k)")
    expected = {'public."Log, old"': 100, "public.lines": 150}

    dry = clean(database, tmp_path, dry_run=True).as_json()
    assert dry["cleanups"][0]["cascaded"] == expected

    found = clean(database, tmp_path).as_json()
    assert found["status"] == "ok"
    assert found["rows"] == 500
    assert found["cleanups"][0]["cascaded"] == {**expected, "public.devices": 25}
    assert found["cascaded_rows"] == 275
    assert found["cleanups"][0]["key"] == ["id", "k 2"]
    assert database.value("SELECT count(*) FROM lines") == 150
    assert database.value("SELECT count(*) FROM devices WHERE s IS NULL") == 25


def test_names_may_have_percent_signs(database: Database, tmp_path: Path) -> None:
    with database.connect() as connection:
        connection.execute('CREATE SCHEMA "100%"')
        connection.execute(
            'CREATE TABLE "100%".sessions ("id%s" int PRIMARY KEY, "valid %" timestamptz, "%" text)'
        )
        connection.execute(
            'CREATE TABLE "100%"."log%" ("of%(s)s" int REFERENCES "100%".sessions ON DELETE CASCADE)'
        )
        connection.execute('CREATE INDEX ON "100%"."log%" ("of%(s)s")')
        connection.execute(
            f"""INSERT INTO "100%".sessions VALUES (1, {EXPIRED}, '%'), (2, {EXPIRED}, ''), (3, {LIVE}, '')"""
        )
        connection.execute('INSERT INTO "100%"."log%" VALUES (1), (1), (2), (3)')
    table = {"table": '"100%".sessions', "expires": "valid %", "where": "\"%\" LIKE '%\\%'"}
    target = make_target(database, tmp_path, sessions=({**table, "max_share": 1},))
    for dry_run in (True, False):
        found = clean_sessions(target, dry_run=dry_run).as_json()
        assert (found["status"], found["rows"]) == ("ok", 1)
        assert found["cleanups"][0]["cascaded"] == {'"100%"."log%"': 2}
    assert database.value('SELECT array_agg("id%s" ORDER BY "id%s") FROM "100%".sessions') == [2, 3]


def test_nothing_goes_where_foreign_keys_do_nothing(database: Database, tmp_path: Path) -> None:
    make_sessions(database)
    name = identifier(database.dbname)
    database.execute(compose("ALTER DATABASE {} SET session_replication_role = 'replica'", name))
    with pytest.raises(PreconditionError, match="RESET session_replication_role"):
        clean(database, tmp_path)
    assert database.value("SELECT count(*) FROM sessions") == 1000


def test_a_table_that_points_at_itself_loses_what_hangs_on_it(database: Database, tmp_path: Path) -> None:
    with database.connect() as connection:
        connection.execute(
            "CREATE TABLE sessions (id int PRIMARY KEY, expires timestamptz,"
            "  parent int REFERENCES sessions ON DELETE CASCADE)"
        )
        connection.execute("CREATE INDEX ON sessions (parent)")
        connection.execute(
            f"INSERT INTO sessions VALUES (1, {EXPIRED}, NULL), (2, {LIVE}, 1), (3, {LIVE}, NULL)"
        )
    assert clean(database, tmp_path, dry_run=True).as_json()["cleanups"][0]["cascaded"] == {
        "public.sessions": 1
    }
    found = clean(database, tmp_path).as_json()
    assert found["rows"] == 1
    assert found["cleanups"][0]["cascaded"] == {"public.sessions": 1}
    assert database.value("SELECT array_agg(id) FROM sessions") == [3]


@pytest.mark.contrib
def test_rows_are_counted_by_the_operators_of_the_key(database: Database, tmp_path: Path) -> None:
    with database.connect() as connection:
        connection.execute('CREATE SCHEMA "My Types"')
        connection.execute('CREATE EXTENSION citext SCHEMA "My Types"')
        connection.execute('CREATE TABLE sessions (id "My Types".citext PRIMARY KEY, expires timestamptz)')
        connection.execute(
            'CREATE TABLE lines (session "My Types".citext REFERENCES sessions ON DELETE CASCADE)'
        )
        connection.execute("CREATE INDEX ON lines (session)")
        connection.execute(f"INSERT INTO sessions VALUES ('A', {EXPIRED}), ('B', {LIVE})")
        connection.execute("INSERT INTO lines VALUES ('a')")
    for dry_run in (True, False):
        found = clean(database, tmp_path, dry_run=dry_run).as_json()
        assert found["cleanups"][0]["cascaded"] == {"public.lines": 1}


def test_a_key_without_an_index_is_a_finding_before_anything_goes(database: Database, tmp_path: Path) -> None:
    make_sessions(database)
    with database.connect() as connection:
        connection.execute(
            'CREATE TABLE "By""s" ("s id" int, k text, FOREIGN KEY ("s id", k) REFERENCES sessions)'
        )
        connection.execute('CREATE INDEX ON "By""s" ("s id") WHERE k IS NOT NULL')
        connection.execute('CREATE INDEX ON "By""s" ("s id") INCLUDE (k)')
    for dry_run in (True, False):
        found = clean(database, tmp_path, dry_run=dry_run)
        assert found.status == "partial"
        (note,) = found.findings
        assert 'CREATE INDEX CONCURRENTLY ON public."By""s" ("s id", k)' in note.reason
    assert database.value("SELECT count(*) FROM sessions") == 500
    database.execute('CREATE INDEX ON "By""s" (k, "s id")')
    assert not clean(database, tmp_path).findings


def test_rows_that_others_need_stay_by_name_and_all_others_go(database: Database, tmp_path: Path) -> None:
    make_sessions(database)
    with database.connect() as connection:
        connection.execute("CREATE TABLE orders (s int, k text, FOREIGN KEY (s, k) REFERENCES sessions)")
        connection.execute("CREATE INDEX ON orders (s, k)")
        connection.execute("INSERT INTO orders VALUES (501, 'x'), (503, 'x')")
    found = clean(database, tmp_path)
    assert found.status == "partial"
    assert "2 expired rows can't be deleted" in found.failed[0].reason
    assert "orders" in found.failed[0].reason
    assert found.as_json()["rows"] == 498

    where = "NOT EXISTS (SELECT FROM orders WHERE s = id)"
    assert clean(database, tmp_path, where=where).status == "ok"
    database.execute("INSERT INTO sessions SELECT i, 'x', '-infinity' FROM generate_series(2001, 2200) AS i")
    database.execute("INSERT INTO orders SELECT i, 'x' FROM generate_series(2001, 2200) AS i")
    assert "stopped after 0 rows" in clean(database, tmp_path).failed[0].reason


@pytest.mark.parametrize(
    ("obstacle", "words"),
    [
        pytest.param(
            "CREATE RULE soft AS ON DELETE TO sessions DO INSTEAD NOTHING", "its rule 'soft'", id="rule"
        ),
        pytest.param(
            "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
            "CREATE TRIGGER keep BEFORE DELETE ON sessions FOR EACH ROW WHEN (old.id < 10)"
            " EXECUTE FUNCTION keep()",
            "kept 5 expired rows: keep",
            id="trigger",
        ),
    ],
)
def test_rows_that_a_rule_or_a_trigger_keeps_are_a_failure(
    database: Database, tmp_path: Path, obstacle: str, words: str
) -> None:
    make_sessions(database)
    database.execute(obstacle)
    found = clean(database, tmp_path)
    assert found.status in {"failed", "partial"}
    assert words in found.failed[0].reason


def test_a_slow_key_makes_batches_of_a_few_rows(database: Database, tmp_path: Path) -> None:
    """Every deleted row reads a whole table: a page of them would take seconds."""
    make_sessions(database, 60)
    with database.connect() as connection:
        connection.execute("CREATE TABLE big (s int, k text, pad text)")
        connection.execute("INSERT INTO big SELECT NULL, NULL, i::text FROM generate_series(1, 200000) AS i")
        connection.execute(
            "ALTER TABLE big ADD FOREIGN KEY (s, k) REFERENCES sessions ON DELETE CASCADE NOT VALID"
        )
    found = clean(database, tmp_path, batch_ms=20).as_json()
    assert found["rows"] == 30
    (item,) = found["changed"]
    assert item["batches"] >= 3
    assert item["longest_batch_ms"] < 1000
