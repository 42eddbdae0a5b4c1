"""Restores whose files still come down while the first ones are loaded."""

from __future__ import annotations

import errno
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pgsteward.backup.dump import back_up
from pgsteward.backup.manifest import Manifest, StoredFile
from pgsteward.capacity import usable_processors
from pgsteward.errors import DamagedBackup, StewardError, StoreUnavailable
from pgsteward.postgres import compose, identifier
from pgsteward.restore.fetch import spool_root
from pgsteward.restore.run import restore
from pgsteward.restore.scratch import PREFIX
from pgsteward.storage.folder import FolderStore
from pgsteward.targets import Target
from tests.integration.backup_targets import backup_folder, make_target, stored_manifest
from tests.servers import Database, Server

WAIT_S = 60
LARGE = 100_000
TABLES = """
CREATE TABLE public.large_1 AS
SELECT g AS id, (SELECT string_agg(md5(g::text || i::text), '') FROM generate_series(1, 20) AS i) AS noise
  FROM generate_series(1, 1000) AS g;
CREATE TABLE public.large_2 AS SELECT id, reverse(noise) AS noise FROM public.large_1;
CREATE TABLE public."Small ""1" AS SELECT g AS id, md5(g::text) AS noise FROM generate_series(1, 500) AS g;
CREATE TABLE public.small_2 AS SELECT id, reverse(noise) AS noise FROM public."Small ""1";
ALTER TABLE public.large_1 ADD PRIMARY KEY (id);
ALTER TABLE public."Small ""1" ADD PRIMARY KEY (id), ADD FOREIGN KEY (id) REFERENCES public.large_1;
CREATE TABLE public.nothing ();
CREATE MATERIALIZED VIEW public.settings AS
SELECT name, current_setting(name) AS value
  FROM unnest('{maintenance_work_mem,max_parallel_maintenance_workers,synchronous_commit}'::text[]) AS name;
SELECT lo_from_bytea(0, 'a large object'), lo_from_bytea(0, 'another one')
"""


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def new_name(server: Server) -> Iterator[str]:
    name = f"restored_{uuid.uuid4().hex[:10]}"
    yield name
    server.drop(name)


@pytest.fixture(params=["none", "gzip:1"])
def target(request: pytest.FixtureRequest, database: Database, tmp_path: Path) -> Target:
    database.execute(TABLES.encode())
    return make_target(database, tmp_path, backup={"compress": request.param, "jobs": 2})


def scratch(server: Server) -> list[str]:
    with server.connect() as connection:
        rows = connection.rows(
            "SELECT datname::text AS name FROM pg_database WHERE starts_with(datname, %(p)s)", {"p": PREFIX}
        )
    return [row["name"] for row in rows]


def rows_in(server: Server, database: str, table: str) -> int:
    try:
        with server.connect(database) as connection:
            return int(connection.value(f"SELECT count(*) FROM public.{table}".encode()))
    except StewardError:  # it is not there yet
        return 0


@pytest.fixture
def slow(server: Server, monkeypatch: pytest.MonkeyPatch) -> Callable[[Target, str], list[str]]:
    """Return what lets a folder lie far away: only large files and the table of contents come at once."""
    read = FolderStore.read
    held: list[str] = []

    def wait_for_a_loaded_table() -> None:
        deadline = time.monotonic() + WAIT_S
        while not any(rows_in(server, name, "large_2") for name in scratch(server)):
            assert time.monotonic() < deadline, "nothing was loaded before all files were here"
            time.sleep(0.05)

    def from_afar(target: Target, backup_id: str) -> list[str]:
        at_once = {f.path for f in data_files(stored_manifest(target, backup_id)) if f.size_bytes > LARGE}
        assert len(at_once) == 2

        def slowly(store: FolderStore, key: str) -> Iterator[bytes]:
            if "/dump/" in key and not key.endswith("/toc.dat") and f"dump/{Path(key).name}" not in at_once:
                wait_for_a_loaded_table()
                held.append(key)
            return read(store, key)

        monkeypatch.setattr(FolderStore, "local_folder", lambda *_: None)
        monkeypatch.setattr(FolderStore, "read", slowly)
        return held

    return from_afar


def data_files(manifest: Manifest) -> list[StoredFile]:
    return [f for f in manifest.files if f.path.startswith("dump/") and f.path != manifest.contents]


def change_a_small_file(target: Target, backup_id: str) -> str:
    """Change one byte of a table's file that comes late, and return its path in the backup."""
    small = min(
        (f for f in data_files(stored_manifest(target, backup_id)) if LARGE > f.size_bytes > 5_000),
        key=lambda file: file.size_bytes,
    )
    path = backup_folder(target, backup_id) / small.path
    changed = bytearray(path.read_bytes())
    changed[-100] ^= 1
    path.chmod(0o600)
    path.write_bytes(changed)
    return small.path


def test_tables_are_loaded_while_other_files_still_come(
    target: Target, server: Server, new_name: str, slow: Callable[[Target, str], list[str]]
) -> None:
    backup_id = back_up(target).details["backup_id"]
    held = slow(target, backup_id)
    result = restore(target, into=new_name, jobs=2)
    assert result.status == "ok", result
    assert result.details["proof"]["equal"] is True
    assert len(held) >= 5  # two small tables, an empty one, large objects and their list
    assert scratch(server) == []
    assert list(spool_root().iterdir()) == []


@pytest.mark.any_server
def test_where_the_spool_holds_no_pipes_all_files_come_first(
    target: Target, server: Server, new_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    read = FolderStore.read
    late = threading.Event()

    def slowly(store: FolderStore, key: str) -> Iterator[bytes]:
        if key.endswith(small):
            late.wait(0.5)
        return read(store, key)

    backup_id = back_up(target).details["backup_id"]
    small = min(data_files(stored_manifest(target, backup_id)), key=lambda file: file.size_bytes).path
    monkeypatch.setattr(FolderStore, "local_folder", lambda *_: None)
    monkeypatch.setattr(FolderStore, "read", slowly)
    monkeypatch.setattr(os, "mkfifo", refused)
    result = restore(target, into=new_name, jobs=2)
    assert (result.status, result.details["proof"]["equal"]) == ("ok", True)


def test_a_byte_that_differs_in_a_late_file_fails_the_restore_by_its_name(
    target: Target, server: Server, new_name: str, slow: Callable[[Target, str], list[str]]
) -> None:
    backup_id = back_up(target).details["backup_id"]
    changed = change_a_small_file(target, backup_id)
    held = slow(target, backup_id)
    with pytest.raises(DamagedBackup, match=f"{changed} of backup {backup_id} .* is not what was written"):
        restore(target, into=new_name, jobs=2)
    assert held
    assert scratch(server) == []
    assert rows_in(server, new_name, "large_1") == 0
    assert list(spool_root().iterdir()) == []


def test_no_role_is_made_before_every_byte_was_checked(
    target: Target, database: Database, server: Server, new_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = identifier(f"gone_{uuid.uuid4().hex[:10]}")
    database.execute(compose("CREATE ROLE {}", role))
    database.execute(compose("ALTER TABLE public.small_2 OWNER TO {}", role))
    backup_id = back_up(target).details["backup_id"]
    change_a_small_file(target, backup_id)
    database.execute(compose("DROP OWNED BY {}", role))
    database.execute(compose("DROP ROLE {}", role))
    monkeypatch.setattr(FolderStore, "local_folder", lambda *_: None)
    with pytest.raises(DamagedBackup):
        restore(target, into=new_name, jobs=2, create_roles=True)
    assert server_roles(server, "gone_") == []


def server_roles(server: Server, prefix: str) -> list[str]:
    with server.connect() as connection:
        rows = connection.rows(
            "SELECT rolname AS name FROM pg_roles WHERE starts_with(rolname, %(prefix)s)", {"prefix": prefix}
        )
    return [row["name"] for row in rows]


@pytest.mark.any_server
def test_a_store_that_is_gone_meanwhile_is_what_the_error_names(
    target: Target,
    server: Server,
    new_name: str,
    slow: Callable[[Target, str], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = slow(target, back_up(target).details["backup_id"])
    slowly = FolderStore.read

    def gone(store: FolderStore, key: str) -> Iterator[bytes]:
        chunks = slowly(store, key)
        if held:
            raise StoreUnavailable("the line is cut")
        return chunks

    monkeypatch.setattr(FolderStore, "read", gone)
    with pytest.raises(StoreUnavailable, match="the line is cut"):
        restore(target, into=new_name, jobs=2)
    assert scratch(server) == []
    assert list(spool_root().iterdir()) == []


def test_the_sessions_that_load_have_the_settings_that_the_result_shows(
    target: Target, server: Server, new_name: str
) -> None:
    back_up(target)
    result = restore(target, into=new_name, jobs=usable_processors())
    chosen = result.details["session_settings"]
    with server.connect(new_name) as connection:
        rows = connection.rows("SELECT name, value FROM public.settings")
        had = {row["name"]: row["value"] for row in rows}
        normal = {name: connection.value(f"SHOW {name}".encode()) for name in had}
        for name in had:
            if name in chosen:
                written = {"name": name, "value": chosen[name]}
                normal[name] = connection.value("SELECT set_config(%(name)s, %(value)s, false)", written)
    assert chosen["synchronous_commit"] == "off"
    assert had == normal
