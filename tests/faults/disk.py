"""A small disk that can be filled, and a limit on the size of files."""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_BEFORE = resource.getrlimit(resource.RLIMIT_FSIZE)


@dataclass(frozen=True, slots=True)
class Disk:
    """A tmpfs on a folder."""

    folder: Path

    @contextmanager
    def filled_later(self) -> Iterator[Callable[[], None]]:
        """Give what leaves no room when it is called; at the end there is room again."""
        filler = self.folder / "filler"

        def fill() -> None:
            with filler.open("wb", buffering=0) as file, suppress(OSError):
                while True:
                    file.write(bytes(1 << 16))

        try:
            yield fill
        finally:
            filler.unlink(missing_ok=True)


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[Disk | None]:
    """Mount a tmpfs on a new folder for a while; None where that is refused."""
    folder.mkdir(mode=0o700)
    options = f"size={size_bytes},mode=0700"
    try:
        command = ["mount", "-t", "tmpfs", "-o", options, "pgsteward-test", str(folder)]
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    try:
        yield Disk(folder) if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def limit_files(pids: Iterable[int], size_bytes: int) -> None:
    """Forbid processes to write files larger than this."""
    for pid in pids:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size_bytes, _BEFORE[1]))


def allow_files() -> None:
    """Let our own process write again."""
    resource.setrlimit(resource.RLIMIT_FSIZE, _BEFORE)
