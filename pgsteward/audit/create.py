"""Make required indexes that are missing: concurrently, one after the other, and nothing left behind.

Each is built under a name that is our mark and renamed once it is valid. So whatever bears the mark and is
invalid, while nobody holds the lock of this operation, is what a dead run has left; what is valid lacks only
its name.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

from pgsteward import sql
from pgsteward.audit.ddl import MARK, Step, is_unfinished
from pgsteward.audit.ddl import create as plan
from pgsteward.audit.inventory import Index, Inventory, take_inventory
from pgsteward.audit.required import Required
from pgsteward.errors import LockTimeout, PreconditionError, QueryFailed, StewardError
from pgsteward.hold_ups import Patience, hold_ups, name_blockers, name_hold_ups
from pgsteward.interlock import may_build
from pgsteward.ledger import Ledger
from pgsteward.postgres import Connection, Login, as_written, compose, connect, identifier, quote_name
from pgsteward.postgres_lock import operation_lock
from pgsteward.progress import Progress, silent
from pgsteward.relations import find_relation, owner_fix
from pgsteward.results import Item, Note
from pgsteward.targets import Target

log = logging.getLogger(__name__)

LOCK = "index create"
_MOMENT_S = 1.0
"""For what takes but a moment: others queue behind a lock that is waited for."""
_TRIES = 5
_DROP_TIMEOUT_S = 5.0
_LOOK_S = 0.5
_END_S = 8.0


class _Builder:
    """Builds in one database.

    Attributes:
        login: For sessions of their own.
        watch: A session that looks on.
    """

    def __init__(self, login: Login, watch: Connection, max_wait_s: float, progress: Progress) -> None:
        self.login = login
        self.watch = watch
        self.max_wait_s = max_wait_s
        self.progress = progress

    def run(self, step: Step) -> None:
        """Run one step of a plan.

        Raises:
            StewardError: It did not work; what it began is gone again, or named in the text.
        """
        if step.build is None:
            self._briefly(step.statement)
            return
        marked = f"{MARK}{secrets.token_hex(4)}"
        try:
            self._build(step.build(marked), step)
            self.rename(step.schema, marked, step.makes)
        except BaseException as exc:
            left = drop(self.login, step.schema, marked, step.table_oid)
            if left is not None and isinstance(exc, StewardError):
                raise QueryFailed(f"{exc}; {left.object} is left behind: {left.reason}") from exc
            raise

    def rename(self, schema: str, name: str, to: str) -> None:
        """Give an index another name."""
        self._briefly(f"ALTER INDEX {quote_name(schema, name)} RENAME TO {quote_name(to)}")

    def _briefly(self, statement: str) -> None:
        for number in range(_TRIES):
            with connect(
                self.login, purpose="index create", lock_timeout_s=_MOMENT_S, statement_timeout_s=60
            ) as connection:
                try:
                    connection.execute(as_written(statement))
                    return
                except LockTimeout:
                    if number == _TRIES - 1:
                        raise

    def _wait_for_quiet(self, table_oid: int) -> None:
        """Wait until nobody would hold the build up.

        Raises:
            PreconditionError: Somebody still would after ``max_wait_s``.
        """
        patience = Patience()
        while not patience.is_free(hold_ups(self.watch, table_oid), now := time.monotonic()):
            if patience.is_over("cancel", self.max_wait_s, now, set()):
                who = name_hold_ups(patience.standing)
                raise PreconditionError(f"it would wait for {who}; given up after {self.max_wait_s:g} s")
            time.sleep(_LOOK_S)

    def _session(self, table_oid: int) -> Connection:
        """Return a session that may build now."""
        while True:
            self._wait_for_quiet(table_oid)
            work = connect(self.login, purpose="index create", lock_timeout_s=0)
            if may_build(work):
                return work
            work.close()

    def _build(self, statement: str, step: Step) -> None:
        """Run a concurrent build; one that waits longer than ``max_wait_s`` in all is cancelled."""
        what = quote_name(step.schema, step.makes)
        waited = 0.0
        cancelled_for = ""
        with self._session(step.table_oid) as work, ThreadPoolExecutor(1) as pool:
            building = pool.submit(work.execute, as_written(statement))
            try:
                while not wait([building], _LOOK_S).done:
                    state = self.watch.maybe_row(sql.load("rebuild_watch"), {"pid": work.backend_pid})
                    if state is None:
                        continue
                    self.progress(f"building {what}: {state['phase']}", state["done"], state["total"])
                    waited += _LOOK_S if state["is_waiting"] else 0
                    if waited > self.max_wait_s and not cancelled_for:
                        cancelled_for = name_blockers(self.watch, step.table_oid, state["blocking_pids"])
                        work.cancel()
            finally:
                if not building.done():
                    work.cancel()
                    wait([building], _END_S)
            try:
                building.result()
            except StewardError as exc:
                if not cancelled_for:
                    raise
                raise QueryFailed(f"cancelled after waiting {waited:.0f} s for {cancelled_for}") from exc


def create_missing(
    target: Target,
    connection: Connection,
    wanted: Sequence[Required],
    inventory: Inventory,
    ledger: Ledger,
    progress: Progress = silent,
) -> None:
    """Make each required index that is missing and can be made safely; the ledger says why others not.

    The caller holds the lock of this operation since before it looked: what a run that has just ended made is
    not missing.

    Args:
        target: Whose database.
        connection: To it.
        wanted: What became of each requirement.
        inventory: All indexes.
        ledger: Also says whether this is a dry run.
        progress: Told about blocks.
    """
    login = target.login("maintenance")
    settings = target.settings.index_audit
    with connect(login, purpose="index create watch", statement_timeout_s=30) as watch:
        dropped, left = _drop_all(login, inventory.indexes, dry_run=ledger.dry_run)
        ledger.changed += dropped
        ledger.failed += left
        builder = _Builder(login, watch, settings.max_wait_s, progress)
        for each in wanted:
            if each.state == "found":
                _finish(builder, each, ledger)
            if each.state in ("found", "unknown"):
                continue
            refused = _why_not(connection, each)
            if refused:
                ledger.skip(each.label, f"not created: {refused}")
                continue
            assert each.definition is not None
            steps = plan(connection, each.definition, inventory)
            if ledger.dry_run:
                ledger.change(each.label, "would create", **_would(watch, steps))
            else:
                _create(builder, each.label, steps, ledger)


def drop_leftovers(target: Target, *, dry_run: bool = False) -> tuple[list[Item], list[Note]]:
    """Drop what dead runs left, for the janitor; see `pgsteward.leftovers.drop_leftovers`."""
    login = target.login("maintenance")
    try:
        with operation_lock(login, LOCK), connect(login, purpose="index create clean-up") as connection:
            return _drop_all(login, take_inventory(connection).indexes, dry_run=dry_run)
    except PreconditionError as exc:
        return [], [Note(target.database, f"leftovers of index builds were not looked for: {exc}")]


def _drop_all(login: Login, indexes: Iterable[Index], *, dry_run: bool) -> tuple[list[Item], list[Note]]:
    dropped: list[Item] = []
    left: list[Note] = []
    for index in indexes:
        if not is_unfinished(index):
            continue
        if dry_run:
            dropped.append(Item(index.qualified, "would drop"))
            continue
        note = drop(login, index.schema, index.name, index.table_oid)
        if note is None:
            dropped.append(Item(index.qualified, "dropped"))
        else:
            left.append(note)
    return dropped, left


def drop(login: Login, schema: str, name: str, table_oid: int) -> Note | None:
    """Drop an index that an interrupted build left; return what stands in the way, or None."""
    try:
        with connect(
            login,
            purpose="index create clean-up",
            lock_timeout_s=_DROP_TIMEOUT_S,
            statement_timeout_s=_DROP_TIMEOUT_S,
        ) as connection:
            try:
                connection.execute(compose("DROP INDEX CONCURRENTLY IF EXISTS {}", identifier(schema, name)))
            except StewardError as exc:
                who = "nobody that could be asked for"
                with contextlib.suppress(StewardError):
                    who = name_hold_ups(hold_ups(connection, table_oid))
                why = f"left by an interrupted build, can't be dropped yet ({exc})"
                return Note(
                    quote_name(schema, name),
                    f"{why}; held up by {who}; the janitor tries again",
                )
    except StewardError as exc:
        return Note(quote_name(schema, name), f"left by an interrupted build, can't be dropped yet ({exc})")
    return None


def _why_not(connection: Connection, each: Required) -> str:
    """Return why an index can't be made safely; empty where it can."""
    if each.definition is None or each.wanted is None:
        return (
            "it is not declared with its table and columns" if not each.index else "it is there, but invalid"
        )
    if each.state == "different" and each.index is not None and each.index.name == each.definition.name:
        return "an index of this name is there, and is another one; the finding says how to replace it"
    if each.state == "invalid" and not (each.index is not None and each.index.is_partitioned):
        return "it is there, but invalid; what mends it stands in the finding"
    if each.violations:
        return f"{each.violations:,} rows share their values"
    if each.not_counted:
        return f"rows that share their values could not be counted: {each.not_counted}"
    table = find_relation(connection, quote_name(each.definition.schema, each.definition.table_name))
    if table is not None and not table.is_owner:
        fix = owner_fix(connection, table.owner, table.qualified)
        return f"only the owner of {table.qualified} may; run: {fix}"
    return ""


def _finish(builder: _Builder, each: Required, ledger: Ledger) -> None:
    """Give an index its name that a run built, which was killed before it could do so."""
    index, definition = each.index, each.definition
    if index is None or definition is None or not index.name.startswith(MARK):
        return
    if ledger.dry_run:
        ledger.change(each.label, "would rename", index=index.qualified)
        return
    try:
        builder.rename(index.schema, index.name, definition.name)
    except StewardError as exc:
        ledger.fail(each.label, f"{index.qualified} could not be given its name: {exc}")
    else:
        ledger.change(each.label, "renamed", index=index.qualified)


def _would(watch: Connection, steps: Sequence[Step]) -> dict[str, Any]:
    oids = {step.table_oid for step in steps if step.build is not None}
    holders = [holder for oid in oids for holder in hold_ups(watch, oid)]
    return {
        "statements": [step.statement for step in steps],
        "held_up_by": [name_hold_ups([holder]) for holder in holders],
    }


def _create(builder: _Builder, label: str, steps: Sequence[Step], ledger: Ledger) -> None:
    began = time.monotonic()
    for number, step in enumerate(steps):
        try:
            builder.run(step)
        except StewardError as exc:
            done = f" ({number} of {len(steps)} statements are done; the next run goes on)" if number else ""
            ledger.fail(label, f"not created: {exc}{done}")
            if builder.watch.closed:
                raise
            return
    made = [step for step in steps if step.makes]
    size = sum(_size(builder.watch, step) for step in made)
    seconds = round(time.monotonic() - began, 3)
    ledger.change(
        label, "created", bytes=size, seconds=seconds, statements=[step.statement for step in steps]
    )
    log.info("%s created: %d bytes in %.1f s", label, size, seconds)


def _size(connection: Connection, step: Step) -> int:
    row = connection.maybe_row(
        "SELECT pg_relation_size(c.oid) AS bytes"
        "  FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %(schema)s AND c.relname = %(name)s",
        {"schema": step.schema, "name": step.makes},
    )
    return int(row["bytes"] or 0) if row else 0
