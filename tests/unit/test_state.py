from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from pgsteward import reindex_memory, state
from pgsteward.config import Config
from pgsteward.errors import ConfigError, StateFailed
from pgsteward.results import Item, NightResult, Note, StepResult, skipped
from pgsteward.state import engine as state_engine
from pgsteward.state import shortcut
from pgsteward.state.entries import HEAD, entries_of
from pgsteward.state.history import History
from pgsteward.state.tables import metadata
from pgsteward.targets import Target
from tests.unit.test_report_several import TWELVE

TWO = datetime(2026, 11, 23, 2, tzinfo=UTC)

REINDEX = StepResult(
    step="reindex",
    target="app",
    status="partial",
    examined=4,
    changed=(
        Item('app."Order Lines_pkey"', "rebuilt", {"bytes_before": 70, "bytes_after": 20, "seconds": 0.4}),
    ),
    skipped=(Note("public.gin", "not measurable"),),
    unknown=(Note("public.secret", "permission denied"),),
    failed=(Note("public.busy", "lock timeout"),),
    seconds=1.25,
    summary="1 of 4",
    details={"indexes": [{"index": "x", "ratio": 0.7}], "error": None},
)


def night(started_at: datetime = TWO, *, dry_run: bool = False) -> NightResult:
    steps = (REINDEX, skipped("matviews", "app", "there are none"))
    return NightResult("app", "intowork", started_at, 12.5, steps, dry_run)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'deep' / 'state.db'}"


@pytest.fixture
def history(url: str) -> Iterator[History]:
    with History(url) as opened:
        yield opened


def rows(url: str, statement: str) -> list[tuple[object, ...]]:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.text(statement))]


def test_the_last_night_comes_back_as_it_was(history: History) -> None:
    history.record(night())
    assert history.last_night("app") == night()


def test_the_last_night_is_the_newest_and_no_dry_run(history: History) -> None:
    history.record(night(TWO))
    history.record(night(TWO - timedelta(days=1)))
    history.record(night(TWO + timedelta(days=1), dry_run=True))
    history.record(REINDEX, database="intowork", started_at=TWO + timedelta(days=2))
    found = history.last_night("app")
    assert found is not None
    assert found.started_at == TWO


def test_a_target_without_nights_has_no_last_night(history: History) -> None:
    history.record(night())
    assert history.last_night("other") is None


def test_recent_runs_name_their_steps_newest_first(history: History) -> None:
    first = history.record(night())
    second = history.record(REINDEX, database="intowork", started_at=TWO + timedelta(hours=1))
    found = history.recent("app")
    assert [run.id for run in found] == [second, first]
    assert [run.steps for run in found] == [("reindex",), ("reindex", "matviews")]
    assert [run.kind for run in found] == ["step", "nightly"]
    assert found[0].database == "intowork"
    assert [run.id for run in history.recent("app", limit=1)] == [second]


def test_every_object_is_a_row_with_its_figures_or_its_reason(history: History, url: str) -> None:
    history.record(night())
    assert rows(
        url,
        "SELECT object, outcome, action, reason, bytes_before, bytes_after, seconds FROM objects ORDER BY id",
    ) == [
        ('app."Order Lines_pkey"', "changed", "rebuilt", None, 70, 20, 0.4),
        ("public.gin", "skipped", None, "not measurable", None, None, None),
        ("public.secret", "unknown", None, "permission denied", None, None, None),
        ("public.busy", "failed", None, "lock timeout", None, None, None),
        ("app", "skipped", None, "there are none", None, None, None),
    ]


def test_every_database_of_a_step_is_a_row(history: History, url: str) -> None:
    history.record(TWELVE)
    found = rows(
        url,
        "SELECT s.step, d.database, d.status, d.seconds, d.bytes FROM step_databases AS d"
        "  JOIN steps AS s ON s.id = d.step_id ORDER BY d.id",
    )
    assert len(found) == 3 * 13
    by_key = {each[:2]: each[2:] for each in found}
    assert by_key["backup", "billing"] == ("ok", 0.5, 600_001)
    assert by_key["backup", "mailing"] == ("failed", 1.2, None)
    assert by_key["prune", "mailing"][0] == "skipped"
    assert by_key["indexes", "payroll"] == ("unknown", None, None)
    assert history.last_night("fleet") == TWELVE


def test_a_step_over_one_database_is_one_row(history: History, url: str) -> None:
    history.record(REINDEX, database="shop")
    history.record(night())
    found = rows(url, "SELECT database, status FROM step_databases ORDER BY id")
    assert found[0] == ("shop", REINDEX.status)
    assert len(found) == 1 + len(night().steps)
    assert {each[0] for each in found[1:]} == {night().database}


def test_a_history_of_an_earlier_version_is_kept(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/state.db"
    with History(url) as history:
        history.record(night())
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:  # as the first version left it
        for table in ("memories", "step_databases"):
            connection.execute(sa.text(f"DROP TABLE {table}"))
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '0001'"))
    with History(url) as history:
        assert history.last_night("app") == night()
        history.record(TWELVE)
    assert len(rows(url, "SELECT 1 FROM step_databases")) == 39


def test_instants_keep_their_zone(history: History) -> None:
    history.record(night(TWO.astimezone(timezone(timedelta(hours=-5)))))
    found = history.last_night("app")
    assert found is not None
    assert found.started_at == TWO
    assert found.started_at.tzinfo is UTC


def test_an_instant_without_zone_is_refused(history: History) -> None:
    with pytest.raises(StateFailed, match="no time zone"):
        history.record(night(TWO.replace(tzinfo=None)))


def test_what_is_no_json_is_kept_as_text(history: History) -> None:
    step = StepResult("backup", "app", "ok", 1, details={"at": TWO, "folder": Path("/x")})
    history.record(NightResult("app", "shop", TWO, 1, (step,)))
    found = history.last_night("app")
    assert found is not None
    assert found.steps[0].details == {"at": str(TWO), "folder": "/x"}


def test_the_file_is_for_its_owner_only(history: History, url: str) -> None:
    file = Path(url.removeprefix("sqlite:///"))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_migrations_make_exactly_the_tables_in_the_code(history: History, url: str) -> None:
    with sa.create_engine(url, poolclass=sa.NullPool).connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_the_newest_migration_is_the_one_that_the_code_expects() -> None:
    script = ScriptDirectory(str(Path(state_engine.__file__).parent / "migrations"))
    assert script.get_current_head() == HEAD


def test_a_state_that_is_up_to_date_needs_no_alembic(history: History, url: str) -> None:
    code = "import sys; from pgsteward.state.history import History; History(sys.argv[1]).recent('app')"
    check = "; assert 'alembic' not in sys.modules, 'alembic was imported'"
    subprocess.run([sys.executable, "-c", code + check, url], check=True)


def test_a_state_of_a_newer_version_is_left_alone(history: History, url: str) -> None:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StateFailed, match="newer pgsteward"):
        History(url)


def test_a_state_that_was_lost_begins_again(history: History, url: str) -> None:
    history.record(night())
    for file in Path(url.removeprefix("sqlite:///")).parent.iterdir():
        file.unlink()
    with History(url) as again:
        assert again.last_night("app") is None
        again.record(night())


def test_processes_that_open_a_new_state_at_once_all_succeed(url: str) -> None:
    code = """
import sys
from datetime import UTC, datetime
from pgsteward.results import NightResult
from pgsteward.state.history import History
for _ in range(5):
    with History(sys.argv[1]) as history:
        history.record(NightResult("app", "shop", datetime.now(UTC), 0.0, ()))
"""
    argv = [sys.executable, "-c", code, url]
    running = [subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    problems = [child.communicate()[1] for child in running]
    assert [child.returncode for child in running] == [0] * 4, problems
    assert rows(url, "SELECT count(*) FROM runs") == [(20,)]


@pytest.mark.parametrize(
    "url, words",
    [
        ("mysql://host/db", "mysql is not supported"),
        ("nonsense", "is not a URL"),
        ("sqlite://", "remembers nothing"),
    ],
)
def test_a_url_of_something_else_is_refused(url: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        History(url)


def test_an_unreachable_state_names_the_place_but_no_password() -> None:
    with pytest.raises(StateFailed) as caught:
        History("postgresql://steward:hunter2@127.0.0.1:1/state")
    assert "127.0.0.1" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_state_that_fails_warns_and_fails_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("not a folder")
    config = Config(state_url=f"sqlite:///{tmp_path}/file/state.db")
    with caplog.at_level(logging.WARNING):
        assert state.remember(config, night()) is None
    assert "missing from the history" in caplog.text


def test_what_is_remembered_is_found_again(tmp_path: Path) -> None:
    config = Config(state_url=f"sqlite:///{tmp_path}/state.db")
    assert state.remember(config, REINDEX, database="shop")
    with state.open_history(config) as history:
        assert history.recent("app")[0].database == "shop"


def test_the_shortcut_writes_what_sqlalchemy_writes(tmp_path: Path) -> None:
    urls = [f"sqlite:///{tmp_path}/{name}.db" for name in ("slow", "quick")]
    at = StepResult("backup", "app", "ok", 1, details={"at": TWO, "quoted": "'\"é\n"})
    started = TWO.astimezone(timezone(timedelta(hours=5, minutes=30)))
    whole = NightResult("app", "Intowork 'x'", started, 3, (REINDEX, at), dry_run=True)
    entries = [entries_of(night()), entries_of(whole), entries_of(REINDEX, database="shop")]
    with History(urls[0]) as slow, History(urls[1]):
        for each in entries:
            slow.write(each)
            assert shortcut.record(urls[1], each)
    for table in ("runs", "steps", "objects", "step_databases"):
        slow_rows, quick_rows = (rows(url, f"SELECT * FROM {table} ORDER BY 1") for url in urls)
        assert slow_rows == quick_rows
        assert slow_rows


@pytest.mark.parametrize(
    "statement", ["UPDATE alembic_version SET version_num = '9999'", "DROP TABLE objects"]
)
def test_the_shortcut_leaves_alone_what_it_does_not_know(url: str, history: History, statement: str) -> None:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.text(statement))
    assert not shortcut.record(url, entries_of(night()))
    assert rows(url, "SELECT * FROM runs") == []


@pytest.mark.parametrize(
    "url", ["postgresql://h/d", "sqlite:///x.db?timeout=1", "sqlite://", "sqlite:///:memory:"]
)
def test_the_shortcut_is_for_plain_files_only(url: str) -> None:
    assert not shortcut.record(url, entries_of(night()))


def test_a_night_of_one_database_by_hand_does_not_hide_that_of_all(history: History) -> None:
    history.record(TWELVE)
    by_hand = NightResult("fleet", "crm", TWELVE.started_at + timedelta(hours=6), 1.0, TWELVE.steps[:1])
    history.record(by_hand)
    assert history.last_night("fleet", "*") == TWELVE
    assert history.last_night("fleet", "crm, geo") == by_hand, "its databases were others then"


def test_a_locked_history_is_waited_for_once(
    url: str, history: History, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shortcut, "BUSY_S", 1)
    monkeypatch.setattr(state, "open_history", None)  # a second wait would be its
    with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert state.remember(Config.model_validate({"state_url": url}), night()) is None
    assert "database is locked" in caplog.text


def test_the_shortcut_makes_no_file(tmp_path: Path) -> None:
    assert not shortcut.record(f"sqlite:///{tmp_path}/state.db", entries_of(night()))
    assert os.listdir(tmp_path) == []


def test_a_run_is_remembered_without_sqlalchemy(url: str, history: History) -> None:
    code = (
        "import sys\nfrom pgsteward import state\nfrom pgsteward.config import Config\n"
        "from pgsteward.results import StepResult\n"
        "assert state.remember(Config(state_url=sys.argv[1]), StepResult('x', 'app', 'ok', 1))\n"
        "assert 'sqlalchemy' not in sys.modules, 'sqlalchemy was imported'"
    )
    subprocess.run([sys.executable, "-c", code, url], check=True)
    assert len(history.recent("app")) == 1


def test_the_users_own_state_folder_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    state.remember(Config(), night())
    assert os.listdir(tmp_path / "pgsteward")


def bound(url: str, database: str = "shop") -> Target:
    config = Config.model_validate(
        {
            "state_url": url,
            "stores": {"disk": {"url": "file:///nowhere"}},
            "targets": {"app": {"conninfo": f"host=nowhere dbname={database}", "stores": ["disk"]}},
        }
    )
    return Target("app", config.target("app"), config)


def as_kept(entry: Any) -> Any:
    return entry


def test_what_another_version_has_kept_is_left_out_with_a_warning(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    target = bound(url)
    state.keep(target, "matviews", {"old": {"x": 1}, "odd": [3], "none": None, "good": {"n": 7}})
    assert state.recall(target, "matviews", lambda entry: int(entry["n"])) == {"good": 7}
    assert "of old is in another form" in caplog.text
    assert reindex_memory.load(target).rebuilds == {}
    state.keep(target, reindex_memory.TOPIC, {"public.i": [{"at": "2026-11-30T00:00:00+00:00", "new": 1}]})
    assert reindex_memory.load(target).rebuilds == {}


def test_what_was_kept_is_recalled_by_database_and_topic(url: str) -> None:
    shop, crm = bound(url), bound(url, "crm")
    assert state.recall(shop, "matviews", as_kept) == {}
    state.keep(shop, "matviews", {'public."Order Lines"': {"leaves": [[16384, 7]]}, "public.b": None})
    state.keep(shop, "analyze", {"public.b": 1})
    state.keep(crm, "matviews", {"public.b": 2})
    state.keep(shop, "matviews", {"public.b": 3, "public.c": 4})
    assert state.recall(shop, "matviews", as_kept) == {
        'public."Order Lines"': {"leaves": [[16384, 7]]},
        "public.b": 3,
        "public.c": 4,
    }
    state.keep(shop, "matviews", {}, gone=["public.b", "public.never"])
    assert "public.b" not in state.recall(shop, "matviews", as_kept)
    assert state.recall(shop, "analyze", as_kept) == {"public.b": 1}
    assert state.recall(crm, "matviews", as_kept) == {"public.b": 2}


def test_a_memory_that_can_not_be_read_or_written_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "state.db").write_bytes(b"this is no database" * 100)
    target = bound(f"sqlite:///{tmp_path}/state.db")
    assert state.recall(target, "matviews", as_kept) == {}
    assert "is missing" in caplog.text
    state.keep(target, "matviews", {"public.b": 1})
    assert "was not kept" in caplog.text
