"""What goes in: ``pgsteward.toml`` as frozen models.

Unknown keys are refused: a typo never becomes a default.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    ByteSize,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from pgsteward import config_checks as checks
from pgsteward.config_audit import AlembicConfig as AlembicConfig
from pgsteward.config_audit import IndexAuditConfig as IndexAuditConfig
from pgsteward.config_audit import ReplicaConfig as ReplicaConfig
from pgsteward.config_audit import RequiredConstraint as RequiredConstraint
from pgsteward.config_audit import RequiredIndex as RequiredIndex
from pgsteward.config_errors import explain
from pgsteward.config_reindex import ReindexConfig as ReindexConfig
from pgsteward.config_retention import RetentionConfig as RetentionConfig
from pgsteward.config_sessions import SessionTable as SessionTable
from pgsteward.config_stores import Secret as Secret
from pgsteward.config_stores import StoreConfig as StoreConfig
from pgsteward.config_stores import register_secret_resolver as register_secret_resolver
from pgsteward.config_types import Conninfo, Minutes, Number, Seconds, Switch, Whole
from pgsteward.config_types import Model as Model
from pgsteward.config_vacuum import VacuumConfig as VacuumConfig
from pgsteward.errors import ConfigError, StewardError
from pgsteward.places import find_config, state_folder

_LONGEST_NAME = 100
NAME_PATTERN = re.compile(r"[a-z0-9][a-z0-9_-]*")

Purpose = Literal["backup", "restore", "maintenance"]

TargetConninfo = Annotated[str, Field(min_length=1), AfterValidator(checks.conninfo_with_database)]
Pattern = Annotated[str, AfterValidator(checks.table_pattern)]
StateUrl = Annotated[
    Annotated[str, AfterValidator(checks.state_url), Tag("<url>")] | Annotated[Secret, Tag("<secret>")],
    Discriminator(lambda value: "<secret>" if isinstance(value, dict | Secret) else "<url>"),
]


class LoginConfig(Model):
    """A conninfo and a password of its own for one kind of work; what is not given is the target's."""

    conninfo: Conninfo | None = None
    password: Secret | None = None


class BackupConfig(LoginConfig):
    """How a database is dumped."""

    jobs: Whole | None = Field(None, ge=1, le=64)
    compress: Annotated[str, AfterValidator(checks.compression)] = "zstd:1"
    proof: Literal["full", "counts", "none"] = "full"
    proof_max_seconds: Seconds | None = None
    lock_wait_timeout_s: Seconds = 60.0
    yield_after: Seconds | None = None
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
    """A login for restores, and what opens encrypted backups; who only backs up needs none.

    Attributes:
        keep_replaced_days: How long a database that a restore has replaced stays under its other name.
        keep_side_tables_days: How long a table of a backup stays beside the live one.
    """

    identity: Secret | None = None
    keep_replaced_days: Whole = Field(14, ge=1, le=36_500)
    keep_side_tables_days: Whole = Field(7, ge=1, le=36_500)


class DrillConfig(Model):
    """What a drill asks of the restored database, beside the proof.

    Attributes:
        when: ``always`` makes it a part of every night, before anything is pruned.
        checks: Queries of one value that must be true.
    """

    when: Literal["weekly", "always"] = "weekly"
    checks: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    check_timeout_s: Seconds = 300.0


class IndexBloatConfig(Model):
    """When an index counts as bloated: both thresholds must be met.

    Below a ratio of about 0.35 healthy indexes on random keys would be rebuilt for ever.

    Attributes:
        min_size: Indexes and tables below this are not measured by the bloat step.
        measure_bytes: What one run reads at most, ...
        measure_minutes: ... and for how long; the next run carries on.
        toast: The indexes of TOAST tables as well.
        rebuild_on_estimate: Rebuild also what is bloated by the catalog's statistics alone.
        exclude: Names of indexes, or of tables with their indexes.
    """

    min_ratio: Number = Field(0.4, gt=0, lt=1)
    min_reclaimable: ByteSize = Field(default=ByteSize(50_000_000), ge=0)
    min_size: ByteSize = Field(default=ByteSize(1_000_000), ge=0)
    measure_bytes: ByteSize = Field(default=ByteSize(20_000_000_000), ge=1)
    measure_minutes: Minutes = 10.0
    toast: Switch = False
    rebuild_on_estimate: Switch = False
    exclude: tuple[str, ...] = ()


class AnalyzeConfig(Model):
    """When statistics are stale, and how much is done about it in one run.

    Attributes:
        stale_fraction: Scales autovacuum's own threshold (50 + 0.1 * rows by default).
        jobs: Tables that are analyzed at the same time.
        max_minutes: No table is begun later than this; what is left is named.
    """

    stale_fraction: Number = Field(1.0, gt=0)
    jobs: Whole = Field(2, ge=1, le=64)
    max_minutes: Minutes = 60.0
    statement_timeout_s: Seconds = 3600.0
    exclude: tuple[str, ...] = ()


class MatviewsConfig(Model):
    """How materialized views are refreshed.

    Attributes:
        skip_unchanged: Leave a view alone while nothing that it reads has changed since its last refresh.
        allow_exclusive: Refresh with ACCESS EXCLUSIVE where CONCURRENTLY is impossible.
        on_duplicate_rows: What is done where CONCURRENTLY fails because the view would have duplicate rows.
        jobs: Views that do not read each other and are refreshed at the same time.
    """

    skip_unchanged: Switch = True
    allow_exclusive: Switch = True
    on_duplicate_rows: Literal["fail", "exclusive"] = "fail"
    jobs: Whole = Field(2, ge=1, le=64)
    lock_timeout_s: Seconds = 30.0
    statement_timeout_s: Seconds = 3600.0
    exclude: tuple[str, ...] = ()


class TargetConfig(Model):
    """One database that is looked after, or several of one server.

    Attributes:
        databases: Names, or ``"*"`` for all of the server, found at run time; None means the conninfo's own.
        exclude_databases: With ``"*"``: names, and patterns with ``*``, ``?`` and ``[...]``.
        store_retention: The policy of a store that has one of its own; it replaces `retention` there.
        previous_clusters: System identifiers of what this server was before an upgrade or a rebuild: their
            backups are this target's too.
    """

    conninfo: TargetConninfo
    password: Secret | None = None
    databases: Literal["*"] | tuple[str, ...] | None = None
    exclude_databases: tuple[str, ...] = ()
    stores: tuple[str, ...] = Field(min_length=1)
    client_dirs: tuple[Annotated[Path, AfterValidator(checks.client_dir)], ...] = ()
    backup: BackupConfig = BackupConfig()
    restore: RestoreConfig = RestoreConfig()
    drill: DrillConfig = DrillConfig()
    maintenance: LoginConfig = LoginConfig()
    retention: RetentionConfig = RetentionConfig(keep_last=3, keep_daily=7, keep_weekly=4, keep_monthly=6)
    store_retention: Mapping[str, RetentionConfig] = Field(default_factory=dict)
    previous_clusters: tuple[Annotated[str, AfterValidator(checks.system_identifier)], ...] = ()
    sessions: tuple[SessionTable, ...] = ()
    vacuum: VacuumConfig = VacuumConfig()
    index_bloat: IndexBloatConfig = IndexBloatConfig()
    reindex: ReindexConfig = ReindexConfig()
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
    def _retention_of_own_stores(self) -> Self:
        for name in self.store_retention:
            if name not in self.stores:
                known = ", ".join(self.stores)
                raise ValueError(f"store_retention.{name}: this target has no such store; it has: {known}")
        return self

    def retention_in(self, store: str) -> RetentionConfig:
        """Return the policy for the backups in one of the target's stores."""
        return self.store_retention.get(store, self.retention)

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
