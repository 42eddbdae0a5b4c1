"""Whether anything that a materialized view reads has changed since its last refresh.

A view is never taken for unchanged where that can't be known: its query calls a function that is not
immutable, or reads a foreign table, a system catalog, a sequence, a table with row-level security; or the
counters have lost their past. PostgreSQL's counters are up to ten seconds behind a session that has just gone
idle: a change of the last moments before a night may count for the next one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pgsteward import sql
from pgsteward.errors import QueryFailed
from pgsteward.matview_rules import Rule, read_rule
from pgsteward.postgres import Connection, Row, quote_name

_FIRST_OWN_OID = 16384
"""What is below was made by initdb: system catalogs and built-in functions."""
_ROWS = frozenset({"r", "p", "m"})
_KINDS = {"f": "foreign table", "S": "sequence", "v": "view"}
_NAME_NOT_FOUND = frozenset({"42P01", "42883", "42704", "3F000"})


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the application's own that a view calls and that finds names by ``search_path``.

    Attributes:
        signature: As ALTER FUNCTION takes it.
    """

    oid: int
    schema: str
    signature: str
    language: str


@dataclass(frozen=True, slots=True)
class Sources:
    """What one materialized view reads and calls, straight or through plain views.

    Attributes:
        relations: OIDs of everything it reads that is no plain view.
        version: Differs once its query, one of a plain view below, or a function in them is another.
        changing: Why it may give another result though no table has changed; None when it can't.
        functions: Those whose body has names without a schema, perhaps.
    """

    relations: frozenset[int]
    version: str
    changing: str | None
    functions: tuple[Function, ...]


@dataclass(frozen=True, slots=True)
class Look:
    """Counters and file nodes of everything that a view reads, at one moment.

    Attributes:
        began: Since when the counters count.
        leaves: File node, changes and name of each relation with rows, by OID.
        unknowable: Why the counters do not tell everything; None when they do.
    """

    began: tuple[str | None, str | None]
    leaves: Mapping[int, tuple[int, int, str]]
    unknowable: str | None

    @property
    def counters(self) -> tuple[tuple[int, int, int], ...]:
        """OID, file node and changes of each relation with rows."""
        return tuple((oid, node, changes) for oid, (node, changes, _) in self.leaves.items())


@dataclass(frozen=True, slots=True)
class LastRefresh:
    """What is kept of a view from its refresh on.

    Attributes:
        version: See `Sources`.
        refreshed_at: When it began, as ISO 8601.
        began: See `Look`; so is `counters`. Both are of the moment before the refresh.
    """

    oid: int
    version: str
    refreshed_at: str
    began: tuple[str | None, str | None]
    counters: tuple[tuple[int, int, int], ...]

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> LastRefresh:
        """Return it as `dataclasses.asdict` and JSON have left it."""
        database, server = kept["began"]
        counters = tuple((int(oid), int(node), int(changes)) for oid, node, changes in kept["counters"])
        return cls(kept["oid"], kept["version"], kept["refreshed_at"], (database, server), counters)


def read_sources(connection: Connection, matviews: Collection[int]) -> dict[int, Sources]:
    """Return what each materialized view reads and calls.

    Args:
        connection: To its database.
        matviews: OIDs of the materialized views.
    """
    rows = connection.rows(sql.load("matview_rules"))
    actions = {row["oid"]: row["action"] for row in rows}
    rules = {row["oid"]: _read(row) for row in rows}
    functions = _functions(connection, rules.values())
    found: dict[int, Sources] = {}
    for oid in matviews:
        views, relations = _below(oid, rules, matviews)
        used = [function for view in views for function in _used(rules[view], functions)]
        version = hashlib.sha256()
        for part in [actions[view] for view in views] + sorted({f["version"] or "" for f in used}):
            version.update(part.encode())
        found[oid] = Sources(
            frozenset(relations),
            version.hexdigest(),
            _why_changing([rules[view] for view in views], used, relations),
            tuple(
                dict.fromkeys(
                    Function(f["oid"], f["schema"], f["name"], f["language"])
                    for f in used
                    if f["may_need_path"]
                )
            ),
        )
    return found


def look_at(connection: Connection, sources: Sources) -> Look:
    """Return how everything that a view reads is now."""
    began = connection.row(sql.load("counters_began"))
    rows = connection.rows(sql.load("relation_changes"), {"oids": sorted(sources.relations)})
    unknowable = None if began["is_counted"] else "track_counts is off"
    for row in rows:
        if row["kind"] not in _ROWS:
            unknowable = f"it reads {_KINDS.get(row['kind'], 'relation')} {row['name']}"
        elif row["has_row_security"]:
            unknowable = f"it reads {row['name']}, which has row-level security"
    return Look(
        (began["database_reset"], began["server_reset"]),
        {row["oid"]: (row["file_node"], row["changes"], row["name"]) for row in rows},
        unknowable,
    )


def why_changed(sources: Sources, look: Look, last: LastRefresh | None) -> str | None:
    """Return why a view has to be refreshed, or None when nothing that it reads has changed.

    Args:
        sources: What it reads.
        look: How that is now.
        last: Its last refresh; None when that is unknown.
    """
    if sources.changing is not None:
        return sources.changing
    if look.unknowable is not None:
        return look.unknowable
    if last is None:
        return "nothing is known of an earlier refresh"
    if last.version != sources.version:
        return "its query, or a function in it, is another now"
    if last.began != look.began:
        return "the counters have begun anew since"
    before = {oid: (node, changes) for oid, node, changes in last.counters}
    if before.keys() != look.leaves.keys():
        return "tables or partitions below it came or went"
    for oid, (node, changes, name) in look.leaves.items():
        if before[oid][0] != node:
            return f"{name} was truncated or rewritten"
        if before[oid][1] != changes:
            return f"{name} has changed"
    return None


def changed_rows(look: Look, last: LastRefresh | None) -> int | None:
    """Return how many rows below a view have changed since its last refresh; None when nobody can know."""
    if last is None or last.began != look.began:
        return None
    before = {oid: changes for oid, _, changes in last.counters}
    return sum(max(changes - before.get(oid, 0), 0) for oid, (_, changes, _) in look.leaves.items())


def without_path(connection: Connection, functions: Iterable[Function]) -> dict[Function, str]:
    """Return the SQL functions whose body does not work with a safe ``search_path``, with PostgreSQL's words.

    PostgreSQL 17 and newer refresh with ``pg_catalog, pg_temp``. Its own validator is asked, which reads the
    body of SQL functions alone: what a PL/pgSQL function would not find shows when it runs.
    """
    found: dict[Function, str] = {}
    for function in functions:
        if function.language != "sql":
            continue
        try:
            with connection.transaction():
                connection.execute(
                    "SELECT set_config('search_path', 'pg_catalog, pg_temp', true),"
                    " set_config('check_function_bodies', 'on', true)"
                )
                connection.execute(
                    "SELECT pg_catalog.fmgr_sql_validator(%(oid)s::pg_catalog.int8::pg_catalog.oid)",
                    {"oid": function.oid},
                )
        except QueryFailed as exc:
            if exc.sqlstate in _NAME_NOT_FOUND:
                found[function] = str(exc)
    return found


def path_fix(error: QueryFailed, sources: Sources) -> str:
    """Return what to do where a refresh did not find a name that a function's body has without a schema."""
    if error.sqlstate not in _NAME_NOT_FOUND or not sources.functions:
        return ""
    return "; PostgreSQL 17 and newer refresh with search_path = pg_catalog, pg_temp: " + "; or ".join(
        _alter(function) for function in sources.functions[:3]
    )


def path_finding(function: Function, error: str) -> str:
    """Return what a person has to do about a function that needs a ``search_path``."""
    return (
        f"{function.signature} finds names by search_path, and PostgreSQL 17 and newer refresh with a safe"
        f" one ({error}): {_alter(function)}"
    )


def _alter(function: Function) -> str:
    return f"ALTER FUNCTION {function.signature} SET search_path = {quote_name(function.schema)}, pg_temp"


def _read(row: Row) -> Rule:
    """Read one query; where relations are missing in what we read of it, it is never taken for unchanged."""
    rule = read_rule(row["action"])
    if not rule.relations.issuperset(row["depends_on"]):
        rule.never_the_same.append("a relation in it in a way that can't be followed")
    return rule


def _functions(connection: Connection, rules: Iterable[Rule]) -> dict[tuple[str, int], Row]:
    """Return every function that rules use, by how they name it: ``functions`` and their OID, and so on."""
    wanted: dict[str, set[int]] = {"functions": set(), "operators": set(), "inputs": set(), "outputs": set()}
    for rule in rules:
        for kind, oids in wanted.items():
            oids |= getattr(rule, kind)
    rows = connection.rows(sql.load("matview_functions"), {k: sorted(oids) for k, oids in wanted.items()})
    return {(row["kind"], row["named"]): row for row in rows}


def _used(rule: Rule, functions: Mapping[tuple[str, int], Row]) -> list[Row]:
    kinds = ("functions", "operators", "inputs", "outputs")
    keys = [(kind, oid) for kind in kinds for oid in sorted(getattr(rule, kind))]
    return [functions[key] for key in keys if key in functions]


def _below(oid: int, rules: Mapping[int, Rule], matviews: Collection[int]) -> tuple[list[int], set[int]]:
    """Return a view with all plain views below it, and everything that they read."""
    views, relations = [oid], set()
    for view in views:
        for relation in sorted(rules[view].relations - {view}):
            if relation in rules and relation not in matviews:
                if relation not in views:
                    views.append(relation)
            else:
                relations.add(relation)
    return views, relations


def _why_changing(rules: Sequence[Rule], used: Iterable[Row], relations: Iterable[int]) -> str | None:
    for rule in rules:
        for what in rule.never_the_same:
            return f"its query has {what}"
    for function in used:
        if not function["is_immutable"]:
            return f"its query uses {function['name']}, which is not immutable"
    if any(oid < _FIRST_OWN_OID for oid in relations):
        return "it reads system catalogs"
    return None
