"""An archive's table of contents with what depends on what, as ``pg_restore`` itself tells it.

``--list --verbose`` gives the numbers and dependencies of all entries, but runs their names together; the
script of ``--schema-only --verbose`` keeps kind, schema and name apart, and has each entry's SQL. Entries
that are not in the script (rows, positions) are named by what they depend on.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pgsteward.clients import Client
from pgsteward.errors import QueryFailed
from pgsteward.pgtools import run_tool
from pgsteward.postgres_names import split_names

_LISTED = re.compile(r"^(\d+); \d+ \d+ (.*)(?:\n;\tdepends on:((?: \d+)+))?$", re.MULTILINE)
_HEADER = re.compile(
    r"^-- TOC entry (\d+) \(class \d+ OID \d+\)\n(?:-- Dependencies:.*\n)?"
    r"-- Name: (.*); Type: ([A-Z ]+); Schema: (.*); Owner: (?:.*)\n",
    re.MULTILINE,
)
_INHERITS = re.compile(r"^INHERITS \((.*)\)(?:;|$)", re.MULTILINE)
_UNNAMED = re.compile(
    r"TABLE DATA|SEQUENCE SET|STATISTICS DATA|BLOB METADATA|BLOB COMMENTS|BLOBS?"
    r"|ENCODING|STDSTRINGS|SEARCHPATH|DATABASE PROPERTIES|DATABASE|ACL|COMMENT|SECURITY LABEL"
)
"""Kinds that the script may leave out: those of rows, of large objects, and of the database itself."""

Key = tuple[str, str]
"""Schema and name of a relation."""

RELATIONS = frozenset({"TABLE", "VIEW", "MATERIALIZED VIEW", "FOREIGN TABLE", "SEQUENCE"})
"""What pg_dump's patterns of tables choose from."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry.

    Attributes:
        number: What ``--use-list`` knows it by.
        kind: ``TABLE``, ``FK CONSTRAINT``, ``TABLE DATA`` ...
        schema: None for what is in no schema, and for what has no name of its own.
        name: As the archive tags it: of a constraint or a trigger, its table's name comes first.
        needs: Numbers of the entries that it depends on.
        sql: What makes it; empty for what has no name of its own.
    """

    number: int
    kind: str
    schema: str | None
    name: str
    needs: tuple[int, ...] = ()
    sql: str = ""

    @property
    def key(self) -> Key:
        return self.schema or "", self.name

    @property
    def inherits(self) -> tuple[Key, ...]:
        """The tables it inherits from; a partition is attached by an entry of its own."""
        found = _INHERITS.search(self.sql) if self.kind in ("TABLE", "FOREIGN TABLE") else None
        return split_names(found[1]) if found else ()


def read(client: Client, archive: Path, decode: Callable[[bytes], str]) -> tuple[Entry, ...]:
    """Return all entries, in the archive's order; the rows need not be there.

    Args:
        client: Its pg_restore is asked.
        archive: The archive.
        decode: Reads the archive's encoding; `pgsteward.backup.archive.decoder` returns it.

    Raises:
        ToolFailed: It can't be read.
    """
    program = client.tool("pg_restore")
    listing = run_tool([program, "--list", "--verbose", archive], env={}).stdout
    script = run_tool([program, "--schema-only", "--verbose", "--file=-", archive], env={}).stdout
    return parse(_read(listing, decode), _read(script, decode))


def _read(text: bytes, decode: Callable[[bytes], str]) -> str:
    """Read it as a whole, or else line by line: a role is named in the bytes of some other database."""
    try:
        return decode(text)
    except (UnicodeDecodeError, QueryFailed):
        return "\n".join(_line(line, decode) for line in text.split(b"\n"))


def _line(line: bytes, decode: Callable[[bytes], str]) -> str:
    try:
        return decode(line)
    except (UnicodeDecodeError, QueryFailed):
        return line.decode(errors="backslashreplace")


def parse(listing: str, script: str) -> tuple[Entry, ...]:
    """Return the entries of a verbose listing and a verbose script; see `read`."""
    listed = list(_LISTED.finditer(listing))
    there = {int(match[1]) for match in listed}
    named = _named({int(match[1]): match[2] for match in listed}, script)
    entries: dict[int, Entry] = {}
    for match in listed:
        number = int(match[1])
        needs = tuple(dict.fromkeys(n for n in map(int, (match[3] or "").split()) if n in there))
        if number in named:
            kind, schema, name, text = named[number]
            entries[number] = Entry(number, kind, schema, name, needs, text)
        else:
            kind = _kind(match[2])
            entries[number] = Entry(number, kind, None, match[2].removeprefix(kind).strip(), needs)
    return tuple(entries.values())


def _named(listed: dict[int, str], script: str) -> dict[int, tuple[str, str | None, str, str]]:
    """Return kind, schema, name and SQL by number; a function's body that looks like a header is none."""
    headers = []
    for match in _HEADER.finditer(script):
        number, name, kind, schema = int(match[1]), match[2], match[3], match[4]
        if listed.get(number, "").startswith(f"{kind} {schema} {name} "):
            headers.append((match, number, kind, None if schema == "-" else schema, name))
    named = {}
    for place, (match, number, kind, own, name) in enumerate(headers):
        end = headers[place + 1][0].start() if place + 1 < len(headers) else len(script)
        named[number] = kind, own, name, script[match.end() : end]
    return named


def _kind(description: str) -> str:
    known = _UNNAMED.match(description)
    return known[0] if known else description.split(" ", 1)[0]
