from __future__ import annotations

import resource
import sys
from pathlib import Path

import pytest

from pgsteward.backup.dump_errors import as_dump_error, explained, gist
from pgsteward.backup.lock_watch import GivenWay, LockWatch, Waiter
from pgsteward.backup.snapshot_dump import _give_way
from pgsteward.backup.stream_dump import ArchiveHead
from pgsteward.clients import Client
from pgsteward.errors import StoreUnavailable, ToolFailed, TransientError
from pgsteward.pgtools import start_tool
from pgsteward.postgres import Login

CUT = """pg_dump ended with status 1: pg_dump: warning: there are circular foreign-key constraints
pg_dump: error: Dumping the contents of table "big" failed: PQgetCopyData() failed.
pg_dump: detail: Error message from server: server closed the connection unexpectedly
\tThis probably means the server terminated abnormally
\tbefore or while processing the request.
pg_dump: detail: Command was: COPY public.big (id,
 filler) TO stdout;
pg_dump: error: a worker process died unexpectedly"""


@pytest.mark.parametrize(
    ("said", "short"),
    [
        pytest.param(
            CUT,
            'pg_dump ended with status 1: Dumping the contents of table "big" failed: PQgetCopyData() failed.'
            " Error message from server: server closed the connection unexpectedly",
            id="without-statement-and-guesses",
        ),
        pytest.param(
            "pg_dump ended with status 1: pg_dump: error: query failed: ERROR:  canceling statement\n"
            "pg_dump: detail: Query was: LOCK TABLE t",
            "pg_dump ended with status 1: query failed: ERROR:  canceling statement",
            id="the-first-line-keeps-who-said-it",
        ),
        pytest.param(
            "pg_dump ended with status 1: pg_dump: warning: odd\nand more",
            "pg_dump ended with status 1: warning: odd; and more",
            id="a-warning-is-all-there-is",
        ),
        pytest.param("one\none", "one", id="once-is-enough"),
        (
            "pg_dump ended with status 1: pg_dump: error: connection failed: FATAL:  too many clients\n"
            "pg_dump:connection failed: FATAL:  too many clients\n"
            "error: a worker process died unexpectedly",
            "pg_dump ended with status 1: connection failed: FATAL:  too many clients",
        ),
    ],
)
def test_the_gist_of_what_a_tool_said_is_one_line(said: str, short: str) -> None:
    assert gist(said) == short


def test_a_limit_on_file_sizes_is_our_error_where_contents_are_kept_in_memory() -> None:
    """Linux counts files in memory too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with ArchiveHead(Client(Path("/nowhere"), (17, 0))) as head:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2, hard))
        try:
            with pytest.raises(ToolFailed, match="can't be kept in memory: File too large"):
                head.feed(b"abc")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_row_that_is_too_wide_is_told_from_other_failures() -> None:
    said = (
        'pg_dump ended with status 1: pg_dump: error: Dumping the contents of table "big" failed:'
        " PQgetResult() failed.\npg_dump: detail: Error message from server: ERROR:  invalid memory alloc"
        " request size 1073741829\npg_dump: detail: Command was: COPY public.big (id, b) TO stdout;"
    )
    text = explained(said, LockWatch(Login("dbname=x"), None), Path("/nowhere"))
    assert 'table "big"' in text
    assert "wider than the 1 GB" in text
    assert "exclude_table_data" in text


def test_a_dump_that_has_ended_gives_way_to_nobody() -> None:
    watch = LockWatch(Login("dbname=x"), 1.0)
    watch._impatient = Waiter(1, "bob", "psql", "t", 2.0)
    with start_tool([sys.executable, "-c", "input()"], env={}) as tool, pytest.raises(GivenWay):
        _give_way(tool, watch)
    with start_tool([sys.executable, "-c", ""], env={}) as tool:
        tool.wait()
        _give_way(tool, watch)


@pytest.mark.parametrize(
    ("said", "kind", "what_to_do"),
    [
        pytest.param(
            "pg_dump ended with status 1: pg_dump: error: query failed: ERROR:  cache lookup failed for 7",
            TransientError,
            "run the backup again",
            id="dropped-while-it-was-looked-up",
        ),
        pytest.param(
            'pg_dump ended with status 1: pg_dump: error: connection to server at "db", port 5432 failed:'
            ' FATAL:  password authentication failed for user "b"',
            ToolFailed,
            "correct the conninfo or the password",
            id="refused-login",
        ),
        pytest.param(
            'pg_dump ended with status 1: pg_dump: error: connection to server at "db", port 5432 failed:'
            " FATAL:  the database system is starting up",
            TransientError,
            "run the backup again",
            id="server-is-starting",
        ),
    ],
)
def test_what_may_heal_is_told_from_what_will_not(said: str, kind: type[Exception], what_to_do: str) -> None:
    watch = LockWatch(Login("dbname=x"), None)
    with pytest.raises(kind, match=what_to_do), as_dump_error(watch, Path("/nowhere")):
        raise ToolFailed(said)


def test_what_a_store_says_gets_no_advice_about_postgresql() -> None:
    watch = LockWatch(Login("dbname=x"), None)
    said = "store s3: connection refused"
    with pytest.raises(StoreUnavailable) as raised, as_dump_error(watch, Path("/nowhere")):
        raise StoreUnavailable(said)
    assert str(raised.value) == said
