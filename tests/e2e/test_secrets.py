"""Secrets have one home: nothing that pgsteward says, writes or starts ever holds one."""

from __future__ import annotations

import base64
import gzip
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
import zstandard

from pgsteward.postgres import compose, identifier, literal
from tests.servers import Bucket, Database

APP_PASSWORD = "grep-app-pw' 7f3a%9c"
RESTORE_PASSWORD = 'grep-restore-pw"\\4b1d'
WRONG_PASSWORD = "grep-wrong-pw$51e0"
WRONG_SECRET = "grep-wrong-s3/secret+0a9f"
STATE_PASSWORD = "grep-state-pw@c2e8"


@dataclass
class Onlooker:
    """Another user of the machine, who reads the command lines of everything that is started."""

    seen: set[bytes] = field(default_factory=set)

    def __enter__(self) -> Onlooker:
        self._old = {folder.name for folder in Path("/proc").iterdir()}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.005):
            for name in os.listdir("/proc"):
                if name.isdecimal() and name not in self._old:
                    with suppress(OSError), open(f"/proc/{name}/cmdline", "rb") as file:
                        self.seen.add(file.read())


@dataclass
class Shop:
    """A configuration whose every secret can be recognised."""

    folder: Path
    config: Path
    env: dict[str, str]
    secrets: dict[str, str]
    said: dict[str, str] = field(default_factory=dict)

    def call(self, *args: str, **env: str) -> int:
        """Run a command and keep what it said."""
        argv = [sys.executable, "-m", "pgsteward.cli", "--config", str(self.config), *args]
        done = subprocess.run(
            argv, env={**self.env, **env}, cwd=self.folder, capture_output=True, text=True, timeout=180
        )
        self.said[f"{' '.join(args)} {' '.join(env)}"] = done.stdout + done.stderr
        return done.returncode


@pytest.fixture
def shop(sample_database: Database, bucket: Bucket, tmp_path: Path) -> Iterator[Shop]:
    name = sample_database.name
    roles = {f"{name}_app": APP_PASSWORD, f"{name}_restore": RESTORE_PASSWORD}
    with sample_database.connect() as connection:
        for role, password in roles.items():
            statement = "CREATE ROLE {} SUPERUSER LOGIN PASSWORD {}"
            connection.execute(compose(statement, identifier(role), literal(password)))
    clients = f'client_dirs = ["{sample_database.server.bin_dir}"]' if sample_database.server.bin_dir else ""
    home, vault = tmp_path / "home", tmp_path / "vault"
    for folder in (home, vault):
        folder.mkdir()
    (vault / "restore").write_text(f"{RESTORE_PASSWORD}\n")
    base = sample_database.conninfo  # the last user= counts
    config = tmp_path / "pgsteward.toml"
    config.write_text(
        f"""
state_url = "sqlite:///{home}/state.db"
[stores.disk]
url = "file://{home}/store"
[stores.s3]
url = "{bucket.url}"
endpoint_url = "{bucket.s3.endpoint_url}"
region = "us-east-1"
access_key_id = {{ env = "GREP_S3_KEY" }}
secret_access_key = {{ env = "GREP_S3_SECRET" }}
[targets.app]
conninfo = "{base} user={name}_app"
password = {{ env = "GREP_APP_PASSWORD" }}
stores = ["disk", "s3"]
{clients}
[targets.app.restore]
conninfo = "{base} user={name}_restore"
password = {{ file = "vault/restore" }}
[[targets.app.sessions]]
table = "public.sessions"
expires = "expires"
[targets.app.index_bloat]
min_reclaimable = "100kB"
"""
    )
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "AWS", "PREFECT"))}
    env |= {
        "HOME": str(home),
        "TMPDIR": str(home),
        "XDG_STATE_HOME": str(home / "state"),
        "PGSTEWARD_HOME": str(tmp_path),  # no Prefect side in there
        "GREP_APP_PASSWORD": APP_PASSWORD,
        "GREP_S3_KEY": bucket.s3.access_key_id,
        "GREP_S3_SECRET": bucket.s3.secret_access_key,
    }
    secrets = {
        "the target's password": APP_PASSWORD,
        "the restoring role's password": RESTORE_PASSWORD,
        "a wrong password": WRONG_PASSWORD,
        "the S3 secret": bucket.s3.secret_access_key,
        "a wrong S3 secret": WRONG_SECRET,
        "the state database's password": STATE_PASSWORD,
    }
    yield Shop(tmp_path, config, env, secrets)
    sample_database.server.drop(f"{name}_back")
    with sample_database.server.connect() as connection:
        for role in roles:
            connection.execute(compose("DROP ROLE {}", identifier(role)))


def forms(secret: str) -> set[bytes]:
    """Return how a secret may be written: as it is, in a URL, in JSON, in a conninfo or SQL, in base 64."""
    plain = {
        secret,
        quote(secret),
        quote(secret, safe=""),
        quote_plus(secret),
        json.dumps(secret)[1:-1],
        secret.replace("\\", "\\\\").replace("'", "\\'"),
        secret.replace("'", "''"),
    }
    return {form.encode() for form in plain} | {base64.b64encode(secret.encode())}


def content(file: Path) -> bytes:
    """Return what a file holds, unpacked."""
    data = file.read_bytes()
    if file.suffix == ".zst":
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return gzip.decompress(data) if file.suffix == ".gz" else data


def leaks(secrets: dict[str, str], where: str, data: bytes) -> Iterator[str]:
    for name, secret in secrets.items():
        if any(form in data for form in forms(secret)):
            yield f"{name} is in {where}"


def files(*folders: Path) -> Iterable[Path]:
    return [path for folder in folders for path in folder.rglob("*") if path.is_file()]


def test_no_secret_is_ever_said_written_or_given_as_an_argument(
    shop: Shop, bucket: Bucket, sample_database: Database
) -> None:
    prefix = f"app/{sample_database.name}"
    with Onlooker() as onlooker:
        assert shop.call("-vv", "nightly") in (0, 3)
        assert shop.call("nightly", "--json") in (0, 3)
        assert shop.call("-vv", "restore", "--from", "s3", "--into", f"{sample_database.name}_back") == 0
        assert shop.call("doctor", "--json") in (0, 3)
        assert shop.call("doctor") in (0, 3)
        assert shop.call("report", "--format", "markdown") == 0
        assert shop.call("backups", "--json") == 0

        wrong = {"GREP_APP_PASSWORD": WRONG_PASSWORD}
        for flags in (["--json"], []):
            assert shop.call("-vv", "backup", *flags, **wrong) == 1
            assert shop.call("-vv", "nightly", *flags, **wrong) == 1
        assert shop.call("doctor", **wrong) == 1
        wrong = {"GREP_S3_SECRET": WRONG_SECRET}
        assert shop.call("-vv", "backup", "--json", **wrong) == 3
        assert shop.call("-vv", "restore", "--from", "s3", "--dry-run", **wrong) == 1
        assert shop.call("doctor", "--json", **wrong) == 1
        (shop.folder / "vault" / "restore").write_text(WRONG_PASSWORD)
        assert shop.call("-vv", "restore", "--from", "s3", "--json") == 1

        shop.config.write_text(
            shop.config.read_text().replace(
                f'"sqlite:///{shop.folder}/home/state.db"', '{ env = "GREP_STATE_URL" }'
            )
        )
        state = {"GREP_STATE_URL": f"postgresql://me:{quote(STATE_PASSWORD, safe='')}@127.0.0.1:1/state"}
        assert shop.call("-vv", "analyze", "--json", **state) in (0, 3)
        assert shop.call("report", **state) == 1
        assert shop.call("doctor", **state) == 1

    # the test looks where it says that it looks
    assert "authentication failed" in shop.said["-vv backup --json GREP_APP_PASSWORD"]
    assert "127.0.0.1:1" in shop.said["report GREP_STATE_URL"]
    tools = b" ".join(onlooker.seen)
    assert b"pg_dump" in tools
    assert b"pg_restore" in tools
    kept = files(shop.folder / "home", bucket.folder)
    names = {path.name for path in kept}
    assert {"state.db", "manifest.json", "globals.sql.zst", "RESTORE.md"} <= names
    assert any(prefix in str(path) and path.parent.name == "receipts" for path in kept)

    found = [leak for what, said in shop.said.items() for leak in leaks(shop.secrets, what, said.encode())]
    found += [leak for line in onlooker.seen for leak in leaks(shop.secrets, repr(line), line)]
    found += [leak for path in kept for leak in leaks(shop.secrets, str(path), content(path))]
    assert not found
    hashed = [str(path) for path in kept if b"SCRAM-SHA-256" in content(path)]
    assert not hashed, "password hashes are in the backup"
