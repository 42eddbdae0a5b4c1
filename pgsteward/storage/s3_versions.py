"""Old versions of objects, and the markers that hide them, in buckets that keep versions."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from botocore import exceptions as boto

from pgsteward.storage import ObjectVersion
from pgsteward.storage.s3_errors import code_of

_LOCKED = frozenset({"AccessDenied", "InvalidRequest", "ObjectLocked", "MethodNotAllowed"})


def listed(client: Any, bucket: str, root: str, prefix: str) -> Iterator[ObjectVersion]:
    """Yield every version and every delete marker below a prefix.

    Args:
        client: boto3's.
        bucket: Its name.
        root: The store's own prefix, which keys are told without.
        prefix: Of the keys.
    """
    full = root + prefix
    for page in client.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=full):
        for kind in ("Versions", "DeleteMarkers"):
            for entry in page.get(kind, ()):
                if entry["Key"].startswith(full):
                    yield ObjectVersion(
                        key=entry["Key"].removeprefix(root),
                        version_id=str(entry["VersionId"]),
                        size_bytes=int(entry.get("Size", 0)),
                        modified_at=entry["LastModified"],
                        is_latest=bool(entry["IsLatest"]),
                        is_marker=kind == "DeleteMarkers",
                    )


def delete(client: Any, where: dict[str, str], version: ObjectVersion, **key: Any) -> datetime | None:
    """Delete one version for good, and return None; or return until when its lock forbids that."""
    try:
        client.delete_object(**where, VersionId=version.version_id)
    except boto.ClientError as exc:
        if code_of(exc) in {"NoSuchKey", "NoSuchVersion"}:
            return None
        until = locked_until(client, where, version.version_id, **key) if code_of(exc) in _LOCKED else None
        if until is None:
            raise
        return until
    return None


def locked_until(client: Any, where: dict[str, str], version_id: str, **key: Any) -> datetime | None:
    """Return until when a version is locked; None where it is not, or nobody says."""
    try:
        there = client.head_object(**where, VersionId=version_id, **key)
    except boto.ClientError:
        return None
    return lock_in(there)


def lock_in(there: dict[str, Any]) -> datetime | None:
    """Return until when the object of an answer is locked, or None."""
    if there.get("ObjectLockLegalHoldStatus") == "ON":
        return datetime.max.replace(tzinfo=UTC)
    until: datetime | None = there.get("ObjectLockRetainUntilDate")
    return until if until is not None and until > datetime.now(UTC) else None
