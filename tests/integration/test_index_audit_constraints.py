"""Constraints, declared or found: do they hold, and how many rows are in the way of one that is to come?"""

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
        connection.execute("CREATE TABLE companies (id int PRIMARY KEY, name text)")
        connection.execute(
            'CREATE TABLE jobs (id int PRIMARY KEY, company int, "Min" int, "Max" int,'
            " status text, slug text)"
        )
        connection.execute("INSERT INTO companies VALUES (1, 'one'), (2, 'two')")
        connection.execute(
            "INSERT INTO jobs SELECT i, i %% 4, i, 50, CASE WHEN i <= 90 THEN 'new' END, 's' || i / 2"
            "  FROM generate_series(1, 100) AS i",
            {},
        )
    return database


def look(board: Database, tmp_path: Path, *constraints: Any, **settings: Any) -> dict[str, Any]:
    target = make_target(board, tmp_path, index_audit={"constraints": list(constraints), **settings})
    return audit(target).as_json()


RANGE = {"table": "jobs", "name": "salary_range", "check": '"Min" IS NULL OR "Max" IS NULL OR "Min" <= "Max"'}
SLUG = {"table": "jobs", "name": "jobs_slug_key", "unique": ["slug"]}
STATUS = {"table": "jobs", "not_null": "status"}
COMPANY = {"table": "jobs", "name": "jobs_company", "foreign_key": ["company"], "references": "companies"}

BROKEN = [
    pytest.param(RANGE, 50, 'UPDATE jobs SET "Max" = 200', id="check"),
    pytest.param(SLUG, 98, "UPDATE jobs SET slug = slug || id", id="unique"),
    pytest.param(STATUS, 10, "UPDATE jobs SET status = 'x' WHERE status IS NULL", id="not-null"),
    pytest.param(COMPANY, 50, "INSERT INTO companies VALUES (0, ''), (3, '')", id="foreign-key"),
]


@pytest.mark.parametrize(("entry", "violations", "mend"), BROKEN)
def test_rows_in_the_way_are_counted_and_the_statements_add_it_once_they_are_gone(
    board: Database, tmp_path: Path, entry: dict[str, Any], violations: int, mend: str
) -> None:
    first = look(board, tmp_path, entry)
    (missing,) = first["constraints"]
    assert (missing["state"], missing["violations"]) == ("missing", violations)
    assert f"{violations} rows break it" in first["findings"][0]["reason"]
    board.execute(mend.encode())
    (missing,) = look(board, tmp_path, entry)["constraints"]
    assert missing["violations"] == 0
    for statement in missing["ddl"]:
        board.execute(statement.encode())
    found = look(board, tmp_path, entry)
    assert [each["state"] for each in found["constraints"]] == ["found"]
    for statement in missing["undo"]:
        board.execute(statement.encode())
    assert [each["state"] for each in look(board, tmp_path, entry)["constraints"]] == ["missing"]


def test_what_is_there_without_holding_is_found_though_nobody_declared_it(
    board: Database, tmp_path: Path
) -> None:
    board.execute("ALTER TABLE jobs ADD CONSTRAINT young CHECK (id < 50) NOT VALID")
    board.execute("ALTER TABLE jobs ADD CONSTRAINT firm FOREIGN KEY (company) REFERENCES companies NOT VALID")
    found = look(board, tmp_path)
    states = {each["constraint"]: (each["state"], each["violations"]) for each in found["constraints"]}
    assert states == {"young": ("not validated", 51), "firm": ("not validated", 50)}
    assert not any(each["declared"] for each in found["constraints"])
    board.execute("DELETE FROM jobs WHERE id >= 50 OR company IN (0, 3)")
    for each in look(board, tmp_path)["constraints"]:
        for statement in each["ddl"]:
            board.execute(statement.encode())
    assert look(board, tmp_path)["constraints"] == []


@pytest.mark.pg_min(18)
def test_what_is_not_enforced_checks_nothing(board: Database, tmp_path: Path) -> None:
    board.execute("ALTER TABLE jobs ADD CONSTRAINT young CHECK (id < 50) NOT ENFORCED")
    board.execute("ALTER TABLE jobs ADD CONSTRAINT said NOT NULL status NOT VALID")
    found = look(board, tmp_path, STATUS)
    states = {each["constraint"]: (each["state"], each["violations"]) for each in found["constraints"]}
    assert states == {
        "young": ("not enforced", 51),
        "jobs NOT NULL (status)": ("not validated", 10),
    }


def test_the_same_under_another_name_counts_and_another_of_the_same_name_does_not(
    board: Database, tmp_path: Path
) -> None:
    board.execute(
        'ALTER TABLE jobs ADD CHECK (((("Min" IS NULL)) OR "Max" IS NULL OR ("Min") <= "Max")) NOT VALID'
    )
    board.execute("ALTER TABLE jobs ADD CONSTRAINT jobs_company CHECK (id > 0)")
    board.execute("DELETE FROM jobs WHERE id %% 2 = 0", {})
    board.execute("CREATE UNIQUE INDEX slugs ON jobs (slug)")
    found = look(board, tmp_path, RANGE, COMPANY, SLUG, {"table": "jobs", "name": "jobs_pkey"})
    states = {each["constraint"]: (each["state"], each["by"]) for each in found["constraints"]}
    assert states == {
        "salary_range": ("not validated", "jobs_check"),
        "jobs_company": ("different", "jobs_company"),
        "jobs_slug_key": ("found", "slugs"),
        "jobs_pkey": ("found", "jobs_pkey"),
    }


def test_a_count_that_takes_too_long_is_unknown_and_never_zero(board: Database, tmp_path: Path) -> None:
    board.execute(
        "CREATE FUNCTION slow(int) RETURNS bool IMMUTABLE LANGUAGE plpgsql"
        " AS 'BEGIN PERFORM pg_sleep(0.1); RETURN true; END'"
    )
    entry = {"table": "jobs", "name": "slowly", "check": "slow(id)"}
    found = look(board, tmp_path, entry, count_timeout_s=0.5)
    assert [each["violations"] for each in found["constraints"]] == [None]
    (unknown,) = found["unknown"]
    assert unknown["object"] == "slowly"
    assert "not finished within count_timeout_s" in unknown["reason"]
    assert found["status"] == "partial"


def test_rows_behind_policies_are_not_counted_as_if_they_were_not_there(
    board: Database, tmp_path: Path
) -> None:
    board.execute("ALTER TABLE jobs ENABLE ROW LEVEL SECURITY")
    board.execute("CREATE POLICY few ON jobs USING (id < 10)")
    with temporary_role(board, "pg_read_all_data") as login:
        target = make_target(board, tmp_path, login=login, index_audit={"constraints": [RANGE, STATUS]})
        found = audit(target).as_json()
    assert [each["violations"] for each in found["constraints"]] == [None, None]
    assert all("row-level security" in note["reason"] for note in found["unknown"])


def test_constraints_of_partitioned_tables(database: Database, tmp_path: Path) -> None:
    with database.connect() as connection:
        connection.execute("CREATE TABLE days (day int PRIMARY KEY)")
        connection.execute("CREATE TABLE log (day int, id int) PARTITION BY LIST (day)")
        connection.execute("CREATE TABLE log_1 PARTITION OF log FOR VALUES IN (1)")
        connection.execute('CREATE TABLE "Log, 2" PARTITION OF log FOR VALUES IN (2)')
        connection.execute("INSERT INTO days VALUES (1)")
        connection.execute("INSERT INTO log VALUES (1, 1), (1, 1), (2, 1), (1, -1)")
    entries = [
        {"table": "log", "name": "log_positive", "check": "id > 0"},
        {"table": "log", "name": "log_day_id_key", "unique": ["day", "id"]},
        {"table": "log", "name": "log_day", "foreign_key": ["day"], "references": "days"},
        {"table": "log", "not_null": "id"},
    ]
    found = look(database, tmp_path, *entries)
    assert [each["violations"] for each in found["constraints"]] == [1, 2, 1, 0]
    database.execute("DELETE FROM log")
    for each in look(database, tmp_path, *entries)["constraints"]:
        for statement in each["ddl"]:
            database.execute(statement.encode())
    found = look(database, tmp_path, *entries)
    assert [each["state"] for each in found["constraints"]] == ["found"] * 4, found["constraints"]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"table": "jobs", "unique": ["nothing"]}, "column nothing does not exist"),
        ({"table": "jobs", "check": "nothing > 1"}, 'column "nothing" does not exist'),
        ({"table": "nowhere", "check": "true"}, "no table nowhere"),
        (
            {"table": "jobs", "foreign_key": ["id", "company"], "references": "companies"},
            "references_columns",
        ),
        ({"table": "jobs", "foreign_key": ["id"], "references": "nowhere"}, "nowhere does not exist"),
        ({"table": "jobs", "name": "unheard_of"}, "the application's migration adds it"),
    ],
)
def test_what_can_not_be_added_is_missing_and_says_why(
    board: Database, tmp_path: Path, entry: dict[str, Any], said: str
) -> None:
    found = look(board, tmp_path, entry)
    assert [each["state"] for each in found["constraints"]] == ["missing"]
    assert said in found["findings"][0]["reason"]


@pytest.mark.contrib
def test_a_foreign_key_is_counted_by_its_own_operators(database: Database, tmp_path: Path) -> None:
    with database.connect() as connection:
        connection.execute('CREATE SCHEMA "My Types"')
        connection.execute('CREATE EXTENSION citext SCHEMA "My Types"')
        connection.execute(
            'CREATE TABLE users (mail "My Types".citext, tag varchar(9) COLLATE "C",'
            " grade char(3), kinds int[], PRIMARY KEY (mail, tag, grade, kinds))"
        )
        connection.execute(
            'CREATE TABLE orders (mail "My Types".citext, tag text, grade char(5), kinds int[])'
        )
        connection.execute("INSERT INTO users VALUES ('A', 'x', 'y', '{1}')")
        connection.execute("INSERT INTO orders VALUES ('a', 'x', 'y', '{1}'), ('b', 'x', 'y', '{1}')")
    entry = {
        "table": "orders",
        "name": "theirs",
        "foreign_key": ["tag", "mail", "grade", "kinds"],
        "references": "users",
        "references_columns": ["tag", "mail", "grade", "kinds"],
    }
    (missing,) = look(database, tmp_path, entry)["constraints"]
    assert (missing["state"], missing["violations"]) == ("missing", 1)
    database.execute("DELETE FROM orders WHERE mail OPERATOR(\"My Types\".=) 'b'")
    database.execute(missing["ddl"][0].encode())
    for declared in ([], [entry]):
        (there,) = look(database, tmp_path, *declared)["constraints"]
        assert (there["state"], there["violations"]) == ("not validated", 0)
    database.execute(there["ddl"][0].encode())
    assert [each["state"] for each in look(database, tmp_path, entry)["constraints"]] == ["found"]


def test_a_foreign_key_that_postgresql_would_refuse_can_not_be_added(board: Database, tmp_path: Path) -> None:
    entry = {"table": "jobs", "foreign_key": ["slug"], "references": "companies"}
    found = look(board, tmp_path, entry)
    assert [each["state"] for each in found["constraints"]] == ["missing"]
    assert "cannot be implemented" in found["findings"][0]["reason"]


@pytest.mark.contrib
@pytest.mark.pg_min(18)
def test_a_foreign_key_of_periods_is_unknown_and_never_zero(database: Database, tmp_path: Path) -> None:
    with database.connect() as connection:
        connection.execute("CREATE EXTENSION btree_gist")
        connection.execute("CREATE TABLE a (id int, d int4range, PRIMARY KEY (id, d WITHOUT OVERLAPS))")
        connection.execute("CREATE TABLE b (id int, d int4range)")
        connection.execute("INSERT INTO a VALUES (1, '[1,5)')")
        connection.execute("INSERT INTO b VALUES (1, '[3,9)')")
        connection.execute(
            "ALTER TABLE b ADD CONSTRAINT during"
            " FOREIGN KEY (id, PERIOD d) REFERENCES a (id, PERIOD d) NOT VALID"
        )
    found = look(database, tmp_path)
    (there,) = found["constraints"]
    assert (there["state"], there["violations"]) == ("not validated", None)
    assert "several rows together" in found["unknown"][0]["reason"]


@pytest.mark.contrib
@pytest.mark.pg_min(18)
def test_a_key_of_periods_is_not_taken_for_one_of_equal_values(database: Database, tmp_path: Path) -> None:
    with database.connect() as connection:
        connection.execute("CREATE EXTENSION btree_gist")
        connection.execute("CREATE TABLE a (id int, d int4range, PRIMARY KEY (id, d WITHOUT OVERLAPS))")
        connection.execute(
            "CREATE TABLE b (id int, d int4range, CONSTRAINT during"
            "  FOREIGN KEY (id, PERIOD d) REFERENCES a (id, PERIOD d))"
        )
        connection.execute("CREATE UNIQUE INDEX ON b (id, d)")
    key = {"foreign_key": ["id", "d"], "references": "a", "references_columns": ["id", "d"]}
    found = look(
        database,
        tmp_path,
        {"table": "a", "unique": ["id", "d"]},
        {"table": "b", "unique": ["id", "d"]},
        {"table": "b", "name": "during", **key},
    )
    assert [each["state"] for each in found["constraints"]] == ["missing", "found", "different"]


def test_what_is_inherited_is_counted_with_those_that_inherit(database: Database, tmp_path: Path) -> None:
    with database.connect() as connection:
        connection.execute("CREATE TABLE parent (a int, b int)")
        connection.execute("CREATE TABLE child () INHERITS (parent)")
        connection.execute(
            "INSERT INTO parent VALUES (1, -1); INSERT INTO child VALUES (NULL, -1), (NULL, 1)"
        )
        connection.execute("ALTER TABLE parent ADD CONSTRAINT whole CHECK (b > 0) NOT VALID")
        connection.execute("ALTER TABLE parent ADD CONSTRAINT own CHECK (b > 0) NO INHERIT NOT VALID")
    found = look(database, tmp_path, {"table": "parent", "not_null": "a"})["constraints"]
    counted = {each["by"] or each["constraint"]: each["violations"] for each in found}
    assert counted == {"parent NOT NULL (a)": 2, "whole": 2, "own": 1}


def test_a_unique_constraint_that_a_partitioned_table_can_not_have_says_so(
    database: Database, tmp_path: Path
) -> None:
    with database.connect() as connection:
        connection.execute("CREATE TABLE log (day int, id int, at int) PARTITION BY LIST (day)")
        connection.execute("CREATE TABLE log_1 PARTITION OF log FOR VALUES IN (1) PARTITION BY RANGE (at)")
        connection.execute("CREATE TABLE odd (id int) PARTITION BY HASH (abs(id))")
    declared = [
        {"table": table, "unique": columns}
        for table, columns in (
            ("log", ["id"]),
            ("log", ["day", "id"]),
            ("log", ["day", "at"]),
            ("odd", ["id"]),
        )
    ]
    found = look(database, tmp_path, *declared)
    reasons = [each["reason"] for each in found["findings"]]
    assert ["can't" in reason for reason in reasons] == [True, True, False, True], reasons
    for each in found["constraints"]:
        for statement in each["ddl"]:
            database.execute(statement.encode())
    required = [{"table": "log", "columns": ["id"], "unique": True}]
    found = look(database, tmp_path, *declared, required=required)
    assert [each["state"] for each in found["constraints"]].count("found") == 1
    assert any(
        "can't make" in each["reason"] and "lacks at, day" in each["reason"] for each in found["findings"]
    )


def test_a_full_match_is_broken_by_a_row_that_is_half_null(database: Database, tmp_path: Path) -> None:
    with database.connect() as connection:
        connection.execute("CREATE TABLE pair (a int, b int, PRIMARY KEY (a, b))")
        connection.execute("INSERT INTO pair VALUES (1, 1)")
        connection.execute("CREATE TABLE t (x int, y int)")
        connection.execute("INSERT INTO t VALUES (1, 1), (NULL, NULL), (1, NULL), (NULL, 7), (2, 2)")
        for name, how in (("full", "MATCH FULL"), ("simple", "")):
            connection.execute(
                f'ALTER TABLE t ADD CONSTRAINT "{name}" FOREIGN KEY (x, y) REFERENCES pair {how}'
                " NOT VALID".encode()
            )
    counted = {each["by"]: each["violations"] for each in look(database, tmp_path)["constraints"]}
    assert counted == {"full": 3, "simple": 1}
