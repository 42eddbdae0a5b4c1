"""Indexes of every kind in every state: what is said about each, beside its size after a rebuild."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import LiteralString

import pytest

from pgsteward.bloat_census import Index
from pgsteward.index_bloat import take_census
from pgsteward.ledger import Ledger
from pgsteward.postgres import Connection, compose, identifier, literal, raw
from tests.integration.backup_targets import make_target
from tests.integration.maintenance import flush_counters
from tests.servers import Database, Server, private_database

FEW, MANY = 50_000, 160_000
"""Rows, so that each index has a little more than 1 MB: entries of their own, and those that share one."""

WIDE: LiteralString = "(SELECT string_agg(md5(i::text || n), '') FROM generate_series(1, 25) AS n)"
KINDS: Mapping[str, tuple[LiteralString, LiteralString, int]] = {
    "unique": ("NULL", "CREATE UNIQUE INDEX ON {} (i)", FEW),
    "uuid": ("md5(i::text)::uuid", "CREATE INDEX ON {} (key)", 34_000),
    "text": ("'Name ' || md5(i::text)", "CREATE INDEX ON {} (key)", FEW // 2),
    "wide": ("repeat(md5(i::text), 8)", "CREATE INDEX ON {} (key)", FEW // 8),
    "very wide": (WIDE, "CREATE INDEX ON {} (key)", 1_500),
    "varied": (f"left({WIDE}, 50 + i::int * 37 % 700)", "CREATE INDEX ON {} (key)", 2_500),
    "expression": ("md5(i::text)", "CREATE INDEX ON {} (upper(key))", FEW // 2),
    "partial": ("i % 16", "CREATE INDEX ON {} (i) WHERE key > 0", FEW),
    "two columns": ("i % 8", "CREATE INDEX ON {} (key, i)", FEW),
    "include": ("i % 8", "CREATE INDEX ON {} (i) INCLUDE (key)", FEW),
    "half full": ("NULL", "CREATE INDEX ON {} (i) WITH (fillfactor = 50)", FEW),
    "descending": ("NULL", "CREATE INDEX ON {} (i DESC)", FEW),
    "deduplicated": ("i % 8", "CREATE INDEX ON {} (key)", MANY),
    "not deduplicated": ("i % 8", "CREATE INDEX ON {} (key) WITH (deduplicate_items = off)", FEW),
    "mostly null": ("CASE WHEN i % 20 = 0 THEN i END", "CREATE INDEX ON {} (key)", MANY),
}
STATES = ("healthy", "built", "evenly", "oldest", "rounds")


@pytest.fixture(scope="module")
def arena(server: Server, template: str) -> Iterator[Database]:
    if not server.contrib:
        pytest.skip(f"needs pgstattuple, which this PostgreSQL {server.version} does not bring")
    with private_database(server, template) as private:
        with private.connect() as connection:
            for state in STATES:
                for kind in KINDS:
                    fill(connection, kind, state)
            flush_counters(connection)
        yield private


def fill(connection: Connection, kind: str, state: str) -> None:
    """Make a table with one index of this kind in this state."""
    key, definition, rows = KINDS[kind]
    table, index = identifier(f"{kind}, {state}"), compose(definition, identifier(f"{kind}, {state}"))
    series = compose("SELECT i, {} AS key FROM generate_series(1::bigint, {}) AS i", raw(key), literal(rows))
    if state in ("healthy", "rounds"):  # grown entry by entry
        connection.execute(compose("CREATE UNLOGGED TABLE {} AS {} LIMIT 0", table, series))
        connection.execute(index)
        connection.execute(compose("INSERT INTO {} {}", table, series))
    else:
        connection.execute(compose("CREATE UNLOGGED TABLE {} AS {}", table, series))
        connection.execute(index)
    if state == "evenly":
        connection.execute(compose("DELETE FROM {} WHERE i * 7919 % 10 < 7", table))
    elif state == "oldest":
        connection.execute(compose("DELETE FROM {} WHERE i <= {}", table, literal(rows * 7 // 10)))
    elif state == "rounds":
        for number in range(3):
            connection.execute(
                compose(
                    "WITH gone AS (DELETE FROM {} WHERE i * 7919 % 3 = {} RETURNING i)"
                    " INSERT INTO {} SELECT i, {} FROM (SELECT i + 10000000 AS i FROM gone) AS moved",
                    *(table, literal(number), table, raw(key)),
                )
            )
            connection.execute(compose("VACUUM {}", table))
    connection.execute(compose("VACUUM ANALYZE {}", table))


@pytest.mark.contrib
def test_every_measure_is_near_the_truth(arena: Database, tmp_path: Path) -> None:
    target = make_target(arena, tmp_path, index_bloat={"min_reclaimable": 0})
    ledger = Ledger("bloat", "app")
    census = take_census(target.login("maintenance"), target.settings.index_bloat, ledger)
    assert not ledger.unknown
    assert len(census.measured) == len(KINDS) * len(STATES)
    wrong = []
    for index in census.measured:
        truth = truth_of(arena, index)
        is_wrong = abs(index.ratio - truth) > 0.03 if truth > 0 else index.ratio > 0.08
        print(
            f"{index.table:40}{index.bytes / 1e6:6.2f} MB{index.ratio:8.1%}{truth:8.1%}{' WRONG' * is_wrong}"
        )
        if is_wrong and index.bytes >= 1_000_000:
            wrong.append(f"{index.table}: {index.ratio:.1%}, in truth {truth:.1%}")
    assert not wrong


def truth_of(database: Database, index: Index) -> float:
    """Return the share of an index that a rebuild really gives back."""
    name = identifier(index.schema, index.name)
    database.execute(compose("REINDEX INDEX {}", name))
    size = database.value("SELECT pg_relation_size(%(oid)s::int8::oid)", {"oid": index.oid})
    return 1 - float(size) / index.bytes
