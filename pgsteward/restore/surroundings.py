"""What an archive's table of contents says about the server that it came from."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from pgsteward.backup import archive as archive_text
from pgsteward.clients import Client
from pgsteward.errors import QueryFailed
from pgsteward.pgtools import run_tool

_OWNER = re.compile(rb"^-- .*; Owner: (.+?)(?:; Tablespace: .*)?$", re.MULTILINE)
_GRANTEE = re.compile(
    rb"^(?:ALTER DEFAULT PRIVILEGES .* )?(?:GRANT|REVOKE) .* (?:TO|FROM) (\"(?:[^\"]|\"\")+\"|\S+?)"
    rb"(?: WITH GRANT OPTION)?(?: GRANTED BY .*)?;$",
    re.MULTILINE,
)
_POLICY = re.compile(rb"^CREATE POLICY .* TO (.+?)(?: USING| WITH CHECK|;)", re.MULTILINE)
_LEFT_OUT = re.compile(rb"^-- Name: (.+?); Type: (SUBSCRIPTION|PUBLICATION);", re.MULTILINE)
_CREATE = re.compile(rb"^CREATE DATABASE .*? WITH (TEMPLATE = .*);$", re.MULTILINE)
_TABLESPACE = re.compile(rb"^SET default_tablespace = (\"(?:[^\"]|\"\")+\"|[^'\s]+);$", re.MULTILINE)
_COLLATED = re.compile(rb" COLLATE pg_catalog\.(\"(?:[^\"]|\"\")+\"|\w+)")
_COLLATION = re.compile(
    rb"; Type: COLLATION; .*\n--\n\nCREATE COLLATION .*? \((provider = .*)\);$", re.MULTILINE
)
_SUPERUSERS = re.compile(
    rb"^-- Name: (.+?); Type: (ACCESS METHOD|EVENT TRIGGER|FOREIGN DATA WRAPPER|OPERATOR CLASS"
    rb"|OPERATOR FAMILY|SHELL TYPE|TEXT SEARCH PARSER|TEXT SEARCH TEMPLATE);",
    re.MULTILINE,
)
_OPTION = re.compile(r"(\w+) = ('(?:[^']|'')*'|\w+)")


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
        superusers: What only a superuser makes, kind and name.
        named_collations: PostgreSQL's own ones that its definitions name.
        made_collations: How those are made that are its own: ``provider``, ``locale`` ...
    """

    roles: frozenset[str]
    left_out: tuple[str, ...]
    options: Options
    tablespaces: frozenset[str] = frozenset()
    owners: frozenset[str] = frozenset()
    superusers: tuple[str, ...] = ()
    named_collations: frozenset[str] = frozenset()
    made_collations: tuple[Options, ...] = ()


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
    if numbers is None:
        argv: list[str | Path] = [client.tool("pg_restore"), "--schema-only", "--create", "--file=-", dump]
        script = run_tool(argv, env={}).stdout
    else:
        entries = archive_text.entries(client, dump)
        kept = [number for number, _, what in entries if number in numbers or what.startswith(b"DATABASE ")]
        script = archive_text.script_of(client, dump, kept, "--schema-only", "--create")
    owners = {name for name in _OWNER.findall(script) if name != b"-"}
    raw = owners | {_unquoted(name) for name in _GRANTEE.findall(script)}
    for names in _POLICY.findall(script):
        raw |= {_unquoted(name.strip()) for name in names.split(b",")}
    roles = {read_name(name, decode) for name in raw}
    created = _CREATE.search(script)
    options = _options(read_name(created[1], decode)) if created else {}
    tablespaces = frozenset(read_name(_unquoted(name), decode) for name in _TABLESPACE.findall(script))
    made = [_options(read_name(text, decode)) for text in _COLLATION.findall(script)]
    return Archive(
        frozenset(roles - {"PUBLIC", "CURRENT_USER", "SESSION_USER", ""}),
        tuple(_kinds_and_names(_LEFT_OUT, script, decode)),
        options,
        tablespaces,
        frozenset(read_name(name, decode) for name in owners),
        tuple(_kinds_and_names(_SUPERUSERS, script, decode)),
        frozenset(read_name(_unquoted(name), decode) for name in _COLLATED.findall(script)),
        tuple(made),
    )


def _options(text: str) -> Options:
    return {
        key: value[1:-1].replace("''", "'") if value.startswith("'") else value
        for key, value in _OPTION.findall(text)
    }


def _kinds_and_names(
    pattern: re.Pattern[bytes], script: bytes, decode: Callable[[bytes], str]
) -> Iterator[str]:
    for name, kind in pattern.findall(script):
        yield f"{read_name(kind, decode).lower()} {read_name(name, decode)}"


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
