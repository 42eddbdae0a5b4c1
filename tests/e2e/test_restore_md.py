"""RESTORE.md is followed to the letter: no pgsteward, only zstd, psql and pg_restore."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgsteward.backup.dump import back_up
from pgsteward.backup.proof import compare, read_sequences, take_proof
from pgsteward.pgtools import choose_client, find_clients
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


def test_following_restore_md_brings_an_equal_database_back(odd_database: Database, tmp_path: Path) -> None:
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
    target = make_target(odd_database, tmp_path, backup={"compress": "gzip:1"})
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

    fetch, reach, check, roles, empty, beside, data, *after = code_blocks((folder / "RESTORE.md").read_text())
    assert fetch.startswith("aws s3 sync")
    assert reach.startswith("export PGHOST=")
    assert beside.startswith("createdb")
    env = environment(server, target.settings.client_dirs, tmp_path)
    assert run(check, folder, env) == ""
    run(roles, folder, env)
    run(empty, folder, env)
    assert run(data, folder, env) == ""
    for script in after:
        run(script, folder, env)

    restored = take_proof(odd_database.login, "full", snapshot_id=None)
    restored = restored.model_copy(update={"sequences": read_sequences(odd_database.login)})
    assert compare(manifest.proof, restored) == []
    assert odd_database.value("SHOW work_mem") == "7MB"
    described = (
        "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()"
    )
    assert odd_database.value(described) == "orders"
    assert split_qualified('public."counted"') in {relation.key for relation in restored.relations}

    flipped = bytearray((folder / "dump" / "toc.dat").read_bytes())
    flipped[-1] ^= 1
    (folder / "dump" / "toc.dat").write_bytes(flipped)
    assert "dump/toc.dat: FAILED" in run(check, folder, env, status=1)


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
