"""What an archive's table of contents says about the server that it came from."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pgsteward.backup import archive as archive_text
from pgsteward.clients import Client
from pgsteward.errors import QueryFailed
from pgsteward.pgtools import run_tool

_ENTRY = re.compile(
    rb"^-- TOC entry (\d+) \(class \d+ OID \d+\)\n(?:-- Dependencies:.*\n)?"
    rb"-- Name: (.*); Type: ([A-Z ]+); Schema: (.*); Owner: (.*?)(?:; Tablespace: (.*))?\n",
    re.MULTILINE,
)
_GRANTEE = re.compile(
    rb"^(?:ALTER DEFAULT PRIVILEGES .* )?(?:GRANT|REVOKE) .* (?:TO|FROM) (\"(?:[^\"]|\"\")+\"|\S+?)"
    rb"(?: WITH GRANT OPTION)?(?: GRANTED BY .*)?;$",
    re.MULTILINE,
)
_PUBLIC = re.compile(
    rb"^(GRANT|REVOKE) (?:ALL|[A-Z,]*CONNECT[A-Z,]*) ON DATABASE .* (?:TO|FROM) PUBLIC;$", re.MULTILINE
)
_POLICY = re.compile(rb"^CREATE POLICY .* TO (.+?)(?: USING| WITH CHECK|;)", re.MULTILINE)
_MAPPED = re.compile(rb"^CREATE USER MAPPING FOR (\"(?:[^\"]|\"\")+\"|\S+) SERVER ", re.MULTILINE)
_CREATE = re.compile(rb"^CREATE DATABASE .*? WITH (TEMPLATE = .*);$", re.MULTILINE)
_EXTENDED = re.compile(rb"^CREATE EXTENSION .* WITH SCHEMA (\"(?:[^\"]|\"\")+\"|\S+);$", re.MULTILINE)
_COLLATED = re.compile(rb" COLLATE pg_catalog\.(\"(?:[^\"]|\"\")+\"|\w+)")
_COLLATION = re.compile(rb"^CREATE COLLATION .*? \((provider = .*)\);$", re.MULTILINE)
_OPTION = re.compile(r"(\w+) = ('(?:[^']|'')*'|\w+)")

_NO_ROLES = {"PUBLIC", "public", "CURRENT_ROLE", "CURRENT_USER", "SESSION_USER", ""}
_LEFT_OUT = {b"PUBLICATION", b"SUBSCRIPTION"}
_SUPERUSERS = {
    *(b"ACCESS METHOD", b"EVENT TRIGGER", b"FOREIGN DATA WRAPPER", b"OPERATOR CLASS", b"OPERATOR FAMILY"),
    *(b"PROCEDURAL LANGUAGE", b"SHELL TYPE", b"TEXT SEARCH PARSER", b"TEXT SEARCH TEMPLATE"),
}
_ROUTINE = re.compile(
    rb"(?:(?!\n    LANGUAGE ).)*\n    LANGUAGE (?:c\b|internal\b|[^\n]* (?:LEAKPROOF|SUPPORT)\b)", re.DOTALL
)
"""The first such line is the statement's own, and none of the body."""
_SUPERUSERS_BY_SQL = {
    b"AGGREGATE": re.compile(rb".*\n    STYPE = internal\b", re.DOTALL),
    b"CAST": re.compile(rb".*\) WITHOUT FUNCTION\b", re.DOTALL),
    b"FUNCTION": _ROUTINE,
    b"PROCEDURE": _ROUTINE,
    b"TYPE": re.compile(rb".*\n    INTERNALLENGTH = ", re.DOTALL),
}
"""Kinds of which a superuser makes some only."""
_FREE_TEXT = {b"COMMENT", b"FUNCTION", b"PROCEDURE", b"SECURITY LABEL"}
"""Kinds whose statements hold what may look like anything."""

Options = dict[str, str]
"""Of ``CREATE DATABASE`` or ``CREATE COLLATION``, without quotes."""


@dataclass(frozen=True, slots=True)
class Archive:
    """What the archive's table of contents says about its surroundings.

    Attributes:
        roles: Owners and grantees that its statements name.
        left_out: Subscriptions and publications, which a restore leaves out.
        options: How its database was created: ``ENCODING``, ``LOCALE_PROVIDER``, ``LC_COLLATE`` ...
        tablespaces: Where its tables and indexes were, but for the database's own tablespace.
        owners: Those of the roles that own something.
        named_roles: Those without which something can't be made: policies and user mappings are for them.
        superusers: What only a superuser makes, kind and name.
        named_collations: PostgreSQL's own ones that its definitions name.
        made_collations: How those are made that are its own: ``provider``, ``locale`` ...
        extensions: Those that it makes, each with the schema that it goes to.
        schemas: Those that it makes.
        closed: Its database let not everybody in.
    """

    roles: frozenset[str]
    left_out: tuple[str, ...]
    options: Options
    tablespaces: frozenset[str] = frozenset()
    owners: frozenset[str] = frozenset()
    named_roles: frozenset[str] = frozenset()
    superusers: tuple[str, ...] = ()
    named_collations: frozenset[str] = frozenset()
    made_collations: tuple[Options, ...] = ()
    extensions: Mapping[str, str] = field(default_factory=dict)
    schemas: frozenset[str] = frozenset()
    closed: bool = False


@dataclass(frozen=True, slots=True)
class _Entry:
    """One entry as the script has it, in the archive's encoding; the owner is ``-`` where there is none."""

    number: int
    kind: bytes
    name: bytes
    owner: bytes
    tablespace: bytes
    sql: bytes


def read_archive(
    client: Client, dump: Path, decode: Callable[[bytes], str], numbers: Collection[int] | None = None
) -> Archive:
    """Read the table of contents alone; the data need not be there.

    Args:
        client: Its pg_restore is asked.
        dump: The archive.
        decode: Reads the archive's encoding; `pgsteward.backup.archive.decoder` returns it.
        numbers: Of the entries that will be restored; None where all of them are.
    """
    listed = {number: what for number, _, what in archive_text.entries(client, dump)}
    argv: list[str | Path] = [client.tool("pg_restore"), "--schema-only", "--create", "--verbose"]
    script = run_tool([*argv, "--file=-", dump], env={}).stdout
    everything = list(_entries(script, listed))
    found = [
        entry
        for entry in everything
        if numbers is None or entry.number in numbers or entry.kind == b"DATABASE"
    ]
    owners = {entry.owner for entry in found} - {b"-", b""}
    named = {_unquoted(name) for name in _all(_MAPPED, found, b"USER MAPPING")}
    for names in _all(_POLICY, found, b"POLICY"):
        named |= {_unquoted(name.strip()) for name in names.split(b",")}
    grantees = {_unquoted(name) for name in _all(_GRANTEE, found, b"ACL", b"DEFAULT ACL")}
    created = _all(_CREATE, found, b"DATABASE")
    kinds = {entry.kind for entry in found} - _FREE_TEXT

    def read(names: Iterable[bytes]) -> frozenset[str]:
        return frozenset(read_name(name, decode) for name in names)

    def roles(names: Iterable[bytes]) -> frozenset[str]:
        return read(names) - _NO_ROLES

    def called(entries: Iterable[_Entry]) -> tuple[str, ...]:
        return tuple(f"{entry.kind.decode().lower()} {read_name(entry.name, decode)}" for entry in entries)

    return Archive(
        roles(owners | grantees | named),
        called(entry for entry in found if entry.kind in _LEFT_OUT),
        _options(read_name(created[0], decode)) if created else {},
        read(entry.tablespace for entry in found if entry.tablespace),
        read(owners),
        roles(named),
        called(entry for entry in found if _is_superusers(entry)),
        read(_unquoted(name) for name in _all(_COLLATED, found, *kinds)),
        tuple(_options(read_name(text, decode)) for text in _all(_COLLATION, found, b"COLLATION")),
        {
            read_name(entry.name, decode): read_name(_unquoted(match[1]), decode)
            for entry in found
            if entry.kind == b"EXTENSION" and (match := _EXTENDED.search(entry.sql))
        },
        read(entry.name for entry in found if entry.kind == b"SCHEMA"),
        any(map(_closes, everything)),
    )


def _entries(script: bytes, listed: Mapping[int, bytes]) -> Iterator[_Entry]:
    """Split a verbose script; the head of an entry in the body of a function is none of the list."""
    heads = [
        match
        for match in _ENTRY.finditer(script)
        if listed.get(int(match[1]), b"").startswith(b"%s %s %s " % (match[3], match[4], match[2]))
    ]
    ends = [match.start() for match in heads[1:]] + [len(script)]
    for match, end in zip(heads, ends, strict=True):
        sql = script[match.end() : end]
        yield _Entry(int(match[1]), match[3], match[2], match[5], match[6] or b"", sql)


def _closes(entry: _Entry) -> bool:
    """Tell whether an entry takes CONNECT away from PUBLIC, and does not give it back."""
    of_database = entry.kind == b"ACL" and entry.name.startswith(b"DATABASE ")
    return of_database and _PUBLIC.findall(entry.sql)[-1:] == [b"REVOKE"]


def _is_superusers(entry: _Entry) -> bool:
    among = _SUPERUSERS_BY_SQL.get(entry.kind)
    return entry.kind in _SUPERUSERS or (among is not None and among.match(entry.sql) is not None)


def _all(pattern: re.Pattern[bytes], entries: Iterable[_Entry], *kinds: bytes) -> list[bytes]:
    return [text for entry in entries if entry.kind in kinds for text in pattern.findall(entry.sql)]


def _options(text: str) -> Options:
    return {
        key: value[1:-1].replace("''", "'") if value.startswith("'") else value
        for key, value in _OPTION.findall(text)
    }


def read_name(text: bytes, decode: Callable[[bytes], str]) -> str:
    """Read a name that the server keeps for all databases, in the bytes of the one that it was made from."""
    with contextlib.suppress(UnicodeDecodeError):
        return text.decode()
    try:
        return decode(text)
    except (UnicodeDecodeError, QueryFailed):  # a name in no encoding that anybody knows
        return text.decode(errors="backslashreplace")


def _unquoted(name: bytes) -> bytes:
    return name[1:-1].replace(b'""', b'"') if name.startswith(b'"') else name
