"""A part of a backup: what comes along, what stays behind; and rows alone into empty tables."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyrage
import pytest
from psycopg.conninfo import make_conninfo

from pgsteward.backup.dump import back_up
from pgsteward.backup.home import home_store
from pgsteward.backup.receipts import read_receipts
from pgsteward.errors import ConfigError, PreconditionError, VerificationFailed
from pgsteward.postgres import Connection, compose, identifier, quote_name
from pgsteward.restore import data_only
from pgsteward.restore.run import restore
from pgsteward.restore.scope import Scope
from pgsteward.results import StepResult
from pgsteward.targets import Target
from tests.integration.backup_targets import make_target, own_sessions
from tests.servers import Bucket, Database, Server, private_database

CONTENT = """
CREATE SCHEMA "App X"; CREATE SCHEMA reports;
CREATE TYPE mood AS ENUM ('sad', 'glad');
CREATE DOMAIN price AS numeric CHECK (VALUE >= 0);
CREATE FUNCTION helper() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 7';
CREATE FUNCTION fallback() RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN public.helper(); END';
CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql
    AS 'BEGIN INSERT INTO public.audit_log VALUES (NEW.id); RETURN NEW; END';
CREATE TABLE audit_log (id int);
CREATE TABLE customers (id int PRIMARY KEY, name text);
INSERT INTO customers SELECT g, 'c' || g FROM generate_series(1, 5) AS g;
CREATE SEQUENCE shared START 100;
CREATE TABLE "App X"."Order Lines" (
    id serial PRIMARY KEY, number int GENERATED ALWAYS AS IDENTITY, customer int REFERENCES customers,
    parent int REFERENCES "App X"."Order Lines", mood mood DEFAULT 'glad', price price,
    n int DEFAULT fallback(), other bigint DEFAULT nextval('shared'),
    twice numeric GENERATED ALWAYS AS (price * 2) STORED);
INSERT INTO "App X"."Order Lines" (customer, price) SELECT 1 + g % 5, g FROM generate_series(1, 40) AS g;
CREATE INDEX "by mood" ON "App X"."Order Lines" (mood, (fallback() + n));
CREATE TRIGGER "to audit" AFTER INSERT ON "App X"."Order Lines" FOR EACH ROW EXECUTE FUNCTION audit();
ALTER TABLE "App X"."Order Lines" ENABLE ROW LEVEL SECURITY;
CREATE POLICY all_of_it ON "App X"."Order Lines" USING (true);
GRANT SELECT ON "App X"."Order Lines" TO PUBLIC;
COMMENT ON COLUMN "App X"."Order Lines".mood IS 'how it went';
CREATE STATISTICS "App X".st ON mood, n FROM "App X"."Order Lines";
CREATE TABLE events (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
INSERT INTO events SELECT g, date '2026-01-01' + g FROM generate_series(1, 50) AS g;
CREATE TABLE base (id int); CREATE TABLE heir (x int) INHERITS (base); INSERT INTO heir VALUES (1, 2);
CREATE VIEW reports.names AS SELECT name FROM customers;
CREATE MATERIALIZED VIEW reports.counts AS SELECT count(*) AS c FROM reports.names;
CREATE TABLE by_mood (m mood, v int) PARTITION BY HASH (m);
CREATE TABLE by_mood_0 PARTITION OF by_mood FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE by_mood_1 PARTITION OF by_mood FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO by_mood SELECT (ARRAY['sad', 'glad'])[1 + g % 2]::mood, g FROM generate_series(1, 20) AS g;
CREATE TABLE known (id int PRIMARY KEY); INSERT INTO known VALUES (1);
CREATE FUNCTION is_known(int) RETURNS bool LANGUAGE sql
    AS 'SELECT EXISTS (SELECT FROM public.known WHERE id = $1)';
CREATE FUNCTION knows(int) RETURNS bool LANGUAGE sql
    BEGIN ATOMIC SELECT EXISTS (SELECT FROM known WHERE id = $1); END;
CREATE TABLE late (id int CHECK (is_known(id))); INSERT INTO late VALUES (1);
CREATE TABLE later (id int CHECK (knows(id))); INSERT INTO later VALUES (1);
SELECT lo_from_bytea(4711, '\\x010203')
"""
LINES = '"App X"."Order Lines"'
ALL_TABLES = (
    *(LINES, "audit_log", "base", "customers", "heir"),
    *("by_mood_0", "by_mood_1", "events_1", "events_2", "known", "late", "later"),
)


@pytest.fixture(scope="module")
def source(server: Server) -> Iterator[Database]:
    with private_database(server) as database:
        database.execute(CONTENT)
        yield database


@pytest.fixture(scope="module")
def target(source: Database, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Target:
    target = make_target(source, tmp_path_factory.mktemp("part"), backup={"compress": "gzip:1"})
    assert back_up(target).status == "ok"
    return target


@pytest.fixture
def name(server: Server) -> Iterator[str]:
    name = f"part_{uuid.uuid4().hex[:10]}"
    yield name
    server.drop(name)


def scope(*tables: str, schemas: tuple[str, ...] = (), **options: bool) -> Scope:
    return Scope(schemas, tables, **options)


def tables_in(connection: Connection) -> dict[str, int]:
    """Return the rows of each table, and of each materialized view that is filled."""
    found = connection.rows(
        "SELECT c.oid::regclass::text AS name FROM pg_class AS c"
        " WHERE c.relnamespace::regnamespace::text NOT IN ('pg_catalog', 'information_schema', 'pg_toast')"
        " AND c.relkind IN ('r', 'm') AND c.relispopulated"
    )
    return {
        row["name"]: connection.value(f"SELECT count(*) FROM ONLY {row['name']}".encode()) for row in found
    }


def names(notes: Any) -> list[str]:
    return sorted(note["object"] for note in notes)


def test_a_table_comes_with_all_that_it_needs_and_nothing_else(
    server: Server, target: Target, name: str
) -> None:
    result = restore(target, into=name, scope=scope(LINES))
    assert result.status == "ok", result.as_json()
    part = result.details["part"]
    assert part["with_rows"] == [LINES]
    assert part["along"] == []
    assert names(part["left_out"]) == [
        f'{LINES}: foreign key "Order Lines_customer_fkey"',
        "large objects",
        "public.audit_log",
    ]
    assert "tables: " in result.summary
    assert (result.details["proof"]["relations"], result.details["proof"]["rows"]) == (1, 40)
    assert result.details["receipt"] is None
    with server.connect(name) as connection:
        assert tables_in(connection) == {LINES: 40}
        got = connection.row(
            'SELECT currval_of.last_value AS id, s.last_value AS shared FROM "App X"."Order Lines_id_seq"'
            " AS currval_of, public.shared AS s"
        )
        assert got == {"id": 40, "shared": 139}
        objects = connection.row(
            "SELECT (SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal) AS triggers,"
            " (SELECT count(*) FROM pg_policy) AS policies,"
            " (SELECT count(*) FROM pg_indexes WHERE tablename = 'Order Lines') AS indexes,"
            " (SELECT count(*) FROM pg_statistic_ext) AS statistics,"
            " (SELECT count(*) FROM pg_constraint WHERE contype = 'f') AS foreign_keys,"
            " (SELECT count(*) FROM pg_description WHERE description = 'how it went') AS comments,"
            " has_table_privilege('public', '\"App X\".\"Order Lines\"', 'select') AS granted"
        )
        assert objects == {
            "triggers": 1,
            "policies": 1,
            "indexes": 2,
            "statistics": 1,
            "foreign_keys": 1,
            "comments": 1,
            "granted": True,
        }
        connection.execute(
            'ALTER TABLE "App X"."Order Lines" DISABLE TRIGGER USER;'
            'INSERT INTO "App X"."Order Lines" (price) VALUES (1.5)'
        )
        assert connection.row('SELECT number, n, twice::text FROM "App X"."Order Lines" WHERE id = 41') == {
            "number": 41,
            "n": 7,
            "twice": "3.0",
        }


@pytest.mark.parametrize(
    ("wanted", "rows", "along"),
    [
        pytest.param(
            scope("events"),
            {"events_1": 30, "events_2": 20},
            ["public.events_1", "public.events_2"],
            id="parent",
        ),
        pytest.param(scope("public.events_2"), {"events_2": 20}, ["public.events"], id="partition"),
        pytest.param(scope("base"), {"base": 0, "heir": 1}, ["public.heir"], id="inherited"),
        pytest.param(scope("heir"), {"base": 0, "heir": 1}, ["public.base"], id="heir"),
        pytest.param(
            scope("by_mood_0"),
            {"by_mood": 20},
            ["public.by_mood", "public.by_mood_1"],
            id="rows-that-may-move",
        ),
        pytest.param(
            scope(schemas=("reports",)),
            {"customers": 5, "reports.counts": 1},
            ["public.customers"],
            id="what-a-schemas-views-read",
        ),
        pytest.param(
            scope(LINES, "cust*"),
            {LINES: 40, "customers": 5},
            [],
            id="both-sides-of-a-foreign-key",
        ),
    ],
)
def test_relatives_come_along(
    server: Server, target: Target, name: str, wanted: Scope, rows: dict[str, int], along: list[str]
) -> None:
    result = restore(target, into=name, scope=wanted)
    assert result.status == "ok", result.as_json()
    assert names(result.details["part"]["along"]) == along
    with server.connect(name) as connection:
        found = tables_in(connection)
        moved = {each: found.pop(each) for each in list(found) if each.startswith("by_mood_")}
        assert {**found, **({"by_mood": sum(moved.values())} if len(moved) == 2 else moved)} == rows
        if LINES in wanted.tables:
            keys = "SELECT count(*) FROM pg_constraint WHERE contype = 'f'"
            assert connection.value(keys) == 2


def test_a_table_that_a_constraint_reads_has_to_be_chosen_too(
    server: Server, target: Target, name: str
) -> None:
    for table, why in (("late", "does not exist"), ("later", "violates check constraint")):
        with pytest.raises(VerificationFailed, match=rf"{why}.*mention public\.known, .* choose it too"):
            restore(target, into=name, scope=scope(table))
    assert restore(target, into=name, scope=scope("known", "late"), jobs=1).status == "ok"


def test_the_schema_alone_is_compared_and_empty(server: Server, target: Target, name: str) -> None:
    result = restore(target, into=name, scope=scope(schema_only=True))
    assert "(definitions only)" in result.summary
    assert result.status == "ok", result.as_json()
    assert "its schema is compared" in result.summary
    assert result.details["part"]["with_rows"] == []
    assert (result.details["files"], result.details["receipt"]) == (1, None)
    with server.connect(name) as connection:
        assert tables_in(connection) == dict.fromkeys(ALL_TABLES, 0)
        assert connection.value("SELECT count(*) FROM pg_constraint WHERE contype = 'f'") == 2


def test_rows_alone_fill_empty_tables_in_one_go(server: Server, target: Target, name: str) -> None:
    restore(target, into=name, scope=scope(schema_only=True))
    wanted = scope(LINES, "customers", "events", "by_mood", data_only=True)
    planned = restore(target, into=name, scope=wanted, dry_run=True)
    assert planned.changed[0].action == "would fill"
    result = restore(target, into=name, scope=wanted)
    assert result.status == "ok", result.as_json()
    assert (result.changed[0].action, result.details["proof"]["rows"]) == ("filled", 115)
    with server.connect(name) as connection:
        assert connection.value("SELECT count(*) FROM audit_log") == 0  # the trigger did not fire ...
        connection.execute('INSERT INTO "App X"."Order Lines" (customer, price) VALUES (1, 2)')
        assert connection.value("SELECT count(*) FROM audit_log") == 1  # ... and does again
        assert connection.value("SELECT last_value FROM public.shared") == 140
    with pytest.raises(PreconditionError, match=r'not empty: .*"Order Lines"'):
        restore(target, into=name, scope=wanted)
    with pytest.raises(PreconditionError, match=r"no database 'nowhere_x' to load rows into"):
        restore(target, into="nowhere_x", scope=wanted)


LOGS = """
CREATE FUNCTION log_it() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER
    AS 'BEGIN INSERT INTO audit_log VALUES (-1); END';
CREATE FUNCTION log_them() RETURNS trigger LANGUAGE plpgsql
    AS 'BEGIN INSERT INTO public.audit_log VALUES (-2); RETURN NULL; END';
CREATE TRIGGER t AFTER INSERT ON by_mood EXECUTE FUNCTION log_them();
CREATE EVENT TRIGGER "its log" ON ddl_command_end WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION log_it();
ALTER EVENT TRIGGER "its log" ENABLE ALWAYS;
CREATE ROLE {role} LOGIN CREATEDB PASSWORD 'x';
GRANT ALL ON SCHEMA public TO {role};
GRANT ALL ON ALL TABLES IN SCHEMA public TO {role};
ALTER TABLE by_mood OWNER TO {role};
TRUNCATE audit_log;
"""


def test_what_logs_into_a_table_adds_nothing_to_its_rows(
    server: Server, source: Database, target: Target, tmp_path: Path, name: str
) -> None:
    restore(target, into=name, scope=scope("by_mood", "audit_log", schema_only=True))
    role = f"filler of {source.dbname}"
    (tmp_path / "role").write_text("x")
    folder = home_store(target).local_folder("")
    assert folder is not None
    its_login = {
        "conninfo": make_conninfo(source.conninfo, user=role),
        "password": {"file": str(tmp_path / "role")},
    }
    lesser = make_target(source, folder.parent, restore=its_login)
    wanted = scope("by_mood", "audit_log", data_only=True)
    with server.connect(name) as connection:
        connection.execute(LOGS.format(role=quote_name(role)).encode())
        try:
            with pytest.raises(
                VerificationFailed, match=r"audit_log: .*ALTER EVENT TRIGGER \"its log\" DISABLE"
            ):
                restore(lesser, into=name, scope=wanted)
            result = restore(target, into=name, scope=wanted)
            assert result.status == "ok", result.as_json()
            assert 'event trigger "its log"' in [note.object for note in result.skipped]
            assert connection.value("SELECT count(*) FROM audit_log") == 0
            assert connection.value("SELECT evtenabled::text FROM pg_event_trigger") == "A"
            connection.execute("INSERT INTO by_mood VALUES ('sad', 1)")
            assert connection.value("SELECT array_agg(id) FROM audit_log") == [-2]
        finally:
            connection.execute(
                compose("DROP OWNED BY {role} CASCADE; DROP ROLE {role}", role=identifier(role))
            )


def test_rows_that_are_not_equal_are_taken_back(
    server: Server, target: Target, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    restore(target, into=name, scope=scope("customers", schema_only=True))
    with pytest.raises(PreconditionError, match=r"lacks public.events_1, public.events_2"):
        restore(target, into=name, scope=scope("events", data_only=True))
    with server.connect(name) as connection:
        connection.execute(
            "CREATE FUNCTION change() RETURNS trigger LANGUAGE plpgsql"
            " AS $$BEGIN NEW.name := 'x'; RETURN NEW; END$$;"
            "CREATE TRIGGER a BEFORE INSERT ON customers FOR EACH ROW EXECUTE FUNCTION change();"
            "ALTER TABLE customers ENABLE ALWAYS TRIGGER a"
        )
    monkeypatch.setattr(data_only, "_switch_triggers", lambda *_, **__: None)  # so that one changes the rows
    with pytest.raises(VerificationFailed, match=r"taken back: public.customers: content differs"):
        restore(target, into=name, scope=scope("customers", data_only=True))
    monkeypatch.undo()
    with server.connect(name) as connection:
        assert connection.value("SELECT count(*) FROM customers") == 0
    assert restore(target, into=name, scope=scope("customers", data_only=True)).status == "ok"
    with server.connect(name) as connection:
        assert connection.value("SELECT tgenabled::text FROM pg_trigger WHERE tgname = 'a'") == "A"
    assert own_sessions(server) == []


def test_tables_in_a_circle_are_refused_and_filled_once_one_can_wait(
    database: Database, tmp_path: Path, name: str, server: Server
) -> None:
    database.execute(
        "CREATE TABLE a (id int PRIMARY KEY, b int); CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a);"
        "INSERT INTO a VALUES (1, 1); INSERT INTO b VALUES (1, 1);"
        "ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES b"
    )
    target = make_target(database, tmp_path, backup={"compress": "gzip:1"})
    back_up(target)
    restore(target, into=name, scope=scope(schema_only=True))
    with pytest.raises(PreconditionError, match=r"refer to each other .* ALTER CONSTRAINT .* DEFERRABLE"):
        restore(target, into=name, scope=scope(data_only=True))
    with server.connect(name) as connection:
        connection.execute("ALTER TABLE a ALTER CONSTRAINT a_b_fkey DEFERRABLE")
    assert restore(target, into=name, scope=scope(data_only=True)).status == "ok"


def test_rows_that_are_older_than_a_constraint_are_told_from_wrong_ones(
    target: Target, name: str, server: Server
) -> None:
    restore(target, into=name, scope=scope("customers", schema_only=True))
    with server.connect(name) as connection:
        connection.execute('ALTER TABLE customers ADD CONSTRAINT "New one" CHECK (id > 3) NOT VALID')
        with pytest.raises(PreconditionError, match=r'may be older than .*\("New one"\): drop it,'):
            restore(target, into=name, scope=scope("customers", data_only=True))
        connection.execute('ALTER TABLE customers DROP CONSTRAINT "New one"')
    assert restore(target, into=name, scope=scope("customers", data_only=True)).status == "ok"


@pytest.mark.any_server
def test_what_is_no_part_is_refused(target: Target, source: Database) -> None:
    with pytest.raises(PreconditionError, match=r"near it are: public\.customers"):
        restore(target, scope=scope("costumers"))
    with pytest.raises(PreconditionError, match=r"schema 'repots' matches nothing .* reports"):
        restore(target, scope=scope(schemas=("repots",)))
    with pytest.raises(PreconditionError, match=r"can't take the place of a database"):
        restore(target, scope=scope("customers"), replace=True, confirm_database=source.dbname)
    with pytest.raises(PreconditionError, match=r"say in which database"):
        restore(target, scope=scope(data_only=True))
    with pytest.raises(PreconditionError, match="makes nothing: leave create-roles"):
        restore(target, scope=scope(data_only=True), into="x", create_roles=True)
    with pytest.raises(ConfigError, match=r"write it with its schema, such as reports.customers"):
        scope("customers", schemas=("reports",))


@pytest.mark.any_server
@pytest.mark.parametrize("mode", ["directory", "stream"])
def test_only_what_is_needed_is_downloaded_and_opened(
    source: Database, tmp_path: Path, bucket: Bucket, name: str, server: Server, mode: str
) -> None:
    identity = pyrage.x25519.Identity.generate()
    key = tmp_path / "key.txt"
    key.write_text(str(identity))
    target = make_target(
        source,
        tmp_path,
        bucket=bucket,
        stores=("s3",),
        backup={
            "compress": "gzip:1",
            "mode": mode,
            "encrypt_to": [str(identity.to_public())],
            "plaintext_spool": mode == "directory",
        },
        restore={"identity": {"file": str(key)}},
    )
    made = back_up(target).details
    result = restore(target, into=name, scope=scope("events_1"))
    assert result.status == "ok", result.as_json()
    assert result.details["files"] == (2 if mode == "directory" else 1)
    assert result.details["bytes"] < made["bytes"]
    with server.connect(name) as connection:
        assert tables_in(connection) == {"events_1": 30}
    receipts, _ = read_receipts(target.store("s3"), target.name, target.database)
    assert receipts == []


def test_of_a_partial_backup_what_it_has_can_be_chosen(
    source: Database, tmp_path: Path, name: str, server: Server
) -> None:
    partial = make_target(
        source, tmp_path, backup={"compress": "gzip:1", "tables": ["public.events*", "public.customers"]}
    )
    made = str(back_up(partial).details["backup_id"])
    result: StepResult = restore(partial, made, into=name, scope=scope("customers"))
    assert result.status == "ok", result.as_json()
    with server.connect(name) as connection:
        assert tables_in(connection) == {"customers": 5}
    with pytest.raises(PreconditionError, match=r"matches nothing in this backup"):
        restore(partial, made, scope=scope(LINES))


def test_a_sequence_that_is_further_is_not_set_back(database: Database, tmp_path: Path) -> None:
    database.execute("CREATE SEQUENCE shared; CREATE SEQUENCE down INCREMENT -1; CREATE SEQUENCE same")
    for table in ("a", "b"):
        database.execute(
            f"CREATE TABLE {table} (id int DEFAULT nextval('shared') PRIMARY KEY,"
            " down int DEFAULT nextval('down'), same int DEFAULT nextval('same'))".encode()
        )
    database.execute("INSERT INTO a (same) SELECT 1 FROM generate_series(1, 5)")
    target = make_target(database, tmp_path, backup={"compress": "gzip:1"})
    assert back_up(target).status == "ok"
    database.execute("INSERT INTO b (same) SELECT 1 FROM generate_series(1, 10); TRUNCATE a")
    database.execute("SELECT nextval('same')")
    result = restore(target, into=database.dbname, scope=scope("a", data_only=True))
    assert result.status == "ok", result.as_json()
    further = sorted(note.object for note in result.skipped if "further than in the backup" in note.reason)
    assert further == ["sequence public.down", "sequence public.same", "sequence public.shared"]
    database.execute("INSERT INTO b DEFAULT VALUES")
    database.execute("TRUNCATE a; ALTER SEQUENCE shared RESTART; ALTER SEQUENCE down RESTART")
    again = restore(target, into=database.dbname, scope=scope("a", data_only=True))
    assert [note.object for note in again.skipped] == ["sequence public.same"]
    assert database.value("SELECT nextval('shared') + nextval('down')") == 0
