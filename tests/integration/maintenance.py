"""Helpers for the tests of maintenance: flushed counters, a role with few rights, bloated indexes."""

from __future__ import annotations

import contextlib
import struct
import time
import uuid
from collections.abc import Iterator
from typing import Any, LiteralString

from psycopg.conninfo import make_conninfo
from psycopg.pq import ExecStatus, PGconn

from pgsteward.postgres import Connection, Login, compose, identifier, literal
from tests.servers import Database

ORDERS = '"Order Lines"'


def flush_counters(connection: Connection) -> None:
    """Send this session's counters to the shared statistics, which otherwise takes up to ten seconds."""
    connection.execute("SELECT pg_stat_force_next_flush()")
    connection.execute("SELECT 1")


def fill_bloated(database: Database, rows: int = 200_000) -> None:
    """Make a table whose three indexes are 70 % empty pages, oddly named."""
    with database.connect() as connection:
        connection.execute('CREATE TABLE "Order Lines" (id bigint PRIMARY KEY, kind int, "no, really" text)')
        connection.execute(
            'INSERT INTO "Order Lines" SELECT i, i %% 8, md5(i::text) FROM generate_series(1, %(rows)s) AS i',
            {"rows": rows},
        )
        connection.execute('CREATE INDEX "by ""kind""" ON "Order Lines" (kind)')
        connection.execute(
            compose("CREATE INDEX {} ON {} (id, kind)", identifier("l" * 63), identifier("Order Lines"))
        )
        connection.execute('DELETE FROM "Order Lines" WHERE id <= %(gone)s', {"gone": rows * 7 // 10})
        flush_counters(connection)
        connection.execute('VACUUM "Order Lines"')


def invalid_indexes(database: Database) -> list[str]:
    """Return the names of invalid indexes."""
    rows = database.rows(
        "SELECT c.relname FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid"
        " WHERE NOT i.indisvalid ORDER BY 1"
    )
    return [row["relname"] for row in rows]


def way_out(database: Database) -> str:
    """What is advised where a superuser owns a table: nobody shall be made a member of that role."""
    return "run: GRANT MAINTAIN ON TABLE " if database.server.version >= 17 else " OWNER TO ... (no superuser"


@contextlib.contextmanager
def temporary_role(database: Database, *memberships: str) -> Iterator[Login]:
    """Make a login role that owns nothing, and remove it with all it was granted."""
    name = f"Night Watch {uuid.uuid4().hex[:8]}"
    with database.connect() as connection:
        connection.execute(
            compose("CREATE ROLE {} LOGIN PASSWORD {}", identifier(name), literal("few rights"))
        )
        for membership in memberships:
            connection.execute(compose("GRANT {} TO {}", identifier(membership), identifier(name)))
    try:
        yield Login(make_conninfo(database.conninfo, user=name), "few rights")
    finally:
        with database.connect() as connection:
            connection.execute(compose("DROP OWNED BY {} CASCADE", identifier(name)))
            connection.execute(compose("DROP ROLE {}", identifier(name)))


def facts_of(result: dict[str, Any], name: str) -> dict[str, Any]:
    """Return what a result's JSON says was changed about one object."""
    return next(item for item in result["changed"] if item["object"] == name)


def wait_until(database: Database, question: LiteralString) -> None:
    """Return once a query says true."""
    until = time.monotonic() + 60
    with database.connect() as watch:
        while not watch.value(question):
            assert time.monotonic() < until, question
            time.sleep(0.02)


@contextlib.contextmanager
def standby(database: Database, slot: str = "") -> Iterator[str]:
    """Say what a standby says that has replayed nothing since now, and on which an old query runs.

    Args:
        database: Of whose server.
        slot: Its physical slot, or none.
    """
    conninfo = make_conninfo(
        database.conninfo, replication="true", password=database.password, application_name="standby two"
    )
    (now,) = database.rows(
        "SELECT txid_snapshot_xmin(txid_current_snapshot()) AS xmin, pg_current_wal_flush_lsn()::text AS lsn,"
        "       (pg_current_wal_flush_lsn() - '0/0')::int8 AS position"
    )
    link = PGconn.connect(conninfo.encode())
    try:
        using = f"SLOT {slot} " if slot else ""
        started = link.exec_(f"START_REPLICATION {using}PHYSICAL {now['lsn']}".encode())
        assert started.status == ExecStatus.COPY_BOTH, started.error_message
        epoch, xmin = divmod(now["xmin"], 1 << 32)
        link.put_copy_data(b"r" + struct.pack("!QQQQB", *[now["position"]] * 3, 0, 0))
        link.put_copy_data(b"h" + struct.pack("!qIIII", 0, xmin, epoch, 0, 0))
        link.flush()
        told: LiteralString = "SELECT EXISTS (SELECT FROM pg_replication_slots WHERE xmin IS NOT NULL)"
        if not slot:
            told = "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE backend_xmin IS NOT NULL)"
        wait_until(database, told)
        yield "standby two"
    finally:
        link.finish()
