"""``pgsteward drill``. Registered in `pgsteward.cli`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pgsteward.cli_run import Database, FromStore, Json, TargetName, run_operation, split_target
from pgsteward.progress import Progress
from pgsteward.results import StepResult

if TYPE_CHECKING:
    from pgsteward.targets import Target


def drill(
    ctx: typer.Context,
    target: TargetName = None,
    backup_id: Annotated[
        str | None, typer.Argument(metavar="BACKUP", help="A backup id, latest, or latest-proven.")
    ] = None,
    store: FromStore = None,
    on_server: Annotated[
        bool,
        typer.Option(
            "--on-server",
            metavar="",
            help="In a scratch database on the server of the restore login, instead of a throwaway server.",
        ),
    ] = False,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", metavar="N", min=1, help="Parallel jobs.")
    ] = None,
    database: Database = None,
    json: Json = False,
) -> None:
    """Prove a backup: restore it into a throwaway server, compare everything, keep the receipt.

    Exit status 0 when it is whole and equal, 1 when it is not, 3 when that could not be tried.
    """
    target, what = split_target(ctx, target, backup_id, ("latest", "latest-proven"))

    def operation(chosen: Target, progress: Progress) -> StepResult:
        from pgsteward.restore.drills import drill_each

        return drill_each(
            chosen,
            what or "latest",
            database=database,
            store=store,
            on_server=on_server,
            jobs=jobs,
            progress=progress,
        )

    run_operation(ctx, "drill", target, operation, as_json=json, remember=True, database=database)
