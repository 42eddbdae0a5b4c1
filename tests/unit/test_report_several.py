"""Reports of a target with several databases: with 1, with 2 and with 12 of them, what is wrong first."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pgsteward import report, results
from pgsteward.databases import Found
from pgsteward.report import several as several_report
from pgsteward.results import Item, NightResult, Note, StepResult
from pgsteward.several import merge
from tests.unit.test_cli_output import on_a_terminal
from tests.unit.test_report import TWO, golden

NAMES = (
    *("Order Lines", "billing", "catalogue", "crm", "geo", "identity"),
    *("mailing", "reporting", "search", "shop", "shop-eu", "warehouse"),
)
LEFT_OUT = (Note("old_1", "excluded by 'old_*' (exclude_databases)"), Note("template1", "a template"))
FOUND = Found(
    NAMES,
    skipped=LEFT_OUT,
    unknown=(Note("payroll", "may not be connected to: GRANT CONNECT ON DATABASE payroll TO steward;"),),
)
NO_RIGHT = "this role can't dump the whole database (public.tenants: row-level security hides rows)"


def made(number: int, **details: object) -> StepResult:
    backup_id = f"20261123T0200{number:02}Z-7f3a9c"
    known: dict[str, Any] = {
        "backup_id": backup_id,
        "bytes": 600_000 + number,
        "files": 12,
        "proof": {"level": "full", "rows": 9_679, "relations": 10},
        "stores": ["disk"],
        "client_version": "17.10",
        "encrypted_to": [],
        "partial": [],
        "not_in_dump": [],
        "uncovered_databases": ["scratchpad"],
        "anomalies": [],
        "warnings": [],
        "retried": [],
        "lock_waiters": [],
    }
    return StepResult(
        "backup",
        "fleet",
        "ok",
        10,
        changed=(Item(backup_id, "dumped", {"bytes": 600_000 + number, "rows": 9_679}),),
        skipped=(Note("public.totals", "not populated"),),
        summary=f"Backup {backup_id} is complete in disk",
        seconds=0.5,
        details={**known, **details},
    )


def odd(number: int, **fields: Any) -> StepResult:
    part = made(number, **fields.pop("details", {}))
    return StepResult(**{**{name: getattr(part, name) for name in StepResult.__slots__}, **fields})


WAITER = {"pid": 4711, "role": "web", "application_name": "app", "table": "public.jobs", "seconds": 12.5}
ODD: dict[str, StepResult] = {
    "crm": odd(
        3,
        details={
            "lock_waiters": [WAITER],
            "warnings": ["pid 4711 (web app) waited 12.5 s for ACCESS EXCLUSIVE on public.jobs"],
            "retried": ["could not obtain lock on relation public.jobs"],
        },
    ),
    "geo": odd(
        4, details={"not_in_dump": ["public.far: a foreign table"], "partial": ["data excluded: public.log"]}
    ),
    "identity": results.failure("backup", "fleet", RuntimeError(NO_RIGHT), 1.1),
    "mailing": results.failure("backup", "fleet", RuntimeError(NO_RIGHT), 1.2),
    "search": odd(
        8,
        status="partial",
        unknown=(Note("locks", "who waits behind the dump was not watched all the time: connection lost"),),
    ),
    "warehouse": odd(
        11,
        status="partial",
        findings=(Note("public.big", "has no rows now, and had 5,000 or more in the 5 backups before"),),
        details={"anomalies": ["public.big: has no rows now"], "encrypted_to": ["age1qqq"]},
    ),
}


def backup(names: tuple[str, ...] = NAMES, found: Found = FOUND) -> StepResult:
    parts = [(name, ODD.get(name) or made(number)) for number, name in enumerate(names)]
    return merge("backup", "fleet", parts, found).took(9.0)


def prune(names: tuple[str, ...] = NAMES, found: Found = FOUND) -> StepResult:
    parts = []
    for name in names:
        if name in ("identity", "mailing"):
            parts.append((name, results.skipped("prune", "fleet", "backup failed", blocked=True)))
            continue
        decision = {"backup_id": "20261101T020000Z-aaaaaa", "store": "disk", "keep": False, "reasons": ["no"]}
        gone = Item("20261101T020000Z-aaaaaa", "removed", {"bytes": 600_000})
        details = {"decisions": [decision], "bytes": 600_000}
        parts.append(
            (
                name,
                StepResult(
                    "prune", "fleet", "ok", 3, changed=(gone,), details=details, summary="Removed 1 of 3"
                ),
            )
        )
    return merge("prune", "fleet", parts, found).took(0.5)


def indexes(names: tuple[str, ...] = NAMES, found: Found = FOUND) -> StepResult:
    parts = [(name, StepResult("indexes", "fleet", "ok", 24, summary="24 looked at")) for name in names]
    return merge("indexes", "fleet", parts, found).took(0.2)


TWELVE = NightResult("fleet", "*", TWO, 67.0, (backup(), prune(), indexes()))
CALM = Found(("Order Lines", "billing"))
PAIR = NightResult(
    "fleet",
    "Order Lines, billing",
    TWO,
    8.0,
    tuple(step(("Order Lines", "billing"), CALM) for step in (backup, prune, indexes)),
)


@pytest.mark.parametrize("form", ["md", "txt"])
@pytest.mark.parametrize(("name", "night"), [("night_twelve", TWELVE), ("night_two", PAIR)])
def test_a_night_over_several_databases_reads_as_it_always_did(
    name: str, night: NightResult, form: str
) -> None:
    golden(f"{name}.{form}", report.markdown(night) if form == "md" else report.text(night))


def test_the_headline_says_first_which_databases_are_not_well() -> None:
    assert report.headline(TWELVE).startswith(
        "fleet: 13 databases: 2 failed (identity, mailing), 1 unknown (payroll), 1 incomplete (search),"
        " 1 with findings (warehouse), 8 done. There is no backup of this night of identity, mailing,"
        " payroll; 10 of 13 databases backed up (6.00 MB, encrypted: warehouse, holding a part only: geo)"
    )
    assert report.headline(PAIR).startswith(
        "fleet: 2 databases: 2 done. 2 of 2 databases backed up (1.20 MB)"
    )


def test_twelve_databases_fit_on_two_screens_and_the_first_says_what_is_wrong() -> None:
    lines = report.text(TWELVE).splitlines()
    assert len(lines) <= 100
    assert max(map(len, lines)) <= 120
    first = "\n".join(lines[:25])
    for words in (
        "identity, mailing: " + NO_RIGHT[:40],
        "payroll: may not be connected to",
        "public.big: has no rows",
    ):
        assert words in first
    assert first.count(NO_RIGHT[:40]) == 1, "what two databases say in the same words is said once"
    assert first.count("GRANT CONNECT ON DATABASE payroll") == 1, "and what every step says as well"


def test_each_database_has_a_row_the_worst_first() -> None:
    table = several_report.night_table(TWELVE)
    assert table is not None
    rows = {row[0]: row for row in table.rows}
    assert [row[0] for row in table.rows[:5]] == ["identity", "mailing", "payroll", "search", "warehouse"]
    assert rows["identity"][1:3] == ("failed", "NONE")
    assert rows["identity"][4] == "backup failed; prune skipped"
    assert rows["payroll"][4] == "all steps unknown"
    assert rows["search"][4] == "backup incomplete"
    assert rows["geo"][2] == "600 kB PARTIAL"
    assert rows["billing"][1:] == ("ok", "600 kB", "0.50 s", "–")
    assert len(rows) == 13


@pytest.mark.parametrize(
    "words",
    [
        pytest.param("4711  web   app               public.jobs  12.5 s", id="who-waited-for-a-lock"),
        pytest.param("retried              crm: could not obtain lock on relation public.jobs", id="retried"),
        pytest.param("not in dump          geo: public.far: a foreign table", id="not-in-the-dump"),
        pytest.param("partial              geo: data excluded: public.log", id="partial"),
        pytest.param("uncovered databases  scratchpad", id="what-all-say-is-said-once"),
        pytest.param("encrypted to         warehouse: age1qqq", id="encrypted"),
        pytest.param("search: locks: who waits behind the dump was not watched", id="not-watched"),
        pytest.param("Order Lines, billing, catalogue and 7 more: public.totals: not populated", id="alike"),
        pytest.param("skipped: template1: a template", id="left-out"),
    ],
)
def test_what_a_backup_has_to_say_is_on_the_page(words: str) -> None:
    assert report.text(TWELVE).count(words) == 1


def test_what_every_step_left_out_is_said_once() -> None:
    text = report.text(TWELVE)
    assert text.count("old_1") == 1
    assert report.markdown(TWELVE).count("old\\_1") + report.markdown(TWELVE).count("`old_1`") == 1


def test_a_step_that_broke_before_it_reached_any_database_is_in_the_headline() -> None:
    broken = results.failure("janitor", "fleet", RuntimeError("no connection"))
    night = NightResult("fleet", "*", TWO, 1.0, (broken, *PAIR.steps))
    assert report.headline(night).startswith(
        "fleet: janitor failed; 2 databases: 2 incomplete (Order Lines, billing)."
    )


@pytest.mark.parametrize(
    ("step", "status", "size"), [("backup", "failed", "NONE"), ("upload", "partial", "600 kB")]
)
def test_no_database_is_done_where_a_step_broke_for_all_of_them(step: str, status: str, size: str) -> None:
    broken = results.failure(step, "fleet", RuntimeError("no connection"))
    skipped = results.skipped("prune", "fleet", f"{step} failed", blocked=True)
    steps = [each for each in PAIR.steps if each.step not in (step, "prune")]
    table = several_report.night_table(NightResult("fleet", "*", TWO, 1.0, (broken, skipped, *steps)))
    assert table is not None
    assert table.statuses == (status, status)
    assert [row[4] for row in table.rows] == [f"{step} failed; prune skipped"] * 2
    assert table.rows[0][2] == size


def test_a_finding_that_concerns_no_single_database_is_in_the_headline() -> None:
    parts = [(name, StepResult("indexes", "fleet", "ok", 24)) for name in CALM.names]
    missing = merge("indexes", "fleet", parts, CALM, (Note("public.by_day", "is missing in every database"),))
    night = NightResult("fleet", "*", TWO, 1.0, (*PAIR.steps[:2], missing))
    assert report.headline(night).startswith("fleet: indexes with findings; 2 databases: 2 done.")


def test_only_what_was_kept_from_running_is_left_to_the_table() -> None:
    why = "its last 3 rebuilds failed; it is left alone until it has grown"
    left = StepResult("reindex", "fleet", "ok", 4, skipped=(Note("public.by_day", why),))
    parts = [("billing", results.skipped("reindex", "fleet", "bloat failed", blocked=True)), ("geo", left)]
    night = NightResult("fleet", "*", TWO, 1.0, (*PAIR.steps, merge("reindex", "fleet", parts, CALM)))
    section = report.text(night).split("reindex")[-1]
    assert why in section
    assert "bloat failed" not in section


def test_names_that_are_the_beginning_of_others_are_told_apart() -> None:
    assert several_report.split("shop: eu: t", ["shop", "shop: eu"]) == ("shop: eu", "t")
    assert several_report.split("shop-eu: t", ["shop", "shop-eu"]) == ("shop-eu", "t")
    assert several_report.split("public.t", ["shop"]) == ("", "public.t")


def test_one_step_over_several_lists_every_database() -> None:
    text = report.step_text(backup())
    for name in (*NAMES, "payroll"):
        assert any(line.startswith(f"  {name} ") for line in text.splitlines()), name
    assert max(map(len, text.splitlines())) <= 120
    json.dumps(backup().as_json())


def test_a_terminal_of_100_columns_shows_a_night_of_twelve() -> None:
    shown = on_a_terminal(
        "from pgsteward.cli_output import print_result\n"
        "from tests.unit.test_report_several import TWELVE\n"
        "print_result(TWELVE, as_json=False)"
    )
    assert max(map(len, shown.splitlines())) <= 100
    assert shown.index("Needs a person") < shown.index("what was not done") < shown.index("what happened")
