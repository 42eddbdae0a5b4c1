"""Where pg_dump's archive goes, as far as a run of pg_dump cares."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol


class Destination(Protocol):
    """Takes an archive while pg_dump writes it."""

    @property
    def contents(self) -> Path:
        """Where pg_restore can read what has arrived of the archive."""
        ...

    def contents_stamp(self) -> object:
        """Return what is another when the contents were written again; None where they can't be."""
        ...

    def arguments(self, jobs: int) -> tuple[str, ...]:
        """Return the options that choose the format; they end up in the manifest."""
        ...

    def file_argument(self) -> tuple[str, ...]:
        """Return the option that names the file, if there is one."""
        ...

    @property
    def take_stdout(self) -> Callable[[IO[bytes]], None] | None:
        """What reads pg_dump's standard output, in a thread of its own; None where it writes files itself."""
        ...

    def has_begun(self) -> bool:
        """Tell whether the archive's head is there.

        pg_dump writes it when it has locked and described every table, before any row.
        """
        ...

    def bytes_written(self) -> int:
        """Return how much of the archive has arrived."""
        ...


@dataclass(frozen=True, slots=True)
class FolderDestination:
    """A folder that is empty or not there yet: the directory format, written by several workers.

    They are not synced: `pgsteward.backup.folder_hashes` does that, or they are encrypted and removed.
    """

    folder: Path

    @property
    def contents(self) -> Path:
        return self.folder

    def contents_stamp(self) -> tuple[int, ...]:
        status = (self.folder / "toc.dat").stat()
        return status.st_ino, status.st_size, status.st_mtime_ns

    def arguments(self, jobs: int) -> tuple[str, ...]:
        return ("--format=directory", f"--jobs={jobs}")

    def file_argument(self) -> tuple[str, ...]:
        return ("--no-sync", f"--file={self.folder}")

    @property
    def take_stdout(self) -> None:
        return None

    def has_begun(self) -> bool:
        return (self.folder / "toc.dat").exists()

    def bytes_written(self) -> int:
        with os.scandir(self.folder) as entries:
            return sum(entry.stat().st_size for entry in entries)
