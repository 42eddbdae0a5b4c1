"""Databases whose settings, encodings and columns make a careless proof cry wolf, or look away."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from pgsteward.backup.dump import back_up
from pgsteward.backup.manifest import Manifest
from pgsteward.backup.proof_compare import GENERATED
from pgsteward.postgres import compose, identifier, literal, raw
from pgsteward.restore.run import restore
from pgsteward.results import StepResult
from tests.integration.backup_targets import make_target, stored_manifest
from tests.servers import Database, Server


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def copy(server: Server) -> Iterator[Database]:
    name = f"copy_{uuid.uuid4().hex[:12]}"
    yield Database(server, name)
    server.drop(name)


def there_and_back(database: Database, copy: Database, tmp_path: Path) -> tuple[Manifest, StepResult]:
    """Back up, restore, and return the manifest and the restore's result."""
    target = make_target(database, tmp_path, backup={"compress": "gzip:1"})
    made = back_up(target)
    assert made.status == "ok", made
    return stored_manifest(target, made.details["backup_id"]), restore(target, into=copy.dbname)


SETTINGS = {
    "standard_conforming_strings": "off",
    "escape_string_warning": "off",
    "backslash_quote": "off",
    "extra_float_digits": "-15",
    "bytea_output": "escape",
    "DateStyle": "German, DMY",
    "IntervalStyle": "iso_8601",
    "TimeZone": "Asia/Kolkata",
    "xmloption": "document",
    "quote_all_identifiers": "on",
    "search_path": "",
    "array_nulls": "off",
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "default_transaction_deferrable": "on",
    "client_encoding": "LATIN1",
    "client_min_messages": "error",
    "transform_null_equals": "on",
    "statement_timeout": "60s",
    "default_text_search_config": "german",
    "session_replication_role": "replica",
    "row_security": "off",
    "enable_hashagg": "off",
    "gin_fuzzy_search_limit": "1",
    "plan_cache_mode": "force_generic_plan",
}


def test_the_settings_of_a_database_change_nothing_about_its_proof(
    server: Server, database: Database, copy: Database, tmp_path: Path
) -> None:
    database.execute(
        """
        CREATE SCHEMA elsewhere;
        CREATE FUNCTION elsewhere.float8send(float8) RETURNS bytea LANGUAGE sql AS 'SELECT NULL::bytea';
        CREATE TABLE t (id int, f8 float8, f4 float4, d date, iv interval, tz timestamptz, b bytea, m money,
                        tags text[], t text, kind regclass);
        INSERT INTO t VALUES (1, 0.1, 0.1, '2026-11-25', '1 day 2 s', '2026-11-25 02:00+01', '\\x00ff', 1.5,
                              '{a,NULL}', 'back\\slash ''é''', 't'),
                             (2, -0.0, '-0', 'infinity', '-1 mon', 'infinity', '', -1, '{}', '', NULL);
        SELECT lo_from_bytea(0, 'back\\\\slash'), lo_put(lo_create(4711), 5000, 'x')
        """
    )
    with server.connect() as session:
        for name, value in SETTINGS.items():
            wanted = raw("elsewhere, pg_catalog") if name == "search_path" else literal(value)
            parts = identifier(database.dbname), identifier(name), wanted
            session.execute(compose("ALTER DATABASE {} SET {} = {}", *parts))
    _, restored = there_and_back(database, copy, tmp_path)
    assert (restored.status, restored.unknown) == ("ok", ()), restored
    assert restored.details["proof"] == {"level": "full", "relations": 1, "rows": 2, "equal": True}


def test_a_generated_column_that_a_restore_computes_otherwise_is_named_and_refuses_nothing(
    database: Database, copy: Database, tmp_path: Path
) -> None:
    """Nothing of it is in the dump: what is stale in the original is fresh in the copy."""
    database.execute(
        """
        CREATE TYPE mood AS ENUM ('sad', 'ok');
        CREATE FUNCTION tax() RETURNS numeric IMMUTABLE LANGUAGE sql RETURN 0.16;
        CREATE TABLE orders (id int, net numeric, gross numeric GENERATED ALWAYS AS (net * tax()) STORED);
        INSERT INTO orders VALUES (1, 10), (2, 20);
        CREATE TABLE fresh (id int, twice int GENERATED ALWAYS AS (id * 2) STORED);
        INSERT INTO fresh VALUES (1);
        CREATE TABLE made (only_one int GENERATED ALWAYS AS (1) STORED);
        INSERT INTO made DEFAULT VALUES;
        CREATE TABLE moods (mood mood, n int, twice int GENERATED ALWAYS AS (n * 2) STORED)
               PARTITION BY HASH (mood);
        CREATE TABLE moods_0 PARTITION OF moods FOR VALUES WITH (MODULUS 2, REMAINDER 0);
        CREATE TABLE moods_1 PARTITION OF moods FOR VALUES WITH (MODULUS 2, REMAINDER 1);
        INSERT INTO moods SELECT (ARRAY['ok', 'sad']::mood[])[1 + n % 2], n FROM generate_series(1, 9) AS n;
        """
    )
    manifest, restored = there_and_back(database, copy, tmp_path)
    assert (restored.status, restored.unknown) == ("ok", ()), restored
    hashed = {each.name: (each.hash_a is None, each.generated_a is None) for each in manifest.proof.relations}
    assert hashed == {
        "orders": (False, False),
        "fresh": (False, False),
        "made": (True, False),
        "moods_0": (False, False),
        "moods_1": (False, False),
    }
    copy.server.drop(copy.dbname)
    database.execute("CREATE OR REPLACE FUNCTION tax() RETURNS numeric IMMUTABLE LANGUAGE sql RETURN 0.19")
    _, restored = there_and_back(database, copy, tmp_path)
    assert restored.status == "partial"
    assert [(note.object, note.reason) for note in restored.unknown] == [("public.orders", GENERATED)]
    assert restored.details["proof"]["equal"] is True
    assert restored.details["receipt"] is None
    gross = "SELECT gross FROM orders WHERE id = 1"
    assert (database.value(gross), copy.value(gross)) == (Decimal("1.60"), Decimal("1.90"))
