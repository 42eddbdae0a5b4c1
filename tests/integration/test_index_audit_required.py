"""Required indexes, declared by what they are: PostgreSQL itself says what a declaration means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pgsteward.index_audit import audit
from tests.integration.backup_targets import make_target
from tests.integration.maintenance import temporary_role
from tests.servers import Database


@pytest.fixture
def board(database: Database) -> Database:
    with database.connect() as connection:
        connection.execute("CREATE TYPE job_status AS ENUM ('DRAFT', 'PUBLISHED')")
        connection.execute(
            "CREATE TABLE jobs (id int PRIMARY KEY, status job_status, location_type text, title varchar(80),"
            ' "Odd, ""Name""" text COLLATE "C", created timestamptz, salary int)'
        )
        connection.execute(
            "CREATE TABLE applications (id int PRIMARY KEY, candidate int, job int, status text NOT NULL)"
        )
    return database


def look(board: Database, tmp_path: Path, *required: Any, **settings: Any) -> dict[str, Any]:
    target = make_target(board, tmp_path, index_audit={"required": list(required), **settings})
    return audit(target).as_json()


def problem(found: dict[str, Any], label: str) -> dict[str, Any]:
    (one,) = [each for each in found["problems"] if each["object"] == label]
    return dict(one)


CRITICAL = {
    "name": "idx_jobs_status",
    "table": "jobs",
    "columns": ["status", "location_type"],
    "where": "status = 'PUBLISHED'",
}

MADE = {
    "(status, location_type) WHERE status = 'PUBLISHED'::job_status": "",
    "(status, location_type) WHERE (('PUBLISHED' = status))": "its predicate is",
    "(location_type, status) WHERE status = 'PUBLISHED'": "its columns are (location_type, status)",
    "(status, location_type, id) WHERE status = 'PUBLISHED'": "its columns are (status, location_type, id)",
    "(status, location_type)": "its predicate is none",
    "(status, location_type DESC) WHERE status = 'PUBLISHED'": "location_type is descending",
    "(status, location_type text_pattern_ops) WHERE status = 'PUBLISHED'": "another operator class",
    "(status, location_type COLLATE \"C\") WHERE status = 'PUBLISHED'": "another collation",
    "(status, location_type) INCLUDE (id) WHERE status = 'PUBLISHED'": "it includes (id)",
}


def test_an_index_of_the_right_name_must_be_the_declared_one(board: Database, tmp_path: Path) -> None:
    for definition, says in MADE.items():
        board.execute(f"CREATE INDEX idx_jobs_status ON jobs {definition}".encode())
        found = look(board, tmp_path, CRITICAL)
        if says:
            assert found["different"] == ["idx_jobs_status"], definition
            assert found["status"] == "partial"
            assert says in problem(found, "idx_jobs_status")["reason"]
        else:
            assert found["found"] == ["idx_jobs_status"], definition
            assert found["status"] == "ok"
        board.execute("DROP INDEX idx_jobs_status")


def test_another_index_of_the_name_makes_way_and_comes_back(board: Database, tmp_path: Path) -> None:
    board.execute("CREATE INDEX idx_jobs_status ON jobs (status, location_type DESC) INCLUDE (id)")
    wrong = problem(look(board, tmp_path, CRITICAL), "idx_jobs_status")
    for statement in wrong["ddl"]:
        board.execute(statement.encode())
    assert look(board, tmp_path, CRITICAL)["found"] == ["idx_jobs_status"]
    for statement in wrong["undo"]:
        board.execute(statement.encode())
    assert problem(look(board, tmp_path, CRITICAL), "idx_jobs_status") == wrong


@pytest.mark.parametrize(
    ("declared", "made"),
    [
        ({"columns": ["lower(title)"]}, "(lower((title)::text))"),
        ({"columns": ["(salary * 2)"], "where": "salary > 0 AND title IS NOT NULL"}, None),
        ({"columns": ['"Odd, ""Name"""', "created DESC NULLS LAST"], "include": ["id"]}, None),
        ({"columns": ["salary"], "method": "hash"}, None),
        ({"columns": ["title varchar_pattern_ops"]}, None),
        ({"columns": ["id", "salary"], "unique": True, "nulls_not_distinct": True}, None),
        ({"columns": ["date_trunc('day', created AT TIME ZONE 'UTC')"]}, None),
    ],
    ids=["expression", "arithmetic", "odd-name", "hash", "class", "nulls", "time-zone"],
)
def test_what_is_declared_can_be_made_by_the_statement_and_is_found_then(
    board: Database, tmp_path: Path, declared: dict[str, Any], made: str | None
) -> None:
    entry = {"table": "jobs", **declared}
    first = look(board, tmp_path, entry)
    (label,) = first["missing"]
    ddl = [f"CREATE INDEX ON jobs {made}"] if made else problem(first, label)["ddl"]
    for statement in ddl:
        board.execute(statement.encode())
    found = look(board, tmp_path, entry)
    assert found["found"] == [label], found["findings"]
    assert found["status"] == "ok"
    if made is None:
        (undo,) = problem(first, label)["undo"]
        board.execute(undo.encode())
        assert look(board, tmp_path, entry)["missing"] == [label]


def test_an_equal_index_of_another_name_counts_and_is_named(board: Database, tmp_path: Path) -> None:
    board.execute("CREATE UNIQUE INDEX other ON applications (candidate, job) WHERE status <> 'rejected'")
    entry = {
        "name": "unique_candidate_job",
        "table": "public.applications",
        "columns": ["candidate", "job"],
        "where": "status != 'rejected'",
    }
    found = look(board, tmp_path, {**entry, "unique": True}, entry)
    assert found["found"] == ["unique_candidate_job", "unique_candidate_job"]
    assert found["found_as"] == {"unique_candidate_job": "public.other"}
    assert found["status"] == "ok"


def test_a_plain_index_does_not_serve_where_a_unique_one_is_declared(board: Database, tmp_path: Path) -> None:
    board.execute("CREATE INDEX pair ON applications (candidate, job)")
    board.execute(
        "INSERT INTO applications VALUES (1, 1, 1, 'new'), (2, 1, 1, 'new'), (3, 1, 2, 'new'),"
        " (4, NULL, 1, 'new'), (5, NULL, 1, 'new')"
    )
    entry = {"name": "pair", "table": "applications", "columns": ["candidate", "job"], "unique": True}
    found = look(board, tmp_path, entry)
    assert found["different"] == ["pair"]
    wrong = problem(found, "pair")
    assert "it is not unique" in wrong["reason"]
    assert "2 rows share their values" in wrong["reason"]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"table": "nowhere", "columns": ["id"]}, "no such table"),
        ({"table": "jobs", "columns": ["nothing"]}, 'column "nothing" does not exist'),
        ({"table": "jobs", "columns": ["id"], "where": "id ="}, "syntax error"),
        ({"table": "jobs", "columns": ["id"], "where": "created > now()"}, "must be marked IMMUTABLE"),
        ({"table": "jobs", "columns": ["id"], "method": "nothing"}, "access method"),
    ],
)
def test_what_can_not_be_made_is_missing_and_says_why(
    board: Database, tmp_path: Path, entry: dict[str, Any], said: str
) -> None:
    found = look(board, tmp_path, entry)
    assert len(found["missing"]) == 1
    assert said in found["findings"][0]["reason"]


def test_a_partitioned_table_gets_its_index_part_by_part(database: Database, tmp_path: Path) -> None:
    with database.connect() as connection:
        connection.execute('CREATE SCHEMA "Arch ive"')
        connection.execute("CREATE TABLE log (id int, day int, note text) PARTITION BY RANGE (day)")
        connection.execute("CREATE TABLE log_1 PARTITION OF log FOR VALUES FROM (0) TO (10)")
        connection.execute(
            'CREATE TABLE "Arch ive"."log 2" PARTITION OF log FOR VALUES FROM (10) TO (20)'
            " PARTITION BY LIST (day)"
        )
        connection.execute(
            'CREATE TABLE "Arch ive"."log 2a" PARTITION OF "Arch ive"."log 2" FOR VALUES IN (10)'
        )
        connection.execute("CREATE INDEX here_already ON log_1 (lower(note)) WHERE note <> ''")
    entry = {"name": "log_note", "table": "log", "columns": ["lower(note)"], "where": "note <> ''"}
    first = look(database, tmp_path, entry)
    assert first["missing"] == ["log_note"]
    ddl = problem(first, "log_note")["ddl"]
    assert not [statement for statement in ddl if "ON public.log_1" in statement]
    database.execute(ddl[0].encode())
    middle = look(database, tmp_path, entry)
    assert middle["invalid"] == ["log_note"]
    assert "once 3 more partitions have their part" in problem(middle, "log_note")["reason"]
    for statement in problem(middle, "log_note")["ddl"]:
        database.execute(statement.encode())
    assert look(database, tmp_path, entry)["found"] == ["log_note"]


def test_a_role_without_rights_on_a_table_knows_nothing_and_says_so(board: Database, tmp_path: Path) -> None:
    with temporary_role(board, "pg_monitor") as login:
        target = make_target(board, tmp_path, login=login, index_audit={"required": [CRITICAL, "jobs_pkey"]})
        found = audit(target).as_json()
    assert found["found"] == ["jobs_pkey"]
    assert found["missing"] == found["different"] == []
    (unknown,) = found["unknown"]
    assert unknown["object"] == "idx_jobs_status"
    assert "permission denied for table jobs" in unknown["reason"]


def test_a_locked_table_holds_nothing_up(board: Database, tmp_path: Path) -> None:
    board.execute("CREATE INDEX idx_jobs_status ON jobs (status, location_type) WHERE status = 'PUBLISHED'")
    with board.connect(autocommit=False) as holder:
        holder.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
        found = look(board, tmp_path, CRITICAL, "applications_pkey")
        holder.execute("ROLLBACK")
    assert found["seconds"] < 10
    assert found["found"] == ["applications_pkey"]
    assert {"idx_jobs_status", "public.jobs"} <= {note["object"] for note in found["unknown"]}


def test_settings_of_role_and_database_change_nothing(board: Database, tmp_path: Path) -> None:
    with board.connect() as connection:
        connection.execute("CREATE SCHEMA app")
        connection.execute("CREATE DOMAIN app.tag AS text")
        connection.execute("CREATE TABLE app.tags (t app.tag)")
        connection.execute(
            "CREATE FUNCTION app.fold(text) RETURNS text IMMUTABLE LANGUAGE sql RETURN lower($1)"
        )
        connection.execute(
            "CREATE FUNCTION app.lower(app.tag) RETURNS text IMMUTABLE LANGUAGE sql RETURN 'x'"
        )
        connection.execute("CREATE INDEX folded ON app.tags (app.fold(t)) WHERE t <> 'é'")
        connection.execute(f'ALTER DATABASE "{board.dbname}" SET search_path = app, pg_catalog'.encode())
        connection.execute(f'ALTER DATABASE "{board.dbname}" SET quote_all_identifiers = on'.encode())
    found = look(board, tmp_path, {"table": "app.tags", "columns": ["fold(t)"], "where": "t <> 'é'"})
    assert found["found_as"] == {"app.tags (fold(t)) WHERE t <> 'é'": "app.folded"}
