"""``pgsteward restore-table``. Registered in `pgsteward.cli`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pgsteward.cli_run import AsOf, BackupName, Database, DryRun, FromStore, Json, TargetName, run_operation
from pgsteward.progress import Progress
from pgsteward.results import StepResult

if TYPE_CHECKING:
    from pgsteward.targets import Target


def restore_table(
    ctx: typer.Context,
    target: TargetName = None,
    table: Annotated[
        str | None, typer.Argument(metavar="TABLE", help="A name as it is: public.orders.")
    ] = None,
    backup_id: BackupName = None,
    as_of: AsOf = None,
    store: FromStore = None,
    key: Annotated[
        str | None,
        typer.Option(
            "--key",
            metavar="COLUMN,...",
            help="What tells rows apart; by default the primary key or another unique one, and else whole"
            " rows.",
        ),
    ] = None,
    rows: Annotated[
        int,
        typer.Option("--rows", metavar="N", min=0, help="How many rows of each kind to list; 0 lists none."),
    ] = 10,
    database: Database = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Bring a table of a backup beside the live one, show what differs, and print the SQL that merges it.

    The live table is only read. TARGET may be left out where the configuration has only one.
    """
    from pgsteward.restore import choice

    target, table, backup_id = _sort_out(target, table, backup_id)
    wanted, what = table or "", backup_id or choice.LATEST

    def operation(chosen: Target, progress: Progress) -> StepResult:
        from pgsteward.databases import locate
        from pgsteward.restore.table import parse_key
        from pgsteward.restore.table import restore_table as bring_table

        zone = chosen.settings.retention.time_zone
        until = choice.parse_instant(as_of, zone) if as_of is not None else None
        choice.refuse_unknown(what, until)
        return bring_table(
            locate(chosen, what, database=database, store=store),
            wanted,
            what,
            store=store,
            as_of=until,
            key=parse_key(key or ""),
            shown=rows,
            dry_run=dry_run,
            progress=progress,
        )

    run_operation(ctx, "restore-table", target, operation, as_json=json, remember=True, database=database)


def _sort_out(
    target: str | None, table: str | None, backup: str | None
) -> tuple[str | None, str | None, str | None]:
    """Tell what was given apart where the target was left out."""
    from pgsteward.backup.manifest import BACKUP_ID
    from pgsteward.restore import choice

    if table is None:
        return None, target, None
    if backup is None and (table in choice.WORDS or BACKUP_ID.fullmatch(table)):
        return None, target, table
    return target, table, backup
