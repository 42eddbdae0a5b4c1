"""What takes the space: tables, their indexes, their TOAST, largest first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pgsteward import sql
from pgsteward.audit.inventory import Inventory, unlocked
from pgsteward.postgres import Connection, Row, quote_name


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes in bytes.

    Attributes:
        tables: One row for each table, largest first: see ``docs/json.md``.
        indexes: By OID; a partitioned index has those of its parts together.
        locked: Names of tables whose size could not be read.
    """

    tables: tuple[Mapping[str, Any], ...]
    indexes: Mapping[int, int]
    locked: tuple[str, ...]


def measure(connection: Connection, inventory: Inventory) -> Sizes:
    """Read the sizes of all tables and indexes that nobody holds locked."""

    def ask(locked: set[int]) -> list[Row]:
        return connection.rows(sql.load("audit_sizes"), {"locked": list(locked)})

    def ask_indexes(locked: set[int]) -> list[Row]:
        oids = [i.oid for i in inventory.indexes if not {i.oid, i.table_oid} & locked]
        return connection.rows(
            "SELECT o AS oid, pg_relation_size(o::oid) AS bytes FROM unnest(%(oids)s::int8[]) AS o",
            {"oids": oids},
        )

    rows = unlocked(connection, ask) or []
    plain = {r["oid"]: r["bytes"] for r in unlocked(connection, ask_indexes) or [] if r["bytes"] is not None}
    of_table: dict[int, int] = {}
    for index in inventory.indexes:
        of_table[index.table_oid] = of_table.get(index.table_oid, 0) + plain.get(index.oid, 0)
    tables = [
        {
            "table": quote_name(row["schema"], row["name"]),
            "total_bytes": row["table_bytes"] + row["toast_bytes"] + of_table.get(row["oid"], 0),
            "table_bytes": row["table_bytes"],
            "index_bytes": of_table.get(row["oid"], 0),
            "toast_bytes": row["toast_bytes"],
        }
        for row in rows
        if row["table_bytes"] is not None
    ]
    known = {row["oid"] for row in rows}
    locked = {
        i.table
        for i in inventory.indexes
        if not i.is_partitioned and (i.oid not in plain or i.table_oid not in known)
    }
    return Sizes(
        tables=tuple(sorted(tables, key=lambda table: (-table["total_bytes"], table["table"]))),
        indexes={
            index.oid: sum(plain.get(leaf.oid, 0) for leaf in inventory.leaves(index))
            for index in inventory.indexes
            if index.is_partitioned or index.oid in plain
        },
        locked=tuple(sorted(locked)),
    )
