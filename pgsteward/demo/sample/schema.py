"""IntoWork's schema: an Alembic history that needs no alembic.ini, and no password outside of memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, event, func, select
from sqlalchemy.pool import NullPool

from pgsteward.postgres import Login

TABLES_ONLY = "c4b7e9a1d2f3"
"""The revision before keys and indexes; a bulk load goes here."""

BEFORE_CRITICAL_INDEXES = "e6d1a8b3c7f2"
CRITICAL_INDEXES = "h8c2d6e5f4g3"
"""The revision that the operations guide names, and the one before."""


def upgrade(login: Login, revision: str = "head", settings: Mapping[str, str] | None = None) -> None:
    """Bring the schema up to a revision.

    Args:
        login: The sample's database.
        revision: As Alembic understands it: an id, ``head``, ``+1``.
        settings: Run-time settings of the session, e.g. ``maintenance_work_mem``.
    """
    with _connection(login, settings) as connection:
        command.upgrade(_config(connection), revision)


def downgrade(login: Login, revision: str = "base") -> None:
    """Take the schema back to a revision; the data in what is dropped is gone."""
    with _connection(login) as connection:
        command.downgrade(_config(connection), revision)


def current(login: Login) -> str | None:
    """Return the revision the database is at, None for one without a history."""
    with _connection(login) as connection:
        return MigrationContext.configure(connection).get_current_revision()


def head() -> str:
    """Return the newest revision."""
    return str(ScriptDirectory.from_config(_config(None)).get_current_head())


def revisions() -> list[str]:
    """Return every revision, the oldest first."""
    script = ScriptDirectory.from_config(_config(None))
    return [revision.revision for revision in script.walk_revisions()][::-1]


def _config(connection: Connection | None) -> Config:
    config = Config()
    config.set_main_option("script_location", "pgsteward.demo.sample:migrations")
    config.attributes["connection"] = connection
    return config


@contextmanager
def _connection(login: Login, settings: Mapping[str, str] | None = None) -> Iterator[Connection]:
    engine = create_engine("postgresql+psycopg://", poolclass=NullPool)

    def use_login(_dialect: Any, _record: Any, args: list[Any], kwargs: dict[str, Any]) -> None:
        args[:] = [login.conninfo]
        kwargs.update(password=login.password, application_name="pgsteward sample schema", connect_timeout=10)

    event.listen(engine, "do_connect", use_login)
    try:
        with engine.connect() as connection:
            for name, value in (settings or {}).items():
                connection.execute(select(func.set_config(name, value, False)))
            connection.commit()
            yield connection
            connection.commit()
    finally:
        engine.dispose()
