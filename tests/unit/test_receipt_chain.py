"""What becomes of a chain of receipts when somebody lays hands on it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pgsteward.backup import receipts
from pgsteward.backup.receipt_chain import NO_HEAD, Chain, examine_chain
from pgsteward.backup.receipts import HEAD, Compared, Receipt, page_key, receipts_prefix, write_receipt
from pgsteward.errors import StoreUnavailable
from tests.memory_store import MemoryStore

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
PREFIX = receipts_prefix("app", "Order Lines")


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def receipt(day: int, database: str = "Order Lines") -> Receipt:
    return Receipt(
        previous_sha256=None,
        written_at=NOON + timedelta(days=day),
        backup_id=f"202611{day + 1:02}T020000Z-00000{day}",
        target="app",
        database=database,
        store="memory",
        what="drill",
        pgsteward_version="0.1",
        proof=Compared(level="full", relations=3, rows=1000 + day, equal=True),
        seconds={"fetch": 1.5, "load": 60.0},
        verdict="green",
    )


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    for day in range(5):
        write_receipt(store, receipt(day))
    return store


def keys(store: MemoryStore) -> list[str]:
    return [key for key in sorted(store.kept) if key.endswith(".json") and not key.endswith(HEAD)]


def examine(store: MemoryStore) -> Chain:
    return examine_chain(store, "app", "Order Lines")


def test_a_chain_as_it_was_written_is_intact(store: MemoryStore) -> None:
    found = examine(store)
    assert (len(found.links), found.broken, found.odd, found.unknown) == (5, (), (), ())
    links = [link.receipt for link in found.links]
    assert [link.previous_sha256 for link in links if link] == [None, *(x.sha256 for x in found.links[:-1])]


def change(store: MemoryStore, number: int, *, with_page: bool = True) -> None:
    if not with_page:
        forget_pages(store)
    key = keys(store)[number]
    store.kept[key] = store.kept[key].replace(b'"rows": 100', b'"rows": 900')


def remove(store: MemoryStore, *numbers: int) -> None:
    for key in [keys(store)[number] for number in numbers]:
        del store.kept[key], store.kept[page_key(key)]


def exchange(store: MemoryStore, one: int, other: int) -> None:
    first, second = keys(store)[one], keys(store)[other]
    store.kept[first], store.kept[second] = store.kept[second], store.kept[first]


def forget_pages(store: MemoryStore) -> None:
    for key in keys(store):
        del store.kept[page_key(key)]


def rename(store: MemoryStore, number: int) -> None:
    key = keys(store)[number]
    later = key.replace("/202611", "/202711")
    for old, new in ((key, later), (page_key(key), page_key(later))):
        store.kept[new] = store.kept.pop(old)


def recount(store: MemoryStore, receipts: object) -> None:
    head = json.loads(store.kept[PREFIX + HEAD])
    store.kept[PREFIX + HEAD] = json.dumps(head | {"receipts": receipts}).encode()


@pytest.mark.parametrize(
    "harm, first, why",
    [
        pytest.param(lambda s: change(s, 0), 0, "was changed", id="the-first-changed"),
        pytest.param(lambda s: change(s, 2), 2, "was changed", id="changed"),
        pytest.param(lambda s: change(s, 4), 4, "was changed", id="the-newest-changed"),
        pytest.param(lambda s: remove(s, 2), 3, "missing between", id="missing"),
        pytest.param(lambda s: remove(s, 0, 1), 2, "beginning is cut off", id="beginning-cut"),
        pytest.param(lambda s: remove(s, 3, 4), 4, "is missing", id="end-cut"),
        pytest.param(lambda s: remove(s, *range(5)), 4, "is missing", id="all-gone"),
        pytest.param(lambda s: exchange(s, 1, 3), 1, "renamed, or changed", id="exchanged"),
        pytest.param(lambda s: rename(s, 1), 2, "out of order", id="renamed"),
        pytest.param(
            lambda s: s.kept.update({keys(s)[1]: b"{}"}), 1, "can't be read", id="something-else-in-its-place"
        ),
        pytest.param(lambda s: change(s, 2, with_page=False), 2, "changed after", id="changed-without-page"),
        pytest.param(
            lambda s: s.kept.update({PREFIX + HEAD: b"?"}), None, "can't be read", id="its-head-damaged"
        ),
        pytest.param(lambda s: recount(s, 7), None, "it counts 7 receipts", id="more-were-counted"),
        pytest.param(lambda s: recount(s, 4), None, "it counts 4 receipts", id="less-were-counted"),
        pytest.param(lambda s: recount(s, None), None, "can't be read", id="nothing-was-counted"),
    ],
)
def test_the_first_broken_link_is_named(
    store: MemoryStore, harm: Callable[[MemoryStore], object], first: int | None, why: str
) -> None:
    before = keys(store)
    harm(store)
    broken = examine(store).broken
    assert broken[0].object == (PREFIX + HEAD if first is None else before[first])
    assert why in broken[0].reason


def test_a_changed_page_is_named(store: MemoryStore) -> None:
    key = page_key(keys(store)[1])
    digest = hashlib.sha256(store.kept[keys(store)[1]]).hexdigest().encode()
    store.kept[key] = store.kept[key].replace(digest, b"0" * 64)
    (broken,) = examine(store).broken
    assert broken.object == key


def test_receipts_of_an_older_version_have_neither_page_nor_head(store: MemoryStore) -> None:
    forget_pages(store)
    del store.kept[PREFIX + HEAD]
    found = examine(store)
    assert found.broken == ()
    assert len(found.odd) == 5
    assert [note.reason for note in found.unknown] == [NO_HEAD]


class Shared(MemoryStore):
    """Lets other machines write before the first put of this one arrives."""

    meanwhile: Callable[[], object] | None = None

    def put_bytes(self, key: str, data: bytes, *, passing: bool = False) -> None:
        if (meanwhile := self.meanwhile) is not None:
            self.meanwhile = None
            meanwhile()
        super().put_bytes(key, data, passing=passing)


@pytest.mark.parametrize("slow", range(4), ids="after-{}".format)
def test_two_machines_that_write_at_the_same_time_break_no_chain(
    slow: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is slow, the other writes two meanwhile, whatever their clocks say; then one more is written."""
    monkeypatch.setattr(receipts, "_one_at_a_time", contextlib.nullcontext)  # of one machine only
    store = Shared()
    write_receipt(store, receipt(0))
    store.meanwhile = lambda: [write_receipt(store, receipt(day)) for day in (1, 2)]
    its_clock = NOON + timedelta(days=slow - 1, hours=1)
    write_receipt(store, receipt(3).model_copy(update={"written_at": its_clock}))
    found = examine(store)
    assert (len(found.links), found.broken, found.odd, found.unknown) == (4, (), (), ())
    assert found.forks
    assert all("two machines have written at one time" in note.reason for note in found.forks)
    write_receipt(store, receipt(8))
    later = examine(store)
    assert (len(later.links), later.broken, later.forks, later.unknown) == (5, (), found.forks, ())
    remove(store, 1)
    assert examine(store).broken, "and one that is missing is missed"


def test_many_at_a_time_on_one_machine_make_one_chain() -> None:
    store = MemoryStore()
    writers = [threading.Thread(target=write_receipt, args=(store, receipt(day))) for day in range(9)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    found = examine(store)
    assert (len(found.links), found.broken, found.odd, found.forks) == (9, (), (), ())


def test_the_page_says_what_an_auditor_wants_to_know(store: MemoryStore) -> None:
    key = keys(store)[1]
    page = store.kept[page_key(key)].decode()
    assert page.startswith("# Restore drill of Order Lines: green\n")
    assert "3 tables and 1,001 rows (full): all equal" in page
    assert hashlib.sha256(store.kept[key]).hexdigest() in page
    assert hashlib.sha256(store.kept[keys(store)[0]]).hexdigest() in page


class Failing(MemoryStore):
    """Refuses to write some keys a number of times."""

    def __init__(self, ending: str, times: int) -> None:
        super().__init__()
        self.ending, self.times = ending, times

    def put_bytes(self, key: str, data: bytes, *, passing: bool = False) -> None:
        if key.endswith(self.ending) and self.times:
            self.times -= 1
            raise StoreUnavailable("not now")
        super().put_bytes(key, data, passing=passing)


@pytest.mark.parametrize("ending, times", [(HEAD, 1), (".md", 2)])
def test_what_is_the_newest_is_written_though_something_failed_once(ending: str, times: int) -> None:
    store = Failing(ending, times)
    write_receipt(store, receipt(0))
    found = examine(store)
    assert (found.broken, found.unknown) == ((), ())


def test_a_head_that_lags_behind_leaves_open_whether_the_newest_are_there() -> None:
    store = Failing("none", 0)
    write_receipt(store, receipt(0))
    store.ending, store.times = HEAD, 4
    write_receipt(store, receipt(1))
    write_receipt(store, receipt(2))
    found = examine(store)
    assert found.broken == ()
    (note,) = found.unknown
    assert note.object == PREFIX + HEAD
    assert "older than 2 receipts" in note.reason
    write_receipt(store, receipt(3))
    assert (examine(store).broken, examine(store).unknown) == ((), ())
