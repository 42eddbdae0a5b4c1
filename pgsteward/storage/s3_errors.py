"""botocore's errors as ours: what may heal, what a person must change, and what was not there."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Mapping
from typing import Any

import urllib3.exceptions
from botocore import exceptions as boto

from pgsteward.config import StoreConfig
from pgsteward.errors import StewardError, StoreFailed, StoreUnavailable
from pgsteward.redaction import redact

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
        "InvalidPart",
        "BadDigest",
        "XAmzContentChecksumMismatch",
        "XAmzContentSHA256Mismatch",
        "IncompleteBody",
    }
)
_ADVICE = {
    "NoSuchBucket": "there is no such bucket; create it or correct the url",
    "AccessDenied": "access denied; the key needs s3:PutObject, GetObject, DeleteObject, ListBucket and"
    " AbortMultipartUpload on this bucket and prefix (or its secret is wrong: not every store tells)",
    "AllAccessDisabled": "access to this bucket is disabled; ask who administers it",
    "SignatureDoesNotMatch": "the signature does not match; check secret_access_key (and region); a proxy"
    " before the store must hand on Host header and path as they are",
    "InvalidAccessKeyId": "the access key is unknown there; check access_key_id and endpoint_url",
    "UserSuspended": "the user of this access key is suspended there; ask who administers the store",
    "ExpiredToken": "the session token has expired; renew the credentials",
    "InvalidToken": "the session token is not valid; renew the credentials",
    "RequestTimeTooSkewed": "this machine's clock differs too much from the store's; set the clock",
    "RequestExpired": "this machine's clock differs too much from the store's; set the clock",
    "PermanentRedirect": "the bucket lives in another region; set region",
    "AuthorizationHeaderMalformed": "the bucket lives in another region; set region",
    "IllegalLocationConstraintException": "the bucket lives in another region; set region",
    "EntityTooLarge": "the object is larger than this store accepts",
    "413": "a proxy before the store takes no request of this size; raise its limit (nginx:"
    " client_max_body_size 0)",
    "QuotaExceeded": "the store's quota is used up; raise it or prune",
    "XMinioStorageFull": "the store's disk is full; free space there or prune",
    "InvalidBucketName": "this is not a possible bucket name; correct the url",
    "InvalidStorageClass": "the store has no such storage class; correct storage_class, or take it out",
    "ObjectLockConfigurationNotFoundError": "the bucket has no Object Lock; make one with it, or take"
    " object_lock out",
    "InvalidObjectState": "the object was moved to an archive; bring it back there before it can be read",
}
_SAME = {
    "403": "AccessDenied",
    "Forbidden": "AccessDenied",
    "SignatureDoesNotMatchException": "SignatureDoesNotMatch",
    "ExpiredTokenException": "ExpiredToken",
    "TokenRefreshRequired": "ExpiredToken",
}
_NEED_NO_KEY = frozenset({"write", "list", "list the versions of"})
"""What no missing object can forbid: not found is the endpoint itself."""
_NO_S3 = "check endpoint_url, with its path, the bucket, and what stands between"
CONNECTION_ERRORS = (
    boto.ConnectionError,
    boto.HTTPClientError,
    boto.IncompleteReadError,
    boto.ResponseStreamingError,
    urllib3.exceptions.HTTPError,
    ConnectionError,
)


def refuse_cut_head(answer: Mapping[str, Any], endpoint_url: str) -> None:
    """Raise when an answer with an object broke off in its head: the body would look whole, and empty.

    Raises:
        ConnectionClosedError: Nothing says how long the body is.
    """
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    if "content-length" not in headers and "transfer-encoding" not in headers:
        answer["Body"].close()
        raise boto.ConnectionClosedError(endpoint_url=endpoint_url)


class Errors:
    """Turns the errors of one store into ours; no text of theirs shows a secret."""

    def __init__(self, name: str, config: StoreConfig) -> None:
        self._name, self._config = name, config

    @contextlib.contextmanager
    def translating(self, doing: str, key: str) -> Iterator[None]:
        """Raise `StoreUnavailable`, `StoreFailed` or `FileNotFoundError` for what happens inside.

        Args:
            doing: What is being done, as a verb.
            key: To which key.
        """
        try:
            yield
        except boto.ClientError as exc:
            raise self._refusal(exc, doing, key) from exc
        except (boto.BotoCoreError, urllib3.exceptions.HTTPError, ConnectionError) as exc:
            raise self._trouble(exc, doing, key) from exc

    def _where(self, doing: str, key: str) -> str:
        return f"store {self._name!r} ({self._config.url}): can't {doing} {key!r}"

    def _refusal(self, exc: boto.ClientError, doing: str, key: str) -> StewardError | FileNotFoundError:
        code, status = code_of(exc), status_of(exc)
        where = self._where(doing, key)
        if code in {"NoSuchKey", "404", "NotFound", "NoSuchVersion"}:
            if doing in _NEED_NO_KEY:
                return StoreFailed(f"{where}: nothing is known under this address [{code}]; {_NO_S3}")
            return FileNotFoundError(errno.ENOENT, f"store {self._name!r} has no such key", key)
        if code in _ADVICE:
            return StoreFailed(f"{where}: {_ADVICE[code]} [{code}]")
        message = self.redacted(str(exc.response.get("Error", {}).get("Message") or "no explanation"))
        if 300 <= status < 400:
            elsewhere = self.redacted(_header(exc, "location"))
            return StoreFailed(f"{where}: it sends us on to {elsewhere!r}; {_NO_S3} [{code}]")
        if "text/html" in _header(exc, "content-type"):
            message += f"; a web page came instead of S3's answer: {_NO_S3}"
        if code == "InvalidPart":  # also the answer to a last request that was repeated too early
            message += (
                "; the object is not there either; where it is large, raise timeout_s: putting its parts"
                " together takes time"
            )
        if code in _MAY_HEAL or status == 429 or (status >= 500 and status != 501):
            return StoreUnavailable(f"{where}: the store is busy or in trouble: {message} [{code}]")
        return StoreFailed(f"{where}: {message} [{code}]")

    def _trouble(self, exc: Exception, doing: str, key: str) -> StewardError:
        where = self._where(doing, key)
        if isinstance(exc, boto.SSLError):
            return StoreFailed(
                f"{where}: the store's certificate is not trusted; name its authority in ca_bundle:"
                f" {self.redacted(str(exc))}"
            )
        inner = getattr(exc, "kwargs", {}).get("error")
        if isinstance(inner, StewardError):  # botocore wraps what reading the body raised
            return inner
        if isinstance(exc, boto.ProxyConnectionError):
            return StoreUnavailable(f"{where}: the proxy {self._config.proxy or ''} does not let us through")
        if isinstance(exc, CONNECTION_ERRORS):
            endpoint = self._config.endpoint_url or "AWS"
            return StoreUnavailable(
                f"{where}: no working connection to {endpoint} ({type(exc).__name__}); see that it answers,"
                " the next run tries again"
            )
        if isinstance(exc, boto.NoCredentialsError | boto.PartialCredentialsError):
            return StoreFailed(
                f"{where}: no credentials found; set access_key_id and secret_access_key, or profile or"
                " AWS_PROFILE, or give this machine a role"
            )
        return StoreFailed(f"{where}: {self.redacted(str(exc))}")

    def redacted(self, text: str) -> str:
        """Return a text on one line, without the store's secrets."""
        return " ".join(redact(text, self._secrets()).split())

    def _secrets(self) -> Iterator[str]:
        config = self._config
        for secret in (
            config.access_key_id,
            config.secret_access_key,
            config.session_token,
            config.sse_customer_key,
        ):
            if secret is not None:
                with contextlib.suppress(StewardError):
                    yield secret.resolve()


def code_of(exc: boto.ClientError) -> str:
    """Return the store's error code, by its usual name."""
    code = str(exc.response.get("Error", {}).get("Code") or status_of(exc))
    return _SAME.get(code, code)


def _header(exc: boto.ClientError, name: str) -> str:
    return str(exc.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get(name, ""))


def status_of(exc: boto.ClientError) -> int:
    """Return the status of the answer, 0 where there was none."""
    return int(exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
