"""What an archive says: its entries, sequence positions, schema script, and the database's own settings."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import LiteralString

from pgsteward.backup.manifest import Sequence
from pgsteward.errors import VerificationFailed
from pgsteward.pgtools import Client, run_tool
from pgsteward.postgres import Connection
from pgsteward.postgres_names import split_qualified

_ENTRY = re.compile(rb"^(\d+); \d+ (\d+) (.*)$", re.MULTILINE)
_SETVAL = re.compile(r"SELECT pg_catalog\.setval\('((?:[^']|'')*)', (-?\d+), (true|false)\);")
_HEADER = re.compile(
    rb"^(?:--|-- (?:Name|Data for Name|TOC entry|Dumped|Started on|Completed on|PostgreSQL database).*"
    rb"|\\(?:un)?restrict .*|)$"
)
_TOO_NEW = re.compile(rb"^SET transaction_timeout = 0;\n", re.MULTILINE)
"""What a client from 17 on begins with, and a server before 17 refuses; psql's own session needs it not."""


def entries(client: Client, dump: Path) -> list[tuple[int, int, bytes]]:
    """Return (dump id, oid, description) of every entry, the database's own among them."""
    listing = run_tool([client.tool("pg_restore"), "--list", "--create", dump], env={}).stdout
    return [(int(m[1]), int(m[2]), m[3]) for m in _ENTRY.finditer(listing)]


def data_oids(found: list[tuple[int, int, bytes]]) -> set[int]:
    """Return the oids of the tables whose rows the archive holds."""
    return {oid for _, oid, description in found if description.startswith(b"TABLE DATA ")}


def sequences(
    client: Client, dump: Path, found: list[tuple[int, int, bytes]], decode: Callable[[bytes], str]
) -> tuple[Sequence, ...]:
    """Return the sequence positions that a restore sets.

    Args:
        client: Its pg_restore is asked.
        dump: The archive's folder.
        found: What `entries` returned.
        decode: Reads the archive's encoding; `decoder` returns it.

    Raises:
        VerificationFailed: The archive's answer is not understood.
    """
    wanted = [number for number, _, description in found if description.startswith(b"SEQUENCE SET ")]
    if not wanted:
        return ()
    script = decode(script_of(client, dump, wanted))
    positions = []
    for match in _SETVAL.finditer(script):
        schema, name = split_qualified(match[1].replace("''", "'"))
        positions.append(
            Sequence(schema_name=schema, name=name, last_value=int(match[2]), is_called=match[3] == "true")
        )
    if len(positions) != len(wanted):
        raise VerificationFailed(
            f"the archive lists {len(wanted)} sequence positions, but prints {len(positions)}"
        )
    return tuple(sorted(positions, key=lambda each: (each.schema_name, each.name)))


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
    digest = hashlib.sha256()
    script = run_tool([client.tool("pg_restore"), "--schema-only", "--file=-", dump], env={}).stdout
    for line in script.split(b"\n"):
        if not _HEADER.match(line):
            digest.update(line + b"\n")
    return digest.hexdigest()


def database_sql(client: Client, dump: Path, found: list[tuple[int, int, bytes]]) -> bytes:
    """Return the script that makes the empty database: owner, locale, settings, rights, comment."""
    own = re.compile(rb"(?:DATABASE|DATABASE PROPERTIES|(?:ACL|COMMENT|SECURITY LABEL) - DATABASE) ")
    wanted = [number for number, _, description in found if own.match(description)]
    script = script_of(client, dump, wanted, "--create") if wanted else b""
    return _TOO_NEW.sub(b"", script)


def script_of(client: Client, dump: Path, numbers: list[int], *options: str) -> bytes:
    """Return the SQL of some entries, chosen by dump id."""
    with tempfile.NamedTemporaryFile(prefix="pgsteward-", suffix=".list") as listing:
        listing.write(b"".join(b"%d;\n" % number for number in numbers))
        listing.flush()
        chosen = f"--use-list={listing.name}"
        return run_tool([client.tool("pg_restore"), chosen, *options, "--file=-", dump], env={}).stdout
