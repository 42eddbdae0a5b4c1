"""What may heal by itself is tried again; nothing else ever is."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from pgsteward.errors import TransientError
from pgsteward.results import StepResult

log = logging.getLogger(__name__)


def call_with_retries(function: Callable[..., StepResult], *args: Any, **options: Any) -> StepResult:
    """Call an operation, and call it again for what may heal by itself: twice, after about 5 and 10 s."""
    from tenacity import Retrying, before_sleep_log, retry_if_exception_type, stop_after_attempt
    from tenacity.wait import wait_exponential_jitter

    retrying = Retrying(
        retry=retry_if_exception_type(TransientError),
        stop=stop_after_attempt(3),
        wait=wait_exponential_jitter(multiplier=5, max=60, jitter=3),
        before_sleep=before_sleep_log(log, logging.WARNING),
        reraise=True,
    )
    return retrying(function, *args, **options)
