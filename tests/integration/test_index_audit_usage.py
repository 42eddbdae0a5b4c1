"""What is there in vain, on real servers: duplicates, unused indexes, and how a crash hides scans."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from pgsteward import state
from pgsteward.audit.evidence import TOPIC
from pgsteward.index_audit import audit
from pgsteward.postgres import Login, connect, quote_name
from pgsteward.report import step_text
from pgsteward.sessions import clean_sessions
from tests import servers
from tests.faults.clusters import own_cluster, standby_of
from tests.integration.backup_targets import make_target
from tests.integration.maintenance import flush_counters, temporary_role
from tests.servers import Database


@pytest.fixture
def shop(database: Database) -> Database:
    with database.connect() as connection:
        connection.execute('CREATE SCHEMA "My App"')
        connection.execute('CREATE TABLE "My App"."user" (id int PRIMARY KEY, mail text, "no, really" int)')
        connection.execute(
            "CREATE TABLE orders (id int PRIMARY KEY, day int, note text,"
            ' buyer int REFERENCES "My App"."user")'
        )
        connection.execute("INSERT INTO orders SELECT i, i, 'x', NULL FROM generate_series(1, 20000) AS i")
        connection.execute("CREATE INDEX by_day ON orders (day)")
        connection.execute("CREATE INDEX by_day_too ON orders (day) WITH (fillfactor = 50)")
        connection.execute("CREATE INDEX by_day_note ON orders (day, note)")
        connection.execute("CREATE INDEX noted ON orders (note)")
        connection.execute("CREATE INDEX folded ON orders (lower(note))")
        connection.execute("ANALYZE orders")
    return database


def look(shop: Database, tmp_path: Path, **settings: Any) -> dict[str, Any]:
    state_url = f"sqlite:///{tmp_path / 'state.db'}"
    target = make_target(shop, tmp_path, index_audit=settings)
    config = target.config.model_copy(update={"state_url": state_url})
    object.__setattr__(target, "config", config)
    return audit(target).as_json()


def scan(shop: Database) -> None:
    with shop.connect() as connection:
        connection.execute("SET enable_seqscan = off; SET enable_bitmapscan = off")
        assert connection.value("SELECT count(*) FROM orders WHERE day = 7 AND note = 'x'") == 1
        flush_counters(connection)


def verdicts(found: dict[str, Any]) -> dict[str, str]:
    return {each["index"].removeprefix("public."): each["verdict"] for each in found["usage"]}


def test_every_finding_can_be_mended_and_taken_back_by_its_statements(shop: Database, tmp_path: Path) -> None:
    scan(shop)
    found = look(shop, tmp_path, min_observed_days=0)
    kinds = {each["object"].removeprefix("public."): each["kind"] for each in found["problems"]}
    assert kinds == {
        "by_day": "redundant",
        "by_day_too": "redundant",
        "noted": "unused",
        "orders_buyer_fkey": "foreign key",
    }
    before = shop.rows("SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1")
    for each in found["problems"]:
        for statement in each["ddl"]:
            shop.execute(statement.encode())
    assert look(shop, tmp_path, min_observed_days=0)["problems"] == []
    for each in found["problems"]:
        for statement in each["undo"]:
            shop.execute(statement.encode())
    assert (
        shop.rows("SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1")
        == before
    )


LOOKUPS = {
    "part": ("b text REFERENCES other", "(b) WHERE b IS NOT NULL", True),
    "both": ("b text, a int, FOREIGN KEY (a, b) REFERENCES pair", "(b, a) WHERE a > 0", False),
    "halves": (
        'b text, "A ) b" int, FOREIGN KEY ("A ) b", b) REFERENCES pair',
        '(b, "A ) b") WHERE b IS NOT NULL AND "A ) b" IS NOT NULL',
        True,
    ),
    "pattern": ("b text REFERENCES other", "(b text_pattern_ops)", True),
    "collation": ("b text REFERENCES other", '(b COLLATE "C")', False),
    "own collation": ('b text COLLATE "C" REFERENCES other', "(b)", True),
    "hash": ("b text REFERENCES other", "USING hash (b)", True),
    "brin": ("b text REFERENCES other", "USING brin (b)", False),
    "carried": ("a int, b text REFERENCES other", "(a) INCLUDE (b)", False),
    "second": ("a int, b text REFERENCES other", "(a, b)", False),
    "wider": ("b varchar(9) REFERENCES other", "(b)", True),
}


def test_an_index_supports_a_foreign_key_where_its_lookups_can_use_it(
    database: Database, tmp_path: Path
) -> None:
    with database.connect() as connection:
        connection.execute("CREATE TABLE other (b text PRIMARY KEY, expires timestamptz)")
        connection.execute("CREATE TABLE pair (a int, b text, PRIMARY KEY (a, b))")
        for name, (columns, index, _) in LOOKUPS.items():
            connection.execute(f'CREATE TABLE "{name}" ({columns})'.encode())
            connection.execute(f'CREATE INDEX ON "{name}" {index}'.encode())
    problems = look(database, tmp_path)["problems"]
    lacking = {each["table"] for each in problems if each["kind"] == "foreign key"}
    assert lacking == {quote_name("public", name) for name, (*_, found) in LOOKUPS.items() if not found}
    target = make_target(database, tmp_path, sessions=({"table": "other", "expires": "expires"},))
    (cleanup,) = clean_sessions(target, dry_run=True).details["cleanups"]
    for reference in cleanup["references"]:
        assert reference["indexed"] is (reference["table"] not in lacking), reference


@pytest.mark.contrib
def test_operators_of_an_extension_look_up_too(database: Database, tmp_path: Path) -> None:
    with database.connect() as connection:
        connection.execute("CREATE EXTENSION btree_gist")
        connection.execute("CREATE TABLE other (id int PRIMARY KEY)")
        connection.execute("CREATE TABLE spans (id int REFERENCES other, span int4range)")
        connection.execute("ALTER TABLE spans ADD EXCLUDE USING gist (id WITH =, span WITH &&)")
        if connection.server_version >= 180000:
            connection.execute("CREATE TABLE t (id int, d int4range, PRIMARY KEY (id, d WITHOUT OVERLAPS))")
            connection.execute("CREATE TABLE u (id int, d int4range, PRIMARY KEY (id, d WITHOUT OVERLAPS))")
            connection.execute("ALTER TABLE u ADD FOREIGN KEY (id, PERIOD d) REFERENCES t (id, PERIOD d)")
    assert not look(database, tmp_path)["problems"]


def test_what_a_partition_needs_for_its_parents_key_is_not_unused(database: Database, tmp_path: Path) -> None:
    with database.connect() as connection:
        connection.execute("CREATE TABLE users (id int PRIMARY KEY)")
        connection.execute("CREATE TABLE log (day int, who int REFERENCES users) PARTITION BY LIST (day)")
        connection.execute("CREATE TABLE log_1 PARTITION OF log FOR VALUES IN (1, 2) PARTITION BY LIST (day)")
        connection.execute("CREATE TABLE log_1a PARTITION OF log_1 FOR VALUES IN (1)")
        connection.execute("CREATE INDEX leaf ON log_1a (who)")
        connection.execute("CREATE INDEX in_vain ON log_1a (day)")
    found = look(database, tmp_path, min_observed_days=0)
    said = verdicts(found)
    assert (said["leaf"], said["in_vain"]) == ("needed", "unused")
    kinds = {each["object"]: each["kind"] for each in found["problems"]}
    assert kinds == {"log_who_fkey": "foreign key", "public.in_vain": "unused"}


def test_only_options_that_decide_what_is_found_tell_copies_apart(shop: Database, tmp_path: Path) -> None:
    for name, pages in (("coarse", 128), ("fine", 8), ("fine_too", 8)):
        shop.execute(
            f"CREATE INDEX {name} ON orders USING brin (day) WITH (pages_per_range = {pages})".encode()
        )
    found = look(shop, tmp_path)
    copies = {each["object"] for each in found["problems"] if each["kind"] == "duplicate"}
    assert {name.removeprefix("public.") for name in copies} == {"fine_too"}


def test_a_verdict_needs_time_and_the_day_an_index_was_seen_first(shop: Database, tmp_path: Path) -> None:
    scan(shop)
    found = look(shop, tmp_path)
    assert found["verdicts"]["unused"] == 0
    said = verdicts(found)
    assert said["orders_pkey"] == "needed"
    assert said["by_day_note"] == "used"
    assert said["folded"] == "needed"
    assert said["noted"] == "not enough evidence"
    settings = {"min_observed_days": 0.00002}
    deadline = time.monotonic() + 60
    while verdicts(look(shop, tmp_path, **settings))["noted"] != "unused":
        assert time.monotonic() < deadline
        time.sleep(0.5)
    shop.execute("DROP INDEX noted")
    shop.execute("CREATE INDEX noted ON orders (note)")
    assert verdicts(look(shop, tmp_path, **settings))["noted"] == "not enough evidence"


def test_what_is_excluded_is_not_spoken_of(shop: Database, tmp_path: Path) -> None:
    found = look(shop, tmp_path, min_observed_days=0, exclude=["by_day*", "orders_buyer_fkey", "noted"])
    assert found["problems"] == []
    assert found["status"] == "ok"
    assert found["skipped"] == [
        {"object": "4 indexes", "reason": "excluded by index_audit.exclude"},
    ]


def test_sizes_come_largest_first_and_the_report_names_findings(shop: Database, tmp_path: Path) -> None:
    shop.execute("CREATE TABLE docs (body text); ALTER TABLE docs ALTER body SET STORAGE EXTERNAL")
    shop.execute("INSERT INTO docs SELECT repeat(md5(i::text), 2000) FROM generate_series(1, 100) AS i")
    found = look(shop, tmp_path)
    totals = [each["total_bytes"] for each in found["sizes"]]
    assert totals == sorted(totals, reverse=True)
    docs = next(each for each in found["sizes"] if each["table"] == "public.docs")
    assert docs["toast_bytes"] > 6_000_000 > docs["table_bytes"]
    assert docs["total_bytes"] == docs["table_bytes"] + docs["toast_bytes"] + docs["index_bytes"]
    sizes = [each["bytes"] for each in found["usage"]]
    assert sizes == sorted(sizes, reverse=True)


def test_a_role_without_any_right_sees_the_same(shop: Database, tmp_path: Path) -> None:
    with temporary_role(shop) as login:
        few = audit(make_target(shop, tmp_path, login=login)).as_json()
    own = audit(make_target(shop, tmp_path)).as_json()
    assert few["problems"] == own["problems"]
    assert few["verdicts"] == own["verdicts"]


def test_a_replica_that_can_not_be_asked_leaves_every_verdict_open(shop: Database, tmp_path: Path) -> None:
    nowhere = f"host=127.0.0.1 port=1 dbname={shop.dbname} user=nobody"
    found = look(shop, tmp_path, min_observed_days=0, replicas=[nowhere, {"conninfo": shop.conninfo}])
    assert found["verdicts"]["unused"] == 0
    assert [note["object"] for note in found["unknown"]] == ["replica 1", "replica 2"]
    assert found["status"] == "partial"


def test_a_standby_counts_for_itself_and_a_crash_ends_what_was_observed(
    server: servers.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with own_cluster(server, tmp_path / "own", {}) as primary:
        primary.server.create("shop")
        database = Database(primary.server, "shop")
        database.execute("CREATE TABLE t (a int, b int)")
        database.execute("INSERT INTO t SELECT i, i FROM generate_series(1, 1000) AS i")
        database.execute("CREATE INDEX by_a ON t (a)")
        database.execute("CREATE INDEX by_b ON t (b)")
        enough = {"min_observed_days": 0}
        with standby_of(primary) as standby:
            scan_on(standby.server.login.to("shop"))
            found = look(database, tmp_path, **enough)
            assert found["verdicts"]["not enough evidence"] == 2
            assert "a standby streams from it" in found["usage"][0]["why"]
            monkeypatch.setenv("STANDBY", str(standby.server.login.password))
            replica = {"conninfo": standby.server.login.conninfo, "password": {"env": "STANDBY"}}
            assert verdicts(look(database, tmp_path, replicas=[replica], **enough)) == {
                "by_a": "unused",
                "by_b": "used",
            }
            found = look(database, tmp_path, replicas=[], **enough)
            assert found["verdicts"]["unused"] == 2
        before = found["usage"][0]["observed_since"]
        primary.crash()
        reset = "SELECT stats_reset FROM pg_stat_database WHERE datname = current_database()"
        assert database.value(reset) is None
        after = look(database, tmp_path, replicas=[])["usage"][0]
        assert after["observed_since"] > before
        assert after["verdict"] == "not enough evidence"


def scan_on(login: Login) -> None:
    """Use the index on b, once it has arrived there."""
    deadline = time.monotonic() + 60
    with connect(login, purpose="test") as connection:
        while connection.value("SELECT to_regclass('by_b')") is None:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        connection.execute("SET enable_seqscan = off")
        assert connection.value("SELECT count(*) FROM t WHERE b = 7") == 1
        flush_counters(connection)


def test_what_an_index_was_seen_first_is_kept_by_database(shop: Database, tmp_path: Path) -> None:
    look(shop, tmp_path)
    target = make_target(shop, tmp_path)
    config = target.config.model_copy(update={"state_url": f"sqlite:///{tmp_path / 'state.db'}"})
    with state.open_history(config) as history:
        (kept,) = history.recall("app", shop.dbname, TOPIC).values()
    assert len(kept) == 7
    assert step_text(audit(target)).count("undo:") >= 3
