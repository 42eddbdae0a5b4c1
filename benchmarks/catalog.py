"""How long the catalogs of a large database take to read: 5,000 tables for ANALYZE, 500 materialized views.

    make bench BENCH=catalog

Dry runs of the operations in this process, on a server of its own; medians. Writes `benchmarks/catalog.json`
and its table in `benchmarks/README.md`; with `--output` only the file named.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.measuring import Bench, bench, machine, median, replace_in_readme, timed
from pgsteward import postgres, sql
from pgsteward.analyze import analyze_stale
from pgsteward.matview_changes import read_sources
from pgsteward.matviews import refresh, refresh_order
from pgsteward.results import StepResult
from pgsteward.targets import load_target

OUTPUT = Path(__file__).with_name("catalog.json")
MARK = "catalog.json"
TABLES, MATVIEWS = 5000, 500
STALE_GOAL_S, GRAPH_GOAL_S = 2.0, 1.0
_WIDTH = 10
"""So many materialized views read none of each other; the next so many read them through plain views."""


def main() -> int:
    """Measure, write the figures and print them beside the goals."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeat", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--output", type=Path, help="figures go here, and the README stays as it is")
    options = parser.parse_args()
    console = Console(stderr=True)
    found: dict[str, Any] = {**machine(), "tables": TABLES, "matviews": MATVIEWS}
    with bench({"shared_buffers": "256MB", "max_locks_per_transaction": "512"}, None) as place:
        os.environ.update(place.env)
        found["postgresql"] = place.server.version
        console.print("making tables and views ...")
        seed(place)
        place.configure({"tables": ("tables", {}), "views": ("views", {})})
        with postgres.connect(place.server.login("views"), purpose="bench") as connection:
            found["seconds"] = {
                "stale scan": repeated(
                    options.repeat, lambda: examine(place, "tables", analyze_stale, TABLES)
                ),
                "graph": repeated(options.repeat, lambda: graph(connection)),
                "dry run of all views": repeated(
                    options.repeat, lambda: examine(place, "views", refresh, MATVIEWS)
                ),
            }
    console.print(markdown(found))
    if options.output:
        options.output.write_text(json.dumps(found, indent=1) + "\n")
    else:
        OUTPUT.write_text(json.dumps(found, indent=1) + "\n")
        replace_in_readme(MARK, markdown(found))
    return 0


def seed(place: Bench) -> None:
    """Make tables of six columns, every fifth of them a partition, and layers of materialized views."""
    for name in ("tables", "views"):
        place.admin(f"CREATE DATABASE {name}")
    with postgres.connect(place.server.login("tables"), purpose="bench") as connection:
        connection.execute(
            "CREATE TABLE parent (id int8, a text, b timestamptz, c int, d numeric, e text)"
            " PARTITION BY LIST (id)"
        )
        for start in range(0, TABLES, 500):
            connection.execute(
                f"""
                DO $$ BEGIN
                FOR i IN {start} .. {start + 499} LOOP
                    IF i % 5 = 0 THEN
                        EXECUTE format('CREATE TABLE t%s PARTITION OF parent FOR VALUES IN (%s)', i, i);
                    ELSE
                        EXECUTE format('CREATE TABLE t%s (id int8 PRIMARY KEY, a text, b timestamptz, c int,
                                                          d numeric, e text)', i);
                    END IF;
                    EXECUTE format('INSERT INTO t%s SELECT %s, g::text, now(), g, g, g
                                      FROM generate_series(1, 5) AS g WHERE g = 1 OR %s %% 5 = 0', i, i, i);
                END LOOP;
                END $$""".encode()
            )
        connection.execute("ANALYZE")
    with postgres.connect(place.server.login("views"), purpose="bench") as connection:
        connection.execute("CREATE TABLE base (id int, a text, n numeric)")
        for number in range(MATVIEWS):
            below = f"v{number - _WIDTH}" if number >= _WIDTH else "base"
            statements = (
                f"CREATE MATERIALIZED VIEW m{number} AS SELECT id, upper(a) AS a, sum(n) AS n FROM {below}"
                f" WHERE id IN (SELECT id FROM base WHERE a LIKE 'x%' AND n + id > {number}) GROUP BY id, a",
                f"CREATE VIEW v{number} AS SELECT id, a || 'y' AS a, n FROM m{number} WHERE n > 0",
            )
            for statement in statements:
                connection.execute(statement.encode())


def repeated(times: int, run: Callable[[], None]) -> dict[str, Any]:
    """Return the median of several runs in seconds, and each of them; one before them warms up."""
    run()
    runs = [round(timed(run), 3) for _ in range(times)]
    return {"median": median(runs), "runs": runs}


def examine(place: Bench, name: str, operation: Callable[..., StepResult], expected: int) -> None:
    """Do a dry run of an operation, and see that it looked at everything."""
    result = operation(load_target(name), dry_run=True)
    assert result.examined >= expected, result


def graph(connection: postgres.Connection) -> None:
    """Find out what each materialized view reads, and put them in order."""
    views = {row["oid"]: row["name"] for row in connection.rows(sql.load("matviews"))}
    reads: dict[int, set[int]] = {oid: set() for oid in views}
    for edge in connection.rows(sql.load("matview_edges")):
        reads[edge["matview"]].add(edge["source"])
    order, circle = refresh_order(views, reads)
    sources = read_sources(connection, views)
    assert (len(order), len(sources), circle) == (MATVIEWS, MATVIEWS, [])


def markdown(found: Mapping[str, Any]) -> str:
    """Return the README's table."""
    goals = {"stale scan": STALE_GOAL_S, "graph": GRAPH_GOAL_S}
    titles = {
        "stale scan": f"`analyze --dry-run`: {found['tables']:,} tables, a fifth of them partitions",
        "graph": f"order of {found['matviews']} materialized views, and what is in their queries",
        "dry run of all views": f"`matviews --dry-run` of all {found['matviews']}, with what is below",
    }
    lines = [
        f"{found['cores']} cores, PostgreSQL {found['postgresql']}, Python {found['python']},"
        f" {found['measured_at'][:10]}.",
        "",
        "| what | median s | goal: at most | met |",
        "|---|---:|---:|---|",
    ]
    for name, each in found["seconds"].items():
        goal = goals.get(name)
        met = "" if goal is None else "yes" if each["median"] <= goal else "**no**"
        lines.append(f"| {titles[name]} | {each['median']:.2f} | {goal or ''} | {met} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
