"""``python -m pgsteward.demo.sample --conninfo ... --scale ...``: fill an empty database of your own.

The password comes from PGPASSWORD, .pgpass or a service file, never from the command line.
"""

from __future__ import annotations

import argparse
import os
import sys

from pgsteward.demo.sample import PLANTED, TABLES, seed
from pgsteward.demo.sample.generator import SEED
from pgsteward.errors import StewardError
from pgsteward.postgres import Login


def main(argv: list[str] | None = None) -> int:
    """Return 0 when the sample is there, 1 when it could not be made."""
    parser = argparse.ArgumentParser(prog="python -m pgsteward.demo.sample", description=__doc__)
    parser.add_argument(
        "--conninfo", required=True, help="an empty database; libpq key words or URI, no password"
    )
    parser.add_argument(
        "--scale", type=float, default=0.03, help="1.0 is about 1.25 GB (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=SEED, help="another one gives other rows")
    options = parser.parse_args(argv)

    def tell(what: str, done: int = 0, total: int = 0) -> None:
        print(f"[{done}/{total}] {what}", file=sys.stderr)

    try:
        made = seed(
            Login(options.conninfo, os.environ.get("PGPASSWORD")),
            scale=options.scale,
            seed=options.seed,
            progress=tell,
        )
    except StewardError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    for table in TABLES:
        print(f"{table:<18}{made.rows[table]:>12,} rows")
    print(f"{made.size_bytes / 1e6:,.0f} MB in {made.seconds:.1f} s. Planted for a night to find:")
    print(f"  {PLANTED.expired_share:.0%} of {PLANTED.sessions} expired")
    print(f"  bloated: {', '.join(PLANTED.bloated_indexes)}")
    print(f"  never analyzed: {', '.join(PLANTED.never_analyzed)}; outdated: {PLANTED.outdated_statistics}")
    print(f"  stale: {PLANTED.stale_matview}; never populated: {PLANTED.unpopulated_matview}")
    print(f"  missing: index {PLANTED.missing_index}")
    if not made.pgstattuple:
        print("  (extension pgstattuple is missing: bloat can't be measured)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
