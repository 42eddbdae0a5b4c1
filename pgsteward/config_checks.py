"""Checks of single values in a configuration. Nothing is contacted, and no driver is imported for it."""

from __future__ import annotations

import difflib
import functools
import os
import re
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit
from zoneinfo import available_timezones

from pgsteward.postgres_names import split_qualified
from pgsteward.spans import Span
from pgsteward.window import Window

_PAIR = re.compile(r"\s*([A-Za-z_]\w*)\s*=\s*('(?:[^'\\]|\\.)*'|(?:[^\s'\\]|\\.)*)(?=\s|$)\s*", re.DOTALL)
_SECRETS = ("password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key")
_USUAL = (
    *("host", "hostaddr", "port", "dbname", "user", "password", "passfile", "service", "options"),
    *(
        "connect_timeout",
        "application_name",
        "client_encoding",
        "sslmode",
        "sslcert",
        "sslkey",
        "sslrootcert",
    ),
    *("sslcrl", "sslpassword", "channel_binding", "gssencmode", "krbsrvname", "target_session_attrs"),
    *("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout"),
    *("require_auth", "load_balance_hosts", "requirepeer", "sslnegotiation", "fallback_application_name"),
)
_BUCKET = re.compile(r"[A-Za-z0-9._-]{1,255}")
_ACCESS_POINT = re.compile(
    r"arn:[a-z-]+:s3[a-z-]*:[a-z0-9-]*:\d{12}:(?:outpost:[\w-]+:)?accesspoint:[\w.-]{1,63}"
)
_ADDRESS = re.compile(r"[!-~]+")
_LEVELS: Mapping[str, range] = {"zstd": range(1, 23), "lz4": range(1, 13), "gzip": range(1, 10)}


def conninfo(text: str) -> str:
    """Return a conninfo that holds no secret and can be one.

    Raises:
        ValueError: It is none, or it holds a secret; the text never repeats it.
    """
    parts = conninfo_parts(text)
    for key in parts:
        if key == "password":
            raise ValueError(
                'take the password out of conninfo and add password = { env = "NAME" } (or use .pgpass)'
            )
        if key in _SECRETS:
            raise ValueError(f"take {key} out of conninfo; a service file may hold it: service=NAME")
        near = difflib.get_close_matches(key, _USUAL, n=1, cutoff=0.8)
        if key not in _USUAL and near:
            raise ValueError(f"{key} is no connection option; did you mean {near[0]!r}?")
    return text


def conninfo_with_database(text: str) -> str:
    """Return the same for a target of its own, whose backups lie in a folder named after the database.

    Raises:
        ValueError: It names no database.
    """
    parts = conninfo_parts(conninfo(text))
    named = parts.get("dbname") or ("service" not in parts and parts.get("user"))
    elsewhere = "service" not in parts and (os.environ.get("PGDATABASE") or os.environ.get("PGUSER"))
    if not (named or elsewhere):
        raise ValueError("name the database: add dbname=... (its backups lie in a folder of that name)")
    return text


def databases(value: object) -> object:
    """Return the databases of a target: ``"*"``, or a list of names.

    Raises:
        ValueError: It is neither; patterns are for exclusions only.
    """
    if value == "*":
        return value
    if not isinstance(value, list | tuple) or not value or not all(isinstance(n, str) and n for n in value):
        raise ValueError('write a list of names: databases = ["app", "shop"], or "*" for all of the server')
    if "*" in value:
        raise ValueError('for all databases of the server write databases = "*", without brackets')
    for name in value:
        if value.count(name) > 1:
            raise ValueError(f"{name!r} is in it twice; name each database once")
    return value


def conninfo_parts(text: str) -> Mapping[str, str]:
    """Return the parts of a conninfo as they are written, quotes and all.

    Raises:
        ValueError: It is none.
    """
    if re.match(r"postgres(?:ql)?://", text):
        return _uri_parts(text)
    parts: dict[str, str] = {}
    position = 0
    while position < len(text.rstrip()):
        pair = _PAIR.match(text, position)
        if pair is None:
            raise ValueError('write it as for psql: "host=... port=... dbname=... user=..."')
        parts[pair[1]] = pair[2]
        position = pair.end()
    return parts


def _uri_parts(text: str) -> Mapping[str, str]:
    # Not urlsplit: libpq takes several hosts, and IPv6 addresses among them.
    authority, query, options = text.partition("://")[2].partition("?")
    where, _, dbname = authority.partition("/")
    user, colon, password = where.rpartition("@")[0].partition(":")
    parts = {
        "user": user,
        "dbname": dbname.strip("/"),
        **dict(parse_qsl(options, keep_blank_values=bool(query))),
    }
    return {**parts, "password": password} if colon and password else parts


def compression(text: str) -> str:
    """Return a specification that pg_dump takes.

    Raises:
        ValueError: It is none, or its level does not exist.
    """
    codec, colon, level = text.partition(":")
    if text == "none" or (codec in _LEVELS and not colon):
        return text
    if codec in _LEVELS and level.isascii() and level.isdecimal() and int(level) in _LEVELS[codec]:
        return text
    levels = ", ".join(f"{name}:{each[0]} to {name}:{each[-1]}" for name, each in _LEVELS.items())
    raise ValueError(f'write "zstd", "lz4" or "gzip", with a level if you like ({levels}), or "none"')


def table_pattern(text: str) -> str:
    """Return a pattern as pg_dump takes it for tables and schemas.

    Raises:
        ValueError: It is empty, or a quote in it has no end.
    """
    if not text.strip():
        raise ValueError("an empty pattern matches nothing; take it out")
    if text.count('"') % 2:
        raise ValueError(f"the quotes in {text!r} don't match; write it as for psql's \\d: public.\"Log*\"")
    return text


def state_url(text: str) -> str:
    """Return a URL that SQLAlchemy takes and that holds no password.

    Raises:
        ValueError: It holds one, or it is no URL of SQLite or PostgreSQL.
    """
    parts = urlsplit(text)
    if parts.password or "password" in dict(parse_qsl(parts.query)):
        raise ValueError('a URL with a password is a secret: state_url = { env = "NAME" }')
    known = ("sqlite", "postgres", "postgresql", "postgresql+psycopg")
    if parts.scheme not in known or "://" not in text or (parts.scheme == "sqlite" and parts.netloc):
        raise ValueError('write "sqlite:///file" or "postgresql://user@host/database"')
    return text


def store_url(url: str) -> str:
    """Return the URL of a folder or of a bucket, without a slash at its end.

    Raises:
        ValueError: It is neither, or it holds keys.
    """
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise ValueError(
            'take the keys out of the URL and add access_key_id = { env = "NAME" } and its secret'
        )
    if parts.scheme == "file" and not parts.netloc and file_path(url).startswith("/") and len(parts.path) > 1:
        return url.rstrip("/")
    if parts.scheme == "s3" and parts.netloc and "?" not in url and "#" not in url:
        return _bucket_url(url.rstrip("/"))
    raise ValueError('write "file:///absolute/folder" or "s3://bucket/prefix"')


def _bucket_url(url: str) -> str:
    bucket, _, prefix = url.partition("://")[2].partition("/")
    if bucket.startswith("arn:") and not _ACCESS_POINT.fullmatch(bucket):
        raise ValueError(
            "write the ARN of an access point with a colon before its name, the prefix after a slash:"
            ' "s3://arn:aws:s3:eu-central-1:123456789012:accesspoint:NAME/prefix"'
        )
    if not bucket.startswith("arn:") and not _BUCKET.fullmatch(bucket):
        raise ValueError(f"{bucket!r} is no name of a bucket; host and port belong into endpoint_url")
    if prefix and (not prefix.isprintable() or {"", ".", ".."} & set(prefix.split("/"))):
        raise ValueError(
            "no part of the prefix may be empty, '.' or '..', or hold a line break: what stands before a"
            " store reads that as another address"
        )
    return url


def file_path(url: str) -> str:
    """Return the folder of a ``file:`` URL, as it is written: ``%20``, ``#`` and ``?`` may be in a name."""
    path = url.partition(":")[2]
    return path[2:] if path.startswith("//") else path


def endpoint_url(url: str) -> str:
    """Return the address of an S3 service that is not spoken to in clear text.

    Raises:
        ValueError: It would be, or it is no address.
    """
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise ValueError("take user and password out of the URL; access_key_id and secret_access_key say who")
    if parts.query or parts.fragment or not _ADDRESS.fullmatch(url) or parts.port == 0:
        raise ValueError('write only the address, without blanks and query: "https://s3.example.net:9000"')
    if parts.hostname and (
        parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname))
    ):
        return url
    raise ValueError("write https://...; http is for loopback addresses only")


def is_loopback(host: str | None) -> bool:
    """Tell whether a host name leads to this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host or "").is_loopback
    except ValueError:  # a name: 127.0.0.1.example.net is anywhere
        return False


def region(name: str) -> str:
    """Return the name of a region of S3.

    Raises:
        ValueError: It can be none.
    """
    if re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?", name):
        return name
    raise ValueError('write it without blanks: "eu-central-1"')


def proxy_url(url: str) -> str:
    """Return the address of a proxy.

    Raises:
        ValueError: It is none, or it holds a password.
    """
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise ValueError("a proxy with a password is set in the environment (HTTPS_PROXY), not in this file")
    if parts.scheme in {"http", "https"} and parts.hostname:
        return url
    raise ValueError('write "http://proxy.example.net:3128"')


def storage_class(name: str) -> str:
    """Return the name of a class whose objects can be read at once: every upload is read back.

    Raises:
        ValueError: Objects of this class can't, or it is no name of a class.
    """
    if name in {"GLACIER", "DEEP_ARCHIVE"}:
        raise ValueError(
            f"objects in {name} can't be read at once, so that no backup there could be verified; use"
            ' "STANDARD_IA" or "GLACIER_IR", and let a lifecycle rule of the bucket move old backups'
        )
    if re.fullmatch(r"[A-Z][A-Z0-9_]*", name):
        return name
    raise ValueError('write it in capitals: "STANDARD_IA"')


def tags(given: Mapping[str, str]) -> Mapping[str, str]:
    """Return tags that S3 takes.

    Raises:
        ValueError: There are too many, or one is too long.
    """
    if len(given) > 10:
        raise ValueError("an S3 object takes at most 10 tags")
    for key, value in given.items():
        if not 1 <= len(key) <= 128 or len(value) > 256 or key.startswith("aws:"):
            raise ValueError(f"{key!r}: a key has 1 to 128 characters (not aws:...), a value 256 at most")
    return given


def absolute_file(text: str) -> str:
    """Return the path of a file.

    Raises:
        ValueError: It is not absolute.
    """
    if text.startswith("/") and not text.endswith("/"):
        return text
    raise ValueError('write an absolute path: "/etc/ssl/certs/ca.pem"')


@functools.cache
def _time_zones() -> frozenset[str]:
    return frozenset(available_timezones())  # walks a folder, which takes its time


def time_zone(zone: str) -> str:
    """Return the name of a time zone.

    Raises:
        ValueError: There is none of that name.
    """
    if zone not in _time_zones():
        near = difflib.get_close_matches(zone, _time_zones(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else 'write a name such as "UTC" or "Europe/Warsaw"'
        raise ValueError(f"{zone!r} is not a time zone; {hint}")
    return zone


def hours(text: str) -> str:
    """Return a window of the day.

    Raises:
        ValueError: It is none.
    """
    Window.parse(text)
    return text


def span(text: str) -> str:
    """Return a span as restic writes it.

    Raises:
        ValueError: It is none.
    """
    Span.parse(text)
    return text


def system_identifier(text: str) -> str:
    """Return what a cluster calls itself.

    Raises:
        ValueError: It is not such a number.
    """
    if text.isascii() and text.isdecimal():
        return text
    raise ValueError('write it as `prune` names it, in quotes: "7301234567890123456"')


def recipient(text: str) -> str:
    """Return what may be a public key, or the path of a file of such.

    Raises:
        ValueError: It is neither; a secret key is never repeated.
    """
    if "AGE-SECRET-KEY" in text.upper() or "PRIVATE KEY" in text:
        raise ValueError(
            "this is a secret key, which has no place here; write the public one (age-keygen -y)"
        )
    if text.startswith(("age1", "ssh-ed25519 ", "ssh-rsa ", "/")):
        return text
    raise ValueError('write "age1...", "ssh-ed25519 ...", "ssh-rsa ..." or "/path/of/a/file" with such lines')


def client_dir(path: Path) -> Path:
    """Return the absolute path of a folder, also of one below a home (``~``).

    Raises:
        ValueError: It depends on where a command is started, which a schedule does elsewhere.
    """
    path = expanded(path)
    if not path.is_absolute():
        raise ValueError('write an absolute path: "/opt/postgresql/bin"')
    return path


def script_location(text: str) -> str:
    """Return where Alembic's scripts lie: an absolute path, or ``package:folder`` as Alembic has it.

    Raises:
        ValueError: It is neither.
    """
    package, colon, _ = text.partition(":")
    if colon and all(part.isidentifier() for part in package.split(".")):
        return text
    return str(client_dir(Path(text)))


def qualified_name(text: str) -> str:
    """Return a (qualified) name as SQL has it.

    Raises:
        ValueError: It is none.
    """
    split_qualified(text)
    return text


def expanded(path: Path) -> Path:
    """Return a path with ``~`` replaced, where somebody knows that home."""
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def secret(text: str) -> str:
    """Return a secret that can be one.

    Raises:
        ValueError: It can't; the text is the end of a sentence and never repeats it.
    """
    if not text:
        raise ValueError("is empty; put the secret there, or take the key out of the configuration")
    if "\n" in text or "\r" in text:
        raise ValueError("holds a line break; put the secret alone there")
    if "\0" in text:
        raise ValueError("holds a zero byte; put the secret alone there, as text")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("is not UTF-8 text") from None
    return text


def folder(text: str) -> str:
    """Return the path of a folder.

    Raises:
        ValueError: It is not absolute.
    """
    if text.startswith("/"):
        return text.rstrip("/") or "/"
    raise ValueError('write an absolute path: "/dev/shm"')
