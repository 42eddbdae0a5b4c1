"""Commands around the operations: setting up, Prefect's side, the demo. Registered in `pgsteward.cli`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pgsteward.cli_output import print_line, print_result, print_text
from pgsteward.cli_run import (
    Database,
    Json,
    TargetName,
    export_config,
    guarded,
    run_operation,
    settings_of,
    signals,
)
from pgsteward.progress import Progress
from pgsteward.results import StepResult

if TYPE_CHECKING:
    from pgsteward.targets import Target


def init(
    ctx: typer.Context,
    conninfo: Annotated[
        str | None,
        typer.Option(
            "--conninfo",
            metavar="CONNINFO",
            help="How to reach the database, as for psql, without a password.",
        ),
    ] = None,
    store: Annotated[
        list[str] | None,
        typer.Option("--store", metavar="URL", help="file:///folder or s3://bucket/prefix. May be repeated."),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="Name of the target.")] = None,
    password_env: Annotated[
        str | None,
        typer.Option("--password-env", metavar="NAME", help="Environment variable that holds the password."),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", metavar="", help="Ask nothing; what is not given is a default.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", metavar="", help="Overwrite a file that is there.")
    ] = False,
    json: Json = False,
) -> None:
    """Write a commented pgsteward.toml, and print the SQL of roles with the least rights."""
    with guarded("init", name or "", as_json=json):
        from pgsteward.init import Answers, ask, write_config

        answers = Answers(
            file=settings_of(ctx).config or Path("pgsteward.toml"),
            name=name,
            conninfo=conninfo,
            stores=tuple(store or ()),
            password_env=password_env,
        )
        if not (yes or json):
            answers = ask(answers)
        written = write_config(answers, force=force)
        if json:
            print_result(written.result(), as_json=True)
            return
        print_text(f"{written.sql}\n")
        print_line(
            f"{written.file} is written. Next: run the SQL above in that database as a superuser, give the"
            " role a password (\\password in psql) unless it gets in without one, then `pgsteward doctor`."
        )


def doctor(
    ctx: typer.Context, target: TargetName = None, database: Database = None, json: Json = False
) -> None:
    """Check server, rights, clients, stores, state and Prefect; prints what to do about each finding."""

    def operation(chosen: Target, progress: Progress) -> StepResult:
        from pgsteward.databases import bind_covered
        from pgsteward.doctor import examine

        if database is not None:
            chosen = bind_covered(chosen, database)
        return examine(chosen, progress=progress)

    run_operation(ctx, "doctor", target, operation, as_json=json)


def accept_store(
    ctx: typer.Context,
    target: TargetName = None,
    store: Annotated[
        str | None,
        typer.Argument(metavar="STORE", help="One of its stores; may be left out where there is only one."),
    ] = None,
    json: Json = False,
) -> None:
    """Take a store as it is: an empty one in the place of one that is gone, or another disk."""

    def operation(chosen: Target, progress: Progress) -> StepResult:
        from pgsteward.backup.identity import accept

        return accept(chosen, store)

    run_operation(ctx, "accept-store", target, operation, as_json=json, remember=True)


def validate(ctx: typer.Context, json: Json = False) -> None:
    """Check prefect.yaml without a server: entrypoints, parameters, targets, schedules, unknown keys."""
    _run_module(ctx, "validate", as_json=json)


def deploy(
    ctx: typer.Context,
    prune: Annotated[
        bool, typer.Option("--prune", metavar="", help="Also remove schedules that left the file.")
    ] = False,
    json: Json = False,
) -> None:
    """Deploy prefect.yaml to the Prefect server of this environment."""
    _run_module(ctx, "deploy", *(["--prune"] if prune else []), as_json=json)


def up(
    ctx: typer.Context,
    port: Annotated[
        int | None, typer.Option("--port", metavar="N", help="Of a Prefect server of our own.")
    ] = None,
) -> None:
    """Start a Prefect server (where there is none), work pool, deployments and a worker, until Ctrl-C."""
    with guarded():
        from pgsteward.prefect_stack import up as bring_up

        export_config(ctx)
        raise typer.Exit(bring_up(port=port))


def demo(
    keep: Annotated[
        bool, typer.Option("--keep", metavar="", help="Leave it all running until Ctrl-C.")
    ] = False,
    scale: Annotated[
        float | None,
        typer.Option("--scale", metavar="X", min=0.001, help="Of the sample database; 1.0 is about 1.25 GB."),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--folder", metavar="FOLDER", help="Where everything lives.")
    ] = None,
    port: Annotated[int | None, typer.Option("--port", metavar="N", help="Of the Prefect server.")] = None,
) -> None:
    """Run one whole night on a sample database, with servers of its own; leaves nothing behind."""
    with guarded(), signals():
        from pgsteward.demo.run import DEFAULT_SCALE, main

        raise typer.Exit(
            main(keep=keep, scale=DEFAULT_SCALE if scale is None else scale, folder=folder, port=port)
        )


def _run_module(ctx: typer.Context, name: str, *args: str, as_json: bool) -> None:
    with guarded(name, as_json=as_json):
        from importlib.util import find_spec

        from pgsteward.errors import ConfigError
        from pgsteward.prefect_project import module_result, run_module

        if find_spec("prefect") is None:
            raise ConfigError("Prefect is not installed here; install pgsteward[prefect]")
        export_config(ctx)
        if not as_json:
            raise typer.Exit(run_module(name, *args))
        result, code = module_result(name, *args)
        print_result(result, as_json=True)
        raise typer.Exit(code)
