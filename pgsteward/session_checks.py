"""What is looked at before the first expired row goes: settings, types, rights, who points at the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

from pgsteward import sql
from pgsteward.config import SessionTable
from pgsteward.errors import ConfigError, LockTimeout, PreconditionError, QueryFailed
from pgsteward.postgres import Connection, Part, Row, as_written, compose, identifier, quote_name, raw
from pgsteward.relations import (
    Relation,
    current_role,
    find_table,
    leaves,
    lock_holders,
    name_holders,
)
from pgsteward.session_references import Reference, references_to
from pgsteward.spans import Span

_PER_SECOND: Mapping[str, int] = {"s": 1, "ms": 1000, "us": 1_000_000}
_EPOCH_TYPES = frozenset({"bigint", "integer", "numeric", "double precision"})
_NO_RIGHT = "42501"
_CLOCKS_APART = timedelta(minutes=10)

_BEFORE = raw("OPERATOR(pg_catalog.<)")
"""An application may have a ``<`` of its own for its domain, or for a number and a bigint."""
_EXPIRED: Mapping[str, LiteralString] = {
    "timestamptz": "{expires} {before} %(cutoff)s::timestamptz",
    # Near the cutoff the column is converted, not the cutoff: an hour that clocks repeat counts as the later
    # one. Elsewhere neither is, which is faster, and values at the end of time can't overflow.
    "timestamp": "({expires} {before} (%(cutoff)s::timestamptz AT TIME ZONE %(time_zone)s::text)"
    " - interval '1 day' OR ({expires} {before} (%(cutoff)s::timestamptz AT TIME ZONE %(time_zone)s::text)"
    " + interval '1 day' AND ({expires} AT TIME ZONE %(time_zone)s::text) < %(cutoff)s::timestamptz))",
    # a row lives until its day is over
    "date": "{expires} {before} (%(cutoff)s::timestamptz AT TIME ZONE %(time_zone)s::text)::date",
    "epoch": "{expires} {before} %(cutoff_number)s::int8",
}


@dataclass(frozen=True, slots=True)
class Expiry:
    """How a column says that a row's time is over.

    Attributes:
        column: Its name.
        type_name: As PostgreSQL prints it.
        kind: A key of the predicates: timestamptz, timestamp, date or epoch.
        time_zone: Of a timestamp or a date.
        per_second: Of a number: how many make a second.
    """

    column: str
    type_name: str
    kind: str
    time_zone: str | None = None
    per_second: int = 1

    def predicate(self) -> Part:
        """Return that a row has expired."""
        return compose(_EXPIRED[self.kind], expires=identifier(self.column), before=_BEFORE)

    def params(self, cutoff: datetime) -> dict[str, object]:
        """Return what the predicate needs."""
        micros = (cutoff - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
        return {
            "cutoff": cutoff,
            "cutoff_number": micros * self.per_second // 1_000_000,
            "time_zone": self.time_zone,
        }


@dataclass(frozen=True, slots=True)
class Cleanup:
    """A table of the configuration that can be cleaned.

    Attributes:
        cutoff: Rows that expired before it go.
        leaves: What holds the rows.
        key_columns: Of its primary key; none is needed.
        expiry_index: An index that begins with the expiry; none is needed.
        references: Foreign keys that point at it, or at what those delete from.
        triggers: Names, by leaf, of triggers that a DELETE fires.
        obstacles: Why a leaf can't be cleaned, by its OID.
        locks_rows: OIDs of leaves in which our role may lock rows, and so pass over those of others.
        vetoes: OIDs of leaves with a trigger that may keep a row.
    """

    settings: SessionTable
    table: Relation
    expiry: Expiry
    cutoff: datetime
    leaves: tuple[Relation, ...]
    key_columns: tuple[str, ...] = ()
    expiry_index: str | None = None
    references: tuple[Reference, ...] = ()
    triggers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    obstacles: Mapping[int, str] = field(default_factory=dict)
    locks_rows: frozenset[int] = frozenset()
    vetoes: frozenset[int] = frozenset()

    def expired(self) -> Part:
        """Return the predicate of the rows that go; IS TRUE keeps indexes out of plans that walk a heap."""
        where = self.settings.where
        own = compose("({}) IS TRUE", self.expiry.predicate())
        return own if where is None else compose("{} AND ({}) IS TRUE", own, as_written(where))

    def params(self) -> dict[str, object]:
        """Return what the predicate needs."""
        return self.expiry.params(self.cutoff)

    def as_json(self) -> dict[str, Any]:
        return {
            "table": self.table.qualified,
            "expires": self.expiry.column,
            "type": self.expiry.type_name,
            "cutoff": self.cutoff.isoformat(),
            "leaves": len(self.leaves),
            "key": list(self.key_columns),
            "expiry_index": self.expiry_index,
            "references": [reference.as_json() for reference in self.references],
            "triggers": {leaf: list(names) for leaf, names in self.triggers.items()},
        }


def read_cutoff(connection: Connection, before: datetime | None = None) -> datetime:
    """Return the one instant that a whole run measures against: the server's clock, or an earlier one.

    Raises:
        PreconditionError: `before` lies in the server's future, or the server's clock in ours: rows would be
            deleted that still live.
    """
    now = connection.value("SELECT now()")
    assert isinstance(now, datetime)
    ours = datetime.now(UTC)
    if now - ours > _CLOCKS_APART:
        raise PreconditionError(
            f"the server's clock says {now:%Y-%m-%d %H:%M} UTC, this machine's {ours:%Y-%m-%d %H:%M}: one of"
            " them is wrong, and rows that still live might be deleted; set the clocks"
        )
    if before is not None and before > now:
        raise PreconditionError(
            f"{before.isoformat()} lies in the future (the server has {now.isoformat(timespec='seconds')});"
            " rows that still live would be deleted"
        )
    return before or now


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
        raise ConfigError(f"{settings.table}: it has no column {settings.expires}; correct expires")
    if type_name == "timestamp with time zone":
        if settings.time_zone or settings.unit:
            raise ConfigError(f"{where} is timestamptz, an instant by itself; take time_zone and unit out")
        return Expiry(settings.expires, type_name, "timestamptz")
    if type_name in ("timestamp without time zone", "date"):
        kind = "date" if type_name == "date" else "timestamp"
        if settings.unit:
            raise ConfigError(f"{where} is a {kind}; take unit out")
        if settings.time_zone is None:
            raise ConfigError(
                f"{where} is a {type_name}, whose zone is not known; add time_zone, the zone that the"
                ' application writes it in, e.g. time_zone = "UTC"'
            )
        return Expiry(settings.expires, type_name, kind, time_zone=settings.time_zone)
    if type_name in _EPOCH_TYPES:
        if settings.time_zone:
            raise ConfigError(f"{where} is a number; take time_zone out")
        if settings.unit is None:
            raise ConfigError(
                f"{where} is {type_name}, whose unit is not known;"
                ' add unit = "s" or unit = "ms" or unit = "us" (since 1970 UTC)'
            )
        return Expiry(settings.expires, type_name, "epoch", per_second=_PER_SECOND[settings.unit])
    raise ConfigError(
        f"{where} is {type_name}; an expiry is timestamptz, timestamp or date (with time_zone), or a number"
        " (integer, bigint, numeric, double precision, with unit)"
    )


def check_tables(connection: Connection, configured: Sequence[SessionTable], now: datetime) -> list[Cleanup]:
    """Look at every table before the first row goes; all that is wrong is said at once.

    Args:
        connection: Of the role that deletes.
        configured: What to look at.
        now: From `read_cutoff`; a table's `grace` is counted back from it.

    Raises:
        ConfigError: Something does not exist, or does not fit.
        PreconditionError: Foreign keys do nothing in this role's sessions.
    """
    if connection.value("SHOW session_replication_role") == "replica":
        raise PreconditionError(
            "session_replication_role is replica for this role or database: a DELETE would leave rows that"
            " refer to what is gone; ALTER ROLE (or ALTER DATABASE) ... RESET session_replication_role"
        )
    found: list[Cleanup] = []
    wrong: list[str] = []
    for settings in configured:
        try:
            found.append(_check_table(connection, settings, now))
        except ConfigError as exc:
            wrong.append(str(exc))
    if wrong:
        raise ConfigError("\n".join(wrong))
    return found


def _check_table(connection: Connection, settings: SessionTable, now: datetime) -> Cleanup:
    table = find_table(connection, settings.table)
    about = {"oid": table.oid, "column": settings.expires}
    column = connection.maybe_row(sql.load("expiry_column"), about)
    expiry = choose_expiry(settings, column["type_name"] if column else None)
    if expiry.time_zone is not None:
        _check_zone(connection, settings)
    locked = None if settings.where is None else _check_condition(connection, table, settings.where)
    parts = tuple(leaves(connection, table))
    rights = {leaf.oid: connection.row(sql.load("delete_rights"), {"oid": leaf.oid}) for leaf in parts}
    role = quote_name(current_role(connection))
    above = _why_not_leaf_by_leaf(table, connection.row(sql.load("delete_rights"), {"oid": table.oid}))
    why = {
        leaf.oid: _why_not(role, leaf, rights[leaf.oid])
        or (above if leaf.oid != table.oid else None)
        or locked
        or _refusal(connection, leaf)
        for leaf in parts
    }
    facts = connection.row(sql.load("expiring_table"), about)
    return Cleanup(
        settings,
        table,
        expiry,
        cutoff=Span.parse(settings.grace).before(now) if settings.grace else now,
        leaves=parts,
        key_columns=tuple(facts["key_columns"]),
        expiry_index=facts["expiry_index"],
        references=references_to(connection, {each.oid: each for each in (table, *parts)}.values()),
        triggers={leaf.qualified: names for leaf in parts if (names := rights[leaf.oid]["triggers"])},
        obstacles={oid: reason for oid, reason in why.items() if reason is not None},
        locks_rows=frozenset(oid for oid, row in rights.items() if row["may_update"]),
        vetoes=frozenset(oid for oid, row in rights.items() if row["has_veto"]),
    )


def _check_zone(connection: Connection, settings: SessionTable) -> None:
    try:
        connection.value("SELECT now() AT TIME ZONE %(zone)s::text", {"zone": settings.time_zone})
    except QueryFailed as exc:
        raise ConfigError(
            f"{settings.table}: the server does not know the time zone {settings.time_zone!r}"
        ) from exc


def _check_condition(connection: Connection, table: Relation, where: str) -> str | None:
    """Refuse what is not one condition: it must be one both with parentheses around it and without.

    So it can neither close ours nor go on after it. No row is read.

    Returns:
        Why that could not be found out, or None.
    """
    source = identifier(table.schema, table.name)
    for form in (as_written(where), compose("({})", as_written(where))):
        try:
            connection.rows(
                compose("SELECT FROM ONLY {} AS looked_at WHERE {} LIMIT %(none)s::int8", source, form),
                {"none": 0},
            )
        except LockTimeout:
            return f"it stays locked by {name_holders(lock_holders(connection, table.oid))}"
        except QueryFailed as exc:
            if exc.sqlstate == _NO_RIGHT:
                return None  # said with all other rights
            raise ConfigError(
                f"{table.qualified}: where = {where!r} is not a condition: {exc}; write what stands after"
                " WHERE, columns without the table's name"
            ) from exc
    return None


def _why_not(role: str, leaf: Relation, rights: Row) -> str | None:
    """Return why a leaf can't be cleaned by our role, with what would help, or None."""
    if leaf.kind != "r":
        return "it is a foreign table; clean it on the server that holds it"
    if rights["access_method"] != "heap":
        return f"its access method is {rights['access_method']}; only heap tables can be walked in ranges"
    if rights["rules"]:
        return f"its rule {rights['rules'][0]!r} makes something else of a DELETE; drop it, or clean by hand"
    if not rights["may_use_schema"]:
        return f"no right to enter its schema: GRANT USAGE ON SCHEMA {quote_name(leaf.schema)} TO {role}"
    if not (rights["may_select"] and rights["may_delete"]):
        return f"missing rights: GRANT SELECT, DELETE ON TABLE {leaf.qualified} TO {role}"
    if rights["rows_hidden"]:
        return f"row-level security hides rows from {role}; give it BYPASSRLS, or use the owner"
    return None


def _why_not_leaf_by_leaf(table: Relation, rights: Row) -> str | None:
    """Return what would be passed by where a table's leaves are cleaned in its place, or None."""
    way_out = "; drop it, clean by hand, or name the partitions under [[sessions]] if they can do without it"
    if rights["rules"]:
        return (
            f"the rule {rights['rules'][0]!r} of {table.qualified} makes something else of a DELETE{way_out}"
        )
    if rights["statement_triggers"]:
        return (
            f"the trigger {rights['statement_triggers'][0]!r} of {table.qualified} is for statements, and"
            f" would not fire where its partitions are cleaned one by one{way_out}"
        )
    return None


def _refusal(connection: Connection, leaf: Relation) -> str | None:
    """Return what the server has against any DELETE from a leaf, e.g. a publication; no row is looked at."""
    table = identifier(leaf.schema, leaf.name)
    try:
        with connection.rehearsal():
            connection.execute("SET LOCAL lock_timeout = '100ms'")
            connection.rows(compose("EXPLAIN DELETE FROM ONLY {} WHERE false", table))
            return None
    except LockTimeout:
        return None  # the walk waits for it, and says who holds it
    except QueryFailed as exc:
        return f"the server refuses any DELETE: {exc}"
