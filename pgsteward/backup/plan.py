"""What one backup needs to know before anything starts: all that can be refused is refused here."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pgsteward import capacity, postgres
from pgsteward.backup import filters, lock_slots
from pgsteward.backup.figures import Earlier
from pgsteward.backup.home import home_store
from pgsteward.backup.limits import refuse_too_large
from pgsteward.backup.marks import owner_of
from pgsteward.backup.room import Room, estimate
from pgsteward.client_places import can_be_run
from pgsteward.clients import Client, choose_client
from pgsteward.errors import DatabaseUnavailable, PreconditionError
from pgsteward.postgres import Connection, Login, Row
from pgsteward.report.units import plural
from pgsteward.sql import load
from pgsteward.storage import Store
from pgsteward.targets import Target

log = logging.getLogger(__name__)

SESSIONS_BESIDE = 4
"""What a backup opens besides pg_dump's workers: pg_dump itself, the snapshot, the proof, the lock watch."""


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
    free_connections: int
    room: Room
    earlier: Earlier
    partial: tuple[str, ...] = ()
    schemas_to_make: Sequence[str] = ()
    """Those that a restore makes first: pg_dump leaves them out."""

    @property
    def figures(self) -> dict[str, Any]:
        """What was found out, for a dry run."""
        return {
            "jobs": self.jobs if self.target.settings.backup.form == "directory" else 1,
            "free_connections": self.free_connections,
            "needed_bytes": self.room.needed_bytes,
            "estimated": self.room.estimated,
            "free_bytes": self.room.free_bytes,
            "partial": list(self.partial),
            "warnings": list(self.warnings),
        }


def make_plan(
    target: Target, login: Login, session: Connection, clients: Callable[[], Sequence[Client]]
) -> Plan:
    """Find out what the backup needs, and refuse what could not end well.

    Args:
        target: Whose database.
        login: This very server.
        session: There.
        clients: What `find_clients` found, once it is asked for.

    Raises:
        PreconditionError: Rights, client, server version, disk or configuration; the text says what to do.
        DatabaseUnavailable: The server has no room for the sessions that a backup needs.
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
    settings = target.settings.backup
    _refuse_unreadable_names(server["encoding"], session)
    choice = filters.choose(settings, session)
    _refuse_obstacles(choice.obstacles(session.rows(load("backup_obstacles"))))
    if choice.takes_large_objects:
        _refuse_large_objects(session)
    lock_slots.check(session, settings.proof, tables=choice.tables, schemas=choice.schemas)
    client, spec, warnings = _choose(target, server["version_num"], clients())
    free = capacity.free_connections(session)
    jobs, lowered = _jobs(settings.jobs, free)
    home = home_store(target)
    partial = filters.clauses(settings)
    earlier = Earlier(target.name, target.database)
    room = estimate(target, home, earlier, spec, partial, server["database_bytes"])
    refuse_too_large(target, session, server["database_bytes"], room.needed_bytes)
    return Plan(
        target=target,
        login=login,
        owner=owner_of(session),
        server=server,
        client=client,
        compress=spec,
        warnings=(*warnings, *lowered),
        home=home,
        jobs=jobs,
        free_connections=free,
        room=room,
        earlier=earlier,
        partial=partial,
        schemas_to_make=choice.schemas_to_make,
    )


def _refuse_unreadable_names(encoding: str, session: Connection) -> None:
    """An SQL_ASCII database takes any bytes for a name; a manifest, and most clients, don't."""
    if encoding != "SQL_ASCII":
        return
    for row in session.rows(load("odd_names")):
        try:
            b".".join(bytes(part) for part in row["names"]).decode()
        except UnicodeDecodeError:
            shown = ".".join(bytes(part).decode(errors="backslashreplace") for part in row["names"])
            raise PreconditionError(
                f"the name {shown} in this SQL_ASCII database is not UTF-8, and can't be written down: rename"
                f" it (with PGCLIENTENCODING=SQL_ASCII; oid {row['oid']}), or dump with pg_dump alone"
            ) from None


def _refuse_obstacles(obstacles: list[Row]) -> None:
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


def _refuse_large_objects(session: Connection) -> None:
    """Make sure that every large object can be read: pg_read_all_data does not cover them.

    Raises:
        PreconditionError: One can't; pg_dump would fail on it at the end.
    """
    unreadable = session.rows(load("unreadable_large_objects"))
    if unreadable:
        raise PreconditionError(
            f"this role can't read {plural(len(unreadable), 'large object')} (the first is"
            f" {unreadable[0]['oid']}), which pg_read_all_data does not cover; GRANT SELECT ON LARGE OBJECT"
            " to the role (`pgsteward doctor` prints it), or as a superuser ALTER ROLE ... SET"
            " lo_compat_privileges = on"
        )


def _choose(
    target: Target, server_version: int, clients: Sequence[Client]
) -> tuple[Client, str, tuple[str, ...]]:
    """Return client and compression; gzip:1 and a warning where no client has the codec asked for."""
    spec = target.settings.backup.compress
    warnings = [
        f"client_dirs: there is no pg_dump that can be run in {folder}; correct it, or take it out"
        for folder in target.settings.client_dirs
        if not can_be_run(folder / "pg_dump")
    ]
    for warning in warnings:
        log.warning("%s", warning)
    oldest = choose_client(clients, server_version)
    try:
        chosen = choose_client(clients, server_version, codec=spec.split(":")[0], spec=spec)
        return chosen, spec, tuple(warnings)
    except PreconditionError as exc:
        warning = f"{exc}; compressed with gzip:1 instead of {spec}"
        log.warning("%s", warning)
        return oldest, "gzip:1", (*warnings, warning)


def _jobs(configured: int | None, free: int) -> tuple[int, tuple[str, ...]]:
    """Return how many workers pg_dump gets, and a warning where they are fewer than asked for.

    Raises:
        DatabaseUnavailable: There is no room even for one.
    """
    if free < SESSIONS_BESIDE + 1:
        raise DatabaseUnavailable(
            f"the server has {free} free connections for this role, and a backup needs at least"
            f" {SESSIONS_BESIDE + 1}; raise max_connections, or the role's or database's CONNECTION LIMIT"
        )
    if configured is None:
        return capacity.choose_jobs(free, SESSIONS_BESIDE), ()
    fit = capacity.jobs_that_fit(free, SESSIONS_BESIDE)
    if configured <= fit:
        return configured, ()
    warning = (
        f"jobs lowered from {configured} to {fit}: the server has {free} free connections for this role, and"
        " a backup takes no more than half of them; raise max_connections, or lower jobs"
    )
    log.warning("%s", warning)
    return fit, (warning,)
