"""One table of a backup beside the live one: brought, compared, and merged back by the SQL that it prints."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import make_conninfo

from pgsteward.backup.dump import back_up
from pgsteward.errors import ConfigError, PreconditionError, QueryFailed, VerificationFailed
from pgsteward.janitor import clean_up
from pgsteward.postgres import Connection, Login, compose, identifier, literal
from pgsteward.report.page import step_page
from pgsteward.report.plain import render
from pgsteward.restore import side
from pgsteward.restore import table as table_module
from pgsteward.restore.row_diff import compare_rows
from pgsteward.restore.table import parse_key, restore_table
from pgsteward.results import StepResult
from pgsteward.targets import Target
from tests.integration.backup_targets import make_target
from tests.servers import Database, Server

LINES = '"App X"."Order Lines"'
CONTENT = """
CREATE SCHEMA "App X";
CREATE TYPE mood AS ENUM ('sad', 'glad');
CREATE DOMAIN price AS numeric(10, 2) CHECK (VALUE >= 0);
CREATE FUNCTION noisy() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''touched''; END';
CREATE TABLE "App X"."Order Lines" (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "Note" text, mood mood, price price, doc json, at point,
    tags text[], quantity int, code char(4), who regrole, old text,
    total numeric GENERATED ALWAYS AS (price * quantity) STORED);
INSERT INTO "App X"."Order Lines" ("Note", mood, price, doc, at, tags, quantity, code, who, old)
    SELECT 'note ' || g, 'sad', g, '{"a":  1}', point(g, 1), ARRAY['x', NULL], g, 'ab', 'pg_monitor', 'o'
      FROM generate_series(1, 40) AS g;
ALTER TABLE "App X"."Order Lines" ENABLE ROW LEVEL SECURITY;
CREATE TABLE bag (a int, b json);
INSERT INTO bag SELECT g % 3, '{"k": 1}' FROM generate_series(1, 9) AS g; INSERT INTO bag VALUES (NULL, NULL);
CREATE TABLE events (id int, "at day" date, v text, PRIMARY KEY (id, "at day")) PARTITION BY RANGE ("at day");
CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
INSERT INTO events SELECT g, date '2026-01-01' + g, 'v' FROM generate_series(1, 50) AS g;
CREATE TABLE people (id int PRIMARY KEY, email varchar(20) UNIQUE);
INSERT INTO people VALUES (1, 'one@example.org'), (2, 'two@example.org');
CREATE VIEW shown AS SELECT 1 AS a;
CREATE TABLE by_mood (m mood) PARTITION BY HASH (m);
CREATE TABLE by_mood_0 PARTITION OF by_mood FOR VALUES WITH (MODULUS 1, REMAINDER 0);
CREATE TABLE no_columns ();
CREATE FUNCTION in_bag(int) RETURNS bool LANGUAGE sql
    AS 'SELECT EXISTS (SELECT FROM public.bag WHERE a = $1)';
CREATE TABLE checked (id int CHECK (in_bag(id))) PARTITION BY LIST (id);
CREATE TABLE checked_1 PARTITION OF checked DEFAULT;
INSERT INTO checked VALUES (1), (2);
CREATE TYPE spot AS (x int, y int);
CREATE FUNCTION shout(mood) RETURNS text LANGUAGE sql AS 'SELECT ''so ''::text';
CREATE FUNCTION shout(spot) RETURNS text LANGUAGE sql AS 'SELECT ''somewhere''::text';
CREATE CAST (mood AS text) WITH FUNCTION shout(mood);
CREATE CAST (spot AS text) WITH FUNCTION shout(spot);
CREATE TABLE own_casts (m mood PRIMARY KEY, s spot, "x %s" xml, f bool, t text, c char(3));
INSERT INTO own_casts VALUES ('sad', (1, NULL), NULL, true, '', 'a'),
                             ('glad', (NULL, NULL), NULL, false, NULL, '');
DO $$ BEGIN
    UPDATE own_casts SET "x %s" = '<?xml version="1.0" encoding="UTF-8"?><a/>' WHERE m = 'sad';
EXCEPTION WHEN feature_not_supported THEN
    NULL;  -- built without libxml
END $$;
"""
SINCE = """
DELETE FROM "App X"."Order Lines" WHERE id <= 3;
INSERT INTO "App X"."Order Lines" ("Note", price, quantity) VALUES ('new', 1, 1), (NULL, 2, 2);
UPDATE "App X"."Order Lines" SET doc = '{"a": 1}', price = 5.5 WHERE id = 10;
UPDATE "App X"."Order Lines" SET "Note" = NULL WHERE id = 11;
UPDATE "App X"."Order Lines" SET at = point(0, 0), tags = NULL WHERE id IN (12, 13);
ALTER TYPE mood RENAME VALUE 'sad' TO 'blue';
ALTER TABLE "App X"."Order Lines" ALTER mood TYPE text USING 'sad';
ALTER TABLE "App X"."Order Lines" DROP COLUMN old, ADD COLUMN new int NOT NULL DEFAULT 1;
CREATE TRIGGER t BEFORE INSERT OR UPDATE OR DELETE ON "App X"."Order Lines" EXECUTE FUNCTION noisy();
ALTER TABLE "App X"."Order Lines" DISABLE TRIGGER t;
DELETE FROM bag WHERE ctid IN (SELECT ctid FROM bag WHERE a = 1 LIMIT 2);
INSERT INTO bag VALUES (7, '{"k":  1}'), (NULL, NULL);
DELETE FROM events WHERE id <= 2; UPDATE events SET v = 'w' WHERE id = 40;
INSERT INTO events VALUES (3, '2026-02-20', 'other day')
"""


@pytest.fixture
def target(database: Database, tmp_path: Path) -> Target:
    database.execute(CONTENT)
    target = make_target(database, tmp_path, backup={"compress": "gzip:1"})
    assert back_up(target).status == "ok"
    return target


@pytest.fixture
def changed(database: Database, target: Target) -> Iterator[Target]:
    database.execute(SINCE)
    yield target
    assert (
        database.value("SELECT count(*) FROM pg_database WHERE datname LIKE 'pgsteward!_tmp!_%' ESCAPE '!'")
        == 0
    )


def brought(target: Target, table: str, **options: Any) -> StepResult:
    result = restore_table(target, table, **options)
    assert result.status == "ok", result.as_json()
    assert result.details["proof"]["equal"] is True
    return result


def merge(database: Database, result: StepResult) -> None:
    """Run what was printed, as somebody does who wants all of it."""
    script = str(result.details["merge_script"])
    assert script.endswith("ROLLBACK;\n")
    database.execute(script.replace("ROLLBACK;", "COMMIT;").encode())


def test_what_has_changed_is_told_by_key_and_merged_back(
    database: Database, server: Server, changed: Target
) -> None:
    before = database.rows('SELECT * FROM "App X"."Order Lines" ORDER BY id')
    result = brought(changed, LINES)
    assert result.details["difference"] == {"removed": 3, "added": 2, "changed": 4}
    assert result.details["columns_changed"] == {"Note": 1, "price": 1, "doc": 1, "at": 2, "tags": 2}
    assert [row["id"] for row in result.details["rows_removed"]] == ["1", "2", "3"]
    assert [row["Note"] for row in result.details["rows_added"]] == ["new", None]
    assert result.details["rows_changed"][:3] == [
        {"key": {"id": "10"}, "column": "price", "backup": "10.00", "live": "5.50"},
        {"key": {"id": "10"}, "column": "doc", "backup": '{"a":  1}', "live": '{"a": 1}'},
        {"key": {"id": "11"}, "column": "Note", "backup": "note 11", "live": None},
    ]
    notes = {note.object: note.reason for note in result.skipped}
    assert "is text, was public.mood" in notes["column mood"]
    assert "dropped since" in notes["column old"]
    assert "added since" in notes["column new"]
    assert "generated" in notes["column total"]
    assert database.rows('SELECT * FROM "App X"."Order Lines" ORDER BY id') == before
    text = render(step_page(result))
    assert "3 rows were removed" in re.sub(r"\s+", " ", text)
    assert "OVERRIDING SYSTEM VALUE" in text
    schema = str(result.details["side_table"]).split(".")[0].strip('"')
    with server.connect(database.dbname) as session:
        assert not session.value("SELECT has_schema_privilege('pg_monitor', %(s)s, 'usage')", {"s": schema})
    merge(database, result)
    again = brought(changed, LINES)
    assert again.details["difference"] == {"removed": 0, "added": 0, "changed": 0}
    assert again.details["merge_script"] is None
    assert database.value('SELECT total::text FROM "App X"."Order Lines" WHERE id = 3') == "9.00"


def test_rows_without_a_key_are_compared_as_wholes(database: Database, changed: Target) -> None:
    result = brought(changed, "public.bag")
    assert result.details["key"] is None
    assert result.details["difference"] == {"removed": 2, "added": 2, "changed": None}
    assert result.details["rows_added"] == [{"row": "(,)"}, {"row": '(7,"{""k"":  1}")'}]
    assert result.details["merge"]["update"] is None
    merge(database, result)
    assert brought(changed, "bag").details["difference"] == {"removed": 0, "added": 0, "changed": None}
    with pytest.raises(PreconditionError, match=r"key a does not tell the rows of the backup apart"):
        restore_table(changed, "bag", key=("a",))
    with pytest.raises(PreconditionError, match=r"has no column c; it has a, b"):
        restore_table(changed, "bag", key=("c",))


def test_a_cast_of_ones_own_says_nothing_about_a_value(database: Database, target: Target) -> None:
    database.execute("ALTER TABLE own_casts ALTER f TYPE text, ALTER c TYPE char(5)")
    same = {"removed": 0, "added": 0}
    assert brought(target, "own_casts").details["difference"] == {**same, "changed": 0}
    database.execute("UPDATE own_casts SET s = (2, 2) WHERE m = 'sad'")
    database.execute("UPDATE own_casts SET s = NULL WHERE m = 'glad'")
    result = brought(target, "own_casts")
    assert result.details["difference"] == {**same, "changed": 2}
    assert [row["backup"] for row in result.details["rows_changed"]] == ["(,)", "(1,)"]
    merge(database, result)
    database.execute("ALTER TABLE own_casts DROP CONSTRAINT own_casts_pkey")
    assert brought(target, "own_casts").details["difference"] == {**same, "changed": None}


def test_what_came_since_makes_way_for_a_unique_value_that_comes_back(
    database: Database, target: Target
) -> None:
    database.execute("DELETE FROM people WHERE id = 1; INSERT INTO people VALUES (3, 'one@example.org')")
    result = brought(target, "people")
    merge(database, result)
    assert database.rows("SELECT id FROM people ORDER BY id") == [{"id": 1}, {"id": 2}]
    database.execute("ALTER TABLE people ADD boss int REFERENCES people; INSERT INTO people VALUES (3)")
    database.execute("UPDATE people SET email = NULL, boss = 3 WHERE id = 1")
    script = str(brought(target, "people").details["merge_script"])
    assert script.index("UPDATE ") < script.index("DELETE FROM")


def test_a_value_that_is_too_long_by_now_is_refused_and_not_cut(database: Database, target: Target) -> None:
    database.execute("UPDATE people SET email = NULL; ALTER TABLE people ALTER email TYPE varchar(5)")
    result = brought(target, "people")
    with pytest.raises(QueryFailed, match="value too long"):
        merge(database, result)


def test_a_merge_says_what_triggers_have_made_of_it(database: Database, target: Target) -> None:
    database.execute("""
        DELETE FROM people WHERE id = 1;
        CREATE FUNCTION forged() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.email = 1; RETURN NEW; END';
        CREATE TRIGGER forged BEFORE INSERT ON people FOR EACH ROW EXECUTE FUNCTION forged()""")
    result = brought(target, "people")
    before, _, check = str(result.details["merge_script"]).partition("-- What differs still")
    with database.connect() as session:
        session.execute(before.encode())
        left = session.row(check.partition("\n")[2].partition("ROLLBACK")[0].encode())
    assert left == {"missing": 0, "too_many": 0, "different": 1}


def test_rows_that_a_policy_hides_are_not_merged_back_once_more(database: Database, target: Target) -> None:
    database.execute("DELETE FROM bag WHERE a = 0")
    result = brought(target, "bag")
    role = identifier(f"merger of {database.dbname}")
    schema = identifier(str(result.details["side_table"]).split(".")[0])
    database.execute(compose("CREATE ROLE {}", role))
    try:
        database.execute(compose("GRANT ALL ON SCHEMA {} TO {}", schema, role))
        database.execute(compose("GRANT ALL ON ALL TABLES IN SCHEMA public, {} TO {}", schema, role))
        database.execute("ALTER TABLE bag ENABLE ROW LEVEL SECURITY")
        database.execute("CREATE POLICY p ON bag USING (a = 9) WITH CHECK (true)")
        script = str(result.details["merge_script"]).replace("ROLLBACK;", "COMMIT;")
        as_role = compose("SET ROLE {};", role).as_string() + script
        with pytest.raises(QueryFailed, match="row-level security"):
            database.execute(as_role.encode())
        assert database.value("SELECT count(*) FROM bag") == 7
    finally:
        database.execute(compose("DROP OWNED BY {} CASCADE", role))
        database.execute(compose("DROP ROLE {}", role))


def test_a_partitioned_table_is_one_table_with_a_key_of_two_columns(
    database: Database, changed: Target
) -> None:
    result = brought(changed, "events")
    assert result.details["rows"] == 50
    assert result.details["key"] == ["id", "at day"]
    assert result.details["difference"] == {"removed": 2, "added": 1, "changed": 1}
    merge(database, result)
    assert brought(changed, "events").details["merge_script"] is None
    by_id = brought(changed, "events", key=parse_key("id"), shown=0)
    assert by_id.details["key"] == ["id"]
    assert by_id.details["rows_added"] == []


def test_a_table_that_is_gone_is_brought_all_the_same(database: Database, target: Target) -> None:
    database.execute("DROP TABLE bag")
    planned = restore_table(target, "bag", dry_run=True)
    assert (planned.dry_run, planned.changed[0].action) == (True, "would bring")
    assert database.rows("SELECT 1 FROM pg_namespace WHERE nspname LIKE 'pgsteward%%'") == []
    result = brought(target, "bag")
    assert (result.details["rows"], result.details["difference"]) == (10, None)
    database.execute(str(result.details["drop"]).encode())


def test_a_table_comes_without_what_its_checks_read(database: Database, target: Target) -> None:
    database.execute("DELETE FROM checked WHERE id = 1")
    assert brought(target, "checked").details["difference"]["removed"] == 1


def test_a_copy_that_a_crash_has_emptied_deletes_nothing(database: Database, changed: Target) -> None:
    result = brought(changed, "events")
    schema, name = str(result.details["side_table"]).split(".")
    database.execute(compose("TRUNCATE {}", identifier(schema, name)))
    database.execute(str(result.details["merge"]["delete"]).encode())
    assert database.value("SELECT count(*) FROM events") == 49


def test_what_is_not_one_table_is_refused(target: Target) -> None:
    with pytest.raises(PreconditionError, match=r"has to be one table, and it chooses public.shown"):
        restore_table(target, "shown")
    with pytest.raises(PreconditionError, match=r"chooses .*events_1 \(table\), public.events_2"):
        restore_table(target, "events_*")
    with pytest.raises(PreconditionError, match=r"near it are: public\.events"):
        restore_table(target, "evnts")
    with pytest.raises(PreconditionError, match=r"anew among the partitions of public\.by_mood: name that"):
        restore_table(target, "by_mood_0")
    with pytest.raises(PreconditionError, match=r"no_columns has no columns"):
        restore_table(target, "no_columns")
    with pytest.raises(ConfigError, match="say which table"):
        restore_table(target, " ")
    with pytest.raises(ConfigError, match=r"is no name of a column"):
        parse_key("a, b c")


def test_rows_that_were_left_out_of_the_backup_are_not_taken_for_new_ones(
    database: Database, tmp_path: Path
) -> None:
    database.execute(CONTENT)
    left_out = {"compress": "gzip:1", "exclude_table_data": ["public.bag", "public.events_2"]}
    target = make_target(database, tmp_path, backup=left_out)
    backup_id = str(back_up(target).details["backup_id"])
    with pytest.raises(PreconditionError, match=r"lacks rows of public\.bag.*: public\.bag: left out"):
        restore_table(target, "bag", backup_id)
    with pytest.raises(PreconditionError, match=r"lacks rows of public\.events, .*: public\.events_2: left"):
        restore_table(target, "events", backup_id)
    assert brought(target, "events_1", what=backup_id).details["merge_script"] is None
    some = ["public.events", "public.bag"]
    target = make_target(database, tmp_path, backup={"compress": "gzip:1", "tables": some})
    backup_id = str(back_up(target).details["backup_id"])
    with pytest.raises(PreconditionError, match=r"lacks rows of public\.events, .* without some of them"):
        restore_table(target, "events", backup_id)
    assert brought(target, "bag", what=backup_id).details["merge_script"] is None


def test_a_role_that_lacks_a_right_is_told_which(database: Database, tmp_path: Path, target: Target) -> None:
    role = identifier(f"o'brien {database.dbname}")
    database.execute(compose("CREATE ROLE {} LOGIN CREATEDB PASSWORD 'x'", role))
    try:
        (tmp_path / "role").write_text("x")
        login = make_conninfo(database.conninfo, user=f"o'brien {database.dbname}")
        restore = {"conninfo": login, "password": {"file": str(tmp_path / "role")}}
        mine = make_target(database, tmp_path, backup={"compress": "gzip:1"}, restore=restore)
        here = identifier(database.dbname)
        database.execute(compose("ALTER DATABASE {} SET default_transaction_read_only = on", here))
        with pytest.raises(PreconditionError, match=r"are read-only .*restore --table"):
            restore_table(mine, "bag")
        with database.server.connect() as session:
            session.execute(compose("ALTER DATABASE {} RESET default_transaction_read_only", here))
        for right in ("CREATE ON DATABASE", "SELECT ON"):
            with pytest.raises(PreconditionError, match=f"GRANT {right} ") as refused:
                restore_table(mine, "bag")
            database.execute(re.search("GRANT .*", str(refused.value))[0].encode())  # type: ignore[index]
        assert brought(mine, "bag").details["difference"]["removed"] == 0
    finally:
        database.execute(compose("DROP OWNED BY {} CASCADE", role))
        database.execute(compose("DROP ROLE {}", role))


def test_the_next_backup_may_read_what_a_superuser_has_brought(
    database: Database, tmp_path: Path, target: Target
) -> None:
    """On the day of a restore somebody else's login is taken than that of the nights."""
    name = f"o'brien {database.dbname}"
    role = identifier(name)
    database.execute(compose("CREATE ROLE {} LOGIN BYPASSRLS PASSWORD 'x'", role))
    try:
        database.execute(compose('GRANT USAGE ON SCHEMA "App X" TO {}', role))
        database.execute(compose('GRANT SELECT ON ALL TABLES IN SCHEMA public, "App X" TO {}', role))
        database.execute(compose('GRANT SELECT ON ALL SEQUENCES IN SCHEMA public, "App X" TO {}', role))
        mine = Login(make_conninfo(database.conninfo, user=name), "x")
        restore = {"conninfo": database.conninfo, "password": {"file": str(tmp_path / "super")}}
        (tmp_path / "super").write_text(database.password or "")
        nights = make_target(database, tmp_path, login=mine, backup={"compress": "gzip:1"}, restore=restore)
        rows = back_up(nights).details["proof"]["rows"]
        copied = brought(nights, "bag").details["rows"]
        assert back_up(nights).details["proof"]["rows"] == rows + copied
    finally:
        database.execute(compose("DROP OWNED BY {} CASCADE", role))
        database.execute(compose("DROP ROLE {}", role))


def test_who_makes_backups_on_another_server_is_let_in_nowhere(database: Database) -> None:
    """As where they are made from a logical replica, whose roles are its own."""
    database.execute('CREATE TABLE "A b" (id int)')
    with database.connect() as live:
        side._let_in(live, ("public", "A b"), "nobody here")
    assert database.value("SELECT relacl FROM pg_class WHERE relname = 'A b'") is None


def test_nothing_is_left_where_the_copy_is_not_what_was_restored(
    database: Database, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:

    def breaks(*args: Any) -> None:
        compare_rows(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(table_module, "compare_rows", breaks)
    with pytest.raises(KeyboardInterrupt):
        restore_table(target, "bag")
    monkeypatch.setattr(table_module, "compare_rows", compare_rows)
    execute = Connection.execute

    def ended(session: Connection, statement: Any, *args: Any) -> Any:
        if not isinstance(statement, (bytes, str)) and "ANALYZE" in statement.as_string():
            raise KeyboardInterrupt
        return execute(session, statement, *args)

    monkeypatch.setattr(Connection, "execute", ended)
    with pytest.raises(KeyboardInterrupt):
        restore_table(target, "bag")
    monkeypatch.setattr(Connection, "execute", execute)
    copy_out = Connection.copy_out
    monkeypatch.setattr(Connection, "copy_out", lambda *args: list(copy_out(*args))[:-1])
    with pytest.raises(VerificationFailed, match="is not what was restored"):
        restore_table(target, "bag")
    assert database.rows("SELECT 1 FROM pg_namespace WHERE nspname LIKE 'pgsteward%%'") == []


EVENTS = """
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql
    AS 'BEGIN INSERT INTO public.bag VALUES (9); RETURN NULL; END';
CREATE FUNCTION opens() RETURNS event_trigger LANGUAGE plpgsql AS $$
DECLARE made record;
BEGIN
    PERFORM FROM bag;  -- of the path of whoever uses this database
    FOR made IN SELECT * FROM pg_event_trigger_ddl_commands() WHERE object_type = 'table' LOOP
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO pg_monitor', made.schema_name);
        EXECUTE format('CREATE TRIGGER t AFTER INSERT ON %s EXECUTE FUNCTION public.note()',
                       made.object_identity);
    END LOOP;
END $$;
CREATE EVENT TRIGGER opens ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION opens();
"""
AGAIN = """
CREATE FUNCTION again() RETURNS event_trigger LANGUAGE plpgsql AS $$
DECLARE name text;
BEGIN
    FOR name IN SELECT nspname FROM pg_namespace WHERE nspname ~ '^pgsteward_' LOOP
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO pg_monitor', name);
    END LOOP;
END $$;
CREATE EVENT TRIGGER again ON ddl_command_end WHEN TAG IN ('REVOKE') EXECUTE FUNCTION again();
"""


def test_event_triggers_let_nobody_in_and_write_nothing(database: Database, target: Target) -> None:
    database.execute(EVENTS)
    result = brought(target, "events")
    schema = str(result.details["side_table"]).split(".")[0]
    usage = "SELECT has_schema_privilege('pg_monitor', %(s)s, 'usage')"
    assert database.value(usage, {"s": schema}) is False
    assert database.value("SELECT count(*) FROM bag WHERE a = 9") == 0
    database.execute(AGAIN)
    with pytest.raises(PreconditionError, match=r"opens .* to pg_monitor as soon as it is closed"):
        restore_table(target, "events")


def test_the_janitor_drops_what_is_old_and_only_ours(database: Database, target: Target) -> None:
    kept = brought(target, "bag")
    old, used = brought(target, "bag"), brought(target, "bag")
    long_ago = (datetime.now(UTC) - timedelta(days=8)).isoformat()
    for result in (old, used):
        schema = str(result.details["side_table"]).split(".")[0]
        mark = side.MARK + json.dumps({"table": "bag", "made_at": long_ago})
        database.execute(compose("COMMENT ON SCHEMA {} IS {}", identifier(schema), literal(mark)))
    database.execute(f"CREATE VIEW mine AS SELECT * FROM {used.details['side_table']}".encode())
    database.execute("CREATE SCHEMA pgsteward_not_ours")
    planned = clean_up(target, dry_run=True)
    named = {str(r.details["side_table"]).split(".")[0] for r in (old, used)}
    assert {item.object for item in planned.changed} == named
    done = clean_up(target)
    assert [item.object for item in done.changed] == [str(old.details["side_table"]).split(".")[0]]
    assert "view mine depends" in done.failed[0].reason
    assert any("keep_side_tables_days" in note.reason for note in done.skipped)
    left = {
        row["n"]
        for row in database.rows("SELECT nspname AS n FROM pg_namespace WHERE nspname ~ '^pgsteward'")
    }
    assert left == {
        "pgsteward_not_ours",
        str(kept.details["side_table"]).split(".")[0],
        str(used.details["side_table"]).split(".")[0],
    }
