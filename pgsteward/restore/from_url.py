"""A restore with nothing but the store: no configuration, no state, no server that was dumped.

What the configuration would say is made up of the store's URL, the server to restore to, and what the store's
own folders say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pgsteward import config_checks as checks
from pgsteward.backup.manifest import (
    BACKUP_ID,
    MANIFEST,
    backup_prefix,
    catalog_prefix,
    database_name,
    folder_name,
)
from pgsteward.backup.receipts import newest_store
from pgsteward.config import NAME_PATTERN, Config, StoreConfig
from pgsteward.config_stores import endpoint_in_environment
from pgsteward.errors import ConfigError, PreconditionError
from pgsteward.postgres import Login
from pgsteward.storage import Store, open_store, selftest
from pgsteward.targets import Target

STORE = "from-url"
"""Name of the store where its receipts don't say another one."""


@dataclass(frozen=True, slots=True)
class Source:
    """What is known of the store.

    Attributes:
        url: ``s3://bucket/prefix`` or ``file:///folder``, as in a configuration.
        options: Of the store, as in a configuration; what is not there is left to boto3's own chain.
    """

    url: str
    options: Mapping[str, Any]

    def config(self) -> StoreConfig:
        """Return its entry of a configuration.

        Raises:
            ConfigError: The URL, or an option, is wrong.
        """
        options = {key: value for key, value in self.options.items() if value is not None}
        if self.url.startswith("s3:"):
            named = endpoint_in_environment()
            options = {**({"endpoint_url": named} if named else {}), **options}
        try:
            return StoreConfig.model_validate({"url": self.url, **options})
        except ValidationError as exc:
            first = exc.errors()[0]
            key = str(first["loc"][0]) if first["loc"] else ""
            option = "--from-url" if key in ("", "url") else f"--{key.replace('_', '-')}"
            said = str(first["msg"]).removeprefix("Value error, ")
            if "access_key_id" in said:
                said = "keys come from the environment (AWS_ACCESS_KEY_ID ...) or a profile, not from the URL"
            raise ConfigError(f"{option}: {said}") from None


def find_target(
    source: Source,
    to: str,
    *,
    target: str | None = None,
    database: str | None = None,
    backup_id: str | None = None,
    identity: Path | None = None,
) -> Target:
    """Return a target for what is in a store, bound to one database.

    Args:
        source: The store.
        to: Conninfo of the server to restore to, without a password; its database is only the way in.
        target: Name of the target there; None where the store has only one.
        database: Name of the database; None where the target has only one.
        backup_id: Look for this backup; None for any.
        identity: File with the secret key of encrypted backups.

    Raises:
        ConfigError: Something given is wrong, or several databases may be meant; the text lists them.
        PreconditionError: There is no backup in the store.
        StoreUnavailable: It can't be asked.
    """
    login = _login(to)
    settings = source.config()
    store = open_store(STORE, settings)
    name, dbname = _choose(store, target, database, backup_id)
    known_as = newest_store(store, name, dbname) or STORE
    restore: dict[str, Any] = {"identity": {"file": str(identity.absolute())}} if identity else {}
    entry = {"conninfo": login.conninfo, "stores": [known_as], "restore": restore}
    config = Config.model_validate({"stores": {known_as: settings}, "targets": {name: entry}})
    return Target(name, config.target(name), config, dbname)


def _login(to: str) -> Login:
    try:
        parts = checks.conninfo_parts(to)
        if "password" in parts:
            raise ConfigError(
                "--to: every user of this machine can read a password there; take it out, and set PGPASSWORD,"
                " or use ~/.pgpass"
            )
        checks.conninfo(to)
    except ValueError as exc:
        raise ConfigError(f"--to: {exc}") from None
    return Login(to).to("postgres")


def databases(store: Store) -> list[tuple[str, str]]:
    """Return (target, database) of everything in a store that has a folder of a backup."""
    found = []
    for target in store.folders(""):
        if not NAME_PATTERN.fullmatch(target):
            continue
        for folder in store.folders(f"{target}/"):
            if folder == selftest.FOLDER:
                continue
            name = database_name(folder)
            if folder_name(name) == folder and _has_backups(store, target, name):
                found.append((target, name))
    return found


def _has_backups(store: Store, target: str, database: str) -> bool:
    return any(BACKUP_ID.fullmatch(folder) for folder in store.folders(catalog_prefix(target, database)))


def _choose(store: Store, target: str | None, database: str | None, backup_id: str | None) -> tuple[str, str]:
    there = databases(store)
    if not there:
        raise PreconditionError(f"there is no backup in {store.location}{_hint(store)}")
    fit = [pair for pair in there if target in (None, pair[0]) and database in (None, pair[1])]
    listed = ", ".join(f"{name} {database}" for name, database in there)
    if not fit:
        wanted = " ".join(part for part in (target, database) if part is not None)
        raise ConfigError(f"{store.location} has no backup of {wanted}; it has (target, database): {listed}")
    if backup_id is not None:
        fit = [pair for pair in fit if _has(store, *pair, backup_id)]
        if not fit:
            raise PreconditionError(f"there is no complete backup {backup_id} in {store.location}")
    if len(fit) > 1:
        name, example = fit[0]
        listed = ", ".join(f"{name} {database}" for name, database in fit)
        raise ConfigError(
            f"{store.location} has backups of several databases (target, database): {listed}; say which one:"
            f" pgsteward restore {name} --database {example} --from-url ..."
        )
    return fit[0]


def _has(store: Store, target: str, database: str, backup_id: str) -> bool:
    key = backup_prefix(target, database, backup_id) + MANIFEST
    return any(stored.key == key for stored in store.objects(key))


def _hint(store: Store) -> str:
    """Say how far above the store's own folder is, where the URL leads too far down."""
    folders = store.folders("")
    if any(BACKUP_ID.fullmatch(folder) for folder in folders):
        return "; this is the folder of one database: leave the last two names of the URL out"
    if any(BACKUP_ID.fullmatch(inner) for folder in folders for inner in store.folders(f"{folder}/")):
        return "; this is the folder of one target: leave the last name of the URL out"
    if any(stored.key == MANIFEST for stored in store.objects(MANIFEST)):
        return "; this is one backup: leave the last three names of the URL out, and name it: BACKUP"
    return "; give the URL that [stores.NAME] had, the folder above those of the targets"
