"""Thousands of made-up histories: what is kept is what restic's documentation says, and nothing else is hurt.

``PGSTEWARD_HISTORIES=100000`` makes a long run of it, ``PGSTEWARD_SEED`` another one. Each history is a store
in memory with the catalogs of several targets and databases whose names are alike; one of them is surveyed,
decided about and pruned by the code that does it at night.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from random import Random
from zoneinfo import ZoneInfo

import pytest

from pgsteward.backup.manifest import (
    MANIFEST,
    SEAL,
    Manifest,
    Proof,
    Server,
    StoredFile,
    backup_prefix,
    catalog_prefix,
    seal,
)
from pgsteward.backup.receipts import Compared, Receipt
from pgsteward.backup.removing import remove_backup
from pgsteward.config import RetentionConfig
from pgsteward.keep_rules import Backup, apply_policy, asks_first
from pgsteward.retention import Plan, make_plans
from pgsteward.retention_catalog import survey
from pgsteward.spans import Span
from tests.memory_store import MemoryStore
from tests.restic_rules import Made, beginning, kept

HISTORIES = int(os.environ.get("PGSTEWARD_HISTORIES", "2000"))
SEED = os.environ.get("PGSTEWARD_SEED", "1")
CHUNKS = 8

RECEIPT = re.compile(r"/receipts/[^/]+\.json$")
DAY = timedelta(days=1)
ZONES = (
    *("UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Pacific/Apia", "America/Havana"),
    *("America/Sao_Paulo", "Australia/Lord_Howe", "Antarctica/Casey", "Africa/Casablanca"),
)
TARGETS = ("prod", "prod-eu", "pro", "prod2", "p")
DATABASES = ("app", "app-eu", "app/eu", "App", "ap", "app.", ".", "receipts", "Order Lines", "Order Lines 2")
KINDS = ((), (), (), ("tables app.jobs only",), ("schemas app only",))
SPANS = ("1h", "36h", "1d", "7d", "30d", "1m", "2m3d", "3m", "1y", "1y1m1d1h", "5y")

# Where calendars are hard: clocks that change, leap days, weeks of two years, days that were left out.
BORDERS = (
    *("2026-03-29T01:00", "2026-10-25T01:00", "2026-11-01T06:00", "2026-03-08T07:00", "2018-02-18T02:00"),
    *("2026-04-04T15:00", "2010-03-04T15:00", "2011-12-30T10:00", "2024-02-29T12:00", "2025-03-01T00:00"),
    *("2028-02-29T23:59", "2100-03-01T00:00", "2026-12-31T23:00", "2021-01-03T23:30", "2020-12-31T12:00"),
    *("2026-03-31T22:00", "2025-12-29T00:30", "2026-03-18T02:00"),
)


@dataclass
class History:
    """One case, and how it was made."""

    target: str
    database: str
    backups: list[Made]
    rules: dict[str, object]
    now: datetime

    @cached_property
    def policy(self) -> RetentionConfig:
        return RetentionConfig.model_validate(self.rules)


def make_rules(random: Random) -> dict[str, object]:
    rules: dict[str, object] = {"time_zone": random.choice(ZONES)}
    counts = ("last", "hourly", "daily", "weekly", "monthly", "yearly")
    while not any(key.startswith("keep") for key in rules):
        for name in counts:
            if random.random() < 0.35:
                rules[f"keep_{name}"] = random.choice((1, 1, 2, 3, 5, 8, 100))
        for name in ("", *counts[1:]):
            if random.random() < 0.12:
                rules[f"keep_within_{name}".rstrip("_")] = random.choice(SPANS)
    if random.random() < 0.6:
        rules["keep_min"] = random.randint(1, 4)
    if random.random() < 0.6:
        rules["keep_proven"] = random.randint(1, 4)
    return rules


def nightly(random: Random, start: datetime, number: int) -> list[datetime]:
    return [start - n * DAY + timedelta(seconds=random.randint(0, 90)) for n in range(number)]


def hourly(random: Random, start: datetime, number: int) -> list[datetime]:
    step = random.choice((10, 20, 30, 60, 90))
    return [start + timedelta(hours=3) - n * timedelta(minutes=step) for n in range(number)]


def scattered(random: Random, start: datetime, number: int) -> list[datetime]:
    widest = random.choice((3, 60, 800, 5000))
    return [start - timedelta(seconds=random.uniform(0, widest * 86400)) for _ in range(number)]


def with_gaps(random: Random, start: datetime, number: int) -> list[datetime]:
    at, found = start, []
    for _ in range(number):
        found.append(at)
        at -= DAY * random.choice((1, 1, 1, 1, 2, 7, 31, 90, 400))
    return found


def at_midnights(random: Random, start: datetime, number: int) -> list[datetime]:
    """Right at, right before and right after the borders of a zone's days."""
    zone = ZoneInfo(random.choice(ZONES))
    day = start.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0)
    found = [(day - random.randint(0, 40) * DAY).astimezone(UTC) for _ in range(number)]
    return [at + timedelta(seconds=random.choice((-1, 0, 0, 1))) for at in found]


SHAPES: tuple[Callable[[Random, datetime, int], list[datetime]], ...] = (
    nightly,
    hourly,
    scattered,
    with_gaps,
    at_midnights,
)


def make_history(seed: str) -> History:
    random = Random(seed)
    start = datetime.fromisoformat(random.choice(BORDERS)).replace(tzinfo=UTC)
    start += timedelta(minutes=random.randint(-200, 200)) + random.choice((0, 0, 1, 30)) * DAY
    times: list[datetime] = []
    for _ in range(random.choice((1, 1, 2, 3))):
        times += random.choice(SHAPES)(random, start, random.randint(0, 20))
    if times and random.random() < 0.3:  # duplicates
        times += random.choices(times, k=random.randint(1, 3))
    if random.random() < 0.2:  # clocks that were wrong for a night
        jumps = (-20 * 365 * DAY, -DAY, DAY, 400 * DAY, timedelta(hours=-1), timedelta(hours=1))
        times += [start + random.choice(jumps) for _ in range(random.randint(1, 3))]
    newest = max(times, default=start)
    now = random.choice((start, newest, newest + timedelta(hours=1), newest + DAY, newest + 900 * DAY))
    proven = random.choice((0.0, 0.1, 0.5))
    unsound = random.choice((0.0, 0.0, 0.15))
    kinds = random.choice((KINDS[:1], KINDS))
    backups = [
        Made(
            f"{at:%Y%m%dT%H%M%SZ}-{random.getrandbits(16):02x}{number:04x}"[:23],
            at,
            random.random() < proven,
            random.choice(kinds),
            random.random() >= unsound,
        )
        for number, at in enumerate(times)
    ]
    unique = {each.name: each for each in backups}
    return History(
        random.choice(TARGETS), random.choice(DATABASES), [*unique.values()], make_rules(random), now
    )


BASE = Manifest(
    backup_id="20261123T020000Z-7f3a9c",
    target="t",
    database="d",
    started_at=datetime(2026, 1, 1, tzinfo=UTC),
    finished_at=datetime(2026, 1, 1, tzinfo=UTC),
    pgsteward_version="0",
    server=Server(
        version="17", version_num=170000, system_identifier="1", encoding="UTF8", collate="C", ctype="C"
    ),
    client_version="17.0",
    arguments=(),
    compress="none",
    jobs=1,
    snapshot_id="1",
    snapshot_lsn=None,
    database_bytes=1,
    files=(
        StoredFile(path="dump/toc.dat", size_bytes=1, sha256="0" * 64),
        StoredFile(path="globals.sql.zst", size_bytes=1, sha256="0" * 64),
    ),
    proof=Proof(level="none"),
)


BASE_FIELDS = BASE.model_dump(mode="json")


def put_backup(store: MemoryStore, target: str, database: str, made: Made, random: Random) -> None:
    """Store a backup; one that is not sound lacks a file, or has a receipt that is red or can't be read."""
    fields = BASE_FIELDS | {
        "backup_id": made.name,
        "target": target,
        "database": database,
        "started_at": made.at.isoformat(),
        "partial": list(made.kind),
    }
    prefix = backup_prefix(target, database, made.name)
    for file in BASE.files:
        store.kept[prefix + file.path] = b"x"
    sealed = {**fields, SEAL: seal(fields)}  # in one line, which is read as well and written faster
    store.kept[prefix + MANIFEST] = json.dumps(sealed, separators=(",", ": ")).encode()
    how = random.randrange(4)
    if made.proven:
        put_receipt(store, target, database, made, "green")
    if not made.sound and how == 0:
        store.kept[prefix + "dump/toc.dat"] = b""
    elif not made.sound and how == 1:
        del store.kept[prefix + "globals.sql.zst"]
    elif not made.sound:
        key = put_receipt(store, target, database, made, "red")
        if how == 3:
            store.kept[key] = b"{"


def put_receipt(store: MemoryStore, target: str, database: str, made: Made, verdict: str) -> str:
    at = made.at + timedelta(minutes=1 if verdict == "green" else 2)
    key = f"{catalog_prefix(target, database)}receipts/{at:%Y%m%dT%H%M%S.%fZ}-{made.name}.json"
    receipt = Receipt(
        previous_sha256=None,
        written_at=at,
        backup_id=made.name,
        target=target,
        database=database,
        store=store.name,
        what="restore",
        pgsteward_version="0",
        proof=Compared(level="full", relations=1, rows=1, equal=verdict == "green"),
        verdict="green" if verdict == "green" else "red",
    )
    store.kept[key] = receipt.to_bytes()
    return key


def put_neighbours(store: MemoryStore, history: History, random: Random) -> set[str]:
    """Store what must never be touched: other databases, other targets, damage, strangers' files."""
    before = set(store.kept)
    for _ in range(random.randint(1, 4)):
        target, database = random.choice(TARGETS), random.choice(DATABASES)
        if (target, database) == (history.target, history.database):
            continue
        for made in random.sample(history.backups, min(2, len(history.backups))):  # ids that are alike, too
            put_backup(store, target, database, made, random)
    own = backup_prefix(history.target, history.database, "20200101T000000Z-ffffff")
    store.kept[own + MANIFEST] = b"{}"  # a damaged backup
    store.kept[own + "dump/toc.dat"] = b"x"
    if history.backups:
        old = random.choice(history.backups).name
        store.kept[backup_prefix(history.target, history.database, old) + "notes.txt"] = b"somebody's"
        store.kept[backup_prefix(history.target, history.database, old + "-copy") + "dump/toc.dat"] = b"x"
    return set(store.kept) - before


def planned(store: MemoryStore, history: History, now: datetime) -> Plan:
    catalog = survey(store, history.target, history.database)
    (plan,) = make_plans([catalog], lambda name: history.policy, now)
    return plan


def names(plan: Plan, *, keep: bool) -> set[str]:
    return {decision.backup_id for decision in plan.decisions if decision.keep is keep}


@pytest.mark.timeout(0)
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_what_is_kept_is_what_restics_rules_and_the_floors_say(chunk: int) -> None:
    seen = {"backups": 0, "removed": 0, "neighbours": 0}
    for number in range(chunk, HISTORIES, CHUNKS):
        check(f"{SEED}/{number}", seen)
        if number // CHUNKS % 1000 == 999:
            print(f"{number // CHUNKS + 1} histories: {seen}", flush=True)  # of a long run, with -s
    assert min(seen.values()) > 0, "it was about nothing"


def check(seed: str, seen: dict[str, int]) -> None:
    history, random = make_history(seed), Random(seed + "/store")
    store = MemoryStore()
    for made in history.backups:
        put_backup(store, history.target, history.database, made, random)
    foreign = put_neighbours(store, history, random)
    receipts = {key for key in store.kept if RECEIPT.search(key)}
    before = dict(store.kept)

    plan = planned(store, history, history.now)
    expected = kept(history.backups, history.rules, history.now)
    gone = names(plan, keep=False)
    assert names(plan, keep=True) == expected, seed
    assert gone == {made.name for made in history.backups} - expected, seed
    assert all(decision.reasons for decision in plan.decisions), seed
    check_floors(history, gone, plan, seed)

    for manifest in plan.doomed:
        remove_backup(store, history.target, manifest, {})
    removed = set(before) - set(store.kept)
    own = {
        backup_prefix(history.target, history.database, name) + path
        for name in gone
        for path in (MANIFEST, *(file.path for file in BASE.files))
    }
    assert removed == own & set(before), seed
    assert not removed & (foreign | receipts), seed
    assert all(store.kept[key] == before[key] for key in store.kept), seed  # and nothing is new

    after = dict(store.kept)
    for manifest in plan.doomed:  # once more, as after a kill
        remove_backup(store, history.target, manifest, {})
    again = planned(store, history, history.now)
    assert store.kept == after, seed
    assert names(again, keep=True) == expected, seed
    assert not again.doomed, seed

    check_later(history, gone, random, seed)
    seen["backups"] += len(history.backups)
    seen["removed"] += len(gone)
    seen["neighbours"] += len(foreign)


def check_floors(history: History, gone: set[str], plan: Plan, seed: str) -> None:
    policy = history.policy
    assert not gone & {each.name for each in history.backups if each.at > history.now}, seed
    assert not gone & {each.name for each in history.backups if not each.sound}, seed
    judged = [each for each in history.backups if each.sound and each.at <= history.now]
    for kind in {each.kind for each in judged}:
        newest = sorted((e for e in judged if e.kind == kind), key=lambda e: (e.at, e.name), reverse=True)
        assert not gone & {each.name for each in newest[: policy.keep_min]}, seed
        proven = [each for each in newest if each.proven]
        assert not gone & {each.name for each in proven[: policy.keep_proven]}, seed
    sound = sum(each.sound for each in history.backups)
    assert asks_first(plan.decisions, plan.catalog.backups) is (2 * len(gone) > sound), seed


def check_later(history: History, gone: set[str], random: Random, seed: str) -> None:
    """Nothing that was removed would be wanted back: with time alone, or with newer backups."""
    known = [Backup(e.name, e.at, e.proven, e.kind, "" if e.sound else "damaged") for e in history.backups]
    newer = Backup("99991231T235959Z-ffffff", history.now + DAY, random.random() < 0.5)
    for later, more in (
        (timedelta(minutes=random.randint(1, 90)), []),
        (DAY, [newer]),
        (DAY * random.randint(2, 400), [newer]),
    ):
        decisions = apply_policy([*known, *more], history.policy, history.now + later)
        wanted = {decision.backup_id for decision in decisions if decision.keep}
        assert not gone & wanted, f"{seed} {later}"


def test_partial_backups_never_push_out_or_save_a_whole_one() -> None:
    for number in range(min(HISTORIES, 400)):
        history = make_history(f"{SEED}/kinds/{number}")
        everything = [Backup(e.name, e.at, e.proven, e.kind) for e in history.backups]
        whole = [backup for backup in everything if not backup.partial]
        of_all = {d.backup_id: d for d in apply_policy(everything, history.policy, history.now)}
        for decision in apply_policy(whole, history.policy, history.now):
            assert of_all[decision.backup_id] == decision, number


def test_a_store_is_behind_when_it_lacks_the_newest_backup_of_any_kind() -> None:
    now = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)
    partial = KINDS[-1]
    whole = Made("20261101T020000Z-000001", now - 22 * DAY)
    parts = [
        Made(f"202611{n}T020000Z-00000{n - 18}", now - (23 - n) * DAY, kind=partial) for n in (20, 21, 22)
    ]
    disk, s3, spool = MemoryStore("disk"), MemoryStore("s3"), MemoryStore("spool")
    for store, held in ((disk, [whole, *parts]), (s3, parts), (spool, [])):
        for made in held:
            put_backup(store, "prod", "app", made, Random(0))

    def plans(*stores: MemoryStore, waiting: MemoryStore = spool) -> list[Plan]:
        policy = RetentionConfig(keep_last=1, keep_min=1)
        catalogs = [survey(store, "prod", "app") for store in stores]
        return make_plans(catalogs, lambda name: policy, now, [survey(waiting, "prod", "app")])

    assert [names(plan, keep=False) for plan in plans(disk, s3)] == [{p.name for p in parts[:2]}] * 2
    newer = Made("20261123T020000Z-00000a", now - timedelta(hours=1))
    put_backup(disk, "prod", "app", newer, Random(0))
    first, second = plans(disk, s3)
    assert names(first, keep=False) == {whole.name, *(p.name for p in parts[:2])}
    assert newer.name in second.stays_because
    assert not second.doomed
    assert names(second, keep=True) == {p.name for p in parts}
    (waits,) = plans(s3, waiting=disk)
    assert newer.name in waits.stays_because, "it is still to be uploaded"
    assert plans(spool)[0].decisions == ()


def test_the_beginning_of_a_span_never_goes_back_in_time() -> None:
    random = Random(SEED)
    for border, span in ((b, s) for b in BORDERS for s in SPANS):
        at = datetime.fromisoformat(border).replace(tzinfo=UTC) - 40 * DAY
        before = Span.parse(span).before(at)
        for _ in range(60):
            at += timedelta(minutes=random.randint(1, 3000))
            now = Span.parse(span).before(at)
            assert now == beginning(at, span)
            assert now >= before, (at, span)
            before = now
