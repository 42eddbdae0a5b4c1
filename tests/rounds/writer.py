"""Sessions that change the database all the time, as an application does; and what must hold meanwhile."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from random import Random

from pgsteward.errors import StewardError, TransientError
from pgsteward.postgres import Connection
from tests.rounds.values import ALWAYS_THERE, COLUMNS, SCHEMA, TWINS, insert, named, quoted, twin, value
from tests.servers import Database

WRITERS = 2
MOST_ROWS = 150
"""Of one table: there is as much deleted as inserted then."""
PAUSE_S = 0.03

TABLES = {
    "kinds": tuple(COLUMNS),
    "parts": ("i2", "n", "f8", "t"),
    "by_mood": ("mood", "n", "tags"),
    "parent": ("n", "t"),
    "child": ("n", "t", "place"),
    'Order "Lines': ("cost", "jb"),
}
"""Tables with a number for each row, and their other columns."""


class _OnPurpose(Exception):
    """Rolls a transaction back."""


class Writers:
    """What several sessions do at the same time; `transactions` counts those that were committed."""

    def __init__(self, database: Database, seed: int) -> None:
        self.transactions = 0
        self._database = database
        self._over = threading.Event()
        self._counting = threading.Lock()
        self._errors: list[StewardError] = []
        self._threads = [
            threading.Thread(target=self._work, args=(Random(f"{seed} writer {number}"),), daemon=True)
            for number in range(WRITERS)
        ]

    def raise_errors(self) -> None:
        if self._errors:
            raise self._errors[0]

    @contextlib.contextmanager
    def running(self) -> Iterator[Writers]:
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._over.set()
            for thread in self._threads:
                thread.join()

    def _work(self, random: Random) -> None:
        try:
            with self._database.connect(settings={"search_path": f'"{SCHEMA}", public'}) as session:
                while not self._over.wait(PAUSE_S):
                    self._transaction(session, random)
        except StewardError as exc:
            self._errors.append(exc)

    def _transaction(self, session: Connection, random: Random) -> None:
        try:
            with session.transaction():
                for _ in range(random.randint(1, 4)):
                    _weighted(random)(session, random)
                if random.random() < 0.1:
                    raise _OnPurpose
        except _OnPurpose:
            return
        except TransientError:  # a deadlock with the other writer
            if session.closed:
                raise
            return
        with self._counting:
            self.transactions += 1


def fill(database: Database, seed: int) -> None:
    """Put the rows in that stay."""
    random = Random(f"{seed} rows")
    with database.connect(settings={"search_path": f'"{SCHEMA}", public'}) as session, session.transaction():
        for table, columns in TABLES.items():
            for _ in range(ALWAYS_THERE):
                _run(session, insert(table, columns, random.randrange(1_000_000)))
        for _ in range(ALWAYS_THERE):
            _insert_line(session, random)
            _insert_document(session, random)
        for number in range(len(TWINS)):
            _run(session, f"INSERT INTO twins (pair, is_first) VALUES ({number}, true), ({number}, false)")
            _run(session, f"UPDATE twins SET {twin(number)} WHERE pair = {number}")


def whole(session: Connection) -> bool:
    """Tell whether a database is one moment of what the writers do: money and documents are all there."""
    return bool(
        session.value(
            """
            SELECT (SELECT sum(balance) = 2000.00 FROM "the rounds".accounts)
               AND (SELECT array_agg(content ORDER BY content) FROM "the rounds".documents)
                 = (SELECT array_agg(oid ORDER BY oid) FROM pg_largeobject_metadata)
               AND (SELECT coalesce(sum(m.sum), 0) = 0 FROM "the rounds".moved AS m)
            """
        )
    )


def _run(session: Connection, statement: str) -> int:
    return session.execute(statement.encode())


def _weighted(random: Random) -> Callable[[Connection, Random], None]:
    return random.choices([change for change, _ in _CHANGES], [weight for _, weight in _CHANGES])[0]


def _insert(session: Connection, random: Random) -> None:
    table, columns = random.choice(list(TABLES.items()))
    _run(session, insert(table, columns, random.randrange(1_000_000)))


def _update(session: Connection, random: Random) -> None:
    table, columns = random.choice(list(TABLES.items()))
    chosen = random.sample(columns, random.randint(1, min(4, len(columns))))
    key = {"i2", "mood"} if table in ("parts", "by_mood") else set()
    changes = ", ".join(
        f"{quoted(name)} = coalesce({value(name, random.randrange(1_000_000))}, {quoted(name)})"
        if name in key
        else f"{quoted(name)} = {value(name, random.randrange(1_000_000))}"
        for name in chosen
    )
    _run(session, f"UPDATE {named(table)} SET {changes} WHERE id = {_some_id(table, random)}")


def _delete(session: Connection, random: Random) -> None:
    table = random.choice(list(TABLES))
    number = _some_id(table, random)
    _run(session, f"DELETE FROM {named(table)} WHERE id = {number} AND {_too_many(table)}")


def _some_id(table: str, random: Random) -> str:
    later = f"SELECT id FROM {named(table)} WHERE id > {ALWAYS_THERE * 2} ORDER BY id"
    return f"({later} OFFSET {random.randrange(MOST_ROWS)} LIMIT 1)"


def _too_many(table: str) -> str:
    return f"(SELECT count(*) > {MOST_ROWS // 2} FROM {named(table)})"


def _insert_line(session: Connection, random: Random) -> None:
    _run(session, insert("lines", ("t", "mood", "f8"), random.randrange(60)))  # some are there twice


def _delete_line(session: Connection, random: Random) -> None:
    some = f"SELECT ctid FROM lines OFFSET {ALWAYS_THERE + random.randrange(MOST_ROWS)} LIMIT 1 FOR UPDATE"
    _run(session, f"DELETE FROM lines WHERE ctid = ({some})")


def _insert_document(session: Connection, random: Random) -> None:
    content = random.randbytes(random.choice((0, 10, 2048, 5000)))
    session.execute(
        "INSERT INTO documents (content, v) SELECT lo_from_bytea(0, %(content)s::bytea), 'v'",
        {"content": content},
    )


def _change_document(session: Connection, random: Random) -> None:
    some = (
        f"SELECT content FROM documents ORDER BY id OFFSET {random.randrange(MOST_ROWS)} LIMIT 1 FOR UPDATE"
    )
    put = f"lo_put(content, {random.randrange(6000)}, '\\x{random.randbytes(9).hex()}')"
    _run(session, f"SELECT {put} FROM ({some}) AS d")


def _delete_document(session: Connection, random: Random) -> None:
    some = f"SELECT id FROM documents WHERE id > {ALWAYS_THERE} ORDER BY id LIMIT 1 FOR UPDATE"
    deleted = f"DELETE FROM documents WHERE id = ({some}) RETURNING content"
    _run(session, f"WITH d AS ({deleted}) SELECT lo_unlink(content) FROM d")


def _change_twin(session: Connection, random: Random) -> None:
    number = random.randrange(len(TWINS))
    row = f"id = {2 * number + random.randint(1, 2)}"
    _run(session, f"UPDATE twins SET is_first = NOT is_first WHERE {row}")
    _run(session, f"UPDATE twins SET {twin(number)} WHERE {row}")


def _move_money(session: Connection, random: Random) -> None:
    one, other = random.sample(range(1, 21), 2)
    amount = f"{random.randrange(1, 500) / 100:.2f}"
    for account, sign in sorted(((one, "-"), (other, "+"))):
        _run(session, f"UPDATE accounts SET balance = balance {sign} {amount} WHERE id = {account}")


def _use_sequences(session: Connection, random: Random) -> None:
    for _ in range(random.randint(1, 5)):
        name = random.choice(('"Free ""Seq"', "downwards"))
        _run(session, f"SELECT nextval('{name}')")


_CHANGES: list[tuple[Callable[[Connection, Random], None], int]] = [
    (_insert, 3),
    (_update, 6),
    (_delete, 3),
    (_insert_line, 2),
    (_delete_line, 2),
    (_insert_document, 1),
    (_change_document, 2),
    (_delete_document, 1),
    (_change_twin, 2),
    (_move_money, 3),
    (_use_sequences, 2),
]
