"""Partial backups: what the configuration leaves out, and what is then really in the archive."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

from pgsteward.config import BackupConfig
from pgsteward.errors import PreconditionError
from pgsteward.postgres import Connection, Row, identifier, quote_name
from pgsteward.results import Note
from pgsteward.sql import load

_DEFINITIONS = (b"TABLE ", b"MATERIALIZED VIEW ", b"FOREIGN TABLE ")
_ROWS = (b"TABLE DATA ", b"MATERIALIZED VIEW DATA ")
_SPECIAL = frozenset("|*+?()[]{}.^$\\")


def arguments(settings: BackupConfig, extensions: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the options of pg_dump that leave something out; none for a whole backup.

    Args:
        settings: What is left out.
        extensions: Names of those that come along with what is chosen.
    """
    found = [f"--table={pattern}" for pattern in settings.tables]
    found += [f"--schema={pattern}" for pattern in settings.schemas]
    if found:
        found += [f"--extension={identifier(name).as_string()}" for name in sorted(extensions)]
        found.append("--strict-names")
    found += [f"--exclude-table-data={pattern}" for pattern in settings.exclude_table_data]
    if settings.enable_row_security:
        found.append("--enable-row-security")
    return tuple(found)


def clauses(settings: BackupConfig) -> tuple[str, ...]:
    """Return what makes a backup partial, for people; none for a whole one."""
    found = []
    if settings.tables:
        found.append(f"tables: {', '.join(settings.tables)} only")
    if settings.schemas:
        found.append(f"schemas: {', '.join(settings.schemas)} only")
    if settings.exclude_table_data:
        found.append(f"data excluded: {', '.join(settings.exclude_table_data)}")
    if settings.enable_row_security:
        found.append("rows: only those that row-level security shows to this role")
    return tuple(found)


def has_filters(settings: BackupConfig) -> bool:
    """Tell whether tables or rows of tables are left out by name."""
    return bool(settings.tables or settings.schemas or settings.exclude_table_data)


@dataclass(frozen=True, slots=True)
class Choice:
    """What the patterns match in a database, before the dump; None where all is chosen."""

    tables: frozenset[tuple[str, str]] | None
    schemas: frozenset[str] | None
    without_rows: frozenset[tuple[str, str]]
    row_security: bool
    extensions: Mapping[str, str] = field(default_factory=dict)
    """Those that come along, where not all do, each with its schema."""

    @property
    def takes_large_objects(self) -> bool:
        """pg_dump drops them where tables or schemas are chosen."""
        return self.tables is None and self.schemas is None

    @property
    def all_schemas(self) -> frozenset[str] | None:
        """Those that hold what is chosen; None where all is."""
        if self.takes_large_objects:
            return None
        return frozenset({*(self.schemas or ()), *(schema for schema, _ in self.tables or ())})

    @property
    def schemas_to_make(self) -> list[str]:
        """Those that the archive makes no more than a new database has them."""
        wanted = {*self.extensions.values(), *(schema for schema, _ in self.tables or ())}
        return sorted(wanted - {"public", "pg_catalog", *(self.schemas or ())})

    def obstacles(self, found: Iterable[Row]) -> list[Row]:
        """Return the obstacles (see ``backup_obstacles.sql``) that are in the way of this choice."""
        return [row for row in found if self._matters(row)]

    def takes(self, row: Row) -> bool:
        """Tell whether a relation is chosen, or comes along, with its rows or without."""
        if row["extension_name"] in self.extensions:
            return True
        if self.tables is not None:
            return (row["schema_name"], row["name"]) in self.tables
        return self.schemas is None or row["schema_name"] in self.schemas

    def holds(self, row: Row) -> bool:
        """Tell whether the rows of a relation were asked for: if they are not there, something is wrong."""
        if not self.takes(row) or self.is_strangers(row):
            return False
        without = (row["schema_name"], row["name"]) in self.without_rows
        return not without or row["kind"] == "f" or (row["kind"] == "m" and not row["populated"])

    def is_strangers(self, row: Row) -> bool:
        """Tell whether it is of an extension that does not come along."""
        whose = row["extension_name"]
        return whose is not None and not self.takes_large_objects and whose not in self.extensions

    def _matters(self, row: Row) -> bool:
        if not self.takes(row):
            return False
        without_rows = (row["schema_name"], row["name"]) in self.without_rows
        if row["extension_name"] is not None:
            return not without_rows
        hidden = "row-level security" in row["reason"]
        return not (hidden and (self.row_security or without_rows))


def choose(settings: BackupConfig, session: Connection) -> Choice:
    """Look up what the patterns match.

    Raises:
        PreconditionError: One matches nothing.
    """
    tables = _tables("tables", settings.tables, session)
    without_rows = _tables("exclude_table_data", settings.exclude_table_data, session)
    schemas: set[str] = set()
    for pattern in settings.schemas:
        rows = session.rows(load("filter_schemas"), {"name": regexes(pattern)[-1]})
        _refuse_nothing(rows, "schemas", pattern, "schema", session)
        schemas.update(row["schema_name"] for row in rows)
    wanted = {
        "table_schemas": [schema for schema, _ in tables],
        "table_names": [name for _, name in tables],
        "schemas": list(schemas),
    }
    needed = session.rows(load("filter_extensions"), wanted) if tables or schemas else []
    return Choice(
        frozenset(tables) if settings.tables else None,
        frozenset(schemas) if settings.schemas else None,
        frozenset(without_rows),
        settings.enable_row_security,
        {row["name"]: row["schema_name"] for row in needed},
    )


def matching(patterns: Iterable[str], session: Connection) -> set[str]:
    """Return those patterns that match a table."""
    return {pattern for pattern in patterns if _matched(pattern, session)}


def _matched(pattern: str, session: Connection) -> list[Row]:
    *schema, name = regexes(pattern)
    parameters = {"schema": schema[-1] if schema else None, "name": name}
    return session.rows(load("filter_tables"), parameters)


def _tables(key: str, patterns: Iterable[str], session: Connection) -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for pattern in patterns:
        rows = _matched(pattern, session)
        _refuse_nothing(rows, key, pattern, "table", session)
        found.update((row["schema_name"], row["name"]) for row in rows)
    return found


def _refuse_nothing(rows: list[Row], key: str, pattern: str, kind: str, session: Connection) -> None:
    if not rows:
        raise PreconditionError(
            f"backup.{key}: {pattern!r} matches no {kind} of database {session.dbname}; correct it, or take"
            " it out"
        )


def regexes(pattern: str) -> list[str]:
    """Return the regular expressions for the parts of a pattern, as psql and pg_dump read it.

    Outside quotes capitals are folded, ``*`` and ``?`` stand for anything, a dot separates; inside quotes
    every character is itself, and a quote is written twice.
    """
    parts = [""]
    quoted = False
    position = 0
    while position < len(pattern):
        char = pattern[position]
        position += 1
        if char == '"':
            if quoted and pattern[position : position + 1] == '"':
                parts[-1] += '"'
                position += 1
            else:
                quoted = not quoted
        elif quoted:
            parts[-1] += f"\\{char}" if char in _SPECIAL else char
        elif char == ".":
            parts.append("")
        elif char in "*?$":
            parts[-1] += {"*": ".*", "?": ".", "$": "\\$"}[char]
        else:
            parts[-1] += char.lower() if char.isascii() else char
    return [f"^({part})$" for part in parts]


@dataclass(frozen=True, slots=True)
class Part:
    """What a filtered archive holds, by the oids in its table of contents.

    Attributes:
        defined: Tables and materialized views that a restore makes.
        choice: What was asked for. Where tables or schemas are chosen, pg_dump also drops large objects, and
            extensions but for those that come along.
    """

    defined: frozenset[int]
    choice: Choice

    @classmethod
    def of(cls, entries: Iterable[tuple[int, int, bytes]], choice: Choice) -> Self:
        """Return it for what `pgsteward.backup.archive.entries` returned."""
        defined = frozenset(
            oid for _, oid, what in entries if what.startswith(_DEFINITIONS) and not what.startswith(_ROWS)
        )
        return cls(defined, choice)

    @property
    def everything(self) -> bool:
        """Only rows are left out."""
        return self.choice.takes_large_objects

    def left_out(self, relations: Iterable[Row]) -> list[Note]:
        """Name what is not in the archive, or is there without its rows."""
        notes = [
            Note(quote_name(row["schema_name"], row["name"]), self._why_left_out(row))
            for row in relations
            if not self.holds(row)
        ]
        if not self.everything:
            why = "left out: pg_dump drops them where tables or schemas are chosen"
            notes.append(Note("large objects", why))
        return notes

    def _why_left_out(self, row: Row) -> str:
        if not self.choice.takes(row):
            return "left out by the filter"
        if self.choice.is_strangers(row):
            return f"belongs to the extension {row['extension_name']}, which nothing chosen needs"
        return "left out without its rows"

    def holds(self, row: Row) -> bool:
        """See `Choice.holds`."""
        return self.choice.holds(row)
