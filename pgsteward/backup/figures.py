"""The few figures of earlier backups that the next one is compared with.

To check the manifest of 20,000 tables takes 0.3 s, and a backup asks for up to 14 of them. What one says is
kept in the state folder under the SHA-256 of its bytes. These are read and hashed each time: who finds the
very bytes that were checked before takes what was found then. Where the state is lost, all are checked again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from pgsteward.backup.listing import checked_manifest
from pgsteward.backup.manifest import MANIFEST, Manifest, backup_prefix
from pgsteward.errors import ConfigError
from pgsteward.places import state_folder
from pgsteward.postgres import quote_name
from pgsteward.storage import Store

ROWS = 1000
"""Tables with more rows than this are kept by name."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What a manifest says of a backup's size.

    Attributes:
        counted: Every table was counted, so that `rows` means something.
        large: Rows of each table with more than `ROWS` of them, by quoted name.
    """

    backup_id: str
    database: str
    compress: str
    mode: str
    partial: tuple[str, ...]
    size_bytes: int
    counted: bool
    rows: int
    large: Mapping[str, int]

    @classmethod
    def of(cls, manifest: Manifest) -> Figures:
        proof = manifest.proof
        counted = all(relation.rows is not None for relation in proof.relations if relation.kind == "r")
        return cls(
            backup_id=manifest.backup_id,
            database=manifest.database,
            compress=manifest.compress,
            mode=manifest.mode,
            partial=manifest.partial,
            size_bytes=manifest.size_bytes,
            counted=proof.level != "none" and counted,
            rows=proof.rows,
            large={name: rows for name, rows in rows_by_table(manifest).items() if rows > ROWS},
        )


def rows_by_table(manifest: Manifest) -> dict[str, int]:
    """Return rows by quoted name; the partitions between which rows may move count together."""
    rows: dict[str, int] = {}
    for relation in manifest.proof.relations:
        if relation.kind == "r" and relation.rows is not None:
            name = quote_name(*(relation.moves_within or relation.key))
            rows[name] = rows.get(name, 0) + relation.rows
    return rows


class Earlier:
    """Reads the figures of one database's backups, and keeps those that it was asked for."""

    def __init__(self, target_name: str, database: str) -> None:
        """Read what was kept.

        Args:
            target_name: Name of the target.
            database: Name of the database.
        """
        self._target_name, self._database = target_name, database
        self._file = _file(target_name, database)
        self._known = _kept(self._file)
        self._asked: dict[str, Figures] = {}

    def read(self, store: Store, backup_id: str) -> Figures:
        """Return the figures of one backup; raises as `pgsteward.backup.listing.read_manifest` does."""
        data = store.get_bytes(backup_prefix(self._target_name, self._database, backup_id) + MANIFEST)
        digest = hashlib.sha256(data).hexdigest()
        found = self._asked.get(digest) or self._known.get(digest)
        if found is None or (found.backup_id, found.database) != (backup_id, self._database):
            found = Figures.of(checked_manifest(data, store, self._target_name, self._database, backup_id))
        self._asked[digest] = found
        return found

    def keep(self, manifest: Manifest, data: bytes) -> None:
        """Keep for the next run what was asked for, and a backup that has just been made.

        A machine that can't will check them again.

        Args:
            manifest: Of the new backup.
            data: As it was stored.
        """
        self._asked[hashlib.sha256(data).hexdigest()] = Figures.of(manifest)
        if self._file is None:
            return
        figures = {digest: asdict(each) for digest, each in self._asked.items()}
        partial = self._file.with_name(f"{self._file.name}.{secrets.token_hex(4)}")
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                partial.write_text(json.dumps({"version": version("pgsteward"), "figures": figures}))
                partial.replace(self._file)
            finally:
                partial.unlink(missing_ok=True)


def _file(target_name: str, database: str) -> Path | None:
    digest = hashlib.sha256(json.dumps([target_name, database]).encode()).hexdigest()[:16]
    try:
        return state_folder() / "stores" / f"figures-{digest}.json"
    except ConfigError:  # no home, no memory
        return None


def _kept(file: Path | None) -> dict[str, Figures]:
    """Return what was kept by this very version: another may check more, or keep other figures."""
    if file is None:
        return {}
    try:
        kept = json.loads(file.read_bytes())
        if kept["version"] != version("pgsteward"):
            return {}
        return {
            digest: Figures(**{**each, "partial": tuple(each["partial"])})
            for digest, each in kept["figures"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
