from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pgsteward import report, results
from pgsteward.report.markdown import code, escape
from pgsteward.report.units import figure, humanize_bytes, humanize_seconds, label
from pgsteward.results import Item, NightResult, Note, StepResult

GOLDEN = Path(__file__).parent / "golden"
TWO = datetime(2026, 11, 23, 2, tzinfo=UTC)


def step(name: str, status: results.Status = "ok", examined: int = 1, **more: object) -> StepResult:
    return StepResult(name, "app", status, examined, **more)  # type: ignore[arg-type]


def backup() -> StepResult:
    return step(
        "backup",
        examined=14,
        changed=(Item("20261123T020000Z-7f3a9c", "created"),),
        seconds=4.2,
        summary="Backup 20261123T020000Z-7f3a9c is complete",
        details={
            "backup_id": "20261123T020000Z-7f3a9c",
            "bytes": 12_345_678,
            "files": 17,
            "proof": {"level": "full", "rows": 1_234_567, "relations": 12},
            "stores": ["disk"],
        },
    )


def reindex(*, dry_run: bool = False) -> StepResult:
    facts = {"bytes_before": 70_000_000, "bytes_after": 21_000_000, "seconds": 0.4}
    return step(
        "reindex",
        examined=5,
        changed=(
            Item(
                'app."Order Lines|key"', "would rebuild" if dry_run else "rebuilt", {} if dry_run else facts
            ),
        ),
        skipped=(Note("public.jobs_search_idx", "gin: not measurable by pgstatindex"),),
        seconds=0.9,
        summary="1 of 5 indexes",
        dry_run=dry_run,
    )


GOOD = NightResult(
    "app",
    "intowork",
    TWO,
    73.4,
    (
        step("janitor", examined=3, seconds=0.21, summary="Nothing was left behind"),
        backup(),
        step(
            "prune",
            examined=9,
            changed=(
                Item("20261101T020000Z-aaaaaa", "deleted", {"store": "disk", "reason": "no rule keeps it"}),
            ),
            seconds=0.1,
            summary="1 of 9 backups pruned",
        ),
        step(
            "sessions",
            changed=(Item("public.sessions", "deleted", {"rows": 700_000, "seconds": 3.3}),),
            seconds=3.4,
            summary="700,000 of 1,000,000 rows had expired",
        ),
        reindex(),
        results.skipped("matviews", "app", "there are no materialized views"),
    ),
)

BAD = NightResult(
    "app",
    "intowork",
    TWO,
    73.4,
    (
        step("janitor", examined=3, seconds=0.21, summary="Nothing was left behind"),
        backup(),
        step(
            "upload",
            "failed",
            0,
            failed=(Note("s3", "NoSuchBucket | <b>acme</b>\nsecond line"),),
            seconds=1.1,
            summary="Nothing was uploaded",
        ),
        results.skipped("prune", "app", "upload failed", blocked=True),
        step(
            "sessions",
            "partial",
            2,
            changed=(Item("public.sessions", "deleted", {"rows": 700_000, "seconds": 3.3}),),
            unknown=(Note('app."Log, old"', "permission denied for table"),),
            seconds=3.4,
            summary="700,000 rows deleted",
        ),
        step("bloat", "unknown", 0, unknown=(Note("app", "pgstattuple is not installed"),), summary="0 of 9"),
    ),
)


def listed(number: int, **more: object) -> dict[str, object]:
    """Return an entry of `pgsteward.backup.catalog.backups` for the backup of `number` nights ago."""
    started = datetime(2026, 11, 23, 2, tzinfo=UTC) - timedelta(days=number)
    return {
        "backup_id": f"{started:%Y%m%dT%H%M%SZ}-7f3a9c",
        "started_at": started.isoformat(),
        "finished_at": (started + timedelta(minutes=4)).isoformat(),
        "age_seconds": 20_000 + number * 86_400,
        "bytes": 12_345_678,
        "files": 17,
        "database_bytes": 98_765_432,
        "server_version": "17.10",
        "mode": "directory",
        "encrypted_to": [],
        "partial": [],
        "stores": ["disk", "s3"],
        "damaged_in": [],
        "state": "complete",
        "proof": {"level": "full", "rows": 1_234_567, "relations": 12, "not_examined": 0},
        "last_restore": None,
        "kept": [
            {"store": store, "keep": True, "reasons": [f"last {number + 1} of 3", f"daily {number + 1} of 7"]}
            for store in ("disk", "s3")
        ],
        "anomalies": [],
        "warnings": 0,
        "seconds": 245.0,
        **more,
    }


RESTORED = {
    "what": "drill",
    "at": "2026-11-21T04:00:00+00:00",
    "age_seconds": 190_000,
    "verdict": "green",
    "store": "s3",
    "into": "app_drill",
    "level": "full",
    "rows": 1_234_567,
    "differences": [],
    "seconds": 61.5,
}
EVERY_RULE = [
    "last 1 of 3",
    "daily 1 of 7",
    "weekly 1 of 4",
    "monthly 1 of 6",
    "one of the 2 newest (keep_min)",
    "newest proven",
]

BACKUPS = step(
    "backups",
    "partial",
    examined=2,
    summary="5 backups of intowork in 2 of 2 stores",
    findings=(
        Note("20261120T020000Z-7f3a9c", "a restore from s3 was not equal (public.jobs: 9 rows, not 10)"),
    ),
    unknown=(Note("20261119T020000Z-7f3a9c in disk", "dump/toc.dat is missing: it counts for no rule"),),
    details={
        "backups": [
            listed(
                0,
                kept=[{"store": s, "keep": True, "reasons": EVERY_RULE} for s in ("disk", "s3")],
                last_restore={**RESTORED, "what": "restore", "age_seconds": 4_000},
                state="proven",
            ),
            listed(1, partial=["tables: public.jobs only"], encrypted_to=["age1qqq"], mode="stream"),
            listed(2, last_restore=RESTORED, state="proven", anomalies=["public.jobs: has no rows now"]),
            listed(
                3,
                last_restore={**RESTORED, "verdict": "red", "what": "restore"},
                state="differs",
                kept=[
                    {"store": "disk", "keep": True, "reasons": ["daily 4 of 7"]},
                    {"store": "s3", "keep": False, "reasons": ["no rule keeps it"]},
                ],
            ),
            listed(4, stores=[], damaged_in=["disk"], state="damaged", kept=[]),
        ]
    },
)

ENCRYPTED_AND_FILTERED = {
    "backup_id": "20261123T020000Z-7f3a9c",
    "bytes": 12_345_678,
    "files": 4,
    "proof": {"level": "counts", "rows": 1_234_567, "relations": 12},
    "mode": "stream",
    "encrypted_to": ["age1qqq"],
    "partial": ["tables: public.jobs only", "data excluded: public.log"],
}

PREVIEW = NightResult("app", "intowork", TWO, 2.0, (reindex(dry_run=True),), dry_run=True)


@pytest.mark.parametrize("form", ["md", "txt"])
@pytest.mark.parametrize(
    "name, night",
    [
        pytest.param("night_good", GOOD, id="a-good-night"),
        pytest.param("night_bad", BAD, id="a-bad-night"),
        pytest.param("night_preview", PREVIEW, id="a-dry-run"),
    ],
)
def test_a_night_reads_as_it_always_did(name: str, night: NightResult, form: str) -> None:
    golden(f"{name}.{form}", report.markdown(night) if form == "md" else report.text(night))


def test_a_step_reads_as_it_always_did() -> None:
    golden("step.md", report.step_markdown(BAD.step("sessions")))
    golden("step.txt", report.step_text(BAD.step("sessions")))


def golden(name: str, text: str) -> None:
    file = GOLDEN / name
    if os.environ.get("PGSTEWARD_RENEW_GOLDEN"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    assert text == file.read_text()


def test_what_failed_stands_before_everything_else() -> None:
    text = report.text(BAD)
    assert text.index("upload failed: s3") < text.index("sessions unknown") < text.index("STEPS")
    assert text.startswith("FAILED")


def test_the_json_of_a_night_has_its_headline_as_summary() -> None:
    night = NightResult("app", "shop", TWO, 1, (results.failure("backup", "app", ValueError("disk full")),))
    assert night.as_json()["summary"] == report.headline(night)


def test_a_night_without_backup_says_so_in_its_verdict() -> None:
    night = NightResult("app", "shop", TWO, 1, (results.failure("backup", "app", ValueError("disk full")),))
    assert "There is no backup of this night" in report.text(night)
    assert "backup failed: app: disk full" in report.text(night)


def test_a_night_in_which_nothing_ran_is_not_ok() -> None:
    text = report.text(NightResult("app", "shop", TWO, 0, ()))
    assert text.startswith("UNKNOWN")
    assert "nothing ran" in text


def test_a_dry_run_never_claims_to_have_done_something() -> None:
    text = report.text(PREVIEW)
    assert "nothing was changed" in text
    assert "1 index to rebuild" in text


def test_a_script_stays_line_by_line() -> None:
    script = "-- one\nBEGIN;\n  SELECT 1;\nROLLBACK;\n"
    brought = step("restore-table", details={"merge": {"insert": "x"}, "merge_script": script})
    assert f"```sql\n{script}```" in report.step_markdown(brought)
    assert script in report.step_text(brought)


def test_long_lists_are_cut_and_counted() -> None:
    changed = tuple(Item(f"public.t{i}", "analyzed") for i in range(173))
    assert "and 123 more" in report.step_text(step("analyze", changed=changed))


def test_what_two_steps_say_in_the_same_words_is_said_once() -> None:
    dead = tuple(Note(f"public.i{i}", "not measurable before VACUUM") for i in range(14))
    steps = tuple(step(name, "partial", 5, unknown=dead) for name in ("bloat", "reindex"))
    attention = report.text(NightResult("app", "shop", TWO, 1, steps)).split("STEPS")[0]
    assert attention.count("bloat, reindex unknown: public.i3:") == 1
    assert "bloat, reindex unknown: 4 more objects: all of them are in the JSON" in attention


def test_the_table_has_one_row_a_step() -> None:
    rows = report.table(BAD)
    assert [row["step"] for row in rows] == [s.step for s in BAD.steps]
    assert rows[1]["took"] == "4.20 s"


def test_a_list_of_backups_says_what_each_is_worth_and_why_it_is_kept() -> None:
    text = report.step_text(BACKUPS)
    assert max(map(len, text.splitlines())) <= 130
    rows = {line.split()[0]: line for line in text.splitlines() if line.startswith("  2026")}
    assert [line[27:70].split("  ")[0] for line in rows.values()] == ["5 h", "1 d", "2 d", "3 d", "4 d"]
    newest, filtered, drilled, red, damaged = rows.values()
    assert "12.3 MB  4 min  full   green 1 h" in newest
    assert "last 1/3, daily 1/7" in newest
    assert "never" in filtered
    assert "PARTIAL, encrypted, stream; last 2/3" in filtered
    assert "green 2 d (drill)" in drilled
    assert "red 2 d" in red
    assert "NOT EQUAL; disk: daily 4/7; s3: prune" in red
    assert "DAMAGED in disk" in damaged
    assert "partial: 20261122T020000Z-7f3a9c: tables: public.jobs only" in text
    assert "finding: 20261120T020000Z-7f3a9c: a restore from s3 was not equal" in text
    assert "| `20261123T020000Z-7f3a9c` |" in report.step_markdown(BACKUPS)


def test_each_database_has_a_list_of_its_own() -> None:
    several = step(
        "backups",
        "partial",
        2,
        summary="2 databases: 1 done, 1 not as a whole (shop)",
        findings=(Note("shop", "there is no complete backup of it"),),
        details={
            "backups": [{"database": "app", **listed(0)}, {"database": "Order Lines", **listed(0, bytes=10)}],
            "databases": [{"database": name, "status": "ok"} for name in ("app", "Order Lines", "shop")],
        },
    )
    text = report.step_text(several)
    places = [
        text.index(words)
        for words in ("app: 1 backup, 24.7 MB", "Order Lines: 1 backup, 20 B", "finding: shop")
    ]
    assert places == sorted(places)


def test_the_rule_below_a_caption_is_as_wide_as_its_column() -> None:
    item = Item("public." + "x" * 100, "rebuilt", {"seconds": 12.0})
    lines = report.step_text(step("reindex", changed=(item,))).splitlines()
    above = next(i for i, line in enumerate(lines) if line.endswith("  took"))
    assert lines[above + 1].endswith("  ------")


def test_unknown_checks_that_say_the_same_are_one_line_that_names_them() -> None:
    checks = [
        {"check": "configuration", "status": "ok", "message": "read", "fix": ""},
        {"check": "Prefect: server", "status": "unknown", "message": "none is configured", "fix": "up"},
        {"check": "Prefect: leases", "status": "unknown", "message": "not looked at: no server", "fix": ""},
        {"check": "Prefect: worker", "status": "unknown", "message": "not looked at: no server", "fix": ""},
    ]
    text = report.step_text(step("doctor", "partial", 1, details={"checks": checks}))
    assert "Prefect: 2 more" in text
    assert "not looked at: no server: leases, worker" in text
    assert "none is configured" in text


def test_a_headline_is_one_sentence_with_numbers() -> None:
    assert report.headline(GOOD).startswith(
        "app: 5 of 6 steps did their work, 1 had nothing to do. Backup 2026"
    )


@pytest.mark.parametrize(
    "size, text",
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (12_345, "12.3 kB"),
        (999_499, "999 kB"),
        (999_600, "1.00 MB"),
        (1_250_000_000, "1.25 GB"),
        (-5000, "-5.00 kB"),
    ],
)
def test_bytes_have_three_digits(size: int, text: str) -> None:
    assert humanize_bytes(size) == text


@pytest.mark.parametrize(
    "seconds, text",
    [
        (0.041, "0.04 s"),
        (12.34, "12.3 s"),
        (59.96, "1 min 00 s"),
        (245, "4 min 05 s"),
        (3599.7, "1 h 00 min"),
        (7380, "2 h 03 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_seconds_grow_into_minutes_and_hours(seconds: float, text: str) -> None:
    assert humanize_seconds(seconds) == text


@pytest.mark.parametrize(
    "key, value, text",
    [
        ("bytes_before", 70_000_000, "70.0 MB"),
        ("freed_bytes", 0, "0 B"),
        ("seconds", 3.3, "3.30 s"),
        ("wait_s", 90, "1 min 30 s"),
        ("ratio", 0.694, "69%"),
        ("rows", 1_234_567, "1,234,567"),
        ("rows", None, "–"),
        ("valid", False, "no"),
        ("started_at", "2026-11-23T03:00:00+01:00", "2026-11-23 02:00:00 UTC"),
        ("stores", ["disk", "s3"], "disk, s3"),
        ("kept", {"bytes": 1000, "count": 2}, "size 1.00 kB, count 2"),
        ("seconds", {"dump": 0.27}, "dump 0.27 s"),
        ("longest_batch_ms", 5.4, "5.4 ms"),
        ("cutoff", "2026-11-23T17:13:22.843757+00:00", "2026-11-23 17:13:22 UTC"),
    ],
)
def test_a_key_names_its_unit(key: str, value: object, text: str) -> None:
    assert figure(key, value) == text


def test_captions_drop_the_unit() -> None:
    keys = ("bytes_before", "bytes_gained", "reclaimable_bytes", "backup_id", "waited_s", "seconds", "bytes")
    captions = ["before", "gained", "reclaimable size", "backup id", "waited", "took", "size"]
    assert [label(key) for key in keys] == captions


@pytest.mark.parametrize("name", ["a|b", "`", "a``b", "line\nbreak"])
def test_no_name_breaks_a_table(name: str) -> None:
    assert "\n" not in code(name)
    assert "|" not in code(name).replace("\\|", "")
    assert escape("<b>[x](y)|*") == r"\<b\>\[x\](y)\|\*"


def test_findings_are_told_from_work_that_was_not_done() -> None:
    audit = StepResult(
        step="indexes",
        target="app",
        status="partial",
        examined=6,
        findings=(Note("idx_jobs_status", "this required index is missing"),),
    )
    night = NightResult("app", "shop", datetime(2026, 11, 23, 2, tzinfo=UTC), 1.0, (audit,))
    assert report.text(night).startswith("FINDINGS  app: all work was done; 1 finding for a person (indexes)")
    assert "indexes finding: idx_jobs_status: this required index is missing" in report.text(night)
    assert "🔎\N{NO-BREAK SPACE}findings" in report.markdown(night)
    assert report.step_text(audit).startswith("FINDINGS")


def test_the_first_sentence_says_that_a_backup_is_encrypted_and_what_it_leaves_out() -> None:
    night = NightResult("app", "intowork", TWO, 4.0, (step("backup", details=ENCRYPTED_AND_FILTERED),))
    verdict = " ".join(report.text(night).split())
    assert "12.3 MB in 4 files, encrypted, 1,234,567 rows in 12 tables counted, holds only" in verdict
    assert "only a part of the database: tables: public.jobs only; data excluded: public.log)." in verdict
    assert "mode stream" in verdict


def test_a_backup_in_the_clear_of_everything_is_not_called_encrypted_or_partial() -> None:
    details = {**ENCRYPTED_AND_FILTERED, "encrypted_to": [], "partial": []}
    night = NightResult("app", "intowork", TWO, 4.0, (step("backup", details=details),))
    verdict = report.text(night)
    assert "encrypted" not in verdict
    assert "part of the database" not in verdict
