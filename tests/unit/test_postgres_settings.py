from __future__ import annotations

import pytest

from pgsteward.postgres_settings import advice, in_one_line


def test_what_libpq_says_twice_is_said_once() -> None:
    """With sslmode=prefer it tries with TLS and without, and fails twice in the same words."""
    line = 'connection to server at "127.0.0.1", port 5432 failed: FATAL:  password authentication failed'
    assert in_one_line(f"connection failed: {line}\n{line}") == line.replace("  ", " ")
    assert in_one_line('connection is bad: invalid port number: "x"\n') == 'invalid port number: "x"'
    assert in_one_line("a\nb\na") == "a b"


@pytest.mark.parametrize(
    ("refusal", "todo"),
    [
        ("fe_sendauth: no password supplied", "chmod 600"),
        ("channel binding required but not supported by server's authentication request", "channel_binding"),
        (
            'authentication method requirement "scram-sha-256" failed: server requested a hashed',
            "require_auth",
        ),
        ('FATAL: unrecognized configuration parameter "nonsense"', "PGOPTIONS"),
        ('FATAL: invalid value for parameter "TimeZone": "Nowhere/Land"', "PGTZ"),
        ('FATAL: password authentication failed for user "a"', "password"),
    ],
)
def test_what_will_not_heal_is_refused_for_good_with_what_to_do(refusal: str, todo: str) -> None:
    """Taken for an outage it would be tried again all night."""
    assert todo in (advice(refusal) or "")


def test_what_may_heal_is_not_refused_for_good() -> None:
    for outage in ("Connection refused", "timeout expired", "FATAL: the database system is starting up"):
        assert advice(outage) is None
