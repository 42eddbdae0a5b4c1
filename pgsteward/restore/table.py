"""One table of a backup beside the live one: what has changed since, and the SQL that would bring it back.

The table is restored into a scratch database and compared with the proof there, with the types that it had;
its rows are then copied into a schema of their own in the live database. The live table is only read.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from pgsteward import results
from pgsteward.backup.proof import SETTINGS
from pgsteward.errors import ConfigError, PreconditionError, StewardError, VerificationFailed
from pgsteward.postgres import Connection, Login, connect, quote_name
from pgsteward.postgres_names import split_columns
from pgsteward.progress import Progress, silent
from pgsteward.restore import blank, checks, choice, parts, row_merge, scratch, side
from pgsteward.restore.definition import Pair, Table, as_json, pair, read_table
from pgsteward.restore.found import find_backup
from pgsteward.restore.load import load_bare
from pgsteward.restore.outcome import Comparison, Order, Phases, Ready, leave_receipt
from pgsteward.restore.partial import make_schemas
from pgsteward.restore.row_diff import Differences, compare_rows
from pgsteward.restore.run import (
    affordable_jobs,
    compare_restored,
    evidence_of_damage,
    evidence_of_manifest,
    fetch_files,
    not_equal,
    prepare,
)
from pgsteward.restore.scope import Scope
from pgsteward.restore.side import Side
from pgsteward.restore.toc import Key
from pgsteward.results import Item, Note, StepResult
from pgsteward.targets import Target

STEP: Final = "restore-table"
SHOWN = 10
"""Rows of each kind that are listed, where nobody says how many."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What was asked for, once it is known which table that is."""

    order: Order
    ready: Ready
    table: Key
    key: tuple[str, ...]
    now: Table | None
    live: Login
    shown: int


@dataclass(frozen=True, slots=True)
class _Found:
    """What came out; the pair and the differences are None where there is no live table."""

    side: Side
    compared: Comparison
    pair: Pair | None
    differences: Differences | None
    notes: tuple[Note, ...] = ()


def parse_key(text: str) -> tuple[str, ...]:
    """Return the columns of ``id,"Order No"``, as SQL writes them.

    Raises:
        ConfigError: It is no list of columns.
    """
    try:
        return split_columns(text) if text.strip() else ()
    except ValueError as exc:
        raise ConfigError(f"key: {exc}") from None


def restore_table(
    target: Target,
    table: str,
    what: str = "latest",
    *,
    store: str | None = None,
    as_of: datetime | None = None,
    key: Sequence[str] = (),
    shown: int = SHOWN,
    jobs: int | None = None,
    dry_run: bool = False,
    progress: Progress = silent,
) -> StepResult:
    """Bring one table of a backup into a side schema of the live database, and compare the live one with it.

    Args:
        target: Bound to the database; its ``restore`` login reads the live table.
        table: Its name, or a pattern that chooses one table.
        what: ``latest``, ``latest-proven`` or a backup id.
        store: Take the backup from this store; None takes the first one that has it.
        as_of: The newest that saw the database not after this moment.
        key: Columns that tell rows apart; the live table's own key where none are given.
        shown: How many rows of each kind the result lists; they are the table's own data.
        jobs: Sessions that load at the same time.
        dry_run: Stop after the preflight.
        progress: Is told what happens.

    Raises:
        ConfigError: No table was named, or the backup is not.
        PreconditionError: There is no such table, the key does not fit, or a no-go; nothing was changed.
        VerificationFailed: What was restored is not what was backed up; nothing of it is left.
    """
    began = time.monotonic()
    if not table.strip():
        raise ConfigError("say which table: a name such as public.orders")
    if shown < 0:
        raise ConfigError("rows to show can't be fewer than 0")
    now = datetime.now(UTC)
    stamp, phases = f"{now:%Y%m%d%H%M%S}", Phases()
    progress("looking for the backup")
    with phases.phase("preflight"), evidence_of_manifest(target, what, store, dry_run):
        found = find_backup(target, what, store, as_of=as_of)
        admin = scratch.admin_login(target.login("restore"))
    order = Order(
        target=target,
        found=found,
        admin=admin,
        into=scratch.fit_name(target.database, f"_table_{stamp}"),
        replaces=False,
        jobs=jobs or target.settings.backup.jobs or affordable_jobs(admin),
        run_id=secrets.token_hex(6),
        stamp=stamp,
        progress=progress,
        phases=phases,
        as_of=as_of,
        no_tablespaces=True,
        scope=Scope(tables=(table,), bare=True),
    )
    with evidence_of_damage(order, dry_run), ExitStack() as stack:
        stack.enter_context(scratch.restore_lock(admin))
        session = stack.enter_context(connect(admin, purpose=STEP, lock_timeout_s=30))
        with phases.phase("preflight"):
            order, ready = prepare(order, session, stack)
            wanted = _look(order, ready, table, tuple(key), shown)
        if dry_run:
            return _planned(wanted, time.monotonic() - began)
        fetch_files(order, ready)
        return _done(wanted, _bring(wanted, session), time.monotonic() - began)


def _look(order: Order, ready: Ready, pattern: str, key: tuple[str, ...], shown: int) -> _Wanted:
    """Find out which table is meant, and what the live one is like."""
    assert order.part is not None
    chosen = order.part.chosen
    tables = sorted(name for name, kind in chosen.items() if kind == "TABLE")
    if len(tables) != 1:
        others = ", ".join(f"{quote_name(*name)} ({kind.lower()})" for name, kind in sorted(chosen.items()))
        raise PreconditionError(f"{pattern!r} has to be one table, and it chooses {others}")
    key_of_table = parts.as_it_is(order.manifest, tables[0])
    _refuse_moving(order, key_of_table)
    live = order.admin.to(order.target.database)
    with _open(live) as session:
        now = read_table(session, key_of_table)
        _refuse_without_rights(session, now)
    if now is not None:
        _refuse_lacking(order, key_of_table)
        strangers = [name for name in key if now.column(name) is None]
        if strangers:
            raise PreconditionError(
                f"key: {quote_name(*now.key)} has no column {', '.join(strangers)};"
                f" it has {', '.join(column.name for column in now.columns)}"
            )
    return _Wanted(order, ready, key_of_table, key, now, live, shown)


def _refuse_without_rights(session: Connection, now: Table | None) -> None:
    """Make sure that the side schema can be made, and the live table read, before anything is restored.

    Raises:
        PreconditionError: A right is missing; the text grants it.
    """
    role, database = quote_name(session.value("SELECT current_user")), quote_name(session.dbname)
    if session.value("SELECT current_setting('transaction_read_only')::bool"):
        raise PreconditionError(
            f"sessions of {role} in {database} are read-only (default_transaction_read_only): no copy can"
            " be made beside the live table; restore it into a database of its own (restore --table)"
        )
    if not session.value("SELECT has_database_privilege(current_database(), 'CREATE')"):
        raise PreconditionError(
            f"{role} may create no schema in {database}: GRANT CREATE ON DATABASE {database} TO {role}"
        )
    table = quote_name(*now.key) if now is not None else None
    if table and not session.value("SELECT has_table_privilege(%(name)s, 'SELECT')", {"name": table}):
        raise PreconditionError(f"{role} may not read {table}: GRANT SELECT ON {table} TO {role}")
    if table and session.value("SELECT row_security_active(%(name)s)", {"name": table}):
        raise PreconditionError(
            f"row-level security hides rows of {table} from {role}, which would count as removed:"
            f" ALTER ROLE {role} BYPASSRLS, or restore as a superuser"
        )


def _refuse_moving(order: Order, table: Key) -> None:
    """Make sure that a restore puts back into a partition what was in it.

    Raises:
        PreconditionError: It is a hash partition by an enum: rows go where the new enum's OIDs lead them.
    """
    for relation in order.manifest.proof.relations:
        if relation.key == table and relation.moves_within is not None:
            raise PreconditionError(
                f"a restore places the rows of {quote_name(*table)} anew among the partitions of"
                f" {quote_name(*relation.moves_within)}: name that one"
            )


def _refuse_lacking(order: Order, table: Key) -> None:
    """Make sure that all rows of the table are in the backup: others would count as rows that came since.

    Raises:
        PreconditionError: Some were left out; the merge would delete them.
    """
    assert order.part is not None
    manifest, lacking = order.manifest, []
    if parts.as_listed(table) not in order.part.rows_of:  # partitioned, or left out itself
        names = {quote_name(*parts.as_it_is(manifest, key)) for key in order.part.filled}
        lacking += [what for what in manifest.not_in_dump if what.partition(": ")[0] in names]
        if any(each.startswith(("--table=", "--schema=")) for each in manifest.arguments):
            lacking.append("partitions, if it was made without some of them")
    if "--enable-row-security" in manifest.arguments:
        lacking.append("rows that row-level security hid from it")
    if lacking:
        raise PreconditionError(
            f"backup {manifest.backup_id} lacks rows of {quote_name(*table)}, which can't be told from those"
            f" that came since: {'; '.join(lacking[:5])}; take another backup, name one partition, or restore"
            " the table into a database of its own (restore --table)"
        )


def _open(login: Login) -> Connection:
    return connect(login, purpose=STEP, lock_timeout_s=30, settings=SETTINGS)


def _bring(wanted: _Wanted, session: Connection) -> _Found:
    """Restore the table, copy it, and compare; nothing is left of it where anything fails."""
    order = wanted.order
    schema = side.schema_name(wanted.table[1], order.stamp, order.run_id)
    facts = {"backup_id": order.manifest.backup_id, "schema": wanted.table[0]}
    with _open(wanted.live) as live:
        with _restored(wanted, session) as (name, compared), _open(order.admin.to(name)) as source:
            then = read_table(source, wanted.table)
            if then is None or not then.columns:
                raise PreconditionError(f"{quote_name(*wanted.table)} has no columns in the backup")
            both = pair(then, wanted.now, wanted.key) if wanted.now is not None else None
            order.progress("copying the table beside the live one")
            with order.phases.phase("copy"):
                brought = side.bring(source, live, then, schema, facts, _reader(order.target))
        if both is None:
            return _Found(brought, compared, None, None)
        order.progress("comparing with the live table")
        try:
            with order.phases.phase("difference"):
                return _compare(wanted, live, brought, compared, both)
        except BaseException:
            with contextlib.suppress(StewardError):  # else the janitor drops it, once it is old
                side.drop(live, schema)
            raise


def _reader(target: Target) -> str | None:
    """Return who makes the backups; None where that can't be asked now."""
    with contextlib.suppress(StewardError), connect(target.login("backup"), purpose=STEP) as session:
        return str(session.value("SELECT current_user"))
    return None


def _compare(wanted: _Wanted, live: Connection, brought: Side, compared: Comparison, both: Pair) -> _Found:
    try:
        return _Found(brought, compared, both, compare_rows(live, both, brought, wanted.shown))
    except PreconditionError as exc:
        if wanted.key:
            raise
        whole = replace(both, identified_by=())  # the live table's key is none of the backup's rows
        note = Note(quote_name(*both.now.key), f"compared by whole rows: {exc}")
        return _Found(brought, compared, whole, compare_rows(live, whole, brought, wanted.shown), (note,))


@contextlib.contextmanager
def _restored(wanted: _Wanted, session: Connection) -> Iterator[tuple[str, Comparison]]:
    """Give a scratch database with the table, compared with the proof; it is dropped afterwards."""
    order, ready = wanted.order, wanted.ready
    with order.phases.phase("create"):
        name = blank.create(order, ready, session)
    try:
        make_schemas(order, ready, name)
        verdict = load_bare(order, ready, name)
        with order.phases.phase("compare"):
            compared = compare_restored(order, name, verdict)
        if compared.differences:
            leave_receipt(order, session, compared, verdict)
            raise VerificationFailed(not_equal(order, compared))
        yield name, compared
    finally:
        scratch.discard(session, name)


def _planned(wanted: _Wanted, seconds: float) -> StepResult:
    order = wanted.order
    schema = side.schema_name(wanted.table[1], order.stamp, order.run_id)
    expected = checks.expected_failures(wanted.ready.checks)
    gone = "" if wanted.now is not None else "; there is no such table now to compare it with"
    return StepResult(
        step=STEP,
        target=order.target.name,
        status=results.judge(examined=len(wanted.ready.checks), unknown=order.found.notes, findings=expected),
        findings=expected,
        examined=len(wanted.ready.checks),
        changed=(Item(quote_name(schema, wanted.table[1]), "would bring"),),
        unknown=order.found.notes,
        seconds=seconds,
        summary=f"Table {_named(wanted)} can be brought beside the live one{gone}.",
        details=_details(wanted),
        dry_run=True,
    )


def _done(wanted: _Wanted, found: _Found, seconds: float) -> StepResult:
    order, differences = wanted.order, found.differences
    unknown = [*order.found.notes, *(Note(*each) for each in found.compared.not_examined)]
    if found.compared.level == "none":
        unknown.append(
            Note(quote_name(*wanted.table), "the backup has no proof: nothing was compared with it")
        )
    notes = [*found.notes]
    if found.pair is not None:
        notes += [Note(f"column {quote_name(n.object)}", n.reason) for n in found.pair.changes]
    else:
        notes.append(Note(quote_name(*wanted.table), "is not there any more: nothing to compare it with"))
    equal = "not compared with a proof" if found.compared.equal is None else "equal to the proof"
    brought = quote_name(*found.side.key)
    return StepResult(
        step=STEP,
        target=order.target.name,
        status=results.judge(examined=1, unknown=unknown),
        examined=1,
        changed=(Item(brought, "brought", {"rows": found.side.rows}),),
        skipped=tuple(notes),
        unknown=tuple(unknown),
        seconds=seconds,
        summary=f"Table {_named(wanted)} is {brought}, {found.side.rows} rows, {equal}. {_said(differences)}",
        details={**_details(wanted), **_outcome(found)},
    )


def _named(wanted: _Wanted) -> str:
    manifest = wanted.order.manifest
    seen = choice.said(choice.moment(manifest))
    return f"{quote_name(*wanted.table)} of backup {manifest.backup_id} of {seen}"


def _said(differences: Differences | None) -> str:
    if differences is None:
        return "There is no live table to compare it with."
    if not (differences.removed or differences.added or differences.changed):
        return "The live table has the same rows."
    changed = "" if differences.changed is None else f", {differences.changed} changed"
    columns = f" ({', '.join(differences.columns)})" if differences.columns else ""
    return (
        f"Since then {differences.removed} rows were removed, {differences.added} added{changed}{columns};"
        " nothing was merged."
    )


def _details(wanted: _Wanted) -> dict[str, Any]:
    order = wanted.order
    return {
        "backup_id": order.manifest.backup_id,
        "as_of": None if order.as_of is None else order.as_of.isoformat(),
        "snapshot_at": choice.moment(order.manifest).isoformat(),
        "database": order.manifest.database,
        "store": order.found.store.name,
        "table": quote_name(*wanted.table),
        "preflight": checks.as_json(wanted.ready.checks),
        "phases": dict(order.phases.seconds),
    }


def _outcome(found: _Found) -> Mapping[str, Any]:
    pair, differences = found.pair, found.differences
    outcome = {
        "side_table": quote_name(*found.side.key),
        "rows": found.side.rows,
        "proof": {"level": found.compared.level, "equal": found.compared.equal},
        "drop": side.drop_statement(found.side.schema),
    }
    if pair is None or differences is None:
        return {**outcome, "key": None, "difference": None, "merge": None, "merge_script": None}
    merge = row_merge.statements(pair, found.side, differences)
    script = row_merge.script(merge, pair, found.side, differences) if any(merge.values()) else None
    return {**outcome, **as_json(pair), **differences.as_json(), "merge": merge, "merge_script": script}
