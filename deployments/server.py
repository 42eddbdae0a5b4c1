"""What a Prefect server knows of our deployments, and where that differs from ``prefect.yaml``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule
from prefect.settings import get_current_settings

from deployments.project_file import OUR_TAG, Deployment
from pgsteward.errors import PreconditionError

_PAGE = 200


@dataclass(frozen=True, slots=True)
class Deployed:
    """A deployment as the server has it.

    Attributes:
        full_name: ``flow/deployment``.
        settings: What Prefect's client returned.
    """

    full_name: str
    settings: DeploymentResponse

    @property
    def schedules(self) -> Mapping[str, DeploymentSchedule]:
        """Schedules by slug; one without a slug by its id."""
        return {schedule.slug or str(schedule.id): schedule for schedule in self.settings.schedules}


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that the server has otherwise than the file.

    Attributes:
        deployment: ``flow/deployment``.
        what: A sentence.
        stray: (deployment id, schedule id) of a schedule that is not in the file: what prune removes.
        by_hand: Somebody chose so in the UI; a deploy leaves it as it is.
    """

    deployment: str
    what: str
    stray: tuple[UUID, UUID] | None = None
    by_hand: bool = False


def server_url() -> str:
    """Return the configured server.

    Raises:
        PreconditionError: None is; Prefect would silently start a throw-away one.
    """
    url = get_current_settings().api.url
    if not url:
        raise PreconditionError(
            "no Prefect server is configured: export PREFECT_API_URL=http://127.0.0.1:4200/api, or run"
            " `pgsteward up`, which starts one"
        )
    return str(url)


def read_deployed(client: SyncPrefectClient) -> list[Deployed]:
    """Return every deployment that carries our tag."""
    ours = DeploymentFilter(tags=DeploymentFilterTags(all_=[OUR_TAG]))
    found: list[DeploymentResponse] = []
    while True:
        page = client.read_deployments(deployment_filter=ours, limit=_PAGE, offset=len(found))
        found += page
        if len(page) < _PAGE:
            break
    flows = {flow_id: client.read_flow(flow_id).name for flow_id in {entry.flow_id for entry in found}}
    return [Deployed(f"{flows[entry.flow_id]}/{entry.name}", entry) for entry in found]


def find_differences(wanted: Iterable[Deployment], deployed: Iterable[Deployed]) -> list[Difference]:
    """Return where the server differs from the file.

    A deployment that is not in the file counts only in a work pool of the file: other files have other pools.
    """
    by_name = {entry.full_name: entry for entry in deployed}
    found: list[Difference] = []
    wanted = list(wanted)
    for deployment in wanted:
        there = by_name.pop(deployment.full_name, None)
        if there is None:
            found.append(Difference(deployment.full_name, "is in the file, not on the server"))
            continue
        found += _compare(deployment, there)
    pools = {deployment.pool for deployment in wanted}
    for name, entry in by_name.items():
        if entry.settings.work_pool_name not in pools:
            continue
        found.append(
            Difference(
                name, f"is on the server, not in the file; `prefect deployment delete {name}` removes it"
            )
        )
        for slug, schedule in entry.schedules.items():
            found.append(_stray(name, entry, slug, schedule))
    return found


def _compare(wanted: Deployment, there: Deployed) -> Iterator[Difference]:
    name, server = wanted.full_name, there.settings
    limit = wanted.settings.get("concurrency_limit")
    strategy = server.concurrency_options and server.concurrency_options.collision_strategy.value
    pairs: list[tuple[str, Any, Any]] = [
        ("entrypoint", wanted.entrypoint, server.entrypoint),
        ("work pool", wanted.pool, server.work_pool_name),
        ("parameters", dict(wanted.settings.get("parameters") or {}), server.parameters),
        ("tags", sorted(wanted.settings.get("tags") or []), sorted(server.tags)),
    ]
    if isinstance(limit, Mapping):
        there_limit = server.global_concurrency_limit and server.global_concurrency_limit.limit
        pairs.append(("concurrency limit", limit.get("limit"), there_limit))
        pairs.append(("collision strategy", limit.get("collision_strategy"), strategy))
    for what, ours, theirs in pairs:
        if ours != theirs and "{{" not in str(ours):
            yield Difference(name, f"{what}: {ours!r} in the file, {theirs!r} on the server")
    schedules = dict(there.schedules)
    for number, entry in enumerate(wanted.schedules):
        slug = str(entry.get("slug") or number)
        found = schedules.pop(slug, None)
        if found is None:
            yield Difference(name, f"schedule {slug} is in the file, not on the server")
            continue
        ours, theirs = _told(entry), described(found)
        if ours != theirs and "{{" not in ours:
            yield Difference(name, f"schedule {slug}: {ours} in the file, {theirs} on the server")
        if not found.active and entry.get("active") is not False:
            yield Difference(name, f"schedule {slug} is paused on the server", by_hand=True)
    if server.paused and not wanted.settings.get("paused"):
        yield Difference(name, "is paused on the server", by_hand=True)
    for slug, schedule in schedules.items():
        yield _stray(name, there, slug, schedule)


def _stray(name: str, there: Deployed, slug: str, schedule: DeploymentSchedule) -> Difference:
    active = "active" if schedule.active else "paused"
    what = f"schedule {slug} ({described(schedule)}, {active}) is on the server, not in the file"
    return Difference(name, what, stray=(there.settings.id, schedule.id))


def described(schedule: DeploymentSchedule) -> str:
    """Return a schedule in words, the same as for one in the file."""
    match schedule.schedule:
        case CronSchedule(cron=cron, timezone=zone):
            return f"cron {cron} {zone or 'UTC'}"
        case IntervalSchedule(interval=interval):
            return f"every {interval.total_seconds():g} s"
        case RRuleSchedule(rrule=rule):
            return f"rrule {rule}"
        case _:
            return "no schedule"


def _told(entry: Mapping[str, Any]) -> str:
    if entry.get("cron"):
        return f"cron {entry['cron']} {entry.get('timezone') or 'UTC'}"
    if entry.get("interval"):
        return f"every {float(entry['interval']):g} s"
    return f"rrule {entry.get('rrule')}"
