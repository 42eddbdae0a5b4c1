"""The SQL that would bring rows of a backup back into a live table; nobody here runs it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pgsteward.backup.proof import SETTINGS
from pgsteward.postgres import (
    Composed,
    Part,
    as_written,
    compose,
    compose_file,
    identifier,
    join,
    literal,
    quote_name,
    raw,
)
from pgsteward.restore.definition import Pair
from pgsteward.restore.row_diff import Differences, differs, merge_parts
from pgsteward.restore.side import Side

_WRITTEN = ("DateStyle", "IntervalStyle", "TimeZone", "extra_float_digits", "bytea_output", "lc_monetary")
"""Settings that the text of values depends on, so that the merge compares as was compared."""
_HIDDEN = "row_security"
"""Off: what a policy hides from whoever runs the merge would be missing, and be inserted once more."""

_ORDER = ("insert", "update", "delete")

Merge = Mapping[str, str | None]


def statements(found: Pair, side: Side, differences: Differences) -> Merge:
    """Return the statements by what they do: ``insert``, ``update``, ``delete``; None where nothing is to do.

    An identity column that is always generated is inserted as it was, and can't be updated.
    """
    keyed = bool(found.identified_by)
    updated = _updatable(found, differences.columns)
    parts: dict[str, Part] = {
        **merge_parts(found, side),
        "table": identifier(*found.now.key),
        "columns": join(", ", [identifier(name) for name in found.names]),
        "values": join(", ", [_value(found, name) for name in found.names]),
        "overriding": raw(" OVERRIDING SYSTEM VALUE" if _has_identity(found) else ""),
        "settings": join(
            ",\n       ", [compose("{} = {}", identifier(n), _value(found, n)) for n in updated]
        ),
        "differs": join("\n        OR ", [differs(found, name) for name in updated]),
        "all_rows": literal(side.rows),
    }
    return {
        "insert": _text("merge_insert" if keyed else "merge_insert_wholes", parts, differences.removed),
        "update": _text("merge_update", parts, len(updated)),
        "delete": _text("merge_delete" if keyed else "merge_delete_wholes", parts, differences.added),
    }


def script(merge: Merge, found: Pair, side: Side, differences: Differences) -> str:
    """Return the statements as one script, which changes nothing until somebody has put COMMIT in it.

    What came since goes first, as it may have a unique value that comes back; but last where rows of the
    table refer to each other, as one that has changed may refer to it until then.
    """
    settings = [
        compose("SET LOCAL {} = {};", identifier(n.lower()), literal(SETTINGS[n]))
        for n in (*_WRITTEN, _HIDDEN)
    ]
    if any(column.type.startswith("reg") for column in found.then.columns):
        settings.append(compose("SET LOCAL search_path = '';"))
    says = {
        "insert": f"{differences.removed} rows that are not there any more",
        "update": f"{differences.changed} rows that have changed ({', '.join(differences.columns)})",
        "delete": f"{differences.added} rows that came since: they are lost then",
    }
    lines = [
        f"-- Rows of the backup for {quote_name(*found.now.key)}. Leave out what you don't want, and write",
        "-- COMMIT for ROLLBACK. The triggers of the table fire.",
        "BEGIN;",
        *(setting.as_string() for setting in settings),
    ]
    for name in _ORDER if found.now.refers_to_itself else reversed(_ORDER):
        if (statement := merge[name]) is not None:
            lines += ["", f"-- {name.upper()}: {says[name]}", statement]
    lines += [
        "",
        "-- What differs still, as triggers may have made it: 0 of each if you left nothing out.",
        _check(found, side),
    ]
    return "\n".join([*lines, "", "ROLLBACK;", ""])


def _check(found: Pair, side: Side) -> str:
    parts = merge_parts(found, side)
    if not found.identified_by:
        return _statement("merge_check_wholes", parts)
    other = [differs(found, name) for name in _updatable(found, found.compared)]
    return _statement("merge_check", {**parts, "differs": join(" OR ", other or [raw("false")])})


def _updatable(found: Pair, names: Iterable[str]) -> list[str]:
    return [name for name in names if not found.both(name)[1].identity_always]


def _text(name: str, parts: Mapping[str, Part], wanted: int) -> str | None:
    return _statement(name, parts) if wanted else None


def _statement(name: str, parts: Mapping[str, Part]) -> str:
    """Return a statement without its file's own comment."""
    lines = compose_file(name, **parts).as_string().strip().splitlines()
    return "\n".join(lines[next(n for n, line in enumerate(lines) if not line.startswith("--")) :])


def _has_identity(found: Pair) -> bool:
    return any(found.both(name)[1].identity_always for name in found.names)


def _value(found: Pair, name: str) -> Composed:
    """Return a value of the copy in the live column's type, but for its length: a cast to that would cut."""
    then, now = found.both(name)
    cell = identifier("s", name)
    return (
        compose("{}", cell) if then.kept_as == now.type else compose("{}::{}", cell, as_written(now.unbound))
    )
