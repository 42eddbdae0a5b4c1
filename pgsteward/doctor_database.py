"""The part of doctor that looks at the server: versions, poolers, rights, extensions, clients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from pgsteward import postgres
from pgsteward.backup.filters import choose
from pgsteward.client_places import can_be_run
from pgsteward.clients import choose_client, find_clients
from pgsteward.config import Purpose, SessionTable
from pgsteward.databases import bind, find
from pgsteward.doctor import Check, CheckStatus
from pgsteward.errors import ConfigError, PreconditionError, StewardError
from pgsteward.postgres import Connection, Row, quote_name
from pgsteward.postgres_lock import refuse_pooler
from pgsteward.postgres_settings import READ_ONLY
from pgsteward.relations import find_table
from pgsteward.restore import scratch
from pgsteward.restore.preflight import ONE_DATABASE
from pgsteward.results import Note
from pgsteward.session_checks import choose_expiry
from pgsteward.several import narrow, with_own_exclusions
from pgsteward.sql import load
from pgsteward.targets import Target

NEWEST_TESTED = 18
_SHOWN = 20
_SINGLE_GRANTS = 5
"""Up to so many are granted one by one; beyond, the role should read everything, tables of tomorrow too."""
_TIMEOUT_S = 30.0
_MAY_MARK = "SELECT has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE')"

_NEEDED_BY: Mapping[Purpose, str] = {
    "backup": "backup rights",
    "maintenance": "maintenance rights",
    "restore": "restore rights",
}


def check_databases(target: Target) -> Iterator[Check]:
    """Yield the checks of each of the target's databases, and those that are left out."""
    if not target.has_several:
        yield from check_database(with_own_exclusions(target))
        return
    found = find(target)
    names = ", ".join(found.names)
    if found.names:
        yield Check("databases", "ok", f"{len(found.names)} to look after: {names}")
    elif not found.failed and not found.unknown:
        yield Check(
            "databases", "fail", "there is none to look after", "correct databases or exclude_databases"
        )
    kinds: tuple[tuple[CheckStatus, tuple[Note, ...]], ...] = (
        ("fail", found.failed),
        ("unknown", found.unknown),
        ("skipped", found.skipped),
    )
    for status, notes in kinds:
        for note in notes:
            yield Check(f"database {note.object}", status, note.reason)
    bound = [bind(target, name) for name in found.names]
    try:
        bound, _, _ = narrow("backup", bound)
    except ConfigError as exc:
        yield Check("backup filters", "fail", str(exc))
    try:
        with_tables = {one.database: one for one in narrow("sessions", bound)[0]}
    except ConfigError as exc:
        yield Check("session tables", "fail", str(exc))
        with_tables = {}
    for one in bound:
        without = one.settings.model_copy(update={"sessions": ()})
        narrowed = with_tables.get(one.database, replace(one, settings=without))
        for check in check_database(narrowed):
            yield replace(check, check=f"{one.database}: {check.check}")


def check_database(target: Target) -> Iterator[Check]:
    """Yield the checks of one database, kind of work by kind of work."""
    blind: set[str] = set()
    for purpose, rights in _NEEDED_BY.items():
        try:
            login = target.login(purpose)
        except ConfigError:
            yield Check(rights, "unknown", "its secret is missing")
            continue
        try:
            with postgres.connect(login, purpose="doctor", statement_timeout_s=_TIMEOUT_S) as connection:
                yield from _server(target, connection, purpose)
                yield from _sight(connection, purpose, blind)
                if purpose == "backup":
                    yield _backup_rights(target, connection)
                    yield from _marks(connection, purpose)
                    yield _clients(target, connection)
                elif purpose == "maintenance":
                    yield from _marks(connection, purpose)
                    yield _maintenance_rights(connection)
                    yield _pgstattuple(connection)
                    yield from _session_tables(target, connection)
                else:
                    scratch.admin_login(login)
                    yield _restore_rights(connection)
                    yield from _bound_extensions(connection)
        except StewardError as exc:
            yield Check(f"server ({purpose})", "fail", str(exc), _connection_fix(exc))
            yield Check(rights, "unknown", "the server was not asked: no usable connection")


def grants(rows: Sequence[Row], role: str) -> str:
    """Return the statements that give `role` what it lacks by rows of ``backup_obstacles.sql``."""
    statements: list[str] = []
    for row in rows:
        name = quote_name(row["schema_name"], row["name"])
        if "row-level" in row["reason"]:
            statements.append(f"ALTER ROLE {role} BYPASSRLS;")
            continue
        if "USAGE" in row["reason"]:
            statements.append(f"GRANT USAGE ON SCHEMA {quote_name(row['schema_name'])} TO {role};")
        statements.append(f"GRANT SELECT ON {name} TO {role};")
    wanted = list(dict.fromkeys(statements))
    if len(rows) > _SINGLE_GRANTS:
        wanted = [f"GRANT pg_read_all_data TO {role};", *(s for s in wanted if s.startswith("ALTER ROLE"))]
    return " ".join(wanted)


def _connection_fix(exc: StewardError) -> str:
    if isinstance(exc, PreconditionError) and "pooler" not in str(exc):
        return "check user, password, database and pg_hba.conf"
    return ""


def _server(target: Target, connection: Connection, purpose: Purpose) -> Iterator[Check]:
    refuse_pooler(connection)
    check = f"server ({purpose})"
    version = connection.server_version
    major = version // 10_000
    where = connection.value("SELECT current_user || ' on ' || current_database()")
    found = f"PostgreSQL {major}.{version % 10_000} as {where}, no pooler in between"
    if version < postgres.MIN_SERVER:
        yield Check(
            check, "fail", f"{found}; too old", f"upgrade to {postgres.MIN_SERVER // 10_000} or newer"
        )
    elif major > NEWEST_TESTED:
        yield Check(check, "warn", f"{found}; newer than {NEWEST_TESTED}, the newest that is tested")
    else:
        yield Check(check, "ok", found)
    if connection.dbname != target.database:
        yield Check(
            f"database ({purpose})",
            "fail",
            f"{purpose}.conninfo leads to {connection.dbname!r}, the target's own to {target.database!r}",
            "name the same database in both",
        )


def _role(connection: Connection) -> str:
    return quote_name(connection.value("SELECT current_user"))


def _marks(connection: Connection, purpose: Purpose) -> Iterator[Check]:
    """Yield why this role can't mark unfinished work as ours; nothing where it can."""
    if not connection.value(_MAY_MARK):
        role = _role(connection)
        yield Check(
            f"marks ({purpose})",
            "fail",
            f"{role} may not call pg_control_system(), which says whose unfinished work is",
            f"GRANT EXECUTE ON FUNCTION pg_catalog.pg_control_system() TO {role};",
        )


def _sight(connection: Connection, purpose: Purpose, blind: set[str]) -> Iterator[Check]:
    """Yield what this role is not shown, or may not write; nothing where it is all right.

    Args:
        connection: Of the role.
        purpose: What it is for.
        blind: Roles of which the first was told already; this one is added.
    """
    seen = connection.row(load("role_sight"))
    role = quote_name(seen["role_name"])
    if not seen["sees_others"] and role not in blind:
        blind.add(role)
        yield Check(
            f"statistics ({purpose})",
            "warn",
            f"{role} sees nothing of what other roles' sessions do: who is in the way, or holds back the"
            " horizon, can't be named, and replicas' lag is unknown",
            f"GRANT pg_read_all_stats TO {role};",
        )
    if seen["read_only"] and purpose != "backup":
        yield Check(
            f"writing ({purpose})",
            "fail",
            f"transactions of {role} are read-only: {READ_ONLY}",
            f"name the primary, or ALTER ROLE {role} RESET default_transaction_read_only;",
        )


def _backup_rights(target: Target, connection: Connection) -> Check:
    role = _role(connection)
    try:
        choice = choose(target.settings.backup, connection)
    except PreconditionError as exc:
        return Check("backup rights", "fail", str(exc))
    obstacles = choice.obstacles(connection.rows(load("backup_obstacles")))
    large_objects = []
    if choice.takes_large_objects:
        large_objects = [row["oid"] for row in connection.rows(load("unreadable_large_objects"))]
    if not obstacles and not large_objects:
        return Check("backup rights", "ok", f"{role} can read everything that is dumped")
    shown = [f"{quote_name(r['schema_name'], r['name'])}: {r['reason']}" for r in obstacles[:5]]
    if len(obstacles) > len(shown):
        shown.append(f"and {len(obstacles) - len(shown)} more")
    fixes = [grants(obstacles, role)] if obstacles else []
    if large_objects:
        shown.append(f"{len(large_objects):,} large objects can't be read")
        fixes += [f"GRANT SELECT ON LARGE OBJECT {oid} TO {role};" for oid in large_objects[:_SHOWN]]
        if len(large_objects) > _SHOWN:
            fixes.append("-- and so on; deployments/roles.sql does it in a loop")
    message = f"{role} can't dump everything: {'; '.join(shown)}"
    return Check("backup rights", "fail", message, " ".join(fixes))


def _clients(target: Target, connection: Connection) -> Check:
    clients = find_clients(target.settings.client_dirs)
    codec = target.settings.backup.compress.split(":")[0]
    known = ", ".join(f"{client.text} in {client.folder}" for client in clients) or "none"
    try:
        chosen = choose_client(clients, connection.server_version)
    except PreconditionError as exc:
        return Check("clients", "fail", str(exc))
    try:
        chosen = choose_client(
            clients, connection.server_version, codec=codec, spec=target.settings.backup.compress
        )
    except PreconditionError as exc:
        return Check("clients", "warn", f"{exc}; backups would be compressed with gzip, which is slower")
    useless = [str(folder) for folder in target.settings.client_dirs if not can_be_run(folder / "pg_dump")]
    if useless:
        return Check(
            "clients",
            "warn",
            f"there is no pg_dump that can be run in {', '.join(useless)}; used is that of {chosen.folder}",
            "correct client_dirs, or take it out",
        )
    return Check("clients", "ok", f"pg_dump {chosen.text} in {chosen.folder}, with {codec} (found: {known})")


def _maintenance_rights(connection: Connection) -> Check:
    role = _role(connection)
    owners = connection.rows(load("maintenance_owners"))
    total = sum(row["relations"] for row in owners)
    foreign = [row for row in owners if not row["has_rights"]]
    if not owners:
        return Check("maintenance rights", "warn", "there is no table in this database")
    if not foreign:
        return Check("maintenance rights", "ok", f"{role} has the owners' rights on all {total:,} relations")
    missing = sum(row["relations"] for row in foreign)
    named = "; ".join(
        f"{row['relations']:,} of {quote_name(row['owner'])}, e.g. {row['example']}" for row in foreign
    )
    fixes = [
        f"give what {quote_name(row['owner'])} (a superuser) owns to another role:"
        f" REASSIGN OWNED or ALTER TABLE {row['example']} OWNER TO ...;"
        if row["owner_is_superuser"]
        else f"GRANT {quote_name(row['owner'])} TO {role};"
        for row in foreign
    ]
    return Check(
        "maintenance rights",
        "fail",
        f"{role} has not the owner's rights on {missing:,} of {total:,} relations: {named}; it can't rebuild"
        " their indexes, and without MAINTAIN not analyze them",
        " ".join(fixes),
    )


def _pgstattuple(connection: Connection) -> Check:
    role = _role(connection)
    row = connection.row(load("pgstattuple"))
    if row["schema"] is None:
        install = "" if row["is_available"] else "install the server's contrib package; then "
        return Check(
            "pgstattuple",
            "fail",
            "the extension is missing: no index can be measured",
            f"{install}CREATE EXTENSION pgstattuple;",
        )
    if not row["may_use_schema"]:
        fix = f"GRANT USAGE ON SCHEMA {quote_name(row['schema'])} TO {role};"
        return Check("pgstattuple", "fail", f"{role} may not use its schema", fix)
    if not row["may_execute"]:
        fix = f"GRANT pg_stat_scan_tables TO {role};"
        return Check("pgstattuple", "fail", f"{role} may not call it: no index can be measured", fix)
    return Check("pgstattuple", "ok", "indexes can be measured")


def _session_tables(target: Target, connection: Connection) -> Iterator[Check]:
    if not target.settings.sessions:
        yield Check("session tables", "skipped", "none is configured: no row is ever deleted")
    for settings in target.settings.sessions:
        yield _session_table(connection, settings)


def _session_table(connection: Connection, settings: SessionTable) -> Check:
    check, role = f"session table {settings.table}", _role(connection)
    try:
        table = find_table(connection, settings.table)
    except ConfigError as exc:
        return Check(check, "fail", str(exc))
    column = connection.maybe_row(load("expiry_column"), {"oid": table.oid, "column": settings.expires})
    try:
        expiry = choose_expiry(settings, column["type_name"] if column else None)
    except ConfigError as exc:
        return Check(check, "fail", str(exc))
    may = connection.row(load("delete_rights"), {"oid": table.oid})
    schema = quote_name(table.schema)
    fixes = [] if may["may_use_schema"] else [f"GRANT USAGE ON SCHEMA {schema} TO {role};"]
    if not (may["may_select"] and may["may_delete"]):
        fixes.append(f"GRANT SELECT, DELETE ON {table.qualified} TO {role};")
    if may["rows_hidden"]:
        fixes.append(f"ALTER ROLE {role} BYPASSRLS;")
    if fixes:
        return Check(check, "fail", f"{role} can't delete all its expired rows", " ".join(fixes))
    return Check(check, "ok", f"expired by {settings.expires} ({expiry.type_name})")


def _bound_extensions(connection: Connection) -> Iterator[Check]:
    """Say which extensions keep this database from being restored as a whole."""
    rows = connection.rows("SELECT extname::text AS name FROM pg_extension ORDER BY extname")
    if bound := [row["name"] for row in rows if row["name"] in ONE_DATABASE]:
        yield Check(
            "restore",
            "warn",
            f"no restore or drill of a database with {', '.join(bound)} can work: it can be created only in"
            " the database that the server's settings name",
            "have it in a database of its own, from where it works on others: cron.schedule_in_database()",
        )


def _restore_rights(connection: Connection) -> Check:
    me = connection.row(load("role_attributes"))
    role = quote_name(me["name"])
    if me["is_superuser"]:
        return Check("restore rights", "ok", f"{role} is a superuser: it may restore and replace")
    missing, fixes = [], []
    if not me["may_create_databases"]:
        missing.append("make databases")
        fixes.append(f"ALTER ROLE {role} CREATEDB;")
    lacking = [row for row in connection.rows(load("restore_owners")) if not row["has_rights"]]
    if lacking:
        missing.append(f"make things that {', '.join(row['quoted'] for row in lacking)} own")
    fixes += [
        f"give what {row['quoted']} (a superuser) owns to another role: REASSIGN OWNED or ALTER ... OWNER TO;"
        if row["is_superuser"]
        else f"GRANT {row['quoted']} TO {role};"
        for row in lacking
    ]
    if missing:
        return Check("restore rights", "fail", f"{role} can't {', nor '.join(missing)}", " ".join(fixes))
    untrusted = [row["name"] for row in connection.rows(load("superuser_extensions"))]
    if untrusted:
        names = ", ".join(map(quote_name, untrusted))
        return Check(
            "restore rights",
            "warn",
            f"{role} can't create {names}: a restore leaves out what it may not create, and fails where"
            " anything needs it",
            "for those that are needed give [targets.NAME.restore] a superuser's conninfo on that day",
        )
    if not (me["may_end_sessions"] and me["is_database_owner"]):
        swap = [] if me["may_end_sessions"] else [f"GRANT pg_signal_backend TO {role};"]
        if not me["is_database_owner"]:
            swap.append(f"GRANT {quote_name(me['database_owner'])} TO {role};")
        message = f"{role} may restore into a new database, but not replace this one"
        return Check("restore rights", "warn", message, " ".join(swap))
    return Check("restore rights", "ok", f"{role} may restore and replace")
