"""A store in memory, for tests of what is decided and removed; real stores have tests of their own."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from pgsteward.progress import Progress
from pgsteward.storage import Sink, Spare, StoredObject, none_is_spared
from pgsteward.storage.plain import Plain
from pgsteward.storage.selftest import SelfTest

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


class _MemorySink(io.BytesIO):
    confirmed = False


class MemoryStore(Plain):
    """Speaks the whole protocol of `pgsteward.storage.Store`."""

    def __init__(self, name: str = "memory") -> None:
        self.name = name
        self.kept: dict[str, bytes] = {}

    @property
    def location(self) -> str:
        return f"memory://{self.name}"

    def put_file(self, key: str, path: Path) -> None:
        self.kept[key] = path.read_bytes()

    def put_bytes(self, key: str, data: bytes, *, passing: bool = False) -> None:
        self.kept[key] = data

    def put_new(self, key: str, data: bytes) -> bool:
        return self.kept.setdefault(key, data) is data

    @contextlib.contextmanager
    def writing(self, key: str, size_hint_bytes: int) -> Iterator[Sink]:
        sink = _MemorySink()
        yield sink
        self.kept[key] = sink.getvalue()

    def read(self, key: str) -> Iterator[bytes]:
        yield self.get_bytes(key)

    def get_bytes(self, key: str) -> bytes:
        if key not in self.kept:
            raise FileNotFoundError(key)
        return self.kept[key]

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        for key in sorted(self.kept):
            if key.startswith(prefix):
                yield StoredObject(key, len(self.kept[key]), LONG_AGO)

    def folders(self, prefix: str) -> list[str]:
        below = (key.removeprefix(prefix) for key in self.kept if key.startswith(prefix))
        return sorted({rest.partition("/")[0] for rest in below if "/" in rest})

    def delete(self, key: str) -> None:
        self.kept.pop(key, None)

    def local_folder(self, prefix: str) -> Path | None:
        return None

    def self_test(self, prefix: str, progress: Progress) -> SelfTest:
        return SelfTest(())

    def abort_uploads(self, prefix: str, spare: Spare = none_is_spared) -> list[str]:
        return []
