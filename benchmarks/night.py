"""The night on the 1.25 GB sample, step by step, beside the guide's own scripts on the same machine.

    make bench                     # scale 1.0: about 5 GB of disk and a quarter of an hour
    make bench ARGS="--scale 0.1"

Each side gets a copy of the same seeded database on the same server, one after the other. The guide's side is
what its cron jobs run: ``pg_dump | gzip``, one DELETE, one ANALYZE of everything, ``gunzip | psql``. Writes
``benchmarks/night.json`` and prints a table. Wall times of one run; nothing here is a test.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pgsteward import postgres
from pgsteward.children import Children
from pgsteward.config import Config
from pgsteward.demo.s3 import LocalS3
from pgsteward.demo.sample import seed
from pgsteward.demo.server import EmbeddedPostgres
from pgsteward.night import NIGHT, run_nightly
from pgsteward.restore.run import restore
from pgsteward.targets import Target

OUTPUT = Path(__file__).with_name("night.json")
PASSWORD_ENV = "PGSTEWARD_BENCH_PASSWORD"


def main() -> int:
    """Run both sides and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="pgsteward-bench-") as name, Children() as children:
        folder = Path(name)
        folder.chmod(0o755)
        server = EmbeddedPostgres(folder / "postgres", children, settings={"shared_buffers": "512MB"}).start()
        s3 = LocalS3(folder / "s3", children).start()
        os.environ.update(
            {
                PASSWORD_ENV: server.password,
                "BENCH_S3_KEY": s3.access_key_id,
                "BENCH_S3_SECRET": s3.secret_access_key,
                "XDG_STATE_HOME": str(folder / "state"),
            }
        )
        with postgres.connect(server.login("postgres"), purpose="bench") as admin:
            admin.execute("CREATE DATABASE intowork")
        console.print(f"seeding the sample at scale {arguments.scale} ...")
        seconds, _ = timed(lambda: seed(server.login("intowork"), scale=arguments.scale))
        with postgres.connect(server.login("postgres"), purpose="bench") as admin:
            bytes_seeded = admin.value("SELECT pg_database_size('intowork')")
            admin.execute("CREATE DATABASE guide TEMPLATE intowork")
            admin.execute("CHECKPOINT")
        figures: dict[str, Any] = {
            "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": {"cores": os.cpu_count(), "python": platform.python_version()},
            "postgresql": server.version,
            "scale": arguments.scale,
            "database_bytes": bytes_seeded,
            "seed_s": round(seconds, 1),
        }
        console.print("the guide's scripts ...")
        figures["guide"] = guide(server, folder)
        console.print("pgsteward's night ...")
        figures["pgsteward"] = steward(server, s3, folder)
    arguments.output.write_text(json.dumps(figures, indent=1) + "\n")
    show(figures)
    return 0


def guide(server: EmbeddedPostgres, folder: Path) -> dict[str, Any]:
    """Run what the guide's cron jobs and its restore script run."""
    env = {**os.environ, **server.env()}
    psql, pg_dump = str(server.bin_dir / "psql"), str(server.bin_dir / "pg_dump")
    file = folder / "guide.sql.gz"

    def shell(*parts: str) -> Callable[[], Any]:
        return lambda: subprocess.run(["bash", "-c", *parts], env=env, check=True, stdout=subprocess.DEVNULL)

    found: dict[str, Any] = {}
    found["backup_s"], _ = timed(shell('"$0" guide | gzip > "$1"', pg_dump, str(file)))
    found["backup_bytes"] = file.stat().st_size
    found["sessions_s"], _ = timed(
        shell('"$0" -q guide -c "DELETE FROM sessions WHERE expires < NOW();"', psql)
    )
    found["analyze_s"], _ = timed(shell('"$0" -q guide -c "ANALYZE;"', psql))
    found["matviews_s"], _ = timed(
        shell('"$0" -q guide -c "REFRESH MATERIALIZED VIEW CONCURRENTLY job_stats_summary;"', psql)
    )
    subprocess.run([psql, "-q", "postgres", "-c", "CREATE DATABASE guide_restored"], env=env, check=True)
    found["restore_s"], _ = timed(
        shell('gunzip -c "$1" | "$0" -q guide_restored 2>/dev/null', psql, str(file))
    )
    file.unlink()
    return found


def steward(server: EmbeddedPostgres, s3: LocalS3, folder: Path) -> dict[str, Any]:
    """Run the same night that a worker runs, then a restore from S3 that is compared."""
    config = Config.model_validate(
        {
            "state_url": f"sqlite:///{folder / 'state.db'}",
            "stores": {
                "disk": {"url": f"file://{folder / 'store'}"},
                "s3": {
                    "url": f"s3://{s3.bucket}/night",
                    "endpoint_url": s3.endpoint_url,
                    "region": s3.region,
                    "access_key_id": {"env": "BENCH_S3_KEY"},
                    "secret_access_key": {"env": "BENCH_S3_SECRET"},
                },
            },
            "targets": {
                "app": {
                    "conninfo": server.conninfo("intowork"),
                    "password": {"env": PASSWORD_ENV},
                    "stores": ["disk", "s3"],
                    "client_dirs": [str(server.bin_dir)],
                    "sessions": [{"table": "public.sessions", "expires": "expires"}],
                    "index_bloat": {"min_reclaimable": "1MB"},
                }
            },
        }
    )
    target = Target("app", config.target("app"), config)
    night = run_nightly(target)
    found: dict[str, Any] = {f"{step.step}_s": round(step.seconds, 2) for step in night.steps}
    found["status"] = {step.step: step.status for step in night.steps}
    found["summary"] = {step.step: step.summary for step in night.steps}
    found["backup_bytes"] = night.step("backup").details.get("bytes")
    found["night_s"] = round(night.seconds, 2)
    result = restore(target, "latest", store="s3", into="intowork_restored")
    found["restore_s"] = round(result.seconds, 2)
    found["restore_status"] = result.status
    found["restore_phases"] = result.details["phases"]
    found["restore_proof"] = result.details["proof"]
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found["peak_memory_own_process_bytes"] = usage * 1024
    return found


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return wall seconds and what `work` returned."""
    started = time.monotonic()
    value = work()
    return round(time.monotonic() - started, 2), value


def show(figures: dict[str, Any]) -> None:
    """Print both sides as a table."""
    table = Table(
        title=f"One night, {figures['database_bytes'] / 1e9:.2f} GB, {figures['machine']['cores']} cores"
    )
    for column in ("step", "guide (s)", "pgsteward (s)", "ratio", "what pgsteward did"):
        table.add_column(column, justify="right" if "s)" in column or column == "ratio" else "left")
    old, new = figures["guide"], figures["pgsteward"]
    for name in [*(step.name for step in NIGHT), "restore"]:
        theirs, ours = old.get(f"{name}_s"), new.get(f"{name}_s")
        ratio = f"{ours / theirs:.2f}" if theirs and ours is not None else "-"
        table.add_row(
            name,
            f"{theirs:.1f}" if theirs is not None else "-",
            f"{ours:.1f}" if ours is not None else "-",
            ratio,
            new["summary"].get(name, ""),
        )
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
