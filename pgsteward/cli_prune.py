"""``pgsteward prune``. Registered in `pgsteward.cli`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pgsteward.cli_run import Database, DryRun, Json, TargetName, run_operation
from pgsteward.progress import Progress
from pgsteward.results import StepResult

if TYPE_CHECKING:
    from pgsteward.targets import Target


def prune(
    ctx: typer.Context,
    target: TargetName = None,
    database: Database = None,
    versions: Annotated[
        bool,
        typer.Option(
            "--versions", metavar="", help="Delete older versions of removed backups for good instead."
        ),
    ] = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Remove the backups that no rule of the retention keeps; says why each other one is kept."""

    def operation(chosen: Target, progress: Progress) -> StepResult:
        if versions:
            from pgsteward.old_versions import prune_versions

            return prune_versions(chosen, dry_run=dry_run)
        from pgsteward.retention import prune as prune_backups

        return prune_backups(chosen, dry_run=dry_run)

    step = "prune-versions" if versions else "prune"
    run_operation(
        ctx, step, target, operation, as_json=json, remember=True, database=database, across="server"
    )
