"""Which backups are kept, and why: restic's rules, and floors that no rule turns off."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgsteward.backup.freeze import freezing
from pgsteward.backup.listing import list_manifests
from pgsteward.backup.manifest import MANIFEST, MARK, Manifest, Proof, Server, StoredFile, backup_prefix
from pgsteward.backup.receipts import Compared, Entry, Receipt
from pgsteward.backup.removing import remove_backup
from pgsteward.config import RetentionConfig, StoreConfig
from pgsteward.errors import PreconditionError
from pgsteward.keep_rules import Backup, apply_policy, asks_first
from pgsteward.retention_catalog import Catalog, newest_judged, survey, undermined
from pgsteward.spans import Span
from pgsteward.storage import Store, StoredObject
from pgsteward.storage.folder import FolderStore
from tests.memory_store import MemoryStore

NOW = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)


def at(text: str, proven: bool = False) -> Backup:
    return Backup(text, datetime.fromisoformat(text).replace(tzinfo=UTC), proven)


def kept(backups: Sequence[Backup], policy: RetentionConfig, now: datetime = NOW) -> set[str]:
    return {decision.backup_id for decision in apply_policy(backups, policy, now) if decision.keep}


def policy(**rules: int | str) -> RetentionConfig:
    return RetentionConfig.model_validate({"keep_min": 1, **rules})


def nightly(days: int, hour: int = 2) -> list[Backup]:
    return [at(f"{NOW - timedelta(days=n):%Y-%m-%d}T{hour:02}:00") for n in range(days)]


@pytest.mark.parametrize(
    "rules, expected",
    [
        pytest.param({"keep_last": 3}, {"2026-11-23", "2026-11-22", "2026-11-21"}, id="last"),
        pytest.param({"keep_daily": 2}, {"2026-11-23", "2026-11-22"}, id="daily"),
        pytest.param(
            {"keep_weekly": 3}, {"2026-11-23", "2026-11-22", "2026-11-15"}, id="iso-weeks-end-on-sunday"
        ),
        pytest.param({"keep_monthly": 2}, {"2026-11-23", "2026-10-31"}, id="monthly"),
        pytest.param(
            {"keep_monthly": 9},
            {"2026-11-23", "2026-10-31", "2026-09-30", "2026-09-25"},
            id="oldest-fills-up",
        ),
        pytest.param({"keep_last": 1, "keep_monthly": 2}, {"2026-11-23", "2026-10-31"}, id="rules-are-ored"),
    ],
)
def test_sixty_nights_are_thinned_out(rules: dict[str, int], expected: set[str]) -> None:
    assert {name[:10] for name in kept(nightly(60), policy(**rules))} == expected


def test_only_days_that_have_a_backup_count() -> None:
    gaps = [at("2026-11-23T02:00"), at("2026-11-03T02:00"), at("2026-10-01T02:00"), at("2026-09-01T02:00")]
    assert kept(gaps, policy(keep_daily=3)) == {b.backup_id for b in gaps[:3]}


def test_the_newest_of_a_day_represents_it() -> None:
    assert kept(
        [at("2026-11-22T02:00"), at("2026-11-22T14:00"), at("2026-11-21T02:00")], policy(keep_daily=2)
    ) == {
        "2026-11-22T14:00",
        "2026-11-21T02:00",
    }


def test_each_kept_backup_names_every_rule_that_keeps_it() -> None:
    newest, *_, oldest = apply_policy(nightly(9), policy(keep_last=1, keep_daily=2, keep_min=1), NOW)
    assert newest.reasons == ("last 1 of 1", "daily 1 of 2", "one of the 1 newest (keep_min)")
    assert oldest.reasons == ("no rule keeps it",)


def test_calendar_borders_are_those_of_the_time_zone() -> None:
    both = [at("2026-11-22T23:30"), at("2026-11-22T22:30"), at("2026-11-01T00:00")]
    assert kept(both, policy(keep_daily=1)) == {"2026-11-22T23:30"}
    # 23:30 UTC is 00:30 of the next day in Berlin, 22:30 UTC is still the 22nd
    assert kept(both, policy(keep_daily=2, time_zone="Europe/Berlin")) == {
        "2026-11-22T23:30",
        "2026-11-22T22:30",
    }


def test_the_day_on_which_clocks_go_back_is_one_day() -> None:
    twice = [at("2026-10-25T01:30"), at("2026-10-25T00:30"), at("2026-10-24T00:30"), at("2026-10-20T00:30")]
    assert kept(twice, policy(keep_daily=2, time_zone="Europe/Berlin")) == {
        "2026-10-25T01:30",
        "2026-10-24T00:30",
    }


def test_the_hour_that_comes_twice_is_one_hour_and_the_one_left_out_is_none() -> None:
    berlin = policy(time_zone="Europe/Berlin", keep_hourly=2)
    autumn = ["2026-10-25T01:30", "2026-10-25T00:45", "2026-10-25T00:15", "2026-10-24T23:50"]
    assert kept([at(text) for text in autumn], berlin) == {"2026-10-25T01:30", "2026-10-24T23:50"}
    spring = ["2026-03-29T01:10", "2026-03-29T00:50", "2026-03-29T00:10"]  # 03:10, 01:50, 01:10
    assert kept([at(text) for text in spring], berlin) == {"2026-03-29T01:10", "2026-03-29T00:50"}


def test_a_day_that_was_left_out_is_no_day() -> None:
    apia = [at("2011-12-31T02:00"), at("2011-12-30T02:00"), at("2011-12-29T02:00")]  # 31, 29 and 28 there
    assert kept(apia, policy(keep_daily=2, time_zone="Pacific/Apia")) == {
        "2011-12-31T02:00",
        "2011-12-30T02:00",
    }


def test_weeks_belong_to_iso_years() -> None:
    # Monday 30 December 2024 is in week 1 of 2025, Sunday 29 December in week 52 of 2024.
    days = [at("2025-01-05T02:00"), at("2024-12-30T02:00"), at("2024-12-29T02:00"), at("2024-12-22T02:00")]
    assert kept(days, policy(keep_weekly=2)) == {"2025-01-05T02:00", "2024-12-29T02:00"}
    assert kept(days, policy(keep_yearly=2)) == {"2025-01-05T02:00", "2024-12-30T02:00"}


@pytest.mark.parametrize(
    "span, expected",
    [
        pytest.param("1d", 2, id="exactly-at-the-edge-is-kept"),
        pytest.param("23h", 1, id="hours"),
        pytest.param("7d", 8, id="a-week"),
        pytest.param("1m", 31, id="a-month-of-the-calendar"),
        pytest.param("1m1d", 32, id="a-month-and-a-day"),
        pytest.param("1y", 60, id="all-of-them"),
    ],
)
def test_a_span_counts_back_from_the_newest_backup(span: str, expected: int) -> None:
    newest = NOW - timedelta(days=400)  # long ago: a source that has stopped
    history = [Backup(str(n), newest - timedelta(days=n)) for n in range(60)]
    assert len(kept(history, policy(keep_within=span))) == expected


def test_of_the_periods_in_a_span_the_newest_stay_and_the_oldest_backup_where_it_reaches_that_far() -> None:
    history = nightly(40)
    days = {name[5:10] for name in kept(history, policy(keep_within_weekly="20d"))}
    assert days == {"11-23", "11-22", "11-15", "11-08"}
    days = {name[5:10] for name in kept(history, policy(keep_within_monthly="1y"))}
    assert days == {"11-23", "10-31", "10-15"}
    oldest = apply_policy(history, policy(keep_within_monthly="1y"), NOW)[-1]
    assert oldest.reasons == ("oldest, as all are within 1y (monthly)",)


@pytest.mark.parametrize(
    "instant, span, begun",
    [
        ("2026-03-31T22:00", "1m", "2026-03-01T00:00"),
        ("2026-04-01T00:00", "1m", "2026-03-01T00:00"),
        ("2024-03-30T22:00", "1m", "2024-03-01T00:00"),
        ("2024-03-29T22:00", "1m", "2024-02-29T22:00"),
        ("2024-02-29T12:00", "1y", "2023-03-01T00:00"),
        ("2026-01-15T01:00", "1y2m3d4h", "2024-11-11T21:00"),
        ("2026-01-01T00:00", "9999y", "0001-01-01T00:00"),
        ("0001-02-01T00:00", "40d", "0001-01-01T00:00"),
    ],
)
def test_a_span_begins_where_the_calendar_says(instant: str, span: str, begun: str) -> None:
    end, start = (datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (instant, begun))
    assert Span.parse(span).before(end) == start


@pytest.mark.parametrize("text", ["", "7", "7w", "1d1d", "d", "-1d", "0d", "1.5d", " 7d", "7d3", "12345d"])
def test_what_is_no_span_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="a week is 7d"):
        Span.parse(text)


def test_so_many_proven_ones_stay_and_a_damaged_one_is_none_of_them() -> None:
    backups = [Backup(str(n), NOW - timedelta(days=n), proven=n in (4, 6, 8, 9)) for n in range(12)]
    backups[6] = replace(backups[6], left_alone="its newest receipt is red")
    decided = {d.backup_id: d for d in apply_policy(backups, policy(keep_last=1, keep_proven=2), NOW)}
    assert [d for d in decided if decided[d].keep] == ["0", "4", "6", "8"]
    assert decided["4"].reasons == ("newest proven",)
    assert decided["8"].reasons == ("one of the 2 newest proven (keep_proven)",)
    assert decided["6"].reasons == ("its newest receipt is red",)


def test_what_can_not_be_judged_pushes_nothing_out_and_makes_no_half_smaller() -> None:
    backups = [
        Backup(str(n), NOW - timedelta(days=n), left_alone="damaged" if n < 3 else "") for n in range(6)
    ]
    decided = apply_policy(backups, policy(keep_last=1), NOW)
    assert [decision.backup_id for decision in decided if decision.keep] == ["0", "1", "2", "3"]
    assert asks_first(decided, backups), "2 of 3 that could be judged"
    assert not asks_first(decided[:5], backups[:5]), "1 of 2"


def test_instants_of_other_zones_are_the_same_instants() -> None:
    east = Backup("east", datetime(2026, 11, 23, 1, 0, tzinfo=timezone(timedelta(hours=9))))
    assert kept([east, at("2026-11-22T15:00")], policy(keep_last=1)) == {"east"}


def test_a_stalled_source_keeps_its_last_backups_for_ever() -> None:
    old = [at("2020-01-01T02:00"), at("2020-01-02T02:00"), at("2020-01-03T02:00")]
    assert kept(old, policy(keep_daily=1, keep_min=2)) >= {"2020-01-02T02:00", "2020-01-03T02:00"}


def test_the_newest_proven_backup_stays_whatever_its_age() -> None:
    backups = [*nightly(5), at("2024-01-01T02:00", proven=True), at("2023-01-01T02:00", proven=True)]
    decided = {d.backup_id: d for d in apply_policy(backups, policy(keep_last=1, keep_proven=1), NOW)}
    assert decided["2024-01-01T02:00"].reasons == ("newest proven",)
    assert not decided["2023-01-01T02:00"].keep


def test_a_backup_of_the_future_stays_and_takes_nobodys_place() -> None:
    backups = [at("2031-01-01T02:00", proven=True), *nightly(3)]
    decided = apply_policy(backups, policy(keep_last=1), NOW)
    assert decided[0].reasons == ("dated in the future",)
    assert decided[1].keep
    assert not any(decision.keep for decision in decided[2:])


def test_an_empty_policy_is_refused() -> None:
    empty = RetentionConfig.model_construct(
        keep_last=0, keep_daily=0, keep_weekly=0, keep_monthly=0, keep_min=2, time_zone="UTC"
    )
    with pytest.raises(PreconditionError, match="empty retention policy"):
        apply_policy(nightly(3), empty, NOW)


def test_a_naive_now_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="aware"):
        apply_policy([], policy(keep_last=1), datetime(2026, 1, 1))  # noqa: DTZ001


histories = st.lists(
    st.builds(
        lambda minutes, proven: (NOW - timedelta(minutes=minutes), proven),
        st.integers(min_value=-3_000, max_value=60 * 24 * 500),
        st.booleans(),
    ),
    max_size=40,
).map(lambda rows: [Backup(f"{n:03}", when, proven) for n, (when, proven) in enumerate(rows)])
policies = st.builds(
    RetentionConfig,
    keep_last=st.integers(0, 5),
    keep_daily=st.integers(0, 8),
    keep_weekly=st.integers(0, 5),
    keep_monthly=st.integers(1, 8),
    keep_min=st.integers(1, 5),
    time_zone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Pacific/Apia"]),
)


@settings(max_examples=300, deadline=None)
@given(histories, policies)
def test_the_floors_hold_for_any_history(backups: list[Backup], rules: RetentionConfig) -> None:
    decided = apply_policy(backups, rules, NOW)
    keep = {decision.backup_id for decision in decided if decision.keep}
    present = sorted((b for b in backups if b.started_at <= NOW), key=lambda b: (b.started_at, b.backup_id))
    assert len(decided) == len(backups)
    assert keep >= {b.backup_id for b in backups if b.started_at > NOW}
    assert keep >= {b.backup_id for b in present[-rules.keep_min :]}
    assert keep >= {b.backup_id for b in [b for b in present if b.proven][-1:]}
    assert all(decision.reasons for decision in decided)


@settings(max_examples=300, deadline=None)
@given(histories, policies)
def test_what_was_pruned_once_needs_no_second_time(backups: list[Backup], rules: RetentionConfig) -> None:
    keep = kept(backups, rules)
    assert kept([b for b in backups if b.backup_id in keep], rules) == keep


@settings(max_examples=300, deadline=None)
@given(histories, policies, st.integers(1, 60 * 24 * 40))
def test_one_more_backup_never_brings_a_removed_one_back(
    backups: list[Backup], rules: RetentionConfig, later: int
) -> None:
    removed = {b.backup_id for b in backups} - kept(backups, rules)
    now = NOW + timedelta(minutes=later)
    assert not removed & kept([*backups, Backup("new", now)], rules, now)


@settings(max_examples=100, deadline=None)
@given(histories, policies, st.randoms(use_true_random=False))
def test_the_order_of_the_listing_does_not_matter(
    backups: list[Backup], rules: RetentionConfig, random: object
) -> None:
    shuffled = list(backups)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert apply_policy(shuffled, rules, NOW) == apply_policy(backups, rules, NOW)


def manifest_of(store: Store, database: str, number: int = 0) -> Manifest:
    backup_id = f"20261123T02000{number}Z-7f3a9c"
    manifest = Manifest(
        backup_id=backup_id,
        target="t",
        database=database,
        started_at=NOW,
        finished_at=NOW,
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
        files=(StoredFile(path="dump/toc.dat", size_bytes=1, sha256="0" * 64),),
        proof=Proof(level="none"),
    )
    prefix = backup_prefix("t", database, backup_id)
    store.put_bytes(prefix + "dump/toc.dat", b"x")
    store.put_bytes(prefix + "dump/not-ours.txt", b"x")
    store.put_bytes(prefix + MANIFEST, manifest.to_bytes())
    return manifest


@pytest.mark.parametrize(
    "database, neighbour",
    [
        pytest.param("app", "app-eu", id="prefix"),
        pytest.param("app", "app/eu", id="slash"),
        pytest.param("app", "App", id="case"),
        pytest.param(".", "..", id="dots"),
        pytest.param("Order Lines", "Order Lines 2", id="spaces"),
    ],
)
def test_databases_with_names_alike_never_touch_each_other(
    tmp_path: Path, database: str, neighbour: str
) -> None:
    store = FolderStore("disk", StoreConfig(url=f"file://{tmp_path}/store"))
    one, other = manifest_of(store, database), manifest_of(store, neighbour)
    assert list_manifests(store, "t", database) == ([one], [])
    before = {stored.key for stored in store.objects(backup_prefix("t", neighbour, other.backup_id))}
    remove_backup(store, "t", one, {})
    assert list_manifests(store, "t", database) == ([], [])
    assert list_manifests(store, "t", neighbour) == ([other], [])
    assert {stored.key for stored in store.objects(backup_prefix("t", neighbour, other.backup_id))} == before


def test_only_what_the_manifest_names_is_removed(tmp_path: Path) -> None:
    store = FolderStore("disk", StoreConfig(url=f"file://{tmp_path}/store"))
    one = manifest_of(store, "app")
    remove_backup(store, "t", one, {})
    assert [stored.key.rpartition("/")[2] for stored in store.objects("")] == ["not-ours.txt"]


class Watched(MemoryStore):
    """Keeps what was done, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[tuple[str, str]] = []

    def put_bytes(self, key: str, data: bytes, *, passing: bool = False) -> None:
        self.done.append(("put", key.rpartition("/")[2]))
        super().put_bytes(key, data, passing=passing)

    def delete(self, key: str) -> None:
        self.done.append(("delete", key.rpartition("/")[2]))
        super().delete(key)


def test_a_removal_is_marked_first_and_ends_the_backup_before_its_files() -> None:
    store = Watched()
    one = manifest_of(store, "app")
    store.done.clear()
    remove_backup(store, "t", one, {})
    assert store.done == [("put", MARK), ("delete", MANIFEST), ("delete", "toc.dat"), ("delete", MARK)]


class Interrupted(MemoryStore):
    """Lets another machine work when so many requests have been made."""

    def __init__(self, after: int, another: Callable[[], None]) -> None:
        super().__init__()
        self.left, self.another = after, another

    def _count(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.another()

    def get_bytes(self, key: str) -> bytes:
        self._count()
        return super().get_bytes(key)

    def put_bytes(self, key: str, data: bytes, *, passing: bool = False) -> None:
        self._count()
        super().put_bytes(key, data, passing=passing)

    def delete(self, key: str) -> None:
        self._count()
        super().delete(key)


@pytest.mark.parametrize("after", range(1, 13))
def test_two_machines_never_take_away_together_what_each_stands_on(after: int) -> None:
    """As when one has seen a receipt that the other has not: each removes what the other one keeps."""
    outcomes: list[str] = []

    def another() -> None:
        catalog = Catalog(store, {}, ())
        outcomes.append(remove_backup(store, "t", second, {}, lambda: undermined(catalog, [first], "t")))

    store = Interrupted(0, another)
    first, second = manifest_of(store, "app", 1), manifest_of(store, "app", 2)
    store.left = after
    catalog = Catalog(store, {}, ())
    outcomes.append(remove_backup(store, "t", first, {}, lambda: undermined(catalog, [second], "t")))
    left = {m.backup_id for m in list_manifests(store, "t", "app")[0]}
    assert len(outcomes) == (2 if store.left <= 0 else 1)
    assert len(left) >= 1
    assert len(left) == sum(map(bool, outcomes)) + (2 - len(outcomes))
    assert not any(key.endswith(MARK) for key in store.kept)


def test_a_copy_that_comes_while_its_backup_is_removed_is_none() -> None:
    store = Interrupted(0, lambda: None)
    one = manifest_of(store, "app")
    key = backup_prefix("t", "app", one.backup_id) + MANIFEST
    store.another = lambda: store.kept.__setitem__(key, one.to_bytes())
    store.left = 3  # when the first file is deleted
    assert remove_backup(store, "t", one, {}) == ""
    assert [k.rpartition("/")[2] for k in store.kept] == ["not-ours.txt"]


def test_what_a_listing_does_not_show_yet_is_read_before_a_backup_is_called_damaged() -> None:
    """As on a share whose folders another machine has just written into."""

    class Late(MemoryStore):
        def objects(self, prefix: str) -> Iterator[StoredObject]:
            return (stored for stored in super().objects(prefix) if not stored.key.endswith("toc.dat"))

    store = Late()
    digest = hashlib.sha256(b"x").hexdigest()
    manifest = manifest_of(store, "app")
    whole = manifest.model_copy(
        update={"files": (StoredFile(path="dump/toc.dat", size_bytes=1, sha256=digest),)}
    )
    prefix = backup_prefix("t", "app", manifest.backup_id)
    store.put_bytes(prefix + MANIFEST, whole.to_bytes())
    found = survey(store, "t", "app")
    assert (found.broken, found.unknown, found.backups[0].left_alone) == (frozenset(), (), "")
    store.delete(prefix + "dump/toc.dat")
    assert survey(store, "t", "app").broken == {manifest.backup_id}


def test_neither_a_damaged_backup_nor_one_of_the_future_makes_a_store_lag_behind() -> None:
    good = at("2026-11-20T02:00")
    damaged = replace(at("2026-11-21T02:00"), left_alone="damaged")
    future = at("2026-11-24T02:00")
    catalogs = [Catalog(MemoryStore(), {}, (future, damaged)), Catalog(MemoryStore(), {}, (good,))]
    assert newest_judged(catalogs, NOW) == good.backup_id
    assert newest_judged(catalogs[:1], NOW) is None


def test_what_is_red_or_can_not_be_read_freezes_until_it_is_cleared() -> None:
    def entry(number: int, verdict: str | None, *cleared: str) -> Entry:
        receipt = None
        if verdict is not None:
            receipt = Receipt(
                previous_sha256=None,
                written_at=NOW,
                backup_id=f"2026112{number}T020000Z-00000{number}",
                target="t",
                database="app",
                store="disk",
                what="verify",
                pgsteward_version="0",
                proof=Compared(level="none", relations=0, rows=0, equal=False),
                verdict=verdict,
                differences=cleared,
            )
        return Entry(f"t/app/receipts/{number}", "b", receipt)

    def frozen(*entries: tuple[str | None, *tuple[str, ...]]) -> list[str]:
        chain = [entry(number, *what) for number, what in enumerate(entries)]
        return [each.key.rpartition("/")[2] for each in freezing(chain)]

    assert frozen(("green",), ("red",), ("green",), (None,)) == ["1", "3"]
    cleared = ("cleared", "t/app/receipts/0", "t/app/receipts/1")
    assert frozen(("red",), (None,), cleared) == []
    assert frozen(("red",), (None,), ("cleared", "before/it/was/moved/0", "there/1")) == []
    assert frozen(("red",), ("cleared", "t/app/receipts/0"), ("red",), ("green",)) == ["2"]
    assert frozen(("red",), ("red",), ("cleared", "t/app/receipts/0")) == ["1"], (
        "told by another machine meanwhile"
    )
