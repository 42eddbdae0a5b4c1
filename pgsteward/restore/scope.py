"""Which part of a backup is meant, and what its names and patterns choose."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pgsteward.backup.filters import regexes
from pgsteward.errors import ConfigError, PreconditionError
from pgsteward.postgres import quote_name
from pgsteward.restore.side import is_side

Name = tuple[str, ...]
"""Schema and name, or only a schema."""

_NEAR = 3
_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Scope:
    """What was asked for; nothing of it means everything.

    Attributes:
        schemas: Names or patterns of schemas.
        tables: Names or patterns of tables, views, materialized views and sequences.
        schema_only: Definitions and no rows.
        data_only: Rows and no definitions.
        bare: Tables with their rows and without what hangs on them: indexes, constraints, triggers, rights.
    """

    schemas: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    schema_only: bool = False
    data_only: bool = False
    bare: bool = False

    def __post_init__(self) -> None:
        if self.schema_only and self.data_only:
            raise ConfigError("schema-only and data-only exclude each other; leave one of them out")
        loose = [table for table in self.tables if self.schemas and len(regexes(table)) == 1]
        if loose:
            raise ConfigError(
                f"table {loose[0]!r} beside a schema may be in that one or in any other: write it with its"
                f" schema, such as {self.schemas[0]}.{loose[0]}"
            )

    @property
    def everything(self) -> bool:
        """Nothing was asked for: the whole backup is meant."""
        return not (self.named or self.schema_only or self.data_only)

    @property
    def named(self) -> bool:
        """Schemas or tables were chosen."""
        return bool(self.schemas or self.tables)

    @property
    def clauses(self) -> tuple[str, ...]:
        """What makes it a part, for people."""
        found = []
        if self.schemas:
            found.append(f"schemas: {', '.join(self.schemas)}")
        if self.tables:
            found.append(f"tables: {', '.join(self.tables)}")
        if self.schema_only:
            found.append("definitions")
        if self.data_only:
            found.append("rows")
        return tuple(found)


def matching(kind: str, pattern: str, names: Sequence[Name]) -> set[Name]:
    """Return the names that a pattern chooses as pg_dump reads it, or that it is letter by letter.

    Args:
        kind: ``schema`` or ``table``, for messages.
        pattern: As given. Without a schema it chooses tables of any schema but those of `restore_table`.
        names: All there are, each with its schema.

    Raises:
        PreconditionError: It chooses none, the text has what is near; or it can be read in two ways.
        ConfigError: It is no pattern.
    """
    parts = regexes(pattern)[-len(names[0]) :] if names else []
    everything = names
    if kind == "table" and len(parts) == 1:
        names = [name for name in names if not is_side(name[0])]
    exact = {name for name in names if pattern in (".".join(name), name[-1])}
    try:
        tests = [re.compile(part, re.DOTALL) for part in parts]
    except re.error as exc:
        raise ConfigError(f"{kind} {pattern!r} is no pattern ({exc}); write the name in quotes") from None
    fit = {
        name
        for name in names
        if all(test.search(part) for test, part in zip(tests, name[-len(tests) :], strict=True))
    }
    if exact and fit - exact:
        raise PreconditionError(
            f"{kind} {pattern!r} can be read in two ways: as a pattern it also chooses"
            f" {_listed(fit - exact)}; write {_listed(exact)} for that one alone"
        )
    if not exact | fit:
        raise PreconditionError(
            f"{kind} {pattern!r} matches nothing in this backup; {_near(pattern, everything)}"
        )
    return exact | fit


def _near(pattern: str, names: Sequence[Name]) -> str:
    written = {quote_name(*name): name[-1] for name in names}
    plain = pattern.replace('"', "")
    last = plain.rsplit(".", 1)[-1]
    near = [shown for shown, name in written.items() if name.lower() == last.lower()]
    near += difflib.get_close_matches(plain, [shown for shown in written if shown not in near], _NEAR, 0.6)
    own = {name for name in written.values() if name not in near}
    close = difflib.get_close_matches(last, sorted(own), _NEAR, 0.6)
    near += [shown for shown, name in written.items() if name in close and shown not in near]
    return f"near it are: {', '.join(near[:_NEAR])}" if near else f"there are: {_listed(names)}"


def _listed(names: Iterable[Name]) -> str:
    quoted = sorted(quote_name(*name) for name in names)
    more = f" and {len(quoted) - _SHOWN} more" if len(quoted) > _SHOWN else ""
    return (", ".join(quoted[:_SHOWN]) + more) or "none"
