"""The last step: the scratch database gets its name. Where it replaces one, both renames are one transaction.

Owner, rights, settings, connection limit and comment belong to a database's OID, so that a rename alone would
lose them: they are copied to the new database in the same transaction.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from pgsteward import sql
from pgsteward.errors import LockTimeout, PreconditionError, QueryFailed, StewardError
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


def publish(session: Connection, scratch: str, into: str, *, open_to_public: bool, comment: str) -> None:
    """Give a whole scratch database its name and take the mark away.

    Raises:
        PreconditionError: Somebody took the name meanwhile.
    """
    try:
        with session.transaction():
            if open_to_public:
                session.execute(compose("GRANT CONNECT ON DATABASE {} TO PUBLIC", identifier(scratch)))
            session.execute(compose("COMMENT ON DATABASE {} IS {}", identifier(scratch), literal(comment)))
            session.execute(compose("ALTER DATABASE {} RENAME TO {}", identifier(scratch), identifier(into)))
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

    swap(admin, session, database, work)


def swap(
    admin: Login, session: Connection, database: str, work: Callable[[], None], also: str | None = None
) -> None:
    """Run what renames databases, in one transaction, while their sessions are ended by a second session.

    New connections wait while the transaction holds the names.

    Args:
        admin: To the admin database, for the second session.
        session: To the admin database.
        database: Whose sessions are ended.
        work: The renames.
        also: Another database whose sessions are ended.

    Raises:
        LockTimeout: Its sessions come back faster than they can be ended.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with ExitStack() as stack:
                for name in (database, *([also] if also else [])):
                    stack.enter_context(_ending_sessions(admin, name))
                with session.transaction():
                    work()
        except (QueryFailed, LockTimeout) as exc:
            busy = isinstance(exc, LockTimeout) or exc.sqlstate == "55006"
            if not busy:
                raise
            if attempt == ATTEMPTS:
                raise LockTimeout(
                    f"{database!r} could not be replaced and is as it was:"
                    f" its sessions can't be ended ({exc})"
                ) from exc
            log.warning("Attempt %s to replace %s: %s", attempt, database, exc)
        else:
            return


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
def _ending_sessions(admin: Login, database: str) -> Iterator[None]:
    """End the sessions of a database again and again, from a session of its own, until the block is left."""
    over = threading.Event()

    def end(session: Connection) -> None:
        while not over.is_set():
            try:
                session.execute(sql.load("end_sessions"), {"database": database})
            except StewardError as exc:
                log.warning("Sessions of %s could not be ended: %s", database, exc)
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
