"""How the rows of a live table differ from those of a backup that lie beside it.

The server compares; rows come here only to be shown. NULL is a value, and what has no equality of its own, or
one that is not to the letter (json, numeric, citext), is compared by its text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString

from pgsteward.errors import PreconditionError
from pgsteward.postgres import (
    Composed,
    Connection,
    Part,
    compose,
    compose_file,
    identifier,
    join,
    literal,
    quote_name,
)
from pgsteward.restore.definition import Pair, written
from pgsteward.restore.side import Side

_CHARACTERS = 200
"""Of a value that is shown."""

Shown = dict[str, str | None]


@dataclass(frozen=True, slots=True)
class Differences:
    """What differs, seen from the backup.

    Attributes:
        removed: Rows of the backup that the live table has not any more.
        added: Rows of the live table that the backup has not.
        changed: Rows that both have and that differ; None where rows have no key.
        columns: In how many of them, by column.
        rows_removed: The first of them; likewise the others. Of changed rows there is one for each column.
    """

    removed: int
    added: int
    changed: int | None
    columns: dict[str, int]
    rows_removed: tuple[Shown, ...] = ()
    rows_added: tuple[Shown, ...] = ()
    rows_changed: tuple[dict[str, Any], ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "difference": {"removed": self.removed, "added": self.added, "changed": self.changed},
            "columns_changed": self.columns,
            "rows_removed": list(self.rows_removed),
            "rows_added": list(self.rows_added),
            "rows_changed": list(self.rows_changed),
        }


def compare_rows(live: Connection, found: Pair, side: Side, shown: int) -> Differences:
    """Return what differs, as one snapshot sees it.

    Args:
        live: To the live database, with the settings of a proof.
        found: Both tables.
        side: Where the backup's rows are.
        shown: How many rows of each kind are returned.

    Raises:
        PreconditionError: The key does not tell rows apart, here or there.
    """
    with live.snapshot():
        if not found.identified_by:
            return _as_wholes(live, found, side, shown)
        _refuse_ambiguous(live, found, side)
        return _by_key(live, found, side, shown)


def _refuse_ambiguous(live: Connection, found: Pair, side: Side) -> None:
    sides: list[tuple[Part, str]] = [(identifier(*side.key), "backup")]
    if found.identified_by != found.now.identified_by:  # the live table sees to its own key
        sides.append((found.now.rows, "live table"))
    for rows, where in sides:
        cells = [comparable(found, name, "x") for name in found.identified_by]
        nulls = join(" OR ", [compose("{} IS NULL", cell) for cell in cells])
        count = live.value(compose_file("diff_ambiguous", rows=rows, key=join(", ", cells), nulls=nulls))
        if count:
            named = ", ".join(map(quote_name, found.identified_by))
            raise PreconditionError(
                f"key {named} does not tell the rows of the {where} apart: {count} values are there more than"
                " once, or are NULL; name other columns (--key)"
            )


def _by_key(live: Connection, found: Pair, side: Side, shown: int) -> Differences:
    parts = merge_parts(found, side)
    figures: dict[str, Any] = {"changed": 0}
    changed: list[dict[str, Any]] = []
    if found.compared:
        each = [differs(found, name) for name in found.compared]
        joined = compose(
            "{side} AS s JOIN {rows} AS l ON {same} WHERE {differs}", **parts, differs=join(" OR ", each)
        )
        counts = [
            compose("count(*) FILTER (WHERE {}) AS {}", one, identifier(f"c{n}"))
            for n, one in enumerate(each)
        ]
        figures = live.row(compose("SELECT count(*) AS changed, {} FROM {}", join(", ", counts), joined))
        changed = _changed(live, found, joined, shown) if figures["changed"] else []
    removed, rows_removed = _missing(live, found, parts, "s", shown)
    added, rows_added = _missing(live, found, parts, "l", shown)
    columns = {name: figures[f"c{n}"] for n, name in enumerate(found.compared) if figures[f"c{n}"]}
    return Differences(removed, added, figures["changed"], columns, rows_removed, rows_added, tuple(changed))


def _missing(
    live: Connection, found: Pair, parts: dict[str, Part], alias: str, shown: int
) -> tuple[int, tuple[Shown, ...]]:
    """Return how many rows of one side the other lacks, and the first of them."""
    query: LiteralString = "{rows} AS l WHERE NOT EXISTS (SELECT FROM {side} AS s WHERE {same})"
    if alias == "s":
        query = "{side} AS s WHERE NOT EXISTS (SELECT FROM {rows} AS l WHERE {same})"
    rows = compose(query, **parts)
    ordered = join(", ", [comparable(found, name, alias) for name in found.identified_by])
    cells, limit = _texts(found, found.names, alias), literal(shown)
    count = live.value(compose("SELECT count(*) FROM {}", rows))
    if not count:
        return 0, ()
    listed = live.rows(
        compose("SELECT {} AS cells FROM {} ORDER BY {} LIMIT {}", cells, rows, ordered, limit)
    )
    return count, tuple(_shown(found.names, row["cells"]) for row in listed)


def _changed(live: Connection, found: Pair, joined: Part, shown: int) -> list[dict[str, Any]]:
    key, compared = found.identified_by, found.compared
    statement = compose_file(
        "diff_changed",
        key=_texts(found, key, "s"),
        then=_texts(found, compared, "s"),
        now=_texts(found, compared, "l"),
        differs=join(", ", [differs(found, name) for name in compared]),
        joined=joined,
        ordered=join(", ", [comparable(found, name, "s") for name in key]),
        shown=literal(shown),
    )
    listed = []
    for row in live.rows(statement):
        then, now = _shown(compared, row["then"]), _shown(compared, row["now"])
        other = [name for name, differs_here in zip(compared, row["differs"], strict=True) if differs_here]
        which = _shown(key, row["key"])
        listed += [{"key": which, "column": n, "backup": then[n], "live": now[n]} for n in other]
    return listed


def _as_wholes(live: Connection, found: Pair, side: Side, shown: int) -> Differences:
    """Compare rows that have no key: how often is each there?"""
    parts = merge_parts(found, side)
    here = compose("SELECT {s_row} AS written FROM {side} AS s", **parts)
    there = compose("SELECT {l_row} AS written FROM {rows} AS l", **parts)
    counts, listed = [], []
    for one, other in ((here, there), (there, here)):
        rows = compose("({} EXCEPT ALL {}) AS x", one, other)
        begin = _readable(compose("left(x.written, {})", literal(_CHARACTERS + 1)))
        first = compose("SELECT {} AS written FROM {}", begin, rows)
        found_here = live.rows(compose("{} ORDER BY x.written LIMIT {}", first, literal(shown)))
        counts.append(live.value(compose("SELECT count(*) FROM {}", rows)))
        listed.append(tuple({"row": _cut(row["written"])} for row in found_here))
    return Differences(counts[0], counts[1], None, {}, listed[0], listed[1])


def merge_parts(found: Pair, side: Side) -> dict[str, Part]:
    """Return what statements are made of: both tables (``s``, ``l``), when keys are equal, rows as text."""
    parts: dict[str, Part] = {"side": identifier(*side.key), "rows": found.now.rows}
    if found.identified_by:
        same = [
            compose("{} = {}", comparable(found, name, "s"), comparable(found, name, "l"))
            for name in found.identified_by
        ]
        return {**parts, "same": join(" AND ", same)}
    for alias in ("s", "l"):
        cells = join(", ", [_text(found, name, alias) for name in found.names])
        parts[f"{alias}_row"] = compose('ROW({})::text COLLATE "C"', cells)
    return parts


def comparable(found: Pair, name: str, alias: str) -> Composed:
    """Return what of a column is compared: the value itself where that is exact, or else its text."""
    then, now = found.both(name)
    exact = then.equality == now.equality == "exact" and then.kept_as == now.kept_as
    if exact:
        return compose("{}", identifier(alias, name))
    return compose('{} COLLATE "C"', _text(found, name, alias))


def _text(found: Pair, name: str, alias: str) -> Composed:
    """Return the text of a value as its type writes it, or as ALTER TABLE casts it where that has changed."""
    then, now = found.both(name)
    cell = identifier(alias, name)
    if alias == "s" and then.kept_as == "text":
        return compose("{}", cell)
    if then.kept_as != now.kept_as and (then if alias == "s" else now).is_own:
        return compose("{}::text", cell)
    return compose("{}::text", cell) if now.equality == "text" else written(cell)


def differs(found: Pair, name: str) -> Composed:
    """Return the condition that a column differs; NULL is a value."""
    return compose("{} IS DISTINCT FROM {}", comparable(found, name, "s"), comparable(found, name, "l"))


def _texts(found: Pair, names: Iterable[str], alias: str) -> Composed:
    length = literal(_CHARACTERS + 1)
    cells = [_readable(compose("left({}, {})", _text(found, name, alias), length)) for name in names]
    return compose("ARRAY[{}]::bytea[]", join(", ", cells))


def _readable(text: Part) -> Composed:
    """Return a text as bytes in UTF-8; those of a database that knows no encoding stay as they are."""
    return compose(
        "convert_to({}, CASE getdatabaseencoding() WHEN 'SQL_ASCII' THEN 'SQL_ASCII' ELSE 'UTF8' END)", text
    )


def _shown(names: Iterable[str], cells: Sequence[bytes | None]) -> Shown:
    return {name: _cut(cell) for name, cell in zip(names, cells, strict=True)}


def _cut(cell: bytes | None) -> str | None:
    if cell is None:
        return None
    text = bytes(cell).decode(errors="backslashreplace")
    return text if len(text) <= _CHARACTERS else f"{text[:_CHARACTERS]}..."
