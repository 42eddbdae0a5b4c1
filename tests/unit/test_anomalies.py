from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgsteward.backup.anomalies import AT_LEAST, MUCH_BYTES, MUCH_ROWS, unlikely
from pgsteward.backup.figures import Figures
from pgsteward.backup.manifest import Manifest, Proof, Relation, StoredFile
from tests.unit.test_manifest import manifest


def backup(
    size_bytes: int = 1_000_000, level: str = "full", compress: str = "zstd:1", **rows: int | None
) -> Manifest:
    relations = tuple(
        Relation(schema_name="public", name=name, kind="r", rows=count) for name, count in rows.items()
    )
    return manifest(
        files=(StoredFile(path="dump/1.dat", size_bytes=size_bytes, sha256="00"),),
        proof=Proof.model_validate({"level": level, "relations": relations}),
        compress=compress,
    )


def reasons(before: list[Manifest], now: Manifest) -> list[str]:
    return [f"{note.object}: {note.reason}" for note in unlikely(list(map(Figures.of, before)), now)]


@pytest.mark.parametrize(
    ("sizes", "now", "odd"),
    [
        pytest.param([100] * 14, 49, True, id="less-than-half-of-a-steady-history"),
        pytest.param([100] * 14, 51, False, id="a-little-more-than-half"),
        pytest.param([100] * (AT_LEAST - 1), 1, False, id="too-few-to-know"),
        pytest.param([100] * AT_LEAST, 0, True, id="nothing-at-all"),
        pytest.param([10, 100, 1000, 10, 100, 1000], 20, False, id="sizes-that-always-jumped"),
        pytest.param([100, 100, 100, 100, 1], 40, True, id="one-small-backup-makes-no-rule"),
        pytest.param([0] * 6, 0, False, id="always-empty"),
    ],
)
def test_a_drop_beyond_what_is_likely_is_named(sizes: list[int], now: int, odd: bool) -> None:
    kilo = 1000
    said = reasons([backup(size * kilo) for size in sizes], backup(now * kilo))
    assert bool(said) == odd
    assert all("much smaller" in each for each in said)
    rows = reasons([backup(t=size * kilo) for size in sizes], backup(t=now * kilo))
    assert any("fewer rows" in each for each in rows) == odd


@pytest.mark.parametrize(
    ("sizes", "now", "odd"),
    [
        pytest.param([10_000] * 14, 40_001, True, id="more-than-four-times-the-largest"),
        pytest.param([10_000] * 14, 40_000, False, id="four-times"),
        pytest.param([10_000] * 13 + [20_000], 40_001, False, id="only-the-largest-counts"),
        pytest.param([10_000] * (AT_LEAST - 1), 10**6, False, id="too-few-to-know"),
        pytest.param([3] * 14, 10_002, False, id="little-although-many-times"),
        pytest.param([0] * AT_LEAST, 10_010, True, id="always-empty"),
    ],
)
def test_growth_beyond_what_is_likely_is_named(sizes: list[int], now: int, odd: bool) -> None:
    said = reasons([backup(t=size) for size in sizes], backup(t=now))
    assert bool(said) == odd
    assert all("many more rows" in each for each in said)
    row = MUCH_BYTES // MUCH_ROWS
    said = reasons([backup(size * row) for size in sizes], backup(now * row))
    assert bool(said) == odd
    assert all("much larger" in each for each in said)


def test_another_compression_is_another_size() -> None:
    before = [backup(1_000_000, compress="none") for _ in range(6)]
    assert reasons(before, backup(100_000, compress="zstd:1")) == []


def test_a_table_that_always_had_rows_and_has_none_is_named() -> None:
    before = [backup(a=5_000_000, b=1001 + n, small=1000) for n in range(5)]
    assert reasons(before, backup(a=5_000_000, b=0, small=0)) == [
        "public.b: has no rows now, and had 1,001 or more in the 5 backups before"
    ]
    assert reasons([*before, backup(a=5_000_000, b=0, small=1)], backup(a=5_000_000, b=0, small=0)) == []
    assert reasons(before, backup(a=5_000_000)) == [], "a table that was dropped is no emptied one"


def test_what_was_not_counted_is_not_compared() -> None:
    before = [backup(a=5_000_000) for _ in range(5)]
    assert reasons(before, backup(level="none")) == []
    assert reasons(before, backup(a=None)) == []
    assert reasons([backup(level="none") for _ in range(5)], backup(a=1)) == []


def test_a_part_is_like_no_whole() -> None:
    before = [backup(a=5_000_000) for _ in range(5)]
    part = backup(10, a=0).model_copy(update={"partial": ("tables: public.a only",)})
    assert reasons(before, part) == []


@given(st.lists(st.integers(0, 10**12), max_size=14), st.integers(0, 10**12))
def test_a_backup_between_the_usual_one_and_the_largest_is_never_odd(sizes: list[int], now: int) -> None:
    before = [backup(size) for size in sizes]
    if not sizes or sorted(sizes)[len(sizes) // 2] <= now <= max(sizes):
        assert reasons(before, backup(now)) == []
