"""Targets for the tests of backups: a private database, a folder store, and S3 where a bucket is given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pgsteward.backup.home import folder_of, home_store
from pgsteward.backup.manifest import MANIFEST, SEAL, Manifest, backup_prefix, laid_out, seal
from pgsteward.config import Config
from pgsteward.postgres import Login
from pgsteward.targets import Target
from tests.servers import Bucket, Database, Server


def make_target(
    database: Database,
    tmp_path: Path,
    *,
    bucket: Bucket | None = None,
    stores: tuple[str, ...] = ("disk",),
    login: Login | None = None,
    **settings: Any,
) -> Target:
    """Return a target whose secrets lie in files below `tmp_path`."""
    login = login or database.login
    known: dict[str, Any] = {"disk": {"url": f"file://{tmp_path / 'store'}"}}
    if bucket is not None:
        for name, secret in (("key", bucket.s3.access_key_id), ("secret", bucket.s3.secret_access_key)):
            (tmp_path / name).write_text(secret)
        known["s3"] = {
            "url": bucket.url,
            "endpoint_url": bucket.s3.endpoint_url,
            "region": "us-east-1",
            "access_key_id": {"file": str(tmp_path / "key")},
            "secret_access_key": {"file": str(tmp_path / "secret")},
        }
    password = tmp_path / "password"
    password.write_text(login.password or "")
    entry: dict[str, Any] = {"conninfo": login.conninfo, "stores": list(stores), **settings}
    if login.password is not None:
        entry["password"] = {"file": str(password)}
    if database.server.bin_dir is not None:
        entry["client_dirs"] = [str(database.server.bin_dir)]
    config = Config.model_validate({"stores": known, "targets": {"app": entry}})
    return Target("app", config.target("app"), config)


def backup_folder(target: Target, backup_id: str) -> Path:
    """Return where a backup lies in the home store."""
    return folder_of(home_store(target), backup_prefix(target.name, target.database, backup_id))


def stored_manifest(target: Target, backup_id: str) -> Manifest:
    """Return the manifest of a backup in the home store."""
    return Manifest.from_bytes((backup_folder(target, backup_id) / MANIFEST).read_bytes(), "the test's")


def sealed(stored: bytes, **changes: Any) -> bytes:
    """Return a manifest with other content and the seal that fits it, as a forger would."""
    data = {**json.loads(stored), **changes}
    del data[SEAL]
    return laid_out({**data, SEAL: seal(data)})


def nothing_left(target: Target) -> bool:
    """Tell whether the home store holds no file at all, finished or not."""
    root = home_store(target).local_folder("")
    return root is not None and not [path for path in root.rglob("*") if path.is_file()]


def own_sessions(server: Server) -> list[str]:
    """Return the application names of our sessions that are still on the server."""
    with server.connect() as connection:
        rows = connection.rows(
            "SELECT application_name FROM pg_stat_activity"
            " WHERE application_name LIKE 'pgsteward%%' AND pid <> pg_backend_pid()"
            "   AND application_name <> 'pgsteward test'"
        )
    return [row["application_name"] for row in rows]
