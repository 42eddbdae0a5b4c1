"""What is changed behind our back, in a restored database or in a stored object, one thing at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from pgsteward.backup.proof_gaps import LARGE_OBJECTS
from pgsteward.postgres import Connection
from tests.rounds.values import COLUMNS, NEVER_NULL, TWINS, named, quoted, some_value, twin

T = TypeVar("T")

BLANKS = b" \n\t\r"

LEAVES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "kinds": ("kinds", tuple(COLUMNS)),
    "parts_low": ("parts_low", ("n", "f8", "t")),
    "parts_mid": ("parts_mid", ("n", "f8", "t")),
    "parts_high": ("parts_high", ("n", "f8", "t")),
    "by_mood_0": ("by_mood", ("n", "tags")),
    "by_mood_1": ("by_mood", ("n", "tags")),
    "parent": ("parent", ("n", "t")),
    "child": ("child", ("n", "t", "place")),
    'Order "Lines': ('Order "Lines', ("cost", "jb")),
}
"""By table whose rows have a number: the name under which it is proven, and columns to be changed."""

BARE = {"lines": ("t", "mood", "f8"), "moved": ("id", "sum")}
"""Tables whose rows have no number, so that one may be there twice."""


class NothingToDamage(Exception):
    """The damage was not done: the test would prove nothing."""


@dataclass(frozen=True, slots=True)
class Damage:
    """What was done, for people, and the object that must be named for it, as it is named."""

    object: str
    what: str


def changed(session: Connection, random: Random) -> Damage:
    """Another value in one cell of one row."""
    for table, column in _cells(random):
        new = some_value(column, random.randrange(1_000_000))
        other = f"{quoted(column)}::text IS DISTINCT FROM ({new})::text"
        if _once(session, random, table, f"{quoted(column)} = {new}", other):
            return _done(table, f"{column} = {new}")
    raise NothingToDamage


def swapped(session: Connection, random: Random) -> Damage:
    """The values that two rows have in one column, exchanged."""
    for table, column in _cells(random):
        name, table_name = quoted(column), named(table)
        rows = session.rows(
            f"""
            SELECT (array_agg(ctid ORDER BY md5(ctid::text || '{random.random()}')))[1]::text AS ctid
              FROM ONLY {table_name} GROUP BY {name}::text
             ORDER BY md5({name}::text || '{random.random()}') LIMIT 2
            """.encode()
        )
        if len(rows) == 2:
            one, other = (f"'{row['ctid']}'" for row in rows)
            done = session.execute(
                f"""
                UPDATE ONLY {table_name} AS t
                   SET {name} = (SELECT o.{name} FROM ONLY {table_name} AS o
                                  WHERE o.ctid = CASE WHEN t.ctid = {one} THEN {other} ELSE {one} END::tid)
                 WHERE t.ctid IN ({one}, {other})
                """.encode()
            )
            assert done == 2
            return _done(table, f"{column} of {one} and {other} swapped")
    raise NothingToDamage


def duplicated(session: Connection, random: Random) -> Damage:
    """One row twice."""
    for table in _shuffled(random, BARE):
        if session.execute(f"INSERT INTO {named(table)} {_some_row(table, random)}".encode()) == 1:
            return _done(table, "a row twice")
    raise NothingToDamage


def in_place_of_another(session: Connection, random: Random) -> Damage:
    """One row twice, another not at all: the number of rows is right."""
    for table in _shuffled(random, BARE):
        columns = BARE[table]
        taken = f"SELECT * FROM ({_some_row(table, random)}) AS s"
        other = " OR ".join(f"t.{c}::text IS DISTINCT FROM s.{c}::text" for c in columns)
        done = session.execute(
            f"""
            UPDATE {named(table)} AS u
               SET ({", ".join(columns)}) = ({taken})
             WHERE u.ctid = (SELECT t.ctid FROM {named(table)} AS t, ({taken}) AS s WHERE {other}
                              ORDER BY md5(t.ctid::text || '{random.random()}') LIMIT 1)
            """.encode()
        )
        if done == 1:
            return _done(table, "a row in place of another")
    raise NothingToDamage


def lost(session: Connection, random: Random) -> Damage:
    """One row less."""
    for table in _shuffled(random, [*LEAVES, *BARE]):
        some = f"SELECT ctid FROM ONLY {named(table)} ORDER BY md5(ctid::text || '{random.random()}') LIMIT 1"
        if session.execute(f"DELETE FROM ONLY {named(table)} WHERE ctid = ({some})".encode()) == 1:
            return _done(table, "a row less")
    raise NothingToDamage


def minus_zero(session: Connection, random: Random) -> Damage:
    """-0 for 0, or the other way round: in a cell, an array, a composite, a range."""
    cells = [
        *((t, "f8", "'-0'::float8") for t in ("kinds", "parts_low", "parts_mid", "parts_high", "lines")),
        ("kinds", "f4", "'-0'::float4"),
        ("kinds", "f8s", "array_replace(f8s, 0, '-0')"),
        ("kinds", "spread", "spread('-0', upper(spread))"),
        *((table, "place", "ROW((place).street, (place).house, '-0', (place).mood)::place")
          for table in ("kinds", "child")),
    ]  # fmt: skip
    for table, column, negative in _shuffled(random, cells):
        is_zero = {
            "f8s": "f8s[1]::text = '0'",
            "spread": "lower(spread)::text = '0' AND upper(spread) > 0",
            "place": "(place).height::text = '0'",
        }.get(column, f"{column}::text = '0'")
        if _once(session, random, table, f"{column} = {negative}", is_zero):
            return _done(table, f"{column}: -0 for 0")
        if column in ("f4", "f8") and _once(
            session, random, table, f"{column} = 0", f"{column}::text = '-0'"
        ):
            return _done(table, f"{column}: 0 for -0")
    raise NothingToDamage


def scale(session: Connection, random: Random) -> Damage:
    """1.10 for 1.1: a zero more at the end of a number."""
    cells = [(table, "n") for table in LEAVES if "n" in LEAVES[table][1]]
    cells += [("kinds", "cost"), ('Order "Lines', "cost"), ("moved", "sum")]
    for table, column in _shuffled(random, cells):
        longer = f"{column} = round({column}, scale({column}) + 1)"
        if _once(session, random, table, longer, f"{column} IS NOT NULL"):
            return _done(table, f"{column}: a zero more")
    raise NothingToDamage


def looks_equal(session: Connection, random: Random) -> Damage:
    """A value for one that careless eyes take for the same."""
    for number in _shuffled(random, range(len(TWINS))):
        other = twin(number).replace("WHEN is_first", "WHEN NOT is_first")
        if _once(session, random, "twins", other, f"pair = {number}"):
            return _done("twins", other)
    raise NothingToDamage


def sequence(session: Connection, random: Random) -> Damage:
    """One sequence a little further, a little back, or used where it was not."""
    name = random.choice(['Free "Seq', "downwards", "unused", "parts_id", "kinds_id_seq", "documents_id_seq"])
    quoted_name = named(name)
    at = session.row(f"SELECT last_value, is_called FROM {quoted_name}".encode())
    wanted = [
        f"nextval('{quoted_name}')",
        f"setval('{quoted_name}', {at['last_value'] + 1}, {at['is_called']})",
        f"setval('{quoted_name}', {at['last_value']}, {not at['is_called']})",
    ]
    change = random.choice(wanted)
    session.execute(f"SELECT {change}".encode())
    now = session.row(f"SELECT last_value, is_called FROM {quoted_name}".encode())
    if now == at:
        session.execute(f"SELECT {wanted[1]}".encode())
    return Damage(f"sequence {quoted_name}", change)


def large_object(session: Connection, random: Random) -> Damage:
    """One byte of a large object: another one, one more, one less."""
    found = session.rows("SELECT oid::int8, length(lo_get(oid)) AS size FROM pg_largeobject_metadata")
    row = next((row for row in _shuffled(random, found) if row["size"]), None)
    if row is None:
        raise NothingToDamage
    oid, size = row["oid"], row["size"]
    place = random.randrange(size)
    flip = 1 << random.randrange(8)
    how = random.choice(
        [
            f"lo_put({oid}, {place}, set_byte('\\x00', 0, get_byte(lo_get({oid}, {place}, 1), 0) # {flip}))",
            f"lo_put({oid}, {size}, '\\x00')",
            f"lo_truncate(lo_open({oid}, 131072), {size - 1})",
            f"lo_unlink({oid})",
        ]
    )
    session.execute(f"SELECT {how}".encode())
    return Damage(LARGE_OBJECTS, how)


KINDS: Mapping[str, Callable[[Connection, Random], Damage]] = {
    "one row changed": changed,
    "two rows' values swapped": swapped,
    "a row duplicated": duplicated,
    "a row in place of another": in_place_of_another,
    "a row lost": lost,
    "-0 for 0": minus_zero,
    "1.10 for 1.1": scale,
    "a value that looks equal": looks_equal,
    "one sequence": sequence,
    "one large object": large_object,
}


def flip_byte(stored: bytes, random: Random) -> tuple[bytes, str]:
    """Return stored bytes with one of them changed, and what was changed: often so that it looks the same."""
    data = bytearray(stored)
    place = random.randrange(len(data))
    before = data[place]
    others = [byte for byte in range(256) if byte != before]
    alike = [byte for byte in BLANKS if before in BLANKS and byte != before] or [before ^ 0x20]
    data[place] = random.choice(random.choice([others, alike]))
    return bytes(data), f"byte {place} of {len(data)}, {before:#04x}, became {data[place]:#04x}"


def _done(table: str, what: str) -> Damage:
    return Damage(named(LEAVES[table][0] if table in LEAVES else table), f"{table}: {what}")


def _cells(random: Random) -> list[tuple[str, str]]:
    """Return tables and columns in some order: a table's columns together count as much as another's."""
    cells = [(table, random.choice(columns)) for table, (_, columns) in LEAVES.items() for _ in range(3)]
    cells += [("kinds", column) for column in COLUMNS]
    return _shuffled(random, [cell for cell in cells if cell not in NEVER_NULL])


def _shuffled(random: Random, things: Iterable[T]) -> list[T]:
    mixed = list(things)
    random.shuffle(mixed)
    return mixed


def _once(session: Connection, random: Random, table: str, change: str, condition: str) -> bool:
    """Change one row that meets a condition; tell whether there was one."""
    some = f"SELECT ctid FROM ONLY {named(table)} WHERE {condition}"
    order = f"ORDER BY md5(ctid::text || '{random.random()}') LIMIT 1"
    return (
        session.execute(f"UPDATE ONLY {named(table)} SET {change} WHERE ctid = ({some} {order})".encode())
        == 1
    )


def _some_row(table: str, random: Random) -> str:
    columns = ", ".join(BARE[table])
    return f"SELECT {columns} FROM {named(table)} ORDER BY md5(ctid::text || '{random.random()}') LIMIT 1"
