"""A target with everything an operation needs to start: logins, stores, and its part of the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pgsteward import config as configuration
from pgsteward.config import Config, LoginConfig, Purpose, TargetConfig
from pgsteward.errors import ConfigError
from pgsteward.postgres import Login
from pgsteward.storage import Store, open_store


@dataclass(frozen=True, slots=True)
class Target:
    """One entry of ``[targets]``; every operation takes one of these.

    Attributes:
        name: The entry's name, which is also its folder in the stores.
        settings: The entry itself.
        config: The whole configuration it is part of.
    """

    name: str
    settings: TargetConfig
    config: Config

    def login(self, purpose: Purpose) -> Login:
        """Return the login for a kind of work; what it does not name itself is the target's own.

        Raises:
            ConfigError: A secret is not where the configuration says.
        """
        own: LoginConfig = getattr(self.settings, purpose)
        secret = own.password or (self.settings.password if own.conninfo is None else None)
        return Login(own.conninfo or self.settings.conninfo, secret.resolve() if secret else None)

    @property
    def database(self) -> str:
        """Name of the database, also a folder in the stores."""
        return Login(self.settings.conninfo).dbname

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
