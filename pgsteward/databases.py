"""The databases of a target: which there are, and one operation over all of them.

A target names one database (its conninfo's), several, or all of a server. Each is looked after on its own: it
has its own folder in the stores, its own locks, its own result; one that fails stops no other.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

from pgsteward.config import Config, TargetConfig
from pgsteward.postgres import Connection, Login, Row
from pgsteward.restore import scratch
from pgsteward.sql import load
from pgsteward.targets import Target


def uncovered(config: Config, target: Target, session: Connection) -> list[str]:
    """Return the databases of the session's server that no target of the configuration covers.

    A database counts as covered when a target whose conninfo, or backup conninfo, names the same server as
    `target`'s looks after it; which servers are the same is told by host and port as they are written (see
    `Login.endpoints`), nobody is asked. Templates, databases that take no connections, those of unfinished
    restores, and those that ``exclude_databases`` names (a report says so for itself) are not listed.

    Args:
        config: The whole configuration.
        target: Whose server; bound to a database or not.
        session: Any session on that server.
    """
    here = _endpoints(target.settings)
    neighbours = [settings for settings in config.targets.values() if _endpoints(settings) & here]
    return [
        row["name"]
        for row in _server_databases(session)
        if row["allows_connections"]
        and not row["is_template"]
        and not row["is_scratch"]
        and not any(covers(s, row["name"]) or excluded_by(s, row["name"]) for s in neighbours)
    ]


def covers(settings: TargetConfig, database: str) -> bool:
    """Tell whether a target looks after a database of this name, if its server has one."""
    if settings.databases is None:
        return Login(settings.conninfo).dbname == database
    if settings.databases == "*":
        return excluded_by(settings, database) is None
    return database in settings.databases


def excluded_by(settings: TargetConfig, database: str) -> str | None:
    """Return the pattern of ``exclude_databases`` that a name matches, or None; an exact name always does."""
    return next((p for p in settings.exclude_databases if p == database or fnmatchcase(database, p)), None)


def _endpoints(settings: TargetConfig) -> frozenset[str]:
    found = Login(settings.conninfo).endpoints
    return found | Login(settings.backup.conninfo).endpoints if settings.backup.conninfo else found


def _server_databases(session: Connection) -> list[Row]:
    return session.rows(load("server_databases"), {"mark": scratch.MARK})
