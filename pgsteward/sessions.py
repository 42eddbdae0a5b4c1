"""Session cleanup: rows whose time is over are deleted, in small steps that nobody notices.

The heap is walked in ranges of its pages (TID ranges), leaf by leaf, each range a transaction of its own:
as fast as one DELETE, whatever the key, with or without an index, and not slowed down by old snapshots. The
expiry is part of the DELETE itself, so a row that is refreshed at the same moment survives.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import LiteralString

from pgsteward import results, sql
from pgsteward.config import SessionTable
from pgsteward.errors import ConfigError, DatabaseUnavailable, LockTimeout, QueryFailed, StewardError
from pgsteward.ledger import Ledger
from pgsteward.postgres import (
    Connection,
    Statement,
    compose,
    connect,
    identifier,
    operation_lock,
    quote_name,
)
from pgsteward.progress import Progress, silent
from pgsteward.relations import (
    Relation,
    current_role,
    find_table,
    leaves,
    lock_holders,
    name_holders,
)
from pgsteward.results import StepResult
from pgsteward.targets import Target

log = logging.getLogger(__name__)

STEP = "sessions"
_LOCK_TIMEOUT_S = 0.5
_BATCH_TIMEOUT_S = 300.0
_TRIES = 3
_PAUSE_S = 0.3
_GIVE_UP_AFTER = 5
"""Blocked batches in a row after which the rest of a table is left for the next night."""

_UNITS: Mapping[str, int] = {"s": 1, "ms": 1000}
_EPOCH_TYPES = frozenset({"bigint", "integer"})

_EXPIRED: Mapping[str, LiteralString] = {
    "timestamptz": "{expires} < %(cutoff)s::timestamptz",
    # the column is converted, not the cutoff: an hour that clocks repeat counts as the later one
    "timestamp": "({expires} AT TIME ZONE %(time_zone)s::text) < %(cutoff)s::timestamptz",
    "epoch": "{expires} < floor(extract(epoch FROM %(cutoff)s::timestamptz) * %(per_second)s::int8)::int8",
}
_DELETE: LiteralString = (
    "DELETE FROM ONLY {leaf} WHERE ctid >= %(first)s::tid AND ctid < %(end)s::tid AND ({expired}) IS TRUE"
)
"""IS TRUE keeps an index on the expiry out of the plan: it would be read again for every range."""
_COUNT: LiteralString = (
    "SELECT count(*) FROM ONLY {leaf}"
    " WHERE ctid >= %(first)s::tid AND ctid < %(end)s::tid AND ({expired}) IS TRUE"
)


@dataclass(frozen=True, slots=True)
class Expiry:
    """How a column says that a row's time is over.

    Attributes:
        column: Its name.
        kind: A key of the predicates: timestamptz, timestamp or epoch.
        params: What the predicate needs besides the cutoff.
    """

    column: str
    kind: str
    params: Mapping[str, object] = field(default_factory=dict)


@dataclass(slots=True)
class _Walk:
    """One leaf on its way to be clean."""

    connection: Connection
    leaf: Relation
    expiry: Expiry
    cutoff: datetime
    batch_pages: int
    dry_run: bool
    progress: Progress
    rows: int = 0
    batches: int = 0
    longest_s: float = 0.0
    pages: int = 0
    blocked: list[tuple[int, int]] = field(default_factory=list)
    blocked_by: str = ""


def clean_sessions(target: Target, *, dry_run: bool = False, progress: Progress = silent) -> StepResult:
    """Delete the expired rows of the tables that the configuration names.

    A row is expired when its expiry lies before the server's clock at the start of the run; NULL and
    infinity never expire. Rows that somebody has locked are left for the next night, and named.

    Args:
        target: Whose ``[[sessions]]``.
        dry_run: Count what would be deleted, on the same way through the same tables.
        progress: Told about pages.

    Raises:
        ConfigError: A table or column is missing, or its type needs another setting; nothing was changed.
        PreconditionError: Another cleanup works on this database.
    """
    if not target.settings.sessions:
        return results.skipped(STEP, target.name, "no [[sessions]] table is configured for this target")
    login = target.login("maintenance")
    ledger = Ledger(STEP, target.name, dry_run)
    with (
        operation_lock(login, STEP),
        connect(
            login,
            purpose="session cleanup",
            lock_timeout_s=_LOCK_TIMEOUT_S,
            statement_timeout_s=_BATCH_TIMEOUT_S,
        ) as connection,
    ):
        cutoff = read_cutoff(connection)
        for settings, table, expiry in _check_tables(connection, target.settings.sessions):
            parts = leaves(connection, table)
            if not parts:
                ledger.doubt(table.qualified, "it has no partition, so there is nothing to look at")
            for leaf in parts:
                problem = _why_not(connection, leaf)
                if problem:
                    ledger.fail(leaf.qualified, problem)
                else:
                    walk = _Walk(connection, leaf, expiry, cutoff, settings.batch_pages, dry_run, progress)
                    _clean_leaf(walk, ledger)
    rows = sum(item.facts["rows"] for item in ledger.changed)
    return ledger.result(_summary(rows, ledger), {"rows": rows, "cutoff": cutoff.isoformat()})


def read_cutoff(connection: Connection) -> datetime:
    """Return the server's clock: the one instant that a whole run measures against."""
    found = connection.value("SELECT now()")
    assert isinstance(found, datetime)
    return found


def page_ranges(pages: int, batch_pages: int) -> Iterator[tuple[int, int]]:
    """Return the ranges of pages to walk, first included, end excluded; together they are all pages.

    Raises:
        ValueError: `batch_pages` is not positive.
    """
    if batch_pages < 1:
        raise ValueError("batch_pages must be at least 1")
    for first in range(0, pages, batch_pages):
        yield first, min(first + batch_pages, pages)


def choose_expiry(settings: SessionTable, type_name: str | None) -> Expiry:
    """Return how to read the expiry of a table, from the configuration and the column's type.

    Args:
        settings: The entry of the configuration.
        type_name: The column's type as PostgreSQL prints it; None when there is no such column.

    Raises:
        ConfigError: The column is missing, or its type needs another setting; the text says which.
    """
    where = f"{settings.table}: the column {settings.expires!r}"
    if type_name is None:
        raise ConfigError(f"{where} does not exist; correct expires")
    if type_name == "timestamp with time zone":
        if settings.time_zone or settings.unit:
            raise ConfigError(f"{where} is timestamptz, an instant by itself; take time_zone and unit out")
        return Expiry(settings.expires, "timestamptz")
    if type_name == "timestamp without time zone":
        if settings.unit:
            raise ConfigError(f"{where} is a timestamp; take unit out")
        if settings.time_zone is None:
            raise ConfigError(
                f"{where} is a timestamp without time zone; add time_zone, the zone that the application"
                ' writes it in, e.g. time_zone = "UTC"'
            )
        return Expiry(settings.expires, "timestamp", {"time_zone": settings.time_zone})
    if type_name in _EPOCH_TYPES:
        if settings.time_zone:
            raise ConfigError(f"{where} is a number of seconds or milliseconds; take time_zone out")
        if settings.unit is None:
            raise ConfigError(f'{where} is {type_name}; add unit = "s" or unit = "ms" (since 1970 UTC)')
        return Expiry(settings.expires, "epoch", {"per_second": _UNITS[settings.unit]})
    raise ConfigError(
        f"{where} is {type_name}; an expiry is timestamptz, timestamp (with time_zone) or integer (with unit)"
    )


def _check_tables(
    connection: Connection, configured: tuple[SessionTable, ...]
) -> list[tuple[SessionTable, Relation, Expiry]]:
    """Look at every table before the first row goes; all that is wrong is said at once."""
    found: list[tuple[SessionTable, Relation, Expiry]] = []
    wrong: list[str] = []
    for settings in configured:
        try:
            table = find_table(connection, settings.table)
            column = connection.maybe_row(
                sql.load("expiry_column"), {"oid": table.oid, "column": settings.expires}
            )
            expiry = choose_expiry(settings, column["type_name"] if column else None)
            if "time_zone" in expiry.params:
                _check_zone(connection, settings)
            found.append((settings, table, expiry))
        except ConfigError as exc:
            wrong.append(str(exc))
    if wrong:
        raise ConfigError("\n".join(wrong))
    return found


def _check_zone(connection: Connection, settings: SessionTable) -> None:
    try:
        connection.value("SELECT now() AT TIME ZONE %(zone)s::text", {"zone": settings.time_zone})
    except QueryFailed as exc:
        raise ConfigError(
            f"{settings.table}: the server does not know the time zone {settings.time_zone!r}"
        ) from exc


def _why_not(connection: Connection, leaf: Relation) -> str | None:
    """Return why a leaf can't be cleaned by our role, with what would help, or None."""
    if leaf.kind != "r":
        return "it is a foreign table; clean it on the server that holds it"
    rights = connection.row(sql.load("delete_rights"), {"oid": leaf.oid})
    role = quote_name(current_role(connection))
    if not rights["may_use_schema"]:
        return f"no right to enter its schema: GRANT USAGE ON SCHEMA {quote_name(leaf.schema)} TO {role}"
    if not (rights["may_select"] and rights["may_delete"]):
        return f"missing rights: GRANT SELECT, DELETE ON TABLE {leaf.qualified} TO {role}"
    if rights["rows_hidden"]:
        return f"row-level security hides rows from {role}; give it BYPASSRLS, or use the owner"
    return None


def _clean_leaf(walk: _Walk, ledger: Ledger) -> None:
    """Walk one leaf and write down what came of it; an error ends this leaf, not the others."""
    started = time.monotonic()
    name = walk.leaf.qualified
    try:
        _delete_expired(walk)
        ledger.examined += 1
    except StewardError as exc:
        if walk.connection.closed:
            raise
        ledger.fail(name, f"stopped after {walk.rows} rows: {exc}")
    if walk.blocked:
        pages = sum(end - first for first, end in walk.blocked)
        ledger.fail(
            name,
            f"{pages} of {walk.pages} pages were left as they are, for rows in them stayed locked (with locks"
            f" on the table: {walk.blocked_by or 'nobody that could be named'}); the next run takes them up",
        )
    if walk.rows:
        ledger.change(
            name,
            "would delete" if walk.dry_run else "deleted",
            rows=walk.rows,
            batches=walk.batches,
            longest_batch_ms=round(walk.longest_s * 1000, 1),
            seconds=round(time.monotonic() - started, 3),
            table_bytes=walk.connection.value(
                "SELECT pg_table_size(%(oid)s::int8::oid)", {"oid": walk.leaf.oid}
            ),
        )
    log.info("%s: %d expired rows in %d batches", name, walk.rows, walk.batches)


def _delete_expired(walk: _Walk) -> None:
    size = walk.connection.value(
        "SELECT pg_relation_size(%(oid)s::int8::oid) / current_setting('block_size')::int8",
        {"oid": walk.leaf.oid},
    )
    walk.pages = int(size or 0)
    statement = compose(
        _COUNT if walk.dry_run else _DELETE,
        leaf=identifier(walk.leaf.schema, walk.leaf.name),
        expired=compose(_EXPIRED[walk.expiry.kind], expires=identifier(walk.expiry.column)),
    )
    blocked_in_a_row = 0
    for first, end in page_ranges(walk.pages, walk.batch_pages):
        walk.progress(f"sessions in {walk.leaf.qualified}", first, walk.pages)
        if blocked_in_a_row == _GIVE_UP_AFTER:
            walk.blocked.append((first, walk.pages))
            break
        started = time.monotonic()
        rows = _run_batch(walk, statement, first, end)
        if rows is None:
            walk.blocked.append((first, end))
            blocked_in_a_row += 1
            continue
        blocked_in_a_row = 0
        walk.rows += rows
        walk.batches += 1
        walk.longest_s = max(walk.longest_s, time.monotonic() - started)
    walk.progress(f"sessions in {walk.leaf.qualified}", walk.pages, walk.pages)


def _run_batch(walk: _Walk, statement: Statement, first: int, end: int) -> int | None:
    """Return how many rows of a range were expired, or None when somebody kept them locked."""
    params = {**walk.expiry.params, "cutoff": walk.cutoff, "first": f"({first},0)", "end": f"({end},0)"}
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(_PAUSE_S)
        try:
            if walk.dry_run:
                return int(walk.connection.value(statement, params))
            return walk.connection.execute(statement, params)
        except LockTimeout:
            walk.blocked_by = name_holders(lock_holders(walk.connection, walk.leaf.oid))
        except DatabaseUnavailable:  # a deadlock is one of these too, and leaves the session alive
            if walk.connection.closed:
                raise
    return None


def _summary(rows: int, ledger: Ledger) -> str:
    tables = f"{ledger.examined} {'table' if ledger.examined == 1 else 'tables'}"
    if ledger.dry_run:
        sentence = f"{rows:,} expired rows would be deleted from {tables}"
    elif rows:
        sentence = (
            f"{rows:,} expired rows deleted from {tables}; VACUUM makes their space reusable inside the"
            " table, only a rewrite (pg_repack, VACUUM FULL) returns it to the disk"
        )
    else:
        sentence = f"no expired row in {tables}"
    return sentence + (f"; not everything could be cleaned ({len(ledger.failed)})" if ledger.failed else "")
