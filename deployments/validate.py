"""Check ``prefect.yaml`` without a server: Prefect itself takes unknown keys and misspelt parameters.

``python -m deployments.validate [--json] [FILE]``; exit 0 nothing to correct, 1 findings, 2 no such file.
"""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule
from prefect.exceptions import ParameterBindError, ParameterTypeError
from pydantic import ValidationError

from deployments.project_file import Deployment, default_file, deployments_of, read_file
from pgsteward.config import Config, load
from pgsteward.databases import bind_covered
from pgsteward.errors import ConfigError
from pgsteward.prefect_project import find_project
from pgsteward.targets import Target

# The keys that Prefect 3.8 and 3.9 read; what they don't know they ignore without a word.
_FILE_KEYS = {"name", "prefect-version", "build", "push", "pull", "definitions", "deployments"}
_DEPLOYMENT_KEYS = {
    *("name", "version", "version_type", "tags", "description", "schedule", "schedules", "paused"),
    *("concurrency_limit", "flow_name", "entrypoint", "parameters", "enforce_parameter_schema"),
    *("build", "push", "pull", "work_pool", "triggers", "sla"),
}
_POOL_KEYS = {"name", "work_queue_name", "job_variables"}
_LIMIT_KEYS = {"limit", "collision_strategy", "grace_period_seconds"}
_SCHEDULE_KEYS = {
    *("cron", "interval", "rrule", "timezone", "anchor_date", "active", "parameters", "slug"),
    *("replaces", "day_or", "max_scheduled_runs"),
}
_STRATEGIES = {"ENQUEUE", "CANCEL_NEW"}
_BY_HAND_ONLY = {"restore", "restore-table"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to correct.

    Attributes:
        where: Place in the file.
        problem: What is wrong and what to write instead.
        level: A ``hint`` does not make the file wrong.
    """

    where: str
    problem: str
    level: Literal["error", "hint"] = "error"


def validate(file: Path, config: Config | None = None) -> list[Finding]:
    """Return everything that is wrong with a file.

    Args:
        file: The file.
        config: A configuration whose targets and databases the parameters name. The workers may have another
            one, so what does not fit is a hint.

    Raises:
        ConfigError: It can't be read at all, or there is no project whose flows it could name.
    """
    data = read_file(file)
    project = str(find_project())
    if project not in sys.path:
        sys.path.insert(0, project)
    found = list(_unknown_keys("", data, _FILE_KEYS))
    deployments = deployments_of(data)
    for deployment in deployments:
        found += _check_deployment(deployment)
        if config is not None:
            found += _check_target(deployment, config)
    names: Counter[str] = Counter()
    for deployment in deployments:
        try:
            names[deployment.full_name] += 1
        except ConfigError:  # reported above
            continue
    for name, times in names.items():
        if times > 1:
            found.append(Finding(f"deployments.{name}", f"{times} deployments have this name; rename one"))
    return found


def _check_deployment(deployment: Deployment) -> Iterator[Finding]:
    where, settings = deployment.where, deployment.settings
    yield from _unknown_keys(where, settings, _DEPLOYMENT_KEYS)
    if not deployment.name:
        yield Finding(where, "has no name; Prefect would skip it; write `name: ...`")
    yield from _check_pool(where, settings.get("work_pool"))
    yield from _check_limit(where, settings.get("concurrency_limit"))
    yield from _check_entrypoint(deployment)
    yield from _check_schedules(deployment)


def _check_entrypoint(deployment: Deployment) -> Iterator[Finding]:
    where = f"{deployment.where}.entrypoint"
    if not deployment.entrypoint:
        yield Finding(where, "is missing; write a module path such as flows.nightly.nightly")
        return
    if ":" in deployment.entrypoint:
        module = deployment.entrypoint.replace(".py:", ".").replace("/", ".")
        yield Finding(where, f"a file path puts its folder first on sys.path; write the module path {module}")
        return
    try:
        flow = deployment.flow
    except ConfigError as exc:
        yield Finding(where, f"{exc}; write a module path such as flows.nightly.nightly")
        return
    parameters = deployment.settings.get("parameters") or {}
    yield from _check_parameters(deployment, f"{deployment.where}.parameters", parameters)
    for number, schedule in enumerate(deployment.schedules):
        own = schedule.get("parameters") or {}
        if own and isinstance(own, Mapping) and isinstance(parameters, Mapping):
            place = f"{deployment.where}.schedules[{number}].parameters"
            yield from _check_parameters(deployment, place, {**parameters, **own})
    if flow.name in _BY_HAND_ONLY and deployment.settings.get("schedules"):
        yield Finding(f"{deployment.where}.schedules", f"{flow.name} is started by hand only; remove them")


def _check_parameters(deployment: Deployment, where: str, parameters: Any) -> Iterator[Finding]:
    if not isinstance(parameters, Mapping):
        yield Finding(where, "write a mapping such as {target: app}")
        return
    known = {str(name) for name in deployment.flow.parameters.properties}
    for name in parameters:
        if name not in known:
            yield Finding(
                f"{where}.{name}", f"{deployment.flow.name} has no such parameter{_near(name, known)}"
            )
    for name, value in parameters.items():
        if isinstance(value, str) and ("://" in value or "password" in value.lower()):
            yield Finding(
                f"{where}.{name}",
                "parameters are stored and shown in clear: give a target's name, not a connection string",
            )
    # A template is filled in while deploying; what it becomes can't be judged here.
    plain = {name: value for name, value in parameters.items() if name in known and "{{" not in str(value)}
    try:
        deployment.flow.validate_parameters(plain)
    except ValidationError as exc:
        yield from _parameter_errors(where, exc)
    except ParameterTypeError as exc:
        cause = exc.__cause__ or exc.__context__
        if isinstance(cause, ValidationError):
            yield from _parameter_errors(where, cause)
        else:
            yield Finding(where, " ".join(str(exc).split()))
    except ParameterBindError as exc:
        yield Finding(where, " ".join(str(exc).split()))


def _check_target(deployment: Deployment, config: Config) -> Iterator[Finding]:
    """Look for the target, and the database, in the configuration of this machine."""
    try:
        known = deployment.flow.parameters.properties
    except ConfigError:  # reported by its entrypoint
        return
    parameters = deployment.settings.get("parameters") or {}
    sets = [(f"{deployment.where}.parameters", parameters)]
    sets += [
        (f"{deployment.where}.schedules[{number}].parameters", {**parameters, **schedule["parameters"]})
        for number, schedule in enumerate(deployment.schedules)
        if isinstance(schedule.get("parameters"), Mapping) and isinstance(parameters, Mapping)
    ]
    for where, given in sets:
        if not isinstance(given, Mapping):
            continue
        name, database = (
            str(given.get(key, known.get(key, {}).get("default")) or "") for key in ("target", "database")
        )
        if not name or "{{" in name + database:
            continue
        try:
            target = Target(name, config.target(name), config)
            if database:
                bind_covered(target, database)
        except ConfigError as exc:
            key = "database" if name in config.targets else "target"
            yield Finding(f"{where}.{key}", f"by the configuration of this machine: {exc}", "hint")


def _parameter_errors(where: str, exc: ValidationError) -> Iterator[Finding]:
    for error in exc.errors():
        place = ".".join(str(part) for part in error["loc"])
        yield Finding(f"{where}.{place}", f"{error['input']!r}: {error['msg']}")


def _check_schedules(deployment: Deployment) -> Iterator[Finding]:
    settings, where = deployment.settings, f"{deployment.where}.schedules"
    if "schedule" in settings:
        yield Finding(f"{deployment.where}.schedule", "is Prefect's old form; write `schedules:` with a slug")
    if "schedules" not in settings:
        return
    if not isinstance(settings["schedules"], list) or not settings["schedules"]:
        yield Finding(
            where,
            "an empty list leaves the schedules on the server as they are; leave the key out and run"
            " `pgsteward deploy --prune`",
        )
        return
    if len(deployment.schedules) != len(settings["schedules"]):
        yield Finding(where, "each entry is a mapping such as {slug: nightly, cron: '0 2 * * *'}")
    for slug, times in Counter(deployment.slugs).items():
        if times > 1:
            yield Finding(where, f"the slug {slug!r} is there {times} times; each must be unique")
    for number, schedule in enumerate(deployment.schedules):
        yield from _check_schedule(f"{where}[{number}]", schedule)


def _check_schedule(where: str, schedule: Mapping[str, Any]) -> Iterator[Finding]:
    yield from _unknown_keys(where, schedule, _SCHEDULE_KEYS)
    if not schedule.get("slug"):
        yield Finding(where, "has no slug: every deploy would switch it on again; write `slug: nightly`")
    kinds = [kind for kind in ("cron", "interval", "rrule") if schedule.get(kind) is not None]
    if len(kinds) != 1:
        yield Finding(where, "give exactly one of cron, interval, rrule")
        return
    kind, zone = kinds[0], schedule.get("timezone")
    value = schedule[kind]
    if "{{" in f"{value}{zone}":
        return
    try:
        if kind == "cron":
            CronSchedule(cron=str(value), timezone=zone, day_or=schedule.get("day_or", True))
        elif kind == "rrule":
            RRuleSchedule(rrule=str(value), **({"timezone": zone} if zone else {}))
        else:
            IntervalSchedule(interval=timedelta(seconds=float(value)), timezone=zone)
    except (ValidationError, ValueError, TypeError) as exc:
        for place, said in _schedule_errors(exc, kind):
            example = "a name such as UTC or Europe/Warsaw" if place == "timezone" else _EXAMPLES[kind]
            yield Finding(f"{where}.{place}", f"{schedule.get(place)!r}: {said}; write {example}")
        return
    if kind == "cron":
        yield from _clock_changes(where, str(value), str(zone or "UTC"))
    if schedule.get("active") is True:
        yield Finding(
            f"{where}.active",
            "true switches a schedule on again that was paused in the UI; leave the key out",
            "hint",
        )


_EXAMPLES = {"cron": "five fields such as '0 2 * * *'", "interval": "seconds", "rrule": "FREQ=DAILY;BYHOUR=2"}


def _schedule_errors(exc: Exception, kind: str) -> Iterator[tuple[str, str]]:
    if not isinstance(exc, ValidationError):
        yield kind, str(exc)
        return
    for error in exc.errors():
        place = str(error["loc"][0]) if error["loc"] else kind
        yield place, error["msg"].removeprefix("Value error, ")


def _clock_changes(where: str, cron: str, zone: str) -> Iterator[Finding]:
    hour = cron.split()[1]
    if zone not in {"UTC", "Etc/UTC"} and hour in {"1", "01", "2", "02"}:
        yield Finding(
            f"{where}.cron",
            f"between 01:00 and 03:00 in {zone} clocks change: that night's run moves by an hour;"
            " use UTC, or 03:15 and later",
            "hint",
        )


def _check_pool(where: str, pool: Any) -> Iterator[Finding]:
    if not isinstance(pool, Mapping) or not pool.get("name"):
        yield Finding(f"{where}.work_pool", "has no name: no worker would run it; write {name: pgsteward}")
        return
    yield from _unknown_keys(f"{where}.work_pool", pool, _POOL_KEYS)


def _check_limit(where: str, limit: Any) -> Iterator[Finding]:
    where = f"{where}.concurrency_limit"
    if limit is None:
        yield Finding(where, "is not stated: write {limit: 1, collision_strategy: ENQUEUE} or CANCEL_NEW")
        return
    if not isinstance(limit, Mapping):
        yield Finding(where, f"state what a second run does: {{limit: {limit}, collision_strategy: ENQUEUE}}")
        return
    yield from _unknown_keys(where, limit, _LIMIT_KEYS)
    if not isinstance(limit.get("limit"), int) or limit["limit"] < 1:
        yield Finding(f"{where}.limit", f"{limit.get('limit')!r}: write a whole number from 1")
    if limit.get("collision_strategy") not in _STRATEGIES:
        said = limit.get("collision_strategy")
        yield Finding(
            f"{where}.collision_strategy", f"{said!r}: write ENQUEUE (waits) or CANCEL_NEW (is refused)"
        )


def _unknown_keys(where: str, mapping: Mapping[str, Any], known: set[str]) -> Iterator[Finding]:
    for key in mapping:
        if key not in known:
            place = f"{where}.{key}" if where else str(key)
            yield Finding(place, f"Prefect has no such key and would ignore it{_near(key, known)}")


def _near(word: Any, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(word), list(known), n=1)
    return f"; write {near[0]}" if near else f"; remove it (known: {', '.join(sorted(known))})"


def _config() -> tuple[Config | None, list[Finding]]:
    """Return the configuration of this machine; where there is none, that nobody has looked is a hint."""
    try:
        return load(), []
    except ConfigError as exc:
        said = f"names of targets and databases were not looked at: {exc}"
        return None, [Finding("deployments", said, "hint")]


def main(argv: list[str] | None = None) -> int:
    """Run from a shell."""
    parser = argparse.ArgumentParser(prog="python -m deployments.validate", description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    try:
        file = options.file or default_file()
        config, problem = _config()
        found = [*validate(file, config), *problem]
    except ConfigError as exc:
        print(json.dumps({"ok": False, "error": str(exc), "findings": []}) if options.json else exc)
        return 2
    ok = not any(finding.level == "error" for finding in found)
    if options.json:
        count = len(deployments_of(read_file(file)))
        said = {"ok": ok, "file": str(file), "deployments": count, "findings": [asdict(f) for f in found]}
        print(json.dumps(said, indent=2))
    else:
        for finding in found:
            label = "hint: " if finding.level == "hint" else ""
            print(f"{file.name}: {finding.where}: {label}{finding.problem}")
        if ok:
            print(f"{file.name}: {len(read_file(file)['deployments'])} deployments, nothing to correct")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
