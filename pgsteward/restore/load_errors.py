"""What stopped pg_restore, as one sentence: what failed, why, whether it may heal, and what to do.

A session that was lost says nothing about the backup, however many objects fail after it: libpq's own words,
which are English whatever the server's language, tell it apart.
"""

from __future__ import annotations

import re

from pgsteward.errors import DatabaseUnavailable, StewardError, ToolFailed
from pgsteward.restore.verdict import Finding, Verdict

_LOST = re.compile(
    "no connection to the server|server closed the connection|could not receive data from server"
    "|could not send data to server|SSL SYSCALL|reconnection failed|connection to server .* failed"
)
_OURS = re.compile(
    r"could not execute query: (?:no connection to the server|server closed the connection"
    r"|could not (?:receive|send) data|SSL SYSCALL)"
    r"|^(?!(?:[a-z ]+: )?server closed)(?:(?!DETAIL: ).)*server closed the connection unexpectedly",
    re.DOTALL,
)
"""The same where a query may have asked another server, whose connection may be the one that was lost."""
_END = re.compile(r"\w+ (?:ended with status \d+|was ended by \w+)")
_GUESS = re.compile(
    r";? *This probably means the server terminated abnormally;? *before or while .*? request\.?"
)
_WORDS = re.compile(r"^pg_restore: (?:error: (?P<error>.+)|(?P<signal>terminated by user))$", re.MULTILINE)
_HINTS = (
    (
        "No space left|Disk quota exceeded",
        "make room on the server's disk, where the database's tablespace is",
    ),
    ("max_locks_per_transaction|out of shared memory", "raise max_locks_per_transaction there"),
    (
        "ended by SIGKILL",
        "if nobody killed it, the kernel did for want of memory (dmesg says so): lower jobs, or add memory",
    ),
    (
        "worker process died unexpectedly",
        "somebody killed it, or the kernel did for want of memory (dmesg says so)",
    ),
    ("terminated by user", "somebody ended it with a signal: restore again"),
)


def advice(reason: str) -> str:
    """Return what to do about what is lacking, as a clause of its own; "" where that is not known."""
    return next((f"; {hint}" for words, hint in _HINTS if re.search(words, reason)), "")


def session_lost(verdict: Verdict) -> DatabaseUnavailable | None:
    """Return the error for a load whose sessions were ended or cut; None where it failed otherwise."""
    lost = [each for each in verdict.fatal if _LOST.search(each.reason)]
    lost += [each for each in verdict.degraded if _OURS.search(each.reason)]
    if not lost:
        return None
    return DatabaseUnavailable(f"pg_restore lost its session: {_first(verdict.fatal or tuple(lost))}")


def as_error(exc: ToolFailed, verdict: Verdict) -> StewardError:
    """Return the error for a pg_restore that did not come to its end.

    Args:
        exc: Holds all of its last words.
        verdict: On what was heard of it.
    """
    text = str(exc)
    ended = _END.match(text)
    how = ended[0] if ended else text.partition("\n")[0]
    said = [match["error"] or match["signal"] for match in _WORDS.finditer(text)]
    words = _first(verdict.fatal) if verdict.fatal else _GUESS.sub("", "; ".join(said[-2:]))
    whole = f"{how}: {words}" if words else how
    if _LOST.search(whole):
        return DatabaseUnavailable(whole)
    return ToolFailed(whole + advice(whole))


def _first(findings: tuple[Finding, ...]) -> str:
    """Return what failed first, without libpq's guesses."""
    first = findings[0]
    return _GUESS.sub("", first.reason if first.entry is None else str(first))
