"""The requests of a self-test: each with a key of the test's own, all of them cleared away at its end."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import secrets
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from botocore import exceptions as boto

from pgsteward.config import StoreConfig
from pgsteward.errors import StewardError, StoreUnavailable
from pgsteward.storage.parts import SINGLE_PUT_BYTES
from pgsteward.storage.s3_body import Body, Pace
from pgsteward.storage.s3_client import Arguments, make_client
from pgsteward.storage.s3_errors import Errors, code_of, refuse_empty
from pgsteward.storage.selftest import Status, Verdict

PART_BYTES = 5 << 20
"""The smallest that S3 takes."""
_NO_REFUSAL_S = 0.05
"""Whoever has let a request's head through waits for its content, which does not come."""
LOCK_S = 5.0
"""How long the probe of Object Lock is locked."""
NO_CORRUPTION = "don't use this store for backups; if a proxy stands before it, look at that first"

_TROUBLE = (boto.ClientError, boto.BotoCoreError, StewardError, FileNotFoundError, KeyError)


def md5_of(data: bytes) -> str:
    """Return what goes into the header Content-MD5."""
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


def sha256_of(data: bytes) -> str:
    """Return S3's own form of a SHA-256."""
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


class Finding(Exception):
    """Ends a step with its verdict."""

    def __init__(self, verdict: Verdict, status: Status, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.verdict, self.status, self.message, self.fix = verdict, status, message, fix


class Requests:
    """Speaks to one store, below one prefix."""

    def __init__(self, name: str, config: StoreConfig, prefix: str) -> None:
        self._config, self._prefix, self._bucket = config, prefix, config.bucket
        self._translating = Errors(name, config).translating
        self._arguments = Arguments(config)
        self._made: Any = None
        self._date: tuple[datetime, datetime] | None = None
        self._locked_until: datetime | None = None
        self._used: set[str] = set()
        self._wants_digests = False

    @property
    def _client(self) -> Any:
        if self._made is None:
            self._made = self._connected()
        return self._made

    def _connected(self, *, checksum_trailers: bool = False) -> Any:
        with self._translating("reach", self._prefix):
            return make_client(self._config, checksum_trailers=checksum_trailers)

    def _call(self, doing: str, operation: str, name: str, **arguments: Any) -> dict[str, Any]:
        sent = {**arguments, **self._digest(arguments)}
        with self._translating(doing, self._key(name)):
            answer: dict[str, Any] = getattr(self._client, operation)(**self._where(name), **sent)
        return answer

    def _digest(self, arguments: dict[str, Any]) -> dict[str, str]:
        """Return the checksum that goes with some content, where the bucket takes none without."""
        if not self._wants_digests or "Body" not in arguments or "ChecksumSHA256" in arguments:
            return {}
        return {"ContentMD5": md5_of(arguments["Body"])}

    def _refusal(self, operation: str, name: str, **arguments: Any) -> str | None:
        """Try something that a store may refuse; return its code then.

        Raises:
            StoreUnavailable: It did not refuse, it has trouble.
        """
        try:
            self._call("write", operation, name, **arguments)
        except (StewardError, FileNotFoundError) as exc:
            cause = exc.__cause__
            if not isinstance(cause, boto.ClientError):
                raise
            code = code_of(cause)
            refused = code in {"BadDigest", "NotImplemented"} or "Checksum" in code or "SHA256" in code
            if isinstance(exc, StoreUnavailable) and not refused:
                raise
            return code
        return None

    def _largest_request(self) -> int | None:
        """Return how much may be put at once; None where a proxy takes not even a part."""
        sizes = (SINGLE_PUT_BYTES, 32 << 20, 16 << 20, 8 << 20, PART_BYTES)
        return next((size for size in sizes if self._takes_request_of(size)), None)

    def _takes_request_of(self, size_bytes: int) -> bool:
        """Tell whether a request of this size is let through: only its head is sent, which is refused."""
        client = make_client(self._config, retries=0, timeout_s=_NO_REFUSAL_S)
        body = Body(lambda offset, size: b"", size_bytes, Pace(None))
        try:
            client.put_object(
                **self._where("large"), Body=body, ContentLength=size_bytes, **self._arguments.encryption()
            )
        except boto.ClientError as exc:
            return code_of(exc) not in {"413", "EntityTooLarge"}
        except boto.BotoCoreError:  # it waits for the content, or has trouble that others will tell
            return True
        finally:
            client.close()
        return True

    def _read(self, name: str, **arguments: Any) -> bytes:
        with self._translating("read", self._key(name)):
            answer = self._client.get_object(
                **self._where(name), **self._arguments.customer_key(), **arguments
            )
            return bytes(answer["Body"].read())

    def _same(self, name: str, data: bytes) -> None:
        read = self._read(name)
        if read != data:
            what = "other bytes" if len(read) == len(data) else f"{len(read)} bytes instead of {len(data)}"
            raise Finding("broken", "fail", f"the store gives back {what} than were put", NO_CORRUPTION)

    def _head(self, name: str) -> dict[str, Any]:
        with self._translating("ask about", self._key(name)):
            answer: dict[str, Any] = self._client.head_object(
                **self._where(name), ChecksumMode="ENABLED", **self._arguments.customer_key()
            )
        return answer

    def _begin(self, client: Any, name: str, arguments: dict[str, Any]) -> str:
        with self._translating("write", self._key(name)):
            made = client.create_multipart_upload(**self._where(name), **arguments)
            refuse_empty(made, "CreateMultipartUpload", "UploadId")
            return str(made["UploadId"])

    def _complete(self, client: Any, name: str, upload: str, parts: list[dict[str, Any]]) -> None:
        with self._translating("write", self._key(name)):
            client.complete_multipart_upload(
                **self._where(name),
                UploadId=upload,
                MultipartUpload={"Parts": parts},
                **self._arguments.customer_key(),
            )

    def _in_parts(self, name: str, client: Any, arguments: dict[str, Any]) -> None:
        data = secrets.token_bytes(PART_BYTES + 1)
        upload = self._begin(client, name, arguments)
        parts = []
        for number, piece in enumerate((data[:PART_BYTES], data[PART_BYTES:]), start=1):
            with self._translating("write", self._key(name)):
                answer = client.upload_part(
                    **self._where(name),
                    UploadId=upload,
                    PartNumber=number,
                    Body=piece,
                    **self._arguments.customer_key(),
                    **(self._digest({"Body": piece}) if client is self._client else {}),  # else a trailer
                )
                refuse_empty(answer, "UploadPart", "ETag")
            checksums = {key: value for key, value in answer.items() if key == "ChecksumCRC32"}
            parts.append({"PartNumber": number, "ETag": answer["ETag"], **checksums})
        self._complete(client, name, upload, parts)
        self._same(name, data)

    def _listed(self) -> set[str]:
        with self._translating("list", self._prefix):
            answer = self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix)
        return {entry["Key"] for entry in answer.get("Contents", ())}

    def _open_uploads(self) -> set[str]:
        try:
            answer = self._client.list_multipart_uploads(Bucket=self._bucket, Prefix=self._prefix)
        except boto.ClientError:  # some say so where there is none
            return set()
        return {entry["UploadId"] for entry in answer.get("Uploads", ())}

    def _key(self, name: str) -> str:
        self._used.add(self._prefix + name)
        return self._prefix + name

    def _where(self, name: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._key(name)}

    def _note_date(self, answer: dict[str, Any]) -> None:
        told = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
        with contextlib.suppress(TypeError, ValueError):
            self._date = (parsedate_to_datetime(told), datetime.now(UTC))

    def _apart(self) -> str:
        if self._date is None:
            return ""
        return f" are {abs((self._date[0] - self._date[1]).total_seconds()):.0f} s apart"

    def _clear(self) -> None:
        """Remove all that was put, older versions too; what fails here is the janitor's."""
        with contextlib.suppress(*_TROUBLE):
            for upload in self._client.list_multipart_uploads(Bucket=self._bucket, Prefix=self._prefix).get(
                "Uploads", ()
            ):
                if upload["Key"].startswith(self._prefix):
                    self._client.abort_multipart_upload(
                        Bucket=self._bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                    )
        with contextlib.suppress(*_TROUBLE):
            for key in sorted(self._used):  # a listing may not show them yet
                self._client.delete_object(Bucket=self._bucket, Key=key)
        if self._locked_until is not None:
            left = (self._locked_until - datetime.now(UTC)).total_seconds()
            time.sleep(min(max(0.0, left + 1), 4 * LOCK_S + 2))
        with contextlib.suppress(*_TROUBLE):
            answer = self._client.list_object_versions(Bucket=self._bucket, Prefix=self._prefix)
            for entry in (*answer.get("Versions", ()), *answer.get("DeleteMarkers", ())):
                if entry["VersionId"] != "null":
                    self._client.delete_object(
                        Bucket=self._bucket, Key=entry["Key"], VersionId=entry["VersionId"]
                    )
