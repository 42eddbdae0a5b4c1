"""The last step: the scratch database gets its name. Where it replaces one, both renames are one transaction.

Owner, rights, settings, connection limit and comment belong to a database's OID, so that a rename alone would
lose them: they are copied to the new database in the same transaction.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pgsteward import sql
from pgsteward.errors import DatabaseUnavailable, LockTimeout, PreconditionError, QueryFailed, StewardError
from pgsteward.postgres import (
    Connection,
    Login,
    Row,
    compose,
    connect,
    identifier,
    join,
    literal,
    raw,
)
from pgsteward.restore.properties import read_properties
from pgsteward.restore.scratch import OPERATION

log = logging.getLogger(__name__)

ATTEMPTS = 3
_BUSY = "55006"
_SETTLED_S = 30.0
"""How long the server may take to tell how a transaction ended whose session was lost."""
_PRIVILEGES = {name: raw(name) for name in ("CONNECT", "CREATE", "TEMPORARY")}
_NAME = re.compile(r'"((?:[^"]|"")+)"|([^",]+)')
_LISTS = frozenset(
    {
        "local_preload_libraries",
        "search_path",
        "session_preload_libraries",
        "shared_preload_libraries",
        "temp_tablespaces",
        "unix_socket_directories",
    }
)
"""Settings whose value is a list of names: one literal would be one name with commas in it."""


def publish(
    admin: Login, session: Connection, scratch: str, into: str, *, open_to_public: bool, comment: str
) -> None:
    """Give a whole scratch database its name and take the mark away.

    Args:
        admin: To the admin database, for the second session.
        session: To the admin database.
        scratch: The restored database.
        into: Its name from now on.
        open_to_public: Let everybody connect.
        comment: In place of the mark.

    Raises:
        PreconditionError: Somebody took the name meanwhile.
        LockTimeout: Somebody is connected to it who can't be thrown out.
    """

    def work() -> None:
        if open_to_public:
            session.execute(compose("GRANT CONNECT ON DATABASE {} TO PUBLIC", identifier(scratch)))
        session.execute(compose("COMMENT ON DATABASE {} IS {}", identifier(scratch), literal(comment)))
        session.execute(compose("ALTER DATABASE {} RENAME TO {}", identifier(scratch), identifier(into)))

    try:
        swap(admin, session, [scratch], into, work)
    except QueryFailed as exc:
        if exc.sqlstate == "42P04":
            raise PreconditionError(
                f"a database {into!r} was created by somebody else meanwhile; choose another name for into"
            ) from exc
        raise


def replace_database(
    admin: Login, session: Connection, scratch: str, database: str, put_aside: Callable[[], None]
) -> None:
    """Put the scratch database in the place of `database`. All of it or nothing.

    Args:
        admin: To the admin database, for the second session.
        session: To the admin database.
        scratch: The restored database.
        database: The one to replace.
        put_aside: Takes it out of its place; called inside the transaction.

    Raises:
        LockTimeout: Its sessions come back faster than they can be ended.
    """
    properties = read_properties(session, database)
    if properties is None:
        raise PreconditionError(f"there is no database {database!r} any more to replace")

    def work() -> None:
        put_aside()
        copy_properties(session, properties, scratch)
        session.execute(compose("ALTER DATABASE {} RENAME TO {}", identifier(scratch), identifier(database)))

    swap(admin, session, [scratch, database], database, work)


def swap(
    admin: Login, session: Connection, databases: list[str], name: str, work: Callable[[], None]
) -> None:
    """Run what renames databases, in one transaction, while their sessions are ended by a second session.

    New connections wait while the transaction holds the names. Where the session is lost, the server is asked
    how the transaction ended.

    Args:
        admin: To the admin database, for the second session.
        session: To the admin database.
        databases: Whose sessions are ended; the first is the one that gets the name.
        name: The one that it gets.
        work: The renames.

    Raises:
        LockTimeout: The sessions come back faster than they can be ended, or can't be ended.
        DatabaseUnavailable: The session was lost; the text says whether the names are as they were.
    """
    oid = _oid(session, databases[0])
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with _ending_sessions(admin, databases), session.transaction():
                work()
        except DatabaseUnavailable as exc:
            if _was_done(admin, session.backend_pid, oid, name, exc):
                log.warning("The connection was lost after %s had got its database: %s", name, exc)
                return
            raise DatabaseUnavailable(f"{exc}; the names of all databases are as they were") from exc
        except (QueryFailed, LockTimeout) as exc:
            busy = isinstance(exc, LockTimeout) or exc.sqlstate == _BUSY
            if not busy:
                raise
            if attempt == ATTEMPTS:
                raise LockTimeout(
                    f"no database could be given the name {name!r}, and all are as they were:"
                    f" {_who_is_there(session, databases)} can't be ended ({exc}); end them first, or restore"
                    " as a superuser"
                ) from exc
            log.warning("Attempt %s to give a database the name %s: %s", attempt, name, exc)
        else:
            return


def _oid(session: Connection, database: str) -> int | None:
    row = session.maybe_row(
        "SELECT oid::int8 AS oid FROM pg_database WHERE datname = %(name)s", {"name": database}
    )
    return None if row is None else int(row["oid"])


def _was_done(admin: Login, lost_pid: int, oid: int | None, name: str, exc: StewardError) -> bool:
    """Tell whether the transaction of a session that was lost was committed, once the server is done with it.

    Raises:
        DatabaseUnavailable: The server does not tell.
    """
    deadline = time.monotonic() + _SETTLED_S
    while time.monotonic() < deadline:
        try:
            with connect(admin, purpose=OPERATION) as session:
                if session.value(sql.load("session_lives"), {"pid": lost_pid}) is False:
                    return oid is not None and _oid(session, name) == oid
        except DatabaseUnavailable:
            pass
        time.sleep(0.2)
    raise DatabaseUnavailable(
        f"{exc}; the server does not tell whether the restored database has got the name {name!r}:"
        " look at the names and comments of its databases (psql: \\l+) when it answers again"
    ) from exc


def _who_is_there(session: Connection, databases: list[str]) -> str:
    rows = session.rows(sql.load("database_sessions"), {"databases": databases})
    return (
        ", ".join(f"pid {row['pid']} of {row['role_name']} ({row['application']})" for row in rows)
        or "sessions that come back all the time"
    )


def copy_properties(session: Connection, properties: Row, to: str) -> None:
    """Give a database what ``database_properties.sql`` read of another one."""
    name, owner = identifier(to), identifier(properties["owner"])
    session.execute(compose("ALTER DATABASE {} OWNER TO {}", name, owner))
    session.execute(compose("REVOKE ALL ON DATABASE {} FROM PUBLIC", name))
    session.execute(compose("REVOKE ALL ON DATABASE {} FROM {}", name, owner))
    for entry in properties["acl"]:
        grantee = raw("PUBLIC") if entry["grantee"] is None else identifier(entry["grantee"])
        option = raw(" WITH GRANT OPTION" if entry["grantable"] else "")
        session.execute(
            compose("GRANT {} ON DATABASE {} TO {}{}", _PRIVILEGES[entry["privilege"]], name, grantee, option)
        )
    for entry in properties["settings"]:
        setting, _, value = entry["setting"].partition("=")
        of_role = (
            compose("ALTER DATABASE {}", name)
            if entry["role"] is None
            else compose("ALTER ROLE {} IN DATABASE {}", identifier(entry["role"]), name)
        )
        values = join(", ", map(literal, _values(setting, value)))
        session.execute(compose("{} SET {} TO {}", of_role, identifier(*setting.split(".")), values))
    limit = literal(properties["connection_limit"])
    session.execute(compose("ALTER DATABASE {} WITH CONNECTION LIMIT {}", name, limit))
    if properties["is_template"]:
        session.execute(compose("ALTER DATABASE {} WITH IS_TEMPLATE true", name))
    session.execute(compose("COMMENT ON DATABASE {} IS {}", name, literal(properties["comment"])))


def undo_sql(database: str, before: str, undone: str, comment: str | None) -> str:
    """Return the statements that swap back, to be run in another database of the server, in psql.

    Args:
        database: Its name.
        before: What the one that was replaced is called now.
        undone: What the restored one shall be called.
        comment: The database's own, which the mark of the replaced one has displaced.
    """
    now, old, away = (identifier(name) for name in (database, before, undone))
    statements = (
        compose("ALTER DATABASE {} WITH ALLOW_CONNECTIONS false;", now),
        compose(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = {};",
            literal(database),
        ),
        raw("BEGIN;"),
        compose("ALTER DATABASE {} RENAME TO {};", now, away),
        compose("ALTER DATABASE {} RENAME TO {};", old, now),
        compose("COMMENT ON DATABASE {} IS {};", now, literal(comment)),
        raw("COMMIT;"),
        compose("ALTER DATABASE {} WITH ALLOW_CONNECTIONS true;", away),
    )
    return "\n".join(statement.as_string() for statement in statements)


@contextmanager
def _ending_sessions(admin: Login, databases: list[str]) -> Iterator[None]:
    """End the sessions of databases again and again, from a session of its own, until the block is left."""
    over = threading.Event()

    def end(session: Connection) -> None:
        while not over.is_set():
            try:
                session.execute(sql.load("end_sessions"), {"databases": databases})
            except StewardError as exc:
                log.warning("Sessions of %s could not be ended: %s", " and ".join(databases), exc)
                return
            over.wait(0.02)

    with connect(admin, purpose=OPERATION, statement_timeout_s=10) as session:
        thread = threading.Thread(target=end, args=(session,), name="end sessions", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(timeout=15)


def _values(setting: str, value: str) -> list[str]:
    """Return a setting's value as the literals that SET wants: lists of names are split, others are one."""
    if setting not in _LISTS:
        return [value]
    names = [quoted.replace('""', '"') if quoted else plain.strip() for quoted, plain in _NAME.findall(value)]
    return [name for name in names if name] or [""]
