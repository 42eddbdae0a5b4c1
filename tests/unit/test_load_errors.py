"""What stopped pg_restore: a session that was lost, or a query that failed."""

from __future__ import annotations

import pytest

from pgsteward.restore.load_errors import session_lost
from pgsteward.restore.verdict import Finding, Verdict, judge_messages

ENTRY = "pg_restore: from TOC entry 2570; 0 16400 MATERIALIZED VIEW DATA z postgres"
COMMAND = "Command was: REFRESH MATERIALIZED VIEW public.z;"
CLOSED = (
    "server closed the connection unexpectedly",
    "\tThis probably means the server terminated abnormally",
    "\tbefore or while processing the request.",
)
ENDED = "terminating connection due to administrator command"


def heard(*lines: str) -> Verdict:
    return judge_messages([ENTRY, *lines, COMMAND])


@pytest.mark.parametrize(
    "lines",
    [
        (f"pg_restore: error: could not execute query: {CLOSED[0]}", *CLOSED[1:]),
        (f"pg_restore: error: could not execute query: FATAL:  {ENDED}", *CLOSED),
        ("pg_restore: error: could not execute query: no connection to the server",),
        ("pg_restore: error: could not execute query: SSL SYSCALL error: EOF detected",),
    ],
)
def test_a_view_whose_session_was_lost_is_no_view_that_can_not_be_filled(lines: tuple[str, ...]) -> None:
    assert session_lost(heard(*lines)) is not None


@pytest.mark.parametrize(
    "lines",
    [
        (f"pg_restore: error: could not execute query: ERROR:  {CLOSED[0]}", *CLOSED[1:], "CONTEXT:  remote"),
        (
            'pg_restore: error: could not execute query: ERROR:  could not connect to server "far"',
            f'DETAIL:  connection to server at "far", port 5432 failed: {CLOSED[0]}',
        ),
        ('pg_restore: error: could not execute query: ERROR:  relation "t" does not exist',),
    ],
)
def test_a_view_whose_own_query_lost_another_server_is(lines: tuple[str, ...]) -> None:
    verdict = heard(*lines)
    assert verdict.empty_matviews == {"public.z"}
    assert session_lost(verdict) is None


def test_a_row_that_mentions_it_is_none() -> None:
    assert session_lost(Verdict((Finding("degraded", "t", "comment not set: ERROR"),), finished=True)) is None
