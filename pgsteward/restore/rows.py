"""The rows of one table as an archive holds them, for COPY into any table: pg_restore only reads them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from pgsteward.clients import Client
from pgsteward.errors import VerificationFailed
from pgsteward.pgtools import start_tool
from pgsteward.postgres_names import split_copy

_COPY = b"COPY "
_FROM = b" FROM stdin;\n"
_END = b"\\.\n"
_CHUNK = 1 << 17

Take = Callable[[tuple[str, str], tuple[str, ...], Iterator[bytes]], None]


def read_rows(client: Client, archive: Path, number: int, decode: Callable[[bytes], str], take: Take) -> None:
    """Hand the rows of one ``TABLE DATA`` entry to `take`, as they come; only a few are held at a time.

    Args:
        client: Its pg_restore is asked.
        archive: The archive, with the file that holds these rows.
        number: Of the entry.
        decode: Reads the archive's encoding.
        take: Is given the table that they are for (a partitioned one, where a restore has to place the rows
            anew), the names of the columns, and the rows as COPY writes text, in the archive's encoding. It
            is called in another thread, and must read to the end.

    Raises:
        VerificationFailed: The rows have no end: the archive is cut off.
        ToolFailed: pg_restore can't read them.
    """

    def from_script(script: IO[bytes]) -> None:
        for line in script:
            if line.startswith(_COPY) and line.endswith(_FROM):
                take(*split_copy(decode(line[len(_COPY) : -len(_FROM)])), _rows(script))
                break
        else:
            raise VerificationFailed(f"entry {number} of the archive has no rows, but should")
        while script.read(_CHUNK):
            pass

    with tempfile.NamedTemporaryFile(prefix="pgsteward-", suffix=".list") as listing:
        listing.write(b"%d;\n" % number)
        listing.flush()
        argv: list[str | Path] = [
            client.tool("pg_restore"),
            f"--use-list={listing.name}",
            "--file=-",
            archive,
        ]
        with start_tool(argv, env={}, take_stdout=from_script) as tool:
            tool.wait()


def _rows(script: IO[bytes]) -> Iterator[bytes]:
    """Yield everything up to the line that ends the rows; no row is written like it."""
    held = b"\n"  # as before a line; its own is not yielded
    first = True
    while chunk := script.read(_CHUNK):
        held += chunk
        end = held.find(b"\n" + _END)
        kept = held[: end + 1] if end >= 0 else held[: -len(_END)]
        if kept:
            yield kept[1:] if first else kept
            first = False
        if end >= 0:
            return
        held = held[-len(_END) :]
    raise VerificationFailed("the rows of a table have no end in the archive: it is cut off")
