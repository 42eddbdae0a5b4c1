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

from pgsteward.errors import DamagedBackup, VerificationFailed

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
_LINES = (",\n  ", ": ")
_LINE = re.compile(rb"\n *")
_EMPTY_LINE = re.compile(rb"\n *\n")
BACKUP_ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{6}")

ProofLevel = Literal["full", "counts", "none"]
Mode = Literal["directory", "stream"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")  # a newer pgsteward may know more fields


class StoredFile(_Model):
    """One stored file."""

    path: str = Field(description="Relative to the backup's folder.")
    size_bytes: int = Field(description="Of the stored file, compressed and encrypted as it is.")
    sha256: str = Field(description="Of the stored bytes, in lower-case hexadecimal.")


class Server(_Model):
    """The server that was dumped."""

    version: str = Field(description="As it calls itself: 17.10.")
    version_num: int = Field(description="The same as a number: 170010.")
    system_identifier: str | None = Field(description="Of its cluster; null where the role may not ask.")
    encoding: str = Field(description="Of the database, e.g. UTF8.")
    collate: str = Field(description="LC_COLLATE of the database.")
    ctype: str = Field(description="LC_CTYPE of the database.")
    collation_version: str | None = Field(
        None,
        description="Version of libc or ICU that the database sorts by; null before PostgreSQL 15, and where"
        " there is none.",
    )


class Relation(_Model):
    """What the snapshot held of one table or materialized view; leaves, never parents."""

    schema_name: str = Field(description="Its schema.")
    name: str = Field(description="Its name, without quotes.")
    kind: str = Field(description="`r` for a table, `m` for a materialized view.")
    rows: int | None = Field(description="Number of rows; null where it was not examined.")
    hash_a: str | None = Field(
        None, description="Order-free sum of the rows' hashes, as decimal text; null at level `counts`."
    )
    hash_b: str | None = Field(None, description="The same under another seed.")
    generated_a: str | None = Field(
        None,
        description="The same of its stored generated columns alone, which are not in `hash_a`, as a restore"
        " computes them anew; null where there are none.",
    )
    generated_b: str | None = Field(None, description="The same under another seed.")
    not_examined: str | None = Field(None, description="Why it was not examined; null where it was.")
    moves_within: tuple[str, str] | None = Field(
        None,
        description="Schema and name of the partitioned table among whose partitions a restore may place rows"
        " differently; they are compared together.",
    )

    @property
    def key(self) -> tuple[str, str]:
        return self.schema_name, self.name


class Configuration(Relation):
    """What the snapshot held of a table in which an extension keeps what its users set."""

    extension: str = Field(description="Whose table it is.")
    condition: str = Field(
        description="Which of its rows are dumped, as the extension says it: `WHERE ...`; empty for all."
    )


class Sequence(_Model):
    """A sequence's position, taken from the archive's SEQUENCE SET entry."""

    schema_name: str = Field(description="Its schema.")
    name: str = Field(description="Its name, without quotes.")
    last_value: int = Field(description="As setval takes it.")
    is_called: bool = Field(description="Whether nextval gives the value after `last_value`.")


class LargeObjects(_Model):
    """What the snapshot held of large objects."""

    count: int | None = Field(description="Number of them; null where they were not examined.")
    size_bytes: int | None = Field(None, description="Of all together.")
    hash_a: str | None = Field(
        None, description="Order-free sum of their content's hashes, as decimal text; null at level `counts`."
    )
    hash_b: str | None = Field(None, description="The same under another seed.")
    not_examined: str | None = Field(None, description="Why they were not examined; null where they were.")


class Proof(_Model):
    """What a restored copy is compared with, taken inside the dump's own exported snapshot."""

    level: ProofLevel = Field(
        description="`full` counts and hashes every row, `counts` counts, `none` does neither."
    )
    method: str = Field("text-v1", description="How rows were hashed; a comparison needs the same.")
    test_vector: dict[str, str] = Field(
        default_factory=dict,
        description="The server's answers to fixed questions about its hash functions; a server that answers"
        " differently is compared by counts.",
    )
    relations: tuple[Relation, ...] = Field((), description="Every table and materialized view.")
    configuration: tuple[Configuration, ...] | None = Field(
        None,
        description="Tables of extensions whose rows are dumped, these rows alone; null where an older"
        " version has not looked at them.",
    )
    sequences: tuple[Sequence, ...] = Field((), description="Every sequence.")
    large_objects: LargeObjects = Field(LargeObjects(count=None), description="Large objects.")
    schema_sha256: str | None = Field(
        None,
        description="SHA-256 of the archive's own schema script, with a fixed restrict key and comments"
        " stripped.",
    )
    seconds: float = Field(0.0, description="How long it took, in seconds; it ran beside the dump.")

    @property
    def tables(self) -> tuple[Relation, ...]:
        """Relations, and those of extensions."""
        return *self.relations, *(self.configuration or ())

    @property
    def rows(self) -> int:
        """Rows counted in all relations."""
        return sum(relation.rows or 0 for relation in self.relations)


class Encryption(_Model):
    """To whom the data files are encrypted with age."""

    recipients: tuple[str, ...] = Field(description="Public keys; any one of their identities opens it.")
    clear_files: Literal["nowhere", "tmpfs", "disk"] = Field(
        description="Where the dump lay clear before it was encrypted."
    )


class Manifest(_Model):
    """Everything that is known about one backup of one database; it is written last."""

    format_version: int = Field(
        1, description="1 for whole directories in the clear, else 2; a reader refuses what it does not know."
    )
    backup_id: str = Field(description="UTC start and a random tail: 20261123T020000Z-7f3a9c.")
    target: str = Field(description="Name of the target in the configuration.")
    database: str = Field(description="Name of the database.")
    started_at: AwareDatetime = Field(description="When the backup began, UTC.")
    finished_at: AwareDatetime = Field(description="When all of its files were written, UTC.")
    pgsteward_version: str = Field(description="What made it.")
    server: Server = Field(description="What was dumped.")
    client_version: str = Field(description="Of pg_dump; pg_restore must be as new.")
    arguments: tuple[str, ...] = Field(description="Of pg_dump, without anything secret.")
    compress: str = Field(description="Codec and level as pg_dump takes them: zstd:1, gzip:6, none.")
    jobs: int = Field(description="Workers of pg_dump.")
    snapshot_id: str = Field(description="The exported snapshot that dump and proof share.")
    snapshot_lsn: str | None = Field(
        description="WAL position of the snapshot; null where it can't be asked."
    )
    snapshot_at: AwareDatetime | None = Field(
        None,
        description="When the snapshot was taken, UTC: the moment that a restore brings back. Null where an"
        " older version has not written it.",
    )
    database_bytes: int = Field(description="Size of the database on the server, in bytes.")
    extensions: dict[str, str] = Field(default_factory=dict, description="Versions by name.")
    files: tuple[StoredFile, ...] = Field(description="Every stored file but the manifest.")
    proof: Proof = Field(description="What a restored copy is compared with.")
    not_in_dump: tuple[str, ...] = Field((), description="What the dump does not hold, each with its reason.")
    warnings: tuple[str, ...] = Field((), description="What pg_dump and pgsteward warned of.")
    seconds: dict[str, float] = Field(default_factory=dict, description="Seconds by phase, and `total`.")
    mode: Mode = Field(
        "directory", description="pg_dump's directory format, or one custom-format archive (`stream`)."
    )
    encryption: Encryption | None = Field(None, description="Null for a backup in the clear.")
    partial: tuple[str, ...] = Field(
        (), description="What the configuration left out, in clauses; empty for a whole backup."
    )
    anomalies: tuple[str, ...] = Field((), description="What earlier backups make unlikely.")
    uncovered_databases: tuple[str, ...] = Field(
        (), description="Databases of the server that no target looked after."
    )
    role_passwords: bool = Field(
        default=False, description="Whether the script of roles holds password hashes."
    )

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
        return laid_out({**data, SEAL: seal(data)})

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Manifest:
        """Read a stored manifest.

        Raises:
            DamagedBackup: It is not a manifest, or was changed since it was written.
            VerificationFailed: It is of a newer format than this version reads.
        """
        try:
            fields = json.loads(data)
        except ValueError as exc:
            raise DamagedBackup(f"{where} is damaged: the whole file: {exc}") from None
        written = fields.get("format_version") if isinstance(fields, dict) else None
        if isinstance(written, int) and written > FORMAT_VERSION:
            raise VerificationFailed(
                f"{where} has format {written}, this pgsteward reads up to {FORMAT_VERSION};"
                " use the version that wrote it, or RESTORE.md beside it"
            )
        try:
            manifest = cls.model_validate(fields)
        except ValidationError as exc:
            first = exc.errors()[0]
            key = ".".join(map(str, first["loc"])) or "the whole file"
            raise DamagedBackup(f"{where} is damaged: {key}: {first['msg']}") from None
        as_written = _as_laid_out(data, fields)
        said = fields.pop(SEAL, None)
        if said != seal(fields):
            raise DamagedBackup(
                f"{where} is damaged: it is not what was written, its own SHA-256 ({SEAL}) differs"
            )
        if not as_written:
            raise DamagedBackup(
                f"{where} is damaged: it says what was written, but in other bytes than pgsteward writes"
            )
        for file in manifest.files:
            parts = file.path.split("/")
            if file.path.startswith("/") or ".." in parts or "" in parts:
                raise VerificationFailed(f"{where} names a file outside its folder: {file.path!r}")
        return manifest


def laid_out(fields: dict[str, Any]) -> bytes:
    """Return the bytes in which a manifest is stored: each value in a line of its own.

    The json module indents level by level only in Python, which takes five times as long.
    """
    lines = (
        f" {json.dumps(key)}: {json.dumps(value, separators=_LINES, ensure_ascii=False)}"
        for key, value in fields.items()
    )
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def _as_laid_out(data: bytes, fields: dict[str, Any]) -> bool:
    """Tell whether these are the bytes of `laid_out`, wherever its lines begin.

    The seal is of what a manifest says, and JSON says the same in many ways: a line break for a blank, `1e0`
    for `1.0`. Written without line breaks, because that takes a tenth of the time.
    """
    lines = json.dumps(fields, separators=(",", ": "), ensure_ascii=False).encode()
    return _LINE.sub(b"", data) == lines and not _EMPTY_LINE.search(data)


def seal(fields: dict[str, Any]) -> str:
    """Return the SHA-256 of a manifest's content, whatever the order of its keys."""
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
