"""Bloat detection beside one bare pgstatindex pass over the same indexes; the free look at 10,000 indexes.

    make bench BENCH=bloat
    make bench BENCH=bloat ARGS="--scale 0.1 --indexes 1000"

In rounds on the sample database as it was seeded, never vacuumed, all in memory; medians. The bare pass
is one query in a session of its own, as ours is: whoever first touches shared memory in a session pays for
that, half of its time. The same query once more in that session is told beside it. Ours is `detect` in a
process that has done it once before, and the whole command with its start-up. Writes
`benchmarks/bloat.json` and its table in `benchmarks/README.md`; with `--output` only the file named.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import Any

from rich.console import Console

from benchmarks.measuring import PGSTEWARD, Bench, bench, machine, measure, median, replace_in_readme
from pgsteward import postgres
from pgsteward.demo.sample import seed
from pgsteward.index_bloat import detect
from pgsteward.targets import Target, load_target

OUTPUT = Path(__file__).with_name("bloat.json")
MARK = "bloat.json"
SAMPLE, MANY = "sample", "many"
RATIO_GOAL = 1.5
PREFILTER_GOAL_S = 5.0
_INDEXES_PER_TABLE = 4
_BATCH = 500


def main() -> int:
    """Measure, write the figures and print them beside the goals."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--scale", type=float, default=1.0, help="of the sample (default: %(default)s)")
    parser.add_argument("--indexes", type=int, default=10_000, help="(default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=5, help="rounds (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="figures go here, and the README stays as it is")
    parser.add_argument("--folder", type=Path, help="for the server (default: TMPDIR)")
    options = parser.parse_args()
    console = Console(stderr=True)
    found: dict[str, Any] = {"scale": options.scale, "indexes": options.indexes, **machine()}
    with bench({"shared_buffers": "2GB", "max_locks_per_transaction": "256"}, options.folder) as place:
        found["postgresql"] = place.server.version
        console.print(f"seeding the sample at scale {options.scale:g}, and {options.indexes} indexes ...")
        for name in (SAMPLE, MANY):
            place.admin(f"CREATE DATABASE {name}")
        seed(place.server.login(SAMPLE), scale=options.scale)
        for name in (SAMPLE, MANY):
            with postgres.connect(place.server.login(name), purpose="bench") as connection:
                connection.execute("CREATE EXTENSION IF NOT EXISTS pgstattuple")
        make_indexes(place, options.indexes)
        configure(place)
        found |= compare(place, options.repeat, console)
        found |= prefilter(place, options.repeat, console)
    for name, figure, goal, met in verdicts(found):
        console.print(f"{name}: {figure} (goal: {goal}): {'met' if met else 'NOT MET'}")
    if options.output:
        options.output.write_text(json.dumps(found, indent=1) + "\n")
    else:
        OUTPUT.write_text(json.dumps(found, indent=1) + "\n")
        replace_in_readme(MARK, markdown(found))
    return 0


def make_indexes(place: Bench, indexes: int) -> None:
    """Fill a database with small tables of four indexes each."""
    tables = indexes // _INDEXES_PER_TABLE
    with postgres.connect(place.server.login(MANY), purpose="bench") as connection:
        for start in range(0, tables, _BATCH):
            connection.execute(
                f"""
                DO $$ BEGIN
                FOR i IN {start} .. {min(start + _BATCH, tables) - 1} LOOP
                    EXECUTE format('CREATE TABLE t%s (id int8 PRIMARY KEY, name text, made timestamptz)', i);
                    EXECUTE format('INSERT INTO t%s SELECT g, md5(g::text), now()
                                      FROM generate_series(1, 20) AS g', i);
                    EXECUTE format('CREATE INDEX ON t%s (name)', i);
                    EXECUTE format('CREATE INDEX ON t%s (made, id)', i);
                    EXECUTE format('CREATE INDEX ON t%s (lower(name))', i);
                END LOOP;
                END $$"""
            )
        connection.execute("VACUUM ANALYZE")


def configure(place: Bench) -> None:
    targets: Mapping[str, tuple[str, Mapping[str, Any]]] = {name: (name, {}) for name in (SAMPLE, MANY)}
    place.configure(
        targets,
        more=f"[targets.{MANY}.index_bloat]\nmin_reclaimable = 0\nmeasure_minutes = 1e-9\n",
    )
    os.environ.update({key: str(value) for key, value in place.env.items()})


def compare(place: Bench, rounds: int, console: Console) -> dict[str, Any]:
    """Return the seconds of the bare pass, of detection, and of the command."""
    target = load_target(SAMPLE)
    names = [index["index"] for index in detect(target).as_json()["indexes"]]
    bare: list[float] = []
    again: list[float] = []
    ours: list[float] = []
    command: list[float] = []
    last: dict[str, Any] = {}
    for number in range(rounds):
        with postgres.connect(place.server.login(SAMPLE), purpose="bench") as connection:
            for passes in (bare, again):
                started = monotonic()
                connection.rows(
                    "SELECT pgstatindex(name::regclass) FROM unnest(%(names)s::text[]) AS name",
                    {"names": names},
                )
                passes.append(round(monotonic() - started, 3))
        started = monotonic()
        last = detect(target).as_json()
        ours.append(round(monotonic() - started, 3))
        command.append(measure([PGSTEWARD, "bloat", SAMPLE, "--json"], place.env).seconds)
        console.print(f"round {number + 1}: bare {bare[-1]}, detect {ours[-1]}, command {command[-1]} s")
    return {
        "measured_indexes": last["examined"],
        "measured_bytes": last["measured_bytes"],
        "tables": len(last["tables"]),
        "bare_s": median(bare),
        "bare_again_s": median(again),
        "detect_s": median(ours),
        "command_s": median(command),
        "runs": {"bare": bare, "bare_again": again, "detect": ours, "command": command},
    }


def prefilter(place: Bench, rounds: int, console: Console) -> dict[str, Any]:
    """Return the seconds of a look at many indexes that has no time to measure any."""
    target: Target = load_target(MANY)
    seconds: list[float] = []
    for _ in range(rounds):
        started = monotonic()
        result = detect(target)
        seconds.append(round(monotonic() - started, 3))
        console.print(f"{result.summary}: {seconds[-1]} s")
        if result.details["left"] != result.details["total"]:
            raise SystemExit("some index was not ranked")
    return {"prefilter_s": median(seconds), "prefilter_runs": seconds}


def verdicts(found: Mapping[str, Any]) -> list[tuple[str, str, str, bool]]:
    """Return name, figure, goal and whether it is met."""
    ratio = found["detect_s"] / found["bare_s"]
    return [
        ("detection / bare pass", f"{ratio:.2f}", f"{RATIO_GOAL:.2f}", ratio <= RATIO_GOAL),
        (
            f"{found['indexes']:,} indexes ranked",
            f"{found['prefilter_s']:.2f} s",
            f"{PREFILTER_GOAL_S:g} s",
            found["prefilter_s"] <= PREFILTER_GOAL_S,
        ),
    ]


def markdown(found: Mapping[str, Any]) -> str:
    """Return the README's table."""
    lines = [
        f"Sample at scale {found['scale']:g}: {found['measured_indexes']} indexes,"
        f" {found['measured_bytes'] / 1e6:.0f} MB, and {found['tables']} tables."
        f" {found['cores']} cores, PostgreSQL {found['postgresql']}, Python {found['python']},"
        f" {found['measured_at'][:10]}.",
        "",
        "| what | runs | median s |",
        "|---|---:|---:|",
    ]
    for title, key in (
        ("bare `pgstatindex` over the same indexes, in a session of its own", "bare"),
        ("the same once more in that session", "bare_again"),
        ("`detect`: catalogs, indexes, tables, state", "detect"),
        ("`pgsteward bloat --json`, start-up included", "command"),
    ):
        lines.append(f"| {title} | {len(found['runs'][key])} | {found[f'{key}_s']:.3f} |")
    lines += ["", "| what | measured | goal: at most | met |", "|---|---:|---:|---|"]
    lines += [
        f"| {name} | {figure} | {goal} | {'yes' if met else '**no**'} |"
        for name, figure, goal, met in verdicts(found)
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
