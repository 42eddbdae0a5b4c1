"""Restores that can't go well: refused before anything is created, with what to do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo
from pyrage import x25519

from pgsteward.backup.manifest import MANIFEST
from pgsteward.postgres import Login, compose, connect, identifier
from pgsteward.restore.scratch import admin_login, restore_lock
from tests.faults_restore.scene import Outcome, Scene, fault, names_in, play
from tests.integration.backup_targets import sealed


@contextmanager
def other_bytes(path: Path, data: bytes | None) -> Iterator[None]:
    """Let a stored file be something else for a while; None for none at all."""
    before = path.read_bytes() if path.exists() else None
    if data is None:
        path.unlink()
    else:
        path.write_bytes(data)
    try:
        yield
    finally:
        if before is None:
            path.unlink()
        else:
            path.write_bytes(before)


def rows_of(scene: Scene) -> list[Path]:
    """Return the files of rows, the largest first."""
    found = [path for path in (scene.store / "dump").iterdir() if path.name != "toc.dat"]
    return sorted(found, key=lambda path: -path.stat().st_size)


@fault("the password is wrong")
def wrong_password(scene: Scene) -> Outcome:
    scene.login = Login(scene.proxy.login.conninfo, "wrong")
    return scene.fail()


@fault("the server is down")
def down(scene: Scene) -> Outcome:
    scene.login = Login(make_conninfo(scene.proxy.login.conninfo, port=9), "some")
    return scene.fail()


@fault("the login has no connection left")
def no_connection(scene: Scene) -> Outcome:
    with other_login(scene, "CREATEDB CONNECTION LIMIT 1"):
        return scene.fail()


@contextmanager
def other_login(scene: Scene, options: str) -> Iterator[str]:
    """Let restores log in as a role of their own, which owns the original meanwhile."""
    role = f"Restorer of {scene.database.dbname}"
    with scene.server.connect() as session:
        session.execute(f"CREATE ROLE \"{role}\" LOGIN PASSWORD 'secret' {options}".encode())
    scene.login = Login(make_conninfo(scene.proxy.login.conninfo, user=role), "secret")
    try:
        yield role
    finally:
        scene.login = None
        with scene.server.connect() as session:
            session.execute(compose("DROP ROLE {}", identifier(role)))


@fault("the role may create no database")
def no_rights(scene: Scene) -> Outcome:
    with other_login(scene, "NOCREATEDB"):
        return scene.fail()


@fault("another restore runs on the server")
def two_at_once(scene: Scene) -> Outcome:
    with restore_lock(admin_login(scene.server.login)):
        return scene.fail()


@fault("a database of the name exists")
def name_exists(scene: Scene) -> Outcome:
    return scene.fail_beside(into=scene.stage.template)


@fault("there is no database to replace")
def nothing_to_replace(scene: Scene) -> Outcome:
    name = scene.database.dbname
    moved = f"{name} moved"
    scene.server.rename(name, moved)
    try:
        return scene.fail()
    finally:
        scene.server.rename(moved, name)


@fault("an extension is not installed there")
def no_extension(scene: Scene) -> Outcome:
    path = scene.store / MANIFEST
    stored = path.read_bytes()
    known = {**json.loads(stored)["extensions"], "postgis": "3.5.0"}
    with other_bytes(path, sealed(stored, extensions=known)):
        return scene.fail()


@fault("a prepared transaction of the original is open")
def prepared(scene: Scene) -> Outcome:
    with connect(scene.database.login, purpose="test", autocommit=False) as session:
        session.execute("INSERT INTO small VALUES (2, 'later')")
        session.execute("PREPARE TRANSACTION 'of the shop'")
    try:
        return scene.fail()
    finally:
        scene.database.execute("ROLLBACK PREPARED 'of the shop'")


@fault("a stored byte is another one")
def another_byte(scene: Scene) -> Outcome:
    path = rows_of(scene)[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    with other_bytes(path, bytes(data)):
        return scene.fail()


@fault("a stored file is missing")
def missing_file(scene: Scene) -> Outcome:
    with other_bytes(rows_of(scene)[0], None):
        return scene.fail()


@fault("two stored files are swapped")
def swapped_files(scene: Scene) -> Outcome:
    first, second = rows_of(scene)[:2]
    with other_bytes(first, second.read_bytes()), other_bytes(second, first.read_bytes()):
        return scene.fail()


@fault("a stored file is too many")
def extra_file(scene: Scene) -> Outcome:
    with other_bytes(scene.store / "dump" / "4711.dat.gz", b"1\tforged\n"):
        return scene.fail()


@fault("a byte of an encrypted file is another one")
def another_sealed_byte(scene: Scene) -> Outcome:
    scene.sealed = True
    return another_byte(scene)


@fault("the manifest is damaged")
def damaged_manifest(scene: Scene) -> Outcome:
    path = scene.store / MANIFEST
    with other_bytes(path, path.read_bytes().replace(b'"rows": 2000', b'"rows": 1999')):
        return scene.fail()


@fault("there is no key")
def no_key(scene: Scene) -> Outcome:
    scene.sealed, scene.key = True, None
    return scene.fail()


@fault("the key is another one")
def another_key(scene: Scene) -> Outcome:
    scene.sealed, scene.key = True, scene.folder / "another.txt"
    scene.key.write_text(str(x25519.Identity.generate()))
    return scene.fail()


@fault("a role is missing")
def missing_role(scene: Scene) -> Outcome:
    """The table's owner in the backup has another name by now."""
    owner, renamed = identifier(scene.stage.owner), identifier(f"{scene.stage.owner} renamed")
    with scene.server.connect() as session:
        session.execute(compose("ALTER ROLE {} RENAME TO {}", owner, renamed))
        try:
            return scene.beside()
        finally:
            session.execute(compose("ALTER ROLE {} RENAME TO {}", renamed, owner))


@pytest.mark.parametrize("name", names_in(__name__))
def test_what_can_not_go_well_is_refused_with_what_to_do(scene: Scene, name: str) -> None:
    play(scene, name)
