"""What the columns of the rounds' database are filled with, and how SQL for it is put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pgsteward.postgres import quote_name

SCHEMA = "the rounds"
ALWAYS_THERE = 40
"""Rows of each table that the writers leave alone, so that there is always something to be damaged."""

COLUMNS: Mapping[str, str] = {
    "mood": "(ARRAY['sad', 'ok', 'happy'])[1 + {n} % 3]::mood",
    "moods": "ARRAY[(ARRAY['sad', 'ok', 'happy'])[1 + {n} % 3], NULL, 'ok']::mood[]",
    "n": "round({n} / 100.0, ({n} % 5)::int)",
    "n2": "({n} / 7.0)::numeric(12, 4)",
    "cost": "round({n} / 10.0, 1 + ({n} % 2)::int)::price",
    "f4": "(ARRAY[0, '-0', 'NaN', {n} / 3.0, 1e-30]::float4[])[1 + {n} % 5]",
    "f8": "(ARRAY[0, '-0', 'Infinity', {n} / 7.0, 1e-300]::float8[])[1 + {n} % 5]",
    "f8s": "ARRAY[0, {n} / 7.0, NULL]::float8[]",
    "i2": "({n} % 30000)::int2",
    "i4": "({n} * 3)::int4",
    "i8": "{n} * 4294967296 - {n}",
    "yes": "{n} % 2 = 0",
    "t": "(ARRAY['', 'É' || {n}, E'\\t\\\\N' || {n}, repeat('long ' || {n}, ({n} % 900)::int)])[1 + {n} % 4]",
    "v": "'v' || {n}",
    "c": "('c' || {n} % 100)::char(8)",
    "One Char": 'chr(97 + ({n} % 26)::int)::"char"',
    "nam": "('name ' || {n})::name",
    "js": '(\'{{"b":  \' || {n} || \', "a": 1.0, "a": null}}\')::json',
    "jb": "jsonb_build_object('n', round({n} / 10.0, 1 + ({n} % 2)::int), 'deep', ARRAY[{n}, NULL])",
    "tags": "ARRAY['a', NULL, {n}::text, '']",
    "place": "ROW('Street ' || {n}, {n} % 100, 0, 'ok')::place",
    "places": "ARRAY[ROW('a, \"b\"', {n} % 10, 0, NULL), NULL]::places",
    "spread": "spread(0, {n} / 3.0)",
    "r": "int4range(({n} % 100)::int, ({n} % 100 + {n} % 7)::int)",
    "mr": "int4multirange(int4range(1, 3), int4range(5, 6 + ({n} % 50)::int))",
    "ts": "timestamp '2026-01-01' + {n} * interval '1.000001 s'",
    "tstz": "(ARRAY['infinity', '2026-01-01+00'::timestamptz + {n} * '9.5 s'::interval])[1 + {n} % 2]",
    "d": "date '1999-12-31' + ({n} % 90000)::int",
    "tm": "time '00:00' + {n} * interval '1.5 s'",
    "tmz": "(ARRAY['12:00+00', '14:00+02', '13:00+01'])[1 + {n} % 3]::timetz",
    "iv": "(ARRAY['1 mon', '30 days', '720:00:00', ({n} % 99) || ' s'])[1 + {n} % 4]::interval",
    "u": "md5({n}::text)::uuid",
    "b": "decode(repeat(md5({n}::text), 1 + ({n} % 40)::int), 'hex')",
    "ip": "inet '10.0.0.0/8' + {n}",
    "net": "network(set_masklen(inet '10.0.0.0' + {n}, 24))::cidr",
    "mac": "('08:00:2b:01:02:' || lpad(to_hex({n} % 256), 2, '0'))::macaddr",
    "pt": "point({n} / 3.0, 0)",
    "bits": "({n} % 4096)::int::bit(12)::varbit",
    "tsv": "to_tsvector('simple', 'w' || {n} || ' fat cats')",
    "m": "({n} % 100000)::numeric::money",
    "o": "(4294967295 - {n})::oid",
}
"""By column: an expression that makes a value of a number."""

TWINS = (
    ("jb", "jsonb", """'{"n": 1.0}'""", """'{"n": 1.00}'"""),
    ("iv", "interval", "'1 mon'", "'30 days'"),
    ("iv", "interval", "'24:00:00'", "'1 day'"),
    ("tmz", "timetz", "'12:00+00'", "'14:00+02'"),
    ("js", "json", """'{"a": 1}'""", """'{"a":1}'"""),
    ("js", "json", """'{"a": 1, "a": 2}'""", """'{"a": 2, "a": 2}'"""),
    ("tags", "text[]", "'{a,b}'", "'[2:3]={a,b}'"),
    ("tags", "text[]", "'{NULL}'", """'{""}'"""),
    ("tags", "text[]", "'{}'", "NULL"),
    ("t", "text", "'a'", "'a '"),
    ("t", "text", "'b'", "'B'"),
    ("t", "text", "''", "NULL"),
    ("ip", "inet", "'10.0.0.1/8'", "'10.0.0.1/32'"),
    ("tsv", "tsvector", "'a:1 b'", "'a b'"),
    ("r", "int4range", "'empty'", "'(,)'"),
    ("bits", "varbit", "'0'", "'00'"),
    ("b", "bytea", "'\\x00'", "'\\x0000'"),
    ("i8", "int8", "-1", "4294967295"),
    ("tm", "time", "'00:00'", "'24:00'"),
    ("place", "place", "ROW(NULL, NULL, NULL, NULL)", "NULL"),
    ("place", "place", "ROW('', NULL, NULL, NULL)", "ROW(NULL, NULL, NULL, NULL)"),
    ("f8", "float8", "0.1", "0.10000000000000002"),
    ("pt", "point", "'(0,0)'", "'(-0,0)'"),
)
"""Pairs of values that careless eyes take for the same: column, its type, the values."""

NEVER_NULL = frozenset({("parts", "i2"), ("by_mood", "mood")})
"""Partition keys."""


def value(column: str, number: int) -> str:
    """Return an expression for a column's value: the same number gives the same value, some of them NULL."""
    return f"(CASE WHEN {number} % 13 = 0 THEN NULL ELSE {COLUMNS[column].format(n=f'{number}::bigint')} END)"


def some_value(column: str, number: int) -> str:
    """Return an expression for a column's value that is not NULL."""
    return COLUMNS[column].format(n=f"{number}::bigint")


def quoted(column: str) -> str:
    return quote_name(column)


def insert(table: str, columns: Sequence[str], number: int) -> str:
    """Return the statement that inserts one row."""
    values = [
        some_value(column, number + place) if (table, column) in NEVER_NULL else value(column, number + place)
        for place, column in enumerate(columns)
    ]
    return f"INSERT INTO {named(table)} ({', '.join(map(quoted, columns))}) VALUES ({', '.join(values)})"


def named(table: str) -> str:
    """Return a table's name as SQL and the product's messages write it."""
    return quote_name(SCHEMA, table)


def twin(number: int) -> str:
    """Return what a row of `twins` is set to: the first of its pair of values, or the second."""
    column, kind, first, second = TWINS[number]
    return f"{column} = CASE WHEN is_first THEN {first}::{kind} ELSE {second}::{kind} END"
