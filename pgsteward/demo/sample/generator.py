"""Fill IntoWork with a seeded generator, and plant what a night should find."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pgsteward import sql
from pgsteward.demo.sample import schema
from pgsteward.demo.sample.planted import PLANTED, TABLES
from pgsteward.errors import PreconditionError, QueryFailed
from pgsteward.postgres import Connection, Login, compose, connect, identifier
from pgsteward.progress import Progress, silent

SEED = 20261123
SMALLEST_SCALE = 0.001

_LINE = 80  # bytes of a line of the corpus
_SESSION: Mapping[str, str] = {
    "synchronous_commit": "off",
    "work_mem": "64MB",
    "maintenance_work_mem": "256MB",
    "max_parallel_workers_per_gather": "0",  # rows arrive in the same order every time
    "jit": "off",
}
_SYLLABLES = (
    "ba",
    "ce",
    "di",
    "fo",
    "gu",
    "ha",
    "je",
    "ki",
    "lo",
    "mu",
    "na",
    "pe",
    "qui",
    "ro",
    "su",
    "ta",
    "ve",
    "wi",
    "xo",
    "ya",
    "zu",
    "ber",
    "con",
    "dal",
    "fen",
    "gra",
    "hol",
    "ist",
)


@dataclass(frozen=True, slots=True)
class Seeded:
    """What `seed` made.

    Attributes:
        rows: Rows of each table, after the purge.
        size_bytes: Of the whole database.
        seconds: How long it took.
        pgstattuple: Whether the extension is there, so that bloat can be measured.
    """

    rows: Mapping[str, int]
    size_bytes: int
    seconds: float
    pgstattuple: bool


def seed(
    login: Login,
    *,
    scale: float,
    seed: int = SEED,
    now: datetime | None = None,
    progress: Progress = silent,
) -> Seeded:
    """Create the sample's schema in an empty database, fill it and plant what `PLANTED` names.

    The same seed, scale and `now` give the same rows. Autovacuum can undo the plants (it would analyze the
    table that never was); `pgsteward.demo.server` starts a server whose autovacuum looks once a day.

    Args:
        login: An empty database, as a role that may create in it.
        scale: 1.0 is about 1.25 GB; at least 0.001.
        seed: Another one gives other rows.
        now: What expiry dates are relative to; None asks the server.
        progress: Is told which table is being filled.

    Raises:
        PreconditionError: The database is not empty, or the scale is too small.
    """
    if scale < SMALLEST_SCALE:
        raise PreconditionError(f"The sample's scale must be at least {SMALLEST_SCALE}, not {scale}.")
    start = time.monotonic()
    with connect(login, purpose="sample", lock_timeout_s=60, settings=_SESSION) as connection:
        _refuse_other_tables(connection)
        params = _parameters(scale, seed, now or connection.value("SELECT now()"))
        steps = len(TABLES) + 5
        progress("creating the tables", 0, steps)
        schema.upgrade(login, schema.TABLES_ONLY, _SESSION)
        for done, table in enumerate(TABLES, 1):
            progress(f"filling {table}", done, steps)
            connection.execute(_statement(table), params)
        progress("building indexes", steps - 4, steps)
        schema.upgrade(login, "head", _SESSION)
        progress("analyzing", steps - 3, steps)
        for table in TABLES:
            if f"public.{table}" not in PLANTED.never_analyzed:
                connection.execute(compose("ANALYZE {}", identifier("public", table)))
        connection.execute(
            compose("REFRESH MATERIALIZED VIEW {}", identifier(*PLANTED.stale_matview.split(".")))
        )
        progress("purging what the bot sent", steps - 2, steps)
        connection.execute(_statement("purge_bot"))
        connection.execute(compose("DROP INDEX {}", identifier("public", PLANTED.missing_index)))
        progress("vacuuming", steps - 1, steps)
        # Else this session's own DELETE is counted after VACUUM has set the number of dead rows to 0.
        connection.execute("SELECT pg_stat_force_next_flush()")
        for table in TABLES:
            connection.execute(compose("VACUUM (INDEX_CLEANUP ON) {}", identifier("public", table)))
        measurable = _create_pgstattuple(connection)
        progress("the sample is ready", steps, steps)
        return Seeded(
            rows={
                table: connection.value(compose("SELECT count(*) FROM {}", identifier("public", table)))
                for table in TABLES
            },
            size_bytes=connection.value("SELECT pg_database_size(current_database())"),
            seconds=time.monotonic() - start,
            pgstattuple=measurable,
        )


def _statement(name: str) -> bytes:
    return sql.load(name, package="pgsteward.demo.sample.sql")


def _refuse_other_tables(connection: Connection) -> None:
    found = connection.maybe_row(
        "SELECT c.relname AS name FROM pg_class AS c"
        " WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'm', 'v')"
        "   AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = c.oid AND deptype = 'e')"
        " ORDER BY c.relname LIMIT 1"
    )
    if found:
        raise PreconditionError(
            f"Database {connection.dbname} is not empty (it has {found['name']}):"
            " the sample needs one of its own."
        )


def _parameters(scale: float, seed: int, base: datetime) -> dict[str, Any]:
    """Return the numbers of rows and the text they draw on."""
    lines = max(500, min(50_000, int(200_000 * scale)))
    employers = max(5, round(10_000 * scale))
    candidates = (
        3 * round(50_000 * scale) + 1
    )  # no divisor in common with 9: each candidate has bots and real ones
    jobs = max(100, round(200_000 * scale))
    sessions = round(1_000_000 * scale)
    return {
        "seed": seed,
        "base": base,
        "lines": lines,
        "corpus": _corpus(seed, lines),
        "employers": employers,
        "candidates": candidates,
        "users": employers + candidates,
        "companies": max(2, employers // 2),
        "jobs": jobs,
        "stride": next(s for s in (7919, 7907, 7901) if math.gcd(s, jobs) == 1),
        "applications": 9 * round(1_500_000 * scale / 4),
        "sessions": sessions,
        "expired": round(sessions * PLANTED.expired_share),
    }


def _corpus(seed: int, lines: int) -> bytes:
    """Return text of made-up words in lines of one length, so that SQL can cut any part out in no time."""
    dice = random.Random(seed)
    words = ["".join(dice.choices(_SYLLABLES, k=dice.randint(1, 4))) for _ in range(4_000)]
    text: list[str] = []
    for _ in range(lines):
        line = " ".join(dice.choices(words, k=16))[: _LINE - 1]
        sentence = line.rsplit(" ", 1)[0].capitalize() + "."
        text.append(f"{sentence:{_LINE - 1}}\n")
    return "".join(text).encode("ascii")


def _create_pgstattuple(connection: Connection) -> bool:
    if not connection.value("SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pgstattuple')"):
        return False
    try:
        connection.execute("CREATE EXTENSION IF NOT EXISTS pgstattuple")
    except QueryFailed as exc:
        if exc.sqlstate != "42501":  # an ordinary owner may not; the sample is complete without it
            raise
        return False
    return True
