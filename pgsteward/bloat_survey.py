"""One look at the indexes and tables of a database: what can be measured, and who says why the rest can't."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from pgsteward.bloat_catalog import (
    Catalog,
    counters_are_lost,
    dead_rows,
    has_own_count,
    hides_bloat,
    read_columns,
    read_partial_count,
    read_widths,
    why_excluded,
)
from pgsteward.bloat_census import Census, Index, Method, Table, is_bloated, may_rebuild, megabytes, way_out
from pgsteward.bloat_estimates import Columns, rows_per_merged_key
from pgsteward.bloat_measures import Meter
from pgsteward.bloat_order import Budget, Candidate, Memory, rank
from pgsteward.config import IndexBloatConfig
from pgsteward.errors import LockTimeout, QueryFailed
from pgsteward.horizon import holders_for, horizon_holders, name_horizon_holder
from pgsteward.ledger import Ledger
from pgsteward.postgres import Connection, Row, quote_name
from pgsteward.progress import Progress
from pgsteward.relations import current_role, is_excluded, is_gone, lock_holders, name_holders

QUERY_TIMEOUT_S = 60.0
"""For each question to the catalogs; a measure has what is left of ``measure_minutes``."""
_CANCELED = "57014"
_GONE = "it was dropped or rebuilt meanwhile"


@dataclass(slots=True)
class Survey:
    """One look at a database, while it is taken.

    Attributes:
        ledger: Counts indexes as examined, not tables.
        memory: What earlier runs have seen; without it this is always the first one.
        is_full: See `pgsteward.index_bloat.take_census`.
        measured: Indexes, exactly or by their own history.
        widths: Average bytes of a row's values in large tables, by OID.
        dead_rows: Dead and live rows of the tables that were measured, by OID.
    """

    connection: Connection
    catalog: Catalog
    settings: IndexBloatConfig
    ledger: Ledger
    progress: Progress
    memory: Memory | None
    is_full: bool
    measured: list[Index] = field(default_factory=list)
    estimated: list[Index] = field(default_factory=list)
    tables: dict[int, Table] = field(default_factory=dict)
    widths: dict[int, float | None] = field(default_factory=dict)
    dead_rows: dict[int, tuple[int, int]] = field(default_factory=dict)
    time_limit_s: float = QUERY_TIMEOUT_S
    small: int = 0
    left: int = 0

    def take(self) -> None:
        """Look at everything that is large enough and can be looked at."""
        found = self._large_enough()
        columns = read_columns(self.connection, self.catalog, [r for r in found if r["method"] == "btree"])
        trees = {row["oid"]: row for row in found if row["oid"] in columns}
        meter = Meter(self.connection, self.catalog.block_size)
        if meter.why_not is not None:
            if trees:
                self.ledger.doubt(self.connection.dbname, meter.why_not)
            for oid, row in trees.items():
                self._estimate(row, columns[oid])
        else:
            candidates = [self._candidate(row, columns[oid]) for oid, row in trees.items()]
            if meter.why_no_tables is None:
                candidates += self._heap_candidates({row["table_oid"] for row in found})
            elif self.is_full:
                self.ledger.doubt(self.connection.dbname, meter.why_no_tables)
            self._measure(meter, rank(candidates), trees, columns)
        for row in found:
            if row["method"] != "btree":
                self._compare(row)
            elif row["oid"] not in columns:
                self.ledger.skip(row["qualified"], _GONE)
        self._doubt_what_dead_rows_hide()
        if not self.catalog.indexes:
            self.ledger.doubt(self.connection.dbname, "there is no index in this database")

    def census(self) -> Census:
        """Return what was found."""
        measured, estimated = _by_gain(self.measured), _by_gain(self.estimated)
        sizes = self.catalog.sizes
        return Census(
            measured=measured,
            bloated=_by_gain([i for i in (*measured, *estimated) if may_rebuild(i, self.settings)]),
            suspected=tuple(
                i for i in estimated if is_bloated(i, self.settings) and not may_rebuild(i, self.settings)
            ),
            total=len(self.catalog.indexes),
            total_bytes=sum(sizes.get(row["oid"]) or 0 for row in self.catalog.indexes),
            small=self.small,
            estimated=estimated,
            left=self.left,
            tables=tuple(sorted(self.tables.values(), key=lambda t: (-t.reclaimable_bytes, t.name))),
        )

    def _large_enough(self) -> list[Row]:
        """Return the indexes to look at; the others are in the ledger, with the reason."""
        found, small_bytes = [], 0
        for row in self.catalog.indexes:
            name = row["qualified"]
            heap = self.catalog.heaps.get(row["table_oid"])
            size = self.catalog.sizes.get(row["oid"])
            if heap is None or (size is None and row["oid"] in self.catalog.sizes):
                self.ledger.skip(name, _GONE)
                continue
            reason = why_excluded(row, heap, self.settings.exclude, is_standby=self.catalog.is_standby)
            if reason is not None:
                self.ledger.skip(name, reason)
            elif size is None:
                self.ledger.doubt(
                    name, f"not looked at: its size can't be read, {self._who_locks(row['table_oid'])}"
                )
            elif size < self.smallest:
                self.small += 1
                small_bytes += size
            else:
                found.append(row)
        if self.small:
            self.ledger.skip(
                f"{self.small} indexes",
                f"smaller than {megabytes(self.smallest)}, too small to matter;"
                f" together {megabytes(small_bytes)}",
            )
        return found

    def _candidate(self, row: Row, columns: Columns) -> Candidate:
        size = self._size(row["oid"])
        needed, _ = self.catalog.needed_bytes(row, columns)
        return self._with_past(Candidate(row["oid"], row["qualified"], size, size - needed))

    def _heap_candidates(self, indexed: set[int]) -> list[Candidate]:
        """Return the tables to look at: bloated ones, perhaps, and those whose dead rows may hide bloat.

        The server's counters of dead rows are gone after a crash, and wrong where VACUUM overtook them.
        """
        found, full = [], 0
        heaps = {oid: heap for oid, heap in self.catalog.heaps.items() if self._can_be_measured(heap)}
        large = [heap for oid, heap in heaps.items() if self.is_full and self._size(oid) >= self.smallest]
        self.widths = read_widths(self.connection, large)
        for oid, heap in heaps.items():
            may_hide = counters_are_lost(heap) or hides_bloat(heap["dead_rows"], heap["live_rows"])
            is_asked_for = oid in indexed and may_hide
            if oid not in self.widths and not is_asked_for:
                continue
            size, possible = self._size(oid), self.catalog.possible_bytes(heap, self.widths.get(oid))
            hidden = 1 - heap["visible_pages"] / heap["pages"] if heap["pages"] else 1.0
            cost = max(int(size * hidden), self.catalog.block_size)
            if possible < size * self.settings.min_ratio / 2 and cost > size / 10 and not is_asked_for:
                full += 1
                continue
            found.append(self._with_past(Candidate(oid, heap["qualified"], cost, possible, is_table=True)))
        if full:
            self.ledger.skip(f"{full} tables", "not read: by the catalog's figures their rows fill them")
        return found

    def _can_be_measured(self, heap: Row) -> bool:
        if is_excluded(self.settings.exclude, heap["schema"], heap["name"]):
            return False
        name, is_heap = heap["qualified"], heap["method"] == "heap"
        if self.is_full and not is_heap:
            self.ledger.skip(name, f"there is no measure for tables of the access method {heap['method']}")
        elif self.is_full and heap["oid"] not in self.catalog.sizes:
            self.ledger.doubt(name, f"not looked at: {self._who_locks(heap['oid'])}")
        return (
            is_heap
            and self.catalog.sizes.get(heap["oid"]) is not None
            and not (heap["is_unlogged"] and self.catalog.is_standby)
        )

    @property
    def smallest(self) -> int:
        """Indexes and tables below this are counted, not looked at."""
        needed = self.settings.min_reclaimable
        return min(needed, self.settings.min_size) if self.is_full else needed

    def _size(self, oid: int) -> int:
        return self.catalog.sizes[oid] or 0

    def _measure(
        self,
        meter: Meter,
        candidates: Sequence[Candidate],
        trees: Mapping[int, Row],
        columns: Mapping[int, Columns],
    ) -> None:
        limit, minutes = self.settings.measure_bytes, self.settings.measure_minutes
        budget = Budget(limit, minutes * 60)
        total = min(sum(each.cost_bytes for each in candidates), limit)
        left: list[Candidate] = []
        for each in candidates:
            self.progress(f"measuring {each.name}", budget.spent_bytes, total)
            if each.cost_bytes > limit:
                why = (
                    f"larger than measure_bytes ({megabytes(limit)}) by itself; raise it to have it measured"
                )
                if each.is_table:
                    self.ledger.doubt(each.name, why)
                else:
                    self._estimate(trees[each.oid], columns[each.oid], why)
            elif not (
                budget.has_room(each.cost_bytes)
                and self._measure_one(meter, each, trees.get(each.oid), columns, budget)
            ):
                left.append(each)
        self._limit_time(QUERY_TIMEOUT_S)
        self.progress("measuring", total, total)
        self.left = sum(not each.is_table for each in left)
        if left:
            self.ledger.skip(
                f"{self.left} indexes and {len(left) - self.left} tables",
                f"left for the next run, which begins with them; together"
                f" {megabytes(sum(each.cost_bytes for each in left))}. One run reads no more than"
                f" measure_bytes = {megabytes(limit)} in measure_minutes = {minutes:g}",
            )

    def _measure_one(
        self,
        meter: Meter,
        each: Candidate,
        tree: Row | None,
        columns: Mapping[int, Columns],
        budget: Budget,
    ) -> bool:
        """Take one look; False when it took too long and has to be taken again."""
        is_first = budget.spent_bytes == 0
        error: LockTimeout | QueryFailed | None = None
        gain = 0
        self._limit_time(budget.seconds_left)
        try:
            if tree is not None:
                size, ratio = meter.index(each.oid, tree["fillfactor"], columns[each.oid])
                index = self._add(tree, size, ratio, "exact", self._understated(tree, columns[each.oid]))
                gain = index.reclaimable_bytes if is_bloated(index, self.settings) else 0
            else:
                self._measure_heap(meter, each.oid)
        except (LockTimeout, QueryFailed) as exc:
            error = exc
            self._limit_time(QUERY_TIMEOUT_S)
        if isinstance(error, LockTimeout):
            table = each.oid if tree is None else tree["table_oid"]
            self.ledger.doubt(each.name, f"not measured: {self._who_locks(table)}")
            return True
        if error is not None:
            is_late = error.sqlstate == _CANCELED
            if is_late and not is_first:
                return False
            if is_gone(self.connection, each.oid):
                self.ledger.skip(each.name, _GONE)
                return True
            why = "it takes longer than measure_minutes" if is_late else error
            self.ledger.doubt(each.name, f"not measured: {why}")
        budget.spent_bytes += each.cost_bytes
        if self.memory is not None:
            node = (tree or self.catalog.heaps[each.oid])["filenode"]
            self.memory.add(each.name, node, gain_bytes=gain)
        return True

    def _measure_heap(self, meter: Meter, oid: int) -> None:
        heap = self.catalog.heaps[oid]
        stats, ratio = meter.table(oid, heap["fillfactor"], self.widths.get(oid))
        dead = dead_rows(stats, heap)
        if dead is not None:
            self.dead_rows[oid] = dead, int(stats["row_count"])
        if not self.is_full or stats["table_len"] < self.smallest:
            return
        table = Table(heap["qualified"], stats["table_len"], ratio, stats["dead_tuple_count"])
        if is_bloated(table, self.settings):
            out = way_out(
                quote_name(heap["schema"], heap["name"]),
                self.connection.server_version,
                is_toast=heap["is_toast"],
            )
            table = replace(table, way_out=out)
        self.tables[oid] = table

    def _estimate(self, row: Row, columns: Columns, why_not_measured: str = "") -> None:
        """Say what the statistics say about a B-tree that can't be measured."""
        name, size = row["qualified"], self._size(row["oid"])
        needed, why_not = self.catalog.needed_bytes(row, columns)
        if why_not is None:
            ratio = min(max(1 - needed / size, 0.0), 1.0) if size else 0.0
            self._add(row, size, ratio, "estimate")
            if why_not_measured:
                self.ledger.doubt(name, f"estimated only: {why_not_measured}")
            return
        if not columns.are_known and not columns.may_read:
            role = quote_name(current_role(self.connection))
            why_not = f"{role} sees no statistics of its table; run: GRANT pg_read_all_data TO {role};"
        self.ledger.doubt(
            name, f"not estimable: {why_not}" + (f"; {why_not_measured}" * bool(why_not_measured))
        )

    def _compare(self, row: Row) -> None:
        """Compare the size per row of an index without an exact measure with the best of its own history."""
        name, size = row["qualified"], self._size(row["oid"])
        if self.memory is None:
            self.ledger.skip(name, f"{row['method']}: compared with its own history, and none is known here")
            return
        rows = self.catalog.row_count(row)
        if row["is_partial"] and rows >= 0 and not has_own_count(row):
            try:
                rows = read_partial_count(self.connection, row, self.catalog.heaps[row["table_oid"]])
            except (LockTimeout, QueryFailed) as exc:
                self.ledger.doubt(name, f"not measured: how many rows it should have can't be told: {exc}")
                return
        if rows < 0:
            self.ledger.doubt(name, "not measured: nobody knows how many rows it has; run ANALYZE")
            return
        now = size / max(rows, 1.0)
        best = self.memory.best_bytes_per_row(name, row["filenode"], now)
        self.memory.add(name, row["filenode"], bytes_per_row=now if best is None else best)
        if best is None:
            self.ledger.doubt(
                name,
                f"{row['method']} indexes are compared with their own history, and this one has none yet:"
                f" {now:,.1f} bytes per row from now on",
            )
            return
        self._add(row, size, 1 - best / now if now else 0.0, "history")

    def _understated(self, row: Row, columns: Columns) -> str:
        """Say that a rebuild of a B-tree may give back more than its pages show; "" where it does not."""
        sharing = rows_per_merged_key(self.catalog.row_count(row), columns)
        if sharing is None or row["is_unique"] or not row["deduplicates"]:
            return ""
        return (
            f"about {sharing:.0f} rows share a key: a rebuild also merges entries that came one by one, and"
            " may give back up to 20 % more of its size than is measured"
        )

    def _add(self, row: Row, size: int, ratio: float, method: Method, note: str = "") -> Index:
        index = Index(
            oid=row["oid"],
            table_oid=row["table_oid"],
            schema=row["schema"],
            name=row["name"],
            table=self.catalog.heaps[row["table_oid"]]["qualified"],
            owner=row["owner"],
            is_owner=row["is_owner"],
            bytes=size,
            ratio=ratio,
            method=method,
            access_method=row["method"],
            note=note,
        )
        (self.estimated if method == "estimate" else self.measured).append(index)
        self.ledger.examined += 1
        return index

    def _doubt_what_dead_rows_hide(self) -> None:
        """Name the indexes that look healthy because VACUUM has not been at their table."""
        holder = ""
        for index in (*self.measured, *self.estimated):
            heap = self.catalog.heaps[index.table_oid]
            if is_bloated(index, self.settings):
                continue
            dead, live = self.dead_rows.get(index.table_oid, (heap["dead_rows"], heap["live_rows"]))
            if index.table_oid not in self.dead_rows and counters_are_lost(heap):
                self.ledger.doubt(
                    index.qualified,
                    f"measured {index.ratio:.0%}, but the server has lost count of the dead rows in"
                    f" {index.table} (a crash, or a reset); VACUUM it",
                )
            elif hides_bloat(dead, live):
                holder = holder or self._oldest_snapshot()
                self.ledger.doubt(
                    index.qualified,
                    f"not measurable before VACUUM: {dead} dead rows in {index.table} still count as used"
                    f" space (measured {index.ratio:.0%}){holder}",
                )

    def _oldest_snapshot(self) -> str:
        holders = holders_for(horizon_holders(self.connection), catalogs=False)
        return f"; the oldest snapshot is held by {name_horizon_holder(holders[0])}" if holders else ""

    def _with_past(self, candidate: Candidate) -> Candidate:
        """Add what earlier runs have seen of it."""
        if self.memory is None:
            return candidate
        if self.is_full:
            return replace(candidate, looked_at=self.memory.looked_at(candidate.name))
        return replace(candidate, known_gain_bytes=self.memory.known_gain_bytes(candidate.name))

    def _who_locks(self, table_oid: int) -> str:
        return f"it is locked by {name_holders(lock_holders(self.connection, table_oid))}"

    def _limit_time(self, seconds: float) -> None:
        """Give the next statements so much time, and a twentieth more at most."""
        if 0.95 * self.time_limit_s < seconds <= self.time_limit_s:
            return
        self.time_limit_s = seconds
        milliseconds = f"{max(int(seconds * 1000), 1)}"
        self.connection.execute("SELECT set_config('statement_timeout', %(ms)s, false)", {"ms": milliseconds})


def _by_gain(indexes: Sequence[Index]) -> tuple[Index, ...]:
    return tuple(sorted(indexes, key=lambda index: (-index.reclaimable_bytes, index.qualified)))
