"""Backups beside `pg_dump | gzip` and raw pg_dump, all in one run on the sample database.

    make bench BENCH=backup                                    # scale 1.0 (1.26 GB), five rounds
    make bench BENCH=backup ARGS="--scale 8 --repeat 1"        # 10 GB, once; needs about 30 GB of disk

Whole commands, start-up included, one after the other on a quiet server; each round begins with another
variant, so that a drift of the machine meets all of them. Nothing is dropped; the figures are medians. Before
the rounds the tables are read once (hint bits, page cache) and pgsteward backs up an empty database once (its
state and its bytecode are made). Each result is removed before the next command starts. Writes
`benchmarks/backup.json`, one entry per scale, and the table in `benchmarks/README.md`; with `--only` it only
prints.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyrage
from rich.console import Console
from rich.table import Table

from benchmarks.measuring import (
    PGSTEWARD,
    Bench,
    Measured,
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
from pgsteward.demo.sample import seed

OUTPUT = Path(__file__).with_name("backup.json")
MARK = "backup.json"
DATABASE = "intowork"
MEMORY_GOAL = 200 * 2**20

GUIDE, RAW_FD, RAW_FC = "guide", "raw-fd", "raw-fc"
COUNTS, FULL, NONE, STREAM, ENCRYPTED = "counts", "full", "none", "stream", "encrypted"
TITLES: Mapping[str, str] = {
    GUIDE: "`pg_dump \\| gzip`",
    RAW_FD: "`pg_dump -Fd -j{jobs} --compress=zstd:1`",
    RAW_FC: "`pg_dump -Fc --compress=zstd:1`",
    NONE: 'pgsteward, `proof = "none"`',
    COUNTS: 'pgsteward, `proof = "counts"`',
    FULL: 'pgsteward, `proof = "full"`',
    STREAM: 'pgsteward, `mode = "stream"`, `counts`',
    ENCRYPTED: "pgsteward, `encrypt_to` (a stream), `counts`",
}


@dataclass(frozen=True, slots=True)
class Goal:
    """A ratio of two medians and what it has to stay below."""

    name: str
    ours: str
    yardstick: str
    at_most: float
    of: str = "seconds"
    or_within_s: float = 0.0


GOALS = (
    Goal("counts / `pg_dump \\| gzip`", COUNTS, GUIDE, 1 / 10),
    Goal("full / `pg_dump \\| gzip`", FULL, GUIDE, 1 / 6),
    Goal("size / `pg_dump \\| gzip`", FULL, GUIDE, 1.15, of="bytes"),
    Goal("counts / raw -Fd", COUNTS, RAW_FD, 1.10, or_within_s=1.0),
    Goal("full / raw -Fd", FULL, RAW_FD, 1.7),
    Goal("stream, counts / raw -Fc", STREAM, RAW_FC, 1.15),
)


def main() -> int:
    """Measure every variant, write the figures and print them beside the goals."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--scale", type=float, default=1.0, help="1.0 is 1.26 GB (default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=5, help="rounds (default: %(default)s)")
    parser.add_argument("--repeat-guide", type=int, help="rounds of `pg_dump | gzip` (default: at most 3)")
    parser.add_argument("--only", nargs="+", choices=list(TITLES), default=list(TITLES), metavar="VARIANT")
    parser.add_argument("--jobs", type=int, default=2, help="of pg_dump (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="figures go here, and the README stays as it is")
    parser.add_argument("--folder", type=Path, help="for the server and the dumps (default: TMPDIR)")
    options = parser.parse_args()
    guide_rounds = options.repeat_guide or min(options.repeat, 3)
    console = Console(stderr=True)
    found: dict[str, Any] = {"scale": options.scale, **machine(), "jobs": options.jobs}
    with bench({"shared_buffers": "512MB"}, options.folder) as place:
        found["postgresql"] = place.server.version
        found["seed_s"] = prepare(place, options.scale, console)
        rows = place.admin(f"SELECT pg_database_size('{DATABASE}') AS bytes")
        found["database_bytes"] = rows[0]["bytes"]
        place.configure(configuration(options.jobs))
        measure([PGSTEWARD, "backup", "warm", "--json"], place.env)
        clear(place.store)
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in options.only}
        for number in range(options.repeat):
            for name in rotated(options.only, number):
                if name == GUIDE and number >= guide_rounds:
                    continue
                runs[name].append(run(name, place, options.jobs))
                console.print(f"round {number + 1}: {name:<10}{runs[name][-1]['seconds']:>8.2f} s")
    found["variants"] = {name: summary(each) for name, each in runs.items() if each}
    found["goals"] = [verdict for goal in GOALS if (verdict := judged(goal, found["variants"])) is not None]
    show(found)
    if options.output:
        options.output.write_text(json.dumps(found, indent=1) + "\n")
    elif set(options.only) == set(TITLES):
        publish(found)
    return 0


def prepare(place: Bench, scale: float, console: Console) -> float:
    """Seed the sample, and leave the server as if it had been used; return the seconds."""
    place.admin(f"CREATE DATABASE {DATABASE}")
    place.admin("CREATE DATABASE warm")
    console.print(f"seeding the sample at scale {scale} ...")
    seconds = timed(lambda: seed(place.server.login(DATABASE), scale=scale))
    console.print(f"seeded in {seconds} s")
    nowhere = ["--format=custom", "--compress=none", "--no-sync", "--file=/dev/null", DATABASE]
    measure([place.tool("pg_dump"), *nowhere], place.env)
    place.admin("CHECKPOINT")
    return seconds


def configuration(jobs: int) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Return one target per variant of pgsteward, all of the same database."""
    directory = {"mode": "directory", "jobs": jobs}
    recipient = str(pyrage.x25519.Identity.generate().to_public())
    return {
        "warm": ("warm", {**directory, "proof": "full"}),
        **{level: (DATABASE, {**directory, "proof": level}) for level in (NONE, COUNTS, FULL)},
        STREAM: (DATABASE, {"mode": "stream", "proof": "counts"}),
        ENCRYPTED: (DATABASE, {"encrypt_to": [recipient], "proof": "counts"}),
    }


def run(name: str, place: Bench, jobs: int) -> dict[str, Any]:
    """Run one variant once, weigh what it wrote and remove it."""
    pg_dump, target = place.tool("pg_dump"), place.folder / name
    commands: dict[str, list[str | Path]] = {
        GUIDE: ["bash", "-c", 'set -o pipefail; "$0" "$1" | gzip > "$2"', pg_dump, DATABASE, target],
        RAW_FD: [
            pg_dump,
            "--format=directory",
            f"--jobs={jobs}",
            "--compress=zstd:1",
            "-f",
            target,
            DATABASE,
        ],
        RAW_FC: [pg_dump, "--format=custom", "--compress=zstd:1", "-f", target, DATABASE],
    }
    ours = name not in commands
    measured = measure(commands.get(name, [PGSTEWARD, "backup", name, "--json"]), place.env)
    written = place.store if ours else target
    found = {
        "seconds": measured.seconds,
        "bytes": size_of(written),
        "own_bytes": measured.own_bytes,
        "children_bytes": dict(measured.children_bytes),
    }
    if ours:
        found |= facts_of(measured, place)
    clear(written)
    return found


def facts_of(measured: Measured, place: Bench) -> dict[str, Any]:
    """Return what pgsteward itself said; refuse a run that is not what was meant to be measured."""
    result = json.loads(measured.stdout)
    ours = measure([place.tool("pg_dump"), "--version"], place.env).stdout.decode()
    if result["status"] != "ok" or f" {result['client_version']}" not in ours:
        raise SystemExit(f"not a plain backup by {ours.strip()}: {measured.stdout.decode()}")
    return {"phases": result["phases"], "rows": result["proof"]["rows"]}


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return medians and extremes beside the runs themselves."""
    children: dict[str, int] = {}
    for each in runs:
        for program, peak in each["children_bytes"].items():
            children[program] = max(children.get(program, 0), peak)
    seconds = [each["seconds"] for each in runs]
    return {
        "seconds": median(seconds),
        "fastest_s": min(seconds),
        "slowest_s": max(seconds),
        "bytes": int(median([each["bytes"] for each in runs])),
        "own_bytes": max(each["own_bytes"] for each in runs),
        "children_bytes": children,
        "runs": runs,
    }


def judged(goal: Goal, variants: Mapping[str, Any]) -> dict[str, Any] | None:
    """Compare two medians with a goal; None where one of them was not measured."""
    if goal.ours not in variants or goal.yardstick not in variants:
        return None
    ours, yardstick = variants[goal.ours][goal.of], variants[goal.yardstick][goal.of]
    ratio = ours / yardstick
    met = ratio <= goal.at_most or ours - yardstick <= goal.or_within_s > 0
    wanted = f"{goal.at_most:.3f}" + (f" or + {goal.or_within_s:g} s" if goal.or_within_s else "")
    beyond = round(ours - yardstick, 2) if goal.of == "seconds" else None
    return {"goal": goal.name, "wanted": wanted, "ratio": round(ratio, 3), "beyond_s": beyond, "met": met}


def memory_verdict(variants: Mapping[str, Any]) -> tuple[int, bool]:
    """Return the highest peak of pgsteward's own process in any variant, and whether it is low enough."""
    peak = max((each["own_bytes"] for each in variants.values() if "rows" in each["runs"][0]), default=0)
    return peak, peak <= MEMORY_GOAL


def show(found: Mapping[str, Any]) -> None:
    """Print the figures beside the goals."""
    title = f"{found['database_bytes'] / 1e9:.2f} GB, {found['cores']} cores, {found['jobs']} jobs"
    table = Table(title=title)
    for column in ("variant", "runs", "median s", "fastest", "slowest", "MB", "own MiB", "children MiB"):
        table.add_column(column, justify="left" if column == "variant" else "right")
    for name, each in found["variants"].items():
        table.add_row(name, str(len(each["runs"])), *figures(each))
    goals = Table(title="goals")
    for column in ("ratio of medians", "measured", "at most", "beyond", "met"):
        goals.add_column(column)
    for each in found["goals"]:
        beyond = "" if each["beyond_s"] is None else f"{each['beyond_s']:+.2f} s"
        met = "yes" if each["met"] else "NO"
        goals.add_row(each["goal"], f"{each['ratio']:.3f}", each["wanted"], beyond, met)
    peak, low = memory_verdict(found["variants"])
    goals.add_row(
        "peak memory of pgsteward", f"{peak / 2**20:.0f} MiB", "200 MiB", "", "yes" if low else "NO"
    )
    console = Console()
    console.print(table)
    console.print(goals)


def figures(each: Mapping[str, Any]) -> list[str]:
    return [
        f"{each['seconds']:.2f}",
        f"{each['fastest_s']:.2f}",
        f"{each['slowest_s']:.2f}",
        f"{each['bytes'] / 1e6:.0f}",
        f"{each['own_bytes'] / 2**20:.0f}",
        f"{sum(each['children_bytes'].values()) / 2**20:.0f}",
    ]


def publish(found: Mapping[str, Any]) -> None:
    """Put one run beside those of other scales, in the file and in the README."""
    known = json.loads(OUTPUT.read_text()) if OUTPUT.exists() else {}
    known[f"{found['scale']:g}"] = found
    ordered = dict(sorted(known.items(), key=lambda item: float(item[0])))
    OUTPUT.write_text(json.dumps(ordered, indent=1) + "\n")
    replace_in_readme(MARK, "\n\n".join(markdown(each) for each in ordered.values()))


def markdown(found: Mapping[str, Any]) -> str:
    """Return one scale's tables for the README."""
    variants = found["variants"]
    lines = [
        f"### {found['database_bytes'] / 1e9:.2f} GB (`--scale {found['scale']:g}`)",
        "",
        f"{found['cores']} cores, {found['memory_bytes'] / 2**30:.0f} GiB of memory, PostgreSQL"
        f" {found['postgresql']}, Python {found['python']}, {found['measured_at'][:10]}.",
        "",
        "| variant | runs | median s | fastest | slowest | MB | own peak MiB | its programs MiB |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, each in variants.items():
        title = TITLES[name].format(jobs=found["jobs"])
        lines.append(f"| {title} | {len(each['runs'])} | {' | '.join(figures(each))} |")
    lines += ["", "| ratio of medians | measured | goal: at most | met |", "|---|---:|---:|---|"]
    for each in found["goals"]:
        beyond = "" if each["beyond_s"] is None else f" ({each['beyond_s']:+.2f} s)"
        met = "yes" if each["met"] else "**no**"
        lines.append(f"| {each['goal']} | {each['ratio']:.3f}{beyond} | {each['wanted']} | {met} |")
    peak, low = memory_verdict(variants)
    met = "yes" if low else "**no**"
    lines.append(f"| peak memory of pgsteward's process | {peak / 2**20:.0f} MiB | 200 MiB | {met} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
