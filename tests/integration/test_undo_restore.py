"""A database that a restore has replaced: put back, kept for some days, and dropped by the janitor."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pgsteward.backup.dump import back_up
from pgsteward.errors import DatabaseUnavailable, PreconditionError
from pgsteward.janitor import clean_up
from pgsteward.postgres import compose, identifier, literal
from pgsteward.restore.replaced import MARK, drop_old, undo_restore
from pgsteward.restore.run import restore
from pgsteward.results import StepResult
from pgsteward.targets import Target
from tests.integration.backup_targets import make_target
from tests.servers import Database, Server

pytestmark = pytest.mark.usefixtures("clean_copies")


@pytest.fixture
def target(database: Database, tmp_path: Path) -> Target:
    database.execute(b"CREATE TABLE note AS SELECT 'backed up' AS says")
    return make_target(database, tmp_path)


@pytest.fixture
def clean_copies(database: Database) -> Iterator[None]:
    yield
    for name in named_like(database.server, f"{database.dbname}\\_%"):
        with database.server.connect() as session:
            session.execute(compose("DROP DATABASE {} WITH (FORCE)", identifier(name)))


def named_like(server: Server, pattern: str) -> list[str]:
    with server.connect() as session:
        rows = session.rows(
            "SELECT datname::text AS name FROM pg_database WHERE datname LIKE %(pattern)s ORDER BY 1",
            {"pattern": pattern},
        )
    return [row["name"] for row in rows]


def comment_of(server: Server, name: str) -> str | None:
    with server.connect() as session:
        found: str | None = session.value(
            "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %(name)s",
            {"name": name},
        )
    return found


def replaced(target: Target) -> str:
    return str(restore(target, replace=True, confirm_database=target.database).details["replaced"])


def undone(target: Target, **options: Any) -> StepResult:
    return undo_restore(target, confirm_database=target.database, **options)


def change_mark(server: Server, copy: str, **facts: object) -> None:
    """Make a mark say something else, such as that it is old."""
    said = json.loads(str(comment_of(server, copy)).removeprefix(MARK))
    with server.connect() as session:
        session.execute(
            compose(
                "COMMENT ON DATABASE {} IS {}",
                identifier(copy),
                literal(MARK + json.dumps({**said, **facts})),
            )
        )


def long_ago() -> str:
    return (datetime.now(UTC) - timedelta(days=15)).isoformat(timespec="seconds")


def says(database: Database) -> object:
    return database.value("SELECT says FROM note")


def test_a_replaced_database_is_put_back_with_its_comment(target: Target, database: Database) -> None:
    server = database.server
    with server.connect() as session:
        session.execute(compose("COMMENT ON DATABASE {} IS 'it''s ours'", identifier(target.database)))
    back_up(target)
    database.execute(b"UPDATE note SET says = 'written later'")
    old = replaced(target)
    assert says(database) == "backed up"
    plan = undo_restore(target, dry_run=True)
    assert [item.action for item in plan.changed] == ["would put back", "would put aside"]
    assert says(database) == "backed up"
    with database.connect(purpose="application") as application:
        application.execute("SET application_name = 'the application'")
        result = undone(target)
        with pytest.raises(DatabaseUnavailable):
            application.value("SELECT 1")
    assert result.status == "ok"
    assert says(database) == "written later"
    assert comment_of(server, target.database) == "it's ours"
    aside = result.details["put_aside"]
    assert named_like(server, f"{target.database}\\_%") == [aside]
    assert old not in named_like(server, "%")
    assert undone(target).details["put_back"] == aside  # and forth again
    assert says(database) == "backed up"
    assert comment_of(server, target.database) == "it's ours"


def test_without_a_name_or_a_copy_nothing_is_changed(target: Target, database: Database) -> None:
    with pytest.raises(PreconditionError, match="nothing to put back: no database"):
        undone(target)
    back_up(target)
    old = replaced(target)
    for said in (None, "", "other"):
        with pytest.raises(PreconditionError, match=f"--confirm-database {target.database}"):
            undo_restore(target, confirm_database=said)
    with pytest.raises(PreconditionError, match=f"'postgres' is none.*there: {old}"):
        undone(target, copy="postgres")
    change_mark(database.server, old, oid=1)  # a comment that came with a dump of the whole server
    with pytest.raises(PreconditionError, match="there: none"):
        undone(target)
    assert comment_of(database.server, target.database) is None


def test_a_copy_that_somebody_has_renamed_is_theirs(target: Target, database: Database) -> None:
    server = database.server
    back_up(target)
    old = replaced(target)
    change_mark(server, old, put_aside_at=long_ago())
    kept, bad = identifier(f"{target.database}_archive"), identifier(f"{target.database}_bad")
    with server.connect() as session:
        session.execute(compose("ALTER DATABASE {} RENAME TO {}", identifier(old), kept))
    assert clean_up(target).changed == ()
    with server.connect() as session:  # put back by hand: it is the live one now
        session.execute(compose("ALTER DATABASE {} RENAME TO {}", identifier(target.database), bad))
        session.execute(compose("ALTER DATABASE {} RENAME TO {}", kept, identifier(target.database)))
    assert drop_old(target).examined == 0
    with pytest.raises(PreconditionError, match="there: none"):
        undone(target)


@pytest.mark.parametrize("facts", [{"put_aside_at": "2020-01-01T00:00:00"}, {"put_aside_at": 7}, {"name": 1}])
def test_odd_marks_stop_no_janitor(target: Target, database: Database, facts: dict[str, object]) -> None:
    back_up(target)
    old = replaced(target)
    change_mark(database.server, old, **facts)
    with database.server.connect(old):
        assert [note.object for note in clean_up(target).failed] == []
    assert named_like(database.server, old) == [old]


def test_the_newest_copy_is_put_back_unless_another_is_named(target: Target, database: Database) -> None:
    back_up(target)
    database.execute(b"UPDATE note SET says = 'first'")
    first = replaced(target)
    change_mark(database.server, first, put_aside_at=long_ago())
    database.execute(b"UPDATE note SET says = 'second'")
    second = replaced(target)
    assert undo_restore(target, dry_run=True).details["put_back"] == second
    undone(target, copy=first)
    assert says(database) == "first"


def test_a_copy_is_put_back_where_the_restored_one_is_gone(target: Target, database: Database) -> None:
    back_up(target)
    database.execute(b"UPDATE note SET says = 'written later'")
    replaced(target)
    with database.server.connect() as session:
        session.execute(compose("DROP DATABASE {}", identifier(target.database)))
    assert undone(target).details["put_aside"] is None
    assert says(database) == "written later"


def test_the_janitor_drops_old_copies_that_nobody_uses(target: Target, database: Database) -> None:
    server = database.server
    back_up(target)
    old = replaced(target)

    def note() -> str:
        [said] = [each.reason for each in clean_up(target).skipped if each.object == old]
        return said

    assert "kept until" in note()
    change_mark(server, old, put_aside_at=long_ago())
    with server.connect(old):
        assert "sessions are connected to it (1)" in note()
    with server.connect() as session:
        session.execute(
            compose("ALTER DATABASE {} RENAME TO {}", identifier(target.database), identifier(f"{old}_x"))
        )
        planned = database_gone(target)
        session.execute(
            compose("ALTER DATABASE {} RENAME TO {}", identifier(f"{old}_x"), identifier(target.database))
        )
    assert planned == [(old, True)]
    dry = clean_up(target, dry_run=True)
    assert [item.action for item in dry.changed if item.object == old] == ["would drop"]
    assert named_like(server, old) == [old]
    done = clean_up(target)
    assert [item.action for item in done.changed if item.object == old] == ["dropped"]
    assert named_like(server, old) == []
    assert says(database) == "backed up"


def database_gone(target: Target) -> list[tuple[str, bool]]:
    """Return which copies are kept because nothing is in their place."""
    return [(note.object, "no database" in note.reason) for note in drop_old(target).skipped]
