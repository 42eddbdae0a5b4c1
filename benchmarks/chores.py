"""Session cleanup beside one DELETE, and beside a writer, on the sample's million sessions.

    make bench BENCH=chores
    make bench BENCH=chores ARGS="--scale 0.1 --repeat 1"

Each run has its own copy of the same seeded database, read once before it. The DELETE is the bare statement,
in an open session; what is compared with it is the walk, with its commits and pauses. The whole call has its
checks, its estimate of the share, its sessions and its lock besides. The writer is pgbench, two clients that
refresh live sessions as fast as they can: once alone, once while sessions are cleaned; only what ended during
the cleanup counts there. Writes `benchmarks/chores.json` and its tables in `benchmarks/README.md`; with
`--output` only the file named.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, LiteralString

from rich.console import Console

from benchmarks.measuring import Bench, bench, machine, median, replace_in_readme, rotated, timed
from pgsteward import postgres
from pgsteward.config import Config
from pgsteward.demo import sample
from pgsteward.postgres import Connection
from pgsteward.sessions import clean_sessions
from pgsteward.targets import Target
from pgsteward.vacuum import vacuum_tables

OUTPUT = Path(__file__).with_name("chores.json")
MARK = "chores.json"
RATIO_GOAL, BATCH_GOAL_MS, LATENCY_GOAL = 1.2, 300.0, 2.0
TITLES: Mapping[str, str] = {
    "uuid": "the sample as it is: uuid key",
    "snapshot": "the same, an old snapshot held",
    "bigint": "bigint key",
    "no key": "no key and no index",
}
_BIGINT: LiteralString = (
    "ALTER TABLE sessions DROP CONSTRAINT sessions_pkey,"
    " ADD number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY"
)
_REFRESH = """\
\\set n random(1, :live)
UPDATE sessions SET expires = now() + interval '1 day' WHERE id = (SELECT id FROM live WHERE n = :n);
"""
_ALONE_S = 5
_LEAD_S = 2


def main() -> int:
    """Measure, write the figures and print them beside the goals."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--scale", type=float, default=1.0, help="of the sample (default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=3, help="rounds (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="figures go here, and the README stays as it is")
    parser.add_argument("--folder", type=Path, help="for the server (default: TMPDIR)")
    options = parser.parse_args()
    console = Console(stderr=True)
    found: dict[str, Any] = {"scale": options.scale, **machine()}
    with bench({"shared_buffers": "1GB"}, options.folder) as place:
        found["postgresql"] = place.server.version
        found["seed_s"] = timed(lambda: make_templates(place, options.scale))
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in TITLES}
        for number in range(options.repeat):
            for name in rotated(list(TITLES), number):
                runs[name].append(compare(place, name))
                console.print(f"round {number + 1}: {name:<10}{runs[name][-1]}")
        found["variants"] = {name: summed_up(each) for name, each in runs.items()}
        found["writer"] = beside_a_writer(place, options.repeat, console)
    if options.output:
        options.output.write_text(json.dumps(found, indent=1) + "\n")
    else:
        OUTPUT.write_text(json.dumps(found, indent=1) + "\n")
        replace_in_readme(MARK, markdown(found))
    console.print(markdown(found))
    return 0


def make_templates(place: Bench, scale: float) -> None:
    """Seed the sample, keep what sessions need, and make the variants of it."""
    place.admin("CREATE DATABASE uuid")
    sample.seed(place.server.login("uuid"), scale=scale)
    with open_database(place, "uuid") as connection:
        connection.execute("DROP TABLE job_applications CASCADE")
        connection.execute(
            "CREATE TABLE live AS SELECT row_number() OVER () AS n, id FROM sessions WHERE expires > now()"
        )
        connection.execute("CREATE UNIQUE INDEX ON live (n)")
        connection.execute("VACUUM ANALYZE")
    for name, change in (("bigint", _BIGINT), ("no key", None)):
        place.admin(f'CREATE DATABASE "{name}" TEMPLATE uuid')
        with open_database(place, name) as connection:
            if change is None:
                connection.execute("CREATE TABLE bare AS TABLE sessions")
                connection.execute("DROP TABLE sessions CASCADE")
                connection.execute("ALTER TABLE bare RENAME TO sessions")
            else:
                connection.execute(change)
            connection.execute("VACUUM (FULL, ANALYZE) sessions")


@contextmanager
def open_database(place: Bench, name: str) -> Iterator[Connection]:
    with postgres.connect(place.server.login(name), purpose="bench") as connection:
        yield connection


@contextmanager
def copy_of(place: Bench, template: str) -> Iterator[Connection]:
    """Make a fresh copy of a template, written out and read once; it is gone at the end."""
    place.admin(f'CREATE DATABASE run TEMPLATE "{template}" STRATEGY file_copy')
    try:
        with open_database(place, "run") as connection:
            connection.execute("CHECKPOINT")
            connection.value("SELECT count(*) FROM sessions WHERE expires < now()")
            connection.value("SELECT sum(hashtext(s::text)) FROM sessions AS s")
            yield connection
    finally:
        place.admin("DROP DATABASE run WITH (FORCE)")


def target_of(place: Bench) -> Target:
    secret = place.folder / "secret"
    secret.write_text(place.server.password)
    config = Config.model_validate(
        {
            "stores": {"disk": {"url": place.store.as_uri()}},
            "targets": {
                "app": {
                    "conninfo": place.server.conninfo("run"),
                    "password": {"file": str(secret)},
                    "stores": ["disk"],
                    "sessions": [{"table": "sessions", "expires": "expires"}],
                }
            },
        }
    )
    return Target("app", config.target("app"), config)


def compare(place: Bench, name: str) -> dict[str, Any]:
    """Return one DELETE and one cleanup of the same rows, each on its own copy."""
    template = "uuid" if name == "snapshot" else name
    with copy_of(place, template) as connection, old_snapshot(place, held=name == "snapshot"):
        began = time.monotonic()
        rows = connection.execute("DELETE FROM sessions WHERE expires < now()")
        single_s = time.monotonic() - began
    with copy_of(place, template), old_snapshot(place, held=name == "snapshot"):
        target = target_of(place)
        began = time.monotonic()
        cleaned = clean_sessions(target).as_json()
        call_s = time.monotonic() - began
        if (cleaned["status"], cleaned["rows"]) != ("ok", rows):
            raise SystemExit(f"{name}: {cleaned['summary']}, and one DELETE found {rows} rows")
        vacuum_s = timed(lambda: vacuum_tables(target, ["sessions"]))
    (item,) = cleaned["changed"]
    return {
        "rows": rows,
        "single_s": round(single_s, 3),
        "walk_s": item["seconds"],
        "call_s": round(call_s, 3),
        "batches": item["batches"],
        "longest_batch_ms": item["longest_batch_ms"],
        "vacuum_s": vacuum_s,
    }


@contextmanager
def old_snapshot(place: Bench, *, held: bool) -> Iterator[None]:
    if not held:
        yield
        return
    with postgres.connect(place.server.login("run"), purpose="old snapshot", autocommit=False) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.value("SELECT 1")
        yield


def summed_up(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    single, walk, call = (median([each[key] for each in runs]) for key in ("single_s", "walk_s", "call_s"))
    return {
        "single_s": single,
        "walk_s": walk,
        "call_s": call,
        "ratio": round(walk / single, 2),
        "longest_batch_ms": max(each["longest_batch_ms"] for each in runs),
        "runs": list(runs),
    }


def beside_a_writer(place: Bench, rounds: int, console: Console) -> dict[str, Any]:
    """Return latencies of refreshing live sessions, alone and during a cleanup, and whether one was lost."""
    alone: list[float] = []
    beside: list[float] = []
    lost, spans = 0, []
    for number in range(rounds):
        with copy_of(place, "uuid") as connection, ThreadPoolExecutor(1) as writer:
            live = connection.value("SELECT count(*) FROM live")
            alone += [ms for ms, _ in pgbench(place, live, _ALONE_S)]
            busy = writer.submit(pgbench, place, live, _ALONE_S + _LEAD_S)
            time.sleep(_LEAD_S)
            began = time.time()
            cleaned = clean_sessions(target_of(place))
            ended = time.time()
            if cleaned.status != "ok":
                raise SystemExit(cleaned.summary)
            beside += [ms for ms, at in busy.result() if began <= at <= ended]
            spans.append(round(ended - began, 2))
            lost += connection.value(
                "SELECT count(*) FROM live WHERE NOT EXISTS (SELECT FROM sessions WHERE id = live.id)"
            )
        console.print(f"writer, round {number + 1}: cleaned in {spans[-1]} s")
    return {
        "alone": percentiles(alone),
        "beside": percentiles(beside),
        "ratio_p99": round(percentiles(beside)["p99_ms"] / percentiles(alone)["p99_ms"], 2),
        "cleanup_s": spans,
        "lost_live_sessions": lost,
    }


def pgbench(place: Bench, live: int, seconds: int) -> list[tuple[float, float]]:
    """Return latency in ms and the moment of its end for each transaction."""
    script, prefix = place.folder / "refresh.sql", place.folder / "latency"
    script.write_text(_REFRESH)
    subprocess.run(
        [
            *(
                place.tool("pgbench"),
                "--no-vacuum",
                "--client=2",
                f"--time={seconds}",
                f"--define=live={live}",
            ),
            *(f"--file={script}", "--log", f"--log-prefix={prefix}", "run"),
        ],
        env=place.env,
        check=True,
        capture_output=True,
    )
    found = []
    for log in place.folder.glob("latency.*"):
        for line in log.read_text().splitlines():
            fields = line.split()
            found.append((int(fields[2]) / 1000, int(fields[4]) + int(fields[5]) / 1e6))
        log.unlink()
    return found


def percentiles(latencies: Sequence[float]) -> dict[str, Any]:
    ordered = sorted(latencies)
    return {
        "transactions": len(ordered),
        "median_ms": round(ordered[len(ordered) // 2], 2),
        "p99_ms": round(ordered[len(ordered) * 99 // 100], 2),
        "longest_ms": round(ordered[-1], 1),
    }


def markdown(found: Mapping[str, Any]) -> str:
    """Return the tables of the README."""
    lines = [
        f"{found['cores']} cores, PostgreSQL {found['postgresql']}, Python {found['python']},"
        f" `--scale {found['scale']:g}`, {found['measured_at'][:10]}.",
        "",
        "| table | runs | rows | one `DELETE`, median s | the walk, median s | ratio | goal: at most | met |"
        " longest batch ms | met (300) | whole call s | VACUUM s |",
        "|---|---:|---:|---:|---:|---:|---:|---|---:|---|---:|---:|",
    ]
    for name, each in found["variants"].items():
        lines.append(
            f"| {TITLES[name]} | {len(each['runs'])} | {each['runs'][0]['rows']:,} | {each['single_s']:.2f}"
            f" | {each['walk_s']:.2f} | {each['ratio']:.2f} | {RATIO_GOAL}"
            f" | {verdict(each['ratio'] <= RATIO_GOAL)}"
            f" | {each['longest_batch_ms']:.0f} | {verdict(each['longest_batch_ms'] <= BATCH_GOAL_MS)}"
            f" | {each['call_s']:.2f} | {median([run['vacuum_s'] for run in each['runs']]):.1f} |"
        )
    writer = found["writer"]
    lines += [
        "",
        "| writer that refreshes live sessions | transactions | median ms | p99 ms | longest ms |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, title in (("alone", "alone"), ("beside", "during the cleanup")):
        each = writer[name]
        lines.append(
            f"| {title} | {each['transactions']:,} | {each['median_ms']} | {each['p99_ms']}"
            f" | {each['longest_ms']} |"
        )
    met = verdict(writer["ratio_p99"] <= LATENCY_GOAL)
    lines += [
        "",
        f"p99 during the cleanup / alone: {writer['ratio_p99']} (goal: at most {LATENCY_GOAL:g}, {met});"
        f" live sessions lost: {writer['lost_live_sessions']}.",
    ]
    return "\n".join(lines)


def verdict(met: bool) -> str:
    return "yes" if met else "**no**"


if __name__ == "__main__":
    sys.exit(main())
