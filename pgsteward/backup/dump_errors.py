"""What went wrong with a dump, as one sentence: what failed, why, whether it may heal, and what to do."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pgsteward.backup.lock_watch import GivenWay, LockWatch
from pgsteward.errors import LockTimeout, StoreUnavailable, ToolFailed, TransientError
from pgsteward.postgres_settings import advice

log = logging.getLogger(__name__)

LOCK_REFUSED = "could not obtain lock on relation"

_TRANSIENT = re.compile(
    "could not obtain lock|canceling statement due to (lock timeout|statement timeout|conflict with recovery)"
    '|invalid snapshot identifier|snapshot "[^"]*" does not exist|server closed the connection'
    "|terminating connection|connection to server .* failed|the database system is"
    "|too many (clients|connections)|remaining connection slots|SSL SYSCALL"
    "|no connection to the server|could not receive data from server"
)
_DROPPED = re.compile(
    '(?:relation|schema) "[^"]*" does not exist|could not open relation|cache lookup failed'
    "|definition of view .* appears to be empty"
)
_LOGIN = re.compile("connection to server .* failed: .*")
_TIMED_OUT = re.compile("canceling statement due to (?:lock|statement) timeout")
_STATEMENT = re.compile(r"\npg_\w+: detail: (?:Query|Command) was:.*?(?=\npg_\w+: |\Z)", re.DOTALL)
_END = re.compile(r"\w+ (?:ended with status \d+|was ended by \w+): ")
_PREFIX = re.compile(r"^(?:pg_\w+: ?)?(?:(?:error|detail|hint): )?|pg_\w+: (?:(?:error|detail|hint): )?")
"""Workers write it and what follows apart, so that heads of several may stand before one text, or none."""
_WARNING = re.compile(r"pg_\w+: warning: ")
_GUESSES = ("\tThis probably means", "\tbefore or while processing")
_AFTERWARDS = "a worker process died unexpectedly"
_AGAIN = "run the backup again"
_HINTS = (
    ("raise max_connections", _AGAIN),  # said already by whoever could not connect
    (
        "permission denied for large object",
        "a superuser can ALTER ROLE ... SET lo_compat_privileges = on, or GRANT SELECT ON LARGE OBJECT",
    ),
    ("permission denied", "`pgsteward doctor` prints the missing GRANT"),
    ("out of shared memory|max_locks_per_transaction", "raise max_locks_per_transaction"),
    ("No space left|Disk quota exceeded", "free space on the disk of {where}, or name another folder"),
    (
        "invalid memory alloc request size|string buffer|out of memory",
        "a row may be wider than the 1 GB that can be dumped (a bytea takes twice its size), or be damaged:"
        " find it, by its length or by SELECT; exclude_table_data leaves a table's rows out",
    ),
    ("Input/output error|Read-only file system", "look after the disk under {where} (dmesg says more)"),
    (
        "ended by SIGKILL",
        "if nobody killed it, the kernel did for want of memory (dmesg says so): lower jobs, or add memory",
    ),
    ("ended by SIGXFSZ|File too large", "a file met the limit on file sizes: raise it (ulimit -f)"),
    (
        "worker process died unexpectedly",
        "somebody killed it, or the kernel did for want of memory (dmesg says so), or a file met the limit on"
        " file sizes (ulimit -f)",
    ),
    ("terminated by user", f"somebody ended it with a signal; {_AGAIN}"),
    (
        "conflict with recovery",
        "the standby's replay needed it gone: set hot_standby_feedback = on there, or raise"
        " max_standby_streaming_delay (from an archive: max_standby_archive_delay), or dump the primary",
    ),
    (
        'snapshot "[^"]*" does not exist|invalid snapshot|snapshot is gone',
        f"the session that held the snapshot was ended (the server's log says by whom); {_AGAIN}",
    ),
    (
        "does not exist|could not open relation|cache lookup failed|appears to be empty",
        f"it was dropped or renamed while the dump started; {_AGAIN}",
    ),
    (
        "too many (clients|connections)|remaining connection slots",
        f"raise max_connections or the CONNECTION LIMIT, lower jobs, or wait for others to leave; {_AGAIN}",
    ),
    (
        "connection|the database system is|SSL SYSCALL",
        f"the session was ended or cut (the server's log says more); {_AGAIN}",
    ),
)
_NO_HINT = "the server's log may say more"


class Rewritten(TransientError):
    """What the snapshot saw is another thing by now, or gone: the dump would miss rows, or fit nothing."""


class LockRefused(TransientError):
    """A worker of pg_dump could not lock a table, because somebody else had asked for it meanwhile."""


@contextmanager
def as_dump_error(watch: LockWatch, where: Path) -> Iterator[None]:
    """Tell what may heal by itself from what won't, who was in the way, and what to do.

    Args:
        watch: Knows who was in the way.
        where: The archive that is being written.
    """
    try:
        yield
    except (LockRefused, Rewritten, GivenWay, StoreUnavailable):
        raise
    except LockTimeout as exc:
        raise LockTimeout(explained(str(exc), watch, where)) from exc
    except TransientError as exc:
        raise type(exc)(explained(str(exc), watch, where)) from exc
    except ToolFailed as exc:
        text = str(exc)
        log.info("%s", text)  # the error has the gist of it
        if LOCK_REFUSED in text:
            raise LockRefused(f"{gist(text)}; {watch.behind(text)}") from exc
        login = _LOGIN.search(gist(text))
        if login is not None and (fix := advice(login[0])) is not None:
            raise ToolFailed(f"{gist(text)}; {fix}") from exc
        if _DROPPED.search(gist(text)):
            raise Rewritten(explained(text, watch, where)) from exc
        if _TRANSIENT.search(text):
            raise TransientError(explained(text, watch, where)) from exc
        raise ToolFailed(explained(text, watch, where)) from exc


def explained(text: str, watch: LockWatch, where: Path) -> str:
    """Return an error's text in one line, with what is known about its cause, and what to do."""
    short = gist(text)
    if _TIMED_OUT.search(text):
        who = watch.held_up or "nobody who held it was seen"
        return f"{short}; {who}: let it end, or raise lock_wait_timeout_s"
    hint = next((hint for words, hint in _HINTS if re.search(words, short)), _NO_HINT)
    return f"{short}; {hint.format(where=where)}"


def gist(text: str) -> str:
    """Return what a tool said last as one line: without its statements, libpq's guesses and warnings."""
    end = _END.match(text)
    how = end[0] if end is not None else ""
    lines = _STATEMENT.sub("", text[len(how) :]).split("\n")
    if any(": error: " in line for line in lines):
        lines = [line for line in lines if not _WARNING.match(line)]
    lines = [_PREFIX.sub("", line).strip() for line in lines if not line.startswith(_GUESSES)]
    said = list(dict.fromkeys(filter(None, lines)))
    if len(said) > 1:
        said = [line for line in said if line != _AFTERWARDS]
    short = how
    for line in said:
        short += line if short == how else f" {line}" if short.endswith(".") else f"; {line}"
    return short
