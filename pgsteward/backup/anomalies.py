"""Is this backup as large as the ones before it make likely? A pure rule over manifests.

A dump that ended well may still hold much less than yesterday's: somebody deleted, truncated, or dumped from
the wrong server. Such a backup is made all the same; what is odd about it is a finding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from statistics import median

from pgsteward.backup.listing import read_manifest
from pgsteward.backup.manifest import Manifest, catalog_prefix
from pgsteward.backup.newest import newest_ids
from pgsteward.errors import VerificationFailed
from pgsteward.postgres import quote_name
from pgsteward.report.units import humanize_bytes
from pgsteward.results import Note
from pgsteward.storage import Store

NEWEST = 14
"""Backups that count as history: two weeks of nights."""
AT_LEAST = 5
"""Fewer say nothing about what is likely."""
DROP = math.log(2)
"""A drop by half: less than that is not worth waking anybody, however steady the history is."""
DEVIATIONS = 6
"""How many median absolute deviations of the logarithms are likely: sizes that jump widen it."""
ROWS = 1000
"""A table that always had more rows than this, and has none now, is named."""


def history(store: Store, target_name: str, database: str) -> list[Manifest]:
    """Return the newest whole backups of a database in one store, as many as the rule looks at.

    Raises:
        StoreUnavailable: The store can't be asked now.
        StoreFailed: The store refuses.
    """
    found: list[Manifest] = []
    for folder in newest_ids(store.folders(catalog_prefix(target_name, database)), datetime.now(UTC)):
        if len(found) == NEWEST:
            break
        try:
            manifest = read_manifest(store, target_name, database, folder)
        except (FileNotFoundError, VerificationFailed):  # not complete, or damaged: the listing names it
            continue
        if not manifest.partial:
            found.append(manifest)
    return found


def unlikely(before: Sequence[Manifest], now: Manifest) -> list[Note]:
    """Return what about a backup its predecessors make unlikely.

    Bytes are compared with backups of the same compression and mode, rows with those that counted all of
    theirs. A drop by half or more counts where it is also more than six median absolute deviations (of the
    logarithms) below the median. Growth is not looked at.

    Args:
        before: Whole backups of the same database, at most `NEWEST` are meant.
        now: The new one; a partial one is like no other and is not judged.
    """
    if now.partial:
        return []
    alike = [m for m in before if (m.compress, m.mode) == (now.compress, now.mode)]
    found = []
    if (usual := _too_low([m.size_bytes for m in alike], now.size_bytes)) is not None:
        said = f"{humanize_bytes(now.size_bytes)} are stored, usually it is {humanize_bytes(usual)}"
        found.append(Note(now.database, f"much smaller than before: {said}"))
    counted = [m for m in before if _is_counted(m)]
    if not _is_counted(now):
        return found
    if (usual := _too_low([m.proof.rows for m in counted], now.proof.rows)) is not None:
        said = f"{now.proof.rows:,} rows in all tables, usually it is {usual:,}"
        found.append(Note(now.database, f"much fewer rows than before: {said}"))
    return found + _emptied(counted, now)


def _is_counted(manifest: Manifest) -> bool:
    """Tell whether every table was counted, so that the sum means something."""
    return manifest.proof.level != "none" and all(
        relation.rows is not None for relation in manifest.proof.relations if relation.kind == "r"
    )


def _too_low(values: Sequence[int], value: int) -> int | None:
    """Return the usual value where `value` is unlikely low for these, else None."""
    if len(values) < AT_LEAST:
        return None
    logs = [math.log(max(each, 1)) for each in values]
    middle = median(logs)
    spread = median(abs(each - middle) for each in logs)
    allowed = max(DROP, DEVIATIONS * spread)
    return round(median(values)) if middle - math.log(max(value, 1)) > allowed else None


def _emptied(before: Sequence[Manifest], now: Manifest) -> list[Note]:
    if len(before) < AT_LEAST:
        return []
    least: dict[str, int] = {}
    for number, manifest in enumerate(before):
        rows = _rows(manifest)
        least = {
            name: min(count, least.get(name, count))
            for name, count in rows.items()
            if number == 0 or name in least
        }
    return [
        Note(name, f"has no rows now, and had {least[name]:,} or more in the {len(before)} backups before")
        for name, count in sorted(_rows(now).items())
        if count == 0 and least.get(name, 0) > ROWS
    ]


def _rows(manifest: Manifest) -> dict[str, int]:
    """Return rows by table; the partitions between which rows may move count together."""
    rows: dict[str, int] = {}
    for relation in manifest.proof.relations:
        if relation.kind == "r" and relation.rows is not None:
            name = quote_name(*(relation.moves_within or relation.key))
            rows[name] = rows.get(name, 0) + relation.rows
    return rows
