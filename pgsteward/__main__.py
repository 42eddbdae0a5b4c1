"""The console script, and ``python -m pgsteward``: Ctrl-C while it is still being loaded is no traceback."""

from __future__ import annotations

import os
import signal


def main() -> None:
    """Run the command line."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: os._exit(128 + signal.SIGINT))  # nothing has begun
    from pgsteward.cli import main as run

    signal.signal(signal.SIGINT, before)
    run()


if __name__ == "__main__":
    main()
