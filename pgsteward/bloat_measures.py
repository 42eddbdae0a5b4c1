"""Exact measures by pgstattuple: what a rebuild of an index, or a rewrite of a table, gives back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pgsteward import sql
from pgsteward.bloat_estimates import (
    INDEX_PAGE_OVERHEAD,
    LINE_POINTER,
    PAGE_HEADER,
    Columns,
    bound_bytes,
    entry_bytes,
    row_bytes,
)
from pgsteward.postgres import Connection, Row, compose, identifier, quote_name
from pgsteward.relations import current_role


class Meter:
    """Reads indexes and tables page by page, in one session.

    Attributes:
        why_not: Why no index can be measured, with the exact statement that helps; None when they can.
        why_no_tables: The same of tables.
    """

    def __init__(self, connection: Connection, block_size: int) -> None:
        """Look what may be used.

        Args:
            connection: Of the role that measures.
            block_size: Of the server, bytes.
        """
        where = connection.row(sql.load("pgstattuple"))
        self.why_not = _why_not(connection, where)
        self.why_no_tables = self.why_not or _why_no_tables(connection, where)
        self._connection = connection
        self._block_size = block_size
        self._schema: str = where["schema"]

    def index(self, oid: int, fillfactor: float, columns: Columns) -> tuple[int, float]:
        """Return a B-tree's bytes, and the share of them that a rebuild would give back."""
        statement = compose(
            "SELECT index_size, leaf_pages, internal_pages, avg_leaf_density"
            "  FROM {}(%(oid)s::int8::oid::regclass)",
            identifier(self._schema, "pgstatindex"),
        )
        stats = self._connection.row(statement, {"oid": oid})
        entry, bound = entry_bytes(columns), bound_bytes(columns)
        ratio = reclaimable_ratio(stats, fillfactor, self._block_size, entry=entry, bound=bound)
        return stats["index_size"], ratio

    def table(self, oid: int, fillfactor: float, width: float | None) -> tuple[Row, float]:
        """Return a table's row of pgstattuple_approx, and the share that a rewrite would give back."""
        statement = compose(
            "SELECT table_len, scanned_percent, approx_tuple_count::float8 AS row_count, dead_tuple_count,"
            "       dead_tuple_len, approx_free_space, approx_free_percent"
            "  FROM {}(%(oid)s::int8::oid::regclass)",
            identifier(self._schema, "pgstattuple_approx"),
        )
        stats = self._connection.row(statement, {"oid": oid})
        return stats, rewritable_ratio(stats, fillfactor, self._block_size, width)


def reclaimable_ratio(
    stats: Mapping[str, Any],
    fillfactor: float,
    block_size: int = 8192,
    *,
    entry: float = 0.0,
    bound: float = 0.0,
) -> float:
    """Return the share of a B-tree that a rebuild would give back, 0..1.

    A rebuild packs what the pages hold at the fill factor and adds a meta page. Every leaf page but the last
    holds a key as its upper bound besides. An index that would grow counts as 0.

    Args:
        stats: A row of pgstatindex.
        fillfactor: Of the index, percent.
        block_size: Of the server, bytes.
        entry: Average bytes of an entry with its pointer; 0 when nobody knows.
        bound: Of the upper bound of a leaf page.
    """
    total_pages = float(stats["index_size"]) / block_size
    leaves = float(stats["leaf_pages"])
    if total_pages <= 0:
        return 0.0
    density = stats["avg_leaf_density"]
    room = block_size - INDEX_PAGE_OVERHEAD
    used = 0.0 if density is None or math.isnan(density) else leaves * room * float(density) / 100
    if max(entry, bound) > room / 3:  # statistics of a value that is compressed, or stored elsewhere
        entry = bound = 0.0
    packed = max(used - leaves * bound, 0.0) / (packed_share(entry, fillfactor, block_size) * room - bound)
    needed = packed * (1 + float(stats["internal_pages"]) / leaves) + 1 if leaves else 1.0
    return min(max(1 - needed / total_pages, 0.0), 1.0)


def packed_share(entry: float, fillfactor: float, block_size: int = 8192) -> float:
    """Return how full a rebuild makes a leaf page, 0..1.

    The entry that reaches the fill factor still goes onto the page, if there is room. Of entries that are all
    of one size it is known how far that goes; of others it is half an entry. Which they are nobody says, so
    it is taken to be in between: for narrow keys all of this is nothing.

    Args:
        entry: Average bytes of an entry; 0 when nobody knows.
        fillfactor: Of the index, percent.
        block_size: Of the server, bytes.
    """
    if not entry:
        return fillfactor / 100
    room = block_size - INDEX_PAGE_OVERHEAD
    spared = block_size * (1 - fillfactor / 100)
    same = min((room - spared) // entry + 1, room // entry) * entry
    different = min(room - spared + entry / 2, room - entry / 2)
    return (same + different) / 2 / room


def rewritable_ratio(
    stats: Mapping[str, Any], fillfactor: float, block_size: int = 8192, width: float | None = None
) -> float:
    """Return the share of a table that a rewrite would give back, 0..1.

    A rewrite leaves a rest in every page that the next row does not fit into: for wide rows that is much,
    and no bloat. The pointers that deleted rows leave behind go: what is not rows by the statistics, and no
    more than a full page has.

    Args:
        stats: A row of pgstattuple_approx.
        fillfactor: Of the table, percent.
        block_size: Of the server, bytes.
        width: Average bytes of the values of a row; None where that is not known.
    """
    pages = float(stats["table_len"]) / block_size
    rows = float(stats["row_count"])
    if pages <= 0:
        return 0.0
    room = block_size - PAGE_HEADER
    used = float(stats["table_len"] - stats["approx_free_space"] - stats["dead_tuple_len"])
    body = max(used - pages * PAGE_HEADER, 0.0)
    if not rows or not body:
        return 1.0
    row = body / rows if width is None else row_bytes(width)
    pointers = max(room / row * pages - rows, 0.0) * LINE_POINTER
    body = min(body, max(rows * row, body - pointers))
    filled = room * fillfactor / 100
    rest = (row / 2 + filled % row) / 2 if row < filled else 0.0  # of rows of many sizes, and of one
    return min(max(1 - body / (filled - rest) / pages, 0.0), 1.0)


def _why_not(connection: Connection, where: Row) -> str | None:
    role = quote_name(current_role(connection))
    if where["schema"] is None:
        first = (
            ""
            if where["is_available"]
            else "install the server's contrib package (postgresql-contrib), then "
        )
        return (
            f"the extension pgstattuple is missing, nothing was measured; {first}run as superuser in this"
            " database: CREATE EXTENSION pgstattuple;"
        )
    if not where["may_use_schema"]:
        return (
            f"{role} may not use pgstattuple, nothing was measured; run:"
            f" GRANT USAGE ON SCHEMA {quote_name(where['schema'])} TO {role};"
        )
    if not where["may_execute"]:
        return (
            f"{role} may not use pgstattuple, nothing was measured; run: GRANT pg_stat_scan_tables TO {role};"
        )
    return None


def _why_no_tables(connection: Connection, where: Row) -> str | None:
    if where["may_measure_tables"] is None:
        return (
            f"pgstattuple {where['version']} can't measure tables; run as superuser in this database:"
            " ALTER EXTENSION pgstattuple UPDATE;"
        )
    if not where["may_measure_tables"]:
        role = quote_name(current_role(connection))
        return (
            f"{role} may not call pgstattuple_approx, no table was measured; run:"
            f" GRANT pg_stat_scan_tables TO {role};"
        )
    return None
