"""Tasks: retries, timeout and run name around ONE call into pgsteward each.

Called directly, never through `.submit()`: in the main thread a cancel or a timeout ends the statement and
the children within seconds, in a worker thread it would end neither.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any, ParamSpec, TypeVar, cast

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import exponential_backoff

from pgsteward.config import register_secret_resolver
from pgsteward.errors import ConfigError, TransientError

RETRIES = 3

P = ParamSpec("P")
R = TypeVar("R")


def retry_if_transient(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Retry only what may heal by itself; everything else fails at once."""
    return isinstance(state.result(raise_on_failure=False), TransientError)


def maintenance_task(
    name: str, *, timeout: timedelta, retries: int = RETRIES
) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Return the decorator of every task here.

    Each attempt reads the configuration and decides afresh, so it can be repeated; results are never
    cached: "measure, vacuum, measure" would return the first number twice.

    Args:
        name: Name of the step; its runs are called ``<name>-<target>``.
        timeout: A backstop for what no timeout in PostgreSQL ends; not a plan.
        retries: Only for `TransientError`: after about 10, 20 and 40 s, with jitter.
    """
    return task(
        name=name,
        task_run_name=f"{name}-{{target}}",
        retries=retries,
        retry_delay_seconds=exponential_backoff(backoff_factor=10),
        retry_jitter_factor=0.5,
        retry_condition_fn=retry_if_transient,
        timeout_seconds=timeout.total_seconds(),
        cache_policy=NO_CACHE,
        persist_result=False,
    )


def read_secret_block(name: str) -> str:
    """Return what a Prefect Secret block holds.

    Raises:
        ConfigError: There is no such block, or it can't be read.
    """
    from prefect.blocks.system import Secret

    try:
        block = cast("Secret[str]", Secret.load(name))
    except ValueError as exc:
        raise ConfigError(
            f"there is no Prefect Secret block {name!r}; create it in the UI (Blocks) or with"
            " prefect.blocks.system.Secret(value=...).save(name)"
        ) from exc
    return str(block.get())


register_secret_resolver("prefect_secret", read_secret_block)
logging.getLogger("pgsteward").setLevel(logging.INFO)  # the root logger's WARNING would hide it from the run
