"""What a look at the indexes and tables of a database finds, as frozen figures."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any, Literal

from pgsteward.config import IndexBloatConfig
from pgsteward.ledger import Ledger
from pgsteward.postgres import quote_name
from pgsteward.results import Status

Method = Literal["exact", "history", "estimate"]
"""How a ratio came about: from every page of the index; from its size per row beside the best of its own
history; from the catalog's statistics, which never cause a rebuild unless ``rebuild_on_estimate`` says so."""

_REPACK_SINCE = 190000


@dataclass(frozen=True, slots=True)
class Index:
    """One index, measured.

    Attributes:
        oid: Of the index.
        table_oid: Of its table.
        qualified: Name of the index as people write it in SQL.
        table: Name of its table.
        owner: Role that owns it.
        is_owner: Our role has the owner's rights, which a rebuild and the clean-up after one need.
        bytes: Size now.
        ratio: Share of it that a rebuild would give back, 0..1.
        method: How that is known.
        access_method: ``btree``, ``gin`` ...
        note: What its ratio does not show.
    """

    oid: int
    table_oid: int
    schema: str
    name: str
    table: str
    owner: str
    is_owner: bool
    bytes: int
    ratio: float
    method: Method = "exact"
    access_method: str = "btree"
    note: str = ""

    @property
    def qualified(self) -> str:
        return quote_name(self.schema, self.name)

    @property
    def reclaimable_bytes(self) -> int:
        """What a rebuild would give back."""
        return int(self.bytes * self.ratio)

    def as_json(self) -> dict[str, Any]:
        return {
            "index": self.qualified,
            "table": self.table,
            "bytes": self.bytes,
            "reclaimable_bytes": self.reclaimable_bytes,
            "ratio": round(self.ratio, 4),
            "method": self.method,
            "access_method": self.access_method,
            "note": self.note,
        }


@dataclass(frozen=True, slots=True)
class Table:
    """One table, measured. Nothing of ours rewrites it; `way_out` says what a person can do.

    Attributes:
        name: As people write it in SQL; of a TOAST table ``TOAST of`` and its table.
        bytes: Size now, without indexes and TOAST.
        ratio: Share of it that a rewrite would give back, 0..1.
        dead_rows: Rows that VACUUM has not removed yet.
        way_out: Empty below the thresholds.
    """

    name: str
    bytes: int
    ratio: float
    dead_rows: int
    way_out: str = ""

    @property
    def reclaimable_bytes(self) -> int:
        """What a rewrite would give back."""
        return int(self.bytes * self.ratio)

    def as_json(self) -> dict[str, Any]:
        return {
            "table": self.name,
            "bytes": self.bytes,
            "reclaimable_bytes": self.reclaimable_bytes,
            "ratio": round(self.ratio, 4),
            "dead_rows": self.dead_rows,
            "way_out": self.way_out,
        }


@dataclass(frozen=True, slots=True)
class Census:
    """What a look at all indexes and tables of a database found.

    Attributes:
        measured: Every index that was measured, most reclaimable bytes first.
        bloated: Those that are over both thresholds and may be rebuilt for it: never by an estimate alone,
            unless the settings say so.
        total: How many indexes there are in all.
        total_bytes: Their sizes, as far as they could be read.
        small: How many are too small to be worth a look.
        estimated: Those that could only be estimated, most reclaimable bytes first.
        suspected: Those of them that are over both thresholds by their estimate, and are not in `bloated`.
        left: How many the limits of one run leave to the next one.
        tables: Tables that were measured, most reclaimable bytes first.
    """

    measured: tuple[Index, ...]
    bloated: tuple[Index, ...]
    total: int
    total_bytes: int
    small: int
    estimated: tuple[Index, ...] = ()
    suspected: tuple[Index, ...] = ()
    left: int = 0
    tables: tuple[Table, ...] = ()

    @property
    def measured_bytes(self) -> int:
        return sum(index.bytes for index in self.measured)

    @property
    def examined_bytes(self) -> int:
        return self.measured_bytes + sum(index.bytes for index in self.estimated)

    @property
    def bloated_tables(self) -> tuple[Table, ...]:
        return tuple(table for table in self.tables if table.way_out)

    def sentence(self) -> str:
        """Say what was looked at, with numbers."""
        gain = sum(index.reclaimable_bytes for index in self.bloated)
        aside = [
            f"{count} {what}"
            for count, what in (
                (len(self.estimated), "by estimate"),
                (self.small, "too small to matter"),
                (self.left, "left for the next run"),
            )
            if count
        ]
        return (
            f"examined {len(self.measured) + len(self.estimated)} of {self.total} indexes,"
            f" {megabytes(self.examined_bytes)} of {megabytes(self.total_bytes)}"
            + (f" ({', '.join(aside)})" if aside else "")
            + f"; {len(self.bloated)} bloated"
            + (f", {megabytes(gain)} to gain" if self.bloated else "")
            + (f"; {len(self.suspected)} bloated by estimate" if self.suspected else "")
            + (f"; {len(self.bloated_tables)} bloated tables" if self.bloated_tables else "")
        )

    def details(self) -> dict[str, Any]:
        return {
            "indexes": [index.as_json() for index in (*self.measured, *self.estimated)],
            "bloated": [index.as_json() for index in self.bloated],
            "tables": [table.as_json() for table in self.tables],
            "bloated_tables": [table.as_json() for table in self.bloated_tables],
            "total": self.total,
            "small": self.small,
            "left": self.left,
            "measured_bytes": self.measured_bytes,
            "total_bytes": self.total_bytes,
        }


def is_bloated(found: Index | Table, settings: IndexBloatConfig) -> bool:
    """Tell whether an index or a table is over both thresholds; exactly at one counts as over."""
    return found.ratio >= settings.min_ratio and found.reclaimable_bytes >= settings.min_reclaimable


def may_rebuild(index: Index, settings: IndexBloatConfig) -> bool:
    """Tell whether what is known of an index is reason enough to rebuild it."""
    return is_bloated(index, settings) and (index.method != "estimate" or settings.rebuild_on_estimate)


def way_out(qualified: str, server_version: int, *, is_toast: bool = False) -> str:
    """Return how a person gets a table's space back to the disk.

    Args:
        qualified: Name of the table; of a TOAST table that of the table it belongs to.
        server_version: E.g. 170010.
        is_toast: The space is in its TOAST table.
    """
    reuse = f"VACUUM {qualified}; makes the space free for new rows" + (" and values" if is_toast else "")
    concurrently = (
        f"REPACK (CONCURRENTLY) {qualified};"
        if server_version >= _REPACK_SINCE
        else f"pg_repack --table={shlex.quote(qualified)}"
    )
    return (
        f"{reuse}; only a rewrite gives it back to the disk: {concurrently} while others go on working, or"
        f" VACUUM FULL {qualified}; which locks them out"
    )


def status_without_candidates(census: Census, ledger: Ledger) -> Status | None:
    """Return "skipped" when every index is small or excluded for a reason; None leaves it to the evidence."""
    if census.total and not ledger.examined and not ledger.unknown and not ledger.failed and not census.left:
        return "skipped"
    return None


def megabytes(size: int) -> str:
    """Return a size as people read it."""
    return f"{size / 1e6:,.1f} MB" if size < 1e9 else f"{size / 1e9:,.2f} GB"
