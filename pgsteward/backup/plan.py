"""What one backup needs to know before anything starts: all that can be refused is refused here."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pgsteward import capacity, postgres
from pgsteward.backup import filters, lock_slots
from pgsteward.backup.home import home_store, past_stores
from pgsteward.backup.limits import refuse_too_large
from pgsteward.backup.listing import read_manifest
from pgsteward.backup.manifest import Manifest, catalog_prefix
from pgsteward.backup.marks import owner_of
from pgsteward.backup.newest import newest_ids
from pgsteward.client_places import can_be_run
from pgsteward.clients import Client, choose_client
from pgsteward.errors import (
    DatabaseUnavailable,
    PreconditionError,
    StoreFailed,
    StoreUnavailable,
    VerificationFailed,
)
from pgsteward.postgres import Connection, Login, Row
from pgsteward.report.units import humanize_bytes, plural
from pgsteward.sql import load
from pgsteward.storage import Store
from pgsteward.targets import Target

log = logging.getLogger(__name__)

SESSIONS_BESIDE = 4
"""What a backup opens besides pg_dump's workers: pg_dump itself, the snapshot, the proof, the lock watch."""

_GROWTH = 1.3
_HISTORY = 3
"""Newest backups of its kind that say how large the next one may become."""
_LOOKED_AT = 10


@dataclass(frozen=True, slots=True)
class Room:
    """What the backup will need on disk, and what is there.

    Attributes:
        needed_bytes: Estimated.
        estimated: How, as a phrase.
        free_bytes: Of the file system that the home store is on; None where it is on no disk of this machine.
        where: The folder that was asked.
        is_guess: The estimate says too little about a backup of this kind to refuse one by it.
    """

    needed_bytes: int
    estimated: str
    free_bytes: int | None = None
    where: Path | None = None
    is_guess: bool = False


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
    partial: tuple[str, ...] = ()

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
    room = _room(target, home, spec, partial, server["database_bytes"])
    lowered += refuse_too_little(room, home, refuse=settings.disk_check)
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
        partial=partial,
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


def _room(target: Target, home: Store, spec: str, partial: tuple[str, ...], database_bytes: int) -> Room:
    """Estimate what the backup needs, by those before it where they are of its kind."""
    codec = spec.partition(":")[0]
    alike: list[int] = []
    others: list[int] = []
    for manifest in _newest(home, target):
        if manifest.partial == partial:
            same = manifest.compress.partition(":")[0] == codec
            (alike if same else others).append(manifest.size_bytes)
        if len(alike) == _HISTORY:
            break
    before = alike or others
    is_guess = not alike and bool(others or partial)
    if before:
        needed = int(max(before) * _GROWTH)
        estimated = f"{_GROWTH} times the largest of the {len(before)} newest backups"
        if len(before) == 1:
            estimated = f"{_GROWTH} times the backup before it"
        if is_guess:
            estimated += ", which were compressed otherwise" if len(before) > 1 else ", compressed otherwise"
    else:
        needed = database_bytes
        estimated = "the size of the database itself, as there is no backup like it yet; it may be much less"
    folder = home.local_folder("")
    if folder is None:
        return Room(needed, estimated, is_guess=is_guess)
    free, where = capacity.free_bytes(folder)
    return Room(needed, estimated, free, where, is_guess)


def _newest(home: Store, target: Target) -> Iterator[Manifest]:
    """Yield the newest manifests: not all, as those of many tables are large."""
    for store in past_stores(target, home):
        trouble = () if store is home else (StoreUnavailable, StoreFailed)
        ids: list[str] = []
        with contextlib.suppress(*trouble):
            folders = store.folders(catalog_prefix(target.name, target.database))
            ids = newest_ids(folders, datetime.now(UTC))
        for backup_id in ids[:_LOOKED_AT]:
            with contextlib.suppress(FileNotFoundError, VerificationFailed, *trouble):
                yield read_manifest(store, target.name, target.database, backup_id)
        if ids:
            return


def refuse_too_little(room: Room, home: Store, *, refuse: bool) -> tuple[str, ...]:
    """Make sure that the home store has room; return a warning where it may not have, and nobody refuses.

    Raises:
        PreconditionError: It has not; the text says how much is needed, how much is free, and where.
    """
    if room.free_bytes is None or room.free_bytes >= room.needed_bytes:
        return ()
    said = (
        f"store {home.name} needs {humanize_bytes(room.needed_bytes)} for the backup (estimated:"
        f" {room.estimated}), and {room.where} has {humanize_bytes(room.free_bytes)} free; free"
        f" {humanize_bytes(room.needed_bytes - room.free_bytes)} there, keep fewer backups, or name another"
        " folder"
    )
    if refuse and not room.is_guess:
        raise PreconditionError(f"{said}; if it will be less, disk_check = false makes this a warning")
    log.warning("%s", said)
    return (said,)
