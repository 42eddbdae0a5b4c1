"""Report: what the run's page shows, and the history that later reports compare with."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import ParamSpec, TypeVar

from prefect import Task, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from pgsteward import report, state
from pgsteward.results import NightResult, StepResult
from pgsteward.targets import load_target
from tasks import maintenance_task

P = ParamSpec("P")
R = TypeVar("R")


def _bookkeeping(name: str) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Return the decorator of a task that only writes down what was done: retried whatever the reason."""
    return task(
        name=name,
        task_run_name=f"{name}-{{result.target}}",
        retries=3,
        retry_delay_seconds=exponential_backoff(backoff_factor=2),
        retry_jitter_factor=0.5,
        cache_policy=NO_CACHE,
        persist_result=False,
    )


@_bookkeeping("report")
def publish_report(result: NightResult | StepResult) -> None:
    """Publish a report as an artifact, a night's also as a table; each key keeps its versions.

    The keys are ``night-<target>``, ``night-<target>-table`` and ``<step>-<target>``.
    """
    name = "night" if isinstance(result, NightResult) else result.step
    key = f"{name}-{result.target}".replace("_", "-")
    headline = report.headline(result)
    if isinstance(result, NightResult):
        create_markdown_artifact(report.markdown(result), key=key, description=headline)
        create_table_artifact(report.table(result), key=f"{key}-table", description=headline)
    else:
        create_markdown_artifact(report.step_markdown(result), key=key, description=headline)


@_bookkeeping("history")
def record_history(result: NightResult | StepResult, database: str | None = None) -> None:
    """Keep what was done in the state database, under its database's name or those of all."""
    target = load_target(result.target)
    with state.open_history(target.config) as history:
        history.record(result, database=database or target.scope)


@maintenance_task("last-night", timeout=timedelta(minutes=5))
def last_night(target: str) -> NightResult | None:
    """Read the newest night of a target from the state database."""
    chosen = load_target(target)
    with state.open_history(chosen.config) as history:
        return history.last_night(target, chosen.scope)
