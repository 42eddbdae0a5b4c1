from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest

from pgsteward import postgres
from pgsteward.backup.manifest import ProofLevel
from pgsteward.backup.proof import read_sequences, take_proof
from pgsteward.backup.proof_compare import compare
from pgsteward.backup.proof_gaps import NOT_POPULATED, not_examined
from pgsteward.errors import QueryFailed, TransientError
from tests.servers import Database

Copy = Callable[[], Database]


@pytest.fixture
def copy(database: Database) -> Iterator[Copy]:
    """Make an exact copy of this test's database, to be changed behind the proof's back."""
    names = []

    def clone() -> Database:
        name = f"copy_{uuid.uuid4().hex[:12]}"
        database.server.create(name, database.dbname)
        names.append(name)
        return Database(database.server, name)

    yield clone
    for name in names:
        database.server.drop(name)


ORDERS = """
CREATE SCHEMA "sch ""x";
CREATE TABLE "sch ""x"."Order Lines" (
    id int, note text, price numeric, weight float8, code char(5), doc jsonb, span interval, t text
);
INSERT INTO "sch ""x"."Order Lines"
VALUES (1, 'a', 1.1, 0, 'ab', '{"n": 1.0}', '1 mon', 'x'),
       (2, 'b', 2.2, 1, 'cd', '{"n": 2}', '1 day', 'y'),
       (3, '', NULL, 2, NULL, NULL, NULL, ''),
       (4, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
CREATE TABLE "sch ""x".nulls (a int, b text);
INSERT INTO "sch ""x".nulls SELECT NULL, NULL FROM generate_series(1, 3);
CREATE TABLE "sch ""x".plain (a int);
INSERT INTO "sch ""x".plain SELECT generate_series(1, 10)
"""


@pytest.mark.parametrize(
    ("change", "what"),
    [
        pytest.param(
            """UPDATE "sch ""x"."Order Lines" SET note = CASE id WHEN 1 THEN 'b' ELSE 'a' END WHERE id < 3""",
            "content differs",
            id="cells-swapped-between-two-rows",
        ),
        pytest.param(
            """UPDATE "sch ""x"."Order Lines" SET note = t, t = note WHERE id = 1""",
            "content differs",
            id="cells-swapped-within-a-row",
        ),
        pytest.param(
            """UPDATE "sch ""x"."Order Lines" SET price = 1.10 WHERE id = 1""",
            "content differs",
            id="1.10-for-1.1",
        ),
        pytest.param(
            """UPDATE "sch ""x"."Order Lines" SET weight = '-0' WHERE id = 1""",
            "content differs",
            id="minus-zero-for-zero",
        ),
        pytest.param(
            """UPDATE "sch ""x"."Order Lines" SET doc = '{"n": 1}' WHERE id = 1""",
            "content differs",
            id="jsonb-1-for-1.0",
        ),
        pytest.param(
            """UPDATE "sch ""x"."Order Lines" SET span = '30 days' WHERE id = 1""",
            "content differs",
            id="30-days-for-a-month",
        ),
        pytest.param(
            """UPDATE "sch ""x"."Order Lines" SET note = NULL WHERE id = 3""",
            "content differs",
            id="null-for-an-empty-text",
        ),
        pytest.param(
            """ALTER TABLE "sch ""x"."Order Lines" ALTER code TYPE char(6)""",
            "content differs",
            id="more-padding-in-a-char",
        ),
        pytest.param(
            """INSERT INTO "sch ""x".nulls VALUES (NULL, NULL)""", "has 4 rows", id="one-more-row-of-nulls"
        ),
        pytest.param(
            """UPDATE "sch ""x".plain SET a = 1 WHERE a = 2""", "content differs", id="a-duplicate-for-a-row"
        ),
        pytest.param("""DELETE FROM "sch ""x".plain WHERE a = 2""", "has 9 rows", id="a-row-less"),
        pytest.param("""DROP TABLE "sch ""x".plain""", "is missing", id="a-table-less"),
        pytest.param("CREATE TABLE extra ()", "is not in the backup", id="a-table-more"),
    ],
)
def test_a_change_behind_our_back_is_found_and_its_table_named(
    database: Database, copy: Copy, change: str, what: str
) -> None:
    database.execute(ORDERS)
    expected = take_proof(database.login, "full", snapshot_id=None)
    other = copy()
    assert compare(expected, take_proof(other.login, "full", snapshot_id=None)) == []
    other.execute(change)
    differences = compare(expected, take_proof(other.login, "full", snapshot_id=None))
    assert len(differences) == 1
    assert what in differences[0].what
    assert "sch" in differences[0].object or differences[0].object == "public.extra"


@pytest.mark.parametrize("level", ["full", "counts"])
def test_several_sessions_find_what_one_finds(database: Database, level: ProofLevel) -> None:
    database.execute(ORDERS)
    database.execute("SELECT lo_from_bytea(0, 'large')")
    one, several = (take_proof(database.login, level, snapshot_id=None, sessions=n) for n in (1, 3))
    assert several.model_copy(update={"seconds": one.seconds}) == one
    assert len(one.relations) == 3
    assert one.large_objects.count == 1


def test_the_order_of_rows_and_columns_does_not_matter(database: Database, copy: Copy) -> None:
    database.execute("CREATE TABLE t (a int, b text); INSERT INTO t VALUES (1, 'x'), (2, 'y'), (3, NULL)")
    other = copy()
    other.execute(
        "DROP TABLE t; CREATE TABLE t (gone int, b text, a int); ALTER TABLE t DROP gone;"
        " INSERT INTO t (a, b) VALUES (3, NULL), (2, 'y'), (1, 'x')"
    )
    expected = take_proof(database.login, "full", snapshot_id=None)
    assert compare(expected, take_proof(other.login, "full", snapshot_id=None)) == []


def test_tables_that_are_hard_to_read_are_read(database: Database) -> None:
    database.execute(
        """
        CREATE TYPE mood AS ENUM ('sad', 'ok');
        CREATE TYPE pair AS (a int, b text);
        CREATE DOMAIN positive AS int CHECK (VALUE > 0);
        CREATE TABLE empty_table ();
        INSERT INTO empty_table DEFAULT VALUES;
        CREATE TABLE t (t text, q text, row_text text, "t.a" pair, m mood, d positive, r int4range,
                        p point, b bit(3), v tsvector, mo money, arr text[], j json, by bytea,
                        twice int GENERATED ALWAYS AS (d * 2) STORED);
        INSERT INTO t VALUES ('t', 'q', 'r', ROW(1, 'a,"b'), 'ok', 5, '[1,3)', '(1,2)', B'101',
                              'fat cat', 12.34, '{a,NULL,"b c"}', '{"a": 1}', '\\x00ff');
        CREATE TABLE parent (a int); CREATE TABLE child () INHERITS (parent);
        INSERT INTO parent VALUES (1); INSERT INTO child VALUES (2), (3);
        CREATE TABLE parts (k int) PARTITION BY RANGE (k);
        CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
        INSERT INTO parts VALUES (1), (2);
        CREATE UNLOGGED TABLE fast (a int); INSERT INTO fast VALUES (1);
        CREATE MATERIALIZED VIEW filled AS SELECT 1 AS one;
        CREATE MATERIALIZED VIEW never AS SELECT 1 AS one WITH NO DATA;
        """
    )
    proof = take_proof(database.login, "full", snapshot_id=None)
    rows = {relation.name: relation.rows for relation in proof.relations if relation.schema_name == "public"}
    assert rows == {
        "empty_table": 1,
        "t": 1,
        "parent": 1,
        "child": 2,
        "parts_1": 2,
        "fast": 1,
        "filled": 1,
        "never": None,
    }
    assert not_examined(proof) == [("public.never", NOT_POPULATED)]
    assert proof.rows == 9


def test_counts_alone_find_a_row_but_not_a_changed_cell(database: Database, copy: Copy) -> None:
    database.execute(ORDERS)
    expected = take_proof(database.login, "counts", snapshot_id=None)
    other = copy()
    other.execute("""UPDATE "sch ""x".plain SET a = 99 WHERE a = 1""")
    assert compare(expected, take_proof(other.login, "full", snapshot_id=None)) == []
    other.execute("""DELETE FROM "sch ""x".plain WHERE a = 99""")
    assert len(compare(expected, take_proof(other.login, "full", snapshot_id=None))) == 1


def test_large_objects_are_counted_and_hashed_with_their_holes(database: Database, copy: Copy) -> None:
    database.execute("SELECT lo_from_bytea(4711, '\\x010203')")
    database.execute("SELECT lo_put(lo_create(4712), 10000, '\\x07')")
    expected = take_proof(database.login, "full", snapshot_id=None)
    assert (expected.large_objects.count, expected.large_objects.size_bytes) == (2, 10004)
    other = copy()
    other.execute("SELECT lo_put(4712, 3000, '\\x00')")  # a hole that became zeros reads the same
    assert compare(expected, take_proof(other.login, "full", snapshot_id=None)) == []
    other.execute("SELECT lo_put(4711, 1, '\\xff')")
    differences = compare(expected, take_proof(other.login, "full", snapshot_id=None))
    assert [str(each) for each in differences] == ["large objects: content differs (2 in both)"]


def test_sequences_are_compared_exactly(database: Database) -> None:
    database.execute('CREATE SEQUENCE "Seq ""1"; CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY)')
    unused = take_proof(database.login, "full", snapshot_id=None)
    unused = unused.model_copy(update={"sequences": read_sequences(database.login)})
    assert {(s.name, s.last_value, s.is_called) for s in unused.sequences} == {
        ('Seq "1', 1, False),
        ("t_id_seq", 1, False),
    }
    database.execute("""SELECT nextval('"Seq ""1"')""")
    used = unused.model_copy(update={"sequences": read_sequences(database.login)})
    assert [str(each) for each in compare(unused, used)] == [
        'sequence public."Seq ""1": stands at 1, the backup has 1 (not used yet)'
    ]


def test_rows_hidden_by_policies_are_an_error_and_never_a_smaller_count(database: Database) -> None:
    role = f"reader_{uuid.uuid4().hex[:8]}"
    database.execute("CREATE TABLE t (a int); INSERT INTO t VALUES (1), (2)")
    database.execute("ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON t USING (a = 1)")
    database.execute(postgres.compose("CREATE ROLE {} LOGIN PASSWORD 'reader'", postgres.identifier(role)))
    try:
        database.execute(postgres.compose("GRANT SELECT ON t TO {}", postgres.identifier(role)))
        login = postgres.Login(f"{database.conninfo} user={role}", "reader")
        with pytest.raises(QueryFailed, match="row-level security"):
            take_proof(login, "full", snapshot_id=None)
    finally:
        database.execute(postgres.compose("DROP OWNED BY {}", postgres.identifier(role)))
        database.execute(postgres.compose("DROP ROLE {}", postgres.identifier(role)))


def test_a_table_that_cannot_be_read_is_named_and_the_others_are_proven(database: Database) -> None:
    database.execute(
        """
        CREATE TABLE a (i int); INSERT INTO a VALUES (1);
        CREATE TYPE mood AS ENUM ('sad'); CREATE TABLE b (m mood); INSERT INTO b VALUES ('sad');
        CREATE TABLE c (i int); INSERT INTO c VALUES (1), (2);
        """
    )
    with database.connect() as connection:
        connection.execute("SET allow_system_table_mods = on")
        connection.execute("DELETE FROM pg_enum WHERE enumlabel = 'sad'")
    proof = take_proof(database.login, "full", snapshot_id=None)
    assert [(r.name, r.rows) for r in proof.relations] == [("a", 1), ("b", None), ("c", 2)]
    assert not_examined(proof)[0][0] == "public.b"


def test_a_proof_in_a_snapshot_that_is_gone_may_be_tried_again(database: Database) -> None:
    with pytest.raises(TransientError, match="snapshot is gone"):
        take_proof(database.login, "full", snapshot_id="00000003-0000001B-1")


def test_a_proof_that_is_not_wanted_any_more_ends_in_the_middle_of_a_statement(database: Database) -> None:
    database.execute("CREATE TABLE slow (a int); INSERT INTO slow SELECT generate_series(1, 3000000)")

    def refuse() -> None:
        raise TransientError("the dump died")

    with pytest.raises(TransientError, match="the dump died"):
        take_proof(database.login, "full", snapshot_id=None, still_wanted=refuse)
