"""The manifest: written last, in one put. A backup exists when its manifest exists.

Also the keys of everything around it::

    <target>/<database>/<backup-id>/dump/toc.dat  dump/4711.dat.zst ...      (mode "directory")
    <target>/<database>/<backup-id>/dump/archive.dump                        (mode "stream")
    <target>/<database>/<backup-id>/globals.sql.zst  database.sql.zst  RESTORE.md
    <target>/<database>/<backup-id>/manifest.json
    <target>/<database>/receipts/<time>-<backup-id>.json

Files of an encrypted backup end with ``.age``, but for the manifest and RESTORE.md.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import quote, unquote

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from pgsteward.errors import VerificationFailed

FORMAT_VERSION = 2
"""The newest that is understood. Plain directories are written as 1, which older versions read too."""
DUMP = "dump"
"""What holds the archive, below a backup's folder."""
TOC = f"{DUMP}/toc.dat"
STREAM = f"{DUMP}/archive.dump"
MANIFEST = "manifest.json"
SUFFIX = ".age"
"""What the name of an encrypted file ends with."""
MARK = "in-progress.json"
"""What a running backup leaves beside its files until the manifest is there; the janitor reads it."""
SEAL = "manifest_sha256"
"""Key of the manifest's hash of itself. It finds what an accident or an edit changed; it is no signature."""
BACKUP_ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{6}")

ProofLevel = Literal["full", "counts", "none"]
Mode = Literal["directory", "stream"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")  # a newer pgsteward may know more fields


class StoredFile(_Model):
    """One stored file. `path` is relative to the backup's folder; SHA-256 is of the stored bytes."""

    path: str
    size_bytes: int
    sha256: str


class Server(_Model):
    """The server that was dumped."""

    version: str
    version_num: int
    system_identifier: str | None
    encoding: str
    collate: str
    ctype: str


class Relation(_Model):
    """What the snapshot held of one table (kind ``r``) or materialized view (``m``); leaves, never parents.

    `hash_a` and `hash_b` are order-free sums under two seeds, as decimal text; None at level ``counts``.
    `moves_within` names the partitioned table among whose partitions a restore may place rows differently.
    """

    schema_name: str
    name: str
    kind: str
    rows: int | None
    hash_a: str | None = None
    hash_b: str | None = None
    not_examined: str | None = None
    moves_within: tuple[str, str] | None = None

    @property
    def key(self) -> tuple[str, str]:
        return self.schema_name, self.name


class Sequence(_Model):
    """A sequence's position, taken from the archive's SEQUENCE SET entry."""

    schema_name: str
    name: str
    last_value: int
    is_called: bool


class LargeObjects(_Model):
    """Number, bytes and content hash (order-free) of large objects; None where they could not be read."""

    count: int | None
    size_bytes: int | None = None
    hash_a: str | None = None
    hash_b: str | None = None
    not_examined: str | None = None


class Proof(_Model):
    """What a restored copy is compared with, taken inside the dump's own exported snapshot.

    `method` is how rows were hashed, `test_vector` the server's answers to fixed questions about that: one
    that answers differently is compared by counts.
    `schema_sha256` is of the archive's own schema script with a fixed restrict key and comments stripped.
    """

    level: ProofLevel
    method: str = "text-v1"
    test_vector: dict[str, str] = Field(default_factory=dict)
    relations: tuple[Relation, ...] = ()
    sequences: tuple[Sequence, ...] = ()
    large_objects: LargeObjects = LargeObjects(count=None)
    schema_sha256: str | None = None
    seconds: float = 0.0

    @property
    def rows(self) -> int:
        """Rows counted in all relations."""
        return sum(relation.rows or 0 for relation in self.relations)


class Encryption(_Model):
    """To whom the data files are encrypted (age; public keys), and where they lay clear before that."""

    recipients: tuple[str, ...]
    clear_files: Literal["nowhere", "tmpfs", "disk"]


class Manifest(_Model):
    """Everything that is known about one backup.

    `partial` says in clauses what was left out by the configuration; it is empty for a whole backup.
    `anomalies` is what earlier backups make unlikely, `uncovered_databases` names those of the server that no
    target looks after, `role_passwords` tells whether the script of roles holds password hashes.
    """

    format_version: int = 1
    backup_id: str
    target: str
    database: str
    started_at: AwareDatetime
    finished_at: AwareDatetime
    pgsteward_version: str
    server: Server
    client_version: str
    arguments: tuple[str, ...]
    compress: str
    jobs: int
    snapshot_id: str
    snapshot_lsn: str | None
    database_bytes: int
    extensions: dict[str, str] = Field(default_factory=dict)
    files: tuple[StoredFile, ...]
    proof: Proof
    not_in_dump: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    seconds: dict[str, float] = Field(default_factory=dict)
    mode: Mode = "directory"
    encryption: Encryption | None = None
    partial: tuple[str, ...] = ()
    anomalies: tuple[str, ...] = ()
    uncovered_databases: tuple[str, ...] = ()
    role_passwords: bool = False

    @property
    def archive(self) -> str:
        """What pg_restore is given, once it is decrypted."""
        return STREAM if self.mode == "stream" else DUMP

    @property
    def contents(self) -> str:
        """The stored file that says what the archive holds."""
        return (STREAM if self.mode == "stream" else TOC) + (SUFFIX if self.encryption else "")

    @property
    def size_bytes(self) -> int:
        """Bytes of all stored files but the manifest itself."""
        return sum(file.size_bytes for file in self.files)

    def to_bytes(self) -> bytes:
        """Return the JSON that is stored, its last key a hash of all the others."""
        data = self.model_dump(mode="json")
        return json.dumps({**data, SEAL: seal(data)}, indent=1, ensure_ascii=False).encode() + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Manifest:
        """Read a stored manifest.

        Raises:
            VerificationFailed: It is not a manifest, was changed since it was written, or is of a newer
                format than this version reads.
        """
        try:
            fields = json.loads(data)
        except ValueError as exc:
            raise VerificationFailed(f"{where} is damaged: the whole file: {exc}") from None
        try:
            manifest = cls.model_validate(fields)
        except ValidationError as exc:
            first = exc.errors()[0]
            key = ".".join(map(str, first["loc"])) or "the whole file"
            raise VerificationFailed(f"{where} is damaged: {key}: {first['msg']}") from None
        if manifest.format_version > FORMAT_VERSION:
            raise VerificationFailed(
                f"{where} has format {manifest.format_version}, this pgsteward reads up to {FORMAT_VERSION};"
                " use the version that wrote it, or RESTORE.md beside it"
            )
        said = fields.pop(SEAL, None)
        if said != seal(fields):
            raise VerificationFailed(
                f"{where} is damaged: it is not what was written, its own SHA-256 ({SEAL}) differs"
            )
        for file in manifest.files:
            parts = file.path.split("/")
            if file.path.startswith("/") or ".." in parts or "" in parts:
                raise VerificationFailed(f"{where} names a file outside its folder: {file.path!r}")
        return manifest


def seal(fields: dict[str, Any]) -> str:
    """Return the SHA-256 of a manifest's content; how its JSON is laid out does not matter."""
    return hashlib.sha256(
        json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
    ).hexdigest()


def new_backup_id(now: datetime) -> str:
    """Return an id that sorts by start: ``20261123T020000Z-7f3a9c``."""
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def folder_name(name: str) -> str:
    """Return a database's name as a folder name: safe in keys and on disk, and back by `database_name`."""
    quoted = quote(name, safe="")
    return "%2E" + quoted[1:] if quoted.startswith(".") else quoted


def database_name(folder: str) -> str:
    """Return the database's name for a folder made by `folder_name`."""
    return unquote(folder)


def catalog_prefix(target: str, database: str) -> str:
    """Return the key prefix below which all backups of one database live, with its slash."""
    return f"{target}/{folder_name(database)}/"


def backup_prefix(target: str, database: str, backup_id: str) -> str:
    """Return the key prefix of one backup, with its slash."""
    return f"{catalog_prefix(target, database)}{backup_id}/"
