"""How several sessions share out the relations that they examine."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pgsteward.postgres import Row

OF_EACH = 8
"""About as many shares of each session: the more, the more evenly they end."""


def cut(todo: Sequence[Row], sessions: int, most: int) -> list[list[Row]]:
    """Cut relations into shares, for whoever is free to take the next one.

    Args:
        todo: Rows with ``pages``, the largest first.
        sessions: How many there are.
        most: Relations of one share.
    """
    enough = sum(row["pages"] for row in todo) / (OF_EACH * sessions)
    shares: list[list[Row]] = []
    pages = math.inf  # of the last share
    for row in todo:
        if pages + row["pages"] > enough or len(shares[-1]) == most:
            shares.append([])
            pages = 0.0
        shares[-1].append(row)
        pages += row["pages"]
    return shares
