"""What can go wrong, as one tree.

::

    StewardError
    |- ConfigError            a person must change a setting (exit 2)
    |- PreconditionError      refused before anything was changed
    |  `- NoGo                of a restore; keeps everything that was looked at
    |- TransientError         may heal by itself; the only class that is ever retried
    |  |- DatabaseUnavailable the server can't be reached, is starting or shutting down, is full
    |  |- LockTimeout         somebody else holds the lock
    |  `- StoreUnavailable    the object store can't be reached, throttles or answers 5xx
    |- QueryFailed            PostgreSQL said no; `sqlstate` keeps why
    |- ToolFailed             pg_dump and friends ended with a non-zero status
    |- StoreFailed            the store said no (rights, missing bucket)
    |  `- ObjectArchived      an object lies in an archive and can't be read now
    |- VerificationFailed     the artefact is not what was written
    |  `- DamagedBackup       stored bytes of a backup were read, and they are other ones
    |- StateFailed            the history could not be read or written; never fails an operation
    `- PartialFailure         some items failed; `report` holds the result

Errors are pickled by Prefect: arguments go to `super().__init__` positionally.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class StewardError(Exception):
    """Base of every error that pgsteward raises on purpose. Its text is what an operator reads."""


class ConfigError(StewardError):
    """A setting is missing, unknown or wrong; the text names the file, the key and what to write instead."""


class PreconditionError(StewardError):
    """Refused before anything was changed; the text says what to do about it."""


class NoGo(PreconditionError):
    """A restore can't start.

    Attributes:
        checks: Everything that was looked at, as JSON has it.
    """

    def __init__(self, message: str, checks: Sequence[Mapping[str, str]] = ()) -> None:
        super().__init__(message, checks)
        self.checks = checks

    def __str__(self) -> str:
        return str(self.args[0])


class TransientError(StewardError):
    """May heal by itself. Nothing else is retried."""


class DatabaseUnavailable(TransientError):
    """The server can't be reached, is starting up or shutting down, or has no room for another session."""


class LockTimeout(TransientError):
    """Somebody else held a lock for longer than we wait."""


class StoreUnavailable(TransientError):
    """The object store can't be reached, throttles, or answers with a server error."""


class QueryFailed(StewardError):
    """PostgreSQL refused a statement.

    Attributes:
        sqlstate: The five-character SQLSTATE, or None when the driver had none.
    """

    def __init__(self, message: str, sqlstate: str | None = None) -> None:
        super().__init__(message, sqlstate)
        self.sqlstate = sqlstate

    def __str__(self) -> str:
        return f"{self.args[0]} (SQLSTATE {self.sqlstate})" if self.sqlstate else str(self.args[0])


class ToolFailed(StewardError):
    """A PostgreSQL client tool or a server that we started ended badly; the text holds its last words."""


class StoreFailed(StewardError):
    """The object store refused; retrying would get the same answer."""


class ObjectArchived(StoreFailed):
    """An object lies in an archive, by a lifecycle rule most likely: it is there, and can't be read now."""


class VerificationFailed(StewardError):
    """A stored or restored thing differs from what the manifest says; the text names which."""


class DamagedBackup(VerificationFailed):
    """Stored bytes of a backup are not what was written, or are missing; never a network failure."""


class StateFailed(StewardError):
    """The history of runs could not be read or written. No backup depends on it, no operation fails by it."""


class PartialFailure(StewardError):
    """Some items failed while others were done.

    Attributes:
        report: The result, or the results, with every item in it.
    """

    def __init__(self, message: str, report: Any = None) -> None:
        super().__init__(message, report)
        self.report = report

    def __str__(self) -> str:
        return str(self.args[0])
