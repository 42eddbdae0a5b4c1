"""What is refused, or done otherwise, before a dump starts."""

from __future__ import annotations

import shlex
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from psycopg.conninfo import make_conninfo

from pgsteward.backup.catalog import backups
from pgsteward.backup.dump import back_up
from pgsteward.backup.manifest import MANIFEST
from pgsteward.clients import Client, choose_client, find_clients
from pgsteward.postgres import Login, compose, identifier
from tests.faults.scene import Outcome, Scene, cases, fault, play
from tests.integration.backup_targets import backup_folder, sealed, stored_manifest


@contextmanager
def reader(scene: Scene, rights: str = "pg_read_all_data") -> Iterator[Login]:
    """Make a role for a while."""
    name = f"Reader {uuid.uuid4().hex[:8]}"
    role = identifier(name)
    scene.database.execute(compose("CREATE ROLE {} LOGIN PASSWORD 'reader pw'", role))
    try:
        if rights:
            scene.database.execute(compose("GRANT {} TO {}", identifier(rights), role))
        yield Login(make_conninfo(scene.database.conninfo, user=name), "reader pw")
    finally:
        scene.database.execute(compose("DROP OWNED BY {}; DROP ROLE {}", role, role))


@fault("the password is wrong")
def wrong_password(scene: Scene) -> Outcome:
    error = scene.fail(scene.target(login=Login(scene.database.conninfo, "not the password")))
    assert "not the password" not in str(error)
    return error


@fault("the server is down")
def server_down(scene: Scene) -> Outcome:
    with socket.socket() as taken:  # nobody listens there, and nobody else can
        taken.bind(("127.0.0.1", 0))
        nowhere = make_conninfo(scene.database.conninfo, host="127.0.0.1", port=taken.getsockname()[1])
        return scene.fail(scene.target(login=Login(nowhere, scene.database.password)))


@fault("the role may not read a table")
def no_select(scene: Scene) -> Outcome:
    scene.database.execute('CREATE TABLE "Secret Table" (a int)')
    with reader(scene, rights="") as login:
        scene.database.execute("GRANT SELECT ON big, small TO PUBLIC")
        return scene.fail(scene.target(login=login))


@fault("the role may not read a large object")
def no_large_object(scene: Scene) -> Outcome:
    scene.database.execute("SELECT lo_from_bytea(4711, 'abc')")
    with reader(scene) as login:
        error = scene.fail(scene.target(login=login))
        role = identifier(scene_role(login))
        scene.database.execute(compose("ALTER ROLE {} SET lo_compat_privileges = on", role))
        assert back_up(scene.target(login=login), dry_run=True).status == "ok"  # as the error says
        return error


def scene_role(login: Login) -> str:
    return login.conninfo.partition("user='")[2].partition("'")[0]


@fault("row-level security hides rows from the role")
def row_security(scene: Scene) -> Outcome:
    scene.database.execute(
        "ALTER TABLE small ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON small USING (a > 1)"
    )
    with reader(scene) as login:
        return scene.fail(scene.target(login=login))


@fault("the server is newer than every client")
def old_clients(scene: Scene) -> Outcome:
    folder = scene.folder / "old"
    folder.mkdir()
    for tool in ("pg_dump", "pg_restore"):
        (folder / tool).write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 9.6.24'\n")
        (folder / tool).chmod(0o755)
    old = [client for client in find_clients([folder]) if client.folder == folder]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pgsteward.backup.dump.find_clients", lambda *_: old)
        return scene.fail()


@fault("no client has the codec")
def no_codec(scene: Scene) -> Outcome:
    target = scene.target(compress="zstd:1")
    real = choose_client(find_clients(target.settings.client_dirs), scene.database.server.version * 10_000)
    bare = scene.folder / "bare"
    bare.mkdir()
    for tool in ("pg_restore", "pg_dumpall"):
        (bare / tool).write_text(f'#!/bin/sh\nexec {shlex.quote(str(real.tool(tool)))} "$@"\n')
    refuses = "echo 'this build does not support compression with zstd' >&2; exit 1"
    (bare / "pg_dump").write_text(
        f'#!/bin/sh\ncase "$*" in *=zstd*) {refuses};; esac\n'
        f'exec {shlex.quote(str(real.tool("pg_dump")))} "$@"\n'
    )
    for program in bare.iterdir():
        program.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pgsteward.backup.dump.find_clients", lambda *_: [Client(bare, real.version)])
        result = back_up(target)
    assert result.details["compress"] == "gzip:1"
    manifest = stored_manifest(target, result.details["backup_id"])
    assert manifest.warnings == tuple(result.details["warnings"])
    return result


@contextmanager
def huge_history(scene: Scene) -> Iterator[None]:
    """Make the backup before this one an exabyte large, as far as its manifest knows."""
    target = scene.target(login=scene.database.login)
    backup_id = back_up(target).details["backup_id"]
    folder = backup_folder(target, backup_id)
    stored = (folder / MANIFEST).read_bytes()
    files = [file.model_dump() for file in stored_manifest(target, backup_id).files]
    files[0]["size_bytes"] = 1 << 60
    (folder / MANIFEST).write_bytes(sealed(stored, files=files))
    try:
        yield
    finally:
        (folder / MANIFEST).write_bytes(stored)
        assert len(backups(target).details["backups"]) == 1


@fault("the home store's disk is too small")
def small_disk(scene: Scene) -> Outcome:
    with huge_history(scene):
        return scene.fail()


@fault("another backup of the database runs")
def two_at_once(scene: Scene) -> Outcome:
    hold = scene.hold_the_dump()
    errors = []
    scene.struck(hold, lambda: errors.append(scene.fail(scene.target(login=scene.database.login))))
    return errors[0]


@pytest.mark.parametrize(("scene", "name"), cases(__name__), indirect=["scene"])
def test_what_can_not_end_well_is_refused_with_what_to_do(scene: Scene, name: str) -> None:
    play(scene, name)
