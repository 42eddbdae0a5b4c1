"""What an index would need after a rebuild, by the catalog's statistics alone: free, and an estimate.

It ranks what is worth measuring, and stands in where nothing can be measured. There is none where it would be
wrong by a multiple: rows that share a key are packed as one list since PostgreSQL 13, and so are NULLs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

_ALIGNMENTS = {"c": 1, "s": 2, "i": 4, "d": 8}
_MAX_ALIGN = 8
_TUPLE_HEADER = 8
_NULL_BITMAP = 8
LINE_POINTER = 4
_ROW_HEADER = 24
PAGE_HEADER = 24
INDEX_PAGE_OVERHEAD = PAGE_HEADER + 16
_INNER_FILL = 0.7
MIN_DISTINCT_SHARE = 0.1
_FEWEST_SHARING, _MOST_SHARING = 1.6, 2_000
"""Rows of one key, between which a rebuild gave back more than was measured, by 6 to 20 points."""
MAX_NULL_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Columns:
    """What the planner knows about the columns of one index, in their order; None where it knows nothing.

    Attributes:
        may_read: Our role may see the statistics of the table.
        keys: How many of them are keys; the others are included.
        lengths: ``pg_attribute.attlen``: -1 for types without a fixed length.
        alignments: ``pg_attribute.attalign``.
        widths: Average bytes of a value that is not NULL.
        null_shares: Share of NULLs.
        distinct_counts: As in ``pg_stats``: negative is a share of the rows.
    """

    may_read: bool
    keys: int
    lengths: Sequence[int]
    alignments: Sequence[str]
    widths: Sequence[int | None]
    null_shares: Sequence[float | None]
    distinct_counts: Sequence[float | None]

    @classmethod
    def of(cls, row: dict[str, Any]) -> Columns:
        """Return those of a row of ``index_columns.sql``."""
        return cls(**{name: row[name] for name in cls.__slots__})

    @property
    def are_known(self) -> bool:
        return None not in self.widths

    def distinct_share(self, row_count: float) -> float | None:
        """Return a lower bound of distinct keys per row; None where every column is mostly NULL."""
        shares = [
            -count if count < 0 else count / max(row_count, 1.0)
            for count, nulls in zip(self.distinct_counts, self.null_shares, strict=True)
            if count is not None and nulls is not None and nulls <= MAX_NULL_SHARE
        ]
        return max(shares, default=None)


def why_not_estimable(row_count: float, columns: Columns, *, is_unique: bool) -> str | None:
    """Return why statistics say nothing about the size of an index, or None.

    Args:
        row_count: Its entries.
        columns: What is known about them.
        is_unique: No two of its keys are the same, but for NULLs.
    """
    if row_count < 0 or not columns.are_known:
        return "its table has no statistics yet; run ANALYZE"
    share = columns.distinct_share(row_count)
    if share is None:
        return "its keys are mostly NULL"
    if share < MIN_DISTINCT_SHARE and not is_unique:
        return "many rows share a key, and how well they are packed is in no statistics"
    return None


def rows_per_merged_key(row_count: float, columns: Columns) -> float | None:
    """Return how many rows share a key, where a rebuild packs them closer than they were when they came.

    None where keys are distinct, or so few that each fills pages of its own; where columns are included,
    which keeps PostgreSQL from merging; and where nobody knows.
    """
    share = columns.distinct_share(row_count)
    if share is None or row_count < 0 or columns.keys < len(columns.lengths):
        return None
    sharing = 1 / share if share > 0 else 0.0
    return sharing if _FEWEST_SHARING <= sharing <= _MOST_SHARING else None


def entry_bytes(columns: Columns, first: int | None = None) -> float:
    """Return what an entry takes in its page, with its pointer; 0 where some column is not known.

    Args:
        columns: Of the index.
        first: Only so many of them.
    """
    end = 0.0
    each = zip(columns.lengths, columns.alignments, columns.widths, columns.null_shares, strict=True)
    for length, alignment, width, nulls in islice(each, first):
        if width is None:
            return 0.0
        if length > 0:  # values without a fixed length are mostly short ones, which are not aligned
            end = _aligned(end, _ALIGNMENTS[alignment])
        end += (1 - (nulls or 0.0)) * width
    header = _TUPLE_HEADER + (_NULL_BITMAP if any(columns.null_shares) else 0)
    return header + _aligned(end, _MAX_ALIGN) + LINE_POINTER


def bound_bytes(columns: Columns) -> float:
    """Return what the upper bound of a leaf page takes: an entry up to what tells it from the next."""
    telling = (n for n, count in enumerate(columns.distinct_counts, 1) if (count or 0.0) <= -0.5)
    return entry_bytes(columns, min(next(telling, columns.keys), columns.keys))


def needed_bytes(row_count: float, columns: Columns, fillfactor: float, block_size: int = 8192) -> int:
    """Return the size of a freshly built B-tree.

    Args:
        row_count: Its entries.
        columns: All of them known.
        fillfactor: Of the index, percent.
        block_size: Of the server, bytes.
    """
    entry = entry_bytes(columns)
    room = block_size - INDEX_PAGE_OVERHEAD - block_size * (1 - fillfactor / 100)
    leaves = max(row_count / max(room // entry, 1), 1.0)
    fan_out = max((block_size - INDEX_PAGE_OVERHEAD) * _INNER_FILL // entry, 2)
    inner = leaves / (fan_out - 1) if leaves > 1 else 0.0
    return int((leaves + inner + 1) * block_size)


def heap_bytes(row_count: float, width: float, fillfactor: float, block_size: int = 8192) -> int:
    """Return the size of a freshly written table.

    Args:
        row_count: Its rows.
        width: Average bytes of the values of one.
        fillfactor: Of the table, percent.
        block_size: Of the server, bytes.
    """
    per_page = max((block_size - PAGE_HEADER) * fillfactor / 100 // row_bytes(width), 1)
    return int(row_count / per_page * block_size)


def row_bytes(width: float) -> float:
    """Return what a row takes in its page, with its pointer.

    Args:
        width: Average bytes of its values.
    """
    return _ROW_HEADER + _aligned(width, _MAX_ALIGN) + LINE_POINTER


def _aligned(end: float, to: int) -> float:
    return -(-end // to) * to
