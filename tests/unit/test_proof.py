from __future__ import annotations

import pytest

from pgsteward.backup.manifest import LargeObjects, Proof, Relation, Sequence
from pgsteward.backup.proof_compare import compare, not_compared
from pgsteward.backup.proof_gaps import NOT_POPULATED, not_examined
from pgsteward.backup.proof_shares import cut
from pgsteward.errors import PreconditionError


def relation(name: str = "t", **changes: object) -> Relation:
    fields = {"schema_name": "public", "name": name, "kind": "r", "rows": 5, "hash_a": "1", "hash_b": "2"}
    return Relation.model_validate({**fields, **changes})


def proof(*relations: Relation, **changes: object) -> Proof:
    return Proof.model_validate({"level": "full", "relations": relations, **changes})


@pytest.mark.parametrize(
    ("found", "sentences"),
    [
        pytest.param(proof(relation()), [], id="equal"),
        pytest.param(
            proof(relation(rows=4, hash_a="9")), ["public.t: has 4 rows, the backup has 5"], id="rows"
        ),
        pytest.param(
            proof(relation(hash_a="9")), ["public.t: content differs (5 rows in both)"], id="first-hash"
        ),
        pytest.param(
            proof(relation(hash_b="9")), ["public.t: content differs (5 rows in both)"], id="second-hash"
        ),
        pytest.param(proof(), ["public.t: is missing"], id="missing"),
        pytest.param(
            proof(relation(), relation('Order "Lines')),
            ['public."Order ""Lines": is not in the backup'],
            id="one-too-many",
        ),
        pytest.param(
            proof(relation(rows=None, not_examined="no rights")),
            ["public.t: could not be examined: no rights"],
            id="not-examined-is-not-equal",
        ),
        pytest.param(proof(relation(hash_a=None, hash_b=None), level="counts"), [], id="counted-only"),
        pytest.param(
            proof(relation(hash_a=None, hash_b=None)),
            ["public.t: content differs (5 rows in both)"],
            id="without-its-hash",
        ),
    ],
)
def test_a_difference_names_the_table(found: Proof, sentences: list[str]) -> None:
    assert [str(each) for each in compare(proof(relation()), found)] == sentences


def test_a_refreshed_view_may_differ_but_must_be_populated() -> None:
    expected = proof(relation("v", kind="m", rows=3, hash_a=None, hash_b=None))
    assert compare(expected, proof(relation("v", kind="m", rows=9, hash_a=None, hash_b=None))) == []
    empty = proof(relation("v", kind="m", rows=None, not_examined=NOT_POPULATED))
    assert [each.what for each in compare(expected, empty)] == ["could not be examined: not populated"]
    assert compare(empty, expected) == []


def test_sequences_and_large_objects_are_compared_with_zero_tolerance() -> None:
    expected = proof(
        sequences=[Sequence(schema_name="s", name="q", last_value=5, is_called=True)],
        large_objects=LargeObjects(count=2, size_bytes=10, hash_a="1", hash_b="2"),
    )
    found = proof(
        sequences=[Sequence(schema_name="s", name="q", last_value=6, is_called=True)],
        large_objects=LargeObjects(count=2, size_bytes=10, hash_a="1", hash_b="3"),
    )
    assert compare(expected, expected) == []
    assert [str(each) for each in compare(expected, found)] == [
        "sequence s.q: stands at 6, the backup has 5",
        "large objects: content differs (2 in both)",
    ]
    fewer = proof(large_objects=LargeObjects(count=1))
    assert [str(each) for each in compare(expected, fewer)] == [
        "sequence s.q: is missing",
        "large objects: there are 1, the backup has 2",
    ]


def test_a_proof_by_another_method_is_not_compared_at_all() -> None:
    with pytest.raises(PreconditionError, match="text-v2"):
        compare(proof(method="text-v2"), proof())


def test_what_was_not_examined_is_listed() -> None:
    taken = proof(
        relation(), relation("u", rows=None, not_examined="broken"), large_objects=LargeObjects(count=3)
    )
    assert [name for name, _ in not_examined(taken)] == ["public.u", "large objects"]


def test_what_the_restored_copys_role_could_not_read_is_not_called_equal() -> None:
    read = LargeObjects(count=2, size_bytes=10, hash_a="1", hash_b="2")
    expected, found = proof(large_objects=read), proof(large_objects=LargeObjects(count=2))
    assert compare(expected, found) == []
    assert [name for name, _ in not_compared(expected, found)] == ["large objects"]
    assert not_compared(expected, expected) == []
    assert [name for name, _ in not_compared(found, expected)] == ["large objects"]


@pytest.mark.parametrize(
    ("pages", "sessions", "most", "expected"),
    [
        pytest.param([], 2, 500, [], id="nothing"),
        pytest.param([0, 0, 0], 2, 2, [[0, 0], [0]], id="empty-tables-by-their-number"),
        pytest.param([100, 2, 1, 1], 2, 500, [[100], [2, 1, 1]], id="a-large-one-alone"),
        pytest.param([10] * 4, 1, 500, [[10]] * 4, id="equals"),
    ],
)
def test_relations_are_cut_into_shares_that_end_at_about_the_same_time(
    pages: list[int], sessions: int, most: int, expected: list[list[int]]
) -> None:
    shares = cut([{"pages": each} for each in pages], sessions, most)
    assert [[row["pages"] for row in share] for share in shares] == expected
