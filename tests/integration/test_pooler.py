"""A real pgbouncer in between: every operation refuses it, and says so in words."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from pgsteward import postgres
from pgsteward.children import Children, free_port
from pgsteward.errors import PreconditionError
from pgsteward.postgres import Login
from pgsteward.postgres_lock import operation_lock, refuse_pooler
from tests.conftest import missing
from tests.servers import Database

pytestmark = pytest.mark.any_server

_CONFIG = """\
[databases]
* = host={host} port={port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
auth_type = plain
auth_file = {users}
pool_mode = {mode}
unix_socket_dir =
"""


@pytest.fixture(params=["transaction", "session"])
def pooled(request: pytest.FixtureRequest, database: Database) -> Iterator[Login]:
    program = shutil.which("pgbouncer", path=f"{os.defpath}:/usr/sbin")
    if program is None:
        missing(request.config, "pgbouncer is not installed")
    assert program is not None
    there = conninfo_to_dict(database.conninfo)
    own_port = free_port()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name, Children() as children:
        folder = Path(name)
        folder.chmod(0o755)
        users = folder / "users.txt"
        users.write_text(f'"postgres" "{database.password}"\n')
        config = folder / "pgbouncer.ini"
        config.write_text(
            _CONFIG.format(
                host=there["host"], port=there["port"], own_port=own_port, users=users, mode=request.param
            )
        )
        children.start(
            "pgbouncer",
            [program, config],
            log=folder / "log",
            user="nobody" if os.geteuid() == 0 else None,
        )
        children.wait_until(lambda: _listens(own_port), "The start of pgbouncer")
        yield Login(
            f"host=127.0.0.1 port={own_port} dbname='{database.dbname}' user=postgres", database.password
        )


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_pooler_is_refused_by_name_and_not_by_a_clash_of_prepared_statements(pooled: Login) -> None:
    for _ in range(3):
        with (
            postgres.connect(pooled, purpose="test") as connection,
            pytest.raises(PreconditionError, match="connection pooler sits between"),
        ):
            refuse_pooler(connection)
    with pytest.raises(PreconditionError, match="point conninfo at PostgreSQL itself"):
        with operation_lock(pooled, "backup"):
            raise AssertionError("the lock of a run must never be given out by a pooler")


def test_postgresql_itself_is_not_taken_for_a_pooler(database: Database) -> None:
    with operation_lock(database.login, "backup") as connection:
        refuse_pooler(connection)
