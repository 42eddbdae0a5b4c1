"""The walk through one table: range after range of its heap, each range a transaction of its own.

Every row has a place: the number of its page and its number within the page. Places are counted through, so
that a range may be thousands of pages wide or a single row, whatever fits into a moment.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, LiteralString

from pgsteward.errors import DatabaseUnavailable, LockTimeout, QueryFailed
from pgsteward.postgres import Connection, Part, compose, identifier, literal, raw
from pgsteward.relations import Relation, is_read_only, lock_holders, name_holders
from pgsteward.session_checks import Cleanup
from pgsteward.session_pace import Pace, Watch
from pgsteward.session_references import Cascades

log = logging.getLogger(__name__)

LOCK_TIMEOUT_S = 0.1
_CANCELLED = "57014"
_REFUSED = ("23", "P0")
"""Constraints (a foreign key of another table), and exceptions that triggers raise."""
_MANY_REFUSED = 100
"""Single rows that were refused, after which a table is given up."""
_TRIES = 3
_PAUSE_S = 0.3
_GIVE_UP_AFTER = 5
"""Blocked ranges in a row after which the rest of a table is left for the next run."""
_REST = 5.0
"""Times as long as a batch took, where others write or wait: they have most of the time for themselves."""
_FIRST_PAGES = 32
_SLOW_ROW: LiteralString = "SET LOCAL statement_timeout = '5min'"
"""For a single row that takes longer (with all that it takes along) than a batch should."""

_RANGE: LiteralString = "ctid >= %(first)s::tid AND ctid < %(end)s::tid AND {expired}"
_COUNT: LiteralString = "SELECT count(*) FROM ONLY {leaf} WHERE {range}"
_DELETE: LiteralString = "DELETE FROM ONLY {leaf} WHERE {range}"
_DELETE_SOME: LiteralString = (
    "DELETE FROM ONLY {leaf} WHERE ctid = ANY (ARRAY("
    "SELECT ctid FROM ONLY {leaf} WHERE {range}{limit}{unlocked})) AND {expired}"
)
_UNLOCKED: LiteralString = " FOR UPDATE SKIP LOCKED"
"""Passes over rows that others have locked; many times slower, and needs the right to UPDATE."""

Outcome = Literal["done", "passed", "locked", "undone"]
"""Of a batch: all of it; all but what others have locked; nothing, for it is locked; undone, too wide."""


@dataclass(slots=True)
class Tally:
    """What came of the walk through one leaf.

    Attributes:
        rows: Deleted; in a dry run counted.
        longest_s: The longest batch, its commit included.
        paused_s: For others.
        pages: How far it came, and of how many.
        locked_rows: Rows that stay because others have locked them.
        locked_by: Whoever locked them.
        stopped: Why the walk ended before its end; empty when it didn't.
        gave_up: That was because everything stayed locked.
        refused_rows: Rows that can't be deleted by themselves: others need them, or a trigger says no.
        refusal: What the server said of the last one.
    """

    rows: int = 0
    batches: int = 0
    longest_s: float = 0.0
    paused_s: float = 0.0
    pages: tuple[int, int] = (0, 0)
    locked_rows: int = 0
    locked_by: str = ""
    stopped: str = ""
    gave_up: bool = False
    refused_rows: int = 0
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Span:
    """Places, first included, end excluded."""

    first: int
    end: int

    @property
    def width(self) -> int:
        """How many."""
        return self.end - self.first


@dataclass(slots=True)
class Walk:
    """One leaf on its way to be clean.

    Attributes:
        connection: Its statements are ended by the server after `limit_s`.
        most_rows: To be deleted at most; None means all.
        deadline: Of `time.monotonic`.
        watch: Whether others wait; None in a dry run, which only counts.
        cascades: Counts what foreign keys take along; None where they take nothing.
        progress: Told about pages.
        tally: What came of it so far, also when an error ends the walk.
    """

    connection: Connection
    cleanup: Cleanup
    leaf: Relation
    limit_s: float
    most_rows: int | None
    deadline: float
    watch: Watch | None
    cascades: Cascades | None
    progress: Callable[[int, int], None]
    tally: Tally = field(default_factory=Tally)
    _per_page: int = 1

    def run(self) -> None:
        """Delete what has expired, or count it.

        Raises:
            StewardError: The walk ended early; what was deleted until then is in the tally.
        """
        size = self.connection.row(
            "SELECT pg_relation_size(%(oid)s::int8::oid) AS bytes,"
            "       current_setting('block_size')::int AS page",
            {"oid": self.leaf.oid},
        )
        self._per_page = places_per_page(size["page"])
        pages = int(size["bytes"] or 0) // int(size["page"])
        self.tally.pages = (0, pages)
        settings = self.cleanup.settings
        pace = Pace(
            aim_s=settings.batch_ms / 1000,
            most=settings.batch_pages * self._per_page,
            width=min(_FIRST_PAGES, settings.batch_pages) * self._per_page,
        )
        locked = self._sweep(Span(0, pages * self._per_page), pace)
        still: list[Span] = []
        for span in locked:  # once more: locks of the application are short
            still += [span] if self.tally.stopped else self._sweep(span, pace)
        if not self.tally.stopped:
            self.tally.locked_rows = sum(self._number(span) for span in still)

    def _sweep(self, whole: Span, pace: Pace) -> list[Span]:
        """Go through a span, batch after batch, and return what of it was locked."""
        locked: list[Span] = []
        in_a_row, place = 0, whole.first
        while place < whole.end:
            self._reached(place)
            self.tally.stopped = self._why_stop()
            if in_a_row == _GIVE_UP_AFTER:
                self.tally.gave_up = True
                self.tally.stopped = f"everything stayed locked by {self.tally.locked_by}"
            if self.tally.stopped:
                return locked
            span = Span(place, min(place + pace.width, whole.end))
            outcome = self._batch(span, pace)
            if outcome == "undone":
                continue
            if outcome != "done":
                locked.append(span)
            in_a_row = in_a_row + 1 if outcome == "locked" else 0
            place = span.end
        self._reached(place)
        return locked

    def _reached(self, place: int) -> None:
        done, pages = self.tally.pages
        self.tally.pages = (max(done, place // self._per_page), pages)
        self.progress(*self.tally.pages)

    def _why_stop(self) -> str:
        settings = self.cleanup.settings
        if self.most_rows is not None and self.tally.rows >= self.most_rows:
            return f"max_rows = {settings.max_rows} is reached"
        if time.monotonic() >= self.deadline:
            return f"max_minutes = {settings.max_minutes:g} are over"
        if self.watch is None:
            return ""
        paused_s = self.watch.wait_for_replicas(settings.max_replica_lag_bytes, self.deadline)
        if paused_s is None:
            return (
                f"replica {self.watch.replica!r} stayed {self.watch.lag_bytes / 1e6:,.0f} MB behind"
                f" until max_minutes = {settings.max_minutes:g} were over"
            )
        self.tally.paused_s += paused_s
        return ""

    def _batch(self, span: Span, pace: Pace) -> Outcome:
        """Do one range; only where it is locked the slower form goes around the locked rows."""
        outcome: Outcome = "locked"
        for attempt in range(_TRIES):
            if attempt:
                time.sleep(_PAUSE_S)
            outcome = self._attempt(span, pace)
            if outcome == "locked":
                holders = lock_holders(self.connection, self.leaf.oid)
                self.tally.locked_by = name_holders(holders)
                if self.watch is not None and self.leaf.oid in self.cleanup.locks_rows:
                    outcome = self._attempt(span, pace, around=True)
            if outcome != "locked":
                break
        return outcome

    def _attempt(self, span: Span, pace: Pace, *, around: bool = False) -> Outcome:
        began = time.monotonic()
        try:
            rows = self._execute(span, around=around)
        except LockTimeout:
            return "locked"
        except DatabaseUnavailable:  # a deadlock is one of these too, and leaves the session alive
            if self.connection.closed or is_read_only(self.connection):
                raise
            return "locked"
        except QueryFailed as exc:
            is_refused = exc.sqlstate is not None and exc.sqlstate.startswith(_REFUSED)
            is_slow = exc.sqlstate == _CANCELLED and time.monotonic() - began >= self.limit_s
            if span.width > 1 and (is_refused or is_slow):  # an operator's cancel comes sooner than ours
                pace.shrink(span.width)
                return "undone"
            if not is_refused or self.tally.refused_rows == _MANY_REFUSED:
                raise
            self.tally.refused_rows += 1
            self.tally.refusal = str(exc)
            pace.adapt(span.width, 0)
            return "done"
        took_s = time.monotonic() - began
        self.tally.rows += rows
        self.tally.batches += 1
        self.tally.longest_s = max(self.tally.longest_s, took_s)
        is_waited_for = self.watch is not None and self.watch.was_waited_for()
        if is_waited_for:
            pace.adapt(span.width, 2 * took_s)
        elif not around:
            pace.adapt(span.width, took_s)
        if self.watch is not None and (is_waited_for or self.watch.others_write):
            rest_s = _REST * min(took_s, self.limit_s)
            time.sleep(rest_s)
            self.tally.paused_s += rest_s
        return "passed" if around else "done"

    def _execute(self, span: Span, *, around: bool) -> int:
        """Run one batch in a transaction of its own and return its rows."""
        room = None if self.most_rows is None else self.most_rows - self.tally.rows
        if self.watch is None:
            found = self._number(span)
            return found if room is None else min(found, room)
        limited = room is not None and room < span.width
        statement = compose(
            _DELETE_SOME if around or limited else _DELETE,
            **self._parts(),
            limit=compose(" LIMIT {}", literal(room)) if limited else raw(""),
            unlocked=raw(_UNLOCKED) if around else raw(""),
        )
        params = self._params(span)
        if self.cascades is None and span.width > 1:
            return self.connection.execute(statement, params)
        with self.connection.transaction():
            if span.width == 1:
                self.connection.execute(_SLOW_ROW)
            before = self.cascades.read(self.connection) if self.cascades else {}
            rows = self.connection.execute(statement, params)
            after = self.cascades.read(self.connection) if self.cascades else {}
        if self.cascades:
            self.cascades.add(before, after, (self.leaf.oid, rows))
        return rows

    def _number(self, span: Span) -> int:
        return int(self.connection.value(compose(_COUNT, **self._parts()), self._params(span)))

    def _parts(self) -> dict[str, Part]:
        expired = self.cleanup.expired()
        leaf = identifier(self.leaf.schema, self.leaf.name)
        return {"leaf": leaf, "expired": expired, "range": compose(_RANGE, expired=expired)}

    def _params(self, span: Span) -> dict[str, object]:
        first, end = (
            f"({place // self._per_page},{place % self._per_page})" for place in (span.first, span.end)
        )
        return {**self.cleanup.params(), "first": first, "end": end}


def places_per_page(page_bytes: int) -> int:
    """Return how many rows a page can hold, and one more: rows are numbered from 1.

    A row takes at least 24 bytes, and 4 in the page's list of rows.
    """
    return page_bytes // 28 + 1
