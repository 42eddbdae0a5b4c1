"""Manifests of every kind of backup, as they are stored, against the published schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyrage
import pytest

from pgsteward.backup.dump import back_up
from pgsteward.backup.manifest import MANIFEST, Manifest
from tests.integration.backup_targets import backup_folder, make_target
from tests.servers import Database
from tests.unit.test_manifest_schema import errors

pytestmark = pytest.mark.any_server

KINDS: dict[str, dict[str, Any]] = {
    "directory": {},
    "counts": {"proof": "counts", "compress": "gzip:1"},
    "no-proof": {"proof": "none", "compress": "none", "role_passwords": True},
    "stream": {"mode": "stream"},
    "encrypted": {"encrypt_to": True},
    "encrypted-directory": {"encrypt_to": True, "mode": "directory", "plaintext_spool": True},
    "partial": {"exclude_table_data": ["public.t"]},
    "bounded": {"proof_max_seconds": 0.001},
}


@pytest.fixture(scope="module")
def recipient() -> str:
    return str(pyrage.x25519.Identity.generate().to_public())


@pytest.mark.parametrize("kind", KINDS)
def test_a_stored_manifest_is_what_is_published(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipient: str, kind: str
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    database.execute(
        "CREATE TABLE t AS SELECT generate_series(1, 10) AS a; CREATE SEQUENCE s; CREATE TABLE p (a int)"
        " PARTITION BY HASH (a); CREATE TABLE p0 PARTITION OF p FOR VALUES WITH (MODULUS 2, REMAINDER 0);"
        "CREATE TABLE p1 PARTITION OF p FOR VALUES WITH (MODULUS 2, REMAINDER 1);"
        "CREATE MATERIALIZED VIEW m AS SELECT a FROM t WITH NO DATA; SELECT lo_from_bytea(0, 'x')"
    )
    settings = {key: [recipient] if key == "encrypt_to" else value for key, value in KINDS[kind].items()}
    target = make_target(database, tmp_path, backup=settings)
    stored = (backup_folder(target, back_up(target).details["backup_id"]) / MANIFEST).read_bytes()
    assert errors(json.loads(stored)) == []
    manifest = Manifest.from_bytes(stored, "it")
    assert (manifest.encryption is not None) == ("encrypt_to" in settings)
    assert (manifest.mode == "stream") == (kind in ("stream", "encrypted"))
    assert bool(manifest.partial) == (kind == "partial")
    assert manifest.format_version == (1 if kind in ("directory", "counts", "no-proof", "bounded") else 2)
