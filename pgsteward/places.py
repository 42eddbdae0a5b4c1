"""Where things lie on this machine: the configuration, and what may be lost."""

from __future__ import annotations

import os
from pathlib import Path

from pgsteward.errors import ConfigError

CONFIG_ENV = "PGSTEWARD_CONFIG"


def state_folder() -> Path:
    """Return the folder for state that may be lost: ``$XDG_STATE_HOME/pgsteward``.

    Raises:
        ConfigError: This user has no home.
    """
    home = _xdg("XDG_STATE_HOME", ".local/state")
    if home is None:
        raise ConfigError("this user has no home folder to keep state in; set HOME or XDG_STATE_HOME")
    return home / "pgsteward"


def _xdg(name: str, below_home: str) -> Path | None:
    """Return one of the user's folders; by the standard a relative one in the environment does not count."""
    named = Path(os.environ.get(name, ""))
    if named.is_absolute():
        return named
    try:
        return Path.home() / below_home
    except RuntimeError:  # neither HOME nor an entry for this user
        return None


def find_config(given: Path | None = None) -> Path:
    """Return the configuration file to use.

    In this order: the one given, ``$PGSTEWARD_CONFIG``, ``./pgsteward.toml``, the user's, the machine's.

    Raises:
        ConfigError: There is none; the text says how to write one.
    """
    named = given or (Path(os.environ[CONFIG_ENV]) if os.environ.get(CONFIG_ENV) else None)
    if named is not None:
        if not _is_there(named):
            raise ConfigError(f"{named}: there is no such file; `pgsteward init` writes one")
        return named
    config_home = _xdg("XDG_CONFIG_HOME", ".config")
    places = [
        Path("pgsteward.toml"),
        *([config_home / "pgsteward" / "pgsteward.toml"] if config_home else []),
        Path("/etc/pgsteward/pgsteward.toml"),
    ]
    for place in places:
        if _is_there(place):
            return place
    looked = ", ".join(str(place) for place in places)
    raise ConfigError(f"no configuration found (looked at {looked}); `pgsteward init` writes one")


def _is_there(file: Path) -> bool:
    """Tell whether something is there to be read; one that is closed to us is, and reading it says so."""
    try:
        file.stat()
    except PermissionError:
        return True
    except OSError:
        return False
    return True
