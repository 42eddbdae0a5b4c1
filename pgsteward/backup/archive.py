"""What an archive says: its entries, sequence positions, schema script, and the database's own settings."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import LiteralString, Self

from pgsteward.backup.manifest import Sequence
from pgsteward.clients import Client
from pgsteward.errors import VerificationFailed
from pgsteward.pgtools import run_tool, start_tool
from pgsteward.postgres import Connection
from pgsteward.postgres_names import split_qualified

_ENTRY = re.compile(rb"^(\d+); \d+ (\d+) (.*)$", re.MULTILINE)
_SETVAL = re.compile(r"SELECT pg_catalog\.setval\('((?:[^']|'')*)', (-?\d+), (true|false)\);")
_HEADER = re.compile(
    rb"^(?:--|-- (?:Name|Data for Name|TOC entry|Dumped|Started on|Completed on|PostgreSQL database).*"
    rb"|\\(?:un)?restrict .*|)\n",
    re.MULTILINE,
)
_SCHEMA = re.compile(rb"^-- Name: .*; Type: [A-Z ]+; Schema: (?!-; Owner: )(.*); Owner: .*$", re.MULTILINE)
_DATABASE = re.compile(rb"(?:DATABASE|DATABASE PROPERTIES|(?:ACL|COMMENT|SECURITY LABEL) - DATABASE) ")
_TOO_NEW = re.compile(rb"^SET transaction_timeout = 0;\n", re.MULTILINE)
"""What a client from 17 on begins with, and a server before 17 refuses; psql's own session needs it not."""


_OPTIONS = re.compile(rb"^(ALTER (?:FOREIGN )?TABLE .* ALTER COLUMN .* SET \()(.*)\);\n", re.MULTILINE)
_VERSION = b"pg_attver="
"""What servers note of each column (15.20 and newer), in a place where older clients look for its options."""


@dataclass(frozen=True, slots=True)
class Contents:
    """All that a backup wants to know of its archive.

    Attributes:
        entries: See `entries`.
        sequence_script: What sets the positions of sequences; `positions` reads it.
        schema_sha256: See `schema_sha256`.
        database_sql: Makes the empty database: owner, locale, settings, rights, comment.
        has_versions: It holds the server's own versions of columns: see `without_versions`.
    """

    entries: list[tuple[int, int, bytes]]
    sequence_script: bytes
    schema_sha256: str
    database_sql: bytes
    has_versions: bool


def read(client: Client, dump: Path, still_wanted: Callable[[], None] | None = None) -> Contents:
    """Return an archive's contents; all of them come before the rows, which need not be there yet.

    Args:
        client: Its pg_restore is asked.
        dump: The archive.
        still_wanted: Called several times a second; what it raises ends pg_restore.

    Raises:
        ToolFailed: It can't be read, or is not there as a whole yet.
    """
    found = entries(client, dump, still_wanted)
    with ExitStack() as running:
        sequences, own = (
            running.enter_context(_Script(client, dump, numbers, *options)) if numbers else None
            for numbers, options in ((_sequence_sets(found), ()), (_own(found), ("--create",)))
        )
        schema = running.enter_context(start_tool(_schema_script(client, dump), env={}))
        script = schema.wait(still_wanted).stdout
        return Contents(
            found,
            sequences.text(still_wanted) if sequences else b"",
            _schema_sha256(script),
            _TOO_NEW.sub(b"", own.text(still_wanted)) if own else b"",
            without_versions(script) != script,
        )


def entries(
    client: Client, dump: Path, still_wanted: Callable[[], None] | None = None
) -> list[tuple[int, int, bytes]]:
    """Return (dump id, oid, description) of every entry, the database's own among them."""
    argv: list[str | Path] = [client.tool("pg_restore"), "--list", "--create", dump]
    listing = run_tool(argv, env={}, stop_check=still_wanted).stdout
    return [(int(m[1]), int(m[2]), m[3]) for m in _ENTRY.finditer(listing)]


def data_oids(found: list[tuple[int, int, bytes]]) -> set[int]:
    """Return the oids of the tables whose rows the archive holds."""
    return {oid for _, oid, description in found if description.startswith(b"TABLE DATA ")}


def _sequence_sets(found: list[tuple[int, int, bytes]]) -> list[int]:
    return [number for number, _, description in found if description.startswith(b"SEQUENCE SET ")]


def positions(
    said: bytes, found: list[tuple[int, int, bytes]], decode: Callable[[bytes], str]
) -> tuple[Sequence, ...]:
    """Return the sequence positions that a restore sets.

    Args:
        said: `Contents.sequence_script`.
        found: `Contents.entries`.
        decode: Reads the archive's encoding; `decoder` returns it.

    Raises:
        VerificationFailed: The script is not understood.
    """
    wanted = _sequence_sets(found)
    script = decode(said) if wanted else ""
    each_position = []
    for match in _SETVAL.finditer(script):
        schema, name = split_qualified(match[1].replace("''", "'"))
        each_position.append(
            Sequence(schema_name=schema, name=name, last_value=int(match[2]), is_called=match[3] == "true")
        )
    if len(each_position) != len(wanted):
        raise VerificationFailed(
            f"the archive lists {len(wanted)} sequence positions, but prints {len(each_position)}"
        )
    return tuple(sorted(each_position, key=lambda each: (each.schema_name, each.name)))


def decoder(session: Connection, encoding: str) -> Callable[[bytes], str]:
    """Return what reads text in a database's encoding: the server does, as Python does not know all of them.

    Args:
        session: To any database of the server.
        encoding: PostgreSQL's name of the encoding.
    """
    if encoding in {"UTF8", "SQL_ASCII"}:
        return bytes.decode
    statement: LiteralString = "SELECT encode(convert(%(text)s, %(encoding)s, 'UTF8'), 'hex')"

    def decode(text: bytes) -> str:
        return bytes.fromhex(session.value(statement, {"text": text, "encoding": encoding})).decode()

    return decode


def schema_sha256(client: Client, dump: Path) -> str:
    r"""Return the hash of the archive's schema script, less pg_dump's own comments and ``\restrict`` keys."""
    return _schema_sha256(run_tool(_schema_script(client, dump), env={}).stdout)


def schemas(client: Client, dump: Path, decode: Callable[[bytes], str]) -> set[str]:
    """Return the schemas that an archive's objects are in."""
    script = run_tool(_schema_script(client, dump), env={}).stdout
    return {decode(found) for found in _SCHEMA.findall(script)}


def _schema_script(client: Client, dump: Path) -> list[str | Path]:
    return [client.tool("pg_restore"), "--schema-only", "--file=-", dump]


def _schema_sha256(script: bytes) -> str:
    return hashlib.sha256(without_comments(script)).hexdigest()


def without_comments(script: bytes) -> bytes:
    """Return a script without empty lines and pg_dump's own comments and keys, which are other each time."""
    return _HEADER.sub(b"", script + b"\n")


def without_versions(script: bytes) -> bytes:
    """Leave out of a script what a server notes of each column by itself, other numbers in every database.

    A client that does not know of it takes it for an option and writes it down. The server that was dumped
    takes no notice of such a line; one that does not know of it either refuses the table.
    """

    def others(match: re.Match[bytes]) -> bytes:
        options = [each for each in match[2].split(b", ") if not each.startswith(_VERSION)]
        return b"%s%s);\n" % (match[1], b", ".join(options)) if options else b""

    return _OPTIONS.sub(others, script)


def _own(found: list[tuple[int, int, bytes]]) -> list[int]:
    return [number for number, _, description in found if _DATABASE.match(description)]


def script_of(client: Client, dump: Path, numbers: list[int], *options: str) -> bytes:
    """Return the SQL of some entries, chosen by dump id."""
    with _Script(client, dump, numbers, *options) as script:
        return script.text()


class _Script:
    """pg_restore on its way to print the SQL of some entries."""

    def __init__(self, client: Client, dump: Path, numbers: list[int], *options: str) -> None:
        self._program, self._dump, self._options = client.tool("pg_restore"), dump, options
        self._list = b"".join(b"%d;\n" % number for number in numbers)
        self._held = ExitStack()

    def __enter__(self) -> Self:
        with self._held as held:
            file = held.enter_context(tempfile.NamedTemporaryFile(prefix="pgsteward-", suffix=".list"))
            file.write(self._list)
            file.flush()
            chosen = f"--use-list={file.name}"
            argv: list[str | Path] = [self._program, chosen, *self._options, "--file=-", self._dump]
            self._tool = held.enter_context(start_tool(argv, env={}))
            self._held = held.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()

    def text(self, still_wanted: Callable[[], None] | None = None) -> bytes:
        return self._tool.wait(still_wanted).stdout
