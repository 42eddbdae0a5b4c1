"""What the command line prints: results on standard output, progress and logs on standard error.

On a terminal in colour and tables; into a file or a pipe as the plain text of the report, which cuts no name.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from pgsteward.cli_streams import printing
from pgsteward.results import NightResult, StepResult

if TYPE_CHECKING:
    from pgsteward.cli_terminal import Bar

_PATIENCE_S = 1.0
_FORCING = ("FORCE_COLOR", "TTY_COMPATIBLE")


def print_json(data: Mapping[str, Any]) -> None:
    """Print one object; what has no place in JSON is printed as its text."""
    text = json.dumps(data, indent=2, default=str, ensure_ascii=False) + "\n"
    try:
        text.encode(sys.stdout.encoding)
    except UnicodeEncodeError:  # of another locale, or a name that is no text
        text = json.dumps(data, indent=2, default=str) + "\n"
    print_text(text)


def print_text(text: str) -> None:
    """Print a text on standard output, as it is."""
    with printing():
        sys.stdout.write(text)


def print_result(result: StepResult | NightResult, *, as_json: bool) -> None:
    """Print a result."""
    if as_json:
        print_json(result.as_json())
        return
    from pgsteward.report import plain
    from pgsteward.report.page import night_page, step_page

    page = night_page(result) if isinstance(result, NightResult) else step_page(result)
    if sys.stdout.isatty():
        from pgsteward.cli_terminal import print_page

        with printing():
            print_page(page)
    else:
        print_text(plain.render(page))


def print_error(message: str) -> None:
    """Print why a command failed."""
    if has_terminal():
        from pgsteward import cli_terminal

        with contextlib.suppress(OSError):
            cli_terminal.print_error(message)
    else:
        print_line(f"Error: {message}")


def print_line(text: str) -> None:
    """Print a line on standard error, as it is; the terminal may be gone."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def has_terminal() -> bool:
    """Tell whether standard error is a terminal, or should be taken for one."""
    if not sys.stderr.isatty() and not any(name in os.environ for name in _FORCING):
        return False
    from pgsteward.cli_terminal import stderr

    return stderr.is_terminal


def set_up_logging(verbose: int) -> None:
    """Send the logs of pgsteward to standard error: warnings on a terminal, everything of note in a file.

    Args:
        verbose: 1 for information on a terminal as well, 2 for debugging.
    """
    handler: logging.Handler
    if has_terminal():
        from pgsteward.cli_terminal import log_handler

        handler, level = log_handler(), logging.WARNING
    else:
        handler = logging.StreamHandler()
        formatter = logging.Formatter("%(asctime)sZ %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
        formatter.converter = time.gmtime
        handler.setFormatter(formatter)
        level = logging.INFO
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("pgsteward").setLevel({0: level, 1: logging.INFO}.get(verbose, logging.DEBUG))


class TerminalProgress:
    """Shows on a terminal what is being done, once that takes longer than a second."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._bar: Bar | None = None
        self._state = (what, 0, 0)
        self._lock = threading.Lock()
        self._timer = threading.Timer(_PATIENCE_S, self._show)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        if has_terminal():
            self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        with self._lock:
            self._state = ("", 0, 0)
            if self._bar is not None:
                with contextlib.suppress(OSError):  # the terminal is gone
                    self._bar.stop()

    def __call__(self, what: str, done: int = 0, total: int = 0) -> None:
        """Take note of a state; see `pgsteward.progress.Progress`."""
        with self._lock:
            self._state = (what or self._what, done, total)
            if self._bar is not None:
                self._bar.update(*self._state)

    def _show(self) -> None:
        from pgsteward.cli_terminal import Bar

        with self._lock:
            if self._state[0]:
                self._bar = Bar()
                self._bar.update(*self._state)
