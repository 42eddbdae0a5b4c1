"""Qualified names as people write them in SQL: ``public.sessions``, ``"Order Lines"``, ``app."Log, old"``."""

from __future__ import annotations

import re

# fmt: off
RESERVED = frozenset({
    "all", "analyse", "analyze", "and", "any", "array", "as", "asc", "asymmetric", "authorization",
    "binary", "both", "case", "cast", "check", "collate", "collation", "column", "concurrently",
    "constraint", "create", "cross", "current_catalog", "current_date", "current_role",
    "current_schema", "current_time", "current_timestamp", "current_user", "default", "deferrable",
    "desc", "distinct", "do", "else", "end", "except", "false", "fetch", "for", "foreign", "freeze",
    "from", "full", "grant", "group", "having", "ilike", "in", "initially", "inner", "intersect",
    "into", "is", "isnull", "join", "lateral", "leading", "left", "like", "limit", "localtime",
    "localtimestamp", "natural", "not", "notnull", "null", "offset", "on", "only", "or", "order",
    "outer", "overlaps", "placing", "primary", "references", "returning", "right", "select",
    "session_user", "similar", "some", "symmetric", "system_user", "table", "tablesample", "then", "to",
    "trailing", "true", "union", "unique", "user", "using", "variadic", "verbose", "when", "where",
    "window", "with",
})
# fmt: on
"""Words that are no name unless they are quoted."""

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
            raise ValueError(f'{name!r} is not a name; write schema.table, quoted as in SQL: public."T"')
        quoted, plain = match.groups()
        parts.append(quoted.replace('""', '"') if quoted is not None else plain.lower())
        position = match.end()
        if position == len(name):
            break
        if name[position] != ".":
            raise ValueError(f'{name!r} is not a name; write schema.table, quoted as in SQL: public."T"')
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


def split_copy(head: str) -> tuple[tuple[str, str], tuple[str, ...]]:
    """Split ``public.orders (id, "Total, net")``, as COPY of a dump has it, into the table and its columns.

    Raises:
        ValueError: It is none.
    """
    quoted = False
    for position, char in enumerate(head):
        if char == '"':
            quoted = not quoted
        elif char == "(" and not quoted:
            return split_qualified(head[:position]), split_columns(head[position + 1 : head.rindex(")")])
    return split_qualified(head), ()


def split_columns(columns: str) -> tuple[str, ...]:
    """Split ``id, "Total, net"``.

    Raises:
        ValueError: There is something else in it than names.
    """
    names: list[str] = []
    position = 0
    while position < len(columns):
        match = _PART.match(columns, position)
        if match is None or columns[match.end() : match.end() + 1] not in ("", ","):
            raise ValueError(f"{columns[position:]!r} is no name of a column; quote it as in SQL")
        quoted, plain = match.groups()
        names.append(quoted.replace('""', '"') if quoted is not None else plain.lower())
        position = match.end() + 1
    return tuple(names)
