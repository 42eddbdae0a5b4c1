"""Which index is a leftover of ours, and the marks that outlive a killed run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pgsteward.errors import PreconditionError
from pgsteward.leftovers import Mark, Marks, is_transient_name, select_leftovers

MARK = Mark(table_oid=1, index_oid=10, schema="public", name="by_kind", before=(10, 11), shape="kind")


def row(oid: int, name: str, is_valid: bool, shape: str = "kind") -> dict[str, Any]:
    return {"oid": oid, "schema": "public", "name": name, "is_valid": is_valid, "shape": shape}


KEY = row(11, "t_pkey", True)


@pytest.mark.parametrize(
    ("indexes", "left"),
    [
        pytest.param([row(10, "by_kind", True), KEY], [], id="nothing-left"),
        pytest.param([row(10, "by_kind", True), KEY, row(20, "by_kind_ccnew", False)], [20], id="unfinished"),
        pytest.param([row(10, "by_kind", True), KEY, row(20, "by_kind_ccnew2", False)], [20], id="numbered"),
        pytest.param(
            [row(10, "by_kind", True), KEY, row(20, "l" * 57 + "_ccnew", False)], [20], id="cut-name"
        ),
        pytest.param([row(20, "by_kind", True), KEY, row(10, "by_kind_ccold", False)], [10], id="old-one"),
        pytest.param([row(10, "by_kind_ccold", False), KEY], [], id="old-one-without-a-successor"),
        pytest.param([row(10, "by_kind", True), KEY, row(20, "x_ccnew", True)], [], id="a-valid-one"),
        pytest.param(
            [row(10, "by_kind", True), KEY, row(20, "by_day", False)], [], id="somebody-elses-build"
        ),
        pytest.param([row(10, "by_kind", True), row(11, "x_ccnew", False)], [], id="was-there-before"),
        pytest.param(
            [row(10, "by_kind", True), KEY, row(20, "t_pkey_ccnew", False, "id")], [], id="of-another-index"
        ),
    ],
)
def test_only_what_our_rebuild_left_is_a_leftover(indexes: list[dict[str, Any]], left: list[int]) -> None:
    assert [found["oid"] for found in select_leftovers(MARK, indexes)] == left


@pytest.mark.parametrize(
    ("name", "transient"), [("a_ccnew", True), ("a_ccold12", True), ("a_ccnew_b", False), ("ccnew", False)]
)
def test_transient_names(name: str, transient: bool) -> None:
    assert is_transient_name(name) is transient


def test_marks_are_kept_until_they_are_removed(tmp_path: Path) -> None:
    marks = Marks(tmp_path / "reindex" / "1-2.json")
    other = Mark(table_oid=2, index_oid=12, schema='od"d', name="x, y", before=())
    assert marks.read() == []
    marks.add(MARK)
    marks.add(other)
    assert Marks(marks.path).read() == [MARK, other]
    marks.remove(MARK)
    assert marks.read() == [other]
    marks.remove(other)
    assert list(marks.path.parent.iterdir()) == []


def test_a_damaged_file_of_marks_is_refused_not_ignored(tmp_path: Path) -> None:
    marks = Marks(tmp_path / "1-2.json")
    marks.path.write_text("[{")
    with pytest.raises(PreconditionError, match="can't be read"):
        marks.read()
    with pytest.raises(PreconditionError):
        marks.add(MARK)
