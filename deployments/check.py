"""The Prefect side of ``pgsteward doctor``: pins, server, worker, and drift from ``prefect.yaml``.

``python -m deployments.check [FILE]`` prints a JSON list of ``{check, status, message, fix}``; status is ok,
warn, fail or unknown, and what was not looked at is unknown. Exit 0 unless something fails.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import httpx
import prefect
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterTags,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkerFilter,
    WorkerFilterStatus,
)
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

from deployments.project_file import OUR_TAG, Deployment, default_file, deployments_of, read_file
from deployments.server import Difference, find_differences, read_deployed, server_url
from deployments.validate import validate
from pgsteward.errors import ConfigError, PreconditionError

Status = Literal["ok", "warn", "fail", "unknown"]

SCHEDULER_GRACE_S = 15.0
"""Deploying removes the runs that were due; Prefect's loop for fresh deployments makes them anew."""

_OF_THE_SERVER = ("server version", "leases", "work pool", "worker", "deployments", "scheduler")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at, or could not be.

    Attributes:
        check: Its name.
        status: ``warn`` works now and will hurt later; ``unknown`` was not looked at.
        message: What was found.
        fix: What to do; empty when nothing is to be done.
    """

    check: str
    status: Status
    message: str
    fix: str = ""


def check(file: Path) -> list[Check]:
    """Look at everything that can be looked at without changing it."""
    found = list(check_pins(version("prefect"), version("fastapi"), version("sqlalchemy")))
    try:
        findings = [finding for finding in validate(file) if finding.level == "error"]
        wanted = deployments_of(read_file(file)) if not findings else []
    except ConfigError as exc:
        return [*found, Check("prefect.yaml", "fail", str(exc), "set PGSTEWARD_HOME to a checkout")]
    if findings:
        first = f"{findings[0].where}: {findings[0].problem}"
        found.append(
            Check("prefect.yaml", "fail", f"{len(findings)} findings; {first}", "pgsteward validate")
        )
    else:
        found.append(Check("prefect.yaml", "ok", f"{len(wanted)} deployments"))
    try:
        url = server_url()
        with get_client(sync_client=True) as client:
            client.hello()
            found.append(Check("server", "ok", f"{url} answers"))
            found += _check_server(client, wanted)
    except PreconditionError as exc:
        found.append(Check("server", "unknown", str(exc), "pgsteward up"))
    except (httpx.HTTPError, PrefectHTTPStatusError) as exc:
        said = f"{get_current_url()} does not answer as a Prefect server does: {exc or type(exc).__name__}"
        found.append(Check("server", "fail", said, "start it, or correct PREFECT_API_URL"))
    done = {entry.check for entry in found}
    found += [Check(c, "unknown", "not looked at: no server") for c in _OF_THE_SERVER if c not in done]
    return found


def get_current_url() -> str:
    """Return the configured server, or nothing."""
    try:
        return server_url()
    except PreconditionError:
        return ""


def check_pins(prefect_version: str, fastapi_version: str, sqlalchemy_version: str) -> Iterator[Check]:
    """Judge the versions that decide whether a Prefect server starts and schedules."""
    found = _numbers(prefect_version)
    if (3, 8, 8) <= found < (4,):
        yield Check("prefect", "ok", prefect_version)
    else:
        yield Check(
            "prefect", "fail", f"{prefect_version} was never tried", 'pip install "prefect>=3.8.8,<4"'
        )
    if _numbers(fastapi_version) < (0, 151):
        yield Check("fastapi", "ok", fastapi_version)
    else:
        yield Check(
            "fastapi",
            "fail",
            f"the server does not start with {fastapi_version}",
            'pip install "fastapi<0.151"',
        )
    if _numbers(sqlalchemy_version) < (2, 1) or found >= (3, 9):
        yield Check("sqlalchemy", "ok", sqlalchemy_version)
    else:
        yield Check(
            "sqlalchemy",
            "fail",
            f"with {sqlalchemy_version} the server looks fine and never creates a scheduled run",
            'pip install "sqlalchemy>=2.0,<2.1"',
        )


def _check_server(client: SyncPrefectClient, wanted: list[Deployment]) -> Iterator[Check]:
    theirs, ours = client.api_version(), prefect.__version__
    if theirs == ours:
        yield Check("server version", "ok", theirs)
    else:
        said = f"the server has {theirs}, this side {ours}"
        status: Status = "warn" if _numbers(theirs)[:2] >= _numbers(ours)[:2] else "fail"
        yield Check("server version", status, said, "give both the same version; the server first")
    yield _check_leases(client)
    pools = sorted({deployment.pool for deployment in wanted})
    for pool in pools:
        yield from _check_pool(client, pool)
    if not wanted:
        return
    differences = find_differences(wanted, read_deployed(client))
    for difference in differences:
        yield _told(difference)
    if not differences:
        yield Check("deployments", "ok", f"{len(wanted)} as in the file")
    yield _check_scheduler(client, wanted, differences)


def _check_leases(client: SyncPrefectClient) -> Check:
    try:
        settings: dict[str, Any] = client._client.get("/admin/settings").json()
        storage = str(settings["server"]["concurrency"]["lease_storage"])
    except (httpx.HTTPError, PrefectHTTPStatusError, KeyError, TypeError, ValueError):
        return Check("leases", "unknown", "the server does not show its settings")
    if not storage.endswith(".memory"):
        return Check("leases", "ok", storage)
    return Check(
        "leases",
        "warn",
        "kept in memory: a restart of the server during a run leaves its concurrency slot taken for ever",
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE=prefect.server.concurrency.lease_storage.filesystem",
    )


def _check_pool(client: SyncPrefectClient, name: str) -> Iterator[Check]:
    try:
        pool = client.read_work_pool(name)
    except ObjectNotFound:
        yield Check("work pool", "fail", f"there is no work pool {name}", "pgsteward deploy")
        return
    if pool.is_paused:
        fix = f"prefect work-pool resume {name}"
        yield Check("work pool", "fail", f"{name} is paused: nothing starts", fix)
    else:
        yield Check("work pool", "ok", f"{name} ({pool.type})")
    online = client.read_workers_for_work_pool(
        name, worker_filter=WorkerFilter(status=WorkerFilterStatus(any_=["ONLINE"]))
    )
    if online:
        yield Check("worker", "ok", f"{len(online)} online in {name}")
    else:
        yield Check(
            "worker",
            "fail",
            f"no worker is online in {name}: nothing starts",
            f"prefect worker start --pool {name}",
        )


def _told(difference: Difference) -> Check:
    message = f"{difference.deployment} {difference.what}"
    if difference.by_hand:
        return Check("deployments", "warn", message, "switch it on in the UI, if that was not meant")
    prune = " --prune" if difference.stray else ""
    return Check("deployments", "fail", message, f"pgsteward deploy{prune}")


def _due_times(client: SyncPrefectClient) -> list[datetime]:
    scheduled = client.read_flow_runs(
        deployment_filter=DeploymentFilter(tags=DeploymentFilterTags(all_=[OUR_TAG])),
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED]))
        ),
        limit=200,
    )
    return [run.expected_start_time for run in scheduled if run.auto_scheduled and run.expected_start_time]


def _check_scheduler(
    client: SyncPrefectClient, wanted: list[Deployment], differences: list[Difference]
) -> Check:
    """A server whose scheduler is broken looks fine but for this: no run is ever due."""
    touched = {difference.deployment for difference in differences}
    due = [entry for entry in wanted if entry.schedules and entry.full_name not in touched]
    if not due:
        return Check("scheduler", "unknown", "no deployment has an active schedule", "pgsteward deploy")
    times = _due_times(client)
    deadline = time.monotonic() + SCHEDULER_GRACE_S
    while not times and time.monotonic() < deadline:
        time.sleep(1)
        times = _due_times(client)
    if not times:
        return Check(
            "scheduler",
            "fail",
            "schedules are active, and yet no run is due",
            "is the server's scheduler running? Look at its log, and at the pins of sqlalchemy",
        )
    oldest = min(times)
    if datetime.now(UTC) - oldest > timedelta(minutes=15):
        late = f"a run that was due at {oldest:%Y-%m-%d %H:%M} UTC has not started"
        return Check("scheduler", "warn", late, "is a worker online, and is its concurrency slot free?")
    return Check("scheduler", "ok", f"the next run is due at {oldest:%Y-%m-%d %H:%M} UTC")


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("+")[0].split(".") if part.isdigit())


def main(argv: list[str] | None = None) -> int:
    """Run from a shell."""
    parser = argparse.ArgumentParser(prog="python -m deployments.check", description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE")
    parser.add_argument("--exit-zero", action="store_true", help="leave the judgement to who reads the list")
    options = parser.parse_args(argv)
    try:
        found = check(options.file or default_file())
    except ConfigError as exc:
        found = [Check("prefect.yaml", "fail", str(exc), "set PGSTEWARD_HOME to a checkout of pgsteward")]
    print(json.dumps([asdict(entry) for entry in found], indent=2))
    failed = any(entry.status == "fail" for entry in found)
    return 1 if failed and not options.exit_zero else 0


if __name__ == "__main__":
    sys.exit(main())
