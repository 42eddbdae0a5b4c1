"""The indexes and tables of a database by its catalogs: for free, and without waiting for anybody's lock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pgsteward import sql
from pgsteward.bloat_estimates import Columns, heap_bytes, needed_bytes, why_not_estimable
from pgsteward.errors import LockTimeout
from pgsteward.postgres import Connection, Row, as_written, compose, identifier, quote_name
from pgsteward.relations import is_excluded

_FEW_DEAD_ROWS = 1000
_DEAD_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Catalog:
    """What the catalogs say.

    Attributes:
        indexes: Rows of ``indexes.sql``, each with its ``qualified`` name as people write it.
        heaps: Rows of ``heaps.sql``, by OID, in the same way; a TOAST table is ``TOAST of`` its table.
        sizes: Bytes by OID; None for what was dropped meanwhile. What somebody locks is missing.
        block_size: Of the server, bytes.
        is_standby: The server replays another one's changes.
    """

    indexes: Sequence[Row]
    heaps: Mapping[int, Row]
    sizes: Mapping[int, int | None]
    block_size: int
    is_standby: bool

    def row_count(self, index: Row) -> float:
        """Return how many entries an index should have now; negative when nobody knows.

        As the planner does it: rows per page when they were last counted, times the pages of today. Of a GIN
        index the table's are taken, see `has_own_count`.
        """
        heap = self.heaps.get(index["table_oid"])
        size = self.sizes.get(index["table_oid"])
        rows = float((index if heap is None or has_own_count(index) else heap)["row_count"])
        if heap is None or not heap["pages"] or size is None or rows < 0:
            return rows
        return rows * size / self.block_size / int(heap["pages"])

    def needed_bytes(self, index: Row, columns: Columns) -> tuple[int, str | None]:
        """Return a B-tree's size after a rebuild by the statistics; 0 and the reason if they can't say."""
        rows = self.row_count(index)
        why_not = why_not_estimable(rows, columns, is_unique=index["is_unique"])
        if why_not is not None:
            return 0, why_not
        return needed_bytes(rows, columns, index["fillfactor"], self.block_size), None

    def possible_bytes(self, heap: Row, width: float | None) -> int:
        """Return what a rewrite of a table may give back; all of it where the catalogs can't say.

        Args:
            heap: A row of ``heaps.sql``.
            width: Average bytes of the values of a row; None where that is not known.
        """
        size = self.sizes[heap["oid"]] or 0
        if counters_are_lost(heap):
            return size
        if heap["was_only_filled"]:
            return 0
        if width is None or heap["row_count"] < 0:
            return size
        rows = min(heap["row_count"], heap["live_rows"])
        return max(size - heap_bytes(rows, width, heap["fillfactor"], self.block_size), 0)


def read_catalog(connection: Connection, *, toast: bool) -> Catalog:
    """Read it.

    Args:
        connection: With a short lock_timeout: sizes can't be had of what is locked.
        toast: With the indexes of TOAST tables.
    """
    indexes = [
        {**row, "qualified": quote_name(row["schema"], row["name"])}
        for row in connection.rows(sql.load("indexes"), {"toast": toast})
    ]
    heaps = {row["oid"]: {**row, "qualified": _heap_name(row)} for row in connection.rows(sql.load("heaps"))}
    locked = {row["oid"] for row in connection.rows(sql.load("locked_relations"))}
    oids = {*(row["oid"] for row in indexes), *heaps} - locked
    return Catalog(
        indexes=indexes,
        heaps=heaps,
        sizes=_read_sizes(connection, sorted(oids)),
        block_size=int(connection.value("SHOW block_size")),
        is_standby=connection.value("SELECT pg_is_in_recovery()"),
    )


def read_columns(connection: Connection, catalog: Catalog, indexes: Sequence[Row]) -> dict[int, Columns]:
    """Return what statistics say about the columns of indexes."""
    tables = [catalog.heaps[row["table_oid"]] for row in indexes]
    names = {row["name"] for row in (*indexes, *tables)}  # those of expressions are kept under the index's
    about = {"oids": [row["oid"] for row in indexes], "names": sorted(names)}
    return {row["oid"]: Columns.of(row) for row in connection.rows(sql.load("index_columns"), about)}


def read_widths(connection: Connection, heaps: Sequence[Row]) -> dict[int, float | None]:
    """Return the average bytes of the values of a row, by table; None where that is not known."""
    about = {"oids": [heap["oid"] for heap in heaps], "names": sorted({heap["name"] for heap in heaps})}
    return {row["oid"]: row["width"] for row in connection.rows(sql.load("heap_widths"), about)}


def has_own_count(index: Row) -> bool:
    """Tell whether the server counts the rows of an index.

    A build of GIN and of RUM counts its entries, of which a row has many, and VACUUM then the table's rows.
    """
    return index["method"] not in ("gin", "rum")


def read_partial_count(connection: Connection, index: Row, heap: Row) -> float:
    """Return how many rows a partial index should have, as the planner reckons.

    Raises:
        StewardError: Our role may not read the table, or it is locked.
    """
    predicate = connection.value(
        "SELECT pg_get_expr(i.indpred, i.indrelid) FROM pg_index AS i"
        " WHERE i.indexrelid = %(oid)s::int8::oid",
        {"oid": index["oid"]},
    )
    table = identifier(heap["schema"], heap["name"])
    plan = connection.value(
        compose("EXPLAIN (FORMAT JSON) SELECT FROM ONLY {} WHERE {}", table, as_written(predicate))
    )
    return float(plan[0]["Plan"]["Plan Rows"])


def why_excluded(index: Row, heap: Row, exclude: Sequence[str], *, is_standby: bool = False) -> str | None:
    """Return why an index is left out of measuring and rebuilding, or None."""
    if is_excluded(exclude, index["schema"], index["name"]) or is_excluded(
        exclude, heap["schema"], heap["name"]
    ):
        return "excluded by index_bloat.exclude"
    if index["is_exclusion"]:
        return (
            "it belongs to an exclusion constraint (or a temporal key), which can't be rebuilt concurrently"
        )
    if not index["is_valid"]:
        return "it is invalid; the index audit says what to do about it"
    if index["method"] == "brin":
        return "BRIN indexes do not bloat in a way that a rebuild helps"
    if index["is_unlogged"] and is_standby:
        return "it is unlogged, and has no data on a standby"
    return None


def hides_bloat(dead_rows: int, live_rows: int) -> bool:
    """Tell whether a table is so full of dead rows that its indexes look better than they are.

    Their entries count as full until VACUUM has removed them.
    """
    return dead_rows > _FEW_DEAD_ROWS and dead_rows > _DEAD_SHARE * (dead_rows + live_rows)


def dead_rows(stats: Row, heap: Row) -> int | None:
    """Return how many dead rows of a table may still have entries in its indexes; None when nobody can say.

    Reading a page removes dead rows and leaves their pointers, and so the entries, for VACUUM. Such rows are
    counted by the server, not by pgstattuple_approx; it is right about pages that VACUUM has been at.

    Args:
        stats: A row of pgstattuple_approx.
        heap: The table's row of ``heaps.sql``.
    """
    found = int(stats["dead_tuple_count"])
    if stats["scanned_percent"] < 100 * _DEAD_SHARE:
        return found
    if counters_are_lost(heap) and stats["approx_free_percent"] > 100 * _DEAD_SHARE:
        return None
    return max(found, int(heap["dead_rows"]))


def counters_are_lost(heap: Row) -> bool:
    """Tell whether the server has forgotten how many rows of a table died, as it does in a crash."""
    return bool(heap["row_count"] > 0 and heap["live_rows"] == heap["dead_rows"] == 0)


def _heap_name(heap: Row) -> str:
    name = quote_name(heap["schema"], heap["name"])
    return f"TOAST of {name}" if heap["is_toast"] else name


def _read_sizes(connection: Connection, oids: Sequence[int]) -> dict[int, int | None]:
    """Return bytes by OID; what somebody locks is narrowed down by halves, and missing."""
    try:
        rows = connection.rows(sql.load("relation_sizes"), {"oids": list(oids)})
        return {row["oid"]: row["bytes"] for row in rows}
    except LockTimeout:
        if len(oids) == 1:
            return {}
    middle = len(oids) // 2
    return {**_read_sizes(connection, oids[:middle]), **_read_sizes(connection, oids[middle:])}
