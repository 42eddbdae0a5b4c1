"""Bring a Prefect server in line with ``prefect.yaml``.

``python -m deployments.deploy [--prune] [--json]``: checks the file, creates its work pool, deploys every
entry, and says which schedules on the server are not in the file; ``--prune`` removes those (Prefect itself
never does). Exit 0 done, 1 refused, 2 wrong settings.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound, PrefectHTTPStatusError
from prefect.workers.process import ProcessWorker

from deployments.project_file import default_file, deployments_of, read_file
from deployments.server import Difference, find_differences, read_deployed, server_url
from deployments.validate import validate
from pgsteward import children
from pgsteward.errors import ConfigError, PreconditionError, StewardError
from pgsteward.prefect_project import find_project, project_env


@dataclass(frozen=True, slots=True)
class Deployed:
    """What a deploy did.

    Attributes:
        server: Address of the server.
        pools_created: Work pools that were not there.
        deployed: Every deployment of the file, ``flow/deployment``.
        schedules_removed: Strays that were pruned, as sentences.
        differences: What still differs, as sentences.
    """

    server: str
    pools_created: tuple[str, ...]
    deployed: tuple[str, ...]
    schedules_removed: tuple[str, ...]
    differences: tuple[str, ...]

    def as_json(self) -> dict[str, object]:
        return {
            "server": self.server,
            "pools_created": list(self.pools_created),
            "deployed": list(self.deployed),
            "schedules_removed": list(self.schedules_removed),
            "differences": list(self.differences),
        }


def deploy(file: Path, *, prune: bool = False) -> Deployed:
    """Bring the configured server in line with a file.

    Args:
        file: The ``prefect.yaml``.
        prune: Remove schedules that are not in it.

    Raises:
        PreconditionError: The file has findings, or no server is configured or answers.
        ToolFailed: Prefect refused a deployment.
    """
    wrong = [finding for finding in validate(file) if finding.level == "error"]
    if wrong:
        said = "\n".join(f"{file.name}: {finding.where}: {finding.problem}" for finding in wrong)
        raise PreconditionError(f"nothing was deployed:\n{said}")
    url = server_url()
    wanted = deployments_of(read_file(file))
    with get_client(sync_client=True) as client:
        try:
            created = tuple(
                pool for pool in sorted({entry.pool for entry in wanted}) if _ensure_pool(client, pool)
            )
        except httpx.HTTPError as exc:
            raise PreconditionError(f"the Prefect server at {url} does not answer: {exc}") from exc
        _deploy_all(file)
        differences = find_differences(wanted, read_deployed(client))
        removed = [difference for difference in differences if prune and difference.stray]
        for difference in removed:
            _remove(client, difference)
    return Deployed(
        server=url,
        pools_created=created,
        deployed=tuple(entry.full_name for entry in wanted),
        schedules_removed=tuple(f"{entry.deployment}: {entry.what}" for entry in removed),
        differences=tuple(f"{e.deployment}: {e.what}" for e in differences if e not in removed),
    )


def _ensure_pool(client: SyncPrefectClient, name: str) -> bool:
    """Create a process pool unless there is one of that name, of whatever type; return whether we did."""
    try:
        client.read_work_pool(name)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        try:
            client.create_work_pool(WorkPoolCreate(name=name, type="process", base_job_template=template))
        except ObjectAlreadyExists:  # a worker that starts at the same time was faster
            return False
        return True
    return False


def _deploy_all(file: Path) -> None:
    """Let Prefect itself read the file; module paths in it start at the project's folder."""
    project = find_project()
    file = file.resolve()
    argv = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(file)]
    children.run(argv, env=project_env(project), cwd=project, timeout_s=300)


def _remove(client: SyncPrefectClient, difference: Difference) -> None:
    if difference.stray is not None:
        client.delete_deployment_schedule(*difference.stray)


def _print(done: Deployed) -> None:
    print(f"Prefect server {done.server}")
    for pool in done.pools_created:
        print(f"created work pool {pool}")
    print(f"deployed {len(done.deployed)}: {', '.join(done.deployed)}")
    for removed in done.schedules_removed:
        print(f"removed {removed}")
    for difference in done.differences:
        print(f"differs: {difference}")
    if any("schedule" in difference and "not in the file" in difference for difference in done.differences):
        print("`pgsteward deploy --prune` removes schedules that are not in the file")


def main(argv: list[str] | None = None) -> int:
    """Run from a shell."""
    parser = argparse.ArgumentParser(prog="python -m deployments.deploy", description=__doc__)
    parser.add_argument("--prune", action="store_true", help="remove schedules that are not in the file")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--file", type=Path, help="another file than the project's prefect.yaml")
    options = parser.parse_args(argv)
    try:
        done = deploy(options.file or default_file(), prune=options.prune)
    except (StewardError, PrefectHTTPStatusError) as exc:
        print(exc, file=sys.stderr)
        return 2 if isinstance(exc, ConfigError) else 1
    if options.json:
        print(json.dumps(done.as_json(), indent=2))
    else:
        _print(done)
    return 0


if __name__ == "__main__":
    sys.exit(main())
