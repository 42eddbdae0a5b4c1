"""Go or no-go, before anything is created and before the data moves; each no-go says how to mend it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import Path

from pgsteward import capacity, sql
from pgsteward.backup import archive as archive_text
from pgsteward.backup.manifest import Manifest
from pgsteward.clients import Client, choose_client, find_clients
from pgsteward.errors import PreconditionError
from pgsteward.postgres import Connection, Row, quote_name
from pgsteward.restore import locales, room, surroundings
from pgsteward.restore.checks import Check
from pgsteward.restore.properties import read_properties
from pgsteward.restore.scratch import NAME_BYTES, PREFIX
from pgsteward.restore.surroundings import Archive
from pgsteward.targets import Target

_WAYS_OUT = {
    "replication slot": "drop it, if nobody reads from it any more: SELECT pg_drop_replication_slot(...)",
    "subscription": "it would go on in what is put aside: drop it first, or restore beside (--into)",
    "prepared transaction": "COMMIT PREPARED or ROLLBACK PREPARED it, in that database",
    "session of a superuser": "end it, or restore as a superuser",
    "session that this role may not end": "end it, or GRANT pg_signal_backend to this role",
    "running work of pgsteward": "wait for it to end",
}
"""What to do about each kind of obstacle that replace_obstacles.sql knows."""
_DEFAULT_TABLESPACE = "pg_default"
"""Everybody may create a database there who may create one at all."""
_SUPERUSER = "give [targets.NAME.restore], or --to, a superuser's conninfo"
_SHOWN = 5
ONE_DATABASE = frozenset({"pg_cron"})
"""Extensions that the server lets nobody create but in the one database that its own settings name."""


def choose(target: Target, manifest: Manifest, server_version: int) -> Client:
    """Return the client to restore with: not older than the dump's, with its codec, if possible the server's.

    Raises:
        PreconditionError: There is none; the text says what to install.
    """
    clients = find_clients(target.settings.client_dirs)
    codec = manifest.compress.split(":")[0]
    dumped_by = int(re.match(r"\d+", manifest.client_version)[0]) * 10_000  # type: ignore[index]
    if server_version > dumped_by:
        try:
            return choose_client(clients, server_version, codec=codec, needs=("pg_restore",))
        except PreconditionError:  # an older client can still load what an older client dumped
            pass
    return choose_client(clients, dumped_by, codec=codec, needs=("pg_restore",))


def examine(
    session: Connection,
    manifest: Manifest,
    archive: Archive,
    client: Client,
    *,
    into: str,
    replaces: bool,
    jobs: int,
    spool: Path | None,
    new_roles: Collection[str] | None = None,
    no_tablespaces: bool = False,
    copies: int = 1,
) -> list[Check]:
    """Look at everything that can be known before the first byte is loaded.

    Args:
        session: To the admin database of the server to restore to.
        manifest: Of the backup.
        archive: Its table of contents.
        client: What will load it.
        into: Final name of the database.
        replaces: There is a database of this name, to be replaced.
        jobs: Sessions of pg_restore.
        spool: Where the files will be downloaded to; None when they are on this machine.
        new_roles: Roles that will be created first; None where none are asked for.
        no_tablespaces: Everything goes into the database's own tablespace.
        copies: How often the rows will lie on the server at the same time.
    """
    server = _ask(session)
    decode = archive_text.decoder(session, manifest.server.encoding)
    server["roles"] = {
        surroundings.read_name(bytes.fromhex(name), decode): may_give
        for name, may_give in server["role_bytes"].items()
    }
    home = _home(session, into) if replaces else None
    checks = [
        Check("client", "go", f"pg_restore {client.text}, dumped by {manifest.client_version}"),
        _versions(manifest, server),
        _rights(server, archive),
        _name(into, replaces, server),
        _slots(jobs, server),
        _extensions(manifest, archive, server),
        _roles(archive, server, new_roles),
        _tablespaces(archive, server, no_tablespaces, home),
        *locales.examine(session, manifest, archive, server),
        *room.examine(
            manifest,
            server,
            spool,
            copies=copies,
            home=home,
            tablespaces=() if no_tablespaces else archive.tablespaces,
        ),
    ]
    if replaces and into in server["databases"]:
        checks += replaceable(session, into)
    return checks


def _as_parameter(name: str) -> str:
    return quote_name(*name.split("."))


def _home(session: Connection, database: str) -> str | None:
    """Return the tablespace of a database that is to be replaced; the new one goes there too."""
    properties = read_properties(session, database)
    return None if properties is None else str(properties["tablespace"])


def examine_rows(
    session: Connection, manifest: Manifest, client: Client, *, into: str, spool: Path | None
) -> list[Check]:
    """Look at what matters where only rows are loaded, into a database that is there.

    Args:
        session: To the admin database of the server.
        manifest: Of the backup, narrowed to the part.
        client: What will read it.
        into: Name of the database.
        spool: Where the files will be downloaded to; None when they are on this machine.
    """
    server = _ask(session)
    name = Check("name", "go", f"{into} is there")
    if into not in server["databases"]:
        fix = "leave data-only out to restore into a new one, or name another"
        name = Check("name", "no-go", f"there is no database {into!r} to load rows into", fix)
    return [
        Check("client", "go", f"pg_restore {client.text}, dumped by {manifest.client_version}"),
        _versions(manifest, server),
        name,
        _slots(1, server),
        *room.examine(manifest, server, spool, home=_home(session, into)),
    ]


def _versions(manifest: Manifest, server: Row) -> Check:
    there, here = manifest.server.version_num // 10_000, server["version_num"] // 10_000
    if here < there:
        says = f"PostgreSQL {here}, dumped from {there}: newer features may be missing there"
        return Check("server version", "warning", says, f"take a server of PostgreSQL {there} or later")
    return Check("server version", "go", f"PostgreSQL {here}, dumped from {there}")


def _ask(session: Connection) -> Row:
    """Return what the server says about itself, and how many sessions it has left for this role."""
    server = session.row(sql.load("restore_server"))
    return {**server, "free_slots": capacity.free_connections(session, here=False)}


def _rights(server: Row, archive: Archive) -> Check:
    role = quote_name(server["role_name"])
    if server["read_only"]:
        says = f"sessions of {role} are read-only: a standby, or default_transaction_read_only is on"
        fix = f"give the primary's address, or ALTER ROLE {role} RESET default_transaction_read_only"
        return Check("rights", "no-go", says, fix)
    if server["may_create"] and archive.superusers and not server["is_superuser"]:
        more = len(archive.superusers) - _SHOWN
        listed = "; ".join([*archive.superusers[:_SHOWN], *([f"and {more} more"] if more > 0 else [])])
        says = f"only a superuser can make what the backup holds ({listed}), and {role} is none"
        says += ": the restore will most likely fail"
        return Check("rights", "warning", says, _SUPERUSER, expects_failure=True)
    if server["may_create"]:
        return Check("rights", "go", f"{role} may create databases")
    return Check("rights", "no-go", f"{role} may not create databases", f"ALTER ROLE {role} CREATEDB")


def _name(into: str, replaces: bool, server: Row) -> Check:
    exists = into in server["databases"]
    if len(into.encode()) > NAME_BYTES or not into:
        says = f"a database name has 1 to {NAME_BYTES} bytes, {into!r} has not"
        return Check("name", "no-go", says, "choose another name for into")
    if into.startswith(PREFIX):
        says = f"names that start with {PREFIX} are those of unfinished restores"
        return Check("name", "no-go", says, "choose another name for into")
    if replaces and not exists:
        fix = f"leave replace out, and restore it with into={into!r}"
        return Check("name", "no-go", f"there is no database {into!r} to replace", fix)
    if exists and not replaces:
        fix = "choose another name for into"
        return Check("name", "no-go", f"there is a database {into!r} already", fix)
    return Check("name", "go", f"{into} {'will be replaced' if replaces else 'is free'}")


def _slots(jobs: int, server: Row) -> Check:
    needed, free = jobs + 3, server["free_slots"]
    says = f"{free} connections are free, {needed} are needed"
    if free >= needed:
        return Check("connections", "go", says)
    less = "fewer jobs" if jobs > 1 else "end some"
    fix = f"{less}, or raise max_connections or the role's CONNECTION LIMIT"
    return Check("connections", "no-go", says, fix)


def _extensions(manifest: Manifest, archive: Archive, server: Row) -> Check:
    available: dict[str, str] = server["extensions"]
    wanted = set(archive.extensions) if manifest.partial else set(manifest.extensions)
    missing = sorted(wanted - set(available))
    if missing:
        says = f"not installed on this server: {', '.join(missing)}"
        return Check("extensions", "no-go", says, "install their packages there")
    if bound := sorted(wanted & ONE_DATABASE):
        says = f"{', '.join(bound)} can be created only in the database that the server's settings name"
        says += " (cron.database_name), and a restore is loaded under another name first"
        fix = "restore what you need of it (--schema, --table), or all of it by hand into a database of that"
        return Check("extensions", "no-go", says, f"{fix} name, as RESTORE.md says")
    locked = sorted(wanted & set(server["superuser_extensions"]))
    if locked and not server["is_superuser"]:  # a warning: some clouds let others create them all the same
        names, role = ", ".join(map(quote_name, locked)), quote_name(server["role_name"])
        says = (
            f"only a superuser can create {names}, and {role} is none: what is refused is left out, and the"
        )
        says += " restore fails where anything needs it"
        return Check("extensions", "warning", says, _SUPERUSER, expects_failure=True)
    other = [
        f"{name} {version} is {available[name]} here"
        for name, version in sorted(manifest.extensions.items())
        if name in wanted and available[name] != version
    ]
    if other:
        return Check("extensions", "warning", "; ".join(other))
    return Check("extensions", "go", f"all {len(wanted)} are available")


def _roles(archive: Archive, server: Row, new: Collection[str] | None) -> Check:
    if new and not server["may_create_roles"]:
        role = quote_name(server["role_name"])
        return Check("roles", "no-go", f"{role} may not create roles", f"ALTER ROLE {role} CREATEROLE")
    missing = sorted(archive.roles - set(server["roles"]) - set(new or ()))
    others = archive.owners - {"pg_database_owner"}
    lost = sorted(name for name in others if server["roles"].get(name, True) is None)
    kept = sorted(name for name in others if server["roles"].get(name, True) is False)
    if lost:
        names, role = _listed(lost), quote_name(server["role_name"])
        says = f"{role} inherits nothing as a member of {names}: what it gives them it can't fill"
        way = f"GRANT {names} TO {role} WITH INHERIT TRUE"
        return Check(
            "roles", "no-go", says, way if server["version_num"] >= 160_000 else f"ALTER ROLE {role} INHERIT"
        )
    fix = "--create-roles does, from globals.sql.zst" if new is None else "the backup lacks them"
    if nameless := [name for name in missing if name in archive.named_roles]:
        says = f"policies or user mappings are for roles that this server lacks: {_listed(nameless)}"
        return Check("roles", "no-go", says, f"create them first ({fix})")
    if missing:
        says = f"owners or grantees that this server lacks: {_listed(missing)}"
        return Check("roles", "warning", says, f"create them first ({fix})")
    if kept:
        names, role = _listed(kept), quote_name(server["role_name"])
        says = f"{role} is no member of {names}, and can't make them owners: it will own what was theirs"
        return Check("roles", "warning", says, f"GRANT {names} TO {role}, or restore as a superuser")
    if new:
        return Check("roles", "go", f"will be created: {_listed(sorted(new))}")
    return Check("roles", "go", f"all {len(archive.roles)} are there")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(quote_name, names))


def _tablespaces(archive: Archive, server: Row, left_out: bool, home: str | None = None) -> Check:
    if home not in (None, _DEFAULT_TABLESPACE) and not server["tablespaces"].get(home, True):
        where, role = quote_name(str(home)), quote_name(server["role_name"])
        says = f"{role} may create nothing in {where}, where the database is that is to be replaced"
        return Check("tablespaces", "no-go", says, f"GRANT CREATE ON TABLESPACE {where} TO {role}")
    missing = sorted(archive.tablespaces - set(server["tablespaces"]))
    closed = sorted(name for name in archive.tablespaces if not server["tablespaces"].get(name, True))
    if left_out:
        return Check("tablespaces", "go", "none are used: everything goes into the database's own")
    if closed and not missing:
        listed, role = ", ".join(map(quote_name, closed)), quote_name(server["role_name"])
        fix = f"GRANT CREATE ON TABLESPACE {listed} TO {role}, or leave them out: --no-tablespaces"
        return Check("tablespaces", "no-go", f"{role} may create nothing in {listed}", fix)
    if not missing:
        return Check("tablespaces", "go", f"all {len(archive.tablespaces)} are there")
    names = ", ".join(map(quote_name, missing))
    fix = "CREATE TABLESPACE ... LOCATION, or leave them out: --no-tablespaces"
    return Check("tablespaces", "no-go", f"this server lacks {names}", fix)


def replaceable(session: Connection, database: str) -> list[Check]:
    """Look for what forbids to replace a database by a rename.

    Args:
        session: To another database of the server.
        database: There is one of this name.
    """
    own = read_properties(session, database)
    if own is None:
        return [Check("replacing", "no-go", f"there is no database {database} any more")]
    checks = [
        Check(
            "obstacle",
            "no-go",
            f"{row['kind']} {row['name']} is in the way of replacing {database}",
            _WAYS_OUT[row["kind"]],
        )
        for row in session.rows(sql.load("replace_obstacles"), {"database": database})
    ]
    if not own["may_own"]:
        owner = quote_name(own["owner"])
        says = f"this role has not the rights of {owner}, who owns {database}"
        checks.append(Check("ownership", "no-go", says, f"GRANT {owner} to it, with INHERIT and SET"))
    others = sorted({entry["role"] for entry in own["settings"] if entry["role"] is not None})
    if others and not own["is_superuser"]:
        says = f"{database} has settings of roles ({', '.join(others)}), which only a superuser can copy"
        checks.append(Check("settings", "no-go", says))
    mine = [entry["setting"].partition("=")[0] for entry in own["settings"] if entry["role"] is None]
    if locked := [row["name"] for row in session.rows(sql.load("locked_settings"), {"names": mine})]:
        role = quote_name(session.value("SELECT current_user"))
        says = f"{role} may not give the settings of {database} to the new one: {', '.join(locked)}"
        fix = f"GRANT SET ON PARAMETER {', '.join(map(_as_parameter, locked))} TO {role}"
        checks.append(Check("settings", "no-go", says, fix))
    if own["unreadable"]:
        says = f"{', '.join(own['unreadable'])} of {database} can't be copied, being in another encoding"
        checks.append(Check("encoding", "no-go", f"{says}: take them away, and set them again afterwards"))
    if own["security_labels"]:
        checks.append(Check("security labels", "warning", f"those of {database} are not copied"))
    return checks or [Check("replacing", "go", f"nothing is in the way of replacing {database}")]
