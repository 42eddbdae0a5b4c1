"""Where a database stands in its application's Alembic history.

The scripts are read by Alembic's own library; its ``env.py`` is never run. What revision the database is at
is read over our own connection.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from pgsteward.audit.problem import Problem
from pgsteward.config_audit import AlembicConfig
from pgsteward.errors import StewardError
from pgsteward.postgres import Connection, compose, identifier, quote_name

log = logging.getLogger(__name__)

State = Literal["current", "behind", "unknown revision", "no history", "unknown"]


@dataclass(frozen=True, slots=True)
class Migrations:
    """What became of comparing the two.

    Attributes:
        current: Revisions that the database is at; several where the history has branches.
        heads: The newest revisions of the scripts.
        pending: What is still to be applied, the oldest first.
        version_table: Where `current` was read; None where there is no such table.
        reason: What is wrong, or why nothing is known.
    """

    state: State
    current: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    version_table: str | None = None
    reason: str = ""

    def problem(self, script_location: str) -> Problem | None:
        """Return it as something to act on, where it is."""
        if self.state in ("current", "unknown"):
            return None
        return Problem("migrations", script_location, self.version_table or "", self.reason)

    def as_json(self, settings: AlembicConfig) -> dict[str, Any]:
        return {
            "state": self.state,
            "current": list(self.current),
            "heads": list(self.heads),
            "pending": list(self.pending),
            "version_table": self.version_table,
            "script_location": settings.script_location,
        }


def compare(connection: Connection, settings: AlembicConfig) -> Migrations:
    """Compare the database with the scripts. Changes nothing, also not beside the scripts."""
    from alembic.script import ScriptDirectory

    try:
        table, current = _read_current(connection, settings)
    except StewardError as exc:
        return Migrations("unknown", reason=f"the database's revision can't be read: {exc}")
    try:
        with _no_bytecode():
            scripts = ScriptDirectory(
                _folder(settings.script_location),
                version_locations=[str(path) for path in settings.version_locations] or None,
            )
            heads = tuple(sorted(scripts.get_heads()))
            return _judge(scripts, table, current, heads)
    except (Exception, SystemExit) as exc:  # the scripts are somebody's program, and may raise anything
        log.info("the scripts in %s can't be read", settings.script_location, exc_info=True)
        reason = f"the scripts can't be read: {type(exc).__name__}: {exc}"
        return Migrations("unknown", current, version_table=table, reason=reason)


def _judge(scripts: Any, table: str | None, current: tuple[str, ...], heads: tuple[str, ...]) -> Migrations:
    from alembic.util import CommandError

    strange = []
    for revision in current:
        try:
            if scripts.get_revision(revision) is None:
                strange.append(revision)
        except CommandError:
            strange.append(revision)
    if strange:
        reason = (
            f"the database is at {', '.join(strange)}, which the scripts don't know: they are older than what"
            " was applied, or of another application"
        )
        return Migrations("unknown revision", current, heads, (), table, reason)
    steps = scripts.iterate_revisions("heads", current or "base", implicit_base=True)
    pending = tuple(step.revision for step in steps if step.revision not in current)[::-1]
    target = "head" if len(heads) == 1 else "heads"
    several = f" (the scripts have {len(heads)} heads: {', '.join(heads)})" if len(heads) > 1 else ""
    if not current and heads:
        where = f"{table} is empty" if table else "there is no version table"
        reason = f"{where}: no migration was ever applied by Alembic{several}; run: alembic upgrade {target}"
        return Migrations("no history", current, heads, pending, table, reason)
    if pending:
        count = f"{len(pending)} migration{'' if len(pending) == 1 else 's'}"
        reason = f"{count} behind, next is {pending[0]}{several}; run: alembic upgrade {target}"
        return Migrations("behind", current, heads, pending, table, reason)
    return Migrations("current", current, heads, (), table)


def _read_current(connection: Connection, settings: AlembicConfig) -> tuple[str | None, tuple[str, ...]]:
    """Return the version table and what is in it.

    Raises:
        StewardError: It can't be read; or there are several, and nobody has said which.
    """
    schemas = version_tables(connection, settings)
    if not schemas:
        return None, ()
    if len(schemas) > 1:
        named = ", ".join(map(quote_name, schemas))
        raise StewardError(f"the schemas {named} have one each; say which: version_table_schema")
    found = connection.rows(
        compose(
            "SELECT version_num::text AS revision FROM {}", identifier(schemas[0], settings.version_table)
        )
    )
    table = quote_name(schemas[0], settings.version_table)
    return table, tuple(sorted(row["revision"] for row in found))


def version_tables(connection: Connection, settings: AlembicConfig) -> list[str]:
    """Return the schemas that have such a table, of those that may be meant."""
    rows = connection.rows(
        "SELECT n.nspname AS schema FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
        " WHERE c.relname = %(name)s AND c.relkind IN ('r', 'p', 'v', 'f')"
        "   AND n.nspname !~ '^pg_' AND (%(schema)s::text IS NULL OR n.nspname = %(schema)s) ORDER BY 1",
        {"name": settings.version_table, "schema": settings.version_table_schema},
    )
    return [row["schema"] for row in rows]


def _folder(location: str) -> str:
    from alembic.util import coerce_resource_to_filename

    return str(coerce_resource_to_filename(location))


@contextmanager
def _no_bytecode() -> Iterator[None]:
    """Write nothing beside somebody else's scripts."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before
