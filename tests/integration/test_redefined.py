"""Definitions that change while a dump reads them: what pg_dump then writes down can't be restored."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgsteward.backup.dump import back_up
from pgsteward.backup.dump_errors import Rewritten
from pgsteward.backup.filters import choose
from pgsteward.backup.redefined import read_in_rows, refuse_changed, refuse_redefined
from pgsteward.config import BackupConfig
from pgsteward.restore.run import restore
from tests.integration.backup_targets import make_target
from tests.servers import Database, Server

SHOP = """
CREATE TABLE gate (id int);
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE DOMAIN amount AS int;
CREATE SCHEMA "App X";
CREATE TABLE "App X".goods (id int PRIMARY KEY, mood mood, price amount);
INSERT INTO "App X".goods SELECT i, 'good', i FROM generate_series(1, 100) AS i;
CREATE INDEX "by Price" ON "App X".goods (price);
CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2 * $1';
CREATE VIEW cheap AS SELECT id, price FROM "App X".goods;
CREATE VIEW doubled AS SELECT twice(id) AS id FROM cheap;
CREATE FUNCTION once(int) RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT $1; END;
CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER "on Change" BEFORE UPDATE ON "App X".goods FOR EACH ROW EXECUTE FUNCTION keep();
"""

MIGRATION = """
ALTER TYPE mood RENAME VALUE 'good' TO 'fine';
ALTER DOMAIN amount RENAME TO euros;
ALTER FUNCTION twice(int) RENAME TO two_times;
ALTER VIEW cheap RENAME TO cheapest;
CREATE TABLE news (id int);
CREATE OR REPLACE VIEW doubled AS SELECT two_times(id) AS id FROM news;
DROP INDEX "App X"."by Price";
CREATE INDEX "by Price" ON "App X".goods (price);
CREATE OR REPLACE FUNCTION once(int) RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT id FROM news; END;
CREATE FUNCTION keep_all() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE OR REPLACE TRIGGER "on Change" BEFORE UPDATE ON "App X".goods FOR EACH ROW EXECUTE FUNCTION keep_all();
"""


@pytest.fixture
def copy(server: Server) -> Iterator[Database]:
    """A database to restore into, dropped in the end."""
    name = f"copy_{uuid.uuid4().hex[:8]}"
    yield Database(server, name)
    server.drop(name)


@pytest.mark.parametrize("mode", ["directory", "stream"])
def test_a_migration_that_meets_the_start_of_a_dump_costs_an_attempt(
    database: Database, copy: Database, tmp_path: Path, mode: str
) -> None:
    """pg_dump waits for the gate with its snapshot taken, and reads all definitions after it."""
    database.execute(SHOP.encode())
    migration = database.connect(autocommit=False)
    migration.execute("LOCK TABLE gate IN ACCESS EXCLUSIVE MODE")
    begun: list[str] = []

    def progress(what: str, done: int = 0, total: int = 0) -> None:
        if what.startswith("waiting for the locks") and not begun:
            begun.append(what)
            until_it_waits(database, "gate")
            migration.execute(MIGRATION.encode())
            migration.execute("COMMIT")

    target = make_target(database, tmp_path, backup={"mode": mode, "compress": "gzip:1"})
    with migration:
        made = back_up(target, progress=progress)
    assert made.status == "ok"
    (why,) = made.details["retried"]
    for changed in (
        "enum value public.good",
        "type public.amount",
        "function public.twice",
        "relation public.cheap",
        'relation "App X"."by Price"',
        "function public.once",
        'trigger "App X"."on Change"',
    ):
        assert changed in why, why
    assert restore(target, into=copy.dbname).status == "ok"
    assert copy.value("SELECT count(*) FROM pg_indexes WHERE indexname = 'by Price'") == 1
    assert copy.value("SELECT count(*) FROM \"App X\".goods WHERE mood = 'fine'") == 100


def test_a_value_that_is_renamed_under_the_rows_costs_an_attempt(
    database: Database, copy: Database, tmp_path: Path
) -> None:
    database.execute(SHOP.encode())
    renamed: list[str] = []

    def progress(what: str, done: int = 0, total: int = 0) -> None:
        if what.startswith("proving") and not renamed:
            renamed.append(what)
            database.execute("ALTER TYPE mood RENAME VALUE 'good' TO 'fine'")

    target = make_target(database, tmp_path, backup={"compress": "gzip:1"})
    (why,) = back_up(target, progress=progress).details["retried"]
    assert "enum value public.good" in why
    assert restore(target, into=copy.dbname).status == "ok"


def test_what_is_new_or_no_part_of_a_backup_costs_none(database: Database, tmp_path: Path) -> None:
    database.execute(SHOP.encode())
    changed: list[str] = []

    def progress(what: str, done: int = 0, total: int = 0) -> None:
        if what.startswith("waiting for the locks") and not changed:
            changed.append(what)
            database.execute(
                "CREATE TABLE news (id int); ALTER FUNCTION twice(int) RENAME TO two_times;"
                " ALTER TYPE mood ADD VALUE 'new'; ANALYZE; GRANT SELECT ON \"App X\".goods TO PUBLIC"
            )

    part = {"compress": "gzip:1", "schemas": ['"App X"']}
    made = back_up(make_target(database, tmp_path, backup=part), progress=progress)
    assert (changed != [], made.details["retried"]) == (True, [])


def test_a_renamed_value_is_seen_where_nobody_holds_the_snapshot_any_more(database: Database) -> None:
    """A firewall may have cut that session, which is idle for as long as the dump takes."""
    database.execute(SHOP.encode())
    with database.connect() as seen:
        before = read_in_rows(seen, None)
    refuse_changed(before, database.login)
    database.execute("ALTER TYPE mood RENAME VALUE 'good' TO 'fine'")
    with pytest.raises(Rewritten, match=r"could not be restored: enum value public\.good$"):
        refuse_changed(before, database.login)


def test_an_invalid_index_is_no_part_of_a_backup(database: Database) -> None:
    database.execute("CREATE TABLE goods (id int); CREATE INDEX goods_id_ccold ON goods (id)")
    database.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'goods_id_ccold'::regclass")
    with database.connect(autocommit=False) as seen:
        seen.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        assert read_in_rows(seen, None) == []
        database.execute("DROP INDEX goods_id_ccold")
        refuse_redefined(seen, database.login, None)


def test_what_comes_and_goes_beside_the_chosen_tables_costs_no_attempt(database: Database) -> None:
    database.execute(SHOP.encode())
    database.execute("CREATE TABLE staging (id int PRIMARY KEY, price int)")
    with database.connect(autocommit=False) as seen:
        seen.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        choice = choose(BackupConfig(tables=("public.cheap",)), seen)
        database.execute("ALTER TABLE staging RENAME price TO euros; DROP TABLE staging")
        refuse_redefined(seen, database.login, choice)
        database.execute("ALTER VIEW cheap RENAME COLUMN price TO euros")
        with pytest.raises(Rewritten, match=r"column public\.price"):
            refuse_redefined(seen, database.login, choice)


def until_it_waits(database: Database, table: str) -> None:
    deadline = time.monotonic() + 60
    while not database.value(
        "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = %(table)s::regclass)",
        {"table": table},
    ):
        assert time.monotonic() < deadline, "pg_dump does not wait"
        time.sleep(0.01)
