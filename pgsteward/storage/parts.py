"""How large the parts of an S3 object are: never more than the store takes, whatever its size becomes."""

from __future__ import annotations

PART_BYTES = 16 << 20
MAX_PARTS = 10_000
"""What S3 takes; a self-test may find that a store takes less."""
FEW_PARTS = 1_000
"""What a store must take at least: OpenStack Swift's own setting."""
MAX_OBJECT_BYTES = 5 << 40
SINGLE_PUT_BYTES = 64 << 20
"""What goes up in one request, if it is not larger."""
LARGEST_PART_BYTES = 1 << 30

_MIB = 1 << 20


def largest_object(max_parts: int, largest_part: int = LARGEST_PART_BYTES) -> int:
    """Return how large an object can be in so many parts."""
    return min(MAX_OBJECT_BYTES, max_parts * largest_part)


def part_size(size_bytes: int, smallest: int = PART_BYTES, max_parts: int = MAX_PARTS) -> int:
    """Return the size of the parts of an object.

    Args:
        size_bytes: Size of the whole object.
        smallest: Used as long as it suffices; S3 itself wants at least 5 MiB.
        max_parts: There are never more.
    """
    return _parts_of(size_bytes, max_parts, smallest)


def first_part_size(
    estimate_bytes: int,
    smallest: int = PART_BYTES,
    max_parts: int = MAX_PARTS,
    largest: int = LARGEST_PART_BYTES,
) -> int:
    """Return the size of the first four fifths of the parts, in which the object is expected to fit."""
    return min(_parts_of(estimate_bytes, _regular(max_parts), smallest), largest)


def streamed_part_size(
    number: int, first: int, max_parts: int = MAX_PARTS, largest: int = LARGEST_PART_BYTES
) -> int:
    """Return the size of one part, counted from 1, of an object that is still growing.

    All are equal as long as the estimate was right (some stores insist on that); then the last
    fifth double eight times, up to the largest, so that an estimate that was far too small still suffices.
    """
    doubled = max(0, -(-(number - _regular(max_parts)) // (max_parts // 40)))
    return first if not doubled else max(first, min(first << doubled, largest))


def _regular(max_parts: int) -> int:
    return max_parts * 4 // 5


def _parts_of(size_bytes: int, parts: int, smallest: int) -> int:
    needed = -(-size_bytes // parts)
    return smallest if needed <= smallest else -(-needed // _MIB) * _MIB
