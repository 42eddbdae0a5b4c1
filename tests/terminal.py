"""A real terminal (a pty) for a command, and what it shows."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from collections.abc import Mapping, Sequence


def run_on_a_terminal(
    argv: Sequence[str], *, columns: int = 100, env: Mapping[str, str] | None = None, progress: bool = True
) -> tuple[int, str]:
    """Run a command on a terminal and return its exit status and what that showed, without colours.

    Args:
        argv: The command.
        columns: How wide the terminal is.
        env: Its environment; ours by default.
        progress: Show its standard error as well.
    """
    ours, theirs = pty.openpty()
    env = {**(os.environ if env is None else env), "COLUMNS": str(columns), "TERM": "xterm-256color"}
    stderr = theirs if progress else subprocess.DEVNULL
    with subprocess.Popen(argv, stdout=theirs, stderr=stderr, env=env) as child:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            shown += part
    os.close(ours)
    return child.returncode, re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())
