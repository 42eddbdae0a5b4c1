"""The self-test of an S3 store: each capability tried with objects of its own, and said in one word.

What is configured and not honoured is bad; what pgsteward does not rely on is only told.
"""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore import exceptions as boto

from pgsteward.config import StoreConfig
from pgsteward.errors import StoreFailed
from pgsteward.progress import Progress
from pgsteward.report.units import humanize_bytes
from pgsteward.storage.briefly import cleared_by
from pgsteward.storage.parts import (
    FEW_PARTS,
    LARGEST_PART_BYTES,
    MAX_PARTS,
    SINGLE_PUT_BYTES,
    largest_object,
)
from pgsteward.storage.s3_errors import code_of
from pgsteward.storage.s3_probe_requests import (
    LOCK_S,
    NO_CORRUPTION,
    PART_BYTES,
    Finding,
    Requests,
    md5_of,
    sha256_of,
)
from pgsteward.storage.selftest import Capability, SelfTest, Traits, Verdict

SKEW_NOTABLE_S = 60.0
SKEW_REFUSED_S = 900.0
_LATE_TRIES = 5
_LATE_PAUSE_S = 0.5
_LOCK_FIX = "make the bucket with Object Lock (it can't be added everywhere), or take object_lock out"


class Probe(Requests):
    """One self-test; `run` it once."""

    def __init__(self, name: str, config: StoreConfig, prefix: str, progress: Progress) -> None:
        """Contact nothing yet.

        Args:
            name: Of the store.
            config: The store.
            prefix: Whole prefix, in the bucket, of all keys that are written.
            progress: Is told each step.
        """
        super().__init__(name, config, prefix)
        self._name, self._progress = name, progress
        self._found: list[Capability] = []
        self._told_of_put: dict[str, Any] = {}
        self._late = self._sha256 = self._trailers = False
        self._max_parts = MAX_PARTS
        self._max_request_bytes = LARGEST_PART_BYTES

    def run(self) -> SelfTest:
        """Try everything out, and remove what that put there.

        Raises:
            StoreUnavailable: The store can't be reached, or is in trouble.
        """
        steps: tuple[tuple[str, Callable[[], None]], ...] = (
            ("put and read", self._put_and_read),
            ("clock", self._clock),
            ("request size", self._request_size),
            ("listing", self._listing),
            ("range", self._range),
            ("multipart", self._multipart),
            ("abort", self._abort),
            ("copy", self._copy),
            ("conditional put", self._conditional),
            ("checksum", self._checksum),
            ("checksum trailers", self._trailer),
            ("encryption", self._encryption),
            ("storage class", self._storage_class),
            ("tags", self._tags),
            ("versioning", self._versioning),
            ("object lock", self._object_lock),
        )
        with cleared_by(self._clear):
            for number, (what, step) in enumerate(steps):
                self._progress(f"testing store {self._name}: {what}", number, len(steps))
                self._step(what, step)
                if what == "put and read" and self._found[-1].status == "fail":
                    return SelfTest(tuple(self._found))
            self._step("delete", self._delete)
        traits = Traits(
            self._sha256,
            self._trailers,
            self._late,
            self._max_parts,
            self._max_request_bytes,
            self._wants_digests,
        )
        return SelfTest(tuple(self._found), traits)

    def _step(self, what: str, step: Callable[[], None]) -> None:
        try:
            with self._translating("test", self._prefix):
                step()
            raise AssertionError(f"the step {what!r} has no verdict")
        except Finding as finding:
            found = Capability(what, finding.verdict, finding.status, finding.message, finding.fix)
        except StoreFailed as exc:
            fix = self._rights() if "[AccessDenied]" in str(exc) else "mend that and try it: pgsteward doctor"
            found = Capability(what, "broken", "fail", str(exc), fix)
        except FileNotFoundError:
            found = Capability(what, "broken", "fail", "an object that was put is not there", NO_CORRUPTION)
        self._found.append(found)

    def _rights(self) -> str:
        return (
            f"allow s3:ListBucket and s3:ListBucketMultipartUploads on the bucket {self._bucket}, and"
            " s3:GetObject, s3:PutObject, s3:DeleteObject and s3:AbortMultipartUpload on its objects"
        )

    # What every backup needs

    def _put_and_read(self) -> None:
        data = secrets.token_bytes(1000)
        try:
            answer = self._put_first(data)
        except StoreFailed as exc:
            self._note_date(getattr(exc.__cause__, "response", {}))
            if "RequestTimeTooSkewed" in str(exc) or "RequestExpired" in str(exc):
                raise Finding("refused", "fail", f"{exc}{self._apart()}", "timedatectl set-ntp true") from exc
            if "encryption" in str(exc).lower() or "NotImplemented" in str(exc):
                self._call("write", "put_object", "first", Body=data)  # then encryption is to blame
                raise Finding("refused", "fail", f"{exc}", "correct sse, or take it out") from exc
            raise
        self._note_date(answer)
        self._told_of_put = answer
        self._same("first", data)
        with_digests = "; it takes nothing without a checksum, as buckets do that lock by themselves"
        said = with_digests if self._wants_digests else ""
        raise Finding("works", "ok", f"what was put is what is read{said}")

    def _put_first(self, data: bytes) -> dict[str, Any]:
        put = {"Body": data, **self._arguments.encryption()}
        try:
            return self._call("write", "put_object", "first", **put)
        except StoreFailed as exc:
            if "Content-MD5" not in str(exc) and "ContentMD5" not in str(exc):
                raise
        self._wants_digests = True
        return self._call("write", "put_object", "first", **put)

    def _clock(self) -> None:
        if self._date is None:
            raise Finding("unknown", "unknown", "the store does not say what time it is")
        skew = abs((self._date[0] - self._date[1]).total_seconds())
        if skew >= SKEW_NOTABLE_S:
            fix = "set this machine's clock: timedatectl set-ntp true"
            why = f"; S3 refuses requests from {SKEW_REFUSED_S / 60:g} minutes on"
            raise Finding("broken", "warn", f"this machine and the store{self._apart()}{why}", fix)
        raise Finding("works", "ok", f"no more than {max(1, round(skew))} s from this machine's")

    def _request_size(self) -> None:
        size = self._largest_request()
        if size == SINGLE_PUT_BYTES:
            raise Finding("works", "ok", f"{humanize_bytes(size)} at once are let through")
        fix = "raise the proxy's limit (nginx: client_max_body_size 0)"
        if size is None:
            least = humanize_bytes(PART_BYTES)
            message = f"a proxy before it lets no {least} through at once [413], the least that a part has"
            raise Finding("refused", "fail", message, fix)
        self._max_request_bytes = size
        most = humanize_bytes(largest_object(MAX_PARTS, size))
        message = (
            f"a proxy before it lets only {humanize_bytes(size)} through at once [413]: what is larger goes"
            f" up in such parts, and an object holds {most}"
        )
        raise Finding("refused", "warn", message, fix)

    def _listing(self) -> None:
        late = 0
        while late < _LATE_TRIES:
            if self._key("first") in self._listed():
                break
            time.sleep(_LATE_PAUSE_S)
            late += 1
        else:
            raise Finding(
                "broken",
                "fail",
                f"an object is still not listed {_LATE_TRIES * _LATE_PAUSE_S:g} s after it was put",
                "use a store whose listing is consistent: listings are its catalog",
            )
        if late:
            self._late = True
            raise Finding(
                "broken",
                "warn",
                f"a new object was listed only {late * _LATE_PAUSE_S:g} s after it was put: a backup may be"
                " missing from a listing for a moment (nothing is removed for that)",
                "use a store whose listing is consistent",
            )
        raise Finding("works", "ok", "a new object is listed at once")

    def _range(self) -> None:
        data = bytes(range(100))
        self._call("write", "put_object", "range", Body=data, **self._arguments.encryption())
        part = self._read("range", Range="bytes=10-19")
        if part != data[10:20]:
            raise Finding(
                "ignored", "warn", "a part of an object can't be asked for; pgsteward reads whole ones"
            )
        raise Finding("works", "ok", "a part of an object can be read")

    def _multipart(self) -> None:
        self._in_parts("parts", self._client, self._arguments.encryption())
        upload = self._begin(self._client, "last part", self._arguments.encryption())
        code = None
        for number in (MAX_PARTS, FEW_PARTS):
            part = {"UploadId": upload, "PartNumber": number, "Body": b"x", **self._arguments.customer_key()}
            code = self._refusal("upload_part", "last part", **part)
            if code is None:
                self._max_parts = number
                break
        with self._translating("abort the upload of", self._key("last part")):
            self._client.abort_multipart_upload(**self._where("last part"), UploadId=upload)
        if code is not None:
            message = f"fewer than {FEW_PARTS} parts are taken [{code}]: large files can't be stored"
            raise Finding("broken", "fail", message, "let the store take 1,000 parts, better 10,000")
        if self._max_parts < MAX_PARTS:
            most = humanize_bytes(largest_object(self._max_parts))
            raise Finding(
                "works",
                "ok",
                f"an object put in parts is what is read; no more than {self._max_parts} parts are taken:"
                f" they are made larger, and an object holds {most}",
            )
        raise Finding("works", "ok", "an object put in parts is what is read")

    def _abort(self) -> None:
        where = self._where("aborted")
        upload = self._begin(self._client, "aborted", self._arguments.encryption())
        self._call(
            *("write", "upload_part", "aborted"),
            **{"UploadId": upload, "PartNumber": 1, "Body": b"x", **self._arguments.customer_key()},
        )
        seen = upload in self._open_uploads()
        with self._translating("abort the upload of", where["Key"]):
            self._client.abort_multipart_upload(**where, UploadId=upload)
        left = upload in self._open_uploads()
        if left:
            fix = "add a lifecycle rule to the bucket: AbortIncompleteMultipartUpload after 1 day"
            raise Finding("broken", "warn", "an aborted upload is still listed: its parts may cost", fix)
        if not seen:
            fix = "add a lifecycle rule to the bucket: AbortIncompleteMultipartUpload after 1 day"
            why = "unfinished uploads are not listed: the janitor can't find those of killed runs"
            raise Finding("broken", "warn", why, fix)
        raise Finding("works", "ok", "unfinished uploads are listed and can be aborted")

    def _delete(self) -> None:
        self._call("write", "put_object", "gone", Body=b"x", **self._arguments.encryption())
        self._call("delete", "delete_object", "gone")
        try:
            self._read("gone")
        except FileNotFoundError:
            raise Finding("works", "ok", "what is deleted is gone from reads") from None
        fix = "allow s3:DeleteObject, or retention frees nothing there"
        raise Finding("ignored", "warn", "an object that was deleted can still be read", fix)

    # What pgsteward can do without

    def _copy(self) -> None:
        source = {"CopySource": self._where("range")}
        key = self._arguments.customer_key()
        if key:
            source |= {f"CopySource{name}": value for name, value in key.items()}
        code = self._refusal("copy_object", "copy", **source, **self._arguments.encryption())
        if code is not None:
            raise Finding(
                "refused", "ok", f"copies inside the store are refused [{code}]; nothing needs them"
            )
        self._same("copy", bytes(range(100)))
        raise Finding("works", "ok", "objects can be copied inside the store")

    def _conditional(self) -> None:
        code = self._refusal(
            "put_object", "first", Body=b"other", IfNoneMatch="*", **self._arguments.encryption()
        )
        if code in {"PreconditionFailed", "412", "ConditionalRequestConflict"}:
            raise Finding("honoured", "ok", "a put can be made to write over nothing")
        told = "is accepted and writes over what is there" if code is None else f"is refused [{code}]"
        verdict: Verdict = "ignored" if code is None else "refused"
        raise Finding(verdict, "ok", f"If-None-Match {told}; pgsteward does not rely on it")

    def _checksum(self) -> None:
        data = secrets.token_bytes(1000)
        right, wrong = sha256_of(data), sha256_of(b"something else")
        put = {"Body": data, **self._arguments.encryption()}
        without = "uploads are proven by reading them again"
        code = self._refusal("put_object", "checksum", ChecksumSHA256=right, **put)
        if code is not None:
            raise Finding("refused", "ok", f"SHA-256 is refused [{code}]: {without}")
        if self._head("checksum").get("ChecksumSHA256") != right:
            raise Finding("ignored", "ok", f"the store tells no SHA-256 of its own: {without}")
        if self._refusal("put_object", "wrong", ChecksumSHA256=wrong, **put) is None:
            raise Finding(
                "ignored", "ok", f"a wrong SHA-256 is accepted, so that it proves nothing: {without}"
            )
        arguments = {**self._arguments.encryption(), "ChecksumAlgorithm": "SHA256"}
        upload = self._begin(self._client, "checked", arguments)
        part = {"UploadId": upload, "PartNumber": 1, "Body": data, **self._arguments.customer_key()}
        if self._refusal("upload_part", "checked", ChecksumSHA256=wrong, **part) is None:
            raise Finding("ignored", "ok", f"a wrong SHA-256 of a part is accepted: {without}")
        sent = self._call("write", "upload_part", "checked", ChecksumSHA256=right, **part)
        entry = {"PartNumber": 1, "ETag": sent["ETag"], "ChecksumSHA256": right}
        self._complete(self._client, "checked", upload, [entry])
        expected = f"{sha256_of(base64.b64decode(right))}-1"
        if self._head("checked").get("ChecksumSHA256") != expected:
            raise Finding("ignored", "ok", f"the store tells no SHA-256 of objects in parts: {without}")
        self._same("checked", data)
        self._sha256 = True
        raise Finding(
            "honoured",
            "ok",
            "a wrong SHA-256 is refused, of parts too, and the store tells its own; read_back ="
            ' "checksum" may rely on that',
        )

    def _trailer(self) -> None:
        if not str(self._client.meta.endpoint_url).startswith("https:"):
            why = "trailers go over https only; request_checksum_calculation = when_required"
            raise Finding("unknown", "skipped", why)
        if self._max_request_bytes < LARGEST_PART_BYTES:
            why = "a request that the proxy just lets through is too large with them, so none is sent"
            raise Finding("unknown", "skipped", why)
        client = self._connected(checksum_trailers=True)
        data = secrets.token_bytes(1000)
        harmful = "; pgsteward sends none there (request_checksum_calculation = when_required)"
        others = "set AWS_REQUEST_CHECKSUM_CALCULATION=when_required for other tools that use this store"
        try:
            with self._translating("write", "trailer"):
                client.put_object(**self._where("trailer"), Body=data, **self._arguments.encryption())
            if self._read("trailer") != data:
                message = f"the store writes checksum trailers into the object{harmful}"
                raise Finding("broken", "warn", message, others)
            self._in_parts("trailers", client, self._arguments.encryption())
        except (StoreFailed, FileNotFoundError) as exc:
            code = code_of(exc.__cause__) if isinstance(exc.__cause__, boto.ClientError) else str(exc)
            raise Finding("refused", "ok", f"checksum trailers are refused [{code}]{harmful}") from exc
        except Finding as finding:
            if finding.verdict == "broken" and "trailers into" not in finding.message:
                message = f"parts with checksum trailers don't come back{harmful}"
                raise Finding("broken", "warn", message, others) from finding
            raise
        self._trailers = True
        raise Finding("works", "ok", "do no harm; request_checksum_calculation = when_supported")

    # What the configuration asks for

    def _encryption(self) -> None:
        sse = self._config.sse
        if sse is None:
            own = self._head("first").get("ServerSideEncryption")
            said = (
                f"the store encrypts by itself: {own}" if own else "the store does not say that it encrypts"
            )
            raise Finding("not asked for", "skipped", said)
        asked = 'sse = "' + sse + '"'
        # some repeat as metadata whatever header they were given; S3 confirms it in the answer to the put
        for there in (self._told_of_put, self._head("first"), self._head("parts")):
            if not self._arguments.are_confirmed_by(there):
                fix = "use a store that encrypts, or encrypt_to, or take sse out"
                raise Finding(
                    "ignored", "fail", f"{asked} is asked for, and the object is stored without", fix
                )
        if sse == "customer":
            try:
                self._client.get_object(**self._where("first"))["Body"].close()
            except boto.ClientError:
                pass
            else:
                fix = "use a store that encrypts, or encrypt_to"
                raise Finding("ignored", "fail", f"{asked}: the object can be read without the key", fix)
        raise Finding("honoured", "ok", f"{asked}: the store says that it encrypts")

    def _storage_class(self) -> None:
        asked = self._config.storage_class
        if asked is None:
            raise Finding("not asked for", "skipped", "the bucket's own")
        put = {"Body": b"x", "StorageClass": asked, **self._arguments.encryption()}
        fix = "correct storage_class, or take it out"
        code = self._refusal("put_object", "class", **put)
        if code is not None:
            raise Finding("refused", "fail", f"{asked} is refused [{code}]", fix)
        nonsense = {**put, "StorageClass": "PGSTEWARD_NONSENSE"}
        if self._refusal("put_object", "class", **nonsense) is None:
            message = f"{asked} is asked for, and the store takes any word for a class"
            raise Finding("ignored", "fail", message, fix)
        told = self._head("class").get("StorageClass", "STANDARD")
        if told != asked:
            raise Finding("ignored", "fail", f"{asked} is asked for, and the store says {told}", fix)
        self._read("class")
        raise Finding("honoured", "ok", f"{asked}, and it can be read at once")

    def _tags(self) -> None:
        if not self._config.tags:
            raise Finding("not asked for", "skipped", "none")
        put = {"Body": b"x", **self._arguments.encryption(), "Tagging": self._arguments.storage()["Tagging"]}
        fix = "take tags out, or allow s3:PutObjectTagging"
        code = self._refusal("put_object", "tags", **put)
        if code is not None:
            raise Finding("refused", "fail", f"tags are refused [{code}]", fix)
        there = None
        try:
            there = self._client.get_object_tagging(**self._where("tags")).get("TagSet", [])
        except boto.ClientError as exc:
            if code_of(exc) != "AccessDenied":
                raise Finding("ignored", "fail", f"tags can't be read back [{code_of(exc)}]", fix) from exc
        if there is not None and {tag["Key"]: tag["Value"] for tag in there} != dict(self._config.tags):
            raise Finding("ignored", "fail", "tags are asked for, and the object has none", fix)
        code = self._refusal("put_object_tagging", "tags", Tagging=self._arguments.tag_set())
        if code is not None:
            raise Finding("refused", "fail", f"tags of objects in parts are refused [{code}]", fix)
        if there is None:
            raise Finding("unknown", "ok", "accepted; reading them back is not permitted")
        raise Finding("honoured", "ok", "objects carry them")

    def _versioning(self) -> None:
        try:
            status = self._client.get_bucket_versioning(Bucket=self._bucket).get("Status")
        except boto.ClientError as exc:
            why = f"the store does not say whether the bucket keeps versions [{code_of(exc)}]"
            fix = "allow s3:GetBucketVersioning" if code_of(exc) == "AccessDenied" else ""
            raise Finding("unknown", "skipped", why, fix) from exc
        if status is None:
            raise Finding("works", "ok", "the bucket keeps no versions: what is deleted is gone")
        raise Finding(
            "works",
            "ok",
            f"{status.lower()}: what prune deletes is hidden by a delete marker and costs on as an older"
            " version; `pgsteward prune --versions` removes it, or a lifecycle rule does",
        )

    def _object_lock(self) -> None:
        asked = self._config.object_lock
        if asked is None:
            raise Finding("not asked for", "skipped", self._default_lock())
        for seconds in (LOCK_S, 4 * LOCK_S):
            if self._is_unlocked_in_time(asked, seconds):
                message = f"{asked} mode is noted, but a locked version was deleted all the same"
                raise Finding("ignored", "fail", message, _LOCK_FIX)
        message = (
            f"{asked} mode is noted, but the store answers so slowly that the lock of the probe was over"
        )
        raise Finding("unknown", "unknown", message)

    def _is_unlocked_in_time(self, asked: str, seconds: float) -> bool:
        """Lock an object and delete it; tell whether that succeeded before the lock was over."""
        now = datetime.now(UTC) + (self._date[0] - self._date[1] if self._date else timedelta())
        began = time.monotonic()
        until = (now + timedelta(seconds=seconds)).replace(microsecond=0) + timedelta(seconds=1)
        data = b"locked"
        lock = self._arguments.lock(until)
        md5 = md5_of(data)
        try:
            answer = self._client.put_object(
                **self._where("locked"), Body=data, ContentMD5=md5, **lock, **self._arguments.encryption()
            )
        except boto.ClientError as exc:
            message = f"{asked} mode is refused [{code_of(exc)}]"
            raise Finding("refused", "fail", message, _LOCK_FIX) from exc
        there = self._head("locked")
        version = answer.get("VersionId")
        if there.get("ObjectLockMode") != asked.upper() or version is None:
            raise Finding(
                "ignored", "fail", f"{asked} mode is asked for, and the object is not locked", _LOCK_FIX
            )
        self._locked_until = until
        try:
            self._client.delete_object(**self._where("locked"), VersionId=version)
        except boto.ClientError:
            raise Finding("honoured", "ok", f"{asked} mode: a locked version can't be deleted") from None
        return time.monotonic() - began < seconds

    def _default_lock(self) -> str:
        try:
            answer = self._client.get_object_lock_configuration(Bucket=self._bucket)
            rule = answer["ObjectLockConfiguration"]["Rule"]["DefaultRetention"]
        except (boto.ClientError, KeyError):
            return "none"
        span = f"{rule['Days']} days" if "Days" in rule else f"{rule.get('Years', '?')} years"
        return f"the bucket itself locks each object for {span} ({str(rule.get('Mode')).lower()})"
