"""What waited behind pg_dump has its way when that ends, and the proof in its snapshot may still go on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pgsteward.backup.manifest import Proof, ProofLevel
from pgsteward.backup.proof import take_proof
from pgsteward.backup.proof_gaps import DROPPED, REWRITTEN
from pgsteward.errors import LockTimeout
from tests.servers import Database


@pytest.fixture
def snapshot_id(database: Database) -> Iterator[str]:
    database.execute(
        "CREATE TABLE a AS SELECT generate_series(1, 3) AS id, 'x' AS b; CREATE TABLE b AS SELECT 1 AS id;"
        "CREATE TABLE c AS SELECT generate_series(1, 5) AS id; CREATE TABLE a_new (id int, b text)"
    )
    with database.connect() as holder:
        holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield str(holder.value("SELECT pg_export_snapshot()"))


def reasons(proof: Proof) -> dict[str, str]:
    return {each.name: each.not_examined for each in proof.relations if each.not_examined is not None}


@pytest.mark.parametrize("level", ["counts", "full"])
@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        pytest.param(
            "ALTER TABLE a RENAME TO a_old; ALTER TABLE a_new RENAME TO a",
            {"a": REWRITTEN, "a_new": DROPPED},
            id="swapped",
        ),
        pytest.param("DROP TABLE b", {"b": DROPPED}, id="dropped"),
    ],
)
def test_what_is_another_table_by_now_is_not_examined(
    database: Database, snapshot_id: str, level: ProofLevel, statement: str, expected: dict[str, str]
) -> None:
    database.execute(statement.encode())
    proof = take_proof(database.login, level, snapshot_id=snapshot_id)
    assert reasons(proof) == expected
    assert {each.name: each.rows for each in proof.relations}["c"] == 5


def test_a_table_that_lost_a_column_is_not_examined(database: Database, snapshot_id: str) -> None:
    database.execute("ALTER TABLE a DROP COLUMN b")
    assert reasons(take_proof(database.login, "full", snapshot_id=snapshot_id)) == {"a": DROPPED}


@pytest.mark.parametrize("level", ["counts", "full"])
def test_a_table_that_somebody_asked_for_is_not_examined_and_they_are_named(
    database: Database, snapshot_id: str, level: ProofLevel
) -> None:
    with database.connect() as other, other.transaction():
        pid = other.value("SELECT pg_backend_pid()")
        other.execute("LOCK TABLE b")
        proof = take_proof(database.login, level, snapshot_id=snapshot_id, lock_timeout_s=0.5)
        with pytest.raises(LockTimeout):
            take_proof(database.login, level, snapshot_id=None, lock_timeout_s=0.5)
    ((name, reason),) = reasons(proof).items()
    assert name == "b"
    assert "lock timeout" in reason
    assert f"asked for by pid {pid} (" in reason
    assert {each.name: each.rows for each in proof.relations} == {"a": 3, "a_new": 0, "b": None, "c": 5}
