"""Uploads and downloads beside the same work with a folder, and beside rclone, in one run.

    make bench BENCH=stores                                    # scale 1.0 (1.26 GB), three rounds

A backup into a folder, into a folder and S3 on loopback (`rclone serve s3`), and into S3 alone; what a script
does to have the same files there, read back; then the download of an uncompressed backup of about 1 GB, as a
restore does it and as `rclone copy` does. Whole commands, but for the download, which is that of a restore
without the rest: it also hashes every byte. The endpoint shares the cores with everything else. Writes
`benchmarks/stores.json` and its table in `benchmarks/README.md`; with `--output` only the file named.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.backup import DATABASE, MEMORY_GOAL, prepare
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
)
from pgsteward.children import Children
from pgsteward.config import load
from pgsteward.demo.s3 import LocalS3, find_rclone
from pgsteward.restore import fetch
from pgsteward.restore.found import find_backup
from pgsteward.targets import Target

OUTPUT = Path(__file__).with_name("stores.json")
MARK = "stores.json"
STORES = {"folder": ["disk"], "both": ["disk", "s3"], "s3": ["s3"], "large": ["s3"]}
BACKUPS = ("folder", "both", "s3")
TITLES = {
    "folder": "backup into a folder",
    "both": "backup into a folder and S3, read back",
    "s3": "backup into S3 alone, read back",
    "by-hand": "`pg_dump -Fd -j2`, `rclone copy`, `rclone check --download`",
    "rclone": "`rclone copy` of {gigabytes:.2f} GB from S3",
    "fetch": "the same bytes fetched and hashed by `restore`",
}
GOALS = (("both", "folder", 1.25), ("both", "by-hand", 1.0), ("fetch", "rclone", 1.25))


def main() -> int:
    """Measure every variant, write the figures and print them beside the goals."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--scale", type=float, default=1.0, help="1.0 is 1.26 GB (default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=3, help="rounds (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="figures go here, and the README stays as it is")
    parser.add_argument("--folder", type=Path, help="for the server and the dumps (default: TMPDIR)")
    options = parser.parse_args()
    console = Console(stderr=True)
    found: dict[str, Any] = {"scale": options.scale, **machine()}
    with bench({"shared_buffers": "512MB"}, options.folder) as place, Children() as children:
        s3 = LocalS3(place.folder / "s3", children).start()
        found["postgresql"] = place.server.version
        prepare(place, options.scale, console)
        _configure(place, s3)
        environment = {**place.env, "BENCH_KEY": s3.access_key_id, "BENCH_SECRET": s3.secret_access_key}
        _backup("large", environment)  # also tries the store out, which happens once
        found["download_bytes"] = size_of(s3.root / s3.bucket / "large")
        runs: dict[str, list[float]] = {name: [] for name in TITLES}
        peaks = []
        for number in range(options.repeat):
            for name in rotated(BACKUPS, number):
                seconds, peak = _backup(name, environment)
                runs[name].append(seconds)
                peaks.append(peak)
                clear(place.store)
                clear(s3.root / s3.bucket / name)
            runs["by-hand"].append(_by_hand(place, s3))
            runs["rclone"].append(_copied(place, s3))
            runs["fetch"].append(_fetched(place, environment))
            console.print(f"round {number + 1}: {', '.join(f'{k} {v[-1]:.2f} s' for k, v in runs.items())}")
    found["variants"] = {
        name: {"seconds": median(each), "fastest_s": min(each), "slowest_s": max(each), "runs": each}
        for name, each in runs.items()
    }
    found["own_bytes"] = max(peaks)
    Console().print(text := markdown(found), markup=False)
    (options.output or OUTPUT).write_text(json.dumps(found, indent=1) + "\n")
    if not options.output:
        replace_in_readme(MARK, text)
    return 0


def _configure(place: Bench, s3: LocalS3) -> None:
    settings = {"jobs": 2, "proof": "counts"}
    targets = dict.fromkeys(BACKUPS, (DATABASE, settings))
    place.configure(
        {**targets, "large": (DATABASE, {**settings, "compress": "none"})},
        STORES,
        f'[stores.s3]\nurl = "s3://{s3.bucket}"\nendpoint_url = "{s3.endpoint_url}"\nregion = "{s3.region}"\n'
        'access_key_id = { env = "BENCH_KEY" }\nsecret_access_key = { env = "BENCH_SECRET" }',
    )


def _backup(name: str, environment: dict[str, str]) -> tuple[float, int]:
    """Back up into the stores of a target; return seconds, and the highest memory of the process itself."""
    measured = measure([PGSTEWARD, "backup", name, "--json"], environment)
    result = json.loads(measured.stdout)
    if result["status"] != "ok" or sorted(result["stores"]) != sorted(STORES[name]):
        raise SystemExit(f"not what was to be measured: {measured.stdout.decode()}")
    return measured.seconds, measured.own_bytes


def _by_hand(place: Bench, s3: LocalS3) -> float:
    """Dump, copy and compare, one after the other, as a script has to; without proof or manifest."""
    dump, remote = place.folder / "by-hand", f"it:{s3.bucket}/by-hand"
    script = (
        '"$0" --format=directory --jobs=2 --compress=zstd:1 --file="$2" "$3"'
        ' && "$1" copy "$2" "$4" && "$1" check --download "$2" "$4"'
    )
    words = ["bash", "-c", script, place.tool("pg_dump"), find_rclone(), dump, DATABASE, remote]
    measured = measure(words, {**place.env, **as_remote(s3)})
    clear(dump)
    clear(s3.root / s3.bucket / "by-hand")
    return measured.seconds


def _copied(place: Bench, s3: LocalS3) -> float:
    target = place.folder / "copied"
    measured = measure([find_rclone(), "copy", f"it:{s3.bucket}/large", target], as_remote(s3))
    clear(target)
    return measured.seconds


def as_remote(s3: LocalS3) -> dict[str, str]:
    """Return what makes rclone know the endpoint as ``it:``."""
    return {
        "RCLONE_CONFIG": "/dev/null",
        "RCLONE_CONFIG_IT_TYPE": "s3",
        "RCLONE_CONFIG_IT_PROVIDER": "Rclone",
        "RCLONE_CONFIG_IT_ENDPOINT": s3.endpoint_url,
        "RCLONE_CONFIG_IT_ACCESS_KEY_ID": s3.access_key_id,
        "RCLONE_CONFIG_IT_SECRET_ACCESS_KEY": s3.secret_access_key,
    }


def _fetched(place: Bench, environment: dict[str, str]) -> float:
    """Return how long a restore's download takes alone; in a restore, the load goes on beside it."""
    os.environ.update(environment)
    config = load(place.folder / "pgsteward.toml")
    found = find_backup(Target("large", config.target("large"), config), "latest")
    into = place.folder / "fetched"
    began = time.monotonic()
    fetch.fetch(found.store, found.prefix_in("large"), found.manifest, found.manifest.files, into)
    seconds = time.monotonic() - began
    clear(into)
    return round(seconds, 3)


def markdown(found: dict[str, Any]) -> str:
    """Return the tables for the README."""
    variants = found["variants"]
    gigabytes = found["download_bytes"] / 1e9
    lines = [
        f"{found['cores']} cores, PostgreSQL {found['postgresql']}, Python {found['python']},"
        f" `--scale {found['scale']:g}`, {found['measured_at'][:10]}.",
        "",
        "| variant | runs | median s | fastest | slowest |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, each in variants.items():
        cells = (f"{each[key]:.2f}" for key in ("seconds", "fastest_s", "slowest_s"))
        title = TITLES[name].format(gigabytes=gigabytes)
        lines.append(f"| {title} | {len(each['runs'])} | {' | '.join(cells)} |")
    lines += ["", "| ratio of medians | measured | goal: at most | met |", "|---|---:|---:|---|"]
    for ours, yardstick, at_most in GOALS:
        ratio = variants[ours]["seconds"] / variants[yardstick]["seconds"]
        met = "yes" if ratio <= at_most else "**no**"
        lines.append(f"| {TITLES[ours]} / {yardstick} | {ratio:.3f} | {at_most} | {met} |")
    low = "yes" if found["own_bytes"] <= MEMORY_GOAL else "**no**"
    lines.append(
        f"| peak memory of pgsteward's process | {found['own_bytes'] / 2**20:.0f} MiB | 200 MiB | {low} |"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
