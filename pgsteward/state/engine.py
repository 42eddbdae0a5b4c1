"""Opens the state database and brings it to the newest form on first use.

SQLite: write-ahead log, and a busy timeout, so that a worker and a shell may write at the same time.
PostgreSQL: everything lives in a schema of its own, ``pgsteward``; a shared database stays tidy.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url

from pgsteward.errors import ConfigError, StateFailed
from pgsteward.state.entries import BUSY_S, HEAD, VERSION_TABLE

SCHEMA = "pgsteward"
_LOCK = 0x70677374_73746174  # "pgststat"


def open_engine(url: str) -> sa.Engine:
    """Return an engine whose database has all tables.

    Raises:
        ConfigError: The URL is not one of SQLite's or PostgreSQL's.
        StateFailed: The database can't be reached, or was written by a newer pgsteward.
    """
    parsed = _parse(url)
    try:
        if parsed.get_backend_name() == "sqlite":
            file = Path(str(parsed.database))
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not file.exists():
                file.touch(mode=0o600)  # results name tables and hosts; they are nobody else's business
        engine = _engine(parsed)
        _migrate(engine)
    except (sa.exc.SQLAlchemyError, OSError) as exc:
        raise StateFailed(f"the state database {_shown(parsed)} can't be used: {reason(exc)}") from exc
    return engine


def reason(exc: BaseException) -> str:
    """Return a database error in one line, without the statement and its values."""
    origin = getattr(exc, "orig", None) or exc
    if isinstance(origin, OSError):
        return f"{origin.filename}: {origin.strerror}" if origin.filename else str(origin)
    return " ".join(str(origin).split())


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except sa.exc.ArgumentError:
        raise ConfigError("state_url is not a URL; write sqlite:///file or postgresql://host/db") from None
    if parsed.drivername in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername not in ("sqlite", "postgresql+psycopg"):
        raise ConfigError(
            f"state_url: {parsed.drivername} is not supported; write sqlite:///file or postgresql://host/db"
        )
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise ConfigError("state_url: a database in memory remembers nothing; write sqlite:///file")
    return parsed


def _shown(url: URL) -> str:
    return url.render_as_string(hide_password=True)


def _engine(url: URL) -> sa.Engine:
    if url.get_backend_name() == "sqlite":
        engine = sa.create_engine(url, connect_args={"timeout": BUSY_S}, poolclass=sa.NullPool)
        sa.event.listen(engine, "connect", _prepare_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
        return engine
    query = {**url.query}
    query.setdefault("connect_timeout", "10")
    query.setdefault("application_name", "pgsteward state")
    engine = sa.create_engine(url.set(query=query), poolclass=sa.NullPool)
    sa.event.listen(engine, "connect", _prepare_postgresql)
    return engine


def _prepare_sqlite(connection: Any, record: object) -> None:
    connection.isolation_level = None  # Python's own way of opening transactions spoils DDL in them
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")  # a read that becomes a write later could not wait


def _prepare_postgresql(connection: Any, record: object) -> None:
    connection.execute("SET search_path = pgsteward")
    connection.execute("SET lock_timeout = '10s'")
    connection.execute("SET statement_timeout = '60s'")
    connection.commit()


def _migrate(engine: sa.Engine) -> None:
    if _version(engine) == HEAD:
        return
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", "pgsteward.state:migrations")
    config.set_main_option("path_separator", "os")
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            _wait_for_turn(connection)
            if not sa.inspect(connection).has_schema(SCHEMA):
                connection.execute(sa.schema.CreateSchema(SCHEMA))
        found = _version_on(connection)  # somebody else may have been faster
        if found is not None:
            with suppress(CommandError):
                if ScriptDirectory.from_config(config).get_revision(found) is not None:
                    found = None
        if found is not None:
            raise StateFailed(
                f"the state database {_shown(engine.url)} was written by a newer pgsteward (form {found},"
                f" this one knows {HEAD}); upgrade this one, or give it a state_url of its own"
            )
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _version(engine: sa.Engine) -> str | None:
    with engine.connect() as connection:
        return _version_on(connection)


def _version_on(connection: sa.Connection) -> str | None:
    schema = SCHEMA if connection.dialect.name == "postgresql" else None
    if not sa.inspect(connection).has_table(VERSION_TABLE, schema=schema):
        return None
    version = connection.scalar(sa.text(f"SELECT version_num FROM {VERSION_TABLE}"))  # noqa: S608 - a constant
    return None if version is None else str(version)


def _wait_for_turn(connection: sa.Connection) -> None:
    """One migration at a time; never the blocking form, which pins the vacuum horizon while it waits."""
    deadline = time.monotonic() + BUSY_S
    while not connection.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(_LOCK))):
        if time.monotonic() > deadline:
            raise StateFailed("another pgsteward is changing the state database; try again")
        time.sleep(0.1)
