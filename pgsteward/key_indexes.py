"""Which index finds the rows that refer by a foreign key, as each DELETE on the other side has to."""

from __future__ import annotations

from collections.abc import Collection

from pgsteward.postgres import quote_name


def holds_what_refers(predicate: str | None, columns: Collection[str]) -> bool:
    """Tell whether an index leaves out no more than rows that refer to nothing: a column of the key is NULL.

    Args:
        predicate: Of the index, as PostgreSQL writes it; None for one on all rows.
        columns: Of the key.
    """
    if predicate is None:
        return True
    known = [f"({quote_name(column)} IS NOT NULL)" for column in columns]
    rest = predicate
    if not rest.startswith(tuple(known)):  # several are in parentheses
        rest = rest.removeprefix("(").removesuffix(")")
    while found := next((each for each in known if rest.startswith(each)), ""):
        rest = rest.removeprefix(found).removeprefix(" AND ")
    return not rest
