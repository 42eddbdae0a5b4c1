"""``pgsteward restore`` and ``undo-restore``. Registered in `pgsteward.cli`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pgsteward.cli_run import (
    AsOf,
    BackupName,
    Database,
    DryRun,
    FromStore,
    Json,
    TargetName,
    run_operation,
    split_target,
)
from pgsteward.errors import ConfigError
from pgsteward.progress import Progress
from pgsteward.results import StepResult

if TYPE_CHECKING:
    from pgsteward.targets import Target

FROM_NOTHING = "Without a configuration"
A_PART = "A part of the backup"
_NAMES = "a name as it is, or a pattern as pg_dump's -{} takes it (quotes keep capitals)"


def restore(
    ctx: typer.Context,
    target: TargetName = None,
    backup_id: BackupName = None,
    as_of: AsOf = None,
    store: FromStore = None,
    into: Annotated[
        str | None,
        typer.Option(
            "--into", metavar="DATABASE", help="Name of the new database; by default one with the time in it."
        ),
    ] = None,
    replace: Annotated[
        bool,
        typer.Option("--replace", metavar="", help="Put the restored database into the old one's place."),
    ] = False,
    confirm_database: Annotated[
        str | None,
        typer.Option("--confirm-database", metavar="NAME", help="With --replace: its name, once more."),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", metavar="N", min=1, help="Parallel jobs.")
    ] = None,
    create_roles: Annotated[
        bool,
        typer.Option(
            "--create-roles",
            metavar="",
            help="Create the backup's roles that the server lacks; one that is there is never altered.",
        ),
    ] = False,
    no_tablespaces: Annotated[
        bool,
        typer.Option(
            "--no-tablespaces", metavar="", help="Put everything into the database's own tablespace."
        ),
    ] = False,
    schema: Annotated[
        list[str] | None,
        typer.Option(
            "--schema",
            metavar="NAME",
            help=f"Only this schema: {_NAMES.format('n')}. May be repeated.",
            rich_help_panel=A_PART,
        ),
    ] = None,
    table: Annotated[
        list[str] | None,
        typer.Option(
            "--table",
            metavar="NAME",
            help=f"Only this table, view or sequence, and its needs: {_NAMES.format('t')}; without a schema"
            " of any schema. May be repeated.",
            rich_help_panel=A_PART,
        ),
    ] = None,
    schema_only: Annotated[
        bool,
        typer.Option("--schema-only", metavar="", help="Definitions, no rows.", rich_help_panel=A_PART),
    ] = False,
    data_only: Annotated[
        bool,
        typer.Option(
            "--data-only",
            metavar="",
            help="Rows, into tables that are there and empty: --into DATABASE.",
            rich_help_panel=A_PART,
        ),
    ] = False,
    database: Database = None,
    from_url: Annotated[
        str | None,
        typer.Option(
            "--from-url",
            metavar="URL",
            help="s3://bucket/prefix or file:///folder: needs no configuration.",
            rich_help_panel=FROM_NOTHING,
        ),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="CONNINFO",
            help="With --from-url: the server; its password comes from PGPASSWORD or ~/.pgpass.",
            rich_help_panel=FROM_NOTHING,
        ),
    ] = None,
    identity: Annotated[
        Path | None,
        typer.Option(
            "--identity",
            metavar="FILE",
            help="Secret key of encrypted backups (age or ssh).",
            rich_help_panel=FROM_NOTHING,
        ),
    ] = None,
    endpoint_url: Annotated[
        str | None,
        typer.Option(
            "--endpoint-url",
            metavar="URL",
            help="Of an S3 that is not Amazon's; by default $AWS_ENDPOINT_URL.",
            rich_help_panel=FROM_NOTHING,
        ),
    ] = None,
    region: Annotated[
        str | None, typer.Option("--region", metavar="NAME", rich_help_panel=FROM_NOTHING)
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option("--profile", metavar="NAME", help="Of boto3's own files.", rich_help_panel=FROM_NOTHING),
    ] = None,
    ca_bundle: Annotated[
        Path | None, typer.Option("--ca-bundle", metavar="FILE", rich_help_panel=FROM_NOTHING)
    ] = None,
    sse_customer_key: Annotated[
        Path | None,
        typer.Option(
            "--sse-customer-key",
            metavar="FILE",
            help="The key that an SSE-C store needs, in base64.",
            rich_help_panel=FROM_NOTHING,
        ),
    ] = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Restore a backup into a new database and compare it with its proof.

    With --schema, --table, --schema-only or --data-only a part of it: docs/restore.md says what comes along.
    On a machine that has nothing but the store's keys: --from-url s3://bucket/prefix --to CONNINFO.
    """
    from pgsteward.restore import choice

    options = {
        "endpoint_url": endpoint_url,
        "region": region,
        "profile": profile,
        "ca_bundle": None if ca_bundle is None else str(ca_bundle.absolute()),
        "sse": None if sse_customer_key is None else "customer",
        "sse_customer_key": None if sse_customer_key is None else {"file": str(sse_customer_key.absolute())},
    }
    _refuse_mixed(from_url, to, store, [identity, *options.values()])

    target, what = split_target(ctx, target, backup_id, choice.WORDS)
    if confirm_database is not None and not replace:
        raise typer.BadParameter("--confirm-database goes with --replace")
    if replace and into is not None:
        raise typer.BadParameter("--into names a new database, and --replace takes the old one's place")
    if data_only and into is None:
        raise typer.BadParameter("--data-only needs --into: the database whose empty tables get the rows")

    def operation(chosen: Target, progress: Progress) -> StepResult:
        from pgsteward.databases import locate
        from pgsteward.restore.run import restore as restore_backup
        from pgsteward.restore.scope import Scope

        scope = Scope(tuple(schema or ()), tuple(table or ()), schema_only, data_only)
        wanted = what or choice.LATEST
        until = None
        if as_of is not None:
            until = choice.parse_instant(as_of, chosen.settings.retention.time_zone)
        choice.refuse_unknown(wanted, until)
        chosen = locate(chosen, wanted, database=database, store=store)
        unsaid = dry_run and confirm_database is None
        if replace and confirm_database != chosen.database and not unsaid:
            given = "it is not there" if confirm_database is None else f"{confirm_database!r} was given"
            raise ConfigError(
                f"--replace asks for the name of the database that is replaced, and {given}:"
                f" write --confirm-database {shlex.quote(chosen.database)}"
            )
        return restore_backup(
            chosen,
            wanted,
            store=store if from_url is None else chosen.settings.stores[0],
            as_of=until,
            into=into,
            replace=replace,
            confirm_database=confirm_database,
            jobs=jobs,
            create_roles=create_roles,
            no_tablespaces=no_tablespaces,
            scope=scope,
            dry_run=dry_run,
            progress=progress,
        )

    def find_target() -> Target:
        from pgsteward.restore import from_url as nothing

        assert from_url is not None
        assert to is not None
        choice.refuse_unknown(what or choice.LATEST)
        backup = None if what in (None, *choice.WORDS) else what
        source = nothing.Source(from_url, options)
        return nothing.find_target(
            source, to, target=target, database=database, backup_id=backup, identity=identity
        )

    run_operation(
        ctx,
        "restore",
        target,
        operation,
        as_json=json,
        remember=from_url is None,
        database=database,
        find_target=find_target if from_url is not None else None,
    )


def _refuse_mixed(from_url: str | None, to: str | None, store: str | None, others: list[object]) -> None:
    if from_url is None:
        if to is not None or any(other is not None for other in others):
            raise typer.BadParameter(
                "--to, --identity and the options of S3 go with --from-url; else the configuration says them"
            )
        return
    if to is None:
        raise typer.BadParameter('--from-url needs --to: "host=... user=..." of the server to restore to')
    if store is not None:
        raise typer.BadParameter("--from names a store of the configuration, which --from-url does without")


def undo_restore(
    ctx: typer.Context,
    target: TargetName = None,
    copy: Annotated[
        str | None,
        typer.Option(
            "--copy", metavar="DATABASE", help="Put this one back; by default the one put aside last."
        ),
    ] = None,
    confirm_database: Annotated[
        str | None,
        typer.Option("--confirm-database", metavar="NAME", help="The database's own name, to be sure."),
    ] = None,
    database: Database = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Put back the database that a restore with --replace has put aside; the restored one is put aside."""

    def operation(chosen: Target, progress: Progress) -> StepResult:
        from pgsteward.databases import bind
        from pgsteward.restore.replaced import undo_restore as undo

        if database is None and chosen.has_several:
            raise ConfigError(f"target {chosen.name!r} has several databases; say which: --database NAME")
        bound = chosen if database is None else bind(chosen, database)
        if not dry_run and confirm_database != bound.database:
            given = "it is not there" if confirm_database is None else f"{confirm_database!r} was given"
            raise ConfigError(
                "what was written since the restore goes out of its place, so the name of the database is"
                f" asked for, and {given}: write --confirm-database {shlex.quote(bound.database)}"
            )
        return undo(bound, copy=copy, confirm_database=confirm_database, dry_run=dry_run, progress=progress)

    run_operation(ctx, "undo-restore", target, operation, as_json=json, remember=True, database=database)
