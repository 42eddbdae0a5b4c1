"""An S3 object of unknown size: parts that go up while the next one is filled, in flat memory.

The object exists when every part is there and the last request was answered; until then, and after any
error, there is none, and its parts are given up.
"""

from __future__ import annotations

import base64
import hashlib
import mmap
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from pgsteward.errors import StoreFailed
from pgsteward.report.units import humanize_bytes
from pgsteward.storage.briefly import briefly
from pgsteward.storage.parts import largest_object, streamed_part_size
from pgsteward.storage.s3_body import Body, Pace, memory_body
from pgsteward.storage.s3_client import Arguments
from pgsteward.storage.s3_errors import refuse_empty
from pgsteward.storage.selftest import Traits

IN_FLIGHT = 2
"""Parts on their way at the same time; one more is being filled, and that is all the memory it takes."""
LARGE_PART_BYTES = 64 << 20
"""From this size on only one is on its way."""
ABORT_S = 3.0
_POLL_S = 0.2

Translate = Callable[[str, str], AbstractContextManager[None]]
Complete = Callable[[dict[str, Any], list[dict[str, Any]], int], None]


def digests(body: Body, traits: Traits, *, locks: bool) -> dict[str, str]:
    """Return the checksums to send with some bytes: what arrives as something else is refused."""
    if traits.sha256:
        return {"ChecksumSHA256": body.sha256()}
    return (
        {"ContentMD5": body.md5()} if locks or traits.wants_digests else {}
    )  # S3 takes no locked object without one


def part_entry(number: int, etag: str, sent: dict[str, str]) -> dict[str, Any]:
    """Return what the last request of an upload says about one of its parts."""
    checksum = {key: value for key, value in sent.items() if key.startswith("Checksum")}
    return {"PartNumber": number, "ETag": etag, **checksum}


def composite(checksums: Sequence[str]) -> str:
    """Return S3's SHA-256 of an object in parts: that of its parts' ones, and their number."""
    whole = hashlib.sha256(b"".join(map(base64.b64decode, checksums))).digest()
    return f"{base64.b64encode(whole).decode()}-{len(checksums)}"


def abort_soon(client: Any, where: dict[str, str], upload_id: str) -> None:
    """Abort an upload, but don't wait long for a store that has stopped answering: the janitor comes."""
    briefly(lambda: client.abort_multipart_upload(**where, UploadId=upload_id), ABORT_S)


class S3Sink:
    """Takes an object's bytes in order; `finish` makes it exist, `abort` sees to it that it won't."""

    def __init__(
        self,
        client: Any,
        where: dict[str, str],
        key: str,
        translate: Translate,
        first_part_bytes: int,
        complete: Complete,
        *,
        arguments: Arguments,
        traits: Traits,
        pace: Pace,
    ) -> None:
        """Contact nothing yet.

        Args:
            client: boto3's.
            where: Bucket and key.
            key: As the caller knows it, for errors.
            translate: Turns boto3's errors into ours.
            first_part_bytes: Size of the parts, as long as it suffices.
            complete: Makes the object, of what the store said when it was begun, the parts, and the size.
            arguments: What requests carry besides.
            traits: What the store's self-test has found.
            pace: How fast.
        """
        self.size = 0
        self.checksum: str | None = None
        self.confirmed = False
        self._arguments, self._traits, self._pace = arguments, traits, pace
        self._client, self._where, self._key, self._translate = client, where, key, translate
        self._first = first_part_bytes
        self._complete = complete
        self._part: mmap.mmap | None = None
        self._number = 0
        self._made: dict[str, Any] | None = None
        self._parts: dict[int, dict[str, Any]] = {}
        self._errors: list[BaseException] = []
        self._threads: list[threading.Thread] = []
        self._free = threading.Semaphore(IN_FLIGHT if first_part_bytes < LARGE_PART_BYTES else 1)
        self._given_up = threading.Event()

    def write(self, data: bytes) -> int:
        """Take some more bytes; waits while too many parts are on their way.

        Raises:
            StoreFailed: The store refuses, or the object is larger than one may be.
            StoreUnavailable: May heal.
        """
        self._refuse_broken()
        self.size += len(data)
        most = largest_object(self._traits.max_parts, self._traits.max_request_bytes)
        if self.size > most:
            raise StoreFailed(
                f"{self._key!r} has more than {humanize_bytes(most)}, which is what an object holds there"
            )
        left = memoryview(data)
        while left:
            part = self._part = self._part or self._new_part()
            room = len(part) - part.tell()
            part.write(left[:room])
            if len(left) >= room:
                self._send(part)
            left = left[room:]
        return len(data)

    def finish(self) -> None:
        """Make the object exist."""
        with self._translate("write", self._key):
            if self._made is None:
                body = memory_body(self._part[: self._part.tell()] if self._part else b"", self._pace)
                sent = self._digests(body)
                self._client.put_object(
                    **self._where, Body=body, ContentLength=len(body), **self._arguments.new(), **sent
                )
                self.checksum = sent.get("ChecksumSHA256")
                return
            if self._part is not None:
                self._send(self._part)
            for thread in self._threads:
                while thread.is_alive():
                    thread.join(_POLL_S)
                    self._refuse_broken()
            self._refuse_broken()
            parts = [entry for _, entry in sorted(self._parts.items())]
            self._complete(self._made, parts, self.size)
            if self._traits.sha256:
                self.checksum = composite([str(entry["ChecksumSHA256"]) for entry in parts])

    def abort(self) -> None:
        """Give the parts up. Those on their way are waited for a moment: a later one would stay."""
        self._given_up.set()
        if self._made is None:
            return
        deadline = time.monotonic() + ABORT_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        abort_soon(self._client, self._where, self._made["UploadId"])

    def _new_part(self) -> mmap.mmap:
        """Return room for the next part: pages of its own, given back at once when it has gone up.

        What malloc frees, and what botocore holds in cycles until the garbage is collected, would stay.
        """
        size = streamed_part_size(
            self._number + 1, self._first, self._traits.max_parts, self._traits.max_request_bytes
        )
        return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)

    def _send(self, part: mmap.mmap) -> None:
        """Send what is in the part, without another copy of it; the next bytes begin a new one."""
        with self._translate("write", self._key):
            if self._made is None:
                kind = {"ChecksumAlgorithm": "SHA256"} if self._traits.sha256 else {}
                made = self._client.create_multipart_upload(**self._where, **self._arguments.new(), **kind)
                refuse_empty(made, "CreateMultipartUpload", "UploadId")
                self._made = made
                if self._given_up.is_set():
                    abort_soon(self._client, self._where, self._made["UploadId"])
            upload_id = str(self._made["UploadId"])
        if self._number == self._traits.max_parts:
            raise StoreFailed(
                f"{self._key!r} became much larger than was expected, more than {self._number} parts hold"
            )
        while not self._free.acquire(timeout=_POLL_S):
            self._refuse_broken()
        self._part = None
        self._number += 1
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        thread = threading.Thread(
            target=self._upload,
            args=(upload_id, self._number, part),
            name=f"part {self._number}",
            daemon=True,
        )
        self._threads.append(thread)
        thread.start()

    def _upload(self, upload_id: str, number: int, part: mmap.mmap) -> None:
        try:
            if self._given_up.is_set():
                return
            body = memory_body(part, self._pace, part.tell())
            sent = self._digests(body)
            answer = self._client.upload_part(
                **self._where,
                UploadId=upload_id,
                PartNumber=number,
                Body=body,
                ContentLength=len(body),
                **sent,
                **self._arguments.customer_key(),
            )
            refuse_empty(answer, "UploadPart", "ETag")
            self._parts[number] = part_entry(number, answer["ETag"], sent)
        except BaseException as exc:  # noqa: BLE001 - raised again where the next bytes arrive
            self._errors.append(exc)
        finally:
            part.close()
            self._free.release()

    def _digests(self, body: Body) -> dict[str, str]:
        return digests(body, self._traits, locks=self._arguments.locks)

    def _refuse_broken(self) -> None:
        if self._errors:
            with self._translate("write", self._key):
                raise self._errors[0]
