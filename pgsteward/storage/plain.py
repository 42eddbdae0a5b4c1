"""What a store answers that knows no locks, no versions and no checksums of its own."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from pgsteward.errors import StoreFailed
from pgsteward.storage import ObjectVersion


class Plain:
    """The part of `pgsteward.storage.Store` that is the same for every simple store."""

    largest_object_bytes = 1 << 63

    @property
    def trusts_checksums(self) -> bool:
        return False

    def confirms(self, key: str, size_bytes: int, sha256: str, local: Path | None = None) -> bool | None:
        return None

    def retained_until(self, key: str) -> datetime | None:
        return None

    def keeps_versions(self) -> bool | None:
        return False

    def versions(self, prefix: str) -> Iterator[ObjectVersion]:
        return iter(())

    def read_version(self, version: ObjectVersion) -> bytes:
        raise StoreFailed(f"there is no older version of {version.key!r}: this store keeps none")

    def version_retained_until(self, version: ObjectVersion) -> datetime | None:
        return None

    def delete_version(self, version: ObjectVersion) -> datetime | None:
        raise StoreFailed(f"there is no older version of {version.key!r}: this store keeps none")
