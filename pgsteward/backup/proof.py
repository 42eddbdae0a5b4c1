"""The proof: what a restored copy must equal, table by table. `docs/adr/0003-proof.md` says why it is so.

Each row is hashed by a function that mixes (so that swapped cells don't cancel out), and summed under two
seeds (so that the order does not matter, and duplicates do); `proof_hash` says how.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from typing import Any

from pgsteward import postgres
from pgsteward.backup import manifest, proof_hash
from pgsteward.backup.filters import Part
from pgsteward.backup.manifest import Configuration, LargeObjects, Proof, ProofLevel, Relation
from pgsteward.backup.proof_bound import NOT_REACHED, Bound
from pgsteward.backup.proof_counts import count_small
from pgsteward.backup.proof_gaps import DROPPED, LEFT_OUT, NO_SELECT, NOT_POPULATED, REWRITTEN, UNLOGGED
from pgsteward.backup.proof_hash import METHOD, refuse_unknown
from pgsteward.backup.proof_large_objects import examine_large_objects
from pgsteward.backup.proof_shares import cut
from pgsteward.backup.proof_watch import queue, watched
from pgsteward.errors import LockTimeout, QueryFailed, TransientError
from pgsteward.postgres import Composed, Connection, Login, Row
from pgsteward.progress import Progress, silent
from pgsteward.sql import load
from pgsteward.workers import share_out

GROUP = 500
"""Locks of one transaction, on tables and indexes: the lock table is shared with the application."""

SETTINGS = {
    "search_path": "",
    "row_security": "off",  # an error rather than a part of the rows
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "xmloption": "content",
    "lc_monetary": "C",
    "quote_all_identifiers": "off",
    "jit": "off",
    "max_parallel_workers_per_gather": "0",  # the application's workers stay the application's
    "idle_in_transaction_session_timeout": "0",
}
"""Everything the text form of a value depends on, pinned."""

_NO_RIGHT = "42501"
_FATAL = frozenset({_NO_RIGHT, "25P02"})
"""Missing rights and hidden rows are the whole backup's problem; so are resources (53) and the admin (57)."""
_LACKING = frozenset({"42P01", "42704", "42883"})
_DROPPED = frozenset({"42P01", "3F000", "42703"})


def take_proof(
    login: Login,
    level: ProofLevel,
    *,
    snapshot_id: str | None,
    method: str = METHOD,
    max_seconds: float | None = None,
    progress: Progress = silent,
    still_wanted: Callable[[], None] | None = None,
    lock_timeout_s: float = 60.0,
    relations: Sequence[Row] | None = None,
    part: Part | None = None,
    row_security: bool = False,
    sessions: int = 1,
) -> Proof:
    """Count and hash every table and every large object.

    Sequences and the schema's hash are not filled in: a backup takes them from the archive
    (`pgsteward.backup.archive`), a restored database is asked by `read_sequences`.

    Args:
        login: The database.
        level: ``full``, ``counts`` or ``none``.
        snapshot_id: An exported snapshot to read in; None reads each group of tables in one of its own.
        method: How rows are hashed; for a comparison, that of the other proof.
        max_seconds: After so long, what is left is listed as not examined. The smallest tables come first
            then, so that most are examined; without a bound the largest do, as pg_dump reads them.
        progress: Is told every table.
        still_wanted: Called several times a second; what it raises ends the proof, also in mid-statement.
        lock_timeout_s: How long one table's lock is waited for.
        relations: What `list_relations` returned in this snapshot, where it was asked already.
        part: What a filtered dump holds; None where it holds everything.
        row_security: Examine the rows that this role may see, instead of refusing where policies hide some.
        sessions: Read so many tables at the same time; large objects are read by one.

    Raises:
        TransientError: The snapshot is gone; without one, a table was dropped or locked meanwhile.
        QueryFailed: Rights are missing, or row-level security would hide rows.
        PreconditionError: The method is one of a newer version.
    """
    started = time.monotonic()
    if level == "none":
        return Proof(level="none", method=method)
    refuse_unknown(method)
    bound = Bound.after(max_seconds)

    def connect() -> Connection:
        return postgres.connect(
            login,
            purpose="proof",
            lock_timeout_s=lock_timeout_s,
            settings={**SETTINGS, "row_security": "on" if row_security else "off"},
        )

    with connect() as connection, watched(connection, still_wanted):
        vector = proof_hash.test_vector(connection) if level == "full" and method == METHOD else {}
        with connection.snapshot(snapshot_id):
            if relations is None:
                relations = list_relations(connection, level)
            on_standby = bool(connection.value("SELECT pg_is_in_recovery()"))
        dumped = [row for row in relations if _is_dumped(row, part)]
        todo = [{**row, "why_not": _why_not(row, part, on_standby)} for row in dumped]
        todo = _in_order(todo, connection, bound)
        told = count()

        def read(session: Connection, share: Sequence[Row]) -> list[Relation]:
            reader = _Reader(
                session,
                level,
                method,
                snapshot_id,
                bound,
                lambda what, *_: progress(what, next(told), len(todo)),
            )
            done: list[Relation] = []
            while len(done) < len(share):
                done += reader.group(share, len(done))
            return done

        if sessions > 1:
            read_ones = share_out(cut(todo, sessions, GROUP), sessions, connect, read)
        else:
            read_ones = [read(connection, todo)]
        large_objects = LargeObjects(count=0)
        if part is None or part.everything:
            with connection.snapshot(snapshot_id):
                large_objects = examine_large_objects(connection, level, method, bound, progress)
    return Proof(
        level=level,
        method=method,
        test_vector=vector,
        **_sorted_out(sorted(chain.from_iterable(read_ones), key=lambda relation: relation.key)),
        large_objects=large_objects,
        seconds=round(time.monotonic() - started, 3),
    )


def list_relations(session: Connection, level: ProofLevel) -> list[Row]:
    """Return every table, materialized view and foreign table, with what a proof of this level asks of it."""
    return session.rows(load("proof_relations"), {"with_columns": level == "full"})


def take_proof_of(connection: Connection, rows: Sequence[Row], level: ProofLevel, method: str) -> Proof:
    """Count and hash some relations as the session sees them now, rows of its own transaction too.

    Args:
        connection: To their database, with `SETTINGS`.
        rows: Of `list_relations`.
        level: See `take_proof`.
        method: See `take_proof`.
    """
    refuse_unknown(method)
    hashed = level == "full" and method == METHOD
    return Proof(
        level=level,
        method=method,
        test_vector=proof_hash.test_vector(connection) if hashed else {},
        **_sorted_out([examine(connection, row, level, method) for row in rows]),
        large_objects=LargeObjects(count=0),
    )


def read_sequences(login: Login) -> tuple[manifest.Sequence, ...]:
    """Return the position of every sequence as it is now (sequences know no snapshots)."""
    positions: list[manifest.Sequence] = []
    with postgres.connect(login, purpose="proof") as connection:
        found = connection.rows(load("proof_sequences"))
        for start in range(0, len(found), GROUP):
            group = found[start : start + GROUP]
            parts = [
                postgres.compose_file(
                    "proof_sequence_position",
                    number=postgres.literal(number),
                    sequence=postgres.identifier(row["schema_name"], row["name"]),
                )
                for number, row in enumerate(group)
            ]
            for row in connection.rows(postgres.join(" UNION ALL ", parts)):
                positions.append(
                    manifest.Sequence(
                        schema_name=group[row["number"]]["schema_name"],
                        name=group[row["number"]]["name"],
                        last_value=row["last_value"],
                        is_called=row["is_called"],
                    )
                )
    return tuple(sorted(positions, key=lambda each: (each.schema_name, each.name)))


def _is_dumped(row: Row, part: Part | None) -> bool:
    """Tell whether a relation is the dump's business, its rows or at least its definition."""
    if row["kind"] == "f":
        return False
    if row["extension_name"] is not None:
        return row["condition"] is not None and (part is None or not part.choice.is_strangers(row))
    return part is None or row["oid"] in part.defined


def _sorted_out(found: Sequence[Relation]) -> dict[str, Any]:
    """Return the fields of a proof that its relations go to."""
    return {
        "relations": tuple(each for each in found if not isinstance(each, Configuration)),
        "configuration": tuple(each for each in found if isinstance(each, Configuration)),
    }


def _why_not(row: Row, part: Part | None, on_standby: bool) -> str | None:
    """Return why a relation that is in the dump can't or need not be read; None where it must."""
    if part is not None and not part.holds(row):
        return LEFT_OUT
    return UNLOGGED if row["unlogged"] and on_standby else None


def _in_order(todo: list[Row], connection: Connection, bound: Bound) -> list[Row]:
    """Put the largest first, as pg_dump reads them: one finds them in memory. Bounded, the smallest."""
    if bound.until is None:
        return sorted(todo, key=lambda row: -row["pages"])
    found = connection.rows(load("proof_sizes"), {"oids": [row["oid"] for row in todo]})
    pages: Mapping[int, int] = {row["oid"]: row["pages"] for row in found}
    return sorted(todo, key=lambda row: pages.get(row["oid"], 0))


@dataclass(frozen=True, slots=True)
class _Reader:
    """Examines relations in groups, each in one transaction."""

    connection: Connection
    level: ProofLevel
    method: str
    snapshot_id: str | None
    bound: Bound
    progress: Progress
    counted: dict[int, int] = field(default_factory=dict)

    def group(self, todo: Sequence[Row], start: int) -> list[Relation]:
        """Examine relations as long as their locks are fewer than `GROUP`; an error ends the group early."""
        if self.bound.reached:
            return [_relation(row, not_examined=NOT_REACHED) for row in todo[start:]]
        done: list[Relation] = []
        if self.level == "counts" and self.bound.until is None:
            self.counted.update(count_small(self.connection, self.snapshot_id, todo[start:], GROUP))
        locks, locked = 0, ""
        with self.connection.snapshot(self.snapshot_id):
            for number, row in enumerate(todo[start:], start):
                locks += 1 + row["index_count"]
                if (done and locks > GROUP) or self.bound.reached:
                    return self._less_rewritten(todo[start:], done)
                self.progress(
                    f"proving {postgres.quote_name(row['schema_name'], row['name'])}", number, len(todo)
                )
                try:
                    self.bound.limit(self.connection)
                    done.append(self._examine(row))
                except QueryFailed as exc:
                    done.append(_relation(row, not_examined=self._why_failed(row, exc)))
                    break  # the transaction is aborted: the next group imports the snapshot again
                except LockTimeout as exc:
                    if self.snapshot_id is None:
                        raise
                    locked = str(exc)
                    break
            else:
                return self._less_rewritten(todo[start:], done)
        with self.connection.snapshot(self.snapshot_id):
            if locked:  # by somebody who waits behind pg_dump, which goes on
                row = todo[start + len(done)]
                done.append(_relation(row, not_examined=f"{locked}; {queue(self.connection, row['oid'])}"))
            return self._less_rewritten(todo[start:], done)

    def _why_failed(self, row: Row, error: QueryFailed) -> str:
        """Return why one relation could not be examined; an error that is not its own is raised."""
        state = error.sqlstate
        if state == _NO_RIGHT and row["kind"] == "m":
            return NO_SELECT
        if self.bound.ended(error):
            return NOT_REACHED
        if state in _LACKING and " function " in str(error):
            return f"{error}: it relies on search_path, and a restore has none; ALTER FUNCTION ... SET"
        if state in _DROPPED and self.snapshot_id is not None:
            return DROPPED  # pg_dump had locked it
        if state in _DROPPED:
            raise TransientError(f"a table changed under the snapshot: {error}") from error
        if state is None or state in _FATAL or state[:2] in {"53", "57"}:
            raise error
        return str(error)

    def _less_rewritten(self, todo: Sequence[Row], done: list[Relation]) -> list[Relation]:
        """Return relations with what was read too late marked as not examined.

        A TRUNCATE that waited behind pg_dump is served at its end, before a proof that came later. Every
        snapshot sees such a table empty.
        """
        if self.snapshot_id is None:
            return done
        if self.bound.until is not None:
            self.connection.execute("SET LOCAL statement_timeout = 0")  # this one has to be answered
        examined = todo[: len(done)]
        rows = self.connection.rows(load("rewritten"), {"oids": [row["oid"] for row in examined]})
        too_late = {row["oid"] for row in rows}
        return [
            _relation(row, not_examined=REWRITTEN)
            if row["oid"] in too_late and relation.not_examined is None
            else relation
            for row, relation in zip(examined, done, strict=True)
        ]

    def _examine(self, row: Row) -> Relation:
        if row["why_not"] is not None:
            return _relation(row, not_examined=row["why_not"])
        return examine(
            self.connection, row, self.level, self.method, counted=self.counted.pop(row["oid"], None)
        )


def examine(
    connection: Connection, row: Row, level: ProofLevel, method: str, *, counted: int | None = None
) -> Relation:
    """Count and hash one relation, in whatever transaction the session is in; `SETTINGS` are its own.

    Args:
        connection: To its database.
        row: One of ``proof_relations``.
        level: ``full`` or ``counts``.
        method: How rows are hashed.
        counted: Its rows, where they were counted already and no hash is wanted.
    """
    rows = _rows(row)
    if not row["populated"]:
        return _relation(row, not_examined=NOT_POPULATED)
    if level == "counts" or row["kind"] == "m" or not row["column_names"]:
        if counted is None:
            counted = connection.value(postgres.compose_file("proof_count", table=rows))
        return _relation(row, rows=counted)
    hashes: dict[str, str] = {}
    for prefix, (names, types) in proof_hash.kinds_of_columns(method, row).items():
        found = connection.row(proof_hash.hash_statement(method, rows, names, types))
        hashes |= {f"{prefix}_a": found["hash_a"], f"{prefix}_b": found["hash_b"]}
    return _relation(row, rows=found["row_count"], **hashes)


def _rows(row: Row) -> Composed:
    """Return those rows of a relation that are dumped, as they stand in FROM before an alias."""
    table = postgres.identifier(row["schema_name"], row["name"])
    if not row["condition"]:
        return postgres.compose("ONLY {}", table)
    return postgres.compose("(SELECT * FROM {} {})", table, postgres.as_written(row["condition"]))


def _relation(
    row: Row, rows: int | None = None, not_examined: str | None = None, **hashes: str | None
) -> Relation:
    found = {
        **{key: row[key] for key in ("schema_name", "name", "kind")},
        "rows": rows,
        "not_examined": not_examined,
        **hashes,
    }
    if row["extension_name"] is None:
        return Relation(**found)
    return Configuration(extension=row["extension_name"], condition=row["condition"] or "", **found)
