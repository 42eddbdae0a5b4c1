"""S3 and what speaks its protocol. The only file that imports boto3.

botocore's default checksum trailers end up *inside* the object on some S3-compatible stores; both switches
are therefore set to ``when_required``, and whoever needs certainty reads the object back.
"""

from __future__ import annotations

import contextlib
import errno
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import urllib3.exceptions
from botocore import exceptions as boto
from botocore.config import Config as BotoConfig

from pgsteward.config import StoreConfig
from pgsteward.errors import StewardError, StoreFailed, StoreUnavailable
from pgsteward.storage import CHUNK_BYTES, Sink, StoredObject, file_size
from pgsteward.storage.parts import MAX_OBJECT_BYTES, PART_BYTES, first_part_size, part_size
from pgsteward.storage.s3_stream import S3Sink, abort_soon

SINGLE_PUT_BYTES = 64 << 20

_MAY_HEAL = frozenset(
    {
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "RequestThrottled",
        "RequestLimitExceeded",
        "TooManyRequests",
        "TooManyRequestsException",
        "RequestTimeout",
        "InternalError",
        "ServiceUnavailable",
        "OperationAborted",
        "NoSuchUpload",
    }
)
_ADVICE = {
    "NoSuchBucket": "there is no such bucket; create it or correct the url",
    "AccessDenied": "access denied; the key needs s3:PutObject, GetObject, DeleteObject, ListBucket and"
    " AbortMultipartUpload on this bucket and prefix",
    "AllAccessDisabled": "access to this bucket is disabled; ask who administers it",
    "SignatureDoesNotMatch": "the signature does not match; check secret_access_key (and region)",
    "InvalidAccessKeyId": "the access key is unknown there; check access_key_id and endpoint_url",
    "ExpiredToken": "the session token has expired; renew the credentials",
    "InvalidToken": "the session token is not valid; renew the credentials",
    "RequestTimeTooSkewed": "this machine's clock differs too much from the store's; set the clock",
    "PermanentRedirect": "the bucket lives in another region; set region",
    "AuthorizationHeaderMalformed": "the bucket lives in another region; set region",
    "IllegalLocationConstraintException": "the bucket lives in another region; set region",
    "EntityTooLarge": "the object is larger than this store accepts",
    "QuotaExceeded": "the store's quota is used up; raise it or prune",
    "XMinioStorageFull": "the store's disk is full; free space there or prune",
    "InvalidBucketName": "this is not a possible bucket name; correct the url",
}
_SAME = {
    "403": "AccessDenied",
    "Forbidden": "AccessDenied",
    "SignatureDoesNotMatchException": "SignatureDoesNotMatch",
}
_CONNECTION = (
    boto.ConnectionError,
    boto.HTTPClientError,
    boto.IncompleteReadError,
    urllib3.exceptions.HTTPError,
    ConnectionError,
)


class S3Store:
    """One bucket and key prefix.

    A client is made at the first use and shared by all threads.
    """

    def __init__(
        self,
        name: str,
        config: StoreConfig,
        *,
        single_put_bytes: int = SINGLE_PUT_BYTES,
        part_bytes: int = PART_BYTES,
    ) -> None:
        """Contact nothing yet.

        Args:
            name: Name of the entry in the configuration.
            config: The entry.
            single_put_bytes: Larger files go up in parts.
            part_bytes: Smallest part; larger ones are chosen where 10,000 would not suffice.
        """
        self.name = name
        self.bucket = config.bucket
        self._config = config
        self._prefix = f"{config.path}/" if config.path else ""
        self._single_put_bytes = single_put_bytes
        self._part_bytes = part_bytes
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
        if size > MAX_OBJECT_BYTES:
            raise StoreFailed(f"{path.name} has {size} bytes; an S3 object holds at most 5 TiB")
        if size <= self._single_put_bytes:
            with path.open("rb") as file, self._translating("write", key):
                self._client.put_object(
                    Bucket=self.bucket, Key=self._key(key), Body=FileSlice(file, 0, size), ContentLength=size
                )
            return
        self._put_in_parts(key, path, size)

    def put_bytes(self, key: str, data: bytes) -> None:
        with self._translating("write", key):
            self._client.put_object(Bucket=self.bucket, Key=self._key(key), Body=data)

    @contextlib.contextmanager
    def writing(self, key: str, size_hint_bytes: int) -> Iterator[Sink]:
        """Store what is written inside the block, in parts of which there are never more than 10,000."""
        where = {"Bucket": self.bucket, "Key": self._key(key)}
        first = first_part_size(size_hint_bytes, self._part_bytes)
        sink = S3Sink(self._client, where, key, self._translating, first)
        try:
            yield sink
            sink.finish()
        except BaseException:
            sink.abort()
            raise

    def read(self, key: str) -> Iterator[bytes]:
        with self._translating("read", key):
            body = self._client.get_object(Bucket=self.bucket, Key=self._key(key))["Body"]
        with contextlib.closing(body):
            while True:
                with self._translating("read", key):
                    chunk: bytes = body.read(CHUNK_BYTES)
                if not chunk:
                    return
                yield chunk

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
        with self._translating("delete", key), contextlib.suppress(FileNotFoundError):
            self._client.delete_object(Bucket=self.bucket, Key=self._key(key))

    def local_folder(self, prefix: str) -> Path | None:
        return None

    def abort_uploads(self, prefix: str) -> list[str]:
        aborted = []
        for upload in self._uploads(prefix):
            key = upload["Key"].removeprefix(self._prefix)
            with self._translating("abort the upload of", key), contextlib.suppress(FileNotFoundError):
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

    def _put_in_parts(self, key: str, path: Path, size: int) -> None:
        where = {"Bucket": self.bucket, "Key": self._key(key)}
        part_bytes = part_size(size, self._part_bytes)
        with path.open("rb") as file, self._translating("write", key):
            upload_id = self._client.create_multipart_upload(**where)["UploadId"]
            try:
                parts = []
                for number, start in enumerate(range(0, size, part_bytes), start=1):
                    length = min(part_bytes, size - start)
                    answer = self._client.upload_part(
                        **where,
                        UploadId=upload_id,
                        PartNumber=number,
                        Body=FileSlice(file, start, length),
                        ContentLength=length,
                    )
                    parts.append({"PartNumber": number, "ETag": answer["ETag"]})
                self._client.complete_multipart_upload(
                    **where, UploadId=upload_id, MultipartUpload={"Parts": parts}
                )
            except BaseException:
                abort_soon(self._client, where, upload_id)
                raise

    def _pages(self, operation: str, prefix: str, **arguments: Any) -> Iterator[dict[str, Any]]:
        with self._translating("list", prefix):
            pages = iter(self._client.get_paginator(operation).paginate(Bucket=self.bucket, **arguments))
        while True:
            with self._translating("list", prefix):
                page = next(pages, None)
            if page is None:
                return
            yield page

    def _key(self, key: str) -> str:
        if not key or "\0" in key or any(part in {"", ".", ".."} for part in key.split("/")):
            raise StoreFailed(f"{key!r} is not a key of a store")
        return self._prefix + key

    @property
    def _client(self) -> Any:
        with self._lock:
            if self._made is None:
                self._made = self._make_client()
            return self._made

    def _make_client(self) -> Any:
        config = self._config
        path_style = config.path_style if config.path_style is not None else config.endpoint_url is not None
        keys = {}
        if config.access_key_id is not None and config.secret_access_key is not None:
            keys = {
                "aws_access_key_id": config.access_key_id.resolve(),
                "aws_secret_access_key": config.secret_access_key.resolve(),
            }
        return boto3.session.Session().client(
            "s3",
            endpoint_url=config.endpoint_url,
            region_name=config.region or ("us-east-1" if config.endpoint_url else None),
            config=BotoConfig(
                connect_timeout=10,
                read_timeout=60,
                retries={"mode": "standard", "max_attempts": 4},
                max_pool_connections=16,
                s3={"addressing_style": "path" if path_style else "auto"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
            **keys,
        )

    @contextlib.contextmanager
    def _translating(self, doing: str, key: str) -> Iterator[None]:
        try:
            yield
        except boto.ClientError as exc:
            raise self._refusal(exc, doing, key) from exc
        except (boto.BotoCoreError, urllib3.exceptions.HTTPError, ConnectionError) as exc:
            raise self._trouble(exc, doing, key) from exc

    def _refusal(self, exc: boto.ClientError, doing: str, key: str) -> StewardError | FileNotFoundError:
        error = exc.response.get("Error", {})
        status = int(exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        code = str(error.get("Code") or status)
        code = _SAME.get(code, code)
        if code in {"NoSuchKey", "404", "NotFound"}:
            return FileNotFoundError(errno.ENOENT, f"store {self.name!r} has no such key", key)
        where = f"store {self.name!r} ({self.location}): can't {doing} {key!r}"
        if code in _ADVICE:
            return StoreFailed(f"{where}: {_ADVICE[code]} [{code}]")
        message = self._redacted(str(error.get("Message") or "no explanation"))
        if code in _MAY_HEAL or status == 429 or status >= 500:
            return StoreUnavailable(f"{where}: the store is busy or in trouble: {message} [{code}]")
        return StoreFailed(f"{where}: {message} [{code}]")

    def _trouble(self, exc: Exception, doing: str, key: str) -> StewardError:
        where = f"store {self.name!r} ({self.location}): can't {doing} {key!r}"
        if isinstance(exc, boto.SSLError):
            return StoreFailed(f"{where}: the store's certificate is not trusted: {self._redacted(str(exc))}")
        inner = getattr(exc, "kwargs", {}).get("error")
        if isinstance(inner, StewardError):  # botocore wraps what reading the body raised
            return inner
        if isinstance(exc, _CONNECTION):
            endpoint = self._config.endpoint_url or "AWS"
            return StoreUnavailable(
                f"{where}: no working connection to {endpoint} ({type(exc).__name__}); see that it answers,"
                " the next run tries again"
            )
        if isinstance(exc, boto.NoCredentialsError | boto.PartialCredentialsError):
            return StoreFailed(
                f"{where}: no credentials found; set access_key_id and secret_access_key, or AWS_PROFILE, or"
                " give this machine a role"
            )
        return StoreFailed(f"{where}: {self._redacted(str(exc))}")

    def _redacted(self, text: str) -> str:
        for secret in (self._config.access_key_id, self._config.secret_access_key):
            if secret is not None:
                with contextlib.suppress(StewardError):
                    text = text.replace(secret.resolve(), "***")
        return " ".join(text.split())


class FileSlice(io.RawIOBase):
    """A part of an open file, as a file of its own; memory stays flat whatever the part's size."""

    def __init__(self, file: io.BufferedReader, start: int, length: int) -> None:
        self._file, self._start, self._length = file, start, length
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def __len__(self) -> int:
        return self._length

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length}[whence]
        self._at = max(0, base + offset)
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._length - self._at)
        wanted = left if size is None or size < 0 else min(size, left)
        if not wanted:
            return b""
        self._file.seek(self._start + self._at)
        data = self._file.read(wanted)
        if not data:
            raise StoreFailed(f"{getattr(self._file, 'name', 'the file')} became shorter while it was stored")
        self._at += len(data)
        return data
