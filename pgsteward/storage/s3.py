"""S3 and what speaks its protocol. Only this folder imports botocore, which boto3 stands on.

botocore's default checksum trailers end up *inside* the object on some S3-compatible stores: what may be sent
is decided by the self-test (`pgsteward.storage.s3_probe`); until there is one, no checksum is.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import io
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from botocore import exceptions as boto

from pgsteward.config import StoreConfig
from pgsteward.errors import StewardError, StoreFailed, StoreUnavailable, VerificationFailed
from pgsteward.progress import Progress, silent
from pgsteward.report.units import humanize_bytes
from pgsteward.storage import (
    ObjectVersion,
    Sink,
    Spare,
    StoredObject,
    file_size,
    none_is_spared,
    s3_complete,
    s3_versions,
)
from pgsteward.storage.parts import (
    MAX_OBJECT_BYTES,
    PART_BYTES,
    SINGLE_PUT_BYTES,
    first_part_size,
    largest_object,
    part_size,
)
from pgsteward.storage.s3_body import Body, Pace, file_body, memory_body
from pgsteward.storage.s3_client import Arguments, make_client
from pgsteward.storage.s3_errors import Errors, code_of, refuse_cut_head, refuse_empty, status_of
from pgsteward.storage.s3_parts import send_parts
from pgsteward.storage.s3_read import Reads
from pgsteward.storage.s3_stream import S3Sink, abort_soon, composite, digests, part_entry
from pgsteward.storage.selftest import SelfTest, Traits

_TAKEN = frozenset({"PreconditionFailed", "412", "ConditionalRequestConflict"})
"""What a store says that writes a new object over none."""


class S3Store:
    """One bucket and key prefix.

    A client is made at the first use and shared by all threads.
    """

    largest_object_bytes = MAX_OBJECT_BYTES

    def __init__(
        self,
        name: str,
        config: StoreConfig,
        *,
        single_put_bytes: int = SINGLE_PUT_BYTES,
        part_bytes: int = PART_BYTES,
        traits: Traits = Traits(),
    ) -> None:
        """Contact nothing yet.

        Args:
            name: Name of the entry in the configuration.
            config: The entry.
            single_put_bytes: Larger files go up in parts.
            part_bytes: Smallest part; larger ones are chosen where 10,000 would not suffice.
            traits: What a self-test has found out; without one nothing is relied on.
        """
        self.name = name
        self.bucket = config.bucket
        self._config = config
        self._prefix = f"{config.path}/" if config.path else ""
        self._single_put_bytes = min(single_put_bytes, traits.max_request_bytes)
        self._part_bytes = min(part_bytes, traits.max_request_bytes)
        self._traits = traits
        largest = largest_object(traits.max_parts, traits.max_request_bytes)
        self.largest_object_bytes = min(self.largest_object_bytes, largest)
        self._errors = Errors(name, config)
        self._translating = self._errors.translating
        self._arguments = Arguments(config)
        self._pace = Pace(config.max_bandwidth)
        self._reads = Reads(self._get, self._translating, self._pace, config.retries)
        self._lock = threading.Lock()
        self._made: Any = None

    @property
    def location(self) -> str:
        return self._config.url

    def put_file(self, key: str, path: Path) -> None:
        """Store a file: in one request, or in parts that are aborted when anything goes wrong.

        Raises:
            StoreFailed: Refused, or larger than an object may be.
            StoreUnavailable: May heal.
        """
        size = file_size(path)
        if size > self.largest_object_bytes:
            most = humanize_bytes(self.largest_object_bytes)
            raise StoreFailed(f"{path.name} has {size} bytes; an object holds at most {most} there")
        if size <= self._single_put_bytes:
            with path.open("rb") as file, self._translating("write", key):
                self._put(key, file_body(file, 0, size, self._pace))
            return
        self._put_in_parts(key, path, size)

    def put_bytes(self, key: str, data: bytes, *, passing: bool = False) -> None:
        if len(data) > self._single_put_bytes:  # a manifest of very many tables
            with self.writing(key, len(data)) as sink:
                sink.write(data)
            return
        with self._translating("write", key):
            self._put(key, memory_body(data, self._pace), passing=passing)

    def put_new(self, key: str, data: bytes) -> bool:
        try:
            with self._translating("write", key):
                self._put(key, memory_body(data, self._pace), passing=True, IfNoneMatch="*")
        except StoreFailed as exc:
            said = exc.__cause__
            if isinstance(said, boto.ClientError) and code_of(said) in _TAKEN:
                return False
            self.put_bytes(key, data, passing=True)  # many refuse the condition; what else is wrong is told
        return True

    @contextlib.contextmanager
    def writing(self, key: str, size_hint_bytes: int) -> Iterator[Sink]:
        """Store what is written inside the block, in parts of which there are never more than 10,000.

        Raises:
            VerificationFailed: The store's own checksum says that it has something else.
        """
        with self._translating("write", key):
            sink = S3Sink(
                self._client,
                self._where(key),
                key,
                self._translating,
                first_part_size(
                    size_hint_bytes,
                    self._part_bytes,
                    self._traits.max_parts,
                    self._traits.max_request_bytes,
                ),
                functools.partial(self._complete, key),
                arguments=self._arguments,
                traits=self._traits,
                pace=self._pace,
            )
        try:
            yield sink
            sink.finish()
        except BaseException:
            sink.abort()
            raise
        self._mark_whole(key)
        if sink.checksum is not None:
            sink.confirmed = self._has(key, sink.size, sink.checksum)
            if not sink.confirmed:
                raise VerificationFailed(
                    f"{key} was put into {self.name}, but the store's own checksum says that it has something"
                    " else there"
                )

    def read(self, key: str) -> Iterator[bytes]:
        return self._reads.chunks(key)

    def get_bytes(self, key: str) -> bytes:
        return b"".join(self.read(key))

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        for page in self._pages("list_objects_v2", prefix, Prefix=self._prefix + prefix):
            for entry in page.get("Contents", ()):
                if not entry["Key"].endswith("/"):  # a console's "folder" is an empty object
                    yield StoredObject(
                        entry["Key"].removeprefix(self._prefix), entry["Size"], entry["LastModified"]
                    )

    def folders(self, prefix: str) -> list[str]:
        full = self._prefix + prefix
        return sorted(
            entry["Prefix"].removeprefix(full).rstrip("/")
            for page in self._pages("list_objects_v2", prefix, Prefix=full, Delimiter="/")
            for entry in page.get("CommonPrefixes", ())
        )

    def delete(self, key: str) -> None:
        with contextlib.suppress(FileNotFoundError), self._translating("delete", key):
            self._client.delete_object(**self._where(key))

    @property
    def trusts_checksums(self) -> bool:
        return self._config.read_back == "checksum" and self._traits.sha256

    def confirms(self, key: str, size_bytes: int, sha256: str, local: Path | None = None) -> bool | None:
        """Compare an object with what was sent, by the store's own size and SHA-256 of it.

        That of an object in parts is made of its parts' ones, which are computed again from the local file.
        """
        if not self._traits.sha256:
            return None
        there = self._head(key)
        if there is None:
            return False
        if there.get("ContentLength") != size_bytes:
            return False
        told, _, parts = str(there.get("ChecksumSHA256") or "").partition("-")
        if not told:
            return None
        if not parts:
            return base64.b64decode(told).hex() == sha256
        part_bytes = self._part_size(size_bytes)
        if local is None or int(parts) != -(-size_bytes // part_bytes):
            return None
        with local.open("rb") as file:
            digests = [body.sha256() for body in self._bodies(file, size_bytes, part_bytes)]
        return composite(digests) == f"{told}-{parts}"

    def retained_until(self, key: str) -> datetime | None:
        there = self._head(key)
        return None if there is None else s3_versions.lock_in(there)

    def keeps_versions(self) -> bool | None:
        try:
            with self._translating("ask for the versioning of", self.bucket):
                status = self._client.get_bucket_versioning(Bucket=self.bucket).get("Status")
        except StewardError as exc:
            said = exc.__cause__
            if isinstance(said, boto.ClientError) and (
                code_of(said) in {"AccessDenied", "NotImplemented", "MethodNotAllowed"}
                or status_of(said) == 501
            ):
                return None
            raise
        return status in {"Enabled", "Suspended"}

    def versions(self, prefix: str) -> Iterator[ObjectVersion]:
        with self._translating("list the versions of", prefix):
            yield from s3_versions.listed(self._client, self.bucket, self._prefix, prefix)

    def read_version(self, version: ObjectVersion) -> bytes:
        with self._translating("read an old version of", version.key):
            answer = self._client.get_object(
                **self._where(version.key), VersionId=version.version_id, **self._arguments.customer_key()
            )
            return bytes(answer["Body"].read())

    def version_retained_until(self, version: ObjectVersion) -> datetime | None:
        with self._translating("ask for the lock of", version.key):
            return s3_versions.locked_until(
                self._client,
                self._where(version.key),
                version.version_id,
                **self._arguments.customer_key(),
            )

    def delete_version(self, version: ObjectVersion) -> datetime | None:
        with self._translating("delete an old version of", version.key):
            return s3_versions.delete(
                self._client, self._where(version.key), version, **self._arguments.customer_key()
            )

    def self_test(self, prefix: str, progress: Progress = silent) -> SelfTest:
        """Try out all that is relied on; see `pgsteward.storage.s3_probe`."""
        from pgsteward.storage.s3_probe import Probe

        return Probe(self.name, self._config, self._prefix + prefix, progress).run()

    def local_folder(self, prefix: str) -> Path | None:
        return None

    def abort_uploads(self, prefix: str, spare: Spare = none_is_spared) -> list[str]:
        aborted = []
        for upload in self._uploads(prefix):
            key = upload["Key"].removeprefix(self._prefix)
            if spare(key, upload.get("Initiated") or datetime.now(UTC)):  # SeaweedFS does not say when
                continue
            with contextlib.suppress(FileNotFoundError), self._translating("abort the upload of", key):
                self._client.abort_multipart_upload(
                    Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                )
            aborted.append(key)
        return sorted(aborted)

    def _uploads(self, prefix: str) -> list[dict[str, Any]]:
        full = self._prefix + prefix
        try:
            return [
                upload
                for page in self._pages("list_multipart_uploads", prefix, Prefix=full)
                for upload in page.get("Uploads", ())
                if upload["Key"].startswith(full)  # not every store honours Prefix here
            ]
        except StoreUnavailable as exc:
            if "[NoSuchUpload]" in str(exc):  # how some stores say that there is none
                return []
            raise

    def _put(self, key: str, body: Body, *, passing: bool = False, **condition: str) -> None:
        self._client.put_object(
            **self._where(key),
            Body=body,
            ContentLength=len(body),
            **self._arguments.new(passing=passing),
            **self._digests(body, passing=passing),
            **condition,
        )

    def _put_in_parts(self, key: str, path: Path, size: int) -> None:
        where = self._where(key)
        kind = {"ChecksumAlgorithm": "SHA256"} if self._traits.sha256 else {}
        with path.open("rb") as file, self._translating("write", key):
            made = self._client.create_multipart_upload(**where, **self._arguments.new(), **kind)
            refuse_empty(made, "CreateMultipartUpload", "UploadId")
            upload_id = made["UploadId"]
            try:
                bodies = self._bodies(file, size, self._part_size(size))
                parts = send_parts(functools.partial(self._send_part, where, upload_id), bodies)
                self._complete(key, made, parts, size)
            except BaseException:
                abort_soon(self._client, where, upload_id)
                raise
        self._mark_whole(key)

    def _complete(self, key: str, made: dict[str, Any], parts: list[dict[str, Any]], size: int) -> None:
        """Make an object of its parts; `made` is what the store said when the upload was begun."""
        timeout_s = self._config.timeout_s
        patience_s = s3_complete.patience_s(size, timeout_s)
        client, tries = self._client, 1
        if patience_s > timeout_s:  # what botocore repeats after so long would be refused
            client, tries = self._new_client(retries=0, timeout_s=patience_s), 1 + self._config.retries
        ask = functools.partial(
            client.complete_multipart_upload,
            **self._where(key),
            UploadId=made["UploadId"],
            MultipartUpload={"Parts": parts},
            **self._arguments.customer_key(),
        )
        begun = s3_complete.begun_at(made)
        s3_complete.complete(ask, lambda: self._head(key), parts, size, begun, timeout_s, tries)

    def _send_part(self, where: dict[str, str], upload_id: str, number: int, body: Body) -> dict[str, Any]:
        digests = self._digests(body)
        answer = self._client.upload_part(
            **where,
            UploadId=upload_id,
            PartNumber=number,
            Body=body,
            ContentLength=len(body),
            **digests,
            **self._arguments.customer_key(),
        )
        refuse_empty(answer, "UploadPart", "ETag")
        return part_entry(number, answer["ETag"], digests)

    def _mark_whole(self, key: str) -> None:
        """See to the tags and the lock of an object put in parts: some stores mark only those put at once."""
        if self._config.tags:
            with self._translating("tag", key):
                self._client.put_object_tagging(**self._where(key), Tagging=self._arguments.tag_set())
        self._lock_whole(key)

    def _lock_whole(self, key: str) -> None:
        """Make sure that an object is locked.

        Raises:
            StoreFailed: It is not, and can't be.
        """
        if not self._arguments.locks or (self._head(key) or {}).get("ObjectLockMode"):
            return
        lock = self._arguments.lock()
        retention = {"Mode": lock["ObjectLockMode"], "RetainUntilDate": lock["ObjectLockRetainUntilDate"]}
        with self._translating("lock", key):
            self._client.put_object_retention(**self._where(key), Retention=retention)
        if not (self._head(key) or {}).get("ObjectLockMode"):
            raise StoreFailed(
                f"store {self.name!r} ({self.location}): {key!r} was put in parts, and is not locked"
                " there; use another store, or take object_lock out"
            )

    def _part_size(self, size: int) -> int:
        return part_size(size, self._part_bytes, self._traits.max_parts)

    def _bodies(self, file: io.BufferedReader, size: int, part_bytes: int) -> Iterator[Body]:
        for start in range(0, size, part_bytes):
            yield file_body(file, start, min(part_bytes, size - start), self._pace)

    def _digests(self, body: Body, *, passing: bool = False) -> dict[str, str]:
        return digests(body, self._traits, locks=self._arguments.locks and not passing)

    def _get(self, key: str, **rest: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self._client.get_object(
            **self._where(key), **self._arguments.customer_key(), **rest
        )
        refuse_cut_head(answer, self._client.meta.endpoint_url)
        return answer

    def _has(self, key: str, size: int, checksum: str) -> bool:
        there = self._head(key) or {}
        return (there.get("ContentLength"), there.get("ChecksumSHA256")) == (size, checksum)

    def _head(self, key: str) -> dict[str, Any] | None:
        try:
            with self._translating("ask about", key):
                answer: dict[str, Any] = self._client.head_object(
                    **self._where(key), ChecksumMode="ENABLED", **self._arguments.customer_key()
                )
        except FileNotFoundError:
            return None
        return answer

    def _where(self, key: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self._key(key)}

    def _pages(self, operation: str, prefix: str, **arguments: Any) -> Iterator[dict[str, Any]]:
        with self._translating("list", prefix):
            pages = iter(self._client.get_paginator(operation).paginate(Bucket=self.bucket, **arguments))
        while True:
            with self._translating("list", prefix):
                page = next(pages, None)
                if page is None:
                    return
                refuse_empty(page, operation, "IsTruncated", "Name", "Bucket")
            yield page

    def _key(self, key: str) -> str:
        if not key or "\0" in key or any(part in {"", ".", ".."} for part in key.split("/")):
            raise StoreFailed(f"{key!r} is not a key of a store")
        return self._prefix + key

    @property
    def _client(self) -> Any:
        with self._lock:
            if self._made is None:
                self._made = self._new_client()
            return self._made

    def _new_client(self, **options: Any) -> Any:
        return make_client(self._config, checksum_trailers=self._traits.trailers, **options)
