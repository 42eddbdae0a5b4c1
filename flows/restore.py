"""Restore: a backup into a new database, or, asked twice, in place of one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from flows.conclusion import run_steps
from flows.confirmation import ask_for_name
from pgsteward.results import StepResult
from tasks.restore import restore_backup


@flow(name="restore", flow_run_name="restore-{target}")
def restore(
    target: str = "app",
    what: str = "latest",
    store: str = "",
    into: str = "",
    replace: bool = False,
    confirm_database: str = "",
    dry_run: bool = False,
    database: str = "",
    as_of: str = "",
    create_roles: bool = False,
    no_tablespaces: bool = False,
    schemas: list[str] | None = None,
    tables: list[str] | None = None,
    schema_only: bool = False,
    data_only: bool = False,
) -> State[Any]:
    """Restore a backup and compare every table with the proof that was taken when it was dumped.

    - **Does**: checks every stored byte, restores into a **new** database, compares. Only with `replace` and
      the database's name repeated does the new database take the old one's place, by a rename in one
      transaction.
    - **Locks**: none in the running database, unless it is replaced: then its sessions are ended for the
      swap; or `data_only` fills tables of it: they can only be read meanwhile.
    - **Cancel**: any time before the swap; the half-restored database is dropped.
    - **Undo**: drop the new database; after a swap the old one is still there under another name, and the
      report says which.

    Args:
        target: Name of an entry under [targets] in pgsteward.toml, never a connection string.
        what: `latest`, `latest-proven` (restored once and found equal), or the id of a backup such as
            20261123T020000Z-7f3a9c.
        store: Restore from this store of the target; the first one that has the backup when empty.
        into: Name of the new database; one is made up when empty.
        replace: Put the restored database in the place of the target's own.
        confirm_database: With `replace`, repeat the name of the database that is replaced. Left empty, the
            run looks whether it can be done, pauses and asks for it.
        dry_run: Check the backup, the server and the room, and restore nothing.
        database: Whose backup, where the target has several: asked for with `latest`; an id tells it.
        as_of: The newest backup of this moment or before, such as 2026-11-20T03:00Z; without an offset in the
            time_zone of the target's retention, which is UTC by default.
        create_roles: Create the backup's roles that the server lacks; one that is there is never altered.
        no_tablespaces: Put everything into the database's own tablespace.
        schemas: Only these schemas: names, or patterns as pg_dump takes them.
        tables: Only these tables, views and sequences, and what they need: names such as public.orders, or
            patterns as pg_dump takes them (quotes keep capitals).
        schema_only: Definitions, no rows.
        data_only: Rows, into tables of the database `into` that are there and empty.
    """
    call = partial(
        restore_backup,
        target,
        what=what,
        store=store or None,
        as_of=as_of or None,
        create_roles=create_roles,
        no_tablespaces=no_tablespaces,
        schemas=tuple(schemas or ()),
        tables=tuple(tables or ()),
        schema_only=schema_only,
        data_only=data_only,
        into=into or None,
        replace=replace,
        confirm_database=confirm_database or None,
        database=database or None,
        dry_run=dry_run,
    )
    if replace and not dry_run and not confirm_database:
        call = partial(_look_and_ask, target, call)
    return run_steps(target, database, {"restore": call}, dry_run=dry_run)


def _look_and_ask(target: str, call: Callable[..., StepResult]) -> StepResult:
    """Restore the backup that a first look finds, once its database's name was typed."""
    looked = call(dry_run=True)
    found = looked.details
    backup = f"backup {found['backup_id']} of {found['snapshot_at']}"
    backup += "".join(f" ({note.object}: {note.reason})" for note in looked.findings)
    typed = ask_for_name(target, found["database"], backup)
    return call(what=found["backup_id"], store=found["store"], as_of=None, confirm_database=typed)
