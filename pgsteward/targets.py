"""A target with everything an operation needs to start: logins, stores, and its part of the configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pgsteward import config as configuration
from pgsteward.config import Config, LoginConfig, Purpose, TargetConfig
from pgsteward.errors import ConfigError
from pgsteward.postgres import Login
from pgsteward.storage import Store, open_store
from pgsteward.used import Used


@dataclass(frozen=True, slots=True)
class Target:
    """One entry of ``[targets]``; every operation takes one of these.

    Operations work on one database. An entry with several is bound to each of them in turn, by
    `pgsteward.databases`.

    Attributes:
        name: The entry's name, which is also its folder in the stores.
        settings: The entry itself.
        config: The whole configuration it is part of.
        dbname: The database it is bound to; None means the conninfo's own.
        used: Shared with the other databases of the same run; None where there are no others.
    """

    name: str
    settings: TargetConfig
    config: Config
    dbname: str | None = None
    used: Used | None = field(default=None, compare=False)

    def login(self, purpose: Purpose) -> Login:
        """Return the login for a kind of work; what it does not name itself is the target's own.

        It leads to the database that the target is bound to. That of a target with several which is not bound
        leads to the conninfo's own, from where the others are found.

        Raises:
            ConfigError: A secret is not where the configuration says.
        """
        own: LoginConfig = getattr(self.settings, purpose)
        secret = own.password or (self.settings.password if own.conninfo is None else None)
        login = Login(own.conninfo or self.settings.conninfo, secret.resolve() if secret else None)
        return login if self.dbname is None else login.to(self.dbname)

    @property
    def has_several(self) -> bool:
        """True for an entry with ``databases`` that is not bound to one of them."""
        return self.settings.databases is not None and self.dbname is None

    @property
    def database(self) -> str:
        """Name of the database, also a folder in the stores.

        Raises:
            ConfigError: The target has several.
        """
        if self.dbname is not None:
            return self.dbname
        if self.settings.databases is not None:
            raise ConfigError(f"target {self.name!r} has several databases; say which: --database NAME")
        return Login(self.settings.conninfo).dbname

    @property
    def scope(self) -> str:
        """The database, or the databases, for reports and the history."""
        if not self.has_several:
            return self.database
        assert self.settings.databases is not None
        return "*" if self.settings.databases == "*" else ", ".join(self.settings.databases)

    def store(self, name: str) -> Store:
        """Return one of the target's stores.

        Raises:
            ConfigError: The target has no such store.
        """
        if name not in self.settings.stores:
            known = ", ".join(self.settings.stores)
            raise ConfigError(f"target {self.name!r} has no store {name!r}; it has: {known}")
        return open_store(name, self.config.stores[name])

    def stores(self) -> list[Store]:
        """Return all stores of the target in the configuration's order."""
        return [self.store(name) for name in self.settings.stores]


def load_target(name: str, config_path: Path | None = None) -> Target:
    """Return a target by name.

    Raises:
        ConfigError: The configuration is wrong, or there is no such target.
    """
    config = configuration.load(config_path)
    return Target(name, config.target(name), config)
