"""A chain of receipts grows for ever, and each is an object of its own."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pgsteward.backup.freeze import freezing
from pgsteward.backup.reading import AT_ONCE, contents
from pgsteward.backup.receipts import Compared, Receipt, read_chain, write_receipt
from pgsteward.errors import StoreUnavailable
from tests.memory_store import MemoryStore

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


class Remote(MemoryStore):
    """Answers a request only when as many are there as may be at the same time."""

    def __init__(self) -> None:
        super().__init__()
        self.together = threading.Barrier(AT_ONCE, timeout=30)
        self.slow = False

    def get_bytes(self, key: str) -> bytes:
        if self.slow:
            self.together.wait()
        return super().get_bytes(key)


def test_receipts_are_read_at_the_same_time_and_stay_in_order() -> None:
    store = Remote()
    for day in range(2 * AT_ONCE):
        store_receipt(store, day, red=day in (3, 7))
    store.slow = True
    chain = read_chain(store, "app", "app")
    assert [entry.receipt.written_at for entry in chain if entry.receipt] == [
        NOON + timedelta(days=day) for day in range(2 * AT_ONCE)
    ]
    assert [entry.key for entry in freezing(chain)] == [chain[3].key, chain[7].key]


def test_a_store_that_fails_is_not_asked_for_the_rest() -> None:
    asked: list[str] = []

    class Down(MemoryStore):
        def get_bytes(self, key: str) -> bytes:
            asked.append(key)
            if key != "0":
                threading.Event().wait(0.05)  # so that all of them would take a minute
            raise StoreUnavailable("down")

    with pytest.raises(StoreUnavailable):
        contents(Down(), [str(number) for number in range(10_000)])
    assert len(asked) < 10_000


def store_receipt(store: MemoryStore, day: int, *, red: bool) -> None:
    receipt = Receipt(
        previous_sha256=None,
        written_at=NOON + timedelta(days=day),
        backup_id=f"202611{day + 1:02}T020000Z-0000{day:02}",
        target="app",
        database="app",
        store="memory",
        what="drill",
        pgsteward_version="0.1",
        proof=Compared(level="full", relations=3, rows=1, equal=not red),
        verdict="red" if red else "green",
    )
    write_receipt(store, receipt)
