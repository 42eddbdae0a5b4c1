"""Index bloat, measured: how much smaller an index would be after a rebuild.

pgstatindex reads every page of a B-tree; the formula counts the deleted and empty pages that its density
figure leaves out. What can't be measured is unknown, by name, and never "no bloat".
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pgsteward import sql
from pgsteward.config import IndexBloatConfig
from pgsteward.errors import LockTimeout, QueryFailed
from pgsteward.ledger import Ledger
from pgsteward.postgres import Connection, Login, Row, compose, connect, identifier, quote_name
from pgsteward.progress import Progress, silent
from pgsteward.relations import current_role, is_excluded, lock_holders, name_holders
from pgsteward.results import Status, StepResult
from pgsteward.targets import Target

log = logging.getLogger(__name__)

STEP = "bloat"
DEFAULT_FILLFACTOR = 90.0
Method = Literal["exact", "history", "estimate"]
"""How a ratio came about: from every page of the index; from its size per row beside the best of its own
history; from the catalog's statistics, which never cause a rebuild unless ``rebuild_on_estimate`` says so."""
_LOCK_TIMEOUT_S = 0.1
_MEASURE_TIMEOUT_S = 900.0
_DEAD_SHARE = 0.2
_FEW_DEAD_ROWS = 1000


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
        }


@dataclass(frozen=True, slots=True)
class Census:
    """What a look at all indexes of a database found.

    Attributes:
        measured: Every index that was measured, most reclaimable bytes first.
        bloated: Those that are over both thresholds and may be rebuilt for it: never by an estimate alone,
            unless the settings say so.
        total: How many indexes there are in all.
        total_bytes: Their sizes, as far as they could be read.
        small: How many are too small to reach the threshold whatever is in them.
        estimated: Those that could only be estimated, most reclaimable bytes first.
        left: How many the limits of one run leave to the next one.
    """

    measured: tuple[Index, ...]
    bloated: tuple[Index, ...]
    total: int
    total_bytes: int
    small: int
    estimated: tuple[Index, ...] = ()
    left: int = 0

    @property
    def measured_bytes(self) -> int:
        return sum(index.bytes for index in self.measured)

    def sentence(self) -> str:
        """Say what was looked at, with numbers."""
        gain = sum(index.reclaimable_bytes for index in self.bloated)
        return (
            f"measured {len(self.measured)} of {self.total} indexes,"
            f" {_mb(self.measured_bytes)} of {_mb(self.total_bytes)}"
            + (f" ({self.small} too small to matter)" if self.small else "")
            + f"; {len(self.bloated)} bloated"
            + (f", {_mb(gain)} to gain" if self.bloated else "")
        )

    def details(self) -> dict[str, Any]:
        return {
            "indexes": [index.as_json() for index in self.measured],
            "bloated": [index.as_json() for index in self.bloated],
            "total": self.total,
            "small": self.small,
            "measured_bytes": self.measured_bytes,
            "total_bytes": self.total_bytes,
        }


def detect(target: Target, *, progress: Progress = silent) -> StepResult:
    """Measure every B-tree index that is large enough to matter. Changes nothing.

    Args:
        target: Whose database.
        progress: Told about indexes.
    """
    ledger = Ledger(STEP, target.name)
    census = take_census(target.login("maintenance"), target.settings.index_bloat, ledger, progress)
    summary = census.sentence()
    if ledger.unknown and not census.measured:
        summary += f"; {ledger.unknown[0].reason}"
    return ledger.result(summary, census.details(), status_without_candidates(census, ledger))


def take_census(
    login: Login, settings: IndexBloatConfig, ledger: Ledger, progress: Progress = silent
) -> Census:
    """Measure, and write into the ledger what was skipped and what could not be measured."""
    with connect(
        login, purpose="bloat", lock_timeout_s=_LOCK_TIMEOUT_S, statement_timeout_s=_MEASURE_TIMEOUT_S
    ) as connection:
        rows = connection.rows(sql.load("indexes"))
        sizes = _sizes(connection, rows)
        candidates = _candidates(connection, rows, sizes, settings, ledger)
        small = [row for row in candidates if sizes[row["oid"]] < settings.min_reclaimable]
        large = [row for row in candidates if sizes[row["oid"]] >= settings.min_reclaimable]
        if small:
            ledger.skip(
                f"{len(small)} indexes",
                f"smaller than min_reclaimable ({_mb(settings.min_reclaimable)}), so they can't reach it;"
                f" together {_mb(sum(sizes[row['oid']] for row in small))}",
            )
        measured = _measure_all(connection, large, settings, ledger, progress)
    measured.sort(key=lambda index: (-index.reclaimable_bytes, index.qualified))
    return Census(
        measured=tuple(measured),
        bloated=tuple(index for index in measured if is_bloated(index, settings)),
        total=len(rows),
        total_bytes=sum(sizes.values()),
        small=len(small),
    )


def status_without_candidates(census: Census, ledger: Ledger) -> Status | None:
    """Return "skipped" when every index is small or excluded for a reason; None leaves it to the evidence."""
    if census.total and not census.measured and not ledger.unknown and not ledger.failed:
        return "skipped"
    return None


def reclaimable_ratio(stats: Mapping[str, Any], fillfactor: float, block_size: int = 8192) -> float:
    """Return the share of a B-tree that a rebuild would give back, 0..1.

    A rebuild packs what the leaf and inner pages hold at the fill factor and adds a meta page. An index that
    would grow counts as 0.

    Args:
        stats: A row of pgstatindex.
        fillfactor: Of the index, percent.
        block_size: Of the server, bytes.
    """
    total_pages = float(stats["index_size"]) / block_size
    if total_pages <= 0:
        return 0.0
    density = stats["avg_leaf_density"]
    fill = 0.0 if density is None or math.isnan(density) else float(density) / fillfactor
    needed = float(stats["leaf_pages"] + stats["internal_pages"]) * fill + 1
    return min(max(1 - needed / total_pages, 0.0), 1.0)


def is_bloated(index: Index, settings: IndexBloatConfig) -> bool:
    """Tell whether an index is over both thresholds; exactly at one counts as over."""
    return index.ratio >= settings.min_ratio and index.reclaimable_bytes >= settings.min_reclaimable


def hides_bloat(dead_rows: int, live_rows: int) -> bool:
    """Tell whether a table is so full of dead rows that its indexes look better than they are.

    Their entries count as full until VACUUM has removed them.
    """
    return dead_rows > _FEW_DEAD_ROWS and dead_rows > _DEAD_SHARE * (dead_rows + live_rows)


def why_excluded(row: Row, exclude: Sequence[str]) -> str | None:
    """Return why an index is left out of measuring and rebuilding, or None."""
    if is_excluded(exclude, row["schema"], row["name"]):
        return "excluded by index_bloat.exclude"
    if row["is_temporary"]:
        return "it is temporary"
    if row["is_exclusion"]:
        return (
            "it belongs to an exclusion constraint (or a temporal key), which can't be rebuilt concurrently"
        )
    if not row["is_valid"]:
        return "it is invalid; the index audit says what to do about it"
    if row["method"] == "brin":
        return "BRIN indexes do not bloat in a way that a rebuild helps"
    if row["method"] != "btree":
        return f"no exact measure for {row['method']} yet"
    return None


def _candidates(
    connection: Connection, rows: list[Row], sizes: dict[int, int], settings: IndexBloatConfig, ledger: Ledger
) -> list[Row]:
    found = []
    for row in rows:
        name = quote_name(row["schema"], row["name"])
        reason = why_excluded(row, settings.exclude)
        if reason is not None:
            ledger.skip(name, reason)
        elif row["oid"] not in sizes:
            who = name_holders(lock_holders(connection, row["table_oid"]))
            ledger.doubt(name, f"its size can't be read while it is locked by {who}")
        else:
            found.append(row)
    return found


def _sizes(connection: Connection, rows: list[Row]) -> dict[int, int]:
    """Return the size of each index; one that somebody holds an exclusive lock on is missing."""
    statement = "SELECT o AS oid, pg_relation_size(o::oid) AS bytes FROM unnest(%(oids)s::int8[]) AS o"
    oids = [row["oid"] for row in rows]
    try:
        found = connection.rows(statement, {"oids": oids})
    except LockTimeout:
        found = []
        for oid in oids:
            try:
                found += connection.rows(statement, {"oids": [oid]})
            except LockTimeout:
                continue
    return {row["oid"]: row["bytes"] for row in found if row["bytes"] is not None}


def _measure_all(
    connection: Connection,
    rows: list[Row],
    settings: IndexBloatConfig,
    ledger: Ledger,
    progress: Progress,
) -> list[Index]:
    where = connection.row(sql.load("pgstattuple"))
    missing = _why_no_pgstattuple(connection, where)
    if missing is not None:
        ledger.doubt(connection.dbname, missing)
        for row in rows:
            ledger.doubt(quote_name(row["schema"], row["name"]), "not measured: pgstattuple can't be used")
        return []
    statement = compose(
        "SELECT index_size, leaf_pages, internal_pages, avg_leaf_density"
        "  FROM {}(%(oid)s::int8::oid::regclass)",
        identifier(where["schema"], "pgstatindex"),
    )
    block_size = int(connection.value("SHOW block_size"))
    measured: list[Index] = []
    for done, row in enumerate(rows):
        name = quote_name(row["schema"], row["name"])
        progress(f"measuring {name}", done, len(rows))
        try:
            stats = connection.row(statement, {"oid": row["oid"]})
        except LockTimeout:
            who = name_holders(lock_holders(connection, row["table_oid"]))
            ledger.doubt(name, f"not measured: locked by {who}")
            continue
        except QueryFailed as exc:
            ledger.doubt(name, f"not measured: {exc}")
            continue
        index = Index(
            oid=row["oid"],
            table_oid=row["table_oid"],
            schema=row["schema"],
            name=row["name"],
            table=quote_name(row["table_schema"], row["table_name"]),
            owner=row["owner"],
            is_owner=row["is_owner"],
            bytes=stats["index_size"],
            ratio=reclaimable_ratio(stats, row["fillfactor"], block_size),
        )
        measured.append(index)
        ledger.examined += 1
        if hides_bloat(row["dead_rows"], row["live_rows"]) and not is_bloated(index, settings):
            ledger.doubt(
                name,
                f"not measurable before VACUUM: {row['dead_rows']} dead rows in {index.table} still count"
                f" as used space (measured {index.ratio:.0%})",
            )
    progress("measuring indexes", len(rows), len(rows))
    return measured


def _why_no_pgstattuple(connection: Connection, where: Row) -> str | None:
    """Return why pgstatindex can't be called, with the exact statement that helps, or None."""
    role = quote_name(current_role(connection))
    if where["schema"] is None:
        first = (
            ""
            if where["is_available"]
            else "install the server's contrib package (postgresql-contrib), then "
        )
        return (
            f"the extension pgstattuple is missing, no index was measured; {first}run as superuser in this"
            " database: CREATE EXTENSION pgstattuple;"
        )
    if not where["may_use_schema"]:
        return (
            f"{role} may not use pgstattuple, no index was measured; run:"
            f" GRANT USAGE ON SCHEMA {quote_name(where['schema'])} TO {role};"
        )
    if not where["may_execute"]:
        return (
            f"{role} may not use pgstattuple, no index was measured; run:"
            f" GRANT pg_stat_scan_tables TO {role};"
        )
    return None


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size < 1e9 else f"{size / 1e9:,.2f} GB"
