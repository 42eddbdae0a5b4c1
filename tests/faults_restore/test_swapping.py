"""What comes in between when the copy is to take the original's place: all of it or nothing."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest

from pgsteward.errors import DatabaseUnavailable, StewardError
from pgsteward.postgres import compose, connect, identifier
from pgsteward.postgres_lock import operation_lock
from pgsteward.restore import swap
from tests.faults.proxy import WAIT_S, Hold, striking
from tests.faults_restore.scene import Outcome, Scene, fault, names_in, play
from tests.faults_restore.test_refused import other_login


@fault("clients reconnect all the time during the swap")
def reconnecting(scene: Scene) -> Outcome:
    with reconnecting_clients(scene):
        return scene.replace()


@contextlib.contextmanager
def reconnecting_clients(scene: Scene) -> Iterator[None]:
    """Let some clients work, and come back at once whenever they are thrown out."""
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            with contextlib.suppress(StewardError), connect(scene.database.login, purpose="test") as session:
                session.execute("SET application_name = 'a client'")
                while not over.is_set():
                    session.value("SELECT count(*) FROM small")

    clients = [threading.Thread(target=work) for _ in range(4)]
    for client in clients:
        client.start()
    try:
        yield
    finally:
        over.set()
        for client in clients:
            client.join(WAIT_S)


@fault("a superuser works in the original when it is to be replaced")
def superuser_there(scene: Scene) -> Outcome:
    with restoring_owner(scene), contextlib.ExitStack() as stack:
        guest = lambda: stack.enter_context(scene.database.connect())  # noqa: E731
        return scene.strike(scene.hold_the_load(), guest)


@contextlib.contextmanager
def restoring_owner(scene: Scene) -> Iterator[None]:
    """Let an ordinary role that owns the original restore it."""
    name = identifier(scene.database.dbname)
    with other_login(scene, "CREATEDB") as role, scene.server.connect() as session:
        session.execute(compose("GRANT {} TO {}", identifier(scene.stage.owner), identifier(role)))
        session.execute(compose("ALTER DATABASE {} OWNER TO {}", name, identifier(role)))
        try:
            yield
        finally:
            session.execute(compose("ALTER DATABASE {} OWNER TO CURRENT_USER", name))


@fault("a session can't be ended at the very moment of the swap")
def can_not_be_ended(scene: Scene) -> Outcome:
    hold = scene.proxy.hold("pgsteward restore", asked=b"RENAME TO")
    with restoring_owner(scene), contextlib.ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        patch.setattr(swap, "ATTEMPTS", 1)  # PostgreSQL waits for 5 s each time
        return scene.strike(hold, lambda: stack.enter_context(scene.database.connect()))


@fault("a backup of the original runs when it is to be replaced")
def backup_runs(scene: Scene) -> Outcome:
    with contextlib.ExitStack() as stack:
        backup = operation_lock(scene.database.login, "backup")
        return scene.strike(scene.hold_the_load(), lambda: stack.enter_context(backup))


@fault("a prepared transaction comes while the copy is loaded")
def prepared_meanwhile(scene: Scene) -> Outcome:
    def blow() -> None:
        with connect(scene.database.login, purpose="test", autocommit=False) as session:
            session.execute("INSERT INTO small VALUES (2, 'later')")
            session.execute("PREPARE TRANSACTION 'of the shop'")

    try:
        return scene.strike(scene.hold_the_load(), blow)
    finally:
        scene.database.execute("ROLLBACK PREPARED 'of the shop'")


@fault("the original is gone when it is to be replaced")
def original_gone(scene: Scene) -> Outcome:
    name = scene.database.dbname
    moved = f"{name} moved"
    try:
        return scene.strike(scene.hold_the_load(), lambda: scene.server.rename(name, moved))
    finally:
        scene.server.rename(moved, name)


@fault("somebody looks into the copy when it gets its name")
def copy_watched(scene: Scene) -> Outcome:
    """A monitoring superuser, say, that connects to all databases there are."""
    hold = scene.proxy.hold("pgsteward restore", asked=b"RENAME TO")
    with contextlib.ExitStack() as stack:
        return scene.struck(hold, lambda: look_in(scene, stack), beside=True)


@fault("somebody looks into the copy when it takes the original's place")
def copy_watched_in_replace(scene: Scene) -> Outcome:
    with contextlib.ExitStack() as stack:
        return scene.struck(scene.hold_the_load(), lambda: look_in(scene, stack))


def look_in(scene: Scene, stack: contextlib.ExitStack) -> None:
    """Connect to the copy, and stay for as long as one may."""
    (name,) = scene.scratch()
    with contextlib.suppress(DatabaseUnavailable):  # ended before it had said its first word
        stack.enter_context(scene.server.connect(name))


@fault("somebody takes the name while the copy is loaded")
def name_taken(scene: Scene) -> Outcome:
    hold = scene.proxy.hold("pgsteward restore", asked=b"RENAME TO")
    try:
        return scene.strike(hold, lambda: scene.server.create(scene.into), beside=True)
    finally:
        scene.server.drop(scene.into)


@fault("the lock's session is terminated right before the swap")
def lock_ended(scene: Scene) -> Outcome:
    hold = scene.proxy.hold("pgsteward lock restore", asked=b"SELECT 1\0")
    return scene.strike(hold, lambda: scene.end_sessions("pgsteward lock restore"))


@fault("all connections are reset between the renames")
def cut_between(scene: Scene) -> Outcome:
    hold = scene.proxy.hold("pgsteward restore", asked=b"RENAME TO", passing=1)
    return scene.strike(hold, scene.proxy.cut)


@fault("all connections are reset before the swap is committed")
def cut_before_commit(scene: Scene) -> Outcome:
    return scene.strike(before_commit(scene), scene.proxy.cut)


def before_commit(scene: Scene) -> Hold:
    """Hold the session that swaps when it has renamed, and wants to commit that."""
    return scene.proxy.hold("pgsteward restore", asked=b"COMMIT\0", after=b"RENAME TO")


def after_commit(scene: Scene) -> Hold:
    """The same when it has committed, and has not been told so yet."""
    return scene.proxy.hold("pgsteward restore", asked=b"COMMIT\0", after=b"RENAME TO", answered=1)


@fault("all connections are reset when the swap is committed, and nobody is told")
def cut_after_commit(scene: Scene) -> Outcome:
    return scene.struck(after_commit(scene), scene.proxy.cut)


@fault("all connections are reset when the copy has its name, and nobody is told")
def cut_after_publishing(scene: Scene) -> Outcome:
    return scene.struck(after_commit(scene), scene.proxy.cut, beside=True)


@pytest.mark.parametrize("name", names_in(__name__))
def test_the_copy_takes_the_place_as_a_whole_or_not_at_all(scene: Scene, name: str) -> None:
    play(scene, name)


def test_one_at_a_time(scene: Scene) -> None:
    """Two restores of one server at once: the second is refused by name, the first goes well."""
    hold = scene.hold_the_load()
    errors = []
    with striking(hold, lambda: errors.append(scene.fail())):
        assert scene.beside().details["proof"]["equal"] is True
    assert "another restore run works" in str(errors[0])
    scene.server.drop(scene.into)
