"""Session cleanup against a real server."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from pgsteward.errors import ConfigError, PreconditionError
from pgsteward.postgres import operation_lock
from pgsteward.sessions import clean_sessions
from tests.integration.backup_targets import make_target
from tests.integration.maintenance import temporary_role
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


def test_nothing_configured_is_skipped_not_ok(database: Database, tmp_path: Path) -> None:
    assert clean_sessions(make_target(database, tmp_path)).status == "skipped"


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
    target = make_target(
        database, tmp_path, sessions=({"table": '"My ""App"""."log, old"', "expires": "valid till"},)
    )
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


@pytest.mark.parametrize(("unit", "factor"), [("s", 1), ("ms", 1000)])
def test_numbers_count_in_their_unit(database: Database, tmp_path: Path, unit: str, factor: int) -> None:
    with database.connect() as connection:
        connection.execute("CREATE TABLE sessions (who text, expires bigint)")
        connection.execute(
            "INSERT INTO sessions VALUES ('lives', (extract(epoch FROM now()) + 60) * %(factor)s),"
            " ('expired', (extract(epoch FROM now()) - 60) * %(factor)s), ('never', NULL)",
            {"factor": factor},
        )
    target = make_target(database, tmp_path, sessions=({**SESSIONS[0], "unit": unit},))
    assert clean_sessions(target).as_json()["rows"] == 1
    assert {row["who"] for row in database.rows("SELECT who FROM sessions")} == {"lives", "never"}


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


def test_a_row_that_stays_locked_is_named_and_the_rest_goes(database: Database, tmp_path: Path) -> None:
    fill(database)
    target = make_target(database, tmp_path, sessions=({**SESSIONS[0], "batch_pages": 50},))
    with database.connect(purpose="the application", autocommit=False) as holder:
        holder.rows("SELECT * FROM sessions WHERE ctid = '(0,1)' FOR UPDATE")
        found = clean_sessions(target).as_json()
    assert found["status"] == "partial"
    (note,) = found["failed"]
    assert note["object"] == "public.sessions"
    assert "50 of" in note["reason"]
    assert "the application" in note["reason"]
    assert 0 < found["rows"] < 14_000
    assert clean_sessions(target).as_json()["rows"] == 14_000 - found["rows"]


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
            until = time.monotonic() + 60
            while not watch.value(waits):
                assert cleaner.is_alive()
                assert time.monotonic() < until
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
