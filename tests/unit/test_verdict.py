"""pg_restore's messages: the command beside an error decides what it means."""

from __future__ import annotations

import random

import pytest

from pgsteward.restore.verdict import Listener, judge_messages, shows_damage

ROLE = """\
pg_restore: creating TABLE "public.Order Lines"
pg_restore: while PROCESSING TOC:
pg_restore: from TOC entry 217; 1259 16388 TABLE Order Lines app owner
pg_restore: error: could not execute query: ERROR:  role "app owner" does not exist
Command was: ALTER TABLE public."Order Lines" OWNER TO "app owner";


pg_restore: warning: errors ignored on restore: 1
"""


def judged(command: str, reason: str = "nope", entry: str = "215; 1259 16389 TABLE jobs app") -> str:
    text = f"""\
pg_restore: while PROCESSING TOC:
pg_restore: from TOC entry {entry}
pg_restore: error: could not execute query: ERROR:  {reason}
Command was: {command}

pg_restore: warning: errors ignored on restore: 1
"""
    verdict = judge_messages(text.splitlines())
    assert verdict.finished
    (finding,) = verdict.findings
    return finding.weight


@pytest.mark.parametrize(
    "command, weight",
    [
        pytest.param("CREATE SCHEMA public;", "benign", id="public-is-always-there"),
        pytest.param("COMMENT ON EXTENSION pgcrypto IS 'x';", "benign", id="comment-of-an-extension"),
        pytest.param("SET transaction_timeout = 0;", "benign", id="older-server-lacks-a-timeout"),
        pytest.param(
            "SET default_table_access_method = columnar;", "fatal", id="a-setting-with-consequences"
        ),
        pytest.param("COMMENT ON TABLE public.jobs IS 'x';", "degraded", id="comment"),
        pytest.param("GRANT SELECT ON TABLE public.jobs TO app_ro;", "degraded", id="grant"),
        pytest.param("REVOKE ALL ON SCHEMA public FROM x;", "degraded", id="revoke"),
        pytest.param(
            "ALTER DEFAULT PRIVILEGES FOR ROLE a IN SCHEMA s GRANT ALL ON TABLES TO b;",
            "degraded",
            id="defaults",
        ),
        pytest.param('ALTER TABLE public."Order Lines" OWNER TO app;', "degraded", id="owner"),
        pytest.param("REFRESH MATERIALIZED VIEW public.stats;", "degraded", id="matview"),
        pytest.param("CREATE TABLE public.jobs (id integer);", "fatal", id="table"),
        pytest.param("CREATE INDEX i ON public.jobs USING btree (id);", "fatal", id="index"),
        pytest.param(
            "ALTER TABLE ONLY public.jobs ADD CONSTRAINT fk FOREIGN KEY (a) REFERENCES b(c);",
            "fatal",
            id="fk",
        ),
        pytest.param("CREATE POLICY p ON public.jobs TO gone USING (true);", "fatal", id="policy"),
        pytest.param("CREATE EXTENSION IF NOT EXISTS postgis WITH SCHEMA public;", "fatal", id="extension"),
        pytest.param("SELECT pg_catalog.setval('public.s', 7, true);", "fatal", id="sequence-position"),
        pytest.param("DO $$ GRANT $$;", "fatal", id="what-is-not-known-is-fatal"),
    ],
)
def test_a_message_is_judged_by_the_command_beside_it(command: str, weight: str) -> None:
    assert judged(command) == weight


def test_the_language_of_the_server_does_not_matter() -> None:
    assert judged("CREATE SCHEMA public;", "Schema »public« existiert bereits") == "benign"


def test_a_missing_role_is_named_with_the_remedy() -> None:
    (finding,) = judge_messages(ROLE.splitlines(), ["owner", "app owner"]).degraded
    assert finding.object == "TABLE public.Order Lines"
    assert 'role "app owner" does not exist' in finding.reason
    assert "create the role app owner" in finding.reason


def test_what_nobody_owns_is_named_without_an_owner() -> None:
    text = (
        "pg_restore: from TOC entry 2; 3079 16400 EXTENSION pgstattuple (no owner)\n"
        "pg_restore: error: could not execute query: ERROR:  permission denied to create extension\n"
        "Command was: CREATE EXTENSION IF NOT EXISTS pgstattuple WITH SCHEMA public;\n"
    )
    (finding,) = judge_messages(text.splitlines()).fatal
    assert str(finding).startswith("EXTENSION pgstattuple: permission denied")


def test_rows_that_could_not_be_copied_are_fatal_and_named() -> None:
    text = """\
pg_restore: while PROCESSING TOC:
pg_restore: processing data for table "odd.jobs"
pg_restore: processing data for table "public.jobs"
pg_restore: from TOC entry 3345; 0 16391 TABLE DATA jobs app
pg_restore: error: COPY failed for table "jobs": ERROR:  invalid input syntax for type integer: "x"
CONTEXT:  COPY jobs, line 1, column id: "x"
pg_restore: warning: errors ignored on restore: 1
"""
    (finding,) = judge_messages(text.splitlines()).fatal
    assert finding.object == "TABLE DATA public.jobs"
    assert "line 1" in finding.reason


def test_a_table_is_told_from_its_namesakes_by_the_archives_list() -> None:
    text = """\
pg_restore: processing data for table "one two.jobs"
pg_restore: processing data for table "public.jobs"
pg_restore: from TOC entry 3345; 0 16391 TABLE DATA jobs app
pg_restore: error: COPY failed for table "jobs": ERROR:  new row violates check constraint "c"
pg_restore: warning: errors ignored on restore: 1
"""
    for listed, named in (
        ("TABLE DATA one two jobs app", "TABLE DATA one two.jobs"),
        ("TABLE DATA - jobs app", "TABLE DATA public.jobs"),
    ):
        listener = Listener(["app"], {3345: listed})
        for line in text.splitlines():
            listener.hear(line)
        (finding,) = listener.verdict().fatal
        assert finding.object == named
        assert "reads other tables" in finding.reason


def test_rows_that_an_extension_makes_as_well_are_told_as_its_limit() -> None:
    text = """\
pg_restore: from TOC entry 9; 0 11 TABLE DATA kept app
pg_restore: error: COPY failed for table "kept": ERROR:  duplicate key value violates unique constraint "k"
DETAIL:  Key (id)=(1) already exists.
CONTEXT:  COPY kept, line 1
pg_restore: warning: errors ignored on restore: 1
"""
    (finding,) = judge_messages(text.splitlines()).fatal
    assert "exclude_table_data" in finding.reason


def test_an_extension_that_its_server_refuses_is_no_fault_of_the_originals_rows() -> None:
    text = """\
pg_restore: from TOC entry 2; 3079 17091 EXTENSION pg_cron (no owner)
pg_restore: error: could not execute query: ERROR:  unrecognized configuration parameter "cron.database_name"
CONTEXT:  PL/pgSQL function inline_code_block line 3 at IF
Command was: CREATE EXTENSION IF NOT EXISTS pg_cron WITH SCHEMA pg_catalog;

pg_restore: warning: errors ignored on restore: 1
"""
    (finding,) = judge_messages(text.splitlines()).fatal
    assert "shared_preload_libraries" in finding.reason
    assert "original" not in finding.reason


def test_what_only_newer_minor_releases_know_is_told_with_the_way_out() -> None:
    text = """\
pg_restore: from TOC entry 215; 1259 16389 TABLE jobs app
pg_restore: error: could not execute query: ERROR:  unrecognized parameter "pg_attver"
Command was: CREATE TABLE public.jobs (id integer);
ALTER TABLE ONLY public.jobs ALTER COLUMN id SET (pg_attver=40833320);

pg_restore: warning: errors ignored on restore: 1
"""
    (finding,) = judge_messages(text.splitlines()).fatal
    assert "restore into one of that release or newer" in finding.reason
    assert "the client of that release" in finding.reason


def test_a_materialized_view_that_stays_empty_is_named_as_sql_writes_it() -> None:
    text = """\
pg_restore: from TOC entry 9; 0 1 MATERIALIZED VIEW DATA Stats of jobs app
pg_restore: error: could not execute query: ERROR:  relation "jobs" does not exist
LINE 1: SELECT count(*) FROM jobs
QUERY:  SELECT count(*) FROM jobs
Command was: REFRESH MATERIALIZED VIEW "Odd"."Stats of jobs";
pg_restore: warning: errors ignored on restore: 1
"""
    verdict = judge_messages(text.splitlines())
    assert verdict.empty_matviews == {'"Odd"."Stats of jobs"'}
    assert "REFRESH it" in verdict.degraded[0].reason


def test_errors_of_workers_are_counted_twice_by_pg_restore() -> None:
    lines = ROLE.replace("on restore: 1", "on restore: 2").splitlines()
    assert judge_messages(lines).fatal == ()


def test_an_error_that_was_counted_but_not_read_is_fatal() -> None:
    (finding,) = judge_messages(["pg_restore: warning: errors ignored on restore: 3"]).fatal
    assert "3 errors" in finding.reason


def test_messages_of_two_workers_that_mix_name_both_objects() -> None:
    text = """\
pg_restore: from TOC entry 1; 0 11 TABLE DATA jobs app
pg_restore: from TOC entry 2; 0 12 TABLE DATA users app
pg_restore: error: COPY failed for table "jobs": ERROR:  disk full
pg_restore: error: COPY failed for table "users": ERROR:  disk full
pg_restore: warning: errors ignored on restore: 2
"""
    verdict = judge_messages(text.splitlines())
    assert len(verdict.fatal) == 2
    assert all("TABLE DATA jobs" in f.object and "TABLE DATA users" in f.object for f in verdict.fatal)


TORN = (
    [
        "pg_restore:",
        " ",
        "error: ",
        'could not execute query: ERROR:  unrecognized "t"\nCommand was: SET t = 0;\n\n',
    ],
    ["pg_restore:", " ", 'creating TABLE "public.jobs"\n'],
    ["pg_restore:", " ", "from TOC entry 4; 0 16401 TABLE DATA jobs app\n"],
    [
        "pg_restore:",
        " ",
        "error: ",
        "could not execute query: ERROR:  gone\nCommand was: CREATE TABLE x (a\n int);\n",
    ],
    ["pg_restore:", " ", "finished item 3471 TABLE DATA sessions\n"],
    ["pg_restore:", " ", "error: ", 'COPY failed for table "jobs": ERROR:  disk full\n'],
)


def test_lines_that_workers_tore_apart_are_put_together_again() -> None:
    for seed in range(300):
        chosen = random.Random(seed)
        workers = [[p for message in chosen.sample(TORN, len(TORN)) for p in message] for _ in range(3)]
        written = ""
        while workers := [pieces for pieces in workers if pieces]:
            written += chosen.choice(workers).pop(0)
        written += "pg_restore: warning: errors ignored on restore: 9\n"
        verdict = judge_messages(written.splitlines())
        reasons = [finding.reason for finding in verdict.findings]
        said = [sum(word in reason for reason in reasons) for word in ("unrecognized", "gone", "disk full")]
        assert (said, len(reasons), verdict.finished) == ([3, 3, 3], 9, True), written


def test_a_torn_line_of_another_worker_is_no_error() -> None:
    text = """\
pg_restore: from TOC entry 3; 1259 16390 SEQUENCE users_id_seq app
pg_restore: error: pg_restore: finished item 3471 TABLE DATA sessions
could not execute query: ERROR:  unrecognized configuration parameter "transaction_timeout"
Command was: SET transaction_timeout = 0;

pg_restore: warning: errors ignored on restore: 1
"""
    (finding,) = judge_messages(text.splitlines()).findings
    assert (finding.weight, finding.object) == ("benign", "setting transaction_timeout")


def test_an_error_without_its_text_is_fatal() -> None:
    (finding,) = judge_messages(["pg_restore: error: pg_restore: finished item 1 TABLE DATA x"]).fatal
    assert "could not be read" in finding.reason


def test_commands_of_several_lines_are_read_as_one() -> None:
    text = """\
pg_restore: from TOC entry 1; 0 11 ACL TABLE jobs app
pg_restore: error: could not execute query: ERROR:  nope
Command was: GRANT SELECT
  ON TABLE public.jobs
  TO x;
pg_restore: warning: errors ignored on restore: 1
"""
    assert len(judge_messages(text.splitlines()).degraded) == 1


def test_silence_is_no_finding_and_an_abort_is_not_an_end() -> None:
    assert judge_messages([]).findings == ()
    assert not judge_messages(["pg_restore: error: connection to server was lost"]).finished
    assert judge_messages(["pg_restore: error: connection to server was lost"]).fatal


def test_warnings_are_told() -> None:
    (finding,) = judge_messages(["pg_restore: warning: restoring tables WITH OIDS is not supported"]).degraded
    assert "OIDS" in finding.reason


@pytest.mark.parametrize(
    "said, damaged",
    [
        ("pg_restore: error: could not read from input file: end of file", True),
        ("pg_restore: error: could not decompress data: Unknown frame descriptor", True),
        ('TABLE DATA public.t: COPY failed for table "t": invalid input syntax for type integer: "x"', True),
        ('COPY failed for table "a ""b""": ERROR:  missing data for column "c"', True),
        ('COPY failed for table "t": could not extend file "base/5/16384": No space left on device', False),
        ('COPY failed for table "t": konnte Datei nicht erweitern: Auf dem Gerät ist kein Platz', False),
        ('COPY failed for table "t": canceling statement due to user request', False),
        ('EXTENSION e: permission denied to create extension "e"; HINT: Must be superuser', False),
        ("DEFAULT public.t: invalid input syntax for type integer", False),
    ],
)
def test_only_words_about_the_archive_or_its_rows_are_a_sign_of_damage(said: str, damaged: bool) -> None:
    assert shows_damage(said) is damaged
