"""``prefect.yaml``, read once for whoever validates it, deploys it or compares a server with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from prefect import Flow
from prefect.utilities.importtools import import_object

from pgsteward.errors import ConfigError
from pgsteward.prefect_project import PREFECT_FILE, find_project

OUR_TAG = "pgsteward"


@dataclass(frozen=True)
class Deployment:
    """One entry of ``deployments``, as written.

    Attributes:
        where: Its place in the file, for messages.
        settings: Its keys.
    """

    where: str
    settings: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.settings.get("name") or "")

    @property
    def entrypoint(self) -> str:
        return str(self.settings.get("entrypoint") or "")

    @property
    def pool(self) -> str:
        pool = self.settings.get("work_pool")
        return str(pool.get("name") or "") if isinstance(pool, Mapping) else ""

    @property
    def schedules(self) -> list[Mapping[str, Any]]:
        found = self.settings.get("schedules")
        return [entry for entry in found if isinstance(entry, Mapping)] if isinstance(found, list) else []

    @property
    def slugs(self) -> list[str]:
        return [str(entry["slug"]) for entry in self.schedules if entry.get("slug")]

    @cached_property
    def flow(self) -> Flow[..., Any]:
        """The flow its entrypoint names.

        Raises:
            ConfigError: There is no flow there.
        """
        try:
            found = import_object(self.entrypoint)
        except (ImportError, AttributeError, ValueError, KeyError) as exc:
            raise ConfigError(f"{self.entrypoint!r} can't be loaded: {exc}") from exc
        if not isinstance(found, Flow):
            raise ConfigError(f"{self.entrypoint!r} is not a flow but a {type(found).__name__}")
        return found

    @property
    def full_name(self) -> str:
        """As Prefect calls it: ``flow/deployment``."""
        return f"{self.flow.name}/{self.name}"


def default_file() -> Path:
    """Return the project's own ``prefect.yaml``."""
    return find_project() / PREFECT_FILE


def read_file(file: Path) -> dict[str, Any]:
    """Return the whole file as written.

    Raises:
        ConfigError: It can't be read, or is not a mapping with ``deployments``.
    """
    try:
        data = yaml.safe_load(file.read_text())
    except OSError as exc:
        raise ConfigError(f"{file}: can't be read: {exc.strerror}") from exc
    except yaml.YAMLError as exc:
        raise ConfigError(f"{file}: not valid YAML: {' '.join(str(exc).split())}") from exc
    if not isinstance(data, dict) or not isinstance(data.get("deployments"), list):
        raise ConfigError(f"{file}: has no list of deployments; write `deployments:` with one entry for each")
    return data


def deployments_of(data: Mapping[str, Any]) -> list[Deployment]:
    """Return the entries of ``deployments``; one that is no mapping counts as an empty one."""
    found = []
    for number, entry in enumerate(data["deployments"]):
        settings = entry if isinstance(entry, Mapping) else {}
        found.append(Deployment(f"deployments.{settings.get('name') or number}", settings))
    return found
