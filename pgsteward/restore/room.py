"""Is there room: on this machine for what is downloaded, and on the server for the database."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from pgsteward import capacity
from pgsteward.backup.manifest import Manifest
from pgsteward.postgres import Row
from pgsteward.report.units import humanize_bytes
from pgsteward.restore.checks import Check

_HERE = "disk here"
_THERE = "disk of the server"


@dataclass(frozen=True, slots=True)
class _Disk:
    """A file system, by the folder of it that was asked."""

    device: int
    folder: Path
    free_bytes: int

    @classmethod
    def of(cls, folder: Path) -> _Disk:
        free, there = capacity.free_bytes(folder)
        return cls(there.stat().st_dev, there, free)

    def __str__(self) -> str:
        return f"{humanize_bytes(self.free_bytes)} are free in {self.folder}"


def examine(
    manifest: Manifest,
    server: Row,
    spool: Path | None,
    *,
    copies: int = 1,
    home: str | None = None,
    tablespaces: Collection[str] = (),
) -> list[Check]:
    """Look for room; what goes onto the same file system has to fit there together.

    Args:
        manifest: Of the backup, narrowed to the part.
        server: From ``restore_server.sql``.
        spool: Where the files will be downloaded to; None when they are on this machine.
        copies: How often the rows will lie on the server at the same time.
        home: The tablespace of the database; the server's default when None.
        tablespaces: The others that its tables and indexes go to.
    """
    here = None if spool is None else _Disk.of(spool)
    folders = _folders(server, {home or "pg_default", *tablespaces})
    disks = {disk.device: disk for disk in map(_Disk.of, folders)}
    needed = manifest.database_bytes * copies
    checks = []
    if here is not None:
        beside = needed if list(disks) == [here.device] else 0
        checks.append(_enough(_HERE, here, manifest.size_bytes, "for the download", beside))
    if not disks:
        return [*checks, Check(_THERE, "unknown", "its data folder can't be seen from here")]
    beside = manifest.size_bytes if here is not None and here.device in disks else 0
    what = "for the database" if copies == 1 else "for the table, which is there twice for a while"
    if len(disks) == 1:
        checks.append(_enough(_THERE, next(iter(disks.values())), needed, what, beside))
    else:
        checks.append(_shared(list(disks.values()), needed + beside, what))
    return checks


def _folders(server: Row, names: Collection[str]) -> list[Path]:
    """Return where tablespaces are; nothing where one of them can't be seen from here."""
    data = server["data_directory"]
    if data is None or not server["same_machine"]:
        return []
    known = server["tablespace_folders"]
    folders = [Path(data) / known[name] for name in sorted(names) if name in known]
    return folders if all(os.access(folder, os.F_OK) for folder in folders) else []


def _enough(name: str, disk: _Disk, needed: int, what: str, beside: int) -> Check:
    says = f"{disk}, {humanize_bytes(needed)} are needed {what}"
    if beside:
        says += f", and {humanize_bytes(beside)} beside it"
    if disk.free_bytes >= needed + beside:
        return Check(name, "go", says)
    return Check(name, "no-go", says, f"make room in {disk.folder}")


def _shared(disks: list[_Disk], needed: int, what: str) -> Check:
    """Judge several file systems: a backup does not say how much of it goes to which tablespace."""
    says = f"{', '.join(map(str, disks))}, {humanize_bytes(needed)} are needed {what} on all of them"
    if all(disk.free_bytes >= needed for disk in disks):
        return Check(_THERE, "go", says)
    if sum(disk.free_bytes for disk in disks) < needed:
        return Check(_THERE, "no-go", says, "make room there")
    fix = (
        "look how much the original has in each tablespace (psql: \\db+), or leave them out: --no-tablespaces"
    )
    return Check(_THERE, "warning", f"{says}; which of it needs how much is not known", fix)
