"""What one backup needs to know before anything starts: all that can be refused is refused here."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pgsteward import postgres
from pgsteward.backup import lock_slots
from pgsteward.backup.home import home_store
from pgsteward.errors import PreconditionError
from pgsteward.pgtools import Client, choose_client, find_clients
from pgsteward.postgres import Connection, Login, Row
from pgsteward.sql import load
from pgsteward.storage import Store
from pgsteward.targets import Target

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """What an attempt needs to know, found out once."""

    target: Target
    login: Login
    owner: Mapping[str, Any]
    server: Row
    client: Client
    compress: str
    warnings: tuple[str, ...]
    home: Store
    jobs: int


def make_plan(target: Target, login: Login, session: Connection) -> Plan:
    """Find out what the backup needs, and refuse what could not end well.

    Raises:
        PreconditionError: Rights, client, server version or configuration; the text says what to do.
    """
    server = session.row(load("backup_server"))
    if server["database_name"] != target.database:
        raise PreconditionError(
            f"targets.{target.name}.backup.conninfo leads to database {server['database_name']!r}, the"
            f" target's own to {target.database!r}; name the same database in both"
        )
    if server["version_num"] < postgres.MIN_SERVER:
        raise PreconditionError(
            f"the server is PostgreSQL {server['version']}; the oldest supported is"
            f" {postgres.MIN_SERVER // 10_000}"
        )
    obstacles = session.rows(load("backup_obstacles"))
    if obstacles:
        named = "; ".join(
            f"{postgres.quote_name(row['schema_name'], row['name'])}: {row['reason']}"
            for row in obstacles[:5]
        )
        more = f" and {len(obstacles) - 5} more" if len(obstacles) > 5 else ""
        raise PreconditionError(
            f"this role can't dump the whole database ({named}{more}); GRANT pg_read_all_data TO the role,"
            " and ALTER ROLE ... BYPASSRLS where row-level security is in use; `pgsteward doctor` prints both"
        )
    lock_slots.check(session, target.settings.backup.proof)
    client, spec, warnings = _choose(target, server["version_num"])
    owner = session.row(load("whose_mark"))
    return Plan(
        target, login, owner, server, client, spec, warnings, home_store(target), target.settings.backup.jobs
    )


def _choose(target: Target, server_version: int) -> tuple[Client, str, tuple[str, ...]]:
    """Return client and compression; gzip:1 and a warning where no client has the codec asked for."""
    spec = target.settings.backup.compress
    clients = find_clients(target.settings.client_dirs)
    oldest = choose_client(clients, server_version)
    try:
        return choose_client(clients, server_version, codec=spec.split(":")[0], spec=spec), spec, ()
    except PreconditionError as exc:
        warning = f"{exc}; compressed with gzip:1 instead of {spec}"
        log.warning("%s", warning)
        return oldest, "gzip:1", (warning,)
