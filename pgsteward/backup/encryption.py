"""Encryption with age, streamed both ways: who backs up holds recipients only, who restores an identity.

The only file that imports pyrage. Its errors never repeat a key.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pyrage

from pgsteward.errors import ConfigError, PreconditionError, VerificationFailed

_SSH = ("ssh-ed25519", "ssh-rsa")
_SECRET = re.compile(r"AGE-SECRET-KEY|AGE-PLUGIN-|PRIVATE KEY-----")
_HINT = 'write "age1...", "ssh-ed25519 ...", "ssh-rsa ..." or the path of a file with such lines'
_PIECE_BYTES = 1 << 16


class Reader(Protocol):
    """Gives bytes: at most `size`, none at the end."""

    def read(self, size: int, /) -> bytes: ...


class Writer(Protocol):
    """Takes bytes, all of them."""

    def write(self, data: bytes, /) -> int: ...


class WrongIdentity(PreconditionError):
    """None of the identities is one that the file was encrypted to."""


@dataclass(frozen=True, slots=True)
class Recipients:
    """Whom backups are encrypted to.

    Attributes:
        texts: The public keys, without comments: they are in the log, the manifest and the result.
    """

    texts: tuple[str, ...]
    _keys: tuple[Any, ...] = field(repr=False, compare=False)

    def encrypt(self, source: Reader, to: Writer) -> None:
        """Encrypt a stream; what reading or writing raises is raised."""
        reading, writing = _Reading(source), _Writing(to)
        try:
            pyrage.encrypt_io(reading, writing, list(self._keys))
        except Exception as exc:
            _raise_own(reading, writing)
            raise PreconditionError(f"age can't encrypt to {', '.join(self.texts)}: {exc}") from exc
        _raise_own(reading, writing)

    def encrypted(self, data: bytes) -> bytes:
        """Return some bytes, encrypted."""
        out = _Collected()
        self.encrypt(_Whole(data), out)
        return bytes(out.data)


@dataclass(frozen=True, slots=True)
class Identities:
    """The secret keys of who restores."""

    _keys: tuple[Any, ...] = field(repr=False, compare=False)

    def decrypt(self, source: Reader, to: Writer, what: str) -> None:
        """Decrypt a stream; what reading or writing raises is raised.

        Args:
            source: The encrypted bytes.
            to: Takes the clear ones; after an error it may hold a part of them.
            what: What it is, for errors.

        Raises:
            WrongIdentity: It was encrypted to others.
            VerificationFailed: It is cut off, changed, or not encrypted by age at all.
        """
        reading, writing = _Reading(source), _Writing(to)
        try:
            pyrage.decrypt_io(reading, writing, list(self._keys))
        except Exception as exc:
            _raise_own(reading, writing)
            if isinstance(exc, pyrage.DecryptError) and "No matching keys" in str(exc):
                raise WrongIdentity(f"{what} was not encrypted to the identity given for restores") from exc
            reason = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
            raise VerificationFailed(
                f"{what} can't be decrypted: it is cut off, changed, or no age file ({reason})"
            ) from exc
        _raise_own(reading, writing)

    def opens(self, start: bytes, what: str) -> None:
        """Check that a file can be decrypted, by its beginning alone (a few KiB).

        Raises:
            WrongIdentity: It was encrypted to others.
            VerificationFailed: It does not begin as an age file.
        """
        out = _Collected()
        try:
            self.decrypt(_Whole(start), out, what)
        except VerificationFailed as exc:
            if isinstance(
                exc.__cause__, pyrage.DecryptError
            ):  # its header already; the body is cut off anyway
                raise

    def decrypted(self, data: bytes, what: str) -> bytes:
        """Return some bytes, decrypted."""
        out = _Collected()
        self.decrypt(_Whole(data), out, what)
        return bytes(out.data)


def read_recipients(entries: Sequence[str]) -> Recipients:
    """Return the recipients of a configuration, each tried out by encrypting a byte.

    Args:
        entries: Public keys, or absolute paths of files with one on each line.

    Raises:
        ConfigError: One is no public key of a kind that age knows, or it is a secret one.
    """
    found: dict[str, Any] = {}
    for entry in entries:
        for where, line in _lines(entry):
            text, key = _recipient(line, where)
            found[text] = key
    if not found:
        raise ConfigError(f"encrypt_to names no recipient; {_HINT}")
    recipients = Recipients(tuple(found), tuple(found.values()))
    try:
        recipients.encrypted(b"?")
    except PreconditionError as exc:
        raise ConfigError(f"encrypt_to: {exc}") from exc
    return recipients


def _lines(entry: str) -> Iterator[tuple[str, str]]:
    if not entry.startswith("/"):
        yield "encrypt_to", entry
        return
    try:
        text = Path(entry).read_text()
    except OSError as exc:
        raise ConfigError(f"encrypt_to: the file {entry} can't be read: {exc.strerror}") from exc
    except UnicodeDecodeError:
        raise ConfigError(f"encrypt_to: the file {entry} is not UTF-8 text") from None
    if _SECRET.search(text):
        raise ConfigError(
            f"encrypt_to: {entry} holds a secret key; who backs up needs the public one only (age-keygen -y)"
        )
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield f"{entry}, line {number}", line


def _recipient(line: str, where: str) -> tuple[str, Any]:
    text = line.strip()
    if _SECRET.search(text.upper()):
        raise ConfigError(
            f"{where}: this is a secret key; who backs up needs the public one only (age-keygen -y)"
        )
    kind, *rest = text.split()
    try:
        if kind.startswith("age1") and not rest:
            return kind, pyrage.x25519.Recipient.from_str(kind)
        if kind in _SSH and rest:
            return f"{kind} {rest[0]}", pyrage.ssh.Recipient.from_str(f"{kind} {rest[0]}")
    except pyrage.RecipientError as exc:
        raise ConfigError(f"{where}: {text[:24]}... is no public key ({exc}); copy it as a whole") from exc
    raise ConfigError(f"{where}: {text[:24]!r} is no public key of age or ssh; {_HINT}")


def read_identities(text: str, where: str) -> Identities:
    """Return the identities in a text: lines of age-keygen, or one private key of ssh.

    Args:
        text: A whole file.
        where: Where it is from, for errors.

    Raises:
        ConfigError: There is none in it, or one that can't be used; the text never repeats it.
    """
    try:
        if "PRIVATE KEY-----" in text:
            return Identities((pyrage.ssh.Identity.from_buffer(text.strip().encode() + b"\n"),))
        if "AGE ENCRYPTED FILE" in text or text.startswith("age-encryption.org/"):
            raise ConfigError(f"{where} is protected by a passphrase; decrypt it with `age -d` first")
        lines = [line.strip() for line in text.splitlines()]
        keys = [line for line in lines if line and not line.startswith("#")]
        if any(key.startswith(("age1", *_SSH)) for key in keys):
            raise ConfigError(
                f"{where} holds a public key; a restore needs the secret one (AGE-SECRET-KEY-1...)"
            )
        found = tuple(pyrage.x25519.Identity.from_str(key) for key in keys)
    except pyrage.IdentityError as exc:
        why = "protected by a passphrase" if "decrypted first" in str(exc) else "no identity that age can use"
        raise ConfigError(
            f"{where} is {why}; give a file of age-keygen, or a private ssh key (ed25519, rsa) without a"
            " passphrase"
        ) from None
    if not found:
        raise ConfigError(f"{where} holds no identity; give a file of age-keygen or a private ssh key")
    return Identities(found)


class _Guard:
    """Keeps what a callback of ours raised: pyrage makes an error of its own of it, or, at the end, none."""

    error: BaseException | None = None


def _raise_own(*guards: _Guard) -> None:
    for guard in guards:
        if guard.error is not None:
            raise guard.error from None


class _Reading(_Guard):
    """Reads in large pieces and hands on small ones: pyrage asks for 8 KiB."""

    def __init__(self, source: Reader) -> None:
        self._source = source
        self._piece = memoryview(b"")

    def read(self, size: int = -1) -> bytes:
        if not self._piece:
            try:
                self._piece = memoryview(self._source.read(_PIECE_BYTES))
            except BaseException as exc:
                self.error = exc
                raise
        taken = bytes(self._piece[:size] if size >= 0 else self._piece)
        self._piece = self._piece[len(taken) :]
        return taken


class _Writing(_Guard):
    def __init__(self, to: Writer) -> None:
        self._to = to

    def write(self, data: bytes) -> int:
        try:
            return self._to.write(data)
        except BaseException as exc:
            self.error = exc
            raise

    def flush(self) -> None:
        """Nothing is kept back."""


class _Whole:
    def __init__(self, data: bytes) -> None:
        self._left = memoryview(data)

    def read(self, size: int, /) -> bytes:
        taken = bytes(self._left[:size])
        self._left = self._left[len(taken) :]
        return taken


class _Collected:
    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes, /) -> int:
        self.data += data
        return len(data)
