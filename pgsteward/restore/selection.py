"""Which entries of an archive the restore of a part takes: what was chosen, and what that needs.

Decided from the table of contents alone. A chosen relation brings its rows, all that hangs on it, its
partitions and what inherits from it. What it needs comes along: types, functions, sequences, parents,
extensions with the rows that users gave them. A table that only a definition needs comes without its rows;
one that a chosen view reads comes with them. A foreign key stays behind where the rows that it refers to do.
"""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pgsteward.postgres import quote_name
from pgsteward.restore.scope import Scope, matching
from pgsteward.restore.toc import RELATIONS, Entry, Key
from pgsteward.results import Note

LARGE_OBJECTS = frozenset({"BLOB", "BLOBS", "BLOB METADATA", "BLOB COMMENTS"})
_ROWS = frozenset({"TABLE DATA", "MATERIALIZED VIEW DATA", "STATISTICS DATA"})
DATA = frozenset({*LARGE_OBJECTS, *_ROWS, "SEQUENCE SET"})
_OF_ITS_TABLE = frozenset(
    {
        *_ROWS,
        "SEQUENCE SET",
        "SEQUENCE OWNED BY",
        "TABLE ATTACH",
        "DEFAULT",
        "INDEX",
        "CONSTRAINT",
        "CHECK CONSTRAINT",
        "FK CONSTRAINT",
        "TRIGGER",
        "POLICY",
        "ROW SECURITY",
        "RULE",
        "STATISTICS",
    }
)
_OF_ANYTHING = frozenset({"ACL", "COMMENT", "SECURITY LABEL", "USER MAPPING"})
_IF_ALL_IS_THERE = ("INDEX ATTACH", "FK CONSTRAINT")
"""In the order in which they are decided: a foreign key may need the indexes of partitions attached."""
_OF_THE_DATABASE = frozenset(
    {
        "DATABASE",
        "DATABASE PROPERTIES",
        "EVENT TRIGGER",
        "PUBLICATION",
        "PUBLICATION TABLE",
        "PUBLICATION TABLES IN SCHEMA",
        "SUBSCRIPTION",
        "SUBSCRIPTION TABLE",
    }
)
_NOT_BARE = (_OF_ITS_TABLE | _OF_ANYTHING | set(_IF_ALL_IS_THERE)) - {"TABLE DATA", "TABLE ATTACH"}
_VIEWS = frozenset({"VIEW", "MATERIALIZED VIEW"})
_ROUTINES = frozenset({"FUNCTION", "PROCEDURE"})
_BY_OPERATORS = re.compile(r" EXCLUDE USING | WITHOUT OVERLAPS")
"""Constraints whose operator classes nothing in the archive names: any extension may bring them."""
_WORD = re.compile(r'"(?:[^"]|"")+"|[^\W\d][\w$]*')


@dataclass(frozen=True, slots=True)
class Part:
    """What the restore of a part takes.

    Attributes:
        scope: As asked for.
        chosen: Kinds of the relations that were chosen by name, by name.
        numbers: The archive's entries.
        schemas: Where they are.
        filled: Tables and materialized views whose rows are restored.
        empty: Those that are made without their rows.
        sequences: Those whose positions are set.
        extensions: Those that are made.
        rows_of: Number of the entry that holds its rows, by table.
        along: What was not chosen and comes along, with the reason.
        left_out: What the chosen would have and does not get, with the reason.
        unread: Tables that routines of it mention, and that have no rows here.
    """

    scope: Scope
    numbers: frozenset[int]
    chosen: dict[Key, str] = field(default_factory=dict)
    schemas: frozenset[str] = frozenset()
    filled: frozenset[Key] = frozenset()
    empty: frozenset[Key] = frozenset()
    sequences: frozenset[Key] = frozenset()
    extensions: frozenset[str] = frozenset()
    rows_of: dict[Key, int] = field(default_factory=dict)
    along: tuple[Note, ...] = ()
    left_out: tuple[Note, ...] = ()
    unread: tuple[Key, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "schemas": list(self.scope.schemas),
            "tables": list(self.scope.tables),
            "schema_only": self.scope.schema_only,
            "data_only": self.scope.data_only,
            "with_rows": sorted(quote_name(*key) for key in self.filled),
            "without_rows": sorted(quote_name(*key) for key in self.empty),
            "along": [note.as_json() for note in self.along],
            "left_out": [note.as_json() for note in self.left_out],
        }


def choose(
    entries: Sequence[Entry],
    scope: Scope,
    trees: Iterable[Collection[Key]] = (),
    configuration: Iterable[tuple[str, Key]] = (),
) -> Part:
    """Return what a restore of `scope` takes.

    Args:
        entries: The archive's.
        scope: What was asked for.
        trees: Partitions among which a restore may place rows differently: all of such a tree, or none.
        configuration: Extensions, each with a table of it that has rows here; the archive does not say whose.

    Raises:
        PreconditionError: A name or a pattern matches nothing in the archive.
        ConfigError: A pattern is none.
    """
    graph = _Graph(entries)
    for extension, key in configuration:
        graph.give(extension, key)
    taking = _Taking(graph, scope)
    if scope.named:
        chosen = _chosen(entries, scope)
    else:
        chosen = [entry.number for entry in entries if entry.kind not in ("DATABASE", "DATABASE PROPERTIES")]
    for number in chosen:
        taking.take(number, rows=True)
    for tree in trees:
        taking.take_whole(tree)
    taking.decide()
    return taking.part(frozenset(chosen))


def _chosen(entries: Sequence[Entry], scope: Scope) -> list[int]:
    relations = [entry for entry in entries if entry.kind in RELATIONS]
    schemas = {(e.schema,) for e in entries if e.schema} | {(e.name,) for e in entries if e.kind == "SCHEMA"}
    of = {name for pattern in scope.schemas for (name,) in matching("schema", pattern, sorted(schemas))}
    keys = sorted({entry.key for entry in relations})
    tables = {key for pattern in scope.tables for key in matching("table", pattern, keys)}
    follow = _OF_ITS_TABLE | _OF_ANYTHING | _OF_THE_DATABASE | DATA | set(_IF_ALL_IS_THERE)
    return [
        entry.number
        for entry in entries
        if (entry.kind == "SCHEMA" and entry.name in of)
        or (entry.schema in of and entry.kind not in follow)
        or (entry.kind in RELATIONS and entry.key in tables)
    ]


class _Graph:
    """What belongs to what."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = {entry.number: entry for entry in entries}
        self.relations = {entry.key: entry.number for entry in entries if entry.kind in RELATIONS}
        self.schemas = {entry.name: entry.number for entry in entries if entry.kind == "SCHEMA"}
        self.extensions = [e.number for e in entries if e.kind in ("EXTENSION", "OPERATOR CLASS")]
        self.belongings: dict[int, list[int]] = defaultdict(list)
        self.partitions: dict[int, list[int]] = defaultdict(list)
        self.heirs: dict[int, list[int]] = defaultdict(list)
        self.routines: dict[str, list[int]] = defaultdict(list)
        self.tables: dict[str, list[int]] = defaultdict(list)
        for entry in entries:
            self._file(entry)

    def _file(self, entry: Entry) -> None:
        owner = self.owner(entry)
        if owner is not None:
            self.belongings[owner].append(entry.number)
        if entry.kind == "TABLE ATTACH" and owner is not None:
            for parent in set(entry.needs) - {owner}:
                self.partitions[parent].append(owner)
        for key in entry.inherits:
            if key in self.relations:
                self.heirs[self.relations[key]].append(entry.number)
        if entry.kind in _ROUTINES:
            self.routines[entry.name.split("(", 1)[0]].append(entry.number)
        elif entry.kind in RELATIONS:
            self.tables[entry.name].append(entry.number)

    def give(self, extension: str, table: Key) -> None:
        """Let the rows of a table that the archive does not make belong to an extension that it makes."""
        for entry in self.entries.values():
            if entry.kind == "EXTENSION" and entry.name == extension:
                self.belongings[entry.number] += [
                    rows.number
                    for rows in self.entries.values()
                    if rows.kind == "TABLE DATA"
                    and not rows.needs
                    and rows.name.startswith(f"{' '.join(table)} ")
                ]

    def owner(self, entry: Entry) -> int | None:
        """Return the entry that an entry belongs to, so that it goes where that goes."""
        needs = [self.entries[number] for number in entry.needs]
        if entry.kind == "SEQUENCE":
            return next((need.number for need in needs if need.kind in RELATIONS), None)
        if entry.kind in _OF_ANYTHING:
            return needs[0].number if needs else None
        if entry.kind not in _OF_ITS_TABLE:
            return None
        tables = [need for need in needs if need.kind in RELATIONS or need.kind == "DOMAIN"]
        if len(tables) > 1:  # the name of its own stands first in its tag
            own = [need for need in tables if f"{entry.name} ".startswith(f"{need.name} ")]
            tables = sorted(own, key=lambda need: (need.schema != entry.schema, -len(need.name))) or tables
        return next((need.number for need in tables or needs), None)


class _Taking:
    """What was taken so far, by number: True with rows, False without."""

    def __init__(self, graph: _Graph, scope: Scope) -> None:
        self.graph = graph
        self.scope = scope
        self.taken: dict[int, bool] = {}
        self.why: dict[int, str] = {}
        self.left_out: list[Note] = []

    def take(self, number: int, *, rows: bool, why: str = "") -> None:
        """Take an entry, and whatever follows from that."""
        todo = deque([(number, rows, why)])
        while todo:
            number, rows, why = todo.popleft()
            if self.taken.get(number, False) or (number in self.taken and not rows):
                continue
            entry = self.graph.entries[number]
            if self.scope.named and entry.kind in _OF_THE_DATABASE | LARGE_OBJECTS:
                continue
            self.taken[number] = rows
            self.why.setdefault(number, why)
            todo += self._following(entry, rows)

    def _following(self, entry: Entry, rows: bool) -> Iterable[tuple[int, bool, str]]:
        graph, entries = self.graph, self.graph.entries
        owner = graph.owner(entry)
        of = entries[owner] if owner is not None and entry.kind in _OF_ITS_TABLE else entry
        named = quote_name(*of.key) if of.schema else of.name
        for number in entry.needs:
            with_rows = rows and (of.kind in _VIEWS or entries[number].kind == "SEQUENCE")
            yield number, with_rows, f"{named} {'reads' if of.kind in _VIEWS else 'needs'} it"
        if entry.schema in graph.schemas:
            yield graph.schemas[entry.schema], False, ""
        for number in graph.belongings[entry.number]:
            kind = entries[number].kind
            with_it = rows or kind not in _ROWS or (entry.kind == "EXTENSION" and not self.scope.bare)
            if kind not in _IF_ALL_IS_THERE and with_it:
                yield number, rows, f"it belongs to {named}"
        if rows:
            for number in graph.partitions[entry.number]:
                yield number, True, f"a partition of {named}"
            for number in graph.heirs[entry.number]:
                yield number, True, f"it inherits from {named}"
        if entry.kind == "CONSTRAINT" and _BY_OPERATORS.search(entry.sql):
            for number in graph.extensions:
                yield number, False, ""
        if entry.kind in _ROUTINES:
            for word in self._words(entry):
                for number in graph.routines.get(word, ()):
                    yield number, False, ""

    def take_whole(self, tree: Collection[Key]) -> None:
        """Take all partitions of a tree if one of them was taken with its rows."""
        numbers = [self.graph.relations[key] for key in tree if key in self.graph.relations]
        if any(self.taken.get(number) for number in numbers):
            for number in numbers:
                self.take(number, rows=True, why="a restore may place rows of a chosen partition in it")

    def decide(self) -> None:
        """Take what needs several others, if all are there; name the foreign keys that stay behind."""
        for kind in _IF_ALL_IS_THERE:
            for entry in self.graph.entries.values():
                if entry.kind == kind:
                    self._decide(entry)
        schemas = {self.graph.entries[number].schema for number in self.taken}
        for entry in self.graph.entries.values():  # of a schema that every database has
            if (
                entry.kind in _OF_ANYTHING
                and not entry.needs
                and entry.name.removeprefix("SCHEMA ") in schemas
            ):
                self.take(entry.number, rows=False)

    def _decide(self, entry: Entry) -> None:
        if all(number in self.taken for number in entry.needs) and not self._dangles(entry):
            self.take(entry.number, rows=True)
            return
        owner = self.graph.owner(entry)
        if owner is not None and owner in self.taken and not self.scope.data_only:
            to = [
                quote_name(*self.graph.entries[number].key)
                for number in entry.needs
                if self.graph.entries[number].kind in RELATIONS and number != owner
            ]
            name = entry.name.removeprefix(self.graph.entries[owner].name).strip()
            self.left_out.append(
                Note(
                    f"{quote_name(*self.graph.entries[owner].key)}: foreign key {quote_name(name)}",
                    f"left out: {' or '.join(to)} is not restored with its rows",
                )
            )

    def _dangles(self, entry: Entry) -> bool:
        """Tell whether a foreign key's table has rows, and one that it refers to has not."""
        owner = self.graph.owner(entry)
        if self.scope.schema_only or owner is None or not self.taken[owner]:
            return False
        tables = [number for number in entry.needs if self.graph.entries[number].kind in RELATIONS]
        return not all(self.taken[number] for number in tables)

    def _words(self, routine: Entry) -> set[str]:
        """Return the names that a routine's text mentions: PostgreSQL does not know what a body needs."""
        words = _WORD.findall(routine.sql)
        return {word[1:-1].replace('""', '"') if word.startswith('"') else word.lower() for word in words}

    def _mentioned(self) -> Iterator[tuple[Entry, Entry]]:
        """Return routines with the tables that they may read, and whose rows are not there."""
        graph = self.graph
        for number in sorted(self.taken):
            routine = graph.entries[number]
            if routine.kind in _ROUTINES:
                tables = {n for word in self._words(routine) for n in graph.tables.get(word, ())}
                for table in sorted(tables):
                    if not self.taken.get(table, False):
                        yield routine, graph.entries[table]

    def part(self, chosen: frozenset[int]) -> Part:
        """Return what was taken."""
        scope, entries = self.scope, self.graph.entries
        taken = [entries[number] for number in sorted(self.taken)]
        relations = [entry for entry in taken if entry.kind in RELATIONS - {"SEQUENCE"}]
        tables = [entry for entry in relations if entry.kind != "VIEW"]
        rows_of = {
            entries[need].key: entry.number
            for entry in taken
            if entry.kind == "TABLE DATA" and not scope.schema_only
            for need in entry.needs[:1]
            if entries[need].kind in RELATIONS  # of an extension it holds what was put into its tables
        }
        filled = {e.number for e in tables if self.taken[e.number] and not scope.schema_only}
        left_out = list(self.left_out)
        if scope.data_only:
            filled = {e.number for e in tables if e.key in rows_of}
            left_out += self._without_copy(taken)
        if any(entry.kind in LARGE_OBJECTS for entry in entries.values()):
            left_out.append(Note("large objects", "left out: a part of a backup has none"))
        if not scope.data_only:
            left_out += [
                Note(
                    quote_name(*table.key),
                    f"not restored, and mentioned by {routine.kind.lower()}"
                    f" {routine.schema}.{routine.name}, which is",
                )
                for routine, table in self._mentioned()
                if table.number not in self.taken
            ]
        numbers = {
            entry.number
            for entry in taken
            if not (scope.schema_only and entry.kind in DATA)
            and not (scope.data_only and entry.kind not in DATA)
            and entry.kind not in LARGE_OBJECTS
            and not (scope.bare and entry.kind in _NOT_BARE)
        }
        made = [entry for entry in taken if entry.number in numbers]
        positions = [entry.needs[0] for entry in made if entry.kind == "SEQUENCE SET" and entry.needs]
        along = [
            Note(quote_name(*entry.key), self._reason(entry, entry.number in filled))
            for entry in relations
            if entry.number not in chosen and (entry.number in filled or not scope.data_only)
        ]
        return Part(
            scope,
            frozenset(numbers),
            chosen={e.key: e.kind for e in taken if e.number in chosen and e.kind in RELATIONS},
            schemas=frozenset(entry.schema for entry in taken if entry.schema),
            filled=frozenset(entry.key for entry in tables if entry.number in filled),
            empty=frozenset(entry.key for entry in tables if entry.number not in filled),
            sequences=frozenset(entries[number].key for number in positions),
            extensions=frozenset(entry.name for entry in taken if entry.kind == "EXTENSION"),
            rows_of=rows_of,
            along=tuple(along),
            left_out=tuple(left_out),
            unread=tuple(dict.fromkeys(table.key for _, table in self._mentioned())),
        )

    def _without_copy(self, taken: Iterable[Entry]) -> Iterable[Note]:
        """Name what has rows and is not filled by copying them."""
        for entry in taken:
            if entry.kind == "MATERIALIZED VIEW":
                yield Note(quote_name(*entry.key), "not refreshed: REFRESH it once its tables are filled")
            elif entry.kind == "EXTENSION" and entry.number in self.graph.belongings:
                kinds = {self.graph.entries[number].kind for number in self.graph.belongings[entry.number]}
                if "TABLE DATA" in kinds:
                    yield Note(f"extension {quote_name(entry.name)}", "rows in its own tables are left out")

    def _reason(self, entry: Entry, filled: bool) -> str:
        whole = filled or self.scope.schema_only or entry.kind == "VIEW"
        return self.why[entry.number] + ("" if whole else "; it comes without its rows")
