"""Planning of rebuilds, what rebuilds cost, and what an application feels meanwhile.

    make bench BENCH=reindex
    make bench BENCH=reindex ARGS="--rows 300000"

Each kind of index is rebuilt alone on a server of its own, concurrently and plainly; then one more while a
writer and a reader work on its table. Writes `benchmarks/reindex.json`; with `--output` the file named.
"""

from __future__ import annotations

import argparse
import json
import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic, process_time
from typing import Any

from rich.console import Console

from benchmarks.measuring import bench, machine, median
from pgsteward import postgres
from pgsteward.errors import StewardError
from pgsteward.index_bloat import Index
from pgsteward.postgres import Connection, Login
from pgsteward.reindex_memory import LEAST_S, Memory, Past, work_bytes
from pgsteward.reindex_plan import Candidate, Limits, make_plan
from pgsteward.window import Window

OUTPUT = Path(__file__).with_name("reindex.json")
CANDIDATES = 10_000
PLAN_GOAL_S = 1.0
KINDS: Mapping[str, str] = {
    "bigint, unique": "CREATE UNIQUE INDEX {} ON t (id)",
    "text (md5)": "CREATE INDEX {} ON t (name)",
    "two columns": "CREATE INDEX {} ON t (kind, id)",
    "8 values, deduplicated": "CREATE INDEX {} ON t (kind)",
    "partial, 1 % of the rows": "CREATE INDEX {} ON t (id) WHERE rare",
}


def main() -> int:
    """Measure, write the figures and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=1_500_000, help="(default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=3, help="rounds (default: %(default)s)")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--folder", type=Path, help="for the server (default: TMPDIR)")
    options = parser.parse_args()
    console = Console(stderr=True)
    found: dict[str, Any] = {**machine(), "rows": options.rows, "plan": planning(options.repeat)}
    console.print(f"planning {CANDIDATES}: {found['plan']['seconds']} s (goal: {PLAN_GOAL_S} s)")
    with bench({"shared_buffers": "512MB", "maintenance_work_mem": "64MB"}, options.folder) as place:
        found["postgresql"] = place.server.version
        login = place.server.login("postgres")
        with postgres.connect(login, purpose="bench") as connection:
            fill(connection, options.rows)
            found["rebuilds"] = [
                rebuild(connection, kind, statement, options.repeat) for kind, statement in KINDS.items()
            ]
        found["beside"] = beside(login)
    for each in found["rebuilds"]:
        console.print(json.dumps(each))
    console.print(json.dumps(found["beside"]))
    (options.output or OUTPUT).write_text(json.dumps(found, indent=1) + "\n")
    return 0


def planning(repeat: int) -> dict[str, Any]:
    """Return how long a plan takes that has a lot to choose from, and experience with each index."""
    now = datetime(2026, 11, 30, 2, tzinfo=UTC)
    candidates = [
        Candidate(
            Index(
                n, n // 3, "public", f"i{n}", f"t{n // 3}", "app", True, 10**8 + n * 10**5, 0.4 + n % 60 / 100
            ),
            table_bytes=10**9,
        )
        for n in range(CANDIDATES)
    ]
    past = [Past(now - timedelta(days=days), 10**8, 5 * 10**7, 4, 6 * 10**7) for days in (400, 300, 200, 100)]
    memory = Memory({f"public.i{n}": tuple(past) for n in range(CANDIDATES)})
    limits = Limits(
        window=Window.parse("22:00-05:00"), max_wal_bytes=10**12, free_bytes={"": 10**12}, parallel_tables=4
    )
    seconds = []
    for _ in range(repeat):
        began = process_time()
        plan = make_plan(candidates, memory, limits, now)
        seconds.append(process_time() - began)
    return {"candidates": CANDIDATES, "seconds": median(seconds), "tonight": len(plan.tonight)}


def fill(connection: Connection, rows: int) -> None:
    """Make a table with rows of some 150 bytes."""
    connection.execute("CREATE TABLE t (id bigint, kind int, rare bool, name text, filler text)")
    connection.execute(
        "INSERT INTO t SELECT i, i %% 8, i %% 100 = 0, md5(i::text), repeat('x', 60)"
        " FROM generate_series(1, %(rows)s) AS i",
        {"rows": rows},
    )
    connection.execute("VACUUM ANALYZE t")
    connection.execute("CHECKPOINT")


def rebuild(connection: Connection, kind: str, statement: str, repeat: int) -> dict[str, Any]:
    """Return what the rebuilds of one kind of index cost."""
    connection.execute(statement.format("measured").encode())
    sizes = connection.row(
        "SELECT pg_relation_size('measured') AS index_bytes, pg_relation_size('t') AS table_bytes"
    )
    seconds, plain, wal = [], [], []
    for _ in range(repeat):
        connection.execute("CHECKPOINT")
        lsn = connection.value("SELECT pg_current_wal_insert_lsn()::text")
        seconds.append(timed(connection, b"REINDEX INDEX CONCURRENTLY measured"))
        written = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), %(lsn)s::pg_lsn)::int8"
        wal.append(connection.value(written, {"lsn": lsn}))
        plain.append(timed(connection, b"REINDEX INDEX measured"))
    connection.execute("DROP INDEX measured")
    took_s = median(seconds)
    work = work_bytes(sizes["index_bytes"], sizes["table_bytes"])
    return {
        "kind": kind,
        **sizes,
        "seconds": took_s,
        "plain_seconds": median(plain),
        "wal_share": round(median(wal) / sizes["index_bytes"], 3),
        "work_bytes_per_s": round(work / max(took_s - LEAST_S, 0.01)),
    }


def timed(connection: Connection, statement: bytes) -> float:
    began = monotonic()
    connection.execute(statement)
    return monotonic() - began


def beside(login: Login) -> dict[str, Any]:
    """Return the latencies of a writer and a reader with nothing else going on, and during a rebuild."""
    with postgres.connect(login, purpose="bench", lock_timeout_s=0) as connection:
        connection.execute("CREATE UNIQUE INDEX t_key ON t (id)")
        connection.execute("CREATE INDEX t_name ON t (name)")
        quiet = latencies(login, lambda: threading.Event().wait(3))
        busy = latencies(login, lambda: connection.execute("REINDEX INDEX CONCURRENTLY t_name"))
    return {"quiet": quiet, "rebuild": busy}


def latencies(login: Login, work: Any) -> dict[str, Any]:
    over, errors = threading.Event(), []
    taken: dict[str, list[float]] = {"write": [], "read": []}
    statements = {
        "write": "UPDATE t SET name = md5(name) WHERE id = %(id)s",
        "read": "SELECT * FROM t WHERE id = %(id)s",
    }

    def application(kind: str) -> None:
        with postgres.connect(login, purpose="application") as session:
            number = 0
            while not over.is_set():
                number = (number + 7919) % 100_000
                began = monotonic()
                try:
                    session.execute(statements[kind].encode(), {"id": number})
                except StewardError as exc:
                    errors.append(str(exc))
                taken[kind].append(monotonic() - began)

    threads = [threading.Thread(target=application, args=(kind,)) for kind in statements]
    for thread in threads:
        thread.start()
    began = monotonic()
    try:
        work()
    finally:
        seconds = monotonic() - began
        over.set()
        for thread in threads:
            thread.join()
    return {
        "seconds": round(seconds, 2),
        "errors": len(errors),
        **{
            kind: {
                "count": len(each),
                "median_ms": round(median([1000 * s for s in each]), 2),
                "p99_ms": round(1000 * sorted(each)[int(len(each) * 0.99)], 1),
                "max_ms": round(1000 * max(each), 1),
            }
            for kind, each in taken.items()
        },
    }


if __name__ == "__main__":
    raise SystemExit(main())
