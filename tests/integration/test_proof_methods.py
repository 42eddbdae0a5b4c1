"""Proofs of another method, of another server, or cut short: compared as far as can be, and no further."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pgsteward import postgres
from pgsteward.backup import proof as proofs
from pgsteward.backup.dump import back_up
from pgsteward.backup.manifest import MANIFEST
from pgsteward.backup.proof import take_proof
from pgsteward.backup.proof_bound import NOT_REACHED
from pgsteward.backup.proof_compare import compare
from pgsteward.backup.proof_gaps import LARGE_OBJECTS, not_examined
from pgsteward.backup.proof_hash import TEXT, TYPED
from pgsteward.backup.proof_large_objects import NO_RIGHT
from pgsteward.errors import PreconditionError, StewardError, VerificationFailed
from pgsteward.restore.run import restore
from pgsteward.targets import Target
from tests.conftest import missing
from tests.integration.backup_targets import backup_folder, make_target, sealed, stored_manifest
from tests.servers import Database, Server, private_database, running

KINDS = """
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TABLE items (
    id int8 PRIMARY KEY, price numeric, mood mood, doc jsonb, at timestamptz, f float8, r float4, tags text[],
    span interval, d date, b bytea, u uuid, i inet, m money, p point, v tsvector, j json,
    bits bit(3), c char(4)
);
INSERT INTO items
SELECT n, n / 7.0, CASE WHEN n % 2 = 0 THEN 'ok' ELSE 'sad' END::mood, jsonb_build_object('n', n / 10.0),
       timestamptz '2026-01-01 00:00+00' + n * interval '1.5 hours', n / 7.0::float8, (n / 3.0)::float4,
       ARRAY['a', NULL, n::text], n * interval '25 hours 3 ms', date '2026-01-01' + n,
       decode(md5(n::text), 'hex'), md5(n::text)::uuid, inet '10.0.0.0/8' + n, (n / 3.0)::numeric::money,
       point(n / 3.0, -n), 'a:1 b:2'::tsvector, '{"a":  1}', B'101', 'x'
  FROM generate_series(1, 300) AS n;
CREATE TABLE empty (id int);
SELECT lo_from_bytea(0, convert_to(repeat('large object ', 900), 'UTF8'))
"""


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def new_name(server: Server) -> Iterator[str]:
    name = f"restored_{uuid.uuid4().hex[:10]}"
    yield name
    server.drop(name)


def change_proof(target: Target, backup_id: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the stored proof as somebody would who can seal a manifest."""
    path = backup_folder(target, backup_id) / MANIFEST
    proof = json.loads(path.read_bytes())["proof"]
    change(proof)
    path.write_bytes(sealed(path.read_bytes(), proof=proof))


def test_a_backup_with_a_proof_by_text_is_compared_by_text(
    database: Database, tmp_path: Path, new_name: str
) -> None:
    database.execute(KINDS.encode())
    target = make_target(database, tmp_path)
    backup_id = back_up(target).details["backup_id"]
    stored = stored_manifest(target, backup_id).proof
    assert stored.method == TYPED
    by_text = take_proof(database.login, "full", snapshot_id=None, method=TEXT)
    old = by_text.model_copy(update={"sequences": stored.sequences, "schema_sha256": stored.schema_sha256})

    def replaced(proof: dict[str, Any]) -> None:
        proof.clear()
        proof.update(old.model_dump(mode="json", exclude={"test_vector"}))

    change_proof(target, backup_id, replaced)
    result = restore(target, into=new_name)
    assert result.status == "ok", result
    assert result.details["proof"]["level"] == "full"
    database.server.drop(new_name)
    change_proof(target, backup_id, lambda proof: proof["relations"][1].update(hash_a="1"))
    with pytest.raises(VerificationFailed, match="items: content differs"):
        restore(target, into=new_name)


def test_a_method_of_the_future_is_refused_with_what_to_do(
    database: Database, tmp_path: Path, new_name: str
) -> None:
    database.execute("CREATE TABLE t AS SELECT 1 AS a")
    target = make_target(database, tmp_path)
    backup_id = back_up(target).details["backup_id"]
    change_proof(target, backup_id, lambda proof: proof.update(method="typed-v2"))
    with pytest.raises(PreconditionError, match=r"method typed-v2.*the version that made the backup"):
        restore(target, into=new_name)


def test_a_server_that_hashes_differently_is_compared_by_counts_and_says_so(
    database: Database, tmp_path: Path, new_name: str
) -> None:
    database.execute(KINDS.encode())
    target = make_target(database, tmp_path)
    backup_id = back_up(target).details["backup_id"]

    def of_another_server(proof: dict[str, Any]) -> None:
        proof["test_vector"].update({"int4": "1 2", "uuid": "3 4"})
        for relation in proof["relations"]:
            relation["hash_a"] = relation["hash_b"] = "5"
        proof["large_objects"].update(hash_a="6")

    change_proof(target, backup_id, of_another_server)
    result = restore(target, into=new_name)
    assert result.status == "partial"
    assert [note.object for note in result.unknown] == ["content"]
    assert "int4, uuid differently: compared by row counts only" in result.unknown[0].reason
    assert result.details["proof"] == {"level": "counts", "relations": 2, "rows": 300, "equal": True}
    assert "(counts)" in result.summary
    assert result.details["receipt"] is None
    database.server.drop(new_name)

    def with_a_row_more(proof: dict[str, Any]) -> None:
        proof["relations"][1].update(rows=301)

    change_proof(target, backup_id, with_a_row_more)
    with pytest.raises(VerificationFailed, match="items: has 300 rows, the backup has 301"):
        restore(target, into=new_name)


def test_large_objects_in_other_pages_are_counted_and_tables_still_hashed(
    database: Database, tmp_path: Path, new_name: str
) -> None:
    database.execute(KINDS.encode())
    target = make_target(database, tmp_path)
    backup_id = back_up(target).details["backup_id"]

    def of_another_server(proof: dict[str, Any]) -> None:
        proof["test_vector"]["large object page"] = "32768"
        proof["large_objects"].update(hash_a="6")

    change_proof(target, backup_id, of_another_server)
    result = restore(target, into=new_name)
    assert [(note.object, "counted only" in note.reason) for note in result.unknown] == [
        (LARGE_OBJECTS, True)
    ]
    assert result.details["proof"]["level"] == "full"


def test_a_backup_of_an_older_major_is_equal_on_a_newer_one(
    server: Server, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    old, new = ("15", server) if server.version != 15 else ("17", server)
    try:
        with running(old, tmp_path / "other") as other:
            source, into = (other, new) if other.version < new.version else (new, other)
            with private_database(source) as database:
                database.execute(KINDS.encode())
                password = tmp_path / "restore-password"
                password.write_text(into.login.password or "")
                target = make_target(
                    database,
                    tmp_path,
                    restore={"conninfo": into.login.conninfo, "password": {"file": str(password)}},
                    client_dirs=[str(each.bin_dir) for each in (source, into) if each.bin_dir],
                )
                assert back_up(target).status == "ok"
                name = f"restored_{uuid.uuid4().hex[:10]}"
                try:
                    result = restore(target, into=name)
                finally:
                    into.drop(name)
            assert (result.status, result.unknown) == ("ok", ()), result
            assert result.details["proof"] == {"level": "full", "relations": 2, "rows": 300, "equal": True}
    except StewardError as exc:
        if "There is no PostgreSQL server in" not in str(exc):
            raise
        missing(pytestconfig, f"no second PostgreSQL: {exc}")


def test_a_proof_that_takes_too_long_names_what_it_did_not_come_to(
    database: Database, tmp_path: Path
) -> None:
    database.execute(
        """
        CREATE TABLE a_large (id int); INSERT INTO a_large SELECT generate_series(1, 100000);
        ANALYZE a_large; CREATE TABLE small (id int PRIMARY KEY); INSERT INTO small VALUES (1);
        CREATE TABLE tiny (id int); SELECT lo_from_bytea(0, 'x')
        """
    )
    with database.connect() as holder, holder.transaction():
        holder.execute("LOCK TABLE a_large IN ACCESS EXCLUSIVE MODE")
        proof = take_proof(database.login, "full", snapshot_id=None, max_seconds=5)
    assert [(relation.name, relation.rows) for relation in proof.relations] == [
        ("a_large", None),
        ("small", 1),
        ("tiny", 0),
    ]
    assert not_examined(proof) == [("public.a_large", NOT_REACHED), (LARGE_OBJECTS, NOT_REACHED)]
    assert compare(proof, take_proof(database.login, "full", snapshot_id=None)) == []

    result = back_up(make_target(database, tmp_path, backup={"proof_max_seconds": 0.000001}))
    assert result.status == "partial"
    assert {note.object for note in result.unknown} == {
        "public.a_large",
        "public.small",
        "public.tiny",
        LARGE_OBJECTS,
    }


def test_a_group_takes_no_more_locks_than_it_may(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proofs, "GROUP", 30)
    names = [f"t{number:02}" for number in range(12)]
    for name in names:
        indexes = "; ".join(f"CREATE INDEX ON {name} (a, b)" for _ in range(8))
        database.execute(f"CREATE TABLE {name} (a int, b int); {indexes}".encode())
    held = []

    with database.connect() as looker:

        def look(what: str, done: float = 0, total: float | None = None) -> None:
            held.append(
                looker.value(
                    "SELECT count(*) FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)"
                    " WHERE a.application_name = 'pgsteward proof' AND l.locktype = 'relation'"
                    "   AND l.relation >= 16384"
                )
            )

        proof = take_proof(database.login, "full", snapshot_id=None, progress=look)
    assert [relation.name for relation in proof.relations] == names
    assert 18 <= max(held) <= 30


def test_a_role_without_rights_on_the_catalog_reads_each_large_object(database: Database) -> None:
    role = f"reader_{uuid.uuid4().hex[:8]}"
    database.execute(
        """
        SELECT lo_from_bytea(4000 + n, decode(repeat(md5(n::text), n * 10), 'hex'))
          FROM generate_series(1, 1200) AS n;
        SELECT lo_put(lo_create(9001), 10000, '\\x07'); SELECT lo_create(9002);
        SELECT lo_put(9001, 3000, '\\x0000');
        SELECT lo_truncate(lo_open(9003, 131072), 5000) FROM lo_create(9003)
        """
    )
    database.execute(postgres.compose("CREATE ROLE {} LOGIN PASSWORD 'reader'", postgres.identifier(role)))
    try:
        database.execute(
            postgres.compose(
                "DO $$ DECLARE o oid; BEGIN FOR o IN SELECT oid FROM pg_largeobject_metadata LOOP"
                " EXECUTE format('GRANT SELECT ON LARGE OBJECT %s TO {}', o); END LOOP; END $$",
                postgres.identifier(role),
            )
        )
        login = postgres.Login(f"{database.conninfo} user={role}", "reader")
        for method in (TYPED, TEXT):
            whole = take_proof(database.login, "full", snapshot_id=None, method=method).large_objects
            read = take_proof(login, "full", snapshot_id=None, method=method)
            assert (whole.count, whole.hash_a is None) == (1203, False)
            assert read.large_objects == whole
            assert not_examined(read) == []
        database.execute("SELECT lo_create(9004)")
        part = take_proof(login, "full", snapshot_id=None)
        assert part.large_objects.count == 1204
        assert not_examined(part) == [(LARGE_OBJECTS, NO_RIGHT)]
    finally:
        database.execute(postgres.compose("DROP OWNED BY {}", postgres.identifier(role)))
        database.execute(postgres.compose("DROP ROLE {}", postgres.identifier(role)))
