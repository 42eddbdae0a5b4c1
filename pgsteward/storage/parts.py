"""How large the parts of an S3 object are: never more than 10,000, whatever its size turns out to be."""

from __future__ import annotations

PART_BYTES = 16 << 20
MAX_PARTS = 10_000
MAX_OBJECT_BYTES = 5 << 40

_MIB = 1 << 20
_REGULAR = 8_000
_DOUBLES_EVERY = 250
_LARGEST = 1 << 30


def part_size(size_bytes: int, smallest: int = PART_BYTES) -> int:
    """Return the size of the parts of an object: never more than 10,000 of them.

    Args:
        size_bytes: Size of the whole object.
        smallest: Used as long as it suffices; S3 itself wants at least 5 MiB.
    """
    return _parts_of(size_bytes, MAX_PARTS, smallest)


def first_part_size(estimate_bytes: int, smallest: int = PART_BYTES) -> int:
    """Return the size of the first 8,000 parts of an object that is expected to fit into them."""
    return min(_parts_of(estimate_bytes, _REGULAR, smallest), _LARGEST)


def streamed_part_size(number: int, first: int) -> int:
    """Return the size of one part, counted from 1, of an object that is still growing.

    All are equal as long as the estimate was right (some stores insist on that); then they double every 250
    parts up to 1 GiB, so that an estimate that was far too small still suffices.
    """
    doubled = max(0, -(-(number - _REGULAR) // _DOUBLES_EVERY))
    return first if not doubled else max(first, min(first << doubled, _LARGEST))


def _parts_of(size_bytes: int, parts: int, smallest: int) -> int:
    needed = -(-size_bytes // parts)
    return smallest if needed <= smallest else -(-needed // _MIB) * _MIB
