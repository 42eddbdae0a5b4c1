"""Small tables counted together must give what each gives alone, whatever is wrong with one of them."""

from __future__ import annotations

import uuid

import pytest

from pgsteward import postgres
from pgsteward.backup import proof_counts
from pgsteward.backup.proof import take_proof
from pgsteward.backup.proof_gaps import LARGE_OBJECTS, NOT_POPULATED, not_examined
from pgsteward.errors import QueryFailed
from tests.servers import Database

TABLES = 120
MANY = """
DO $$ BEGIN
FOR i IN 1 .. 120 LOOP
    EXECUTE format('CREATE TABLE "T %s" (id int)', i);
    EXECUTE format('INSERT INTO "T %s" SELECT generate_series(1, %s)', i, i);
END LOOP;
END $$;
CREATE TABLE parent (id int); INSERT INTO parent VALUES (1), (2);
CREATE TABLE child () INHERITS (parent); INSERT INTO child VALUES (3);
CREATE TABLE nothing (); INSERT INTO nothing DEFAULT VALUES;
CREATE MATERIALIZED VIEW filled AS SELECT id FROM parent;
CREATE MATERIALIZED VIEW hollow AS SELECT id FROM parent WITH NO DATA
"""


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note how many tables each statement for many of them counts."""
    sizes: list[int] = []
    counting = proof_counts._count

    def counted(connection: postgres.Connection, some: list[postgres.Row]) -> dict[int, int]:
        sizes.append(len(some))
        return counting(connection, some)

    monkeypatch.setattr(proof_counts, "_count", counted)
    return sizes


def test_tables_counted_together_have_their_own_counts(database: Database, statements: list[int]) -> None:
    database.execute(MANY)
    proof = take_proof(database.login, "counts", snapshot_id=None)
    found = {relation.name: relation.rows for relation in proof.relations}
    assert {name: found[name] for name in found if name.startswith("T ")} == {
        f"T {i}": i for i in range(1, TABLES + 1)
    }
    assert (found["parent"], found["child"], found["nothing"], found["filled"]) == (2, 1, 1, 3)
    (hollow,) = [relation for relation in proof.relations if relation.name == "hollow"]
    assert (hollow.rows, hollow.not_examined) == (None, NOT_POPULATED)
    assert len(statements) == 3
    assert sum(statements) == TABLES + 4


def test_large_tables_are_counted_alone(
    database: Database, statements: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof_counts, "SMALL_PAGES", 0)
    database.execute("CREATE TABLE big AS SELECT generate_series(1, 10) AS id; ANALYZE big")
    database.execute("CREATE TABLE a (id int); CREATE TABLE b (id int)")
    proof = take_proof(database.login, "counts", snapshot_id=None)
    assert {relation.name: relation.rows for relation in proof.relations} == {"a": 0, "b": 0, "big": 10}
    assert statements == [2]


def test_one_that_cannot_be_read_is_named_and_the_others_are_counted(database: Database) -> None:
    database.execute(
        "CREATE TABLE a AS SELECT 1 AS i; CREATE TABLE b AS SELECT 1 AS i; CREATE TABLE c (i int)"
    )
    with database.connect() as connection:
        connection.execute("SET allow_system_table_mods = on")
        connection.execute("UPDATE pg_class SET relfilenode = 99999999 WHERE relname = 'b'")
    proof = take_proof(database.login, "counts", snapshot_id=None)
    assert [(relation.name, relation.rows) for relation in proof.relations] == [
        ("a", 1),
        ("b", None),
        ("c", 0),
    ]
    ((name, reason),) = [pair for pair in not_examined(proof) if pair[0] != LARGE_OBJECTS]
    assert name == "public.b"
    assert "could not open file" in reason


def test_rows_hidden_by_policies_are_an_error_here_too(database: Database) -> None:
    role = f"reader_{uuid.uuid4().hex[:8]}"
    database.execute("CREATE TABLE a (i int); CREATE TABLE t (i int); INSERT INTO t VALUES (1), (2)")
    database.execute("ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON t USING (i = 1)")
    database.execute(postgres.compose("CREATE ROLE {} LOGIN PASSWORD 'reader'", postgres.identifier(role)))
    try:
        database.execute(postgres.compose("GRANT SELECT ON a, t TO {}", postgres.identifier(role)))
        login = postgres.Login(f"{database.conninfo} user={role}", "reader")
        with pytest.raises(QueryFailed, match="row-level security"):
            take_proof(login, "counts", snapshot_id=None)
    finally:
        database.execute(postgres.compose("DROP OWNED BY {}", postgres.identifier(role)))
        database.execute(postgres.compose("DROP ROLE {}", postgres.identifier(role)))


def test_counts_are_those_of_the_snapshot(database: Database) -> None:
    database.execute("CREATE TABLE a (id int); CREATE TABLE b (id int); INSERT INTO a VALUES (1)")
    with database.connect() as holder:
        holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        snapshot_id = str(holder.value("SELECT pg_export_snapshot()"))
        database.execute("INSERT INTO a VALUES (2); INSERT INTO b VALUES (1)")
        proof = take_proof(database.login, "counts", snapshot_id=snapshot_id)
    assert {relation.name: relation.rows for relation in proof.relations} == {"a": 1, "b": 0}
