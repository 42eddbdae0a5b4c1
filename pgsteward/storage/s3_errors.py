"""botocore's errors as ours: what may heal, what a person must change, and what was not there."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Mapping
from typing import Any

import urllib3.exceptions
from botocore import exceptions as boto

from pgsteward.config import StoreConfig
from pgsteward.config_stores import endpoint_in_environment
from pgsteward.errors import ObjectArchived, StewardError, StoreFailed, StoreUnavailable
from pgsteward.redaction import redact

_NO_ANSWER = "NoAnswer"
_MAY_HEAL = frozenset(
    {
        _NO_ANSWER,
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
_NO_S3 = "check endpoint_url, with its path, the bucket, and what stands between"
_CHAIN = "see what the environment (AWS_...) and ~/.aws/config say"
_ADVICE = {
    "NoSuchBucket": "there is no such bucket; create it or correct the url",
    "AllAccessDisabled": "access to this bucket is disabled; ask who administers it",
    "SignatureDoesNotMatch": "the signature does not match; check secret_access_key (and region); a proxy"
    " before the store must hand on Host header and path as they are",
    "InvalidAccessKeyId": "the access key is unknown there; check access_key_id and endpoint_url",
    "UserSuspended": "the user of this access key is suspended there; ask who administers the store",
    "ExpiredToken": "the session token has expired; renew the credentials",
    "InvalidToken": "the session token is not valid; renew the credentials",
    "RequestTimeTooSkewed": "this machine's clock differs too much from the store's; set the clock",
    "RequestExpired": "this machine's clock differs too much from the store's; set the clock",
    "SecondLevelDomainForbidden": "this store wants the bucket in its host name; set path_style = false",
    "PathStyleDomainForbidden": "this store wants the bucket in its host name; set path_style = false",
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
    "401": "something before the store asks for a password of its own; " + _NO_S3,
    "407": "the proxy on the way asks for user and password; set HTTPS_PROXY=http://user:password@host:port"
    " in the environment, and take proxy out",
}
_OTHER_REGION = frozenset(
    {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
)
_RIGHTS = {
    "CompleteMultipartUpload": "s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "GetObject": "s3:GetObject (and s3:ListBucket: without it an object that is not there looks forbidden)",
    "HeadObject": "s3:GetObject (and s3:ListBucket: without it an object that is not there looks forbidden)",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "ListObjectVersions": "s3:ListBucketVersions",
    "ListObjectsV2": "s3:ListBucket",
    "UploadPart": "s3:PutObject",
}
"""What an operation needs that is not called like its right."""
_SAME = {
    "403": "AccessDenied",
    "Forbidden": "AccessDenied",
    "SignatureDoesNotMatchException": "SignatureDoesNotMatch",
    "ExpiredTokenException": "ExpiredToken",
    "TokenRefreshRequired": "ExpiredToken",
}
_NEED_NO_KEY = frozenset({"write", "list", "list the versions of"})
"""What no missing object can forbid: not found is the endpoint itself."""
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


def refuse_empty(answer: Mapping[str, Any], operation: str, *names: str) -> None:
    """Raise when an answer says nothing of what S3 always says: a listing of nothing would look true.

    Args:
        answer: With status 200.
        operation: What was asked for.
        names: One of them is in every such answer.

    Raises:
        ClientError: It was not S3 that answered.
    """
    if not set(names) & set(answer):
        error = {"Code": _NO_ANSWER, "Message": f"the answer is empty, or not one of S3; {_NO_S3}"}
        whole: Any = {"Error": error, "ResponseMetadata": answer.get("ResponseMetadata", {})}
        raise boto.ClientError(whole, operation)


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
        except (OSError, ValueError) as exc:  # of boto3's own chain: a token's file, a program, an address
            if isinstance(exc.__cause__, boto.ClientError):  # what was raised above, by a block inside
                raise
            raise StoreFailed(f"{self._where(doing, key)}: {self.redacted(str(exc))}; {_CHAIN}") from exc

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
            kind = ObjectArchived if code == "InvalidObjectState" else StoreFailed
            return kind(f"{where}: {_ADVICE[code]} [{code}]")
        said = self.redacted(str(exc.response.get("Error", {}).get("Message") or ""))
        if code == "AccessDenied":
            needs = _RIGHTS.get(exc.operation_name, f"s3:{exc.operation_name}")
            return StoreFailed(
                f"{where}: access denied; the key needs {needs} on this bucket and prefix, or its secret is"
                f" wrong: not every store tells{_quoted(said)} [{code}]"
            )
        region = str(exc.response.get("Error", {}).get("Region") or _header(exc, "x-amz-bucket-region"))
        if code in _OTHER_REGION or (region and 300 <= status < 400):
            which = f"region {region!r}; set it" if region else "another region; set region"
            return StoreFailed(f"{where}: the bucket lives in {which}{_quoted(said)} [{code}]")
        message = said or "no explanation"
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
        if isinstance(exc, boto.SSLError) and not _broke_off(exc):
            return StoreFailed(f"{where}: {_tls_advice(str(exc))}: {self.redacted(str(exc))}")
        inner = getattr(exc, "kwargs", {}).get("error")
        if isinstance(inner, StewardError):  # botocore wraps what reading the body raised
            return inner
        if isinstance(exc, boto.ProxyConnectionError):
            proxy = self._config.proxy or "that the environment names (HTTPS_PROXY)"
            if "407" in str(exc.kwargs["error"]):
                return StoreFailed(f"{where}: {_ADVICE['407']} [407]")
            return StoreUnavailable(f"{where}: the proxy {proxy} does not let us through")
        if isinstance(exc, CONNECTION_ERRORS):
            endpoint = self._config.endpoint_url or endpoint_in_environment() or "AWS"
            return StoreUnavailable(
                f"{where}: no working connection to {endpoint} ({type(exc).__name__}); see that it answers,"
                " the next run tries again"
            )
        if isinstance(exc, boto.NoCredentialsError | boto.PartialCredentialsError):
            return StoreFailed(
                f"{where}: no credentials found; set access_key_id and secret_access_key, or profile or"
                " AWS_PROFILE, or give this machine a role"
            )
        if isinstance(exc, boto.CredentialRetrievalError) and exc.kwargs["provider"] == "custom-process":
            return StoreFailed(  # it says what the program said, which may be anything
                f"{where}: the profile's credential_process gives no credentials; run it by hand to see why"
            )
        if isinstance(exc, boto.ProfileNotFound):
            return StoreFailed(
                f"{where}: {exc}; correct profile, or AWS_PROFILE in the environment, or unset that"
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


def _broke_off(exc: boto.SSLError) -> bool:
    """Tell whether a connection ended too early, which has nothing to do with certificates."""
    said = str(exc)
    return "EOF" in said or ("CERTIFICATE" not in said and "reset" in said.lower())


def _tls_advice(said: str) -> str:
    if "[Errno" in said or "NO_CERTIFICATE" in said:
        return "ca_bundle (or AWS_CA_BUNDLE) names no file with certificates; correct it"
    if "has expired" in said:
        return "the store's certificate has expired; renew it there (or this machine's clock is wrong)"
    if "not yet valid" in said:
        return "the store's certificate is not valid yet; see whether this machine's clock is right"
    if "mismatch" in said or "doesn't match" in said:
        return "the store's certificate is for another host name; correct endpoint_url (or path_style)"
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return "the store's certificate is not trusted; name its authority in ca_bundle"
    return "no TLS connection; see whether endpoint_url is where the store speaks TLS, and which it wants"


def code_of(exc: boto.ClientError) -> str:
    """Return the store's error code, by its usual name."""
    code = str(exc.response.get("Error", {}).get("Code") or status_of(exc))
    return _SAME.get(code, code)


def _quoted(said: str) -> str:
    """Return what the store says itself, where that is more than the name of its error."""
    return f" (it says: {said})" if len(said.split()) > 2 else ""


def _header(exc: boto.ClientError, name: str) -> str:
    return str(exc.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get(name, ""))


def status_of(exc: boto.ClientError) -> int:
    """Return the status of the answer, 0 where there was none."""
    return int(exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
