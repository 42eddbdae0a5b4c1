"""Start what is missing (Prefect server, pool, deployments, worker) and stay until Ctrl-C.

``python -m deployments.up [--port N]``, the same as ``pgsteward up``.
"""

from __future__ import annotations

import argparse
import sys

from pgsteward.errors import ConfigError, StewardError
from pgsteward.prefect_stack import up


def main(argv: list[str] | None = None) -> int:
    """Run from a shell."""
    parser = argparse.ArgumentParser(prog="python -m deployments.up", description=__doc__)
    parser.add_argument("--port", type=int, help="of a server of our own; 4200 when left out")
    options = parser.parse_args(argv)
    try:
        return up(port=options.port)
    except StewardError as exc:
        print(exc, file=sys.stderr)
        return 2 if isinstance(exc, ConfigError) else 1


if __name__ == "__main__":
    sys.exit(main())
