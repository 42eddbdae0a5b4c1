"""Standard streams that are closed, full, or read by nobody: no operation ends badly because of one."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TextIO

_MODES = {0: os.O_RDONLY, 1: os.O_WRONLY, 2: os.O_WRONLY}


def steady() -> None:
    """Make the standard streams usable, whatever we were started with; call it before anything is opened.

    The number of a closed one would go to the next file or socket that is opened, and what libpq or a tool
    says on standard error would end up in there.
    """
    for number, mode in _MODES.items():
        try:
            os.fstat(number)
        except OSError:
            _discard(number, mode)
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115 - as long as we live
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    atexit.register(_let_go)


@contextlib.contextmanager
def printing() -> Iterator[None]:
    """Print a result: who stops reading it has enough, and what can't be written is said.

    Raises:
        SystemExit: It can't be written; nobody who waits for it may take that for success.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        _silence(sys.stdout)
    except OSError as exc:
        _silence(sys.stdout)
        with contextlib.suppress(OSError):
            sys.stderr.write(f"Error: the result can't be printed: {exc.strerror}\n")
            sys.stderr.flush()
        raise SystemExit(1) from None


def _let_go() -> None:
    """Write what is left; Python would end with status 120 where that is impossible."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            _silence(stream)


def _silence(stream: TextIO) -> None:
    with contextlib.suppress(OSError, ValueError):
        _discard(stream.fileno(), os.O_WRONLY)


def _discard(number: int, mode: int) -> None:
    nowhere = os.open(os.devnull, mode)
    if nowhere != number:
        os.dup2(nowhere, number)
        os.close(nowhere)
    os.set_inheritable(number, True)
