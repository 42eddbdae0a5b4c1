"""Who is in the way of a dump, and in whose way a dump is; and the time limits that others have set."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from pgsteward.backup.dump import back_up
from pgsteward.postgres import compose, connect, identifier
from pgsteward.results import StepResult
from tests.faults.scene import BOTH, Outcome, Scene, cases, fault, play, until
from tests.integration.backup_targets import stored_manifest


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgsteward.backup.dump.PAUSES_S", (0.5, 0.5))


def is_waited_for(scene: Scene, table: str) -> bool:
    """Tell whether somebody waits for a table's ACCESS EXCLUSIVE lock."""
    return bool(
        scene.database.value(
            "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'"
            " AND relation = %(table)s::regclass)",
            {"table": table},
        )
    )


@contextmanager
def truncating(scene: Scene, table: str) -> Iterator[threading.Thread]:
    """TRUNCATE a table beside the block, which begins when that waits for its lock."""

    def work() -> None:
        with connect(scene.database.login, purpose="test", lock_timeout_s=0) as session:
            session.execute(compose("TRUNCATE {}", identifier(table)))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        until(lambda: is_waited_for(scene, table), f"TRUNCATE {table} waits")
        yield thread
    finally:
        thread.join()


@fault("a table is being rewritten when the snapshot is taken", *BOTH)
def rewritten(scene: Scene) -> Outcome:
    hold = scene.proxy.hold("pgsteward dump", asked=b"SET TRANSACTION SNAPSHOT")
    with scene.database.connect(autocommit=False) as writer:
        writer.execute("ALTER TABLE big ALTER id TYPE bigint")
        result = scene.struck(hold, lambda: writer.execute("COMMIT"))
    assert result.details["proof"]["rows"] == 90001
    return result


@fault("a migration is committed when the snapshot is taken", *BOTH)
def redefined(scene: Scene) -> Outcome:
    scene.database.execute(
        "CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE VIEW ones AS SELECT one()"
    )
    hold = scene.proxy.hold("pgsteward dump", asked=b"SET TRANSACTION SNAPSHOT")
    renamed = "ALTER FUNCTION one() RENAME TO uno"
    return scene.struck(hold, lambda: scene.database.execute(renamed))


@fault("a TRUNCATE queues between the workers of pg_dump")
def truncate_queues(scene: Scene) -> Outcome:
    result = _truncated(scene, times=1)
    assert len(result.details["retried"]) == 1
    return result


def _truncated(scene: Scene, times: int) -> StepResult:
    """Let TRUNCATE come between the leader's lock and a worker's, in so many attempts in a row."""
    hold = scene.proxy.hold("pgsteward dump", asked=b"IN ACCESS SHARE MODE NOWAIT")
    done: list[StepResult] = []
    run = threading.Thread(target=lambda: done.append(back_up(scene.target())))
    with watch_log("waits for ACCESS EXCLUSIVE") as noticed:
        run.start()
        for _ in range(times):
            hold.wait()
            until(lambda: _dump_holds(scene, "small"), "the dump has locked small")
            with truncating(scene, "small"):
                until(noticed.is_set, "the lock watch has seen it")
                noticed.clear()
                hold.go_on.set()
            hold.go_on.clear()  # TRUNCATE had its way: that dump is dead
            hold.held.clear()
        hold.go_on.set()
        run.join()
    return done[0]


@contextmanager
def watch_log(words: str) -> Iterator[threading.Event]:
    """Give what is set whenever the lock watch logs these words."""

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if words in record.getMessage():
                noticed.set()

    noticed = threading.Event()
    listener = Listener()
    logger = logging.getLogger("pgsteward.backup.lock_watch")
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(listener)
    try:
        yield noticed
    finally:
        logger.removeHandler(listener)
        logger.setLevel(level)


@fault("somebody holds a table for too long", *BOTH)
def locked(scene: Scene) -> Outcome:
    with scene.database.connect(autocommit=False) as holder:
        holder.execute("LOCK TABLE small IN ACCESS EXCLUSIVE MODE")
        return scene.fail(scene.target(lock_wait_timeout_s=3.0))


@fault("somebody waits behind the dump", *BOTH)
def waited_for(scene: Scene) -> Outcome:
    with pytest.MonkeyPatch.context() as patch:
        for module in ("dump", "lock_watch"):
            patch.setattr(f"pgsteward.backup.{module}.NOTABLE_S", 1.0)
        hold = scene.hold_the_dump()
        with waiting(scene) as wait_behind, watch_log("has waited") as noted:

            def until_it_is_noted() -> None:
                wait_behind()
                until(noted.is_set, "the lock watch has seen how long")

            result = scene.struck(hold, until_it_is_noted)
    [waiter] = result.details["lock_waiters"]
    assert (waiter["table"], waiter["role"]) == ("public.big", "postgres")
    assert waiter["application_name"] == "pgsteward test"
    assert waiter["seconds"] >= 1.0
    return result


@contextmanager
def waiting(scene: Scene) -> Iterator[Callable[[], None]]:
    """Give what makes somebody wait for ``big``, and returns when they do."""
    threads: list[threading.Thread] = []

    def blow() -> None:
        def work() -> None:
            with (
                connect(scene.database.login, purpose="test", lock_timeout_s=0) as session,
                session.transaction(),
            ):
                session.execute("LOCK TABLE big IN ACCESS EXCLUSIVE MODE")

        threads.append(threading.Thread(target=work))
        threads[0].start()
        until(lambda: is_waited_for(scene, "big"), "somebody waits")

    yield blow
    for thread in threads:
        thread.join()


@fault("somebody waits behind the dump for longer than yield_after", *BOTH)
def given_way(scene: Scene) -> Outcome:
    hold = scene.hold_the_dump()
    with waiting(scene) as wait_behind:

        def until_it_gives_way() -> None:
            wait_behind()
            until(lambda: not is_waited_for(scene, "big"), "the dump gives way before it is let go on")

        return scene.struck(hold, until_it_gives_way, yield_after=1.0)


@fault("the database and the role set time limits", *BOTH)
def time_limits(scene: Scene) -> Outcome:
    limits = [
        "idle_session_timeout",
        "idle_in_transaction_session_timeout",
        "statement_timeout",
        "lock_timeout",
    ]
    if scene.database.server.version >= 17:
        limits.append("transaction_timeout")
    for limit in limits:
        names = (identifier(scene.database.dbname), identifier(limit))
        scene.database.execute(compose("ALTER DATABASE {} SET {} = '400ms'", *names))
        scene.database.execute(compose("ALTER ROLE CURRENT_USER IN DATABASE {} SET {} = '400ms'", *names))
    hold = scene.proxy.hold("pgsteward dump", asked=b"SET TRANSACTION SNAPSHOT")
    with connect(
        scene.database.login,
        purpose="test",
        autocommit=False,
        settings={"idle_in_transaction_session_timeout": "0"},
    ) as holder:
        holder.execute("LOCK TABLE small IN ACCESS EXCLUSIVE MODE")

        def blow() -> None:
            hold.go_on.set()
            until(lambda: _dump_waits(scene), "the dump waits for a lock")
            threading.Event().wait(1.2)  # longer than any limit
            holder.execute("ROLLBACK")

        return scene.struck(hold, blow)


def _dump_holds(scene: Scene, table: str) -> bool:
    return bool(
        scene.database.value(
            "SELECT EXISTS (SELECT FROM pg_locks JOIN pg_stat_activity USING (pid)"
            " WHERE application_name = 'pgsteward dump' AND granted AND relation = %(table)s::regclass)",
            {"table": table},
        )
    )


def _dump_waits(scene: Scene) -> bool:
    with connect(scene.database.login, purpose="test") as session:
        return bool(
            session.value(
                "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()"
                " AND application_name = 'pgsteward dump' AND wait_event_type = 'Lock')"
            )
        )


@pytest.mark.parametrize(("scene", "name"), cases(__name__), indirect=["scene"])
def test_locks_are_named_and_outlived(scene: Scene, name: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "pgsteward"):
        play(scene, name)
    if "waits behind" in name:
        waits = [
            each.message for each in caplog.records if "for ACCESS EXCLUSIVE on public.big" in each.message
        ]
        assert any("(postgres pgsteward test) waits" in message for message in waits)


def test_after_two_queued_truncates_the_dump_has_one_job(scene: Scene) -> None:
    result = _truncated(scene, times=2)
    assert len(result.details["retried"]) == 2
    manifest = stored_manifest(scene.target(), result.details["backup_id"])
    assert manifest.jobs == 1
