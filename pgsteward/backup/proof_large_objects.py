"""The large objects' part of a proof: counted, and hashed in ranges of OIDs."""

from __future__ import annotations

from typing import Literal

from pgsteward.backup.manifest import LargeObjects
from pgsteward.backup.proof_bound import NOT_REACHED, Bound
from pgsteward.backup.proof_hash import large_object_statement
from pgsteward.errors import QueryFailed
from pgsteward.postgres import Connection
from pgsteward.progress import Progress
from pgsteward.sql import load

NO_RIGHT = "counted only: this role may not read all of them"


def examine_large_objects(
    connection: Connection, level: str, method: str, bound: Bound, progress: Progress
) -> LargeObjects:
    """Count the large objects in the running transaction, and hash them at level ``full``.

    A role without SELECT on pg_largeobject, but on each object (as pg_dump needs it), reads them one by one.
    """
    count = connection.value("SELECT count(*) FROM pg_largeobject_metadata")
    if level == "counts":
        return LargeObjects(count=count)
    pages: Literal["proof_pages_table", "proof_pages_read"] = "proof_pages_table"
    if not connection.value("SELECT has_table_privilege('pg_catalog.pg_largeobject', 'SELECT')"):
        pages = "proof_pages_read"
        if connection.rows(load("unreadable_large_objects")):
            return LargeObjects(count=count, not_examined=NO_RIGHT)
    statement = large_object_statement(method, pages)
    done = size_bytes = hash_a = hash_b = 0
    try:
        for part in connection.rows(load("proof_large_object_ranges")):
            if bound.reached:
                return LargeObjects(count=count, not_examined=NOT_REACHED)
            progress("proving large objects", done, count)
            bound.limit(connection)
            found = connection.row(statement, part)
            done += found["object_count"]
            size_bytes += found["size_bytes"]
            hash_a += int(found["hash_a"])
            hash_b += int(found["hash_b"])
    except QueryFailed as exc:
        if not bound.ended(exc):
            raise
        return LargeObjects(count=count, not_examined=NOT_REACHED)
    return LargeObjects(count=count, size_bytes=size_bytes, hash_a=str(hash_a), hash_b=str(hash_b))
