"""botocore's client of one store, and what each of its requests carries: encryption, lock, class, tags.

Who we are is found by boto3's own chain where no keys are configured: environment, profile, web identity,
container or instance role.
"""

from __future__ import annotations

import base64
import binascii
import functools
import time
import weakref
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import getproxies

import botocore.loaders
import botocore.session
from botocore.config import Config as BotoConfig
from s3transfer.utils import signal_not_transferring, signal_transferring

from pgsteward.config import StoreConfig
from pgsteward.config_checks import is_loopback
from pgsteward.errors import StoreFailed

_KEY_BYTES = 32
_REDIRECTS = frozenset({301, 302, 307})
_BUSY = frozenset({429, 503})
_LONGEST_WAIT_S = 30


def make_client(
    config: StoreConfig,
    *,
    checksum_trailers: bool = False,
    retries: int | None = None,
    timeout_s: float | None = None,
) -> Any:
    """Return a client; nothing is contacted yet.

    Args:
        config: The store.
        checksum_trailers: botocore's ``request_checksum_calculation = when_supported``; some stores write the
            trailers into the object.
        retries: Instead of the configured number.
        timeout_s: How long an answer is waited for, instead of the configured time.

    Raises:
        StoreFailed: Requests would go out in clear text.
    """
    when = "when_supported" if checksum_trailers else "when_required"
    tries = 1 + (config.retries if retries is None else retries)
    session = botocore.session.Session(profile=config.profile)
    session.register_component("data_loader", _loader())
    settings = BotoConfig(
        connect_timeout=min(10.0, config.timeout_s),
        read_timeout=config.timeout_s if timeout_s is None else timeout_s,
        retries={"mode": "standard", "total_max_attempts": tries},
        max_pool_connections=max(16, 2 * config.upload_jobs),
        proxies={"http": config.proxy, "https": config.proxy} if config.proxy else None,
        s3=_addressing(config),
        request_checksum_calculation=when,
        response_checksum_validation="when_required",
    )
    create = functools.partial(
        session.create_client,
        "s3",
        endpoint_url=config.endpoint_url,
        region_name=config.region or ("us-east-1" if config.endpoint_url else None),
        verify=config.ca_bundle,
        **_keys(config),
    )
    client = create(config=settings)
    if not str(client.meta.endpoint_url).startswith("https:"):
        _refuse_clear_text(client.meta.endpoint_url, config.proxy)
        if (
            config.proxy is None and "http" in getproxies()
        ):  # the environment's: none of this machine's matter
            client = create(config=settings.merge(BotoConfig(proxies={})))
    client.meta.events.register_first("request-created.s3", signal_not_transferring)
    client.meta.events.register_last("request-created.s3", signal_transferring)
    client.meta.events.register_first(
        "needs-retry.s3", functools.partial(_heed_answer, weakref.proxy(client))
    )
    return client


def _addressing(config: StoreConfig) -> dict[str, str] | None:
    """Return where the bucket's name goes; None leaves it to boto3's own files, and to the endpoint."""
    if config.path_style is None:
        return {"addressing_style": "path"} if config.endpoint_url is not None else None
    return {"addressing_style": "path" if config.path_style else "virtual"}


def _refuse_clear_text(endpoint_url: str, proxy: str | None) -> None:
    """Make sure that nothing leaves this machine in clear text, wherever the address comes from."""
    if not is_loopback(urlsplit(endpoint_url).hostname):
        raise StoreFailed(
            f"{endpoint_url} would be spoken to in clear text; write https://... where it comes from"
            " (endpoint_url, AWS_ENDPOINT_URL or the profile)"
        )
    if proxy is not None and not is_loopback(urlsplit(proxy).hostname):
        raise StoreFailed(
            f"{endpoint_url} would be spoken to in clear text through {proxy}; take proxy out, or write https://"
        )


def _heed_answer(
    client: Any, request_dict: dict[str, Any], response: tuple[Any, dict[str, Any]] | None, **_: Any
) -> None:
    """See to what botocore does not expect of a proxy before a store, before it judges an answer itself."""
    status = 0 if response is None else response[0].status_code
    if response is None or status < 300:
        return
    if "Expect" in request_dict["headers"]:
        # refused instead of "100 Continue", the body was not sent: a server that waits for it takes the next
        # request on this connection for it
        client.close()
    if status in _REDIRECTS and "x-amz-bucket-region" not in response[0].headers:
        request_dict["context"]["s3_redirect"]["redirected"] = True  # else it asks without end for the region
    _wait_as_told(status, response[0].headers, request_dict["context"].get("retries", {}))
    error = response[1].get("Error", {})
    if status == 429 and error.get("Code") == "429":
        error["Code"] = "TooManyRequestsException"  # by this name it is repeated


def _wait_as_told(status: int, headers: Mapping[str, str], retries: Mapping[str, int]) -> None:
    """Wait as long as a busy store asks for, beside botocore's own pause, if the request is repeated."""
    told = headers.get("retry-after", "")
    if status in _BUSY and told.isdecimal() and retries.get("attempt", 0) < retries.get("max", 0):
        time.sleep(min(int(told), _LONGEST_WAIT_S))


@functools.cache
def _loader() -> Any:
    """Return what reads botocore's descriptions of S3; read once, a client costs a tenth."""
    return botocore.loaders.create_loader()


def _keys(config: StoreConfig) -> dict[str, str]:
    if config.access_key_id is None or config.secret_access_key is None:
        return {}
    keys = {
        "aws_access_key_id": config.access_key_id.resolve(),
        "aws_secret_access_key": config.secret_access_key.resolve(),
    }
    if config.session_token is not None:
        keys["aws_session_token"] = config.session_token.resolve()
    return keys


class Arguments:
    """What the requests of one store carry besides key and content."""

    def __init__(self, config: StoreConfig) -> None:
        self._config = config

    @property
    def locks(self) -> bool:
        """True where objects are put under Object Lock."""
        return self._config.object_lock is not None

    def new(self, *, passing: bool = False) -> dict[str, Any]:
        """Return those of a new object, in one request or in parts.

        Args:
            passing: It is removed again soon: neither locked nor put into a class with a minimum time.
        """
        return {**self.encryption(), **({} if passing else {**self.lock(), **self.storage()})}

    def storage(self) -> dict[str, Any]:
        """Return storage class and tags."""
        config = self._config
        found: dict[str, Any] = {}
        if config.storage_class is not None:
            found["StorageClass"] = config.storage_class
        if config.tags:
            found["Tagging"] = urlencode(dict(config.tags), quote_via=quote)  # not all read + as a space
        return found

    def tag_set(self) -> dict[str, Any]:
        """Return the tags as a request of their own says them."""
        return {"TagSet": [{"Key": key, "Value": value} for key, value in self._config.tags.items()]}

    def lock(self, until: datetime | None = None) -> dict[str, Any]:
        """Return Object Lock until the end of the configured days, or another instant."""
        config = self._config
        if config.object_lock is None or config.object_lock_days is None:
            return {}
        until = until or datetime.now(UTC) + timedelta(days=config.object_lock_days)
        return {"ObjectLockMode": config.object_lock.upper(), "ObjectLockRetainUntilDate": until}

    def encryption(self) -> dict[str, Any]:
        """Return what the store shall encrypt a new object with."""
        config = self._config
        if config.sse == "s3":
            return {"ServerSideEncryption": "AES256"}
        if config.sse == "kms":
            key = {"SSEKMSKeyId": config.sse_kms_key_id} if config.sse_kms_key_id else {}
            return {"ServerSideEncryption": "aws:kms", **key}
        return self.customer_key()

    def are_confirmed_by(self, answer: dict[str, Any]) -> bool:
        """Tell whether a store says that it has encrypted as it was asked to."""
        if self._config.sse == "customer":
            return answer.get("SSECustomerAlgorithm") == "AES256"
        if self._config.sse == "s3":
            return answer.get("ServerSideEncryption") == "AES256"
        key = self._config.sse_kms_key_id
        named = str(answer.get("SSEKMSKeyId") or "")
        # the store answers with the key's ARN, whatever alias or id was given
        same = not key or key.startswith(("alias/", "arn:")) or named.endswith(key)
        return answer.get("ServerSideEncryption") == "aws:kms" and bool(named) and same

    def customer_key(self) -> dict[str, Any]:
        """Return the key that the store does not keep: every request for the object or a part needs it.

        Raises:
            StoreFailed: The secret is no key.
        """
        secret = self._config.sse_customer_key
        if secret is None:
            return {}
        try:
            key = base64.b64decode(secret.resolve().strip(), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) != _KEY_BYTES:
            raise StoreFailed(
                "sse_customer_key must be 32 bytes in base64; make one: openssl rand -base64 32"
            )
        return {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": key}
