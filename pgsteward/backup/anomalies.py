"""Is this backup as large as the ones before it make likely? A pure rule over manifests.

A dump that ended well may still hold much less than yesterday's: somebody deleted, truncated, or dumped from
the wrong server. Or much more: a table is filled in a loop, a load ran twice. Such a backup is made all the
same; what is odd about it is a finding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from statistics import median

from pgsteward.backup.figures import Earlier, Figures, rows_by_table
from pgsteward.backup.manifest import Manifest, catalog_prefix
from pgsteward.backup.newest import newest_ids
from pgsteward.errors import VerificationFailed
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
GROWTH = 4
"""How many times the largest is unlikely. That is the yardstick, so that growth is told in one night only."""
MUCH_BYTES, MUCH_ROWS = 16 << 20, 10_000
"""Growth by less is not worth waking anybody, however small the database was."""


def history(store: Store, earlier: Earlier, target_name: str, database: str) -> list[Figures]:
    """Return the newest whole backups of a database in one store, as many as the rule looks at.

    Raises:
        StoreUnavailable: The store can't be asked now.
        StoreFailed: The store refuses.
    """
    found: list[Figures] = []
    for folder in newest_ids(store.folders(catalog_prefix(target_name, database)), datetime.now(UTC)):
        if len(found) == NEWEST:
            break
        try:
            figures = earlier.read(store, folder)
        except (FileNotFoundError, VerificationFailed):  # not complete, or damaged: the listing names it
            continue
        if not figures.partial:
            found.append(figures)
    return found


def unlikely(before: Sequence[Figures], now: Manifest) -> list[Note]:
    """Return what about a backup its predecessors make unlikely.

    Bytes are compared with backups of the same compression and mode, rows with those that counted all of
    theirs. A drop by half or more counts where it is also more than six median absolute deviations (of the
    logarithms) below the median; growth where it is more than four times the largest of them, and not little.

    Args:
        before: Whole backups of the same database, at most `NEWEST` are meant.
        now: The new one; a partial one is like no other and is not judged.
    """
    if now.partial:
        return []
    this = Figures.of(now)
    alike = [each for each in before if (each.compress, each.mode) == (this.compress, this.mode)]
    found = []
    sizes = [each.size_bytes for each in alike]
    stored = f"{humanize_bytes(this.size_bytes)} are stored"
    if (usual := _too_low(sizes, this.size_bytes)) is not None:
        said = f"{stored}, usually it is {humanize_bytes(usual)}"
        found.append(Note(now.database, f"much smaller than before: {said}"))
    elif (most := _too_high(sizes, this.size_bytes, MUCH_BYTES)) is not None:
        said = f"{stored}, in the {len(sizes)} backups before it was at most {humanize_bytes(most)}"
        found.append(Note(now.database, f"much larger than before: {said}"))
    counted = [each for each in before if each.counted]
    if not this.counted:
        return found
    rows = [each.rows for each in counted]
    if (usual := _too_low(rows, this.rows)) is not None:
        said = f"{this.rows:,} rows in all tables, usually it is {usual:,}"
        found.append(Note(now.database, f"much fewer rows than before: {said}"))
    elif (most := _too_high(rows, this.rows, MUCH_ROWS)) is not None:
        said = f"{this.rows:,} rows in all tables, in the {len(rows)} backups before it was at most {most:,}"
        found.append(Note(now.database, f"many more rows than before: {said}"))
    return found + _emptied(counted, now)


def _too_low(values: Sequence[int], value: int) -> int | None:
    """Return the usual value where `value` is unlikely low for these, else None."""
    if len(values) < AT_LEAST:
        return None
    logs = [math.log(max(each, 1)) for each in values]
    middle = median(logs)
    spread = median(abs(each - middle) for each in logs)
    allowed = max(DROP, DEVIATIONS * spread)
    return round(median(values)) if middle - math.log(max(value, 1)) > allowed else None


def _too_high(values: Sequence[int], value: int, much: int) -> int | None:
    """Return the highest value where `value` is unlikely high for these, else None."""
    if len(values) < AT_LEAST:
        return None
    most = max(values)
    return most if value > GROWTH * most and value - most >= much else None


def _emptied(before: Sequence[Figures], now: Manifest) -> list[Note]:
    if len(before) < AT_LEAST:
        return []
    always = set.intersection(*(set(each.large) for each in before))
    least = {name: min(each.large[name] for each in before) for name in always}
    return [
        Note(name, f"has no rows now, and had {least[name]:,} or more in the {len(before)} backups before")
        for name, count in sorted(rows_by_table(now).items())
        if count == 0 and name in least
    ]
