"""``pgsteward``: the same operations from a shell, without a Prefect server.

Everything heavy is imported inside the command that needs it: ``--help`` must answer at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pgsteward import cli_drill, cli_prune, cli_receipts, cli_restore, cli_restore_table, cli_setup
from pgsteward.cli_output import print_result, print_text, set_up_logging
from pgsteward.cli_run import (
    BACKUP_WORDS,
    Database,
    DryRun,
    FromStore,
    Json,
    Settings,
    TargetName,
    check_backup_id,
    choose_target,
    guarded,
    load_config,
    run_command_line,
    run_operation,
    split_target,
)
from pgsteward.errors import ConfigError
from pgsteward.progress import Progress
from pgsteward.results import EXIT_STATUS, NightResult, Note, StepResult

if TYPE_CHECKING:
    from pgsteward.targets import Target

NIGHT = "The night"
BACKUPS = "Backups"
UPKEEP = "Upkeep"
SETUP = "Setting up"
PREFECT = "Prefect"

app = typer.Typer(
    name="pgsteward",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

BackupId = Annotated[str | None, typer.Argument(metavar="BACKUP", help="A backup id, or latest.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("pgsteward"))
        raise typer.Exit


@app.callback()
def before_every_command(
    ctx: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", "-c", metavar="FILE", help="By default $PGSTEWARD_CONFIG, then ./pgsteward.toml."
        ),
    ] = None,
    verbose: Annotated[
        int,
        typer.Option(
            "--verbose",
            "-v",
            count=True,
            show_default=False,
            metavar="",
            help="Log more; twice for even more.",
        ),
    ] = 0,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            is_eager=True,
            metavar="",
            callback=_print_version,
            help="Print the version and leave.",
        ),
    ] = False,
) -> None:
    """Looks after PostgreSQL at night, proves its backups, and never says ok about what it did not look at.

    Exit status: 0 done, 1 failed, 2 misuse or configuration, 3 done but not everything.
    """
    set_up_logging(verbose)
    ctx.obj = Settings(config)


@app.command(rich_help_panel=NIGHT)
def nightly(
    ctx: typer.Context,
    target: TargetName = None,
    database: Database = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Run the whole night: backup, upload, retention, clean-up, reindex, analyze, refresh, report."""

    def operation(chosen: Target, progress: Progress) -> NightResult:
        from pgsteward.night import run_nightly

        return run_nightly(chosen, database=database, dry_run=dry_run, progress=progress)

    run_operation(ctx, "nightly", target, operation, as_json=json, remember=True, database=database)


@app.command(rich_help_panel=NIGHT)
def report(
    ctx: typer.Context,
    target: TargetName = None,
    form: Annotated[Literal["text", "markdown"], typer.Option("--format", help="How it is set.")] = "text",
    json: Json = False,
) -> None:
    """Print the report of the last night; exit status 3 when there was none."""
    with guarded("report", target or "", as_json=json):
        from pgsteward import state
        from pgsteward.report import markdown

        config = load_config(ctx)
        chosen = choose_target(config, target)
        with state.open_history(config) as history:
            night = history.last_night(chosen.name, chosen.scope)
        if night is None:
            reason = "no night is in the history; run `pgsteward nightly`"
            nothing = StepResult(
                "report", chosen.name, "unknown", 0, unknown=(Note(chosen.name, reason),), summary=reason
            )
            print_result(nothing, as_json=json)
            raise typer.Exit(EXIT_STATUS["unknown"])
        if form == "markdown" and not json:
            print_text(markdown(night))
        else:
            print_result(night, as_json=json)


@app.command(rich_help_panel=BACKUPS)
def backup(
    ctx: typer.Context,
    target: TargetName = None,
    database: Database = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Dump each database with its proof into the first store, and bring the backup to all others."""

    def operation(chosen: Target, progress: Progress) -> StepResult:
        from pgsteward.backup.run import back_up_everywhere

        return back_up_everywhere(chosen, dry_run=dry_run, progress=progress)

    run_operation(
        ctx,
        "backup",
        target,
        operation,
        as_json=json,
        remember=True,
        database=database,
        across="server",
        side_by_side=None if dry_run else "pgsteward.backup.run:back_up_everywhere",
    )


@app.command(rich_help_panel=BACKUPS)
def backups(
    ctx: typer.Context, target: TargetName = None, database: Database = None, json: Json = False
) -> None:
    """List the complete backups in all stores: what each is worth, and why it is kept."""

    def operation(chosen: Target, progress: Progress) -> StepResult:
        from pgsteward.backup.catalog import backups as list_backups

        return list_backups(chosen)

    run_operation(ctx, "backups", target, operation, as_json=json, database=database, across="stores")


@app.command(rich_help_panel=BACKUPS)
def verify(
    ctx: typer.Context,
    target: TargetName = None,
    backup_id: BackupId = None,
    store: FromStore = None,
    database: Database = None,
    json: Json = False,
) -> None:
    """Read every stored byte of a backup again and compare it with the manifest."""
    target, what = split_target(ctx, target, backup_id)

    def operation(chosen: Target, progress: Progress) -> StepResult:
        from pgsteward.backup.catalog import verify as verify_backup
        from pgsteward.databases import locate
        from pgsteward.several import over_stored

        def verify_one(bound: Target) -> StepResult:
            return verify_backup(bound, what or "latest", store=store, progress=progress)

        check_backup_id(what or "latest")
        if what in (None, *BACKUP_WORDS):
            return over_stored(chosen, "verify", verify_one, database=database, only_stored=True)
        return verify_one(locate(chosen, what, database=database, store=store))

    run_operation(ctx, "verify", target, operation, as_json=json, database=database)


@app.command(rich_help_panel=BACKUPS)
def upload(
    ctx: typer.Context,
    target: TargetName = None,
    backup_id: BackupId = None,
    database: Database = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Bring backups to the stores that lack them; read back and verified."""
    target, what = split_target(ctx, target, backup_id)

    def operation(chosen: Target, progress: Progress) -> StepResult:
        from pgsteward.backup.upload import upload as upload_backup
        from pgsteward.databases import locate
        from pgsteward.several import over

        def upload_one(bound: Target) -> StepResult:
            which = None if what in BACKUP_WORDS else what
            return upload_backup(bound, backup_id=which, dry_run=dry_run, progress=progress)

        if what in (None, *BACKUP_WORDS):
            return over(chosen, "upload", upload_one, database=database, progress=progress)
        return upload_one(locate(chosen, what, database=database))

    run_operation(ctx, "upload", target, operation, as_json=json, remember=True, database=database)


app.command(rich_help_panel=BACKUPS)(cli_prune.prune)
app.command(rich_help_panel=BACKUPS)(cli_receipts.receipts)


app.command(rich_help_panel=BACKUPS)(cli_restore.restore)
app.command("undo-restore", rich_help_panel=BACKUPS)(cli_restore.undo_restore)
app.command("restore-table", rich_help_panel=BACKUPS)(cli_restore_table.restore_table)
app.command(rich_help_panel=BACKUPS)(cli_drill.drill)


@app.command(rich_help_panel=BACKUPS)
def janitor(
    ctx: typer.Context,
    target: TargetName = None,
    database: Database = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Remove what runs that died left behind; nothing of a run that lives, nothing that is not ours."""

    def operation(chosen: Target, progress: Progress) -> StepResult:
        from pgsteward.janitor import clean_up

        return clean_up(chosen, dry_run=dry_run)

    run_operation(
        ctx, "janitor", target, operation, as_json=json, remember=True, database=database, across="server"
    )


@app.command(rich_help_panel=UPKEEP)
def sessions(
    ctx: typer.Context,
    target: TargetName = None,
    table: Annotated[
        list[str] | None,
        typer.Option(
            "--table", metavar="SCHEMA.TABLE", help="Only this one of \\[\\[sessions]]. May be repeated."
        ),
    ] = None,
    before: Annotated[
        str | None,
        typer.Option(
            "--before",
            metavar="TIME",
            help="Only what had expired by then; 2026-11-23T04:00+01:00, or a day.",
        ),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", metavar="", help="Also where more than max_share of a table would go.")
    ] = False,
    database: Database = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Delete expired rows of the session tables, in small batches."""

    def operation(chosen: Target, progress: Progress) -> StepResult:
        from pgsteward.restore.choice import parse_instant
        from pgsteward.sessions import clean_sessions

        _refuse_vague_tables(chosen, table, database)
        instant = parse_instant(before, "UTC") if before is not None else None
        return clean_sessions(
            chosen, tables=table or None, before=instant, yes=yes, dry_run=dry_run, progress=progress
        )

    run_operation(
        ctx, "sessions", target, operation, as_json=json, remember=True, database=database, across="server"
    )


@app.command(rich_help_panel=UPKEEP)
def vacuum(
    ctx: typer.Context,
    target: TargetName = None,
    table: Annotated[
        list[str] | None,
        typer.Option("--table", metavar="SCHEMA.TABLE", help="Only this one. May be repeated."),
    ] = None,
    database: Database = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """VACUUM the session tables, and what is old or full of dead rows; say who keeps them."""

    def operation(chosen: Target, progress: Progress) -> StepResult:
        from pgsteward.vacuum import vacuum_tables

        _refuse_vague_tables(chosen, table, database)
        return vacuum_tables(chosen, tables=table or None, dry_run=dry_run, progress=progress)

    run_operation(
        ctx, "vacuum", target, operation, as_json=json, remember=True, database=database, across="server"
    )


@app.command(rich_help_panel=UPKEEP)
def bloat(
    ctx: typer.Context, target: TargetName = None, database: Database = None, json: Json = False
) -> None:
    """Measure how much space indexes and tables waste."""

    def operation(chosen: Target, progress: Progress) -> StepResult:
        from pgsteward.index_bloat import detect

        return detect(chosen, progress=progress)

    run_operation(ctx, "bloat", target, operation, as_json=json, database=database, across="server")


@app.command(rich_help_panel=UPKEEP)
def reindex(
    ctx: typer.Context,
    target: TargetName = None,
    database: Database = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Rebuild the bloated indexes, CONCURRENTLY."""

    def operation(chosen: Target, progress: Progress) -> StepResult:
        from pgsteward.reindex import reindex as reindex_bloated

        return reindex_bloated(chosen, dry_run=dry_run, progress=progress)

    run_operation(
        ctx, "reindex", target, operation, as_json=json, remember=True, database=database, across="server"
    )


@app.command(rich_help_panel=UPKEEP)
def indexes(
    ctx: typer.Context,
    target: TargetName = None,
    create: Annotated[
        bool,
        typer.Option(
            "--create",
            show_default=False,
            help="First create required indexes that are missing, CONCURRENTLY.",
        ),
    ] = False,
    database: Database = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Audit indexes, constraints and migrations: missing, invalid, superfluous, unused; with the DDL."""

    def operation(chosen: Target, progress: Progress) -> StepResult:
        from pgsteward.index_audit import audit

        return audit(chosen, create=create, dry_run=dry_run, progress=progress)

    run_operation(
        ctx, "indexes", target, operation, as_json=json, remember=create, database=database, across="server"
    )


@app.command(rich_help_panel=UPKEEP)
def analyze(
    ctx: typer.Context,
    target: TargetName = None,
    database: Database = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """ANALYZE the tables whose statistics are stale or missing."""

    def operation(chosen: Target, progress: Progress) -> StepResult:
        from pgsteward.analyze import analyze_stale

        return analyze_stale(chosen, dry_run=dry_run, progress=progress)

    run_operation(
        ctx, "analyze", target, operation, as_json=json, remember=True, database=database, across="server"
    )


@app.command(rich_help_panel=UPKEEP)
def matviews(
    ctx: typer.Context,
    target: TargetName = None,
    database: Database = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Refresh those too whose sources have not changed.")
    ] = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Refresh the materialized views whose sources have changed, in the order of their dependencies."""

    def operation(chosen: Target, progress: Progress) -> StepResult:
        from pgsteward.matviews import refresh

        return refresh(chosen, everything=everything, dry_run=dry_run, progress=progress)

    run_operation(
        ctx, "matviews", target, operation, as_json=json, remember=True, database=database, across="server"
    )


for panel, commands in (
    (SETUP, (cli_setup.init, cli_setup.doctor, cli_setup.demo)),
    (PREFECT, (cli_setup.validate, cli_setup.deploy, cli_setup.up)),
):
    for command in commands:
        app.command(rich_help_panel=panel)(command)
app.command("accept-store", rich_help_panel=SETUP)(cli_setup.accept_store)


def _refuse_vague_tables(target: Target, tables: list[str] | None, database: str | None) -> None:
    if tables and database is None and target.settings.databases is not None:
        raise ConfigError("--table is a table of one database; say which: --database NAME")


def main() -> None:
    """Run the command line; the console script."""
    run_command_line(app)


if __name__ == "__main__":
    main()
