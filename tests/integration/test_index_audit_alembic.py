"""Where a database stands in its Alembic history, whatever is in the history and in the database."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pgsteward.index_audit import audit
from tests.integration.backup_targets import make_target
from tests.integration.maintenance import temporary_role
from tests.servers import Database

pytestmark = pytest.mark.any_server

LINE: Mapping[str, str] = {"a1": "None", "b2": "'a1'", "c3": "'b2'"}
FORK: Mapping[str, str] = {"a1": "None", "b2": "'a1'", "b3": "'a1'"}
MERGED: Mapping[str, str] = {**FORK, "d4": "('b2', 'b3')"}


def scripts(folder: Path, revisions: Mapping[str, str], more: str = "") -> str:
    """Write migrations, and an env.py that must not run."""
    (folder / "versions").mkdir(parents=True)
    (folder / "env.py").write_text("raise SystemExit('env.py was run')\n")
    for revision, down in revisions.items():
        text = f"revision = {revision!r}\ndown_revision = {down}\n{more}"
        (folder / "versions" / f"{revision}.py").write_text(text)
    return str(folder)


def look(database: Database, tmp_path: Path, location: str, **settings: Any) -> dict[str, Any]:
    alembic = {"script_location": location, **settings}
    return audit(make_target(database, tmp_path, index_audit={"alembic": alembic})).as_json()


def stamp(database: Database, *revisions: str, table: str = "alembic_version") -> None:
    database.execute(f"CREATE TABLE {table} (version_num varchar(32) NOT NULL)".encode())
    for revision in revisions:
        database.execute(f"INSERT INTO {table} VALUES (%(r)s)".encode(), {"r": revision})


@pytest.mark.parametrize(
    ("history", "current", "state", "pending"),
    [
        (LINE, ("c3",), "current", []),
        (LINE, ("a1",), "behind", ["b2", "c3"]),
        (LINE, (), "no history", ["a1", "b2", "c3"]),
        (LINE, ("ff",), "unknown revision", []),
        (FORK, ("b2", "b3"), "current", []),
        (FORK, ("b2",), "behind", ["b3"]),
        (MERGED, ("b2", "b3"), "behind", ["d4"]),
        (MERGED, ("d4",), "current", []),
    ],
    ids=[
        "head",
        "behind",
        "empty",
        "unheard-of",
        "all-heads",
        "one-of-two-heads",
        "before-a-merge",
        "merged",
    ],
)
def test_the_database_is_compared_with_the_heads(
    database: Database,
    tmp_path: Path,
    history: Mapping[str, str],
    current: tuple[str, ...],
    state: str,
    pending: list[str],
) -> None:
    folder = tmp_path / "100% alembic"
    location = scripts(folder, history)
    stamp(database, *current)
    found = look(database, tmp_path, location)
    assert (found["alembic"]["state"], found["alembic"]["pending"]) == (state, pending)
    assert found["alembic"]["current"] == sorted(current)
    assert found["status"] == ("ok" if state == "current" else "partial")
    assert not list(folder.rglob("*.pyc"))


def test_no_version_table_is_no_history(database: Database, tmp_path: Path) -> None:
    found = look(database, tmp_path, scripts(tmp_path / "alembic", LINE))
    assert found["alembic"]["state"] == "no history"
    assert "alembic upgrade head" in found["findings"][0]["reason"]


def test_the_version_table_is_found_in_its_schema_and_asked_for_where_there_are_two(
    database: Database, tmp_path: Path
) -> None:
    location = scripts(tmp_path / "alembic", LINE)
    database.execute('CREATE SCHEMA "My App"')
    stamp(database, "c3", table='"My App".alembic_version')
    found = look(database, tmp_path, location)
    assert found["alembic"]["version_table"] == '"My App".alembic_version'
    assert found["alembic"]["state"] == "current"
    stamp(database, "a1")
    found = look(database, tmp_path, location)
    assert found["alembic"]["state"] == "unknown"
    assert "version_table_schema" in found["unknown"][0]["reason"]
    assert look(database, tmp_path, location, version_table_schema="public")["alembic"]["state"] == "behind"


@pytest.mark.parametrize("more", ["import nothing_of_this_name", "1 / 0", "def ("])
def test_scripts_that_can_not_be_read_are_unknown(database: Database, tmp_path: Path, more: str) -> None:
    stamp(database, "a1")
    found = look(database, tmp_path, scripts(tmp_path / "alembic", LINE, more))
    assert found["alembic"]["state"] == "unknown"
    assert "the scripts can't be read" in found["unknown"][0]["reason"]
    assert found["alembic"]["current"] == ["a1"]


def test_a_folder_without_scripts_and_a_table_without_rights_are_unknown(
    database: Database, tmp_path: Path
) -> None:
    stamp(database, "a1")
    assert look(database, tmp_path, str(tmp_path / "nowhere"))["alembic"]["state"] == "unknown"
    alembic = {"script_location": scripts(tmp_path / "alembic", LINE)}
    with temporary_role(database, "pg_monitor") as login:
        found = audit(
            make_target(database, tmp_path, login=login, index_audit={"alembic": alembic})
        ).as_json()
    assert "permission denied" in found["unknown"][0]["reason"]
