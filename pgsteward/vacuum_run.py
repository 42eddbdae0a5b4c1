"""One VACUUM, and whether it did what it was for.

VACUUM ends with success when it had no right to work: it only warns. It warns as well where it did its work
but somebody keeps the oldest transactions. So success is believed when the server's own record of it has
moved, its age too where that was the reason, and a warning is never passed over.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, LiteralString

from pgsteward import sql
from pgsteward.errors import LockTimeout, StewardError
from pgsteward.postgres import Composed, Connection, Part, Row, compose, identifier, join, literal, raw
from pgsteward.relations import GONE, is_gone, lock_holders, maintain_fix, name_holders
from pgsteward.vacuum_plan import Due

log = logging.getLogger(__name__)

Verdict = Literal["vacuumed", "skipped", "locked", "unknown", "failed"]

_BUFFERS_SINCE = 160000
_LOCK_NOT_AVAILABLE = "55P03"
_BARELY_WAIT: LiteralString = "SET LOCAL lock_timeout = '100ms'"
_POLLS = 25
_POLL_S = 0.2
_MANY_DEAD = 0.05
"""Share of dead rows left by VACUUM from which somebody is worth naming who keeps them."""
_FEW_DEAD = 100


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one VACUUM.

    Attributes:
        reason: In words, unless it worked.
        facts: Figures, where it worked.
        stays: What should be gone and is not, in words; empty when nothing stays.
    """

    due: Due
    verdict: Verdict
    reason: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    stays: str = ""


def vacuum(
    connection: Connection, due: Due, limits: tuple[float, float], buffer_bytes: int, *, wait: bool
) -> Outcome:
    """Run one VACUUM.

    Args:
        connection: Its lock timeout is how long a lock is waited for, its statement timeout holds for the
            whole.
        due: What, and why.
        limits: Ages (transactions, multixacts) that it has to come below.
        buffer_bytes: Of shared buffers, where the server can be told.
        wait: For a lock; else the table is left at once, as ``locked``.
    """
    relation = due.relation
    started = time.monotonic()
    try:
        busy = connection.maybe_row(sql.load("table_autovacuum"), {"oid": relation.oid})
        if busy is not None and (busy["is_for_wraparound"] or not due.for_age):
            why = " against wraparound" if busy["is_for_wraparound"] else ""
            reason = f"autovacuum is at it{why} (pid {busy['pid']}, since {busy['since']})"
            return Outcome(due, "skipped", f"{due.reason}; {reason}")
        before = _state(connection, due) if wait else _state_at_once(connection, due)
        if before is None:
            return Outcome(due, "skipped", GONE)
        _freeze_by(connection, limits if due.for_age else None)
        with connection.collect_notices() as notices:
            connection.execute(_statement(connection, due, buffer_bytes, wait=wait))
        warnings = [notice for notice in notices if notice.severity == "WARNING"]
        if any(notice.sqlstate == _LOCK_NOT_AVAILABLE for notice in warnings):
            return Outcome(due, "locked", f"{due.reason}; locked by {_who_locks(connection, due)}")
        after = _wait_for_the_record(connection, due, before)
        # The table and its TOAST table each warn; once is enough to read.
        said = "; ".join(dict.fromkeys(notice.message for notice in warnings))
        if said and after is not None and after["last_vacuum"] == before["last_vacuum"]:
            return Outcome(due, "failed", f"{said}; run: {maintain_fix(connection, relation)}")
    except LockTimeout:
        return Outcome(due, "locked", f"{due.reason}; stayed locked by {_who_locks(connection, due)}")
    except StewardError as exc:
        if connection.closed:
            raise
        if is_gone(connection, relation.oid):
            return Outcome(due, "skipped", GONE)
        return Outcome(due, "failed", f"{due.reason}; {exc}")
    if after is None:
        return Outcome(due, "skipped", GONE)
    if after["last_vacuum"] == before["last_vacuum"]:
        why = "" if after["is_counted"] else "; track_counts is off, turn it on"
        return Outcome(due, "unknown", f"VACUUM ended well, but the server has no record of it{why}")
    facts = {
        "reason": due.reason,
        "dead_rows_before": before["dead_rows"],
        "dead_rows_after": after["dead_rows"],
        "live_rows": after["live_rows"],
        "xid_age_before": before["xid_age"],
        "xid_age_after": after["xid_age"],
        "multixact_age_before": before["multixact_age"],
        "multixact_age_after": after["multixact_age"],
        "bytes_before": before["bytes"],
        "bytes_after": after["bytes"],
        "seconds": round(time.monotonic() - started, 3),
    }
    log.info("%s vacuumed, %d dead rows stay", relation.qualified, after["dead_rows"])
    stays = "; ".join(filter(None, (said, what_stays(due, after, limits))))
    return Outcome(due, "vacuumed", facts=facts, stays=stays)


def what_stays(due: Due, after: Row, limits: tuple[float, float]) -> str:
    """Return what a VACUUM should have removed or frozen and has not; empty when it did its work."""
    stays = []
    if due.for_age and after["xid_age"] >= limits[0]:
        stays.append(f"its oldest transaction is still {after['xid_age']:,} transactions old")
    if due.for_age and after["multixact_age"] >= limits[1]:
        stays.append(f"its oldest multixact is still {after['multixact_age']:,} multixacts old")
    if after["dead_rows"] > max(_MANY_DEAD * after["live_rows"], _FEW_DEAD):
        stays.append(f"{after['dead_rows']:,} dead rows can't be removed yet")
    return ", ".join(stays)


def _statement(connection: Connection, due: Due, buffer_bytes: int, *, wait: bool) -> Composed:
    options: list[Part] = []
    if due.index_cleanup:
        options.append(raw("INDEX_CLEANUP ON"))
    if not wait:
        options.append(raw("SKIP_LOCKED"))
    if connection.server_version >= _BUFFERS_SINCE:
        options.append(compose("BUFFER_USAGE_LIMIT {}", literal(f"{buffer_bytes // 1024} kB")))
    table = identifier(due.relation.schema, due.relation.name)
    return compose("VACUUM ({}) {}", join(", ", options), table) if options else compose("VACUUM {}", table)


def _freeze_by(connection: Connection, limits: tuple[float, float] | None) -> None:
    """Make the next VACUUM freeze what it takes to come below half of the limits, or as the server does."""
    names = ("vacuum_freeze_min_age", "vacuum_multixact_freeze_min_age")
    ages = ("vacuum_freeze_table_age", "vacuum_multixact_freeze_table_age")
    if limits is None:
        for name in (*names, *ages):
            connection.execute(compose("RESET {}", identifier(name)))
        return
    for name, limit in zip(names, limits, strict=True):
        usual = int(connection.value("SELECT current_setting(%(name)s)", {"name": name}))
        lower = str(min(usual, int(limit / 2)))
        connection.rows("SELECT set_config(%(name)s, %(value)s, false)", {"name": name, "value": lower})
    for name in ages:
        connection.rows("SELECT set_config(%(name)s, '0', false)", {"name": name})


def _wait_for_the_record(connection: Connection, due: Due, before: Row) -> Row | None:
    """Return the table's state once its last VACUUM has moved, or as it is after a little while."""
    state = _state(connection, due)
    for _ in range(_POLLS):
        if state is None or state["last_vacuum"] != before["last_vacuum"]:
            break
        time.sleep(_POLL_S)
        state = _state(connection, due)
    return state


def _state(connection: Connection, due: Due) -> Row | None:
    return connection.maybe_row(sql.load("vacuum_state"), {"oid": due.relation.oid})


def _state_at_once(connection: Connection, due: Due) -> Row | None:
    """The same; sizes wait for whoever locks the table, which is left then as SKIP_LOCKED would leave it."""
    with connection.transaction():
        connection.execute(_BARELY_WAIT)
        return _state(connection, due)


def _who_locks(connection: Connection, due: Due) -> str:
    return name_holders(lock_holders(connection, due.relation.oid))
