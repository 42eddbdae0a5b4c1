"""One result for several databases, and how jobs are shared out."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgsteward import several, side_by_side
from pgsteward.backup.plan import SESSIONS_BESIDE
from pgsteward.config import Config
from pgsteward.databases import Found, bind, bind_covered, covers, excluded_by
from pgsteward.errors import ConfigError
from pgsteward.results import EXIT_STATUS, Item, Note, Status, StepResult
from pgsteward.several import find_grounds, merge
from pgsteward.side_by_side import MAX_RUNNING, share_jobs
from pgsteward.targets import Target


def part(status: Status, **values: object) -> StepResult:
    return StepResult("backup", "app", status, **{"examined": 1, **values})  # type: ignore[arg-type]


NONE = Found(())
GONE = Found((), failed=(Note("x", "gone"),))
CLOSED = Found((), unknown=(Note("x", "may not be connected to"),))


@pytest.mark.parametrize(
    ("statuses", "found", "status"),
    [
        (("ok", "ok"), NONE, "ok"),
        (("ok", "skipped"), NONE, "ok"),
        (("skipped", "skipped"), NONE, "skipped"),
        (("ok", "failed"), NONE, "partial"),
        (("partial", "failed"), NONE, "partial"),
        (("failed", "failed"), NONE, "failed"),
        (("failed", "skipped"), NONE, "failed"),
        (("ok", "unknown"), NONE, "partial"),
        (("unknown", "unknown"), NONE, "unknown"),
        (("ok", "partial"), NONE, "partial"),
        ((), NONE, "unknown"),
        (("ok",), GONE, "partial"),
        ((), GONE, "failed"),
        (("failed",), GONE, "failed"),
        (("ok",), CLOSED, "partial"),
        (("skipped",), CLOSED, "unknown"),
        (("failed",), CLOSED, "failed"),
        ((), CLOSED, "unknown"),
    ],
)
def test_the_status_of_several_is_never_better_than_the_evidence(
    statuses: tuple[Status, ...], found: Found, status: Status
) -> None:
    parts = [(f"db{n}", part(each)) for n, each in enumerate(statuses)]
    merged = merge("backup", "app", parts, found)
    assert merged.status == status
    assert EXIT_STATUS[merged.status] == {"ok": 0, "skipped": 0, "failed": 1}.get(status, 3)


def test_names_carry_their_database_and_figures_are_summed() -> None:
    parts = [
        (
            "Order Lines",
            part(
                "ok",
                examined=3,
                changed=(Item("public.t", "analyzed", {"rows": 4}),),
                details={"backup_id": "id1", "bytes": 5, "backups": [{"backup_id": "b"}], "status": "no"},
            ),
        ),
        ("app", part("failed", examined=0, failed=(Note("app", "disk full"), Note("t", "locked")))),
        ("idle", part("skipped", examined=0, skipped=(Note("app", "nothing to do"),))),
    ]
    found = Found((), skipped=(Note("template1", "a template"),), unknown=(Note("closed", "no right"),))
    merged = merge("backup", "app", parts, found)
    assert merged.examined == 3
    assert merged.changed == (Item("Order Lines: public.t", "analyzed", {"rows": 4}),)
    assert merged.failed == (Note("app", "disk full"), Note("app: t", "locked"))
    assert merged.skipped == (Note("idle", "nothing to do"), Note("template1", "a template"))
    assert merged.unknown == (Note("closed", "no right"),)
    data = json.loads(json.dumps(merged.as_json()))
    assert data["status"] == "partial"
    assert data["backups"] == [{"database": "Order Lines", "backup_id": "b"}]
    assert "backup_id" not in data
    first, second, third, fourth = data["databases"]
    assert (first["database"], first["status"], first["backup_id"], first["bytes"]) == (
        "Order Lines",
        "ok",
        "id1",
        5,
    )
    assert (second["status"], third["skipped_because"]) == ("failed", "nothing to do")
    assert (fourth["database"], fourth["status"]) == ("closed", "unknown")
    assert StepResult.from_json(data).as_json() == data
    assert "1 failed (app)" in merged.summary
    assert "1 unknown (closed)" in merged.summary


@pytest.mark.parametrize("waiters", [[], [{"pid": 1}]])
def test_a_list_of_objects_is_at_the_top_also_when_it_is_empty(waiters: list[dict[str, int]]) -> None:
    parts = [
        ("a", part("ok", details={"lock_waiters": waiters})),
        ("b", part("ok", details={"lock_waiters": []})),
    ]
    data = merge("backup", "app", parts, NONE).as_json()
    assert data["lock_waiters"] == [{"database": "a", **each} for each in waiters]
    assert not any("lock_waiters" in entry for entry in data["databases"])


def test_nothing_found_says_so() -> None:
    merged = merge("backup", "app", [], NONE)
    assert (merged.status, merged.unknown[0].object) == ("unknown", "app")


def test_a_step_of_the_night_leaves_out_databases_that_lack_its_ground() -> None:
    backup = merge("backup", "app", [("a", part("ok")), ("b", part("failed")), ("c", part("partial"))], GONE)
    assert find_grounds(("backup",), {"backup": backup}) == {
        "a": "",
        "b": "backup failed",
        "c": "",
        "x": "backup failed",
    }
    upload = merge(
        "upload",
        "app",
        [
            ("a", part("skipped", skipped=(Note("app", "disk is the only store"),))),
            ("b", part("skipped", skipped=(Note("app", "backup failed"),), blocked=True)),
            ("c", part("failed")),
        ],
        NONE,
    )
    assert find_grounds(("backup", "upload"), {"backup": backup, "upload": upload}) == {
        "a": "",
        "b": "backup failed",
        "c": "upload failed",
        "x": "backup failed",
    }
    assert find_grounds(("backup",), {"backup": part("ok")}) is None
    assert find_grounds((), {"backup": backup}) is None


@pytest.mark.parametrize(
    ("silent_stores", "status", "kind", "reason"),
    [
        ((), "partial", "failed", "has no backup in any store"),
        ((Note("store s3", "gone"),), "partial", "unknown", "has no backup in any store that could be asked"),
    ],
)
def test_a_database_without_any_backup_is_never_verified(
    monkeypatch: pytest.MonkeyPatch, silent_stores: tuple[Note, ...], status: Status, kind: str, reason: str
) -> None:
    monkeypatch.setattr(several, "stored", lambda _: (frozenset({"a"}), silent_stores))
    monkeypatch.setattr(several, "find", lambda _: Found(("a", "b"), on_server=frozenset("ab")))
    result = several.over_stored(target(databases="*"), "verify", lambda bound: part("ok"), only_stored=True)
    assert result.status == status
    assert Note("b", reason) in getattr(result, kind)
    assert {entry["database"]: entry["status"] for entry in result.details["databases"]}["b"] == kind


def test_what_is_wrong_in_the_configuration_for_every_database_is_raised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(several, "find", lambda _: Found(("a", "b"), on_server=frozenset("ab")))

    def wrong(bound: Target, *, where: str) -> StepResult:
        if bound.database in where:
            raise ConfigError("no store s4")
        return part("ok")

    with pytest.raises(ConfigError, match="no store s4"):
        several.over(target(databases="*"), "janitor", lambda bound: wrong(bound, where="ab"))
    result = several.over(target(databases="*"), "janitor", lambda bound: wrong(bound, where="a"))
    assert (result.status, result.failed) == ("partial", (Note("a", "no store s4"),))


def test_a_store_that_does_not_answer_is_unknown_and_no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = Note("store s3", "could not be asked: gone")
    monkeypatch.setattr(several, "stored", lambda _: (frozenset({"a", "b"}), (silent,)))
    monkeypatch.setattr(several, "find", lambda _: Found(("a", "b"), on_server=frozenset("ab")))
    result = several.over_stored(target(databases="*"), "backups", lambda bound: part("ok"))
    assert (result.status, result.unknown) == ("partial", (silent,))
    assert [entry["database"] for entry in result.details["databases"]] == ["a", "b"]
    assert result.summary == "2 databases: 2 done"


def test_the_jobs_of_all_that_run_never_exceed_the_sum_and_none_waits_for_nothing() -> None:
    chance = random.Random(7)
    for _ in range(500):
        total, most = chance.randint(1, 64), chance.randint(1, MAX_RUNNING)
        waiting = sorted((int(chance.paretovariate(0.5)) for _ in range(chance.randint(1, 40))), reverse=True)
        running: list[int] = []
        began = 0
        while waiting or running:
            while waiting and (share := share_jobs(total - sum(running), waiting, len(running), most)):
                running.append(share)
                waiting.pop(0)
                began += 1
                assert sum(running) <= total
                assert len(running) <= most
            assert running, "something waits and nothing runs"
            if waiting:
                assert sum(running) == total or len(running) == most
            running.pop(chance.randrange(len(running)))
        assert began


@pytest.mark.parametrize(
    ("total", "waiting", "shares"),
    [
        pytest.param(1, [5, 5], [1], id="one-job"),
        pytest.param(2, [9], [2], id="alone"),
        pytest.param(2, [9, 9], [1, 1], id="two-alike"),
        pytest.param(4, [900, 10, 10], [3, 1], id="a-large-one-leaves-one"),
        pytest.param(4, [0, 0], [2, 2], id="empty"),
        pytest.param(8, [4, 2, 2], [4, 2, 2], id="by-size"),
    ],
)
def test_jobs_are_shared_by_size(total: int, waiting: list[int], shares: list[int]) -> None:
    handed: list[int] = []
    while waiting and (share := share_jobs(total - sum(handed), waiting, len(handed))):
        handed.append(share)
        waiting.pop(0)
    assert handed == shares


@given(free=st.integers(0, 300))
def test_databases_side_by_side_take_no_more_than_half_of_the_free_connections(free: int) -> None:
    jobs, running = several.shares(None, free)
    assert 1 <= running <= MAX_RUNNING
    assert jobs >= 1
    if free >= 2 * (SESSIONS_BESIDE + 1):
        assert jobs + running * SESSIONS_BESIDE <= free // 2
    else:  # each is told by its own preflight that there is no room
        assert (jobs, running) == (1, 1)


def test_jobs_that_were_named_are_shared_out_as_they_are() -> None:
    assert several.shares(6, 1000) == (6, MAX_RUNNING)


def target(**settings: object) -> Target:
    config = Config.model_validate(
        {
            "stores": {"disk": {"url": "file:///x"}},
            "targets": {"app": {"conninfo": "host=h dbname=one", "stores": ["disk"], **settings}},
        }
    )
    return Target("app", config.target("app"), config)


def test_only_an_exact_name_or_a_stated_pattern_excludes() -> None:
    settings = target(databases="*", exclude_databases=["prod", "t_*", "a[b]"]).settings
    names = ("prod", "prod-eu", "Prod", "t_1", "xt_1", "a[b]", "ab", "one")
    assert [name for name in names if excluded_by(settings, name)] == ["prod", "t_1", "a[b]", "ab"]
    assert covers(settings, "prod-eu")
    assert not covers(settings, "prod")
    assert covers(target().settings, "one")
    assert not covers(target().settings, "two")


def test_a_target_of_one_database_takes_no_other() -> None:
    assert bind(target(), "one") == target()
    with pytest.raises(ConfigError, match="has the database 'one' only"):
        bind(target(), "two")
    with pytest.raises(ConfigError, match="its databases are a, b"):
        bind_covered(target(databases=["a", "b"]), "c")
    assert bind(target(databases=["a", "b"]), "c").database == "c", "it may have backups all the same"


def test_another_process_gets_the_same_configuration_and_the_secrets_of_prefect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "pgsteward.config_stores._secret_resolvers", {"prefect_secret": lambda name: f"<{name}>"}
    )
    ours = target(
        databases=["a"],
        password={"prefect_secret": "block"},
        maintenance={"password": {"env": "X"}},
        sessions=[{"table": "t", "expires": "e"}],
        index_bloat={"min_reclaimable": "50MB"},
    )
    dumped, secrets = side_by_side._portable(bind(ours, "a"))
    assert list(secrets.values()) == ["<block>"]
    assert "<block>" not in json.dumps(dumped)
    loaded = Config.model_validate(json.loads(json.dumps(dumped)))
    monkeypatch.setenv(next(iter(secrets)), "<block>")
    there = Target("app", loaded.target("app"), loaded, "a")
    assert there.login("backup") == bind(ours, "a").login("backup")
    assert there.settings.model_copy(update={"password": ours.settings.password}) == ours.settings


PARENT = """\
import sys
sys.path.insert(0, sys.argv[1])
from pgsteward import side_by_side
from pgsteward.config import Config
from pgsteward.targets import Target
settings = {"conninfo": "host=h dbname=one", "stores": ["disk"], "databases": ["a"]}
config = Config.model_validate({"stores": {"disk": {"url": "file:///x"}}, "targets": {"app": settings}})
target = Target("app", config.target("app"), config, "a")
print(side_by_side.run_side_by_side("pgsteward.only_here:say", "backup", [target], 1, {}, lambda *_: None))
"""


def test_another_process_runs_the_code_of_this_one_and_none_of_the_current_folder(tmp_path: Path) -> None:
    ours, decoy = tmp_path / "ours", tmp_path / "decoy"
    shutil.copytree(Path(several.__file__).parent, ours / "pgsteward")
    (ours / "pgsteward" / "only_here.py").write_text(
        "from pgsteward.results import StepResult\n"
        "def say(target, progress):\n"
        "    return StepResult('backup', target.name, 'ok', 1, summary='said here')\n"
    )
    (decoy / "pgsteward").mkdir(parents=True)
    for name in ("pgsteward/__init__.py", "json.py"):
        (decoy / name).write_text("raise SystemExit('the wrong code')")
    found = subprocess.run(
        [sys.executable, "-P", "-c", PARENT, str(ours)], cwd=decoy, capture_output=True, text=True, check=True
    )
    assert "said here" in found.stdout
