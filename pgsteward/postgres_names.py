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
