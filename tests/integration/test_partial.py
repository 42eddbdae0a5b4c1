"""Backups of a part of a database: dumped, proven and restored exactly, and never taken for the whole."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pgsteward import postgres
from pgsteward.backup import archive, catalog
from pgsteward.backup.dump import back_up
from pgsteward.errors import PreconditionError
from pgsteward.postgres import Login
from pgsteward.restore.run import restore
from pgsteward.retention import prune
from tests.integration.backup_targets import make_target, nothing_left, stored_manifest
from tests.servers import Database

CONTENT = """
CREATE SCHEMA "App X";
CREATE TABLE "App X"."Order Lines" (id serial PRIMARY KEY, note text);
INSERT INTO "App X"."Order Lines" (note) SELECT 'n' || g FROM generate_series(1, 30) AS g;
CREATE MATERIALIZED VIEW "App X".sums AS SELECT count(*) AS c FROM "App X"."Order Lines";
CREATE TABLE jobs (id serial PRIMARY KEY, note text);
INSERT INTO jobs (note) SELECT 'j' || g FROM generate_series(1, 20) AS g;
CREATE TABLE log_2025 (id serial, line text); INSERT INTO log_2025 (line) VALUES ('a'), ('b');
CREATE TABLE log_2026 (id serial, line text); INSERT INTO log_2026 (line) VALUES ('c');
CREATE MATERIALIZED VIEW log_sums AS SELECT count(*) AS c FROM log_2025;
SELECT lo_from_bytea(4711, '\\x010203')
"""


def stem(backup: dict[str, Any]) -> dict[str, Any]:
    return {"compress": "gzip:1", **backup}


@pytest.fixture
def copies(database: Database) -> Iterator[str]:
    name = f"copy_{uuid.uuid4().hex[:12]}"
    yield name
    database.server.drop(name)


@pytest.mark.parametrize(
    ("chosen", "clause", "rows", "left_out"),
    [
        pytest.param(
            {"tables": ["public.jobs", '"App X".*'], "mode": "stream"},
            'tables: public.jobs, "App X".* only',
            {"jobs": 20, "Order Lines": 30, "sums": 1},
            ["public.log_2025", "public.log_2026", "public.log_sums", "large objects"],
            id="tables",
        ),
        pytest.param(
            {"schemas": ['"App X"']},
            'schemas: "App X" only',
            {"Order Lines": 30, "sums": 1},
            ["public.jobs", "public.log_2025", "public.log_2026", "public.log_sums", "large objects"],
            id="schemas",
        ),
        pytest.param(
            {"exclude_table_data": ["LOG_*"]},
            "data excluded: LOG_*",
            {"jobs": 20, "Order Lines": 30, "sums": 1, "log_2025": None, "log_2026": None, "log_sums": None},
            ["public.log_2025", "public.log_2026", "public.log_sums"],
            id="data",
        ),
    ],
)
def test_a_part_is_dumped_proven_and_restored_exactly(
    database: Database,
    tmp_path: Path,
    copies: str,
    chosen: dict[str, Any],
    clause: str,
    rows: dict[str, int | None],
    left_out: list[str],
) -> None:
    database.execute(CONTENT)
    target = make_target(database, tmp_path, backup=stem(chosen))
    result = back_up(target)
    assert result.status == "ok"
    assert result.details["partial"] == [clause]
    assert clause in result.summary
    assert sorted(note.object for note in result.skipped) == sorted(left_out)
    manifest = stored_manifest(target, result.details["backup_id"])
    assert manifest.partial == (clause,)
    assert manifest.format_version == 2  # an older pgsteward would take it for the whole
    assert {relation.name: relation.rows for relation in manifest.proof.relations} == rows
    restored = restore(target, manifest.backup_id, into=copies)
    assert restored.status == "ok", restored.as_json()
    with postgres.connect(database.server.login.to(copies), purpose="test") as connection:
        for name, count in rows.items():
            schema = "App X" if name in ("Order Lines", "sums") else "public"
            if name != "log_sums":
                table = postgres.identifier(schema, name)
                found = connection.value(postgres.compose("SELECT count(*) FROM {}", table))
                assert found == (count or 0)


def test_views_alone_and_parts_without_proof_are_restored(
    database: Database, tmp_path: Path, copies: str
) -> None:
    database.execute(
        'CREATE SCHEMA "App; X"; CREATE VIEW "App; X".v AS SELECT 1 AS a;'
        "CREATE SCHEMA u; CREATE TABLE u.t (a int)"
    )
    for chosen in ({"tables": ['"App; X".v']}, {"tables": ["u.t"], "proof": "none"}):
        target = make_target(database, tmp_path, backup=stem(chosen))
        made = back_up(target).details["backup_id"]
        assert restore(target, made, into=copies).status in ("ok", "partial")
        database.server.drop(copies)


def test_a_chosen_table_whose_rows_are_missing_is_unknown(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.execute(
        "CREATE TABLE a AS SELECT 1 AS i; CREATE TABLE b AS SELECT 1 AS i; CREATE TABLE c (i int)"
    )
    target = make_target(database, tmp_path, backup=stem({"tables": ["a", "b"]}))
    real = archive.entries

    def without_b(*args: Any) -> list[tuple[int, int, bytes]]:
        return [entry for entry in real(*args) if not entry[2].startswith(b"TABLE DATA public b ")]

    monkeypatch.setattr(archive, "entries", without_b)
    result = back_up(target)
    assert result.status == "partial"
    assert [(note.object, note.reason) for note in result.unknown] == [
        ("public.b", "the archive holds no rows of it")
    ]
    assert "public.b" not in [note.object for note in result.skipped]


def test_a_pattern_that_matches_nothing_is_refused_and_named(database: Database, tmp_path: Path) -> None:
    database.execute("CREATE TABLE jobs (a int)")
    for key, pattern, kind in (
        ("tables", "public.jbos", "table"),
        ("tables", '"j*"', "table"),
        ("schemas", "pubilc", "schema"),
        ("exclude_table_data", "jbos", "table"),
    ):
        target = make_target(database, tmp_path, backup={key: [pattern]})
        with pytest.raises(
            PreconditionError, match=re.escape(f"backup.{key}: {pattern!r} matches no {kind}")
        ):
            back_up(target, dry_run=True)
    assert nothing_left(target)


def test_a_partial_backup_is_never_the_latest(database: Database, tmp_path: Path, copies: str) -> None:
    database.execute("CREATE TABLE jobs AS SELECT 1 AS a; CREATE TABLE log AS SELECT 2 AS a")
    part = make_target(database, tmp_path, backup=stem({"tables": ["jobs"]}))
    whole = make_target(database, tmp_path, backup=stem({}))
    first = back_up(part).details["backup_id"]
    refused = f"but 1 partial one, the newest {first} .*by its id"
    with pytest.raises(PreconditionError, match=refused):
        catalog.verify(whole, "latest")
    with pytest.raises(PreconditionError, match=refused):
        restore(whole, "latest", into=copies)
    assert catalog.verify(whole, first).status == "ok"
    with pytest.raises(PreconditionError, match=r"is partial .*can't take the place"):
        restore(whole, first, replace=True, confirm_database=database.dbname)
    second = back_up(whole).details["backup_id"]
    back_up(part)
    assert catalog.verify(part, "latest").details["backup_id"] == second
    assert restore(part, "latest", into=copies).details["backup_id"] == second
    listed = catalog.backups(part).details["backups"]
    assert [entry["partial"] for entry in listed] == [["tables: jobs only"], [], ["tables: jobs only"]]


def test_partial_backups_push_out_no_whole_ones(database: Database, tmp_path: Path) -> None:
    database.execute("CREATE TABLE jobs AS SELECT 1 AS a")
    rules = {"keep_last": 1, "keep_min": 1}
    whole = make_target(database, tmp_path, backup=stem({}), retention=rules)
    part = make_target(database, tmp_path, backup=stem({"tables": ["jobs"]}), retention=rules)
    made = [back_up(target).details["backup_id"] for target in (whole, whole, part, part)]
    result = prune(part, now=datetime.now(UTC) + timedelta(minutes=1))
    assert {item.object for item in result.changed} == {made[0], made[2]}
    kept = [entry["backup_id"] for entry in catalog.backups(part).details["backups"]]
    assert sorted(kept) == sorted([made[1], made[3]])


def test_rights_are_asked_for_only_where_something_is_dumped(database: Database, tmp_path: Path) -> None:
    database.execute(
        "CREATE TABLE mine (a int); CREATE TABLE hidden AS SELECT g AS a FROM generate_series(1, 4) g"
    )
    name = f"reader_{uuid.uuid4().hex[:8]}"
    quoted = postgres.identifier(name)
    database.execute(postgres.compose("CREATE ROLE {} LOGIN PASSWORD 'pw'", quoted))
    try:
        database.execute(postgres.compose("GRANT SELECT ON mine TO {}", quoted))
        login = Login(f"{database.conninfo} user='{name}'", "pw")
        with pytest.raises(PreconditionError, match=r"public\.hidden: no SELECT"):
            back_up(make_target(database, tmp_path, login=login))
        only = {"tables": ["mine"]}
        assert back_up(make_target(database, tmp_path, login=login, backup=only)).details["partial"]
        database.execute(postgres.compose("GRANT SELECT ON hidden TO {}", quoted))
        database.execute(
            "ALTER TABLE hidden ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON hidden USING (a < 3)"
        )
        with pytest.raises(PreconditionError, match="row-level security hides rows"):
            back_up(make_target(database, tmp_path, login=login))
        shown = make_target(database, tmp_path, login=login, backup={"enable_row_security": True})
        result = back_up(shown)
        manifest = stored_manifest(shown, result.details["backup_id"])
        assert manifest.partial == ("rows: only those that row-level security shows to this role",)
        assert {r.name: r.rows for r in manifest.proof.relations} == {"mine": 0, "hidden": 2}
        without = {"exclude_table_data": ["hidden"]}
        assert back_up(make_target(database, tmp_path, login=login, backup=without)).details["partial"]
    finally:
        database.execute(postgres.compose("DROP OWNED BY {}", quoted))
        database.execute(postgres.compose("DROP ROLE {}", quoted))
