"""One statement per file; `load` returns its bytes for psycopg."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def load(name: str, package: str = "pgsteward.sql") -> bytes:
    """Return the statement in ``<package>/<name>.sql``.

    Raises:
        FileNotFoundError: There is no such file; a programming mistake.
    """
    return files(package).joinpath(f"{name}.sql").read_bytes()
