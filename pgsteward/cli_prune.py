"""``pgsteward prune``: with what only a person may say. Registered in `pgsteward.cli`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pgsteward.cli_run import Database, DryRun, Json, TargetName, run_operation
from pgsteward.errors import ConfigError
from pgsteward.progress import Progress
from pgsteward.results import StepResult

if TYPE_CHECKING:
    from pgsteward.targets import Target


def prune(
    ctx: typer.Context,
    target: TargetName = None,
    database: Database = None,
    yes_remove: Annotated[
        int | None,
        typer.Option(
            "--yes-remove",
            metavar="N",
            min=1,
            help="Remove these N, though they are more than half of a store's backups.",
        ),
    ] = None,
    clear_freeze: Annotated[
        str | None,
        typer.Option(
            "--clear-freeze",
            metavar="REASON",
            help="Let pruning go on after something red; REASON is kept. Removes nothing itself.",
        ),
    ] = None,
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
    if clear_freeze is not None and yes_remove is not None:
        raise typer.BadParameter(
            "--clear-freeze and --yes-remove are two steps; look at a dry run in between"
        )
    if versions and (clear_freeze is not None or yes_remove is not None):
        raise typer.BadParameter("--versions goes with neither --clear-freeze nor --yes-remove")
    for_one_only = clear_freeze is not None or yes_remove is not None

    def operation(chosen: Target, progress: Progress) -> StepResult:
        if for_one_only and database is None and chosen.has_several:
            raise ConfigError(f"target {chosen.name!r} has several databases; say which: --database NAME")
        if clear_freeze is not None:  # no server is asked: this works on the day it is down
            from pgsteward.backup.freeze import clear_freeze as clear
            from pgsteward.databases import bind

            bound = chosen if database is None else bind(chosen, database)
            return clear(bound, clear_freeze, dry_run=dry_run)
        if versions:
            from pgsteward.old_versions import prune_versions

            return prune_versions(chosen, dry_run=dry_run)
        from pgsteward.databases import bind_covered
        from pgsteward.retention import prune as prune_backups

        bound = bind_covered(chosen, database) if database is not None and for_one_only else chosen
        return prune_backups(bound, dry_run=dry_run, yes_remove=yes_remove)

    step = "clear-freeze" if clear_freeze is not None else "prune-versions" if versions else "prune"
    run_operation(
        ctx,
        step,
        target,
        operation,
        as_json=json,
        remember=True,
        database=database,
        across="itself" if for_one_only else "server",
    )
