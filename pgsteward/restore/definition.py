"""How a table was defined and how it is now: which columns can be compared, and how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pgsteward import sql
from pgsteward.errors import PreconditionError
from pgsteward.postgres import Composed, Connection, Part, compose, identifier, quote_name
from pgsteward.restore.toc import Key
from pgsteward.results import Note

Equality = Literal["exact", "text", "other"]


@dataclass(frozen=True, slots=True)
class Column:
    """One column; see ``table_definition.sql``."""

    name: str
    type: str
    kept_as: str
    unbound: str
    equality: Equality
    generated: bool
    identity_always: bool
    identity: bool
    value_required: bool

    @property
    def is_own(self) -> bool:
        """Whether its type is PostgreSQL's own, and therefore kept as it is."""
        return self.kept_as != "text" or self.equality == "text"


def written(cell: Part) -> Composed:
    """Return a value as its type writes it, and as a dump holds it; NULL stays NULL.

    A cast to text may be somebody's own and say something else; a row of NULLs ``IS NULL`` too.
    """
    return compose("CASE WHEN pg_catalog.num_nulls({cell}) = 0 THEN pg_catalog.concat({cell}) END", cell=cell)


@dataclass(frozen=True, slots=True)
class Table:
    """A table as a database has it.

    Attributes:
        key: Schema and name.
        whole: Rows are in it and in its partitions; else in it alone, whatever inherits from it.
        columns: In its own order.
        identified_by: Columns of its best key; empty where there is none.
        refers_to_itself: A foreign key of it does.
    """

    key: Key
    whole: bool
    columns: tuple[Column, ...]
    identified_by: tuple[str, ...]
    refers_to_itself: bool

    @property
    def rows(self) -> Composed:
        """What stands in FROM for its rows."""
        return compose("{}" if self.whole else "ONLY {}", identifier(*self.key))

    def column(self, name: str) -> Column | None:
        return next((column for column in self.columns if column.name == name), None)


def read_table(session: Connection, key: Key) -> Table | None:
    """Return a table; None where there is none of this name.

    Raises:
        PreconditionError: It is something else.
    """
    wanted = {"schema": key[0], "name": key[1]}
    state = session.maybe_row(sql.load("table_state"), wanted)
    if state is None:
        return None
    if state["kind"] not in ("r", "p"):
        raise PreconditionError(f"{quote_name(*key)} of database {session.dbname!r} is no table")
    columns = tuple(Column(**row) for row in session.rows(sql.load("table_definition"), wanted))
    key_columns = tuple(state["key_columns"] or ())
    return Table(key, state["kind"] == "p", columns, key_columns, state["refers_to_itself"])


@dataclass(frozen=True, slots=True)
class Pair:
    """A table of a backup and the live one of the same name.

    Attributes:
        then: As the backup has it.
        now: As it is.
        names: Columns that both have and that are compared: those that are computed now are not.
        identified_by: Columns of the key; empty where rows have none, and are compared as a whole.
    """

    then: Table
    now: Table
    names: tuple[str, ...]
    identified_by: tuple[str, ...]

    @property
    def compared(self) -> tuple[str, ...]:
        """The columns beside the key."""
        return tuple(name for name in self.names if name not in self.identified_by)

    def both(self, name: str) -> tuple[Column, Column]:
        """Return one of `names` as it was and as it is."""
        then, now = self.then.column(name), self.now.column(name)
        assert then is not None
        assert now is not None
        return then, now

    @property
    def changes(self) -> list[Note]:
        """What is defined otherwise since the backup."""
        notes = []
        for column in self.then.columns:
            now = self.now.column(column.name)
            if now is None:
                notes.append(Note(column.name, "dropped since the backup: not compared, and not merged back"))
            elif now.generated:
                notes.append(
                    Note(column.name, "a generated column: not compared, it follows from the others")
                )
            elif now.type != column.type:
                notes.append(Note(column.name, f"is {now.type}, was {column.type}: compared as text"))
        for column in self.now.columns:
            if self.then.column(column.name) is None:
                needs = "; rows that come back need a value for it" if column.value_required else ""
                notes.append(Note(column.name, f"added since the backup: not compared{needs}"))
        return notes


def pair(then: Table, now: Table, wanted: Sequence[str] = ()) -> Pair:
    """Put a table of a backup and the live one side by side.

    Args:
        then: As the backup has it.
        now: As it is.
        wanted: Columns that identify a row; the live table's own key where none are given.

    Raises:
        PreconditionError: A column of the key is not in both, or they have no column in common.
    """
    names = tuple(c.name for c in then.columns if (n := now.column(c.name)) and not n.generated)
    if not names:
        raise PreconditionError(f"{quote_name(*now.key)} has no column in common with the backup's")
    strangers = [name for name in wanted if name not in names]
    if strangers:
        raise PreconditionError(
            f"key: {', '.join(strangers)} is no column that the backup and the live table both have, not"
            f" generated; such are {', '.join(names)}"
        )
    own = now.identified_by if set(now.identified_by) <= set(names) else ()
    return Pair(then, now, names, tuple(dict.fromkeys(wanted)) or own)


def as_json(found: Pair) -> Mapping[str, Any]:
    """Return how they were compared."""
    return {
        "key": list(found.identified_by) or None,
        "compared": list(found.names),
        "changed_definition": [note.as_json() for note in found.changes],
    }
