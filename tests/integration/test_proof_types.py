"""What a proof must tell apart, and what it must not: one table for each trap."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from pgsteward import postgres
from pgsteward.backup import proof_hash
from pgsteward.backup.manifest import Proof
from pgsteward.backup.proof import SETTINGS, take_proof
from pgsteward.backup.proof_compare import compare
from pgsteward.backup.proof_hash import CELLS, MOST_COLUMNS, TEXT, TYPED
from pgsteward.errors import QueryFailed
from tests.servers import Database, Server, private_database

VECTOR = {
    "bool": "2918419855030594594 -11361784005497113153",
    "bytea": "-11408557977422279987 -996127347284585496",
    "cidr": "153290615351922800 7956364153552362468",
    "date": "-2834793278767686736 9060855388333365185",
    "encoding": "UTF8",
    "float4": "-13920743910928648045 -3075416217983182061",
    "float8": "3159401626570629570 -1606681856083445325",
    "inet": "10515762238427269516 9923615111171552219",
    "int2": "-8100918294028727746 -12158348392684349495",
    "int4": "-4334720421270942500 -7697028334806988255",
    "int8": "13669762589193443925 -12390464682249745090",
    "large object page": "8192",
    "macaddr": "-16071282257136423181 -8522193447928488571",
    "macaddr8": "23836491062515477758 -2971589469134701094",
    "name": "-6767788324947011051 2837180425325596990",
    "numeric": "-1120963932361289536 -12658786730210893702",
    "oid": "-8100918294028727746 -12158348392684349495",
    "text": "5821173606293441546 10743954489030653030",
    "text form": "717278777714821672 1397100762664283446",
    "time": "23114861902837991310 9983854425536888903",
    "timestamp": "6365055060228317540 6732930313461484229",
    "timestamptz": "9103439633630934179 698677686781163906",
    "uuid": "-1838219464602983384 -22096017763694943255",
    "varchar": "-4198435420835590083 4571396844822622981",
}
"""The answers of every supported major version, on little-endian machines with UTF8. Another one would mean
that older backups can't be compared any more: that is another method."""

TYPES = """
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE DOMAIN big AS int8;
CREATE DOMAIN bigger AS big CHECK (VALUE IS NOT NULL);
CREATE DOMAIN price AS numeric;
CREATE DOMAIN feeling AS mood;
CREATE DOMAIN weights AS float8[];
CREATE TYPE pair AS (m mood, f float8);
CREATE TYPE spread AS RANGE (subtype = float8);
CREATE TABLE one (id int)
"""


@contextlib.contextmanager
def both(server: Server) -> Iterator[tuple[Database, Database]]:
    """Two databases with the same types and tables, whose types have other OIDs, as after a restore."""
    with private_database(server) as database, private_database(server) as other:
        other.execute("CREATE TYPE shift AS ENUM ('a', 'b', 'c')")
        for side in (database, other):
            side.execute(TYPES.encode())
        yield database, other


def proofs(database: Database, other: Database, method: str = TYPED) -> tuple[Proof, Proof]:
    expected = take_proof(database.login, "full", snapshot_id=None, method=method)
    return expected, take_proof(other.login, "full", snapshot_id=None, method=method)


DIFFERENT = {
    "int8 is folded by its own hash": ("int8", "-1", "4294967295"),
    "int8 halves swapped": ("int8", "1", "4294967296"),
    "int8 in two domains": ("bigger", "-1", "4294967295"),
    "int8 in an array": ("int8[]", "{-1}", "{4294967295}"),
    "int8 in a range": ("int8range", "[1,5)", "[4294967296,4294967300)"),
    "timestamp folded": ("timestamp", "2000-01-01 00:00:00.000001", "2000-01-01 01:11:34.967296"),
    "timestamptz": ("timestamptz", "2000-01-01 00:00:00.000001+00", "2000-01-01 01:11:34.967296+00"),
    "time folded": ("time", "00:00:00.000001", "01:11:34.967296"),
    "time 24 for 0": ("time", "00:00", "24:00"),
    "timetz the same instant": ("timetz", "12:00+00", "14:00+02"),
    "numeric scale": ("numeric", "1.1", "1.10"),
    "numeric sign": ("numeric", "1", "-1"),
    "numeric special": ("numeric", "NaN", "Infinity"),
    "numeric in a domain": ("price", "1.1", "1.10"),
    "numeric in an array": ("numeric[]", "{1.1}", "{1.10}"),
    "float8 minus zero": ("float8", "0", "-0"),
    "float4 minus zero": ("float4", "0", "-0"),
    "float8 in a domain of arrays": ("weights", "{0}", "{-0}"),
    "float8 in a range": ("spread", "[0,1]", "[-0,1]"),
    "float8 in a composite": ("pair", "(ok,0)", "(ok,-0)"),
    "float8 last bit": ("float8", "0.1", "0.10000000000000002"),
    "interval": ("interval", "1 mon", "30 days"),
    "interval hours": ("interval", "24:00", "1 day"),
    "jsonb scale": ("jsonb", '{"n": 1.0}', '{"n": 1}'),
    "json spaces": ("json", '{"a": 1}', '{"a":1}'),
    "array bounds": ("int4[]", "{1,2}", "[0:1]={1,2}"),
    "array dimensions": ("int4[]", "{1,2}", "{{1,2}}"),
    "array null for empty": ("text[]", '{""}', "{NULL}"),
    "range empty": ("int4range", "empty", "(,)"),
    "bpchar trailing blank": ("bpchar", "a", "a "),
    "text trailing blank": ("text", "a", "a "),
    "text case": ("text", "a", "A"),
    "enum": ("mood", "ok", "sad"),
    "enum in a domain": ("feeling", "ok", "sad"),
    "enum in an array": ("mood[]", "{ok}", "{sad}"),
    "enum in a composite": ("pair", "(ok,1)", "(sad,1)"),
    "regclass": ("regclass", "pg_class", "pg_proc"),
    "inet mask": ("inet", "10.0.0.1/8", "10.0.0.1/32"),
    "cidr mask": ("cidr", "10.0.0.0/8", "10.0.0.0/9"),
    "bytea zeros": ("bytea", "\\x00", "\\x0000"),
    "bits": ("bit varying", "0", "00"),
    "point minus zero": ("point", "(0,0)", "(-0,0)"),
    "tsvector positions": ("tsvector", "a:1", "a:2"),
    "money": ("money", "1.00", "1.01"),
    "one byte char": ('"char"', "a", "b"),
    "xid8": ("xid8", "1", "4294967296"),
}
"""Type and two values that a dump tells apart, by what is special about them."""


@pytest.mark.parametrize("method", [TYPED, TEXT])
def test_every_value_that_a_dump_tells_apart_has_another_proof(server: Server, method: str) -> None:
    with both(server) as (database, other):
        for side, position in ((database, 0), (other, 1)):
            with side.connect() as connection:
                for case, (kind, *values) in DIFFERENT.items():
                    name, cast = postgres.identifier(case), postgres.raw(kind)
                    connection.execute(postgres.compose("CREATE TABLE {} (v {}, n int)", name, cast))
                    value = postgres.literal(values[position])
                    connection.execute(postgres.compose("INSERT INTO {} VALUES ({}, 1)", name, value))
        expected, found = proofs(database, other, method)
    found_out = {str(difference) for difference in compare(expected, found)}
    named = {postgres.quote_name("public", case) for case in DIFFERENT}
    assert found_out == {f"{name}: content differs (1 rows in both)" for name in named}


def test_what_a_dump_brings_back_has_the_same_proof_whatever_its_oids_are(server: Server) -> None:
    tables = """
        CREATE TABLE kinds (
            "B" mood, a feeling, c mood[], d pair, e regclass, f spread, n numeric, gone int,
            x float8, y float4, z float8[], i int8, s text COLLATE "POSIX", o oid, v varchar(3), k name,
            u uuid, j json, b bool, t time, ts timestamptz, w int8 GENERATED ALWAYS AS (i * 2) STORED
        );
        ALTER TABLE kinds DROP COLUMN gone;
        INSERT INTO kinds
        SELECT 'ok', 'sad', '{ok,NULL}', '(ok,1)', 'one', '[1,2]', 1.10, 'Infinity'::float8 - 'Infinity',
               'Infinity'::float4 - 'Infinity', '{NaN}', -5, 'x', 4294967295, 'abc', 'name',
               'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{}', NULL, '24:00', 'infinity';
        CREATE TABLE parent (a int, b text, c mood);
        CREATE TABLE child (c mood, b text, a int);
        ALTER TABLE child INHERIT parent;
        INSERT INTO child VALUES ('ok', 'b', 1);
        CREATE TABLE nothing (); INSERT INTO nothing DEFAULT VALUES; INSERT INTO nothing DEFAULT VALUES
        """
    restored = tables.replace("'Infinity'::float8 - 'Infinity'", "'NaN'")
    restored = restored.replace("'Infinity'::float4 - 'Infinity'", "'NaN'").replace("gone int,", "")
    restored = restored.replace("ALTER TABLE kinds DROP COLUMN gone;", "")
    restored = restored.replace(
        "CREATE TABLE child (c mood, b text, a int)", "CREATE TABLE child (LIKE parent)"
    )
    restored = restored.replace("('ok', 'b', 1)", "(1, 'b', 'ok')")
    with both(server) as (database, other):
        database.execute(tables.encode())
        other.execute(restored.encode())
        for method in (TYPED, TEXT):
            expected, found = proofs(database, other, method)
            assert {r.name: r.rows for r in expected.relations} == {
                "child": 1, "kinds": 1, "nothing": 2, "one": 0, "parent": 0
            }  # fmt: skip
            assert compare(expected, found) == []


def test_a_collation_that_calls_different_texts_equal_hides_no_difference(server: Server) -> None:
    with both(server) as (database, other):
        for side, text in ((database, "a"), (other, "A")):
            try:
                side.execute(
                    "CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);"
                    "CREATE TABLE t (a text COLLATE ci, b varchar COLLATE ci)"
                )
            except QueryFailed as exc:
                if exc.sqlstate == "0A000":
                    pytest.skip("this PostgreSQL was built without ICU")
                raise
            side.execute("INSERT INTO t VALUES (%(t)s, 'x')", {"t": text})
        expected, found = proofs(database, other)
    assert [difference.object for difference in compare(expected, found)] == ["public.t"]


@pytest.mark.parametrize("columns", [MOST_COLUMNS, MOST_COLUMNS + 1, 1600])
def test_a_table_may_have_as_many_columns_as_postgresql_allows(server: Server, columns: int) -> None:
    with both(server) as (database, other):
        for side, value in ((database, 0), (other, 1)):
            named = ", ".join(f"c{n} {'float4' if n % 2 else 'bool'}" for n in range(columns))
            side.execute(f"CREATE TABLE wide ({named})".encode())
            side.execute("INSERT INTO wide (c1) VALUES (%(value)s)", {"value": value})
        expected, found = proofs(database, other)
    assert [str(each) for each in compare(expected, found)] == [
        "public.wide: content differs (1 rows in both)"
    ]


def test_the_test_vector_asks_for_every_type_and_is_answered_alike_by_all_versions(
    database: Database,
) -> None:
    with database.connect(settings=SETTINGS) as session:
        answers = proof_hash.test_vector(session)
    assert {*CELLS, "text form", "encoding", "large object page"} == set(answers)
    assert answers == VECTOR
