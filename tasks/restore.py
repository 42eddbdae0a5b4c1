"""Restore."""

from __future__ import annotations

from datetime import timedelta

from pgsteward.databases import locate
from pgsteward.restore import choice, run
from pgsteward.restore.scope import Scope
from pgsteward.results import StepResult
from pgsteward.targets import load_target
from tasks import maintenance_task
from tasks.progress import shown_progress


@maintenance_task("restore", retries=0, timeout=timedelta(hours=24))
def restore_backup(
    target: str,
    what: str = "latest",
    *,
    store: str | None = None,
    as_of: str | None = None,
    create_roles: bool = False,
    no_tablespaces: bool = False,
    schemas: tuple[str, ...] = (),
    tables: tuple[str, ...] = (),
    schema_only: bool = False,
    data_only: bool = False,
    into: str | None = None,
    replace: bool = False,
    confirm_database: str | None = None,
    database: str | None = None,
    dry_run: bool = False,
) -> StepResult:
    """Restore a backup and compare it with its proof. Never retried: it may have replaced a database."""
    with shown_progress("restore", target) as progress:
        chosen = load_target(target)
        until = choice.parse_instant(as_of, chosen.settings.retention.time_zone) if as_of else None
        return run.restore(
            locate(chosen, what, database=database, store=store),
            what,
            store=store,
            as_of=until,
            create_roles=create_roles,
            no_tablespaces=no_tablespaces,
            scope=Scope(schemas, tables, schema_only, data_only),
            into=into,
            replace=replace,
            confirm_database=confirm_database,
            dry_run=dry_run,
            progress=progress,
        )
