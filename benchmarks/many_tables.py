"""A backup of 20,000 small tables beside raw pg_dump, in one run.

    make bench BENCH=many_tables
    make bench BENCH=many_tables ARGS="--tables 2000 --repeat 1"

Whole commands, start-up included, in rounds that begin with another one each time; medians. Also how long
the manifest takes to read, and whether a server whose lock table is too small for all of them is refused by
name. Writes `benchmarks/many_tables.json` and its table in `benchmarks/README.md`; with `--output` only the
file named.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.measuring import (
    PGSTEWARD,
    Bench,
    bench,
    clear,
    machine,
    measure,
    median,
    replace_in_readme,
    rotated,
    size_of,
    timed,
)
from pgsteward import postgres
from pgsteward.backup.manifest import MANIFEST, Manifest

OUTPUT = Path(__file__).with_name("many_tables.json")
MARK = "many_tables.json"
DATABASE = "many"
RAW, COUNTS, FULL = "raw-fd", "counts", "full"
TITLES: Mapping[str, str] = {
    RAW: "`pg_dump -Fd -j{jobs} --compress=zstd:1`",
    COUNTS: 'pgsteward, `proof = "counts"`',
    FULL: 'pgsteward, `proof = "full"`',
}
OVERHEAD_GOAL = 1.5
READ_GOAL_S = 1.0
_ROWS = 10
_BATCH = 500


def main() -> int:
    """Measure the variants, write the figures and print them beside the goals."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tables", type=int, default=20_000, help="(default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=3, help="rounds (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=list(TITLES), default=list(TITLES), metavar="VARIANT")
    parser.add_argument("--jobs", type=int, default=2, help="of pg_dump (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="figures go here, and the README stays as it is")
    parser.add_argument("--folder", type=Path, help="for the servers and the dumps (default: TMPDIR)")
    options = parser.parse_args()
    console = Console(stderr=True)
    found: dict[str, Any] = {"tables": options.tables, **machine(), "jobs": options.jobs}
    settings = {"shared_buffers": "512MB", "max_locks_per_transaction": "1024"}
    with bench(settings, options.folder) as place:
        found |= {"postgresql": place.server.version, "max_locks_per_transaction": 1024}
        console.print(f"making {options.tables} tables ...")
        found["seed_s"] = timed(lambda: make_tables(place, options.tables))
        configure(place, options.jobs)
        measure([PGSTEWARD, "backup", "warm", "--json"], place.env)
        clear(place.store)
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in options.only}
        for number in range(options.repeat):
            for name in rotated(options.only, number):
                runs[name].append(run(name, place, options.jobs))
                console.print(f"round {number + 1}: {name:<8}{runs[name][-1]['seconds']:>8.2f} s")
    found["variants"] = {
        name: {
            "seconds": median([each["seconds"] for each in measured]),
            "bytes": measured[-1]["bytes"],
            "own_bytes": max(each["own_bytes"] for each in measured),
            "runs": measured,
        }
        for name, measured in runs.items()
    }
    found["refusal"] = refusal(options.tables, options.jobs, options.folder, console)
    show(found, console)
    if options.output:
        options.output.write_text(json.dumps(found, indent=1) + "\n")
    elif set(options.only) == set(TITLES):
        OUTPUT.write_text(json.dumps(found, indent=1) + "\n")
        replace_in_readme(MARK, markdown(found))
    return 0


def make_tables(place: Bench, tables: int) -> None:
    """Fill a database with small tables: a key, a text, an instant, ten rows."""
    place.admin(f"CREATE DATABASE {DATABASE}")
    place.admin("CREATE DATABASE warm")
    with postgres.connect(place.server.login(DATABASE), purpose="bench") as connection:
        for start in range(0, tables, _BATCH):
            connection.execute(
                f"""
                DO $$ BEGIN
                FOR i IN {start} .. {min(start + _BATCH, tables) - 1} LOOP
                    EXECUTE format('CREATE TABLE t%s (id int8 PRIMARY KEY, name text, made timestamptz)', i);
                    EXECUTE format('INSERT INTO t%s SELECT g, md5(g::text), now()
                                      FROM generate_series(1, {_ROWS}) AS g', i);
                END LOOP;
                END $$"""
            )
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")


def configure(place: Bench, jobs: int) -> None:
    settings = {"mode": "directory", "jobs": jobs}
    place.configure(
        {
            "warm": ("warm", settings),
            **{level: (DATABASE, {**settings, "proof": level}) for level in (COUNTS, FULL)},
        }
    )


def run(name: str, place: Bench, jobs: int) -> dict[str, Any]:
    """Run one variant once; of ours also read the manifest, in a process that has done nothing else."""
    raw = place.folder / "raw"
    options = ["--format=directory", f"--jobs={jobs}", "--compress=zstd:1", f"--file={raw}"]
    if name == RAW:
        measured = measure([place.tool("pg_dump"), *options, DATABASE], place.env)
        found: dict[str, Any] = {"bytes": size_of(raw)}
        clear(raw)
    else:
        measured = measure([PGSTEWARD, "backup", name, "--json"], place.env)
        (manifest,) = place.store.glob(f"*/*/*/{MANIFEST}")
        found = {
            "bytes": size_of(place.store),
            "phases": json.loads(measured.stdout)["phases"],
            "manifest_bytes": manifest.stat().st_size,
            "manifest_read_s": read_seconds(manifest),
        }
        clear(place.store)
    return {"seconds": measured.seconds, "own_bytes": measured.own_bytes, **found}


def read_seconds(path: Path) -> float:
    """Return how long it takes to read a manifest, its seal checked."""
    started = monotonic()
    Manifest.from_bytes(path.read_bytes(), path.name)
    return round(monotonic() - started, 3)


def refusal(tables: int, jobs: int, into: Path | None, console: Console) -> str | None:
    """Return how pgsteward refuses these tables on a server with the default lock table; None: it didn't."""
    console.print("the same on a server with the default max_locks_per_transaction ...")
    with bench({"shared_buffers": "512MB"}, into) as place:
        make_tables(place, tables)
        configure(place, jobs)
        done = subprocess.run(
            [PGSTEWARD, "backup", COUNTS, "--json"],
            env={**place.env, "PATH": "/usr/bin"},
            capture_output=True,
        )
        result = json.loads(done.stdout)
        return None if result["status"] == "ok" else str(result["summary"])


def verdicts(found: Mapping[str, Any]) -> list[tuple[str, str, str, bool]]:
    """Return name, figure, goal and whether it is met."""
    variants = found["variants"]
    said: list[tuple[str, str, str, bool]] = []
    if {RAW, COUNTS} <= set(variants):
        ratio = variants[COUNTS]["seconds"] / variants[RAW]["seconds"]
        said.append(("counts / raw -Fd", f"{ratio:.2f}", f"{OVERHEAD_GOAL:.2f}", ratio <= OVERHEAD_GOAL))
    reads = [
        each["manifest_read_s"]
        for name in (COUNTS, FULL)
        for each in variants.get(name, {"runs": []})["runs"]
    ]
    if reads:
        slowest = max(reads)
        said.append(("reading the manifest", f"{slowest:.2f} s", f"{READ_GOAL_S:g} s", slowest < READ_GOAL_S))
    named = "max_locks_per_transaction" in (found["refusal"] or "")
    said.append(
        ("default lock table", "refused" if found["refusal"] else "went on", "refused by name", named)
    )
    return said


def show(found: Mapping[str, Any], console: Console) -> None:
    table = Table(title=f"{found['tables']} tables, {found['cores']} cores, {found['jobs']} jobs")
    for column in ("variant", "runs", "median s", "MB", "own MiB", "phases of the last run"):
        table.add_column(column)
    for name, each in found["variants"].items():
        last = each["runs"][-1].get("phases", {})
        phases = ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in last.items())
        table.add_row(name, str(len(each["runs"])), *figures(each), phases)
    Console().print(table)
    for name, figure, goal, met in verdicts(found):
        Console().print(f"{name}: {figure} (goal: {goal}): {'met' if met else 'NOT MET'}")
    Console().print(f"with the default lock table: {found['refusal']}")


def figures(each: Mapping[str, Any]) -> list[str]:
    return [f"{each['seconds']:.2f}", f"{each['bytes'] / 1e6:.0f}", f"{each['own_bytes'] / 2**20:.0f}"]


def markdown(found: Mapping[str, Any]) -> str:
    """Return the README's table."""
    lines = [
        f"{found['tables']:,} tables of {_ROWS} rows, {found['cores']} cores,"
        f" PostgreSQL {found['postgresql']}, Python {found['python']}, {found['measured_at'][:10]}.",
        "",
        "| variant | runs | median s | MB | own peak MiB |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, each in found["variants"].items():
        title = TITLES[name].format(jobs=found["jobs"])
        lines.append(f"| {title} | {len(each['runs'])} | {' | '.join(figures(each))} |")
    lines += ["", "| what | measured | goal: at most | met |", "|---|---:|---:|---|"]
    lines += [
        f"| {name} | {figure} | {goal} | {'yes' if met else '**no**'} |"
        for name, figure, goal, met in verdicts(found)
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
