"""RESTORE.md is followed to the letter: no pgsteward, only age, zstd, psql and pg_restore."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from pyrage import x25519

from pgsteward.backup.dump import back_up
from pgsteward.backup.proof import read_sequences, take_proof
from pgsteward.backup.proof_compare import compare
from pgsteward.clients import choose_client, find_clients
from pgsteward.postgres import compose, identifier
from pgsteward.postgres_names import split_qualified
from tests.integration.backup_targets import backup_folder, make_target, stored_manifest
from tests.servers import Database, Server


@pytest.fixture
def odd_database(server: Server) -> Iterator[Database]:
    """A database whose name is hard on shells and conninfos alike."""
    name = f"Order \"Lines' = {uuid.uuid4().hex[:8]}"
    server.create(name)
    yield Database(server, name)
    for each in (name, f"{name} (old)"):
        server.drop(each)


def code_blocks(text: str) -> list[str]:
    """Return the indented blocks of a Markdown text, in order."""
    return [
        textwrap.dedent(block) for block in re.findall(r"(?:^    .*\n(?:\n(?=    ))?)+", text, re.MULTILINE)
    ]


def run(script: str, folder: Path, env: dict[str, str], *, status: int = 0) -> str:
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", script],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def age_key() -> tuple[str, str]:
    secret = x25519.Identity.generate()
    return str(secret.to_public()), f"# created by the test\n{secret}\n"


def ssh_key() -> tuple[str, str]:
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return public, key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()


@pytest.mark.parametrize(
    "settings, make_key",
    [
        pytest.param({}, None, id="directory"),
        pytest.param({"mode": "stream"}, None, id="stream"),
        pytest.param({}, age_key, id="encrypted-stream"),
        pytest.param({"plaintext_spool": True}, ssh_key, id="encrypted-directory-ssh"),
    ],
)
def test_following_restore_md_brings_an_equal_database_back(
    odd_database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    make_key: Callable[[], tuple[str, str]] | None,
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    if make_key is not None:
        public, secret = make_key()
        settings = {**settings, "encrypt_to": [public]}
    server = odd_database.server
    odd_database.execute(
        """
        CREATE SCHEMA "sch ""x";
        CREATE TABLE "sch ""x"."Order Lines" (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text);
        INSERT INTO "sch ""x"."Order Lines" (note) SELECT md5(g::text) FROM generate_series(1, 100) AS g;
        CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM "sch ""x"."Order Lines";
        SELECT lo_from_bytea(0, 'abc')
        """
    )
    odd_database.execute(compose("ALTER DATABASE {} SET work_mem = '7MB'", identifier(odd_database.dbname)))
    odd_database.execute(compose("COMMENT ON DATABASE {} IS 'orders'", identifier(odd_database.dbname)))
    target = make_target(odd_database, tmp_path, backup={"compress": "gzip:1", **settings})
    result = back_up(target)
    assert result.status == "ok"
    backup_id = result.details["backup_id"]
    manifest = stored_manifest(target, backup_id)
    folder = tmp_path / "fetched"
    shutil.copytree(backup_folder(target, backup_id), folder)
    with server.connect() as connection:
        old = f"{odd_database.dbname} (old)"
        connection.execute(
            compose("ALTER DATABASE {} RENAME TO {}", identifier(odd_database.dbname), identifier(old))
        )

    fetch, reach, check, *steps = code_blocks((folder / "RESTORE.md").read_text())
    env = environment(server, target.settings.client_dirs, tmp_path)
    assert fetch.startswith("aws s3 sync")
    assert reach.startswith("export PGHOST=")
    assert run(check, folder, env) == ""
    place = folder
    if make_key is not None:
        key, decrypt, enter, *steps = steps
        assert key == "export IDENTITY=...\n"
        (tmp_path / "key").write_text(secret)
        (tmp_path / "key").chmod(0o600)
        env["IDENTITY"] = str(tmp_path / "key")
        assert run(decrypt, folder, env) == ""
        assert enter == "cd clear\n"
        place = folder / "clear"
        assert place.stat().st_mode & 0o777 == 0o700
    roles, empty, beside, data, *after = steps
    assert beside.startswith("createdb")
    run(roles, place, env)
    run(empty, place, env)
    assert run(data, place, env) == ""
    for script in after:
        run(script, place, env)

    restored = take_proof(odd_database.login, "full", snapshot_id=None)
    restored = restored.model_copy(update={"sequences": read_sequences(odd_database.login)})
    assert compare(manifest.proof, restored) == []
    assert odd_database.value("SHOW work_mem") == "7MB"
    described = (
        "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()"
    )
    assert odd_database.value(described) == "orders"
    assert split_qualified('public."counted"') in {relation.key for relation in restored.relations}

    victim = folder / manifest.contents
    flipped = bytearray(victim.read_bytes())
    flipped[-1] ^= 1
    victim.write_bytes(flipped)
    assert f"{manifest.contents}: FAILED" in run(check, folder, env, status=1)
    if make_key is not None:
        shutil.rmtree(place)
        assert "failed to decrypt" in run(decrypt, folder, env, status=1)


def environment(server: Server, client_dirs: tuple[Path, ...], tmp_path: Path) -> dict[str, str]:
    """Return what a person at a shell would have: the client's folder on PATH, and the server's address."""
    client = choose_client(find_clients(client_dirs), server.version * 10_000)
    path = [str(client.folder), os.environ["PATH"]]
    if shutil.which("zstd") is None:  # a bare machine: the same algorithm from Python's binding
        shim = tmp_path / "bin" / "zstd"
        shim.parent.mkdir()
        code = "import sys, zstandard; d = zstandard.ZstdDecompressor()"
        code += "; d.copy_stream(open(sys.argv[-1], 'rb'), sys.stdout.buffer)"
        shim.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c {shlex.quote(code)} "$@"\n')
        shim.chmod(0o755)
        path.insert(0, str(shim.parent))
    words = dict(word.split("=", 1) for word in shlex.split(server.login.conninfo))
    return {
        **os.environ,
        "PATH": os.pathsep.join(path),
        "PGHOST": words["host"],
        "PGPORT": words["port"],
        "PGUSER": words["user"],
        "PGPASSWORD": server.login.password or "",
    }
