"""One large backup streamed into S3 on loopback: what pgsteward's own process holds of it in memory.

    make bench BENCH=stream      # 10 GB through the process; 25 GB of disk

The rows are not compressed, so that every byte of them passes through the process: read from pg_dump, hashed,
sent to `rclone serve s3` in parts, and read back. Writes `benchmarks/stream.json` and its table in
`benchmarks/README.md`; with `--output` only the file named.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.backup import MEMORY_GOAL
from benchmarks.measuring import PGSTEWARD, bench, machine, measure, replace_in_readme, timed
from pgsteward import postgres
from pgsteward.children import Children
from pgsteward.demo.s3 import LocalS3

OUTPUT = Path(__file__).with_name("stream.json")
MARK = "stream.json"
DATABASE = "streamed"
ROW_BYTES = 1_000
"""Of a line of the dump, which is below what PostgreSQL would compress by itself."""
SETTINGS = {"shared_buffers": "512MB", "fsync": "off", "max_wal_size": "2GB"}
FILL = (
    "CREATE UNLOGGED TABLE filled AS SELECT g AS id, repeat(md5(g::text), 31) AS filler"
    " FROM generate_series(1, {rows}) AS g"
)


def main() -> int:
    """Measure one backup, write the figures and print them beside the goal."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--gigabytes", type=float, default=10.0, help="of the dump (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="figures go here, and the README stays as it is")
    parser.add_argument("--folder", type=Path, help="for the server and the dump (default: TMPDIR)")
    options = parser.parse_args()
    console = Console(stderr=True)
    found: dict[str, Any] = machine()
    with bench(SETTINGS, options.folder) as place, Children() as children:
        s3 = LocalS3(place.folder / "s3", children).start()
        found["postgresql"] = place.server.version
        place.admin(f"CREATE DATABASE {DATABASE}")
        with postgres.connect(place.server.login(DATABASE), purpose="bench") as connection:
            fill = FILL.format(rows=round(options.gigabytes * 1e9 / ROW_BYTES))
            console.print(f"filled in {timed(lambda: connection.execute(fill))} s")
        backup = {"mode": "stream", "compress": "none", "proof": "counts"}
        place.configure(
            {"large": (DATABASE, backup)},
            {"large": ["s3"]},
            f'[stores.s3]\nurl = "s3://{s3.bucket}"\nendpoint_url = "{s3.endpoint_url}"\n'
            f'region = "{s3.region}"\naccess_key_id = {{ env = "BENCH_KEY" }}\n'
            'secret_access_key = { env = "BENCH_SECRET" }',
        )
        environment = {**place.env, "BENCH_KEY": s3.access_key_id, "BENCH_SECRET": s3.secret_access_key}
        measured = measure([PGSTEWARD, "backup", "large", "--json"], environment)
        result = json.loads(measured.stdout)
        if result["status"] != "ok":
            raise SystemExit(f"not what was to be measured: {measured.stdout.decode()}")
        [archive] = (s3.root / s3.bucket).rglob("archive.dump")
        found |= {
            "streamed_bytes": archive.stat().st_size,
            "seconds": measured.seconds,
            "own_bytes": measured.own_bytes,
            "children_bytes": sum(measured.children_bytes.values()),
        }
    Console().print(text := markdown(found), markup=False)
    (options.output or OUTPUT).write_text(json.dumps(found, indent=1) + "\n")
    if not options.output:
        replace_in_readme(MARK, text)
    return 0


def markdown(found: dict[str, Any]) -> str:
    """Return the table for the README."""
    low = "yes" if found["own_bytes"] <= MEMORY_GOAL else "**no**"
    own, programs = (f"{found[key] / 2**20:.0f}" for key in ("own_bytes", "children_bytes"))
    return "\n".join(
        [
            f"{found['cores']} cores, PostgreSQL {found['postgresql']}, Python {found['python']},"
            f" {found['measured_at'][:10]}.",
            "",
            "| streamed GB | runs | seconds | own peak MiB | its programs MiB | goal: own at most | met |",
            "|---:|---:|---:|---:|---:|---:|---|",
            f"| {found['streamed_bytes'] / 1e9:.2f} | 1 | {found['seconds']:.1f} | {own} | {programs}"
            f" | 200 MiB | {low} |",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
