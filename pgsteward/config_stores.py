"""Secrets, and the stores with all their options."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    ByteSize,
    Field,
    field_validator,
    model_validator,
)

from pgsteward import config_checks as checks
from pgsteward.config_types import Model, Seconds, Switch, Whole
from pgsteward.errors import ConfigError

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_secret_resolvers: dict[str, Callable[[str], str]] = {}


def register_secret_resolver(kind: Literal["prefect_secret"], resolve: Callable[[str], str]) -> None:
    """Tell how a kind of secret is looked up that pgsteward can't reach itself (Prefect blocks)."""
    _secret_resolvers[kind] = resolve


def endpoint_in_environment() -> str:
    """Return the address of the S3 service that the environment names, as boto3 looks for it; or nothing."""
    return next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), "")


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


class StoreConfig(Model):
    """One place that keeps backups: a folder (``file:///...``) or S3 (``s3://bucket/prefix``).

    Attributes:
        profile: Of boto3's own files; without it and without keys boto3's own chain decides: environment,
            web identity, container or instance role.
        read_back: How an upload is proven: every byte is read again, or the store's own checksum is compared
            where the self-test has found that it keeps one.
    """

    url: Annotated[str, AfterValidator(checks.store_url)]
    endpoint_url: Annotated[str, AfterValidator(checks.endpoint_url)] | None = None
    region: Annotated[str, AfterValidator(checks.region)] | None = None
    access_key_id: Secret | None = None
    secret_access_key: Secret | None = None
    session_token: Secret | None = None
    profile: Annotated[str, Field(min_length=1)] | None = None
    path_style: Switch | None = None
    ca_bundle: Annotated[str, AfterValidator(checks.absolute_file)] | None = None
    proxy: Annotated[str, AfterValidator(checks.proxy_url)] | None = None
    sse: Literal["s3", "kms", "customer"] | None = None
    sse_kms_key_id: Annotated[str, Field(min_length=1)] | None = None
    sse_customer_key: Secret | None = None
    storage_class: Annotated[str, AfterValidator(checks.storage_class)] | None = None
    object_lock: Literal["governance", "compliance"] | None = None
    object_lock_days: Whole | None = Field(None, ge=1, le=36_500)
    tags: Mapping[str, str] = Field(default_factory=dict)
    read_back: Literal["always", "checksum"] = "always"
    upload_jobs: Whole = Field(4, ge=1, le=32)
    max_bandwidth: ByteSize | None = Field(None, ge=65_536)
    retries: Whole = Field(5, ge=0, le=20)
    timeout_s: Seconds = 60.0

    @field_validator("tags")
    @classmethod
    def _possible_tags(cls, tags: Mapping[str, str]) -> Mapping[str, str]:
        return checks.tags(tags)

    @model_validator(mode="after")
    def _keys_in_pairs(self) -> Self:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("give access_key_id and secret_access_key together, or neither")
        if self.session_token is not None and self.access_key_id is None:
            raise ValueError("session_token goes with access_key_id and secret_access_key; give them, too")
        if self.profile is not None and self.access_key_id is not None:
            raise ValueError("give profile, or access_key_id and secret_access_key, not both")
        return self

    @model_validator(mode="after")
    def _whole_choices(self) -> Self:
        if (self.sse == "customer") != (self.sse_customer_key is not None):
            raise ValueError('sse = "customer" and sse_customer_key go together; give both, or neither')
        if self.sse_kms_key_id is not None and self.sse != "kms":
            raise ValueError('sse_kms_key_id goes with sse = "kms"')
        if (self.object_lock is None) != (self.object_lock_days is None):
            raise ValueError("give object_lock and object_lock_days together, or neither")
        return self

    @model_validator(mode="after")
    def _folders_are_simple(self) -> Self:
        if self.scheme == "file":
            for name, info in type(self).model_fields.items():
                if name not in {"url", "upload_jobs"} and getattr(self, name) not in (info.default, {}):
                    raise ValueError(f"a file:// store takes no {name}; take it out")
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
        """Where it is, to be compared with others; links are followed."""
        if self.scheme == "file":
            return os.path.realpath(self.path), None
        return f"s3://{self.bucket}/{self.path}", self.endpoint_url
