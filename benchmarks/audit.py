"""The index audit of a database with 10,000 indexes.

    make bench BENCH=audit
    make bench BENCH=audit ARGS="--tables 500"

Whole commands, start-up included; medians. Each table has a primary key, a foreign key, a partial index,
an index on an expression and a redundant one, so that every question of the audit has work. Writes
`benchmarks/audit.json` and its table in `benchmarks/README.md`; with `--output` only the file named.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.measuring import (
    PGSTEWARD,
    Bench,
    Measured,
    bench,
    machine,
    measure,
    median,
    replace_in_readme,
    timed,
)
from pgsteward import postgres

OUTPUT = Path(__file__).with_name("audit.json")
MARK = "audit.json"
DATABASE = "many"
INDEXES_EACH = 5
GOAL_S = 5.0
_BATCH = 100


def main() -> int:
    """Measure, write the figures and print them beside the goal."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tables", type=int, default=2000, help="(default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=5, help="rounds (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="figures go here, and the README stays as it is")
    parser.add_argument("--folder", type=Path, help="for the server (default: TMPDIR)")
    options = parser.parse_args()
    console = Console(stderr=True)
    found: dict[str, Any] = {"indexes": options.tables * INDEXES_EACH, **machine()}
    with bench({"shared_buffers": "256MB"}, options.folder) as place:
        found["postgresql"] = place.server.version
        console.print(f"making {options.tables} tables ...")
        found["seed_s"] = timed(lambda: make_tables(place, options.tables))
        place.configure({"many": (DATABASE, {})})
        audit(place)
        runs = [audit(place) for _ in range(options.repeat)]
    result = json.loads(runs[-1].stdout)
    found |= {
        "runs_s": [run.seconds for run in runs],
        "median_s": median([run.seconds for run in runs]),
        "own_bytes": max(run.own_bytes for run in runs),
        "problems": len(result["problems"]),
        "examined": result["examined"],
    }
    (options.output or OUTPUT).write_text(json.dumps(found, indent=1) + "\n")
    if options.output is None:
        replace_in_readme(MARK, table(found))
    console.print(table(found))
    return 0


def make_tables(place: Bench, count: int) -> None:
    """Make the tables, some in each transaction: their locks must fit."""
    place.admin(f"CREATE DATABASE {DATABASE}")
    with postgres.connect(place.server.login(DATABASE), purpose="bench") as connection:
        connection.execute("CREATE TABLE referred (id int PRIMARY KEY)")
        for start in range(0, count, _BATCH):
            with connection.transaction():
                for number in range(start, min(start + _BATCH, count)):
                    make_table(connection, f"t{number:05}")
        connection.execute("ANALYZE")


def make_table(connection: postgres.Connection, name: str) -> None:
    quoted = postgres.identifier(name)
    for statement in (
        "CREATE TABLE {} (id int PRIMARY KEY, other int REFERENCES referred, kind text, day int)",
        "CREATE INDEX ON {} (kind, day)",
        "CREATE INDEX ON {} (day) WHERE kind <> 'done'",
        "CREATE INDEX ON {} (lower(kind))",
        "CREATE INDEX ON {} (kind)",
    ):
        connection.execute(postgres.compose(statement, quoted))


def audit(place: Bench) -> Measured:
    return measure([PGSTEWARD, "indexes", "many", "--json"], place.env, accept=(0, 3))


def table(found: dict[str, Any]) -> str:
    met = "yes" if found["median_s"] <= GOAL_S else "**no**"
    return (
        f"{found['cores']} cores, PostgreSQL {found['postgresql']}, Python {found['python']},"
        f" {found['measured_at'][:10]}.\n\n"
        "| indexes | findings | runs | median s | fastest | slowest | own peak MiB | goal s | met |\n"
        "|---:|---:|---:|---:|---:|---:|---:|---:|---|\n"
        f"| {found['indexes']:,} | {found['problems']:,} | {len(found['runs_s'])} | {found['median_s']:.2f}"
        f" | {min(found['runs_s']):.2f} | {max(found['runs_s']):.2f} | {found['own_bytes'] / 2**20:.0f}"
        f" | {GOAL_S:g} | {met} |"
    )


if __name__ == "__main__":
    raise SystemExit(main())
