"""What each of our sessions is set to, as settings of roles and databases may change what a query means."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

SESSION: Mapping[str, str] = {
    "client_encoding": "UTF8",  # SQL_ASCII databases would hand out names as bytes
    "TimeZone": "UTC",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "client_min_messages": "notice",
    "standard_conforming_strings": "on",
    "quote_all_identifiers": "off",
    "transform_null_equals": "off",
    "array_nulls": "on",
}
ENGLISH: Mapping[str, str] = {"lc_messages": "C"}
"""Tools pass on the server's words and no SQLSTATE. Superusers may set it, and those who were granted it."""
READ_ONLY = "the server is a standby, or default_transaction_read_only is on: for this role, or by PGOPTIONS"
REFUSED = "correct the conninfo or the password, or what the server lets in (pg_hba.conf, roles)"
ADVICE: Mapping[str, str] = {
    "could not access file": "install the library there, or take it out of session_preload_libraries or"
    " local_preload_libraries: ALTER DATABASE ... RESET, ALTER ROLE ... RESET",
    "no password supplied": "give it by password = { env = ... } or { file = ... }, or in a .pgpass that"
    " only its owner can read (chmod 600), else libpq passes over it",
    "channel binding": "connect by TLS to a server with SCRAM passwords, or take channel_binding out",
    "authentication method requirement": "change require_auth, or how the server asks (pg_hba.conf)",
    "unrecognized configuration parameter": "correct PGOPTIONS, or options= in the conninfo",
    "invalid value for parameter": "correct PGOPTIONS, PGTZ, PGDATESTYLE or PGCLIENTENCODING, or options= and"
    " client_encoding= in the conninfo",
    "conversion between": "no client of this encoding is supported; dump it with pg_dump alone",
}
"""What to do when the greeting is refused for a reason that won't heal, by words of the server's."""

FATAL_FOR_GOOD = (
    "authentication failed",
    "does not exist",
    "no pg_hba.conf entry",
    "pg_hba.conf rejects",
    "certificate",
    "does not support SSL",
    "is not currently accepting connections",
    "definition of service",
    "service file",
    'value: "',
    "invalid integer value",
    "invalid port number",
    "not permitted to log in",
    "permission denied for database",
    *ADVICE,
)
"""Words of a refusal that is not worth another try."""

_PREFIX = re.compile(r"^connection (?:failed|is bad): ")
_PG_CATALOG = re.compile(r'(?<![^\s,])"?pg_catalog"?(?![^\s,])')


def session_settings(
    version: int, statement_timeout_s: float, lock_timeout_s: float, others: Mapping[str, str]
) -> dict[str, str]:
    """Return what a session of ours is set to; `others` go before what is only a default of ours.

    Args:
        version: The server's, as a number.
        statement_timeout_s: 0 means none.
        lock_timeout_s: Likewise.
        others: Wanted for the work at hand.
    """
    wanted = {
        "statement_timeout": f"{math.ceil(statement_timeout_s * 1000)}",
        "lock_timeout": f"{math.ceil(lock_timeout_s * 1000)}",
        **SESSION,
        **others,
    }
    if version >= 140000:
        wanted.setdefault("client_connection_check_interval", "2s")
        wanted.setdefault("idle_session_timeout", "0")  # a session that holds a lock is silent for hours
    if version >= 170000:
        wanted.setdefault("transaction_timeout", "0")  # statement_timeout is what fits the job
    return wanted


def with_catalog_first(search_path: str) -> str | None:
    """Return the path with PostgreSQL's own schema first; None where it is so already.

    It is unless it is named: behind another schema, whose tables and functions would be taken for its own.
    """
    named = _PG_CATALOG.search(search_path)
    return None if named is None or named.start() == 0 else f"pg_catalog, {search_path}"


def advice(refusal: str) -> str | None:
    """Return what to do about a connection that was refused for good; None where it may heal."""
    if "starting up" in refusal or not any(words in refusal for words in FATAL_FOR_GOOD):
        return None
    return next((fix for words, fix in ADVICE.items() if words in refusal), REFUSED)


def in_one_line(text: str) -> str:
    """Return what libpq says of a connection, each thing once: where TLS is preferred it fails twice."""
    lines = (_PREFIX.sub("", line.strip()) for line in text.splitlines())
    return " ".join(" ".join(dict.fromkeys(lines)).split())
