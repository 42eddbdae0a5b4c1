"""What goes in: ``pgsteward.toml`` as frozen models.

Unknown keys are refused: a typo never becomes a default.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ByteSize,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from pgsteward import config_checks as checks
from pgsteward.config_errors import explain
from pgsteward.errors import ConfigError, StewardError
from pgsteward.places import find_config, state_folder
from pgsteward.postgres_names import split_qualified

_LONGEST_NAME = 100
NAME_PATTERN = re.compile(r"[a-z0-9][a-z0-9_-]*")

Purpose = Literal["backup", "restore", "maintenance"]

_secret_resolvers: dict[str, Callable[[str], str]] = {}


def register_secret_resolver(kind: Literal["prefect_secret"], resolve: Callable[[str], str]) -> None:
    """Tell how a kind of secret is looked up that pgsteward can't reach itself (Prefect blocks)."""
    _secret_resolvers[kind] = resolve


class Model(BaseModel):
    """Frozen, and refuses keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Secret(Model):
    """Where a secret is kept; the configuration itself never holds one.

    Attributes:
        env: Name of an environment variable.
        file: Path of a file whose first line is the secret (relative to the configuration file).
        prefect_secret: Name of a Prefect Secret block.
    """

    env: Annotated[str, Field(min_length=1)] | None = None
    file: Path | None = None
    prefect_secret: Annotated[str, Field(min_length=1)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_literals(cls, value: Any) -> Any:
        if not isinstance(value, dict | Secret) or (isinstance(value, dict) and "literal" in value):
            raise ValueError(
                'a secret is never written into this file; say where it is: { env = "NAME" },'
                ' { file = "/run/secrets/name" } or { prefect_secret = "block-name" }'
            )
        return value

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if sum(part is not None for part in (self.env, self.file, self.prefect_secret)) != 1:
            raise ValueError("give exactly one of env, file, prefect_secret")
        return self

    def resolve(self) -> str:
        """Return the secret itself; of a file its first line.

        Raises:
            ConfigError: It is not where the configuration says.
        """
        text = self.resolve_whole()
        if self.file is not None:
            text = text.partition("\n")[0]
        try:
            return checks.secret(text)
        except ValueError as exc:
            raise ConfigError(f"{self._where} {exc}") from None

    def resolve_whole(self) -> str:
        """Return the secret itself; of a file all of it, as keys of several lines need.

        Raises:
            ConfigError: It is not where the configuration says.
        """
        if self.env is not None:
            try:
                return os.environ[self.env]
            except KeyError:
                raise ConfigError(f"{self._where} is not set; export it") from None
        if self.file is not None:
            try:
                return self.file.read_text(encoding="utf-8-sig")
            except OSError as exc:
                raise ConfigError(f"{self._where} can't be read: {exc.strerror}") from exc
            except UnicodeDecodeError:  # whose text would repeat the secret
                raise ConfigError(f"{self._where} is not UTF-8 text") from None
        resolve = _secret_resolvers.get("prefect_secret")
        if resolve is None:
            raise ConfigError(
                f"the secret {self.prefect_secret!r} is a Prefect block, which only a flow run can read;"
                " for the shell use { env = ... } or { file = ... }"
            )
        return resolve(str(self.prefect_secret))

    @property
    def _where(self) -> str:
        if self.env is not None:
            return f"the environment variable {self.env}"
        return f"the secret file {self.file}" if self.file is not None else f"the block {self.prefect_secret}"


Conninfo = Annotated[str, Field(min_length=1), AfterValidator(checks.conninfo)]
TargetConninfo = Annotated[str, Field(min_length=1), AfterValidator(checks.conninfo_with_database)]
Whole = Annotated[int, Field(strict=True)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Switch = Annotated[bool, Field(strict=True)]
Pattern = Annotated[str, AfterValidator(checks.table_pattern)]
Zone = Annotated[str, AfterValidator(checks.time_zone)]
StateUrl = Annotated[
    Annotated[str, AfterValidator(checks.state_url), Tag("<url>")] | Annotated[Secret, Tag("<secret>")],
    Discriminator(lambda value: "<secret>" if isinstance(value, dict | Secret) else "<url>"),
]


class StoreConfig(Model):
    """One place that keeps backups: a folder (``file:///...``) or S3 (``s3://bucket/prefix``)."""

    url: Annotated[str, AfterValidator(checks.store_url)]
    endpoint_url: Annotated[str, AfterValidator(checks.endpoint_url)] | None = None
    region: str | None = None
    access_key_id: Secret | None = None
    secret_access_key: Secret | None = None
    path_style: Switch | None = None

    @model_validator(mode="after")
    def _keys_in_pairs(self) -> Self:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("give access_key_id and secret_access_key together, or neither")
        if self.scheme == "file" and (self.endpoint_url or self.access_key_id or self.region):
            raise ValueError("a file:// store takes no endpoint_url, region or keys")
        return self

    @property
    def scheme(self) -> Literal["file", "s3"]:
        return "file" if self.url.startswith("file:") else "s3"

    @property
    def bucket(self) -> str:
        return urlsplit(self.url).netloc

    @property
    def path(self) -> str:
        """Folder for ``file``, as it is written; key prefix without slashes at its ends for ``s3``."""
        if self.scheme == "file":
            return checks.file_path(self.url)
        return urlsplit(self.url).path.strip("/")

    @property
    def place(self) -> tuple[str, str | None]:
        """Where it is, to be compared with others."""
        if self.scheme == "file":
            return os.path.normpath(self.path), None
        return f"s3://{self.bucket}/{self.path}", self.endpoint_url


class LoginConfig(Model):
    """A conninfo and a password of its own for one kind of work; what is not given is the target's."""

    conninfo: Conninfo | None = None
    password: Secret | None = None


class BackupConfig(LoginConfig):
    """How a database is dumped."""

    jobs: Whole | None = Field(None, ge=1, le=64)
    compress: Annotated[str, AfterValidator(checks.compression)] = "zstd:1"
    proof: Literal["full", "counts", "none"] = "full"
    proof_max_seconds: Number | None = Field(None, gt=0)
    lock_wait_timeout_s: Number = Field(60.0, gt=0)
    yield_after: Number | None = Field(None, gt=0)
    disk_check: Switch = True
    tables: tuple[Pattern, ...] = ()
    schemas: tuple[Pattern, ...] = ()
    exclude_table_data: tuple[Pattern, ...] = ()
    enable_row_security: Switch = False
    mode: Literal["directory", "stream"] | None = None
    encrypt_to: tuple[Annotated[str, AfterValidator(checks.recipient)], ...] = ()
    spool: Annotated[str, AfterValidator(checks.folder)] | None = None
    plaintext_spool: Switch = False
    role_passwords: Switch = False

    @property
    def form(self) -> Literal["directory", "stream"]:
        """How the archive is written: nothing clear may lie on a disk that nobody has allowed."""
        return self.mode or ("stream" if self.encrypt_to and not self._has_place else "directory")

    @property
    def _has_place(self) -> bool:
        return self.spool is not None or self.plaintext_spool

    @model_validator(mode="after")
    def _one_kind_of_choice(self) -> Self:
        if self.tables and self.schemas:
            raise ValueError(
                "pg_dump ignores schemas where tables are named; give one of them"
                ' (tables = ["app.*"] is all of a schema\'s tables)'
            )
        return self

    @model_validator(mode="after")
    def _clear_files_have_a_place(self) -> Self:
        if self._has_place and (not self.encrypt_to or self.mode == "stream"):
            raise ValueError(
                "spool and plaintext_spool are for encrypted backups in directory mode; take them out"
            )
        if self.spool is not None and self.plaintext_spool:
            raise ValueError("give spool (nothing clear on a disk) or plaintext_spool, not both")
        if self.mode == "directory" and self.encrypt_to and not self._has_place:
            raise ValueError(
                "pg_dump's directory format writes clear files, which are encrypted afterwards; take mode out"
                ' (a stream is never clear on a disk), or name a tmpfs folder: spool = "/dev/shm",'
                " or allow it: plaintext_spool = true"
            )
        return self


class RestoreConfig(LoginConfig):
    """A login for restores, and what opens encrypted backups; who only backs up needs none."""

    identity: Secret | None = None


class RetentionConfig(Model):
    """Which backups are kept; restic's words, ORed. Calendar periods are those of `time_zone`."""

    keep_last: Whole = Field(0, ge=0)
    keep_daily: Whole = Field(0, ge=0)
    keep_weekly: Whole = Field(0, ge=0)
    keep_monthly: Whole = Field(0, ge=0)
    keep_min: Whole = Field(2, ge=1)
    time_zone: Zone = "UTC"

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if not (self.keep_last or self.keep_daily or self.keep_weekly or self.keep_monthly):
            raise ValueError("an empty policy would remove everything; give at least keep_last")
        return self


class SessionTable(Model):
    """A table whose rows expire.

    Attributes:
        table: Qualified name, quoted as in SQL where needed.
        expires: The column that says until when a row lives.
        time_zone: Required for a ``timestamp`` column: the zone its values are in.
        unit: Required for an integer column: seconds or milliseconds since 1970 UTC.
    """

    table: str
    expires: Annotated[str, Field(min_length=1)]
    time_zone: Zone | None = None
    unit: Literal["s", "ms"] | None = None
    batch_pages: Whole = Field(500, ge=1, le=100_000)

    @field_validator("table")
    @classmethod
    def _qualified(cls, name: str) -> str:
        split_qualified(name)
        return name

    @model_validator(mode="after")
    def _one_kind_of_column(self) -> Self:
        if self.time_zone is not None and self.unit is not None:
            raise ValueError("give time_zone for a timestamp column or unit for an integer one, not both")
        return self


class IndexBloatConfig(Model):
    """When an index counts as bloated: both thresholds must be met.

    Below a ratio of about 0.35 healthy indexes on random keys would be rebuilt for ever.
    """

    min_ratio: Number = Field(0.4, gt=0, lt=1)
    min_reclaimable: ByteSize = Field(default=ByteSize(50_000_000), ge=0)
    max_wait_s: Number = Field(600.0, gt=0)
    exclude: tuple[str, ...] = ()


class IndexAuditConfig(Model):
    """Indexes that the application relies on, by (qualified) name."""

    required: tuple[str, ...] = ()


class AnalyzeConfig(Model):
    """`stale_fraction` scales autovacuum's own threshold (50 + 0.1 * rows by default)."""

    stale_fraction: Number = Field(1.0, gt=0)
    statement_timeout_s: Number = Field(3600.0, gt=0)


class MatviewsConfig(Model):
    """How materialized views are refreshed.

    Attributes:
        allow_exclusive: Refresh with ACCESS EXCLUSIVE where CONCURRENTLY is impossible.
    """

    allow_exclusive: Switch = True
    lock_timeout_s: Number = Field(30.0, gt=0)
    statement_timeout_s: Number = Field(3600.0, gt=0)
    exclude: tuple[str, ...] = ()


class TargetConfig(Model):
    """One database that is looked after, or several of one server.

    Attributes:
        databases: Names, or ``"*"`` for all of the server, found at run time; None means the conninfo's own.
        exclude_databases: With ``"*"``: names, and patterns with ``*``, ``?`` and ``[...]``.
    """

    conninfo: TargetConninfo
    password: Secret | None = None
    databases: Literal["*"] | tuple[str, ...] | None = None
    exclude_databases: tuple[str, ...] = ()
    stores: tuple[str, ...] = Field(min_length=1)
    client_dirs: tuple[Annotated[Path, AfterValidator(checks.client_dir)], ...] = ()
    backup: BackupConfig = BackupConfig()
    restore: RestoreConfig = RestoreConfig()
    maintenance: LoginConfig = LoginConfig()
    retention: RetentionConfig = RetentionConfig(keep_last=3, keep_daily=7, keep_weekly=4, keep_monthly=6)
    sessions: tuple[SessionTable, ...] = ()
    index_bloat: IndexBloatConfig = IndexBloatConfig()
    index_audit: IndexAuditConfig = IndexAuditConfig()
    analyze: AnalyzeConfig = AnalyzeConfig()
    matviews: MatviewsConfig = MatviewsConfig()

    @field_validator("stores")
    @classmethod
    def _each_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"{name!r} is in it twice; name each store once")
        return names

    @field_validator("databases", mode="before")
    @classmethod
    def _names_or_all(cls, value: Any) -> Any:
        return None if value is None else checks.databases(value)

    @field_validator("exclude_databases")
    @classmethod
    def _no_empty_pattern(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        if "" in patterns:
            raise ValueError("an empty pattern matches nothing; take it out")
        return patterns

    @model_validator(mode="after")
    def _excluded_from_all(self) -> Self:
        if self.exclude_databases and self.databases != "*":
            raise ValueError('exclude_databases goes with databases = "*"; take it out, or write that')
        return self


class Config(Model):
    """The whole file."""

    state_url: StateUrl | None = None
    stores: Mapping[str, StoreConfig] = Field(default_factory=dict)
    targets: Mapping[str, TargetConfig] = Field(default_factory=dict)

    @field_validator("stores", "targets")
    @classmethod
    def _plain_names(cls, entries: Mapping[str, Any]) -> Mapping[str, Any]:
        for name in entries:
            if len(name) > _LONGEST_NAME:
                raise ValueError(f"{name[:20]}...: use at most {_LONGEST_NAME} letters (it becomes a folder)")
            if not NAME_PATTERN.fullmatch(name):
                raise ValueError(f"{name!r}: use lower-case letters, digits, - and _ (it becomes a folder)")
        return entries

    @model_validator(mode="after")
    def _known_stores(self) -> Self:
        for name, target in self.targets.items():
            for store in target.stores:
                if store not in self.stores:
                    known = ", ".join(sorted(self.stores)) or "none is defined"
                    raise ValueError(
                        f"targets.{name}.stores: there is no [stores.{store}]; known stores: {known}"
                    )
            places = [self.stores[store].place for store in target.stores]
            for store, place in zip(target.stores, places, strict=True):
                if places.count(place) > 1:
                    raise ValueError(
                        f"targets.{name}.stores: {store!r} is the same place as another one, so a backup"
                        " in both is there only once; take one out"
                    )
        return self

    def target(self, name: str) -> TargetConfig:
        """Return one target.

        Raises:
            ConfigError: There is no such target; the text lists those there are.
        """
        try:
            return self.targets[name]
        except KeyError:
            near = difflib.get_close_matches(name, self.targets, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            known = ", ".join(sorted(self.targets)) or "none"
            raise ConfigError(f"there is no target {name!r} (known: {known}){hint}") from None

    def resolved_state_url(self) -> str:
        """Return the SQLAlchemy URL of the state database; by default a file in the user's state folder."""
        if isinstance(self.state_url, Secret):
            return self.state_url.resolve()
        return self.state_url or f"sqlite:///{state_folder() / 'state.db'}"


def load(path: Path | None = None) -> Config:
    """Read the configuration.

    Args:
        path: The file, or None to look in the usual places (see `find_config`).

    Raises:
        ConfigError: Not found, not TOML, or a key is wrong; names the file, the key and what to write.
    """
    file = find_config(path)
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as exc:
        raise ConfigError(
            f"{file}: can't be read: {exc.strerror}; give this user the right, or name another: --config FILE"
        ) from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{file}: is not UTF-8 at byte {exc.start}; save it as UTF-8") from None
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"{file}: not valid TOML: {exc}") from exc
    try:
        return Config.model_validate(_anchored(data, file.resolve().parent))
    except ValidationError as exc:
        raise ConfigError(explain(file, exc.errors(), Config)) from None
    except StewardError as exc:
        raise ConfigError(f"{file}: {exc}") from exc


def _anchored(data: Any, folder: Path) -> Any:
    """Make relative secret files and SQLite files relative to the configuration file, not to the caller."""
    if isinstance(data, list):
        return [_anchored(entry, folder) for entry in data]
    if not isinstance(data, dict):
        return data
    found = {key: _anchored(value, folder) for key, value in data.items()}
    if set(found) == {"file"} and isinstance(found["file"], str):
        found["file"] = str(folder / checks.expanded(Path(found["file"])))
    url = found.get("state_url")
    if isinstance(url, str) and url.startswith("sqlite:///") and not url.startswith("sqlite:////"):
        found["state_url"] = f"sqlite:///{folder / url.removeprefix('sqlite:///')}"
    return found
