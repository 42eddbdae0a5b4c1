"""Qualified names as people write them in SQL: ``public.sessions``, ``"Order Lines"``, ``app."Log, old"``."""

from __future__ import annotations

import re

_PART = re.compile(r'\s*(?:"((?:[^"]|"")+)"|([A-Za-z_\u0080-\uffff][\w$\u0080-\uffff]*))\s*')


def split_qualified(name: str, default_schema: str = "public") -> tuple[str, str]:
    """Split a name as PostgreSQL would: unquoted parts are folded to lower case.

    Raises:
        ValueError: Not a name, or more than schema and name.
    """
    parts: list[str] = []
    position = 0
    while True:
        match = _PART.match(name, position)
        if match is None:
            raise ValueError(
                f'{name!r} is not a table name; write schema.table, quoted as in SQL: public."T"'
            )
        quoted, plain = match.groups()
        parts.append(quoted.replace('""', '"') if quoted is not None else plain.lower())
        position = match.end()
        if position == len(name):
            break
        if name[position] != ".":
            raise ValueError(
                f'{name!r} is not a table name; write schema.table, quoted as in SQL: public."T"'
            )
        position += 1
    if len(parts) == 1:
        return default_schema, parts[0]
    if len(parts) == 2:
        return parts[0], parts[1]
    raise ValueError(f"{name!r} has too many parts; write schema.table")


def split_names(names: str) -> tuple[tuple[str, str], ...]:
    """Split a list of qualified names, as the server writes one: ``public.a, "App X"."b, c"``."""
    found = []
    position = 0
    while position < len(names):
        start = position
        while (match := _PART.match(names, position)) and names[match.end() : match.end() + 1] == ".":
            position = match.end() + 1
        position = match.end() if match else len(names)
        found.append(split_qualified(names[start:position]))
        position += 1  # the comma
    return tuple(found)


def split_columns(table: str) -> tuple[str, ...]:
    """Return the columns of ``public.orders (id, "Total, net")``, as COPY of a dump has them."""
    position = len(table.rstrip()) - 1
    if position < 0 or table[position] != ")":
        return ()
    names: list[str] = []
    start = _columns_start(table)
    while start < position and (match := _PART.match(table, start)):
        quoted, plain = match.groups()
        names.append(quoted.replace('""', '"') if quoted is not None else plain)
        start = match.end() + 1  # the comma, or the end
    return tuple(names)


def _columns_start(table: str) -> int:
    """Return where the list of columns begins: behind the first parenthesis that stands in no quotes."""
    quoted = False
    for position, char in enumerate(table):
        if char == '"':
            quoted = not quoted
        elif char == "(" and not quoted:
            return position + 1
    return len(table)
