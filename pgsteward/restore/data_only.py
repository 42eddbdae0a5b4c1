"""Rows alone, into tables that are there and empty: all of them in one transaction, compared before its end.

`docs/adr/0009-restore-of-a-part.md` says why it is so. pg_restore only reads the archive; the session that
writes is our own, so that what is not equal is rolled back.
"""

from __future__ import annotations

import contextlib
import graphlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import LiteralString

from pgsteward import sql
from pgsteward.backup import archive
from pgsteward.backup.manifest import Proof
from pgsteward.backup.proof import SETTINGS, list_relations, take_proof_of
from pgsteward.backup.proof_compare import compare
from pgsteward.errors import PreconditionError, QueryFailed, VerificationFailed
from pgsteward.postgres import (
    Composed,
    Connection,
    Part,
    Row,
    compose,
    connect,
    identifier,
    join,
    quote_name,
    raw,
)
from pgsteward.restore.checks import Check
from pgsteward.restore.event_triggers import with_their_path
from pgsteward.restore.outcome import STEP, Comparison, Order, Ready
from pgsteward.restore.parts import as_listed
from pgsteward.restore.rows import read_rows
from pgsteward.restore.toc import Key
from pgsteward.results import Note

_MODES = {"": raw(""), "ALWAYS": raw("ALWAYS"), "REPLICA": raw("REPLICA")}
_SHOWN = 5
_BROKEN = "23"
"""Class of the SQLSTATEs of constraints that rows break."""
_SET: LiteralString = "SELECT pg_catalog.setval(%(name)s::regclass, %(value)s, %(called)s)"
_IS_FURTHER: LiteralString = (
    "SELECT coalesce(sign(s.seqincrement) * (pg_sequence_last_value(s.seqrelid) - %(value)s::int8)"
    "             >= %(called)s::bool::int, false)"
    "  FROM pg_catalog.pg_sequence AS s WHERE s.seqrelid = %(name)s::regclass"
)
"""NULL where it was not used yet."""


def examine(order: Order) -> Check:
    """Look whether the tables are there, empty, and can be filled."""
    with _connect(order) as inside:
        try:
            tables = _tables(order, inside)
            _refuse_policies(inside, tables)
            _refuse_rows(inside, tables)
            _in_order(tables, _obstacles(order, inside, tables))
        except PreconditionError as exc:
            return Check("tables", "no-go", str(exc))
    return Check("tables", "go", f"all {len(tables)} are there and empty")


def fill(order: Order, ready: Ready) -> tuple[Comparison, list[Note]]:
    """Load the rows, compare them, and only then commit.

    Returns:
        The comparison, and what is to be told: event triggers that were off meanwhile, and the sequences that
        stay where they are; set back, they would give others' values once more.

    Raises:
        PreconditionError: A table is missing, has rows, or can't be filled; nothing was changed.
        VerificationFailed: What was loaded is not what the backup holds; it was rolled back.
    """
    with _connect(order) as inside:
        decode = archive.decoder(inside, order.manifest.server.encoding)
        path = ready.folder / order.manifest.archive
        positions = _positions(order, inside)
        with inside.transaction():
            tables = _tables(order, inside)
            for row in tables:
                inside.execute(compose("LOCK TABLE ONLY {} IN SHARE ROW EXCLUSIVE MODE", _name(row)))
            _refuse_rows(inside, tables)
            obstacles = _obstacles(order, inside, tables)
            ordered = _in_order(tables, obstacles)
            with with_their_path(inside):
                _switch_triggers(inside, obstacles, on=False)
            inside.execute("SET CONSTRAINTS ALL DEFERRED")
            with order.phases.phase("load"):
                for number, row in enumerate(ordered):
                    shown = quote_name(row["schema_name"], row["name"])
                    order.progress(f"loading {shown}", number, len(ordered))
                    take = partial(_copy, inside, order.manifest.server.encoding)
                    entry = order.part.rows_of[as_listed(_key(row))]  # type: ignore[union-attr]
                    with _advising(row, obstacles):
                        read_rows(ready.client, path, entry, decode, take)
            inside.execute("SET CONSTRAINTS ALL IMMEDIATE")
            with order.phases.phase("compare"):
                compared = _compare(order, inside, tables)
            with with_their_path(inside):
                _switch_triggers(inside, obstacles, on=True)
            if compared.differences:
                listed = "; ".join(map(str, compared.differences[:_SHOWN]))
                raise VerificationFailed(
                    f"the rows are not what backup {order.manifest.backup_id} holds, and were taken back:"
                    f" {listed}{_suspects(obstacles)}"
                )
            kept = [
                Note(
                    f"event trigger {quote_name(row['name'])}",
                    "did not hear that triggers were off meanwhile",
                )
                for row in _switched_events(obstacles)
            ]
            for position in positions:  # last: no rollback takes these back
                if inside.value(_IS_FURTHER, position):
                    why = f"stays where it is, which is further than in the backup ({position['value']})"
                    kept.append(Note(f"sequence {position['name']}", why))
                else:
                    inside.execute(_SET, position)
        with order.phases.phase("analyze"):
            inside.execute(compose("ANALYZE {}", join(", ", [_name(row) for row in tables])))
    return compared, kept


def _connect(order: Order) -> Connection:
    return connect(order.admin.to(order.into), purpose=STEP, lock_timeout_s=30, settings=SETTINGS)


def _key(row: Row) -> Key:
    return row["schema_name"], row["name"]


def _name(row: Row) -> Composed:
    return compose("{}", identifier(*_key(row)))


def _obstacles(order: Order, inside: Connection, tables: Sequence[Row]) -> list[Row]:
    """Return what ``fill_obstacles.sql`` finds for these tables."""
    tops = {each.key for each in order.manifest.proof.relations if each.moves_within is not None}
    wanted = {
        "oids": [row["oid"] for row in tables],
        "moving": [row["oid"] for row in tables if _key(row) in tops],
    }
    return inside.rows(sql.load("fill_obstacles"), wanted)


def _tables(order: Order, inside: Connection) -> list[Row]:
    """Return the tables that get rows, in the archive's order.

    Raises:
        PreconditionError: Some are missing; or there are none.
    """
    assert order.part is not None
    there = {as_listed(_key(row)): row for row in list_relations(inside, "full") if row["kind"] == "r"}
    wanted = sorted(order.part.rows_of, key=lambda key: order.part.rows_of[key])  # type: ignore[union-attr]
    if not wanted:
        raise PreconditionError("this part of the backup has no rows of tables to load")
    missing = [quote_name(*key) for key in wanted if key not in there]
    if missing:
        raise PreconditionError(
            f"database {order.into!r} lacks {', '.join(missing)}: restore the definitions first"
            " (schema-only), or choose others"
        )
    return [there[key] for key in wanted]


def _refuse_policies(inside: Connection, tables: Sequence[Row]) -> None:
    covered = [
        quote_name(*_key(row)) for row in tables if inside.value("SELECT row_security_active(%(oid)s)", row)
    ]
    if covered:
        role = quote_name(inside.value("SELECT current_user"))
        raise PreconditionError(
            f"row-level security holds for {role} in {', '.join(covered)}, and COPY does not work under it:"
            f" ALTER ROLE {role} BYPASSRLS, or restore as a superuser"
        )


def _refuse_rows(inside: Connection, tables: Sequence[Row]) -> None:
    full = [
        quote_name(*_key(row))
        for row in tables
        if inside.value(compose("SELECT EXISTS (SELECT FROM ONLY {})", identifier(*_key(row))))
    ]
    if full:
        raise PreconditionError(
            f"not empty: {', '.join(full)}; data-only fills empty tables and never adds to rows that are"
            " there: restore them into a new database and copy what you need, or empty them"
        )


def _in_order(tables: Sequence[Row], obstacles: Sequence[Row]) -> list[Row]:
    """Return the tables so that what is referred to comes first.

    Raises:
        PreconditionError: They refer to each other in a circle.
    """
    by_oid = {row["oid"]: row for row in tables}
    graph: graphlib.TopologicalSorter[int] = graphlib.TopologicalSorter({oid: set() for oid in by_oid})
    keys = {}
    for row in obstacles:
        if row["kind"] == "foreign key":
            graph.add(row["oid"], row["other_oid"])
            keys[row["oid"], row["other_oid"]] = row["name"]
    try:
        return [by_oid[oid] for oid in graph.static_order()]
    except graphlib.CycleError as exc:
        circle: list[int] = exc.args[1]
        pairs = zip(circle[1:], circle, strict=False)
        named = next(
            (quote_name(*_key(by_oid[one])), quote_name(keys[one, other]))
            for one, other in pairs
            if (one, other) in keys
        )
        listed = ", ".join(quote_name(*_key(by_oid[oid])) for oid in circle[:-1])
        raise PreconditionError(
            f"{listed} refer to each other by foreign keys, so that none can be filled first: make one wait,"
            f" ALTER TABLE {named[0]} ALTER CONSTRAINT {named[1]} DEFERRABLE"
        ) from None


def _switch_triggers(inside: Connection, obstacles: Sequence[Row], *, on: bool) -> None:
    """Put triggers off, and on again as they were: rows of a backup have been through them already.

    An event trigger may log each such switch into a table that is being filled: it is off meanwhile.
    """
    statements = [
        compose("ALTER EVENT TRIGGER {} {}", identifier(row["name"]), _mode(row, on=on))
        for row in _switched_events(obstacles)
    ]
    of_tables = [
        compose(
            "ALTER TABLE ONLY {} {} TRIGGER {}",
            identifier(row["schema_name"], row["table_name"]),
            _mode(row, on=on),
            identifier(row["name"]),
        )
        for row in _triggers(obstacles)
    ]
    for statement in (*of_tables, *statements) if on else (*statements, *of_tables):
        inside.execute(statement)


def _mode(row: Row, *, on: bool) -> Part:
    return compose("ENABLE {}", _MODES[row["mode"]]) if on else raw("DISABLE")


def _triggers(obstacles: Sequence[Row]) -> list[Row]:
    return [row for row in obstacles if row["kind"] == "trigger"]


def _switched_events(obstacles: Sequence[Row], *, may_alter: bool = True) -> list[Row]:
    """Return the event triggers that hear of the switches, those that this role may put off or the others."""
    events = [row for row in obstacles if row["kind"] == "event trigger" and row["may_alter"] == may_alter]
    return events if _triggers(obstacles) else []


def _suspects(obstacles: Sequence[Row]) -> str:
    """Name what may have written into the tables besides, and can't be put off by this role."""
    listed = [quote_name(row["name"]) for row in _switched_events(obstacles, may_alter=False)]
    if not listed:
        return ""
    return (
        "; if an event trigger logs into them that triggers were put off, have its owner put it off for the"
        f" time ({'; '.join(f'ALTER EVENT TRIGGER {name} DISABLE' for name in listed)})"
    )


@contextlib.contextmanager
def _advising(table: Row, obstacles: Sequence[Row]) -> Iterator[None]:
    """Say what to do where rows are older than a constraint that does not hold for old rows.

    Raises:
        PreconditionError: Such a constraint may be what the rows break.
    """
    try:
        yield
    except QueryFailed as exc:
        young = [
            quote_name(row["name"])
            for row in obstacles
            if row["kind"] == "not valid" and row["oid"] == table["oid"]
        ]
        if not young or not (exc.sqlstate or "").startswith(_BROKEN):
            raise
        raise PreconditionError(
            f"{exc}; rows of the backup may be older than what is NOT VALID ({', '.join(young)}): drop it,"
            " load them, and add it NOT VALID again"
        ) from exc


def _copy(
    inside: Connection, encoding: str, table: Key, columns: tuple[str, ...], rows: Iterator[bytes]
) -> None:
    inside.copy_text(identifier(*table), columns, rows, encoding)


def _positions(order: Order, inside: Connection) -> list[dict[str, object]]:
    """Return where the chosen sequences stood.

    Raises:
        PreconditionError: One is missing.
    """
    wanted = order.manifest.proof.sequences
    names = [quote_name(each.schema_name, each.name) for each in wanted]
    missing = [name for name in names if inside.value("SELECT to_regclass(%(name)s) IS NULL", {"name": name})]
    if missing:
        raise PreconditionError(f"database {order.into!r} lacks the sequences {', '.join(missing)}")
    return [
        {"name": name, "value": each.last_value, "called": each.is_called}
        for name, each in zip(names, wanted, strict=True)
    ]


def _compare(order: Order, inside: Connection, tables: Sequence[Row]) -> Comparison:
    order.progress("comparing")
    wanted = order.manifest.proof
    if wanted.level == "none":
        return Comparison("none")
    loaded = set(map(_key, tables))
    expected: Proof = wanted.model_copy(
        update={
            "relations": tuple(each for each in wanted.relations if each.key in loaded),
            "configuration": wanted.configuration
            and tuple(each for each in wanted.configuration if each.key in loaded),
            "sequences": (),
        }
    )
    actual = take_proof_of(inside, tables, expected.level, expected.method)
    return Comparison.of(expected, actual, compare(expected, actual))
