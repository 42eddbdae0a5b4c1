"""The databases of a target: which there are on its server, and which have backups in its stores.

A target names one database (its conninfo's), several, or all of a server. Each is looked after on its own: it
has a folder of its own in the stores, its own locks, its own result. `pgsteward.several` works on them all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from pgsteward import capacity
from pgsteward.backup import identity
from pgsteward.backup.home import spool_store
from pgsteward.backup.manifest import MANIFEST, backup_prefix, database_name
from pgsteward.config import Config, TargetConfig
from pgsteward.errors import ConfigError, PreconditionError, StewardError, StoreFailed, StoreUnavailable
from pgsteward.postgres import Connection, Login, Row, connect, quote_name
from pgsteward.restore import choice
from pgsteward.restore.marks import MARK
from pgsteward.results import Note
from pgsteward.sql import load
from pgsteward.storage import Store, selftest
from pgsteward.targets import Target


@dataclass(frozen=True, slots=True)
class Found:
    """What a server has for a target.

    Attributes:
        names: Databases to look after.
        sizes: Their bytes, where that could be asked.
        on_server: Names of all databases of the server.
        skipped: Databases that are left out on purpose, and why.
        unknown: Databases that should be looked after and can't be.
        failed: Databases that the configuration names and the server does not have, or not for us.
        not_asked: The server and stores that could not be asked: unknown, but no databases.
        free_connections: How many more sessions our role can open on the server.
    """

    names: tuple[str, ...]
    sizes: Mapping[str, int] = field(default_factory=dict)
    on_server: frozenset[str] = frozenset()
    skipped: tuple[Note, ...] = ()
    unknown: tuple[Note, ...] = ()
    failed: tuple[Note, ...] = ()
    not_asked: tuple[Note, ...] = ()
    free_connections: int = 0


def bind(target: Target, database: str) -> Target:
    """Return the target for one of its databases.

    Raises:
        ConfigError: The target has one database only, and it has another name.
    """
    if target.settings.databases is not None:
        return replace(target, dbname=database)
    if database != target.database:
        raise ConfigError(
            f"target {target.name!r} has the database {target.database!r} only, not {database!r}; leave"
            " --database out, or name it under databases"
        )
    return target


def bind_covered(target: Target, database: str) -> Target:
    """Return the target for a database that it looks after.

    Raises:
        ConfigError: It does not; the text says why.
    """
    bound = bind(target, database)
    if covers(target.settings, database):
        return bound
    pattern = excluded_by(target.settings, database)
    why = f"exclude_databases has {pattern!r}" if pattern is not None else f"its databases are {target.scope}"
    raise ConfigError(f"target {target.name!r} does not look after the database {database!r}: {why}")


def find(target: Target) -> Found:
    """Ask the server which databases a target has now.

    Raises:
        StewardError: The database that the conninfo names does not let us in.
    """
    with connect(target.login("backup"), purpose="find databases", statement_timeout_s=60) as session:
        rows = _server_databases(session, with_sizes=True)
        free = capacity.free_connections(session, here=False)
    found = (_all if target.settings.databases == "*" else _named)(target.settings, rows)
    return replace(
        found,
        sizes={row["name"]: row["bytes"] for row in rows if row["bytes"] is not None},
        on_server=frozenset(row["name"] for row in rows),
        free_connections=free,
    )


def _named(settings: TargetConfig, rows: list[Row]) -> Found:
    there = {row["name"]: row for row in rows}
    names: list[str] = []
    failed: list[Note] = []
    for name in settings.databases or ():
        row = there.get(name)
        if row is None:
            why = "the server has no database of this name; correct databases, or take it out"
            failed.append(Note(name, why))
        elif not row["allows_connections"]:
            failed.append(Note(name, f"{_closed(row)}; take it out of databases"))
        elif not row["may_connect"]:
            failed.append(Note(name, _no_right(row)))
        else:
            names.append(name)
    return Found(tuple(names), failed=tuple(failed))


def _all(settings: TargetConfig, rows: list[Row]) -> Found:
    names: list[str] = []
    skipped: list[Note] = []
    unknown: list[Note] = []
    for row in rows:
        name = row["name"]
        pattern = excluded_by(settings, name)
        if pattern is not None:
            skipped.append(Note(name, f"excluded by {pattern!r} (exclude_databases)"))
        elif row["is_template"]:
            skipped.append(Note(name, "a template"))
        elif not row["allows_connections"]:
            skipped.append(Note(name, _closed(row)))
        elif row["is_scratch"]:
            skipped.append(Note(name, "a restore that has not finished loads it"))
        elif not row["may_connect"]:
            unknown.append(Note(name, f"{_no_right(row)} or name it in exclude_databases"))
        else:
            names.append(name)
    for pattern in settings.exclude_databases:
        if not any(_matches(pattern, row["name"]) for row in rows):
            skipped.append(Note(f"exclude_databases {pattern!r}", "matches no database of this server"))
    return Found(tuple(names), skipped=tuple(skipped), unknown=tuple(unknown))


def _closed(row: Row) -> str:
    if row["is_invalid"]:
        return f"invalid: its DROP was interrupted; DROP DATABASE {quote_name(row['name'])} once more"
    return "takes no connections (datallowconn)"


def _no_right(row: Row) -> str:
    grant = f"GRANT CONNECT ON DATABASE {quote_name(row['name'])} TO {quote_name(row['role_name'])};"
    return f"may not be connected to: {grant}"


def stored(target: Target) -> tuple[frozenset[str], tuple[Note, ...]]:
    """Return the databases that have a folder in the target's stores, and the stores that were not asked."""
    names: set[str] = set()
    silent: list[Note] = []
    for store in _stores(target):
        try:
            folders = [
                name
                for name in store.folders(f"{target.name}/")
                if name not in {selftest.FOLDER, identity.FOLDER}
            ]
            names.update(map(database_name, folders))
        except (StoreUnavailable, StoreFailed) as exc:
            silent.append(Note(f"store {store.name}", f"could not be asked: {exc}"))
    return frozenset(names), tuple(silent)


def locate(target: Target, what: str, *, database: str | None = None, store: str | None = None) -> Target:
    """Return the target for the database that a backup is of, also one that the server no longer has.

    Args:
        target: Whose backup.
        what: An id, or ``latest`` or ``latest-proven``, which is one database's.
        database: The database, where it is known.
        store: Look in this store only.

    Raises:
        PreconditionError: There is no such backup.
        ConfigError: It is no backup's id. Several databases have a backup of this id; or one is meant, and it
            is not said which.
        StoreUnavailable: Not found, and a store that may have it can't be asked.
    """
    choice.refuse_unknown(what)
    if database is not None:
        return bind(target, database)
    if not target.has_several:
        return target
    if what in choice.WORDS:
        known = ", ".join(sorted(stored(target)[0])) or "none has a backup"
        raise ConfigError(
            f"target {target.name!r} has several databases; say whose {what} backup is meant:"
            f" --database NAME ({known})"
        )
    names: set[str] = set()
    errors: list[StewardError] = []
    for place in [target.store(store)] if store is not None else _stores(target):
        try:
            for folder in place.folders(f"{target.name}/"):
                database = database_name(folder)
                if _has(place, target.name, database, what):
                    names.add(database)
        except (StoreUnavailable, StoreFailed) as exc:
            errors.append(exc)
    if len(names) > 1:
        raise ConfigError(
            f"backup {what} is there of several databases: {', '.join(sorted(names))}; say which:"
            " --database NAME"
        )
    if names:
        return bind(target, names.pop())
    if errors:
        raise errors[0]
    raise PreconditionError(f"no store of target {target.name!r} has a complete backup {what}")


def _has(store: Store, target_name: str, database: str, backup_id: str) -> bool:
    key = backup_prefix(target_name, database, backup_id) + MANIFEST
    return any(stored.key == key for stored in store.objects(key))


def _stores(target: Target) -> list[Store]:
    spool = spool_store(target)
    return target.stores() if spool is None else [*target.stores(), spool]


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
        for row in _server_databases(session, with_sizes=False)
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
    return next((pattern for pattern in settings.exclude_databases if _matches(pattern, database)), None)


def _matches(pattern: str, database: str) -> bool:
    return pattern == database or fnmatchcase(database, pattern)


def _endpoints(settings: TargetConfig) -> frozenset[str]:
    found = Login(settings.conninfo).endpoints
    return found | Login(settings.backup.conninfo).endpoints if settings.backup.conninfo else found


def _server_databases(session: Connection, *, with_sizes: bool) -> list[Row]:
    return session.rows(load("server_databases"), {"mark": MARK, "with_sizes": with_sizes})
