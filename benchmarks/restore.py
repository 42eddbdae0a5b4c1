"""Restores and a drill beside raw pg_restore and `gunzip | psql`, all in one run on the sample database.

    make bench BENCH=restore                                   # scale 1.0 (1.26 GB), three rounds

Whole commands, start-up included, one after the other on a quiet server, into an empty database each time;
raw pg_restore reads the very folder that pgsteward restores from. A checkpoint and a sync come before each,
its database is dropped after it. Each round begins with another variant; the figures are medians. At the
end the database is replaced and put back while clients reconnect to it in a loop: the longest time for which
none of them was served is the gap. Writes `benchmarks/restore.json` and its table in `benchmarks/README.md`;
with `--output` or `--only` the README stays as it is.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
from rich.console import Console

from benchmarks.backup import DATABASE, MEMORY_GOAL, prepare
from benchmarks.measuring import (
    PGSTEWARD,
    Bench,
    bench,
    busy_seconds,
    machine,
    measure,
    median,
    replace_in_readme,
    rotated,
    size_of,
)
from pgsteward.children import Children
from pgsteward.demo.s3 import LocalS3

OUTPUT = Path(__file__).with_name("restore.json")
MARK = "restore.json"
TARGET = "sample"
INTO = "restored"
CLIENTS = 4

RAW, RAW_LOAD, GUIDE = "raw", "raw-load", "guide"
FOLDER, S3, DRILL = "folder", "s3", "drill"
TITLES: Mapping[str, str] = {
    GUIDE: "`gunzip \\| psql`",
    RAW: "`pg_restore -j{jobs}`",
    RAW_LOAD: "the same without filling materialized views",
    FOLDER: "`restore` from the folder, compared",
    S3: "`restore` from S3, compared",
    DRILL: "`drill` from the folder, on a server of its own",
}
PHASES = ("preflight", "server", "fetch", "create", "load", "matviews", "analyze", "compare")


@dataclass(frozen=True, slots=True)
class Goal:
    """A ratio of two medians and what it has to stay below."""

    name: str
    ours: Callable[[Mapping[str, Any]], float]
    yardstick: Callable[[Mapping[str, Any]], float]
    at_most: float


def whole(name: str) -> Callable[[Mapping[str, Any]], float]:
    """Return what reads the seconds of a variant."""
    return lambda variants: float(variants[name]["seconds"])


def phases(name: str, *wanted: str) -> Callable[[Mapping[str, Any]], float]:
    """Return what adds up phases of a variant."""
    return lambda variants: sum(variants[name]["phases"][each] for each in wanted)


GOALS = (
    Goal("its load / raw without materialized views", phases(FOLDER, "load"), whole(RAW_LOAD), 1.05),
    Goal("the whole restore, compared / `gunzip \\| psql`", whole(FOLDER), whole(GUIDE), 1 / 2.2),
    Goal("the whole restore from S3 / from the folder", whole(S3), whole(FOLDER), 1.15),
    Goal("a drill's load and materialized views / raw", phases(DRILL, "load", "matviews"), whole(RAW), 0.95),
    Goal("its load / raw: the open question", phases(FOLDER, "load"), whole(RAW_LOAD), 0.8),
)
GAP_GOAL_S = 1.0


def main() -> int:
    """Measure every variant, write the figures and print them beside the goals."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--scale", type=float, default=1.0, help="1.0 is 1.26 GB (default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=3, help="rounds (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="of pg_restore (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=list(TITLES), default=list(TITLES), metavar="VARIANT")
    parser.add_argument("--output", type=Path, help="figures go here, and the README stays as it is")
    parser.add_argument("--folder", type=Path, help="for the server and the dumps (default: TMPDIR)")
    options = parser.parse_args()
    console = Console(stderr=True)
    found: dict[str, Any] = {"scale": options.scale, **machine(), "jobs": options.jobs}
    with bench({"shared_buffers": "512MB"}, options.folder) as place, Children() as children:
        s3 = LocalS3(place.folder / "s3", children).start()
        found["postgresql"] = place.server.version
        prepare(place, options.scale, console)
        sources = Sources.make(place, s3, options.jobs)
        found["backup_bytes"], found["guide_bytes"] = size_of(sources.dump), size_of(sources.guide)
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in options.only}
        for number in range(options.repeat):
            for name in rotated(options.only, number):
                runs[name].append(run(name, place, sources, options.jobs))
                console.print(f"round {number + 1}: {name:<10}{runs[name][-1]['seconds']:>8.2f} s")
        found["variants"] = {name: summary(each) for name, each in runs.items()}
        if set(options.only) == set(TITLES):
            found["gaps_s"] = gaps(place, sources, options.jobs)
    if set(options.only) != set(TITLES):
        print(json.dumps(found["variants"], indent=1))
        return 0
    Console().print(text := markdown(found), markup=False)
    (options.output or OUTPUT).write_text(json.dumps(found, indent=1) + "\n")
    if not options.output:
        replace_in_readme(MARK, text)
    return 0


@dataclass(frozen=True, slots=True)
class Sources:
    """What is restored from, and how pgsteward reaches it."""

    dump: Path
    guide: Path
    list_without_matviews: Path
    environment: dict[str, str]

    @classmethod
    def make(cls, place: Bench, s3: LocalS3, jobs: int) -> Sources:
        """Back up into folder and S3, and as the guide's script does."""
        place.configure(
            {TARGET: (DATABASE, {"jobs": jobs, "proof": "full"})},
            {TARGET: ["disk", "s3"]},
            f'[stores.s3]\nurl = "s3://{s3.bucket}"\nendpoint_url = "{s3.endpoint_url}"\n'
            f'region = "{s3.region}"\naccess_key_id = {{ env = "BENCH_KEY" }}\n'
            'secret_access_key = { env = "BENCH_SECRET" }',
        )
        environment = {**place.env, "BENCH_KEY": s3.access_key_id, "BENCH_SECRET": s3.secret_access_key}
        result = json.loads(measure([PGSTEWARD, "backup", TARGET, "--json"], environment).stdout)
        dump = place.store / TARGET / DATABASE / result["backup_id"] / "dump"
        guide = place.folder / "guide.sql.gz"
        shell = [
            "bash",
            "-c",
            'set -o pipefail; "$0" "$1" | gzip > "$2"',
            place.tool("pg_dump"),
            DATABASE,
            guide,
        ]
        measure(shell, environment)
        listing = measure([place.tool("pg_restore"), "--list", dump], environment).stdout.splitlines()
        wanted = place.folder / "without-matviews.list"
        wanted.write_bytes(b"\n".join(line for line in listing if b" MATERIALIZED VIEW DATA " not in line))
        return cls(dump, guide, wanted, environment)


def run(name: str, place: Bench, sources: Sources, jobs: int) -> dict[str, Any]:
    """Run one variant once, into an empty database, and drop what it made."""
    raw: list[str | Path] = [place.tool("pg_restore"), f"--jobs={jobs}", f"--dbname={INTO}"]
    ours: list[str | Path] = [PGSTEWARD, "restore", TARGET, f"--into={INTO}", f"--jobs={jobs}", "--json"]
    commands: Mapping[str, list[str | Path]] = {
        GUIDE: [
            "bash",
            "-c",
            'set -o pipefail; gunzip -c "$1" | "$0" --quiet --no-psqlrc -v ON_ERROR_STOP=1 "$2"',
            place.tool("psql"),
            sources.guide,
            INTO,
        ],
        RAW: [*raw, sources.dump],
        RAW_LOAD: [*raw, f"--use-list={sources.list_without_matviews}", sources.dump],
        FOLDER: [*ours, "--from=disk"],
        S3: [*ours, "--from=s3"],
        DRILL: [PGSTEWARD, "drill", TARGET, "--from=disk", f"--jobs={jobs}", "--json"],
    }
    if name in (GUIDE, RAW, RAW_LOAD):
        place.admin(f"CREATE DATABASE {INTO} TEMPLATE template0")
    place.admin("CHECKPOINT")
    os.sync()
    busy_before = busy_seconds()
    measured = measure(commands[name], sources.environment)
    busy = round(busy_seconds() - busy_before, 2)
    if name != DRILL:
        place.admin(f"DROP DATABASE {INTO}")
    found: dict[str, Any] = {
        "seconds": measured.seconds,
        "processor_s": busy,
        "own_bytes": measured.own_bytes,
    }
    if name in (FOLDER, S3, DRILL):
        result = json.loads(measured.stdout)
        if result["status"] != "ok" or not result["proof"]["equal"]:
            raise SystemExit(f"not what was to be measured: {measured.stdout.decode()}")
        found |= {"phases": result["phases"], "session_settings": result["session_settings"]}
    return found


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return medians and extremes beside the runs themselves."""
    seconds = [each["seconds"] for each in runs]
    found: dict[str, Any] = {
        "seconds": median(seconds),
        "fastest_s": min(seconds),
        "slowest_s": max(seconds),
        "processor_s": median([each["processor_s"] for each in runs]),
        "own_bytes": max(each["own_bytes"] for each in runs),
        "runs": runs,
    }
    if "phases" in runs[0]:
        found["phases"] = {
            name: median([each["phases"][name] for each in runs]) for name in runs[0]["phases"]
        }
    return found


def gaps(place: Bench, sources: Sources, jobs: int) -> dict[str, float]:
    """Replace the sample and put it back while clients reconnect; return how long none was served."""
    found = {}
    replace = ["restore", TARGET, "--from=disk", "--replace", f"--jobs={jobs}"]
    for name, words in (("swap", replace), ("undo", ["undo-restore", TARGET])):
        with reconnecting(place) as served:
            measure([PGSTEWARD, *words, f"--confirm-database={DATABASE}", "--json"], sources.environment)
        found[name] = round(served.longest_gap_s(), 3)
    return found


@dataclass(slots=True)
class Served:
    """When clients were served, one after the other."""

    at: list[float] = field(default_factory=list)

    def longest_gap_s(self) -> float:
        """Return the longest time between two answers."""
        instants = sorted(self.at)
        return max(later - earlier for earlier, later in pairwise(instants))


@contextmanager
def reconnecting(place: Bench) -> Iterator[Served]:
    """Let clients connect, ask and leave, again and again, as long as the block runs."""
    served, over = Served(), threading.Event()

    def client() -> None:
        while not over.is_set():
            with (
                suppress(psycopg.Error),
                psycopg.connect(place.server.conninfo(DATABASE), password=place.server.password) as session,
            ):
                session.execute("SELECT 1")
                served.at.append(time.monotonic())
            time.sleep(0.01)

    threads = [threading.Thread(target=client, daemon=True) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield served
    finally:
        over.set()
        for thread in threads:
            thread.join()


def markdown(found: Mapping[str, Any]) -> str:
    """Return the tables for the README."""
    variants = found["variants"]
    lines = [
        f"{found['cores']} cores, PostgreSQL {found['postgresql']}, Python {found['python']},"
        f" `--scale {found['scale']:g}`, {found['jobs']} jobs, {found['measured_at'][:10]}.",
        "",
        f"| variant | runs | median s | fastest | slowest | processor s | {' | '.join(PHASES)} |",
        f"|---|{'---:|' * (5 + len(PHASES))}",
    ]
    for name, each in variants.items():
        cells = [f"{each[key]:.2f}" for key in ("seconds", "fastest_s", "slowest_s", "processor_s")]
        spent = each.get("phases", {})
        cells += [f"{spent[phase]:.2f}" if phase in spent else "" for phase in PHASES]
        title = TITLES[name].format(jobs=found["jobs"])
        lines.append(f"| {title} | {len(each['runs'])} | {' | '.join(cells)} |")
    lines += ["", "| ratio of medians | measured | goal: at most | met |", "|---|---:|---:|---|"]
    for goal in GOALS:
        ratio = goal.ours(variants) / goal.yardstick(variants)
        met = "yes" if ratio <= goal.at_most else "**no**"
        lines.append(f"| {goal.name} | {ratio:.3f} | {goal.at_most:.3f} | {met} |")
    for name, gap in found["gaps_s"].items():
        met = "yes" if gap <= GAP_GOAL_S else "**no**"
        lines.append(f"| no client was served during the {name} | {gap:.2f} s | {GAP_GOAL_S:g} s | {met} |")
    peak = max(variants[name]["own_bytes"] for name in (FOLDER, S3, DRILL))
    met = "yes" if peak <= MEMORY_GOAL else "**no**"
    lines.append(f"| peak memory of pgsteward's process | {peak / 2**20:.0f} MiB | 200 MiB | {met} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
