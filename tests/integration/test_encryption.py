"""Encrypted backups: nothing clear is stored, and only who has the secret key brings them back."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyrage
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from pyrage import x25519

from pgsteward import doctor
from pgsteward.backup.catalog import backups, verify
from pgsteward.backup.dump import back_up
from pgsteward.backup.manifest import MANIFEST, Manifest, backup_prefix
from pgsteward.backup.run import back_up_everywhere
from pgsteward.errors import ConfigError, PreconditionError, VerificationFailed
from pgsteward.janitor import clean_up
from pgsteward.restore.run import restore
from pgsteward.spool import clear_root
from pgsteward.targets import Target
from tests.integration.backup_targets import make_target, sealed
from tests.servers import Bucket, Database

pytestmark = pytest.mark.any_server

SECRET_TEXT = "only for those who may read it"
FORMS: dict[str, dict[str, Any]] = {
    "stream": {},
    "tmpfs": {"spool": "/dev/shm"},
    "disk": {"plaintext_spool": True},
}


KEPT = {"state.db", "receipts.lock", "room.lock"}
KEPT_IN = {"stores", "clear-roots"}


def unexpected(state: Path) -> list[Path]:
    """Return the files in the state folder that are not there for good."""
    files = [path for path in state.rglob("*") if path.is_file()]
    return [path for path in files if path.name not in KEPT and path.parent.name not in KEPT_IN]


"""What may stay in the state folder: neither holds a byte of a backup."""


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def secret() -> x25519.Identity:
    return x25519.Identity.generate()


@pytest.fixture
def copy(database: Database) -> Iterator[str]:
    name = f"copy_{uuid.uuid4().hex[:12]}"
    yield name
    database.server.drop(name)


def fill(database: Database) -> None:
    database.execute(
        f"""CREATE TABLE "Order ""Lines" (id serial PRIMARY KEY, note text);
        INSERT INTO "Order ""Lines" (note) SELECT '{SECRET_TEXT} ' || g FROM generate_series(1, 5000) AS g;
        COMMENT ON DATABASE "{database.dbname}" IS '{SECRET_TEXT}'"""
    )


def encrypted_target(
    database: Database,
    tmp_path: Path,
    *recipients: str,
    identity: str | None = None,
    bucket: Bucket | None = None,
    **backup: Any,
) -> Target:
    restoring = {}
    if identity is not None:
        (tmp_path / "key.txt").write_text(identity)
        restoring["identity"] = {"file": str(tmp_path / "key.txt")}
    return make_target(
        database,
        tmp_path,
        bucket=bucket,
        stores=("disk",) if bucket is None else ("s3",),
        backup={"compress": "none", "encrypt_to": list(recipients), **backup},
        restore=restoring,
    )


def stored_files(target: Target, backup_id: str) -> dict[str, bytes]:
    store = target.stores()[0]
    prefix = backup_prefix(target.name, target.database, backup_id)
    return {each.key.removeprefix(prefix): store.get_bytes(each.key) for each in store.objects(prefix)}


def read_manifest(target: Target, backup_id: str) -> Manifest:
    return Manifest.from_bytes(stored_files(target, backup_id)[MANIFEST], "the test's")


def clear_files(backup_id: str) -> list[Path]:
    """Return what one backup has left in memory; those of other tests may be at work there."""
    return sorted(Path(f"/dev/shm/pgsteward-{os.geteuid()}").glob(f"{backup_id}*/**/*"))


@pytest.mark.parametrize("remote", [False, True], ids=["folder", "s3"])
@pytest.mark.parametrize("form", FORMS)
def test_an_encrypted_backup_holds_nothing_clear_and_comes_back_equal(
    database: Database,
    bucket: Bucket,
    tmp_path: Path,
    state: Path,
    secret: x25519.Identity,
    copy: str,
    form: str,
    remote: bool,
) -> None:
    fill(database)
    public = str(secret.to_public())
    target = encrypted_target(
        database,
        tmp_path,
        public,
        identity=f"# mine\n{secret}\n",
        bucket=bucket if remote else None,
        **FORMS[form],
    )
    result = back_up_everywhere(target)
    assert result.status == "ok"
    assert result.details["encrypted_to"] == [public]
    backup_id = result.details["backup_id"]
    files = stored_files(target, backup_id)
    assert {name for name in files if not name.endswith(".age")} == {"RESTORE.md", MANIFEST}
    assert {"globals.sql.zst.age", "database.sql.zst.age"} <= set(files)
    for name, data in files.items():
        assert SECRET_TEXT.encode() not in data, name
        assert name in {"RESTORE.md", MANIFEST} or data.startswith(b"age-encryption.org/v1\n")
        assert str(secret).encode() not in data
    manifest = read_manifest(target, backup_id)
    assert manifest.encryption is not None
    assert manifest.encryption.recipients == (public,)
    assert manifest.encryption.clear_files == {"stream": "nowhere", "tmpfs": "tmpfs", "disk": "disk"}[form]
    assert manifest.mode == ("stream" if form == "stream" else "directory")
    assert manifest.format_version == 2
    assert manifest.proof.rows == 5000
    assert [each.last_value for each in manifest.proof.sequences] == [5000]

    restored = restore(target, into=copy, jobs=2)
    assert restored.status == "ok"
    assert restored.details["proof"]["equal"] is True
    assert [each["state"] for each in backups(target).details["backups"]] == ["proven"]
    assert unexpected(state) == []
    assert clear_files(manifest.backup_id) == []


def test_who_only_backs_up_needs_no_secret_key(
    database: Database, tmp_path: Path, secret: x25519.Identity
) -> None:
    fill(database)
    target = encrypted_target(database, tmp_path, str(secret.to_public()))
    backup_id = back_up(target).details["backup_id"]
    assert verify(target, backup_id).status == "ok"
    assert [each["backup_id"] for each in backups(target).details["backups"]] == [backup_id]
    assert clean_up(target).changed == ()


def test_an_ssh_key_brings_it_back_too(database: Database, tmp_path: Path, copy: str) -> None:
    fill(database)
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    file = tmp_path / "recipients.txt"
    file.write_text(f"# backups\n{public} somebody@example.org\n{x25519.Identity.generate().to_public()}\n")
    target = encrypted_target(database, tmp_path, str(file), identity=private)
    backup_id = back_up(target).details["backup_id"]
    manifest = read_manifest(target, backup_id)
    assert manifest.encryption is not None
    assert manifest.encryption.recipients[0] == public
    assert len(manifest.encryption.recipients) == 2
    assert "somebody@example.org" not in manifest.to_bytes().decode()
    assert restore(target, into=copy).details["proof"]["equal"] is True


def untouched(database: Database, state: Path) -> bool:
    """Tell whether a refused restore has left neither a database nor a file."""
    with database.server.connect() as connection:
        made = connection.rows("SELECT 1 FROM pg_database WHERE datname LIKE 'pgsteward_tmp%%'")
    return not made and unexpected(state) == []


def test_a_missing_or_another_identity_is_refused_before_anything_is_created(
    database: Database, tmp_path: Path, state: Path, secret: x25519.Identity, copy: str
) -> None:
    fill(database)
    public = str(secret.to_public())
    assert back_up(encrypted_target(database, tmp_path, public)).status == "ok"
    without = encrypted_target(database, tmp_path, public)
    with pytest.raises(PreconditionError, match=rf"encrypted to {public}; say where .* identity = "):
        restore(without, into=copy)
    other = x25519.Identity.generate()
    with pytest.raises(PreconditionError, match=rf"encrypted to {public}, and .* none of them") as caught:
        restore(encrypted_target(database, tmp_path, public, identity=str(other)), into=copy)
    assert str(other) not in str(caught.value)
    with pytest.raises(ConfigError, match=r"restore\.identity holds a public key"):
        restore(encrypted_target(database, tmp_path, public, identity=public), into=copy, dry_run=True)
    gone = encrypted_target(database, tmp_path, public, identity=str(secret))
    (tmp_path / "key.txt").unlink()
    with pytest.raises(ConfigError, match=r"key\.txt can't be read"):
        restore(gone, into=copy)
    assert untouched(database, state)


@pytest.mark.parametrize("form", ["stream", "disk"])
@pytest.mark.parametrize("damage", ["cut off", "changed", "missing", "encrypted to somebody else"])
def test_damage_is_told_by_the_files_name_before_anything_is_created(
    database: Database,
    tmp_path: Path,
    state: Path,
    secret: x25519.Identity,
    copy: str,
    form: str,
    damage: str,
) -> None:
    fill(database)
    target = encrypted_target(
        database, tmp_path, str(secret.to_public()), identity=str(secret), **FORMS[form]
    )
    backup_id = back_up(target).details["backup_id"]
    folder = tmp_path / "store" / "app" / target.database / backup_id
    victim = max((folder / "dump").iterdir(), key=lambda path: path.stat().st_size)
    data = victim.read_bytes()
    middle = len(data) // 2
    if damage == "cut off":
        victim.write_bytes(data[:-100])
    elif damage == "changed":
        victim.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    elif damage == "missing":
        victim.unlink()
    else:  # by who can write the store but not read it, with a manifest that fits
        forged = pyrage.encrypt(b"PGDMP" * 1000, [x25519.Identity.generate().to_public()])
        victim.write_bytes(forged)
        manifest = folder / MANIFEST
        files = json.loads(manifest.read_bytes())["files"]
        for file in files:
            if file["path"] == f"dump/{victim.name}":
                file |= {"size_bytes": len(forged), "sha256": hashlib.sha256(forged).hexdigest()}
        manifest.write_bytes(sealed(manifest.read_bytes(), files=files))
    with pytest.raises((VerificationFailed, PreconditionError), match=r"dump/|none of them") as caught:
        restore(target, into=copy)
    assert damage == "encrypted to somebody else" or victim.name in str(caught.value)
    assert untouched(database, state)
    if damage != "encrypted to somebody else":
        assert verify(target, backup_id).status == "failed"


def test_a_recipient_that_can_not_be_used_is_refused_before_the_dump(
    database: Database, tmp_path: Path
) -> None:
    target = encrypted_target(database, tmp_path, "age1qqqqqqqqqqqqqqqqqqqqqq")
    for dry_run in (True, False):
        with pytest.raises(ConfigError, match="copy it as a whole"):
            back_up(target, dry_run=dry_run)
    assert not (tmp_path / "store").exists()


def test_a_spool_that_is_no_tmpfs_or_too_small_is_refused(
    database: Database, tmp_path: Path, secret: x25519.Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    public = str(secret.to_public())
    with pytest.raises(PreconditionError, match=r"not on a tmpfs.*plaintext_spool = true"):
        back_up(encrypted_target(database, tmp_path, public, spool=str(tmp_path)))
    with pytest.raises(PreconditionError, match="there is no folder"):
        back_up(encrypted_target(database, tmp_path, public, spool=str(tmp_path / "nowhere")))
    real = shutil.disk_usage

    def small_shm(place: Path) -> Any:
        found = real(place)
        return found._replace(free=1 << 20) if str(place).startswith("/dev/shm") else found

    monkeypatch.setattr("pgsteward.backup.forms.shutil.disk_usage", small_shm)
    with pytest.raises(PreconditionError, match=r'MB free, and the clear dump .*mode = "stream"'):
        back_up(encrypted_target(database, tmp_path, public, spool="/dev/shm"))
    assert not (tmp_path / "store").exists()


KILLED = """
import sys
from pgsteward.config import Config
from pgsteward.targets import Target
from pgsteward.backup.dump import back_up

config = Config.model_validate_json(sys.stdin.read())
back_up(Target("app", config.target("app"), config))
"""


@pytest.mark.parametrize("form", ["tmpfs", "disk"])
def test_the_clear_files_of_a_killed_run_are_removed(
    database: Database, tmp_path: Path, secret: x25519.Identity, form: str
) -> None:
    database.execute(
        "CREATE TABLE big AS SELECT g AS id, repeat(md5(g::text), 4) AS filler"
        " FROM generate_series(1, 400000) AS g"
    )
    target = encrypted_target(database, tmp_path, str(secret.to_public()), **FORMS[form])
    root = clear_root(target.settings.backup)
    with subprocess.Popen(
        [sys.executable, "-c", KILLED], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd="/"
    ) as child:
        assert child.stdin is not None
        child.stdin.write(target.config.model_dump_json().encode())
        child.stdin.close()
        deadline = time.monotonic() + 60
        while not list(root.glob("*/dump/*.dat")) and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        assert child.poll() is None
        child.kill()
    [left] = list(root.iterdir())
    other = {"tmpfs": "disk", "disk": "tmpfs"}[form]  # the configuration has been changed since
    changed = encrypted_target(database, tmp_path, str(secret.to_public()), **FORMS[other])
    assert left.stat().st_mode & 0o777 == 0o700
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(PreconditionError):  # the server has not noticed yet
            result = clean_up(changed)
            break
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert str(left) in {item.object for item in result.changed}
    assert not left.exists()
    assert back_up(target).status == "ok"
    assert list(root.iterdir()) == []


def test_doctor_tries_the_keys_out(database: Database, tmp_path: Path, secret: x25519.Identity) -> None:
    def said(target: Target) -> dict[str, tuple[str, str]]:
        return {each.check: (each.status, each.message) for each in doctor._encryption(target)}

    public = str(secret.to_public())
    good = said(encrypted_target(database, tmp_path, public, identity=str(secret)))
    assert good["encryption"][0] == "ok"
    assert public in good["encryption"][1]
    assert good["identity"][0] == "ok"
    only_backs_up = said(encrypted_target(database, tmp_path, public))
    assert only_backs_up["identity"][0] == "skipped"
    other = said(encrypted_target(database, tmp_path, public, identity=str(x25519.Identity.generate())))
    assert other["identity"][0] == "warn"
    broken = said(encrypted_target(database, tmp_path, "age1qqqqqqqqqqqqqqqqqqqqqq"))
    assert broken["encryption"][0] == "fail"
    on_disk = said(encrypted_target(database, tmp_path, public, spool=str(tmp_path)))
    assert on_disk["encryption"][0] == "fail"
    assert said(make_target(database, tmp_path)) == {}
    checks = doctor.examine(encrypted_target(database, tmp_path, public)).details["checks"]
    assert "encryption" in {each["check"] for each in checks}
