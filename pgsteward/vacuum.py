"""VACUUM of the tables that were just cleaned: without it no index bloat can be measured.

VACUUM ends with success when it had no right to work: it only warns. Every warning is a failure here, and
success is believed when the server's own clock of the last VACUUM has moved.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from pgsteward import results, sql
from pgsteward.errors import LockTimeout, StewardError
from pgsteward.ledger import Ledger
from pgsteward.postgres import Connection, Row, compose, connect, identifier, operation_lock
from pgsteward.relations import (
    Relation,
    find_table,
    leaves,
    lock_holders,
    maintain_fix,
    name_holder,
    name_holders,
)
from pgsteward.results import Item, StepResult
from pgsteward.targets import Target

log = logging.getLogger(__name__)

STEP = "vacuum"
_LOCK_TIMEOUT_S = 30.0
_POLLS = 10
_POLL_S = 0.2
_MANY_DEAD = 0.05
"""Share of dead rows left by VACUUM from which somebody is worth naming who keeps them."""


def vacuum_tables(
    target: Target, tables: Sequence[str] | None = None, *, dry_run: bool = False
) -> StepResult:
    """VACUUM tables, their indexes included, leaf by leaf.

    Args:
        target: Whose database.
        tables: Qualified names; None means the tables that session cleanup is configured for.
        dry_run: Say what would be vacuumed.

    Raises:
        ConfigError: There is no such table; nothing was changed.
        PreconditionError: Another VACUUM run of pgsteward works on this database.
    """
    names = [entry.table for entry in target.settings.sessions] if tables is None else list(tables)
    if not names:
        return results.skipped(STEP, target.name, "there is no cleaned table: no [[sessions]] is configured")
    login = target.login("maintenance")
    ledger = Ledger(STEP, target.name, dry_run)
    horizon: list[Row] = []
    with (
        operation_lock(login, STEP),
        connect(login, purpose="vacuum", lock_timeout_s=_LOCK_TIMEOUT_S) as connection,
    ):
        found = [find_table(connection, name) for name in dict.fromkeys(names)]
        for leaf in [leaf for table in found for leaf in leaves(connection, table)]:
            if leaf.kind != "r":
                ledger.skip(leaf.qualified, "it is a foreign table")
            elif not leaf.may_vacuum:
                ledger.fail(leaf.qualified, f"no right to VACUUM; run: {maintain_fix(connection, leaf)}")
            else:
                _vacuum(connection, leaf, ledger)
        stuck = [item for item in ledger.changed if item.facts.get("dead_rows_after", 0) > _few(item)]
        if stuck:
            horizon = horizon_holders(connection)
            who = (
                "; ".join(name_horizon_holder(holder) for holder in horizon[:3])
                or "nobody that could be named"
            )
            for item in stuck:
                dead = item.facts["dead_rows_after"]
                ledger.skip(item.object, f"{dead} dead rows can't be removed yet, they are held by: {who}")
    done = f"{ledger.examined} {'table' if ledger.examined == 1 else 'tables'}"
    return ledger.result(
        f"{done} {'would be vacuumed' if dry_run else 'vacuumed'}"
        + (f", {len(ledger.failed)} failed" if ledger.failed else "")
        + (f", dead rows stay in {len(stuck)}" if stuck else ""),
        {"horizon": [{**holder, "name": name_horizon_holder(holder)} for holder in horizon]},
    )


def horizon_holders(connection: Connection) -> list[Row]:
    """Return who keeps dead rows from being removed, oldest first."""
    return connection.rows(sql.load("horizon_holders"))


def name_horizon_holder(holder: Row) -> str:
    """Return who keeps dead rows in one phrase, with how far back it sees."""
    kind = holder["kind"]
    if kind == "session":
        return f"{name_holder(holder)}, {holder['age_xids']} transactions ago"
    what = holder["gid"] or holder["application_name"]
    return f"{kind} {what!r}, {holder['age_xids']} transactions ago"


def _vacuum(connection: Connection, leaf: Relation, ledger: Ledger) -> None:
    started = time.monotonic()
    before = _state(connection, leaf)
    if ledger.dry_run:
        ledger.examined += 1
        ledger.change(
            leaf.qualified, "would vacuum", dead_rows=before["dead_rows"], live_rows=before["live_rows"]
        )
        return
    try:
        with connection.collect_notices() as notices:
            connection.execute(
                compose("VACUUM (INDEX_CLEANUP ON) {}", identifier(leaf.schema, leaf.name)),
            )
    except LockTimeout:
        who = name_holders(lock_holders(connection, leaf.oid))
        ledger.fail(leaf.qualified, f"stayed locked for {_LOCK_TIMEOUT_S:.0f} s by {who}")
        return
    except StewardError as exc:
        if connection.closed:
            raise
        ledger.fail(leaf.qualified, str(exc))
        return
    warnings = [notice.message for notice in notices if notice.severity == "WARNING"]
    if warnings:
        ledger.fail(leaf.qualified, f"{'; '.join(warnings)}; run: {maintain_fix(connection, leaf)}")
        return
    after = _wait_for_the_record(connection, leaf, before)
    if after["last_vacuum"] == before["last_vacuum"]:
        why = "" if after["is_counted"] else "; track_counts is off, turn it on"
        ledger.doubt(leaf.qualified, f"VACUUM ended well, but the server has no record of it{why}")
        return
    ledger.examined += 1
    ledger.change(
        leaf.qualified,
        "vacuumed",
        dead_rows_before=before["dead_rows"],
        dead_rows_after=after["dead_rows"],
        live_rows=after["live_rows"],
        seconds=round(time.monotonic() - started, 3),
    )
    log.info("%s vacuumed, %d dead rows stay", leaf.qualified, after["dead_rows"])


def _wait_for_the_record(connection: Connection, leaf: Relation, before: Row) -> Row:
    """Return the table's counters once its last VACUUM has moved, or as they are after a little while."""
    state = _state(connection, leaf)
    for _ in range(_POLLS):
        if state["last_vacuum"] != before["last_vacuum"]:
            break
        time.sleep(_POLL_S)
        state = _state(connection, leaf)
    return state


def _state(connection: Connection, leaf: Relation) -> Row:
    return connection.row(sql.load("vacuum_state"), {"oid": leaf.oid})


def _few(item: Item) -> float:
    """Return how many dead rows a busy table may keep without anybody being named for it."""
    return max(_MANY_DEAD * float(item.facts["live_rows"]), 100.0)
