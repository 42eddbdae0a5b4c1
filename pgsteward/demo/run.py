"""`make demo`: one whole night on a sample database, on a machine that has nothing but Python.

Starts PostgreSQL, an S3 endpoint and a Prefect server, plants a database full of work, runs the nightly flow
as a deployment's run on a worker, restores the new backup from S3 and compares it, prints the morning
report, and stops everything; `keep` leaves it running until Ctrl-C instead.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from pgsteward import postgres, report
from pgsteward.children import Children
from pgsteward.demo import sample
from pgsteward.demo.s3 import LocalS3
from pgsteward.demo.server import EmbeddedPostgres
from pgsteward.errors import PreconditionError, StewardError
from pgsteward.places import CONFIG_ENV, state_folder
from pgsteward.prefect_stack import PrefectStack
from pgsteward.restore.run import restore
from pgsteward.results import StepResult
from pgsteward.state.history import History
from pgsteward.targets import Target, load_target

DEFAULT_SCALE = 0.03
RUN_TIMEOUT_S = 300.0
RESTORED = "intowork_restored"

_CONFIG = """\
# Written by `pgsteward demo`; a configuration of your own looks just like this (see docs/configuration.md).
state_url = "sqlite:///state.db"             # history only; the stores' manifests are the truth about backups

[stores.disk]
url = "file://{store}"
[stores.s3]
url = "s3://{bucket}/night"
endpoint_url = "{endpoint}"
region = "{region}"
access_key_id = {{ file = "secrets/s3-key" }}
secret_access_key = {{ file = "secrets/s3-secret" }}

[targets.app]
conninfo = "{steward}"                     # a role that reads everything and acts for the owner; no superuser
password = {{ file = "secrets/steward" }}
stores = ["disk", "s3"]
client_dirs = ["{clients}"]
[targets.app.restore]
conninfo = "{superuser}"                   # a restore creates the database and its extensions
password = {{ file = "secrets/postgres" }}
[targets.app.backup]
jobs = 2
compress = "zstd:1"
proof = "full"
[targets.app.retention]
keep_last = 3
keep_daily = 7
keep_weekly = 4
keep_monthly = 6
keep_min = 2
[[targets.app.sessions]]
table = "public.sessions"
expires = "expires"
[targets.app.index_bloat]
min_ratio = 0.4
min_reclaimable = "1MB"                    # the sample is small
[targets.app.index_audit.alembic]
script_location = "pgsteward.demo.sample:migrations"
{required}
[[targets.app.index_audit.constraints]]
table = "jobs"
name = "check_job_salary_range"
check = "salary_min IS NULL OR salary_max IS NULL OR salary_min <= salary_max"
[targets.app.analyze]
[targets.app.matviews]
"""


class Stages:
    """Tells on stderr what is being done: a spinner while it lasts, then a line with its seconds."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.started = time.monotonic()

    @contextmanager
    def stage(self, title: str) -> Iterator[Stages]:
        """Show one stage; what it says meanwhile goes to `detail`."""
        begun = time.monotonic()
        self._title = title
        with self.console.status(title) as self._status:
            yield self
        self.console.print(f"[green]✓[/green] {title} [dim]({time.monotonic() - begun:.1f} s)[/dim]")

    def detail(self, what: str, done: int = 0, total: int = 0) -> None:
        """Show what the present stage is at; speaks the `Progress` protocol."""
        share = f" {done * 100 // total} %" if total else ""
        self._status.update(f"{self._title}: {what}{share}")


def main(
    *, keep: bool = False, scale: float = DEFAULT_SCALE, folder: Path | None = None, port: int | None = None
) -> int:
    """Run the demo and return its exit status.

    Args:
        keep: Leave everything running, with Prefect's UI, until Ctrl-C.
        scale: Size of the sample database; 1.0 is about 1.25 GB.
        folder: Where everything lives; by default ``demo`` in the user's state folder.
        port: Of the Prefect server; by default a free one.

    Raises:
        StewardError: A step failed, a server died, or another demo uses the folder.
    """
    console = Console(stderr=True)
    home = (folder or state_folder() / "demo").absolute()
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _alone(home):
        _clean(home)
        stages = Stages(console)
        with Children() as children:
            status = _demo(home, children, stages, keep=keep, scale=scale, port=port)
        _clean(home)
        shutil.rmtree(home / "postgres", ignore_errors=True)
    console.print(
        f"[dim]Everything is stopped again; {time.monotonic() - stages.started:.0f} s in all.[/dim]"
    )
    return status


def _demo(
    home: Path, children: Children, stages: Stages, *, keep: bool, scale: float, port: int | None
) -> int:
    console = stages.console
    config = home / "pgsteward.toml"
    os.environ["XDG_STATE_HOME"] = str(home / "state")  # nothing of the demo lies outside its folder
    environment = {**os.environ, CONFIG_ENV: str(config)}
    with PrefectStack(home / "prefect", children, port=port, env=environment) as stack:
        stack.launch_server()  # takes longest: it starts while the database is filled
        with stages.stage("PostgreSQL and an S3 endpoint"):
            server = EmbeddedPostgres(home / "postgres", children).start(stages.detail)
            s3 = LocalS3(home / "s3", children).start(stages.detail)
            _write_config(home, server, s3)
        with stages.stage(f"IntoWork, a job board, at scale {scale:g}"):
            _fill(home, server, scale, stages)
        with stages.stage("Prefect server, deployments and a worker"):
            stack.wait_server(stages.detail)
            stack.heal()
            stack.start_worker()
            stack.deploy()
        target = load_target("app", config)
        with stages.stage("The night, as a run of the deployment nightly on the worker"):
            run = stack.run_deployment("nightly", {"target": "app"})
            ended = stack.wait_run(run, RUN_TIMEOUT_S, lambda state: stages.detail(state.name.lower()))
        night = History(target.config.resolved_state_url()).last_night("app")
        if night is None:
            raise StewardError(f"the nightly run ended {ended.name} and left no report:\n{ended.message}")
        print(report.text(night), flush=True)
        (home / "report.txt").write_text(report.text(night))
        with stages.stage(f"The new backup, restored from S3 into {RESTORED} and compared"):
            restored = _restore(target, night.step("backup"), stages)
        print(report.step_text(restored), flush=True)
        if keep:
            _stay(console, stack, server, home, children)
    return 1 if night.status == "failed" or restored.status == "failed" else 0


def _restore(target: Target, backup: StepResult, stages: Stages) -> StepResult:
    backup_id = backup.details.get("backup_id")
    if not isinstance(backup_id, str):
        raise StewardError(f"the night made no backup: {backup.summary}")
    return restore(target, backup_id, store="s3", into=RESTORED, progress=stages.detail)


def _fill(home: Path, server: EmbeddedPostgres, scale: float, stages: Stages) -> None:
    """Make the application's role and database, and a steward's role that is not a superuser."""
    owner_password = secrets.token_urlsafe(24)
    steward_password = (home / "secrets" / "steward").read_text()
    with postgres.connect(server.login("postgres"), purpose="demo") as admin:
        for role, password in (("intowork", owner_password), ("steward", steward_password)):
            admin.execute(
                postgres.compose(
                    "CREATE ROLE {} LOGIN PASSWORD {}", postgres.identifier(role), postgres.literal(password)
                )
            )
        admin.execute("CREATE DATABASE intowork OWNER intowork")
        admin.execute("GRANT pg_read_all_data, pg_monitor, intowork TO steward")
    with postgres.connect(server.login("intowork"), purpose="demo") as admin:
        admin.execute("CREATE EXTENSION IF NOT EXISTS pgstattuple")
    owner = postgres.Login(
        f"host={server.host} port={server.port} dbname=intowork user=intowork", owner_password
    )
    sample.seed(owner, scale=scale, progress=stages.detail)


def _write_config(home: Path, server: EmbeddedPostgres, s3: LocalS3) -> None:
    vault = home / "secrets"
    vault.mkdir(mode=0o700)
    values = {
        "steward": secrets.token_urlsafe(24),
        "postgres": server.password,
        "s3-key": s3.access_key_id,
        "s3-secret": s3.secret_access_key,
    }
    for name, value in values.items():
        file = vault / name
        file.touch(mode=0o600)
        file.write_text(value)
    (home / "pgsteward.toml").write_text(
        _CONFIG.format(
            store=home / "store",
            bucket=s3.bucket,
            endpoint=s3.endpoint_url,
            region=s3.region,
            steward=f"host={server.host} port={server.port} dbname=intowork user=steward",
            superuser=server.conninfo("intowork"),
            clients=server.bin_dir,
            required="\n".join(_required(name, entry) for name, entry in sample.REQUIRED_INDEXES.items()),
        )
    )


def _required(name: str, entry: Mapping[str, object]) -> str:
    """Return one required index as TOML, which writes such values as JSON does."""
    keys = {"name": name, **entry}
    lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    return "\n".join(["[[targets.app.index_audit.required]]", *lines])


def _stay(
    console: Console, stack: PrefectStack, server: EmbeddedPostgres, home: Path, children: Children
) -> None:
    """Say what to click, then wait for Ctrl-C; a server that dies ends the wait with its log's last lines."""
    ui = stack.ui_url
    lines = (
        ("Prefect's UI", f"{ui}dashboard"),
        ("The last night", f"{ui}runs -> nightly-app -> Artifacts -> night-app: the morning report"),
        ("Run it again", f"{ui}deployments -> nightly -> Run -> Quick run"),
        ("Restore", f"{ui}deployments -> restore -> Run -> Custom run: from s3, into a new database"),
        ("From a shell", f".venv/bin/pgsteward --config {home}/pgsteward.toml backups app"),
        ("PostgreSQL", f"{server.conninfo('intowork')}, password in {home}/secrets/postgres"),
        ("Stop", "Ctrl-C"),
    )
    console.rule("pgsteward is running")
    for what, where in lines:
        console.print(f"[bold]{what:<15}[/bold] {escape(where)}", soft_wrap=True, highlight=False)
    with suppress(KeyboardInterrupt):
        while True:
            children.check()
            time.sleep(1)


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Keep a second demo out of the same folder; the lock ends with the process, however it ends."""
    with (home / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise PreconditionError(
                f"a demo is running in {home} already; stop it with Ctrl-C there, or give --folder"
            ) from None
        yield


def _clean(home: Path) -> None:
    """Remove what this or a killed demo left; Prefect's home stays (a warm start saves 10 s), and the report.

    PostgreSQL's folder is its own business: a server of a killed demo may still be on its way out.
    """
    for name in ("secrets", "store", "s3", "state"):
        shutil.rmtree(home / name, ignore_errors=True)
    for name in ("pgsteward.toml", "state.db", "state.db-wal", "state.db-shm"):
        (home / name).unlink(missing_ok=True)
