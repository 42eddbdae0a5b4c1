"""What pg_dump of one database leaves out: roles and tablespaces."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import zstandard

from pgsteward.clients import Client
from pgsteward.errors import VerificationFailed
from pgsteward.pgtools import run_tool, tool_env
from pgsteward.postgres import Login, database_argument

GLOBALS = "globals.sql.zst"
DATABASE = "database.sql.zst"


def globals_sql(
    client: Client,
    login: Login,
    *,
    passwords: bool = False,
    still_wanted: Callable[[], None] | None = None,
) -> bytes:
    """Return the script that makes roles and tablespaces.

    Args:
        client: Its pg_dumpall is run.
        login: To any database of the server.
        passwords: With the hashes of passwords, which only a superuser may ask for; any role may without.
        still_wanted: Called several times a second; what it raises ends pg_dumpall.

    Raises:
        ToolFailed: The server refuses, as some managed ones do.
    """
    argv: list[str | Path] = [
        client.tool("pg_dumpall"),
        "--globals-only",
        *([] if passwords else ["--no-role-passwords"]),
        "--no-password",
        f"--database={database_argument(login.dbname)}",
        f"--dbname={login.conninfo}",
    ]
    return run_tool(argv, env=tool_env(login, "globals"), stop_check=still_wanted).stdout


def compress(script: bytes) -> bytes:
    """Return a script as one zstd frame with its own checksum; ``zstd -d`` reads it."""
    return zstandard.ZstdCompressor(level=10, write_checksum=True, write_content_size=True).compress(script)


def decompress(data: bytes) -> bytes:
    """Return the script in a frame that `compress` wrote.

    Raises:
        VerificationFailed: It is none.
    """
    try:
        return zstandard.ZstdDecompressor().decompress(data)
    except zstandard.ZstdError as exc:
        raise VerificationFailed(f"it is no script in a frame of zstd: {exc}") from exc
