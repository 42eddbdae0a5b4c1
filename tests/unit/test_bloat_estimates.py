"""The size of an index by statistics alone, beside the sizes of real ones on PostgreSQL 17."""

from __future__ import annotations

import pytest

from pgsteward.bloat_estimates import (
    Columns,
    bound_bytes,
    needed_bytes,
    rows_per_merged_key,
    why_not_estimable,
)


def columns(
    width: int | None = 8,
    *,
    length: int = 8,
    alignment: str = "d",
    nulls: float = 0.0,
    distinct: float = -1.0,
    may_read: bool = True,
) -> Columns:
    known = width is not None
    return Columns(
        may_read, 1, [length], [alignment], [width], [nulls if known else None], [distinct if known else None]
    )


@pytest.mark.parametrize(
    ("rows", "described", "fillfactor", "size"),
    [
        # rows, statistics and size of an index right after CREATE INDEX
        pytest.param(300_000, columns(), 90, 6_758_400, id="bigint"),
        pytest.param(300_000, columns(), 50, 12_238_848, id="half-full"),
        pytest.param(300_000, columns(4, length=4, alignment="i"), 90, 6_758_400, id="integer"),
        pytest.param(300_000, columns(16, length=16, alignment="c"), 90, 9_486_336, id="uuid"),
        pytest.param(300_000, columns(33, length=-1, alignment="i"), 90, 17_735_680, id="text"),
    ],
)
def test_an_estimate_is_near_a_fresh_index(rows: int, described: Columns, fillfactor: int, size: int) -> None:
    assert needed_bytes(rows, described, fillfactor) == pytest.approx(size, rel=0.03)


@pytest.mark.parametrize(
    ("described", "sharing"),
    [
        pytest.param(columns(distinct=-1), None, id="distinct"),
        pytest.param(columns(distinct=-0.5), 2, id="two-rows-each"),
        pytest.param(columns(distinct=1_000), 100, id="a-hundred-each"),
        pytest.param(columns(distinct=8), None, id="each-key-fills-pages"),
        pytest.param(columns(None), None, id="unknown"),
        pytest.param(
            Columns(True, 1, [8, 8], ["d", "d"], [8, 8], [0.0, 0.0], [-0.5, -0.5]), None, id="included"
        ),
    ],
)
def test_rows_that_share_a_key_are_merged(described: Columns, sharing: float | None) -> None:
    assert rows_per_merged_key(100_000, described) == sharing


def test_columns_are_aligned_one_after_the_other() -> None:
    two = Columns(True, 2, [4, 8], ["i", "d"], [4, 8], [0.0, 0.0], [-1.0, -1.0])
    turned = Columns(True, 2, [8, 4], ["d", "i"], [8, 4], [0.0, 0.0], [-1.0, -1.0])
    assert needed_bytes(300_000, two, 90) == needed_bytes(300_000, turned, 90)
    assert needed_bytes(300_000, two, 90) == needed_bytes(300_000, columns(16, length=16), 90)


@pytest.mark.parametrize(
    ("rows", "described", "unique", "reason"),
    [
        pytest.param(1000, columns(), False, None, id="distinct"),
        pytest.param(1000, columns(distinct=100), False, None, id="a-tenth-is-distinct"),
        pytest.param(1000, columns(distinct=99), False, "share a key", id="less-than-a-tenth"),
        pytest.param(1000, columns(distinct=-0.05), False, "share a key", id="less-than-a-tenth-as-a-share"),
        pytest.param(1000, columns(distinct=99), True, None, id="a-unique-key-has-no-equals"),
        pytest.param(1000, columns(nulls=0.5), False, None, id="half-null"),
        pytest.param(1000, columns(nulls=0.51), False, "mostly NULL", id="mostly-null"),
        pytest.param(1000, columns(nulls=0.95), True, "mostly NULL", id="unique-and-mostly-null"),
        pytest.param(-1, columns(), False, "ANALYZE", id="never-analyzed"),
        pytest.param(1000, columns(None), False, "ANALYZE", id="no-statistics"),
    ],
)
def test_what_statistics_can_not_say_is_not_estimated(
    rows: int, described: Columns, unique: bool, reason: str | None
) -> None:
    found = why_not_estimable(rows, described, is_unique=unique)
    assert found is None if reason is None else reason in str(found)


def test_one_distinct_column_is_enough() -> None:
    both = Columns(True, 2, [4, 8], ["i", "d"], [4, 8], [0.0, 0.0], [8.0, -1.0])
    assert why_not_estimable(1000, both, is_unique=False) is None


@pytest.mark.parametrize(
    ("described", "size"),
    [
        pytest.param(Columns(True, 1, [8], ["d"], [8], [0.0], [-1.0]), 20, id="one-key"),
        pytest.param(
            Columns(True, 2, [4, 8], ["i", "d"], [4, 8], [0.0, 0.0], [8.0, -1.0]), 28, id="both-keys"
        ),
        pytest.param(
            Columns(True, 2, [8, 4], ["d", "i"], [8, 4], [0.0, 0.0], [-1.0, 8.0]), 20, id="the-first-tells"
        ),
        pytest.param(
            Columns(True, 1, [4, -1], ["i", "i"], [4, 500], [0.0, 0.0], [8.0, -1.0]), 20, id="included"
        ),
        pytest.param(Columns(True, 1, [8], ["d"], [None], [None], [None]), 0, id="unknown"),
    ],
)
def test_the_bound_of_a_page_has_no_more_than_tells_it_from_the_next(described: Columns, size: int) -> None:
    assert bound_bytes(described) == size
