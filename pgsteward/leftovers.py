"""What an interrupted REINDEX CONCURRENTLY leaves behind: an invalid index that every write maintains.

Before each rebuild a mark is written to disk: which table, which index, which indexes were there. The mark
outlives a killed process; whatever is invalid and was not there before is ours. The name decides nothing but
is checked as well (PostgreSQL cuts it to 63 bytes, and numbers it when it is taken).
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from pgsteward import sql
from pgsteward.errors import DatabaseUnavailable, PreconditionError, StewardError
from pgsteward.hold_ups import hold_ups, name_hold_ups
from pgsteward.places import state_folder
from pgsteward.postgres import Connection, Login, Row, compose, connect, identifier, quote_name
from pgsteward.postgres_lock import operation_lock
from pgsteward.relations import name_holder
from pgsteward.results import Item, Note
from pgsteward.targets import Target

log = logging.getLogger(__name__)

LOCK = "reindex"
"""The operation lock of everything that makes or removes such an index."""

_TRANSIENT_NAME = re.compile(r"_cc(new|old)[0-9]*$")
_DROP_TIMEOUT_S = 5.0
_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Mark:
    """A rebuild that was started.

    Attributes:
        table_oid: The table.
        index_oid: The index that is rebuilt; when the rebuild succeeded but for its last step, this very
            index is left over, and another has taken its name.
        schema: Of the index.
        name: Of the index.
        before: OIDs of all indexes of the table before the rebuild.
        started_at: ISO instant, for people.
        shape: What the index indexes, as ``table_indexes.sql`` has it; "" in marks of older versions.
    """

    table_oid: int
    index_oid: int
    schema: str
    name: str
    before: tuple[int, ...]
    started_at: str = ""
    shape: str = ""


class Marks:
    """The marks of one database, in one small file that is on disk before a rebuild starts."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Mark]:
        """Return the marks; no file means none.

        Raises:
            PreconditionError: The file can't be read; what it guards must not be guessed.
        """
        try:
            entries = json.loads(self.path.read_text())
            return [Mark(**{**entry, "before": tuple(entry["before"])}) for entry in entries]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError, KeyError) as exc:
            raise PreconditionError(
                f"{self.path}: the marks of interrupted rebuilds can't be read ({exc}); look for invalid"
                " indexes with `pgsteward indexes`, then remove the file"
            ) from exc

    def add(self, mark: Mark) -> None:
        """Keep a mark; it is on disk when this returns."""
        self._write([*self.read(), mark])

    def remove(self, mark: Mark) -> None:
        """Forget a mark."""
        self._write([kept for kept in self.read() if kept != mark])

    def _write(self, marks: Iterable[Mark]) -> None:
        try:
            self._put([asdict(mark) for mark in marks])
        except OSError as exc:
            raise PreconditionError(
                f"{self.path}: the mark of a rebuild can't be written ({exc.strerror}), and without it"
                " nobody could clean up after a killed run; make the folder writable, or set XDG_STATE_HOME"
            ) from exc

    def _put(self, entries: list[dict[str, object]]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not entries:
            self.path.unlink(missing_ok=True)
            return
        fresh = self.path.with_suffix(".new")
        with fresh.open("w") as file:
            json.dump(entries, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def marks_of(connection: Connection) -> Marks:
    """Return the marks of the connected database, told apart from every other by cluster and OID."""
    row = connection.row(sql.load("whose_mark"))
    return Marks(state_folder() / "reindex" / f"{row['system_identifier']}-{row['database_oid']}.json")


def make_mark(connection: Connection, table_oid: int, index_oid: int, schema: str, name: str) -> Mark:
    """Return the mark of a rebuild that is about to start."""
    rows = connection.rows(sql.load("table_indexes"), {"oid": table_oid})
    return Mark(
        table_oid=table_oid,
        index_oid=index_oid,
        schema=schema,
        name=name,
        before=tuple(row["oid"] for row in rows),
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        shape=next((row["shape"] for row in rows if row["oid"] == index_oid), ""),
    )


def select_leftovers(mark: Mark, table_indexes: Iterable[Row]) -> list[Row]:
    """Return the indexes of the table that the marked rebuild left behind.

    The unfinished new index was not there before, is invalid, and indexes the same. The finished rebuild's
    old index was there, is invalid now, and a valid one has its name. A valid index is never one of them.

    Args:
        mark: The rebuild.
        table_indexes: All indexes of its table now.
    """
    rows = list(table_indexes)
    has_successor = any(
        row["is_valid"]
        and row["oid"] != mark.index_oid
        and (row["schema"], row["name"]) == (mark.schema, mark.name)
        for row in rows
    )
    return [
        row
        for row in rows
        if not row["is_valid"]
        and _TRANSIENT_NAME.search(row["name"])
        and mark.shape in ("", row["shape"])
        and (row["oid"] not in mark.before or (row["oid"] == mark.index_oid and has_successor))
    ]


def is_transient_name(name: str) -> bool:
    """Tell whether PostgreSQL gives such names to the indexes of a rebuild."""
    return _TRANSIENT_NAME.search(name) is not None


def clean_after(
    login: Login, mark: Mark, *, dry_run: bool = False, timeout_s: float = _DROP_TIMEOUT_S
) -> tuple[list[Item], list[Note]]:
    """Drop what one rebuild left behind, and forget its mark once nothing is left.

    Args:
        login: To the mark's database.
        mark: The rebuild; its process or its statement has ended.
        dry_run: Only say what would be dropped.
        timeout_s: How long a drop may wait for others; what takes longer stays for the next run.

    Returns:
        What was dropped, and what could not be, with who stands in the way.
    """
    dropped: list[Item] = []
    remaining: list[Note] = []
    with _session(login, timeout_s) as connection:
        busy = _wait_until_free(connection, mark.table_oid, timeout_s)
        rows = connection.rows(sql.load("table_indexes"), {"oid": mark.table_oid})
        for row in select_leftovers(mark, rows):
            outcome = _drop(connection, mark.table_oid, row, busy, dry_run=dry_run)
            if isinstance(outcome, Item):
                dropped.append(outcome)
            else:
                remaining.append(outcome)
        if not remaining and not dry_run:
            marks_of(connection).remove(mark)
    return dropped, remaining


def drop_marked(login: Login, *, dry_run: bool = False) -> tuple[list[Item], list[Note]]:
    """Drop what earlier rebuilds of pgsteward left behind; the caller holds the operation lock."""
    with connect(login, purpose="reindex clean-up", statement_timeout_s=30) as connection:
        marks = marks_of(connection).read()
    dropped: list[Item] = []
    remaining: list[Note] = []
    for mark in marks:
        done, left = clean_after(login, mark, dry_run=dry_run)
        dropped += done
        remaining += left
    return dropped, remaining


def drop_leftovers(target: Target, *, dry_run: bool = False) -> tuple[list[Item], list[Note]]:
    """Finish what killed or cancelled rebuilds left, for the janitor.

    Only what carries our mark is dropped; with ``adopt_orphans`` also what is dead, has the name that a
    rebuild gives, and indexes the same as a valid index beside it. Others that look like leftovers are named,
    never touched; one that somebody is building at this moment is not a leftover.

    Args:
        target: Whose database.
        dry_run: Only say what would be dropped.

    Returns:
        What was dropped, and notes on what was left and why.
    """
    login = target.login("maintenance")
    try:
        with operation_lock(login, LOCK):
            dropped, notes = drop_marked(login, dry_run=dry_run)
            known = {item.object for item in dropped} | {note.object for note in notes}
            with _session(login, _DROP_TIMEOUT_S) as connection:
                for row in connection.rows(sql.load("invalid_indexes")):
                    is_idle = row["kind"] == "i" and row["busy_pid"] is None
                    name = quote_name(row["schema"], row["name"])
                    if name in known or not is_idle or not is_transient_name(row["name"]):
                        continue
                    adopt = target.settings.reindex.adopt_orphans and _has_twin(connection, row)
                    outcome = (
                        _drop(connection, row["table_oid"], row, None, dry_run=dry_run) if adopt else None
                    )
                    if isinstance(outcome, Item):
                        dropped.append(outcome)
                    else:
                        advice = f"if nobody needs it: DROP INDEX CONCURRENTLY {name};"
                        notes.append(outcome or Note(name, f"invalid, and not known to be ours; {advice}"))
    except PreconditionError as exc:
        return [], [Note(target.database, f"leftovers of rebuilds were not looked for: {exc}")]
    return dropped, notes


def _session(login: Login, timeout_s: float) -> Connection:
    return connect(login, purpose="reindex clean-up", lock_timeout_s=timeout_s, statement_timeout_s=timeout_s)


def _has_twin(connection: Connection, orphan: Row) -> bool:
    """Tell whether a valid index beside an invalid one indexes the same, as that of a dead rebuild does."""
    rows = connection.rows(sql.load("table_indexes"), {"oid": orphan["table_oid"]})
    shape = next((row["shape"] for row in rows if row["oid"] == orphan["oid"]), None)
    return any(row["is_valid"] and row["shape"] == shape for row in rows)


def _drop(
    connection: Connection, table_oid: int, row: Row, busy: str | None, *, dry_run: bool
) -> Item | Note:
    """Drop one leftover, or say why that can't be done yet.

    Args:
        connection: With a short timeout: what takes longer stays for the next run.
        table_oid: Its table.
        row: The index.
        busy: Who works on the table now.
        dry_run: Only say what would be dropped.
    """
    name = quote_name(row["schema"], row["name"])
    if busy is not None:
        return Note(name, f"left by an interrupted rebuild; {busy} works on its table now")
    size = _size(connection, row["oid"])
    if dry_run:
        return Item(name, "would drop", {"bytes": size})
    try:
        connection.execute(compose("DROP INDEX CONCURRENTLY {}", identifier(row["schema"], row["name"])))
    except StewardError as exc:
        if connection.closed:
            raise
        who = name_hold_ups(hold_ups(connection, table_oid))
        reason = f"left by an interrupted rebuild, can't be dropped yet ({exc}); held up by {who}"
        return Note(name, reason)
    log.info("%s dropped: an interrupted rebuild had left it", name)
    return Item(name, "dropped", {"bytes": size})


def _wait_until_free(connection: Connection, table_oid: int, timeout_s: float) -> str | None:
    """Wait until no session builds on or vacuums the table; return who still does after the time."""
    deadline = time.monotonic() + timeout_s
    while True:
        row = connection.maybe_row(sql.load("table_worker"), {"oid": table_oid})
        if row is None:
            return None
        if time.monotonic() > deadline:
            return name_holder(row)
        time.sleep(_POLL_S)


def _size(connection: Connection, oid: int) -> int:
    try:
        return int(connection.value("SELECT pg_relation_size(%(oid)s::int8::oid)", {"oid": oid}) or 0)
    except DatabaseUnavailable:
        raise
    except StewardError:
        return 0
