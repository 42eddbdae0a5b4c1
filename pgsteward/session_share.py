"""How much of a table has expired: counted where it is small, estimated from some of its pages where not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from pgsteward.postgres import Connection, Part, compose, identifier, literal, raw
from pgsteward.relations import Relation
from pgsteward.session_checks import Cleanup

_SAMPLE_PAGES = 1_000
_FAR_AHEAD = 100
_SAMPLE_ERROR = 0.1
"""By how much a sample may be wrong: six times its standard deviation, however the rows lie."""


@dataclass(frozen=True, slots=True)
class Share:
    """How much of a table has expired.

    Attributes:
        rows: In the table; an estimate where only a part was read.
        expired: Of them.
        is_exact: Every row was counted.
        sizes: Bytes of each leaf, TOAST included, by its OID.
    """

    rows: int
    expired: int
    is_exact: bool
    sizes: Mapping[int, int] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """From 0 to 1; of an empty table 0."""
        return self.expired / self.rows if self.rows else 0.0

    def bytes_of(self, rows: int) -> int:
        """Return about how much room some of the rows take."""
        total = sum(self.sizes.values())
        return min(total, round(total * rows / max(self.rows, rows, 1)))


def measure_share(connection: Connection, cleanup: Cleanup, parts: Sequence[Relation]) -> Share:
    """Return how much of a table has expired, exactly where that is near `max_share`.

    Args:
        connection: Without a statement timeout.
        cleanup: What counts as expired.
        parts: The leaves that will be cleaned.
    """
    found = connection.rows(
        "SELECT o.oid,"
        "       coalesce(pg_relation_size(o.oid::oid) / current_setting('block_size')::int, 0) AS pages,"
        "       coalesce(pg_table_size(o.oid::oid), 0)::int8 AS bytes"
        "  FROM unnest(%(oids)s::int8[]) AS o (oid)",
        {"oids": [leaf.oid for leaf in parts]},
    )
    sizes = {row["oid"]: row["bytes"] for row in found}
    pages = sum(row["pages"] for row in found)
    if pages > 2 * _SAMPLE_PAGES:
        share = _count(connection, cleanup, parts, sample=_SAMPLE_PAGES / pages)
        if share.ratio < cleanup.settings.max_share - _SAMPLE_ERROR:
            return replace(share, sizes=sizes)
    return replace(_count(connection, cleanup, parts), sizes=sizes)


def count_expired(connection: Connection, cleanup: Cleanup, leaf: Relation) -> int:
    """Return how many rows of a leaf have expired."""
    return _count(connection, cleanup, [leaf]).expired


def is_far_ahead(connection: Connection, cleanup: Cleanup) -> bool:
    """Tell whether all numbers mean instants thousands of years ahead, as those of a smaller unit would."""
    if cleanup.expiry.kind != "epoch":
        return False
    column = identifier(cleanup.expiry.column)
    table = identifier(cleanup.table.schema, cleanup.table.name)
    return bool(
        connection.value(
            compose(
                "SELECT min({column}) > %(cutoff_number)s::int8 * {factor} FROM {table}",
                column=column,
                factor=literal(_FAR_AHEAD),
                table=table,
            ),
            cleanup.params(),
        )
    )


def _count(
    connection: Connection, cleanup: Cleanup, parts: Sequence[Relation], sample: float | None = None
) -> Share:
    some: Part = raw("")
    if sample is not None:
        some = compose(" TABLESAMPLE SYSTEM ({})", literal(100 * sample))
    rows = expired = 0
    for leaf in parts:
        counted = connection.row(
            compose(
                "SELECT count(*) AS all_rows, count(*) FILTER (WHERE {expired}) AS expired"
                "  FROM ONLY {leaf}{some}",
                expired=cleanup.expired(),
                leaf=identifier(leaf.schema, leaf.name),
                some=some,
            ),
            cleanup.params(),
        )
        rows += counted["all_rows"]
        expired += counted["expired"]
    whole = sample or 1.0
    return Share(round(rows / whole), round(expired / whole), sample is None)
