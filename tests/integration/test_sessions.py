"""Session cleanup against a real server."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from pgsteward.errors import ConfigError, PreconditionError
from pgsteward.postgres import Login, compose, identifier, raw
from pgsteward.postgres_lock import operation_lock
from pgsteward.session_pace import Watch
from pgsteward.sessions import clean_sessions
from tests.integration.backup_targets import make_target
from tests.integration.maintenance import standby, temporary_role
from tests.servers import Database

SESSIONS = ({"table": "public.sessions", "expires": "expires"},)


def fill(database: Database, rows: int = 20_000) -> int:
    """Make a table of sessions, 70 % of them expired; return how many live."""
    with database.connect() as connection:
        connection.execute("CREATE TABLE sessions (id uuid PRIMARY KEY, token text, expires timestamptz)")
        connection.execute("CREATE INDEX ON sessions (expires)")
        connection.execute(
            "INSERT INTO sessions SELECT gen_random_uuid(), md5(i::text),"
            "       now() + CASE WHEN i %% 10 < 7 THEN -1 ELSE 1 END * make_interval(mins => 1 + i)"
            "  FROM generate_series(1, %(rows)s) AS i",
            {"rows": rows},
        )
    return int(database.value("SELECT count(*) FROM sessions WHERE expires > now()"))


def test_expired_rows_go_and_all_others_stay(database: Database, tmp_path: Path) -> None:
    live = fill(database)
    database.execute("INSERT INTO sessions VALUES (gen_random_uuid(), 'never', NULL)")
    database.execute("INSERT INTO sessions VALUES (gen_random_uuid(), 'never', 'infinity')")
    target = make_target(database, tmp_path, sessions=({**SESSIONS[0], "batch_pages": 20},))

    found = clean_sessions(target).as_json()

    assert found["status"] == "ok"
    assert found["rows"] == 14_000
    (item,) = found["changed"]
    assert (item["object"], item["action"], item["rows"]) == ("public.sessions", "deleted", 14_000)
    assert item["batches"] > 5
    assert item["longest_batch_ms"] < 1000
    assert database.value("SELECT count(*) FROM sessions") == live + 2
    assert "returns it to the disk" in found["summary"]


def test_a_dry_run_counts_exactly_what_the_run_then_deletes(database: Database, tmp_path: Path) -> None:
    fill(database)
    target = make_target(database, tmp_path, sessions=SESSIONS)

    dry = clean_sessions(target, dry_run=True).as_json()
    assert dry["dry_run"]
    assert dry["changed"][0]["action"] == "would delete"
    assert database.value("SELECT count(*) FROM sessions") == 20_000

    assert clean_sessions(target).as_json()["rows"] == dry["rows"] == 14_000
    assert clean_sessions(target).as_json()["rows"] == 0


@pytest.mark.any_server
def test_nothing_configured_is_skipped_not_ok(database: Database, tmp_path: Path) -> None:
    found = clean_sessions(make_target(database, tmp_path)).as_json()
    assert found["status"] == "skipped"
    nothing: dict[str, object] = {"rows": 0, "cascaded_rows": 0, "cutoff": None, "cleanups": []}
    assert found.items() >= nothing.items()


def test_partitions_and_odd_names_are_walked_leaf_by_leaf(database: Database, tmp_path: Path) -> None:
    with database.connect() as connection:
        connection.execute('CREATE SCHEMA "My ""App"""')
        connection.execute(
            'CREATE TABLE "My ""App"""."log, old" ("valid till" timestamptz, day int) PARTITION BY LIST (day)'
        )
        connection.execute(
            'CREATE TABLE "My ""App"""."one ""}{" PARTITION OF "My ""App"""."log, old" FOR VALUES IN (1)'
            " PARTITION BY LIST (day)"
        )
        connection.execute('CREATE TABLE deep PARTITION OF "My ""App"""."one ""}{" FOR VALUES IN (1)')
        connection.execute('CREATE TABLE two PARTITION OF "My ""App"""."log, old" FOR VALUES IN (2)')
        connection.execute(
            'INSERT INTO "My ""App"""."log, old"'
            " SELECT now() - interval '1 day' * mod(i, 2), 1 + mod(i, 2) FROM generate_series(1, 1000) AS i"
        )
    table = {"table": '"My ""App"""."log, old"', "expires": "valid till", "max_share": 1.0}
    target = make_target(database, tmp_path, sessions=(table,))
    found = clean_sessions(target).as_json()
    assert found["status"] == "ok"
    assert found["examined"] == 2
    assert database.value('SELECT count(*) FROM "My ""App"""."log, old"') == 0


def test_a_timestamp_counts_in_its_own_time_zone(database: Database, tmp_path: Path) -> None:
    with database.connect() as connection:
        connection.execute("CREATE TABLE sessions (who text, expires timestamp)")
        connection.execute(
            "INSERT INTO sessions VALUES"
            " ('lives', (now() + interval '30 min') AT TIME ZONE 'Pacific/Auckland'),"
            " ('expired', (now() - interval '30 min') AT TIME ZONE 'Pacific/Auckland'),"
            " ('never', 'infinity')"
        )
    target = make_target(database, tmp_path, sessions=({**SESSIONS[0], "time_zone": "Pacific/Auckland"},))
    assert clean_sessions(target).as_json()["rows"] == 1
    assert {row["who"] for row in database.rows("SELECT who FROM sessions")} == {"lives", "never"}


@pytest.mark.parametrize(
    ("type_name", "unit", "factor"),
    [
        ("bigint", "s", 1),
        ("bigint", "ms", 1000),
        ("numeric", "us", 1_000_000),
        ("double precision", "s", 1),
    ],
)
def test_numbers_count_in_their_unit(
    database: Database, tmp_path: Path, type_name: str, unit: str, factor: int
) -> None:
    with database.connect() as connection:
        connection.execute(compose("CREATE DOMAIN moment AS {}", raw(type_name)))
        connection.execute("CREATE DOMAIN expiry AS moment")
        connection.execute("CREATE TABLE sessions (who text, expires expiry)")
        connection.execute(
            "INSERT INTO sessions VALUES ('lives', (extract(epoch FROM now()) + 60) * %(factor)s),"
            " ('expired', (extract(epoch FROM now()) - 60) * %(factor)s), ('never', NULL)",
            {"factor": factor},
        )
    target = make_target(database, tmp_path, sessions=({**SESSIONS[0], "unit": unit},))
    assert clean_sessions(target).as_json()["rows"] == 1
    assert {row["who"] for row in database.rows("SELECT who FROM sessions")} == {"lives", "never"}


def test_numbers_of_another_unit_are_not_called_ok(database: Database, tmp_path: Path) -> None:
    database.execute(
        "CREATE TABLE sessions AS SELECT extract(epoch FROM now())::int8 * 1000 - 60000 AS expires"
    )
    target = make_target(database, tmp_path, sessions=({**SESSIONS[0], "unit": "s"},))
    found = clean_sessions(target)
    assert found.status == "partial"
    assert "its unit is too large" in found.unknown[0].reason
    target = make_target(database, tmp_path, sessions=({**SESSIONS[0], "unit": "ms", "max_share": 1.0},))
    assert clean_sessions(target).as_json()["rows"] == 1


def test_a_date_lives_until_its_day_is_over_in_its_own_time_zone(database: Database, tmp_path: Path) -> None:
    with database.connect() as connection:
        connection.execute("CREATE TABLE sessions (who text, expires date)")
        connection.execute(
            "INSERT INTO sessions SELECT 'day ' || d, (now() AT TIME ZONE 'Pacific/Kiritimati')::date + d"
            "  FROM generate_series(-2, 1) AS d"
        )
        connection.execute("INSERT INTO sessions VALUES ('never', 'infinity'), ('last', '5874897-12-31')")
    target = make_target(database, tmp_path, sessions=({**SESSIONS[0], "time_zone": "Pacific/Kiritimati"},))
    assert clean_sessions(target).as_json()["rows"] == 2
    left = {row["who"] for row in database.rows("SELECT who FROM sessions")}
    assert left == {"day 0", "day 1", "never", "last"}


@pytest.mark.parametrize(
    ("before", "gone"),
    [
        # clocks in Rome go from 3:00 back to 2:00 at 01:00 UTC
        pytest.param("2025-10-26T00:45:00+00:00", {"01:59"}, id="the-hour-is-there-for-the-first-time"),
        pytest.param("2025-10-26T01:15:00+00:00", {"01:59"}, id="and-for-the-second-time"),
        pytest.param("2025-10-26T01:45:00+00:00", {"01:59", "02:30"}, id="now-it-is-over"),
        pytest.param("2025-10-26T02:15:00+00:00", {"01:59", "02:30", "03:10"}, id="after-it"),
    ],
)
def test_nobody_is_logged_out_early_when_clocks_go_back(
    database: Database, tmp_path: Path, before: str, gone: set[str]
) -> None:
    with database.connect() as connection:
        connection.execute("CREATE TABLE sessions (who text, expires timestamp)")
        for who in ("01:59", "02:30", "03:10"):
            connection.execute(
                "INSERT INTO sessions VALUES (%(who)s, ('2025-10-26 ' || %(who)s)::timestamp)", {"who": who}
            )
        connection.execute("INSERT INTO sessions VALUES ('end of time', '294276-12-31 23:59')")
    settings = {**SESSIONS[0], "time_zone": "Europe/Rome", "max_share": 1.0}
    target = make_target(database, tmp_path, sessions=(settings,))
    clean_sessions(target, before=datetime.fromisoformat(before))
    left = {row["who"] for row in database.rows("SELECT who FROM sessions")}
    assert left == {"01:59", "02:30", "03:10", "end of time"} - gone


def test_settings_of_the_role_change_nothing(database: Database, tmp_path: Path) -> None:
    live = fill(database)
    with temporary_role(database) as login:
        database.execute("GRANT SELECT, DELETE ON sessions TO PUBLIC")
        with database.connect() as admin:
            role = identifier(conninfo_to_dict(login.conninfo)["user"])  # type: ignore[arg-type]
            for setting in (
                "TimeZone TO 'Pacific/Kiritimati'",
                "DateStyle TO 'SQL, DMY'",
                "default_transaction_isolation TO 'serializable'",
                "enable_tidscan TO off",
                "search_path TO pg_temp, public, pg_catalog",
            ):
                admin.execute(compose("ALTER ROLE {} SET " + setting, role))
        assert clean_sessions(make_target(database, tmp_path, login=login, sessions=SESSIONS)).status == "ok"
    assert database.value("SELECT count(*) FROM sessions") == live


def test_grace_and_a_condition_keep_rows(database: Database, tmp_path: Path) -> None:
    with database.connect() as connection:
        connection.execute('CREATE TABLE sessions (id int, kind text, expires timestamptz, "50%" int)')
        connection.execute(
            "INSERT INTO sessions SELECT i, CASE WHEN i % 2 = 0 THEN 'web' ELSE 'api' END,"
            "       now() - make_interval(days => i), i FROM generate_series(0, 99) AS i"
        )
    where = """kind LIKE 'w%' AND "50%" % 4 = 0 OR kind = 'none'"""
    settings = {**SESSIONS[0], "grace": "10d", "where": where}
    target = make_target(database, tmp_path, sessions=(settings,))
    assert clean_sessions(target, dry_run=True).as_json()["rows"] == 22
    assert clean_sessions(target).as_json()["rows"] == 22
    assert database.value("SELECT count(*) FROM sessions WHERE kind = 'api' OR id < 11") == 56


@pytest.mark.parametrize(
    "where",
    [
        "token = 'a') OR (true",
        "true) OR (true",
        "true ORDER BY 1",
        "true; DELETE FROM sessions",
        "true -- and nothing else",
        "no_such_column = 1",
        "1",
        "SELECT true",
    ],
)
def test_what_is_not_one_condition_is_refused(database: Database, tmp_path: Path, where: str) -> None:
    fill(database, 100)
    target = make_target(database, tmp_path, sessions=({**SESSIONS[0], "where": where},))
    with pytest.raises(ConfigError, match="is not a condition"):
        clean_sessions(target)
    assert database.value("SELECT count(*) FROM sessions") == 100


@pytest.mark.any_server
def test_too_large_a_share_is_refused_unless_it_is_allowed(database: Database, tmp_path: Path) -> None:
    fill(database, 1000)
    database.execute("CREATE TABLE other AS TABLE sessions")
    refused = {**SESSIONS[0], "max_share": 0.69}
    target = make_target(database, tmp_path, sessions=(refused, {**SESSIONS[0], "table": "other"}))
    for dry_run in (True, False):
        found = clean_sessions(target, dry_run=dry_run)
        assert found.status == "partial"
        (note,) = found.failed
        assert note.object == "public.sessions"
        assert "700 of 1,000 rows (70.0%)" in note.reason
        assert "--yes" in note.reason
    assert database.value("SELECT count(*) FROM sessions") == 1000
    assert database.value("SELECT count(*) FROM other") == 300
    assert clean_sessions(target, yes=True).status == "ok"
    assert database.value("SELECT count(*) FROM sessions") == 300


@pytest.mark.any_server
def test_a_cutoff_in_the_future_and_a_table_off_the_list_are_refused(
    database: Database, tmp_path: Path
) -> None:
    live = fill(database, 1000)
    target = make_target(database, tmp_path, sessions=SESSIONS)
    with pytest.raises(PreconditionError, match="lies in the future"):
        clean_sessions(target, before=datetime.now(UTC) + timedelta(minutes=1))
    database.execute("CREATE TABLE users AS TABLE sessions")
    with pytest.raises(ConfigError, match="not among the tables"):
        clean_sessions(target, ["public.users"])
    assert database.value("SELECT count(*) FROM users") == 1000
    assert database.value("SELECT count(*) FROM sessions") == 1000

    clean_sessions(target, before=datetime.now(UTC) - timedelta(minutes=500))
    left = database.value("SELECT count(*) FROM sessions WHERE expires < now() - interval '8 hours 20 min'")
    assert left == 0
    assert database.value("SELECT count(*) FROM sessions") > live


@pytest.mark.any_server
def test_limits_hold_exactly_and_the_rest_is_named(database: Database, tmp_path: Path) -> None:
    fill(database)
    target = make_target(database, tmp_path, sessions=({**SESSIONS[0], "max_rows": 5_001},))
    assert clean_sessions(target, dry_run=True).as_json()["rows"] == 5_001
    found = clean_sessions(target)
    assert found.status == "ok"
    assert found.as_json()["rows"] == 5_001
    (note,) = found.skipped
    assert "max_rows = 5001 is reached" in note.reason
    assert "8,999 expired rows" in note.reason
    assert clean_sessions(target).as_json()["rows"] == 5_001
    assert clean_sessions(target).as_json()["rows"] == 3_998

    target = make_target(database, tmp_path, sessions=({**SESSIONS[0], "max_minutes": 1e-9},))
    (note,) = clean_sessions(target).skipped
    assert "max_minutes = 1e-09 are over" in note.reason


def test_everything_wrong_with_the_settings_is_said_before_a_row_goes(
    database: Database, tmp_path: Path
) -> None:
    fill(database)
    database.execute("CREATE TABLE naive (expires timestamp)")
    database.execute("CREATE TABLE epoch (expires bigint)")
    database.execute("CREATE TABLE text_ (expires text)")
    wrong = ("public.naive", "public.epoch", "public.text_", "public.nowhere")
    target = make_target(
        database,
        tmp_path,
        sessions=(*SESSIONS, *({"table": name, "expires": "expires"} for name in wrong)),
    )
    with pytest.raises(ConfigError) as caught:
        clean_sessions(target)
    message = str(caught.value)
    assert all(name in message for name in wrong)
    assert 'time_zone = "UTC"' in message
    assert 'unit = "ms"' in message
    assert database.value("SELECT count(*) FROM sessions") == 20_000


def test_a_row_that_stays_locked_is_named_and_all_others_go(database: Database, tmp_path: Path) -> None:
    fill(database)
    target = make_target(database, tmp_path, sessions=SESSIONS)
    with database.connect(purpose="the application", autocommit=False) as holder:
        holder.rows("SELECT FROM sessions WHERE expires < now() ORDER BY ctid LIMIT 3 FOR UPDATE")
        found = clean_sessions(target).as_json()
    assert found["status"] == "partial"
    (note,) = found["failed"]
    assert note["object"] == "public.sessions"
    assert "3 expired rows stay" in note["reason"]
    assert "the application" in note["reason"]
    assert found["rows"] == 13_997
    assert clean_sessions(target).as_json()["rows"] == 3


def test_without_the_right_to_lock_rows_the_range_stays_and_the_grant_is_named(
    database: Database, tmp_path: Path
) -> None:
    fill(database)
    with temporary_role(database) as login:
        database.execute("GRANT SELECT, DELETE ON sessions TO PUBLIC")
        table = {**SESSIONS[0], "batch_pages": 50}
        target = make_target(database, tmp_path, login=login, sessions=(table,))
        with database.connect(autocommit=False) as holder:
            holder.rows("SELECT FROM sessions WHERE ctid = '(0,1)' FOR UPDATE")
            found = clean_sessions(target).as_json()
        assert "GRANT UPDATE ON TABLE public.sessions" in found["failed"][0]["reason"]
        assert 0 < found["rows"] < 14_000
        assert clean_sessions(target).as_json()["rows"] == 14_000 - found["rows"]


def test_a_locked_table_is_given_up_with_who_holds_it_and_the_others_go_on(
    database: Database, tmp_path: Path
) -> None:
    fill(database)
    database.execute("CREATE TABLE aside AS TABLE sessions")
    target = make_target(database, tmp_path, sessions=(*SESSIONS, {**SESSIONS[0], "table": "aside"}))
    with database.connect(purpose="migration", autocommit=False) as holder:
        holder.execute("LOCK TABLE sessions IN EXCLUSIVE MODE")
        found = clean_sessions(target)
    assert found.status == "partial"
    assert "migration" in found.failed[0].reason
    assert [item.object for item in found.changed] == ["public.aside"]


def test_a_session_that_is_refreshed_meanwhile_survives(database: Database, tmp_path: Path) -> None:
    fill(database)
    target = make_target(database, tmp_path, sessions=SESSIONS)
    token = database.value("SELECT token FROM sessions WHERE ctid = '(0,1)' AND expires < now()")
    with database.connect(autocommit=False) as user:
        user.execute(
            "UPDATE sessions SET expires = now() + interval '1 day' WHERE token = %(token)s", {"token": token}
        )
        cleaner = threading.Thread(target=clean_sessions, args=(target,))
        cleaner.start()
        waits = (
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = 'pgsteward session cleanup' AND wait_event_type = 'Lock')"
        )
        with database.connect() as watch:
            while cleaner.is_alive() and not watch.value(waits):
                time.sleep(0.01)
        user.execute("COMMIT")
        cleaner.join()
    assert database.value("SELECT count(*) FROM sessions WHERE token = %(token)s", {"token": token}) == 1
    assert database.value("SELECT count(*) FROM sessions WHERE expires < now()") == 0


def test_missing_rights_and_hidden_rows_are_failures_with_the_way_out(
    database: Database, tmp_path: Path
) -> None:
    fill(database)
    with temporary_role(database) as login:
        role = login.conninfo.split("user='")[1].split("'")[0]
        target = make_target(database, tmp_path, login=login, sessions=SESSIONS)
        found = clean_sessions(target)
        assert found.status == "failed"
        assert f'GRANT SELECT, DELETE ON TABLE public.sessions TO "{role}"' in found.failed[0].reason

        database.execute("GRANT SELECT, DELETE ON sessions TO PUBLIC")
        database.execute("ALTER TABLE sessions ENABLE ROW LEVEL SECURITY")
        found = clean_sessions(target)
        assert found.status == "failed"
        assert "row-level security" in found.failed[0].reason

        database.execute("ALTER TABLE sessions DISABLE ROW LEVEL SECURITY")
        assert clean_sessions(target).as_json()["rows"] == 14_000


@pytest.mark.any_server
def test_two_cleanups_of_one_database_do_not_meet(database: Database, tmp_path: Path) -> None:
    fill(database, 100)
    target = make_target(database, tmp_path, sessions=SESSIONS)
    with (
        operation_lock(database.login, "sessions"),
        pytest.raises(PreconditionError, match="another sessions"),
    ):
        clean_sessions(target)


def test_the_walk_stays_fast_with_an_old_snapshot_and_a_uuid_key(database: Database, tmp_path: Path) -> None:
    assert any(_walk_is_fast(database, tmp_path) for _ in range(3))  # the machine is shared


def _walk_is_fast(database: Database, tmp_path: Path) -> bool:
    database.execute("DROP TABLE IF EXISTS sessions, twin")
    fill(database, 100_000)
    database.execute("CREATE TABLE twin AS SELECT * FROM sessions")
    database.execute("CREATE INDEX ON twin (id)")
    database.execute("CREATE INDEX ON twin (expires)")
    target = make_target(database, tmp_path, sessions=SESSIONS)
    with database.connect(autocommit=False) as old:
        old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        old.rows("SELECT 1")
        began = time.monotonic()
        database.execute("DELETE FROM twin WHERE expires < now()")
        single = time.monotonic() - began
        found = clean_sessions(target)
    item = found.changed[0]
    assert item.facts["rows"] == 70_000
    # 1.2 times on a quiet machine
    return bool(item.facts["seconds"] < 3 * single + 0.5 and item.facts["longest_batch_ms"] < 1000)


KILLED = """
import os, signal, sys
from pgsteward.session_walk import Walk
from pgsteward.sessions import clean_sessions
from pgsteward.targets import load_target

finish = Walk._attempt

def attempt(walk, span, pace, **options):
    outcome = finish(walk, span, pace, **options)
    if walk.tally.batches == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return outcome

Walk._attempt = attempt
clean_sessions(load_target("app"))
"""


def test_a_run_that_is_killed_between_batches_is_finished_by_the_next(
    database: Database, tmp_path: Path
) -> None:
    live = fill(database)
    target = make_target(database, tmp_path, sessions=({**SESSIONS[0], "batch_pages": 32},))
    file = config_file(tmp_path, database, sessions="batch_pages = 32")
    env = {**os.environ, "PGSTEWARD_CONFIG": str(file), "STEWARD_PASSWORD": database.password or ""}
    killed = subprocess.run([sys.executable, "-c", KILLED], env=env, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    left = database.value("SELECT count(*) FROM sessions") - live
    assert 0 < left < 14_000

    until = time.monotonic() + 60
    while True:  # the server may not have noticed yet that its client is gone
        try:
            found = clean_sessions(target).as_json()
            break
        except PreconditionError:
            assert time.monotonic() < until
            time.sleep(0.2)
    assert found["rows"] == left
    assert database.value("SELECT count(*) FROM sessions") == live


def config_file(folder: Path, database: Database, sessions: str) -> Path:
    """Write a configuration for a process of its own."""
    file = folder / "pgsteward.toml"
    file.write_text(
        f'[stores.disk]\nurl = "file://{folder}/store"\n[targets.app]\n'
        f'conninfo = {json.dumps(database.conninfo)}\nstores = ["disk"]\n'
        'password = { env = "STEWARD_PASSWORD" }\n[[targets.app.sessions]]\n'
        f'table = "public.sessions"\nexpires = "expires"\n{sessions}\n'
    )
    return file


def test_a_writer_that_refreshes_sessions_loses_no_live_one(database: Database, tmp_path: Path) -> None:
    fill(database, 60_000)
    database.execute("ALTER TABLE sessions ADD number int GENERATED ALWAYS AS IDENTITY")
    database.execute("CREATE UNIQUE INDEX ON sessions (number)")
    target = make_target(database, tmp_path, sessions=({**SESSIONS[0], "batch_ms": 10},))
    over = threading.Event()
    refreshed: set[int] = set()

    def refresh() -> None:
        """Use sessions again, as an application does: only one that still lives can be."""
        numbers = random.Random(1)
        with database.connect(lock_timeout_s=60) as user:
            while not over.is_set():
                number = numbers.randint(1, 60_000)
                done = user.execute(
                    "UPDATE sessions SET expires = now() + interval '1 day' WHERE number = %(number)s",
                    {"number": number},
                )
                if done:
                    refreshed.add(number)

    writers = [threading.Thread(target=refresh) for _ in range(2)]
    for writer in writers:
        writer.start()
    try:
        found = clean_sessions(target)
    finally:
        over.set()
        for writer in writers:
            writer.join()
    assert found.status == "ok"
    assert refreshed
    left = database.value("SELECT array_agg(number) FROM sessions WHERE expires > now()")
    assert refreshed <= set(left)
    assert database.value("SELECT count(*) FROM sessions WHERE expires < now()") == 0


def test_who_waits_for_the_cleanup_makes_it_pause(database: Database, tmp_path: Path) -> None:
    fill(database)
    with database.connect(autocommit=False) as work, Watch(database.login, work.backend_pid) as watch:
        assert not (watch.was_waited_for())
        work.execute("DELETE FROM sessions WHERE ctid = '(0,1)'")

        def wait_behind() -> None:
            with database.connect(lock_timeout_s=60) as user:
                user.execute("UPDATE sessions SET token = '' WHERE ctid = '(0,1)'")

        waiter = threading.Thread(target=wait_behind)
        waiter.start()
        until = time.monotonic() + 60
        while not watch.was_waited_for():
            assert time.monotonic() < until
            time.sleep(0.01)
        work.execute("ROLLBACK")
        waiter.join()


def test_a_cleanup_rests_most_of_the_time_while_others_write(database: Database, tmp_path: Path) -> None:
    fill(database, 1000)
    database.execute("CREATE TABLE elsewhere (id int)")
    database.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_sleep(0.05); RETURN NULL; END';"
        "CREATE TRIGGER slow AFTER DELETE ON sessions FOR EACH STATEMENT EXECUTE FUNCTION slow()"
    )
    target = make_target(database, tmp_path, sessions=SESSIONS)
    with database.connect(autocommit=False) as writer:
        writer.execute("INSERT INTO elsewhere VALUES (1)")
        (beside,) = clean_sessions(target).changed
    database.execute("UPDATE sessions SET expires = now() - interval '1 day'")
    (alone,) = clean_sessions(target, yes=True).changed
    assert beside.facts["rows"] == 700
    assert beside.facts["paused_s"] >= 0.2
    assert alone.facts["paused_s"] == 0


def test_a_replica_that_stays_behind_is_waited_for_and_then_named(database: Database, tmp_path: Path) -> None:
    table = {**SESSIONS[0], "max_replica_lag_bytes": 100_000, "max_minutes": 0.01}
    target = make_target(database, tmp_path, sessions=(table,))
    with standby(database):
        fill(database)
        found = clean_sessions(target)
        (note,) = found.skipped
        assert "replica 'standby two' stayed" in note.reason
        assert "14,000 expired rows" in note.reason
        assert database.value("SELECT count(*) FROM sessions") == 20_000
        with temporary_role(database) as login:
            database.execute("GRANT SELECT, DELETE ON sessions TO PUBLIC")
            found = clean_sessions(make_target(database, tmp_path, login=login, sessions=(table,)))
            (note,) = found.skipped
            assert "GRANT pg_read_all_stats" in note.reason
            assert found.as_json()["rows"] == 14_000


def test_a_replica_that_comes_up_lets_the_cleanup_go_on() -> None:
    watch = Watch(Login(""), 0, replica="standby", lag_bytes=10_000_000)
    threading.Timer(0.3, lambda: setattr(watch, "lag_bytes", 0)).start()
    assert (watch.wait_for_replicas(1_000_000, time.monotonic() + 60) or 0) > 0.2
