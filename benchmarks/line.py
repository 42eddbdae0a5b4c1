"""The download of one large object over a line that is slow per connection, beside `rclone copy`.

    make bench BENCH=line        # an object of 400 MB, 40 MB/s per connection, three rounds

S3 sends 85 to 90 MB/s over one connection; here a relay before `rclone serve s3` on loopback lets each have
less. rclone runs with its own settings: it then remembers an object's hash, which it needs for each answer.
Writes `benchmarks/line.json` and its table in `benchmarks/README.md`; with `--output` only the file named.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.measuring import clear, machine, measure, median, replace_in_readme
from benchmarks.stores import as_remote
from pgsteward.children import Children
from pgsteward.config import Secret, StoreConfig
from pgsteward.demo.s3 import LocalS3, find_rclone
from pgsteward.storage.s3 import S3Store

OUTPUT = Path(__file__).with_name("line.json")
MARK = "line.json"
GOAL = 1.25
_LEAD_S = 0.02
"""How much a connection may be ahead of its speed."""


def main() -> int:
    """Measure both, write the figures and print them beside the goal."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--megabytes", type=int, default=400, help="of the object (default: %(default)s)")
    parser.add_argument("--per-second", type=float, default=40.0, help="MB, of one connection (%(default)s)")
    parser.add_argument("--repeat", type=int, default=3, help="rounds (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="figures go here, and the README stays as it is")
    options = parser.parse_args()
    found: dict[str, Any] = {
        **machine(),
        "bytes": options.megabytes * 1_000_000,
        "mb_per_s": options.per_second,
    }
    runs: dict[str, list[float]] = {"rclone": [], "read": []}
    with tempfile.TemporaryDirectory(prefix="pgsteward-bench-") as name, Children() as children:
        s3 = LocalS3(Path(name) / "s3", children, remembers_s=300).start()
        digest = hashlib.sha256()
        with (s3.root / s3.bucket / "large").open("wb") as file:
            for _ in range(options.megabytes):
                file.write(data := os.urandom(1_000_000))
                digest.update(data)
        with relay(s3.endpoint_url, options.per_second * 1e6) as url:
            for _ in range(options.repeat):
                runs["rclone"].append(_copied(s3, url, Path(name) / "copied"))
                runs["read"].append(_read(s3, url, digest.hexdigest()))
    found["seconds"] = {name: median(each) for name, each in runs.items()}
    found["runs"] = runs
    Console().print(text := markdown(found), markup=False)
    (options.output or OUTPUT).write_text(json.dumps(found, indent=1) + "\n")
    if not options.output:
        replace_in_readme(MARK, text)
    return 0


def _copied(s3: LocalS3, url: str, target: Path) -> float:
    words = [find_rclone(), "copy", f"it:{s3.bucket}/large", target]
    measured = measure(words, {**as_remote(s3), "RCLONE_CONFIG_IT_ENDPOINT": url})
    clear(target)
    return measured.seconds


def _read(s3: LocalS3, url: str, sha256: str) -> float:
    os.environ.update(BENCH_KEY=s3.access_key_id, BENCH_SECRET=s3.secret_access_key)
    store = S3Store(
        "bench",
        StoreConfig(
            url=f"s3://{s3.bucket}",
            endpoint_url=url,
            region=s3.region,
            access_key_id=Secret(env="BENCH_KEY"),
            secret_access_key=Secret(env="BENCH_SECRET"),
        ),
    )
    began = time.monotonic()
    digest = hashlib.sha256()
    for chunk in store.read("large"):
        digest.update(chunk)
    if digest.hexdigest() != sha256:
        raise SystemExit("what was read is not what is there")
    return round(time.monotonic() - began, 3)


@contextmanager
def relay(url: str, bytes_per_s: float) -> Iterator[str]:
    """Hand on connections to an endpoint, each answer at so many bytes per second."""
    host, _, port = url.rpartition("/")[2].partition(":")

    def pump(source: socket.socket, sink: socket.socket, limit: float | None) -> None:
        free_at = time.monotonic()
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if limit is not None:
                    now = time.monotonic()
                    free_at = max(now - _LEAD_S, free_at) + len(data) / limit
                    time.sleep(max(0.0, free_at - now))
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def accept(server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client = server.accept()[0]
                there = socket.create_connection((host, int(port)))
                for args in ((client, there, None), (there, client, bytes_per_s)):
                    threading.Thread(target=pump, args=args, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, args=(server,), daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def markdown(found: dict[str, Any]) -> str:
    """Return the table for the README."""
    seconds = found["seconds"]
    ratio = seconds["read"] / seconds["rclone"]
    return "\n".join(
        [
            f"{found['bytes'] / 1e6:.0f} MB at {found['mb_per_s']:g} MB/s per connection,"
            f" {found['cores']} cores, Python {found['python']}, {found['measured_at'][:10]}.",
            "",
            "| variant | runs | median s |",
            "|---|---:|---:|",
            f"| `rclone copy` | {len(found['runs']['rclone'])} | {seconds['rclone']:.2f} |",
            f"| pgsteward reads and hashes it | {len(found['runs']['read'])} | {seconds['read']:.2f} |",
            "",
            f"Ratio {ratio:.3f} (goal: at most {GOAL}, {'yes' if ratio <= GOAL else '**no**'}).",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
