"""The console script, and ``python -m pgsteward``: Ctrl-C while it is still being loaded is no traceback."""

from __future__ import annotations

import atexit
import gc
import os
import signal


def main() -> None:
    """Run the command line."""
    _quicken()
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: os._exit(128 + signal.SIGINT))  # nothing has begun
    from pgsteward.cli import main as run

    signal.signal(signal.SIGINT, before)
    run()


def _quicken() -> None:
    """Spare a process that lives for one command the search for garbage among what it has imported.

    That took a third of the start and nearly all of the end. A backup has imported 90,000 objects before it
    begins; garbage is still looked for, less often.
    """
    gc.set_threshold(150_000, 20, 100)
    atexit.register(gc.freeze)


if __name__ == "__main__":
    main()
