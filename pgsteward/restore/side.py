"""A table of a backup beside the live one: in a schema of its own, closed to others, and marked as ours.

Schema, table, rows and mark come in one transaction, so that a run that dies leaves nothing. The table is
unlogged: no publication sends it to a subscriber that lacks it, and no WAL is written. A server that crashed
has emptied it, which the merge looks at.
"""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pgsteward import sql
from pgsteward.backup import proof_hash
from pgsteward.errors import LockTimeout, PreconditionError, QueryFailed, VerificationFailed
from pgsteward.postgres import (
    Connection,
    Part,
    as_written,
    compose,
    connect,
    identifier,
    join,
    literal,
    quote_name,
    raw,
)
from pgsteward.restore.definition import Column, Table, written
from pgsteward.restore.event_triggers import with_their_path
from pgsteward.restore.scratch import Dropped, fit_name
from pgsteward.restore.toc import Key
from pgsteward.results import Item, Note
from pgsteward.targets import Target

log = logging.getLogger(__name__)

MARK = "pgsteward:restore-table:"
_NAME = re.compile(r"pgsteward_.*_[0-9]{14}_[0-9a-f]{6}", re.DOTALL)
PURPOSE = "restore-table"


@dataclass(frozen=True, slots=True)
class Side:
    """Where the table of the backup is.

    Attributes:
        schema: Its own schema.
        name: Its name there, the live one's.
        rows: How many there are.
    """

    schema: str
    name: str
    rows: int

    @property
    def key(self) -> Key:
        return self.schema, self.name


def schema_name(table: str, stamp: str, run_id: str) -> str:
    """Return the name of a side schema: ``pgsteward_<table>_<stamp>_<random>``."""
    return fit_name(f"pgsteward_{table}", f"_{stamp}_{run_id[:6]}")


def is_side(schema: str) -> bool:
    """Tell whether a schema has the name of a side schema; an archive lists no marks."""
    return _NAME.fullmatch(schema) is not None


def bring(
    source: Connection, live: Connection, table: Table, schema: str, facts: dict[str, Any], reader: str | None
) -> Side:
    """Copy a restored table into a side schema, compare the copy, and mark it.

    Args:
        source: To the scratch database; both sessions have `SETTINGS`.
        live: To the live database.
        table: As the scratch database has it.
        schema: Of the side.
        facts: For the mark.
        reader: The role that makes backups, which must be able to read this table too.

    Raises:
        VerificationFailed: The copy differs; nothing is left of it.
        PreconditionError: An event trigger lets others in; likewise.
    """
    side = schema, table.key[1]
    columns = [compose("{} {}", identifier(each.name), as_written(each.kept_as)) for each in table.columns]
    names = [each.name for each in table.columns]
    cells = join(", ", [_cell(each) for each in table.columns])
    stored = compose("SELECT {} FROM {}", cells, table.rows)
    with source.snapshot(), live.transaction():
        with with_their_path(live):
            live.execute(compose("CREATE SCHEMA {}", identifier(schema)))
            _close(live, schema)
            live.execute(compose("CREATE UNLOGGED TABLE {} ({})", identifier(*side), join(", ", columns)))
            live.execute(compose("ALTER TABLE {} DISABLE TRIGGER USER", identifier(*side)))
        encoding = source.value("SHOW server_encoding")
        live.copy_text(identifier(*side), names, source.copy_out(stored, encoding), encoding)
        there = _fingerprint(source, compose("({})", stored), names)
        here = _fingerprint(live, identifier(*side), names)
        if there != here:
            raise VerificationFailed(
                f"the copy in {schema} is not what was restored ({here[0]} rows, {there[0]} were restored)"
            )
        mark = {
            **facts,
            "table": side[1],
            "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "rows": here[0],
        }
        text = literal(MARK + json.dumps(mark))
        with with_their_path(live):
            live.execute(compose("COMMENT ON SCHEMA {} IS {}", identifier(schema), text))
            live.execute(compose("ANALYZE {}", identifier(*side)))
            _close(live, schema)  # event triggers may have opened it meanwhile
        if others := _grantees(live, schema):
            named = ", ".join("PUBLIC" if role is None else quote_name(role) for role in others)
            raise PreconditionError(
                f"an event trigger of {quote_name(live.dbname)} opens {quote_name(schema)} to {named} as"
                " soon as it is closed: let it leave schemas named pgsteward_* alone"
            )
        if reader is not None:
            _let_in(live, side, reader)
    return Side(schema, table.key[1], here[0])


def _cell(column: Column) -> Part:
    name = identifier(column.name)
    return name if column.is_own else compose("{} AS {}", written(name), name)


def _fingerprint(session: Connection, table: Part, names: list[str]) -> tuple[Any, ...]:
    """Return count and hash of rows by their text; both sessions write it alike."""
    types: list[str | None] = [None] * len(names)
    return tuple(session.row(proof_hash.hash_statement(proof_hash.TYPED, table, names, types)).values())


def _close(live: Connection, schema: str) -> None:
    """Take away what default privileges or event triggers may have granted: nobody looks into a backup."""
    for name in _grantees(live, schema):
        role: Part = raw("PUBLIC") if name is None else identifier(name)
        live.execute(compose("REVOKE ALL ON SCHEMA {} FROM {}", identifier(schema), role))


def _let_in(live: Connection, side: Key, reader: str) -> None:
    """Let a role of this server read the table, if it can't: a backup is refused that would miss one."""
    asked = {"role": reader, "schema": side[0], "table": quote_name(*side)}
    if not live.value(
        "SELECT EXISTS (SELECT FROM pg_roles AS r WHERE r.rolname = %(role)s"
        " AND NOT (has_schema_privilege(r.oid, %(schema)s, 'USAGE')"
        " AND has_table_privilege(r.oid, %(table)s, 'SELECT')))",
        asked,
    ):
        return
    role = identifier(reader)
    live.execute(compose("GRANT USAGE ON SCHEMA {} TO {}", identifier(side[0]), role))
    live.execute(compose("GRANT SELECT ON {} TO {}", identifier(*side), role))


def _grantees(live: Connection, schema: str) -> list[str | None]:
    return [row["role_name"] for row in live.rows(sql.load("side_grantees"), {"schema": schema})]


def drop(live: Connection, schema: str) -> None:
    """Drop a side schema with all that is in it."""
    with live.transaction(), with_their_path(live):
        live.execute(compose("DROP SCHEMA {} CASCADE", identifier(schema)))


def drop_statement(schema: str) -> str:
    """Return the SQL that drops a side schema."""
    return compose("DROP SCHEMA {} CASCADE;", identifier(schema)).as_string()


def drop_old(target: Target, *, dry_run: bool = False) -> Dropped:
    """Drop the side schemas of a database that are older than ``keep_side_tables_days``.

    Only what is in them of ours: where somebody has made more there, or relies on the table, it is named.

    Args:
        target: Bound to the database.
        dry_run: Report, and drop nothing.
    """
    with connect(target.login("backup"), purpose=PURPOSE) as session:
        found = session.rows(sql.load("side_schemas"), {"mark": MARK})
    skipped: list[Note] = []
    old: list[Key] = []
    for row in found:
        kept = _why_kept(row["comment"], timedelta(days=target.settings.restore.keep_side_tables_days))
        if kept is not None:
            skipped.append(Note(row["schema_name"], kept))
        else:
            old.append((row["schema_name"], _read_mark(row["comment"])["table"]))
    if dry_run or not old:
        would = tuple(Item(schema, "would drop") for schema, _ in old)
        return Dropped(len(found), would, tuple(skipped))
    changed: list[Item] = []
    failed: list[Note] = []
    with connect(target.login("restore").to(target.database), purpose=PURPOSE, lock_timeout_s=30) as session:
        for schema, name in old:
            try:
                with session.transaction():
                    session.execute(compose("DROP TABLE IF EXISTS {}", identifier(schema, name)))
                    session.execute(compose("DROP SCHEMA {}", identifier(schema)))
            except (QueryFailed, LockTimeout) as exc:
                failed.append(Note(schema, f"a table of a backup, too old, and can't be dropped: {exc}"))
            else:
                log.info("Dropped the side schema %s", schema)
                changed.append(Item(schema, "dropped"))
    return Dropped(len(found), tuple(changed), tuple(skipped), tuple(failed))


def _why_kept(comment: str, kept: timedelta) -> str | None:
    try:
        made_at = datetime.fromisoformat(_read_mark(comment)["made_at"])
        until = made_at + kept
        if until <= datetime.now(UTC):
            return None
    except (ValueError, KeyError, TypeError):
        return "its mark can't be read: drop it by hand"
    return (
        f"a table of a backup, brought at {made_at:%Y-%m-%d %H:%M} UTC, kept until {until:%Y-%m-%d %H:%M} UTC"
        " (keep_side_tables_days)"
    )


def _read_mark(comment: str) -> dict[str, str]:
    """Return what a mark says: ``table`` and ``made_at``.

    Raises:
        ValueError: It says neither.
    """
    mark = json.loads(comment.removeprefix(MARK))
    return {"table": str(mark["table"]), "made_at": str(mark["made_at"])}
