"""Keys of age and ssh: which are taken, which are refused and why, and that no error repeats one."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from pydantic import ValidationError
from pyrage import x25519

from pgsteward.backup.encryption import Recipients, WrongIdentity, read_identities, read_recipients
from pgsteward.config import BackupConfig
from pgsteward.errors import ConfigError, StoreFailed, VerificationFailed

SSH = Ed25519PrivateKey.generate()
SSH_PUBLIC = SSH.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
SSH_SECRET = SSH.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()


@pytest.fixture
def secret() -> x25519.Identity:
    return x25519.Identity.generate()


def encrypted(recipients: Recipients, data: bytes) -> bytes:
    out = io.BytesIO()
    recipients.encrypt(io.BytesIO(data), out)
    return out.getvalue()


@pytest.mark.parametrize("size", [0, 1, 65_536, 200_001])
def test_what_is_encrypted_comes_back(secret: x25519.Identity, size: int) -> None:
    data = os.urandom(size)
    stored = encrypted(read_recipients([str(secret.to_public())]), data)
    assert size < 100 or data[:100] not in stored
    out = io.BytesIO()
    read_identities(f"# created: today\n{secret}\n", "key").decrypt(io.BytesIO(stored), out, "file")
    assert out.getvalue() == data


def test_an_ssh_key_opens_what_was_encrypted_to_it_and_its_comment_is_nowhere() -> None:
    recipients = read_recipients([f"{SSH_PUBLIC} backup@example.org"])
    assert recipients.texts == (SSH_PUBLIC,)
    stored = encrypted(recipients, b"hello")
    assert read_identities(SSH_SECRET, "key").decrypted(stored, "file") == b"hello"


def test_recipients_may_lie_in_a_file_and_count_once(secret: x25519.Identity, tmp_path: Path) -> None:
    file = tmp_path / "recipients.txt"
    public = str(secret.to_public())
    file.write_text(f"# who may read\n\n{public}\n{SSH_PUBLIC}\n")
    assert read_recipients([public, str(file)]).texts == (public, SSH_PUBLIC)


def test_each_of_several_identities_is_tried(secret: x25519.Identity) -> None:
    other = x25519.Identity.generate()
    stored = encrypted(read_recipients([str(secret.to_public())]), b"hello")
    assert read_identities(f"{other}\n{secret}", "key").decrypted(stored, "file") == b"hello"


@pytest.mark.parametrize(
    "line, says",
    [
        pytest.param("age1qqqqqq", "copy it as a whole", id="cut-off"),
        pytest.param("ssh-ed25519 AAAA", "copy it as a whole", id="ssh-cut-off"),
        pytest.param("ecdsa-sha2-nistp256 AAAA", "no public key of age or ssh", id="other-kind"),
        pytest.param("AGE-SECRET-KEY-1SECRETSECRET", "secret key", id="secret"),
        pytest.param("-----BEGIN OPENSSH PRIVATE KEY-----", "secret key", id="ssh-secret"),
    ],
)
def test_what_is_no_public_key_is_refused(line: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "recipients.txt"
    file.write_text(f"{line}\n")
    with pytest.raises(ConfigError, match=says) as caught:
        read_recipients([str(file)])
    assert str(file) in str(caught.value)
    assert "SECRETSECRET" not in str(caught.value)


def test_a_missing_file_of_recipients_and_an_empty_one_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere can't be read"):
        read_recipients([str(tmp_path / "nowhere")])
    (tmp_path / "empty").write_text("# nobody\n")
    with pytest.raises(ConfigError, match="names no recipient"):
        read_recipients([str(tmp_path / "empty")])


@pytest.mark.parametrize(
    "text, says",
    [
        pytest.param("", "holds no identity", id="empty"),
        pytest.param("# public key: age1...\n", "holds no identity", id="comments-only"),
        pytest.param("SECRETSECRET", "no identity that age can use", id="garbage"),
        pytest.param(SSH_PUBLIC, "holds a public key", id="public"),
        pytest.param("-----BEGIN AGE ENCRYPTED FILE-----\nSECRETSECRET", "passphrase", id="passphrase"),
        pytest.param(SSH_SECRET[:200], "no identity that age can use", id="ssh-cut-off"),
    ],
)
def test_what_is_no_identity_is_refused(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        read_identities(text, "the file key.txt")
    assert "the file key.txt" in str(caught.value)
    assert "SECRETSECRET" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_an_ssh_key_with_a_passphrase_says_so() -> None:
    def field(data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + data

    public = base64.b64decode(SSH_PUBLIC.split()[1])
    options = field(field(os.urandom(16)) + (16).to_bytes(4, "big"))
    head = b"openssh-key-v1\0" + field(b"aes256-ctr") + field(b"bcrypt") + options
    key = base64.encodebytes(head + (1).to_bytes(4, "big") + field(public) + field(os.urandom(144))).decode()
    protected = f"-----BEGIN OPENSSH PRIVATE KEY-----\n{key}-----END OPENSSH PRIVATE KEY-----\n"
    with pytest.raises(ConfigError, match="passphrase"):
        read_identities(protected, "key")


def test_another_identity_is_told_from_damage(secret: x25519.Identity) -> None:
    stored = encrypted(read_recipients([str(secret.to_public())]), os.urandom(200_000))
    mine, other = (read_identities(str(key), "key") for key in (secret, x25519.Identity.generate()))
    mine.opens(stored[:4096], "toc.dat.age")
    with pytest.raises(WrongIdentity, match=r"toc\.dat\.age was not encrypted to the identity"):
        other.opens(stored[:4096], "toc.dat.age")
    with pytest.raises(WrongIdentity):
        other.decrypted(stored, "toc.dat.age")


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: data[:-1], id="cut-off"),
        pytest.param(lambda data: data[: len(data) - 200_000 % 65_536 - 16], id="cut-off-between-chunks"),
        pytest.param(lambda data: data[:100_000] + bytes([data[100_000] ^ 1]) + data[100_001:], id="changed"),
        pytest.param(lambda data: data + b"x", id="too-long"),
        pytest.param(lambda data: b"PGDMP" + data, id="not-age"),
        pytest.param(lambda _: b"", id="empty"),
    ],
)
def test_damage_is_told_by_the_files_name(secret: x25519.Identity, damage: Callable[[bytes], bytes]) -> None:
    stored = encrypted(read_recipients([str(secret.to_public())]), os.urandom(200_000))
    with pytest.raises(VerificationFailed, match=r"toc\.dat\.age can't be decrypted"):
        read_identities(str(secret), "key").decrypted(damage(stored), "toc.dat.age")


class Broken(io.RawIOBase):
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def read(self, size: int = -1, /) -> bytes:
        raise self.error

    def write(self, data: object, /) -> int:
        raise self.error


@pytest.mark.parametrize("error", [StoreFailed("full"), KeyboardInterrupt(), OSError(28, "No space left")])
def test_errors_of_who_reads_and_writes_are_their_own(secret: x25519.Identity, error: BaseException) -> None:
    recipients = read_recipients([str(secret.to_public())])
    identities = read_identities(str(secret), "key")
    stored = encrypted(recipients, b"x" * 200_000)
    with pytest.raises(type(error)):
        recipients.encrypt(Broken(error), io.BytesIO())
    with pytest.raises(type(error)):
        recipients.encrypt(io.BytesIO(b"x"), Broken(error))
    with pytest.raises(type(error)):
        identities.decrypt(Broken(error), io.BytesIO(), "file")
    with pytest.raises(type(error)):
        identities.decrypt(io.BytesIO(stored), Broken(error), "file")


@pytest.mark.parametrize(
    "settings, form",
    [
        ({}, "directory"),
        ({"mode": "stream"}, "stream"),
        ({"encrypt_to": ["age1x"]}, "stream"),
        ({"encrypt_to": ["age1x"], "spool": "/dev/shm"}, "directory"),
        ({"encrypt_to": ["age1x"], "mode": "directory", "plaintext_spool": True}, "directory"),
    ],
)
def test_nothing_clear_lies_on_a_disk_unless_it_was_allowed(settings: dict[str, object], form: str) -> None:
    assert BackupConfig.model_validate(settings).form == form


@pytest.mark.parametrize(
    "settings, says",
    [
        ({"encrypt_to": ["age1x"], "mode": "directory"}, "plaintext_spool = true"),
        ({"plaintext_spool": True}, "take them out"),
        ({"encrypt_to": ["age1x"], "mode": "stream", "spool": "/dev/shm"}, "take them out"),
        ({"encrypt_to": ["age1x"], "spool": "/dev/shm", "plaintext_spool": True}, "not both"),
        ({"encrypt_to": ["age1x"], "spool": "shm"}, "absolute path"),
        ({"encrypt_to": ["somebody@example.org"]}, 'write "age1..."'),
        ({"encrypt_to": ["AGE-SECRET-KEY-1SECRETSECRET"]}, "secret key"),
    ],
)
def test_a_choice_that_would_surprise_is_refused(settings: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        BackupConfig.model_validate(settings)
    message = caught.value.errors()[0]["msg"]
    assert says in message
    assert "SECRETSECRET" not in message
