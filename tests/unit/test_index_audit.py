"""What the audit decides from what it has seen: superfluous, supported, used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pgsteward.audit.ddl import free_name, tail_of
from pgsteward.audit.duplicates import find_superfluous
from pgsteward.audit.findings import choose_going
from pgsteward.audit.foreign_keys import find_unsupported
from pgsteward.audit.inventory import ForeignKey, Index, Inventory, Key
from pgsteward.audit.problem import Problem
from pgsteward.audit.required import find_named
from pgsteward.audit.usage import Counter, Observation, judge, judge_all
from pgsteward.report.units import plural

NOW = datetime(2026, 11, 23, 2, tzinfo=UTC)
MONTH = timedelta(days=30)


def index(oid: int, columns: str, **more: Any) -> Index:
    """An index of table 1 on columns by their letters; those behind a slash are carried along."""
    keys, _, carried = columns.partition("/")
    plain: dict[str, Any] = {
        "oid": oid,
        "schema": "app",
        "name": f"i{oid}",
        "kind": "i",
        "parent_oid": None,
        "table_oid": 1,
        "table_name": "t",
        "table_kind": "r",
        "method": "btree",
        "tablespace": None,
        "is_unique": False,
        "nulls_not_distinct": False,
        "is_immediate": True,
        "is_exclusion": False,
        "is_valid": True,
        "is_replica_identity": False,
        "is_clustered": False,
        "key_count": len(keys),
        "has_expressions": False,
        "is_partial": False,
        "columns": tuple(keys + carried),
        "keys": tuple(Key(column, False, 10, 100, 0) for column in keys),
        "class_options": None,
        "constraint_name": None,
        "constraint_type": None,
        "is_referenced": False,
        "is_of_extension": False,
        "builder_pid": None,
    }
    return Index(**{**plain, **more})


def primary(oid: int, columns: str, **more: Any) -> Index:
    return index(oid, columns, is_unique=True, constraint_name=f"i{oid}", constraint_type="p", **more)


def descending(found: Index) -> Index:
    return replace(found, keys=tuple(replace(key, option=3) for key in found.keys))


@pytest.mark.parametrize(
    ("indexes", "superfluous"),
    [
        pytest.param([index(1, "a"), index(2, "a")], {2: ("duplicate", 1)}, id="twice-the-younger-goes"),
        pytest.param([index(1, "a"), index(2, "ab")], {1: ("redundant", 2)}, id="prefix"),
        pytest.param(
            [index(1, "a"), index(2, "ab"), index(3, "abc")],
            {1: ("redundant", 3), 2: ("redundant", 3)},
            id="prefixes-point-at-what-stays",
        ),
        pytest.param(
            [index(1, "a"), index(2, "a"), index(3, "ab")],
            {1: ("redundant", 3), 2: ("redundant", 3)},
            id="copies-point-at-what-stays",
        ),
        pytest.param([index(1, "b"), index(2, "ab")], {}, id="not-the-first-column"),
        pytest.param([index(1, "a", is_unique=True), index(2, "ab")], {}, id="unique-prefix-stays"),
        pytest.param(
            [index(1, "a", is_unique=True), index(2, "ab", is_unique=True)], {}, id="both-unique-both-stay"
        ),
        pytest.param(
            [index(1, "a", is_unique=True), index(2, "a")], {2: ("duplicate", 1)}, id="the-plain-one-goes"
        ),
        pytest.param([primary(1, "a"), index(2, "ab")], {}, id="primary-key-stays"),
        pytest.param(
            [primary(1, "a"), index(2, "a", is_unique=True)], {2: ("duplicate", 1)}, id="unique-beside-key"
        ),
        pytest.param(
            [index(1, "a", is_unique=True), index(2, "a", is_unique=True, is_immediate=False)],
            {2: ("duplicate", 1)},
            id="deferrable-goes",
        ),
        pytest.param(
            [index(1, "a", is_unique=True), index(2, "a", is_unique=True, nulls_not_distinct=True)],
            {},
            id="nulls-count-otherwise",
        ),
        pytest.param([index(1, "a/x"), index(2, "ab")], {}, id="carries-what-the-longer-lacks"),
        pytest.param([index(1, "a/b"), index(2, "ab")], {1: ("redundant", 2)}, id="carried-column-is-a-key"),
        pytest.param([index(1, "a"), index(2, "a/b")], {1: ("redundant", 2)}, id="same-key-carries-more"),
        pytest.param([index(1, "a/bc"), index(2, "a/cb")], {2: ("duplicate", 1)}, id="carried-in-any-order"),
        pytest.param([index(1, "a"), index(2, "a", predicate="(b > 1)")], {}, id="other-rows"),
        pytest.param([index(1, "a"), descending(index(2, "a"))], {}, id="other-order"),
        pytest.param([index(1, "a"), index(2, "a", method="hash")], {}, id="other-method"),
        pytest.param(
            [
                index(1, "a", method="brin"),
                index(2, "a", method="brin", method_options="{pages_per_range=8}"),
            ],
            {},
            id="other-options-of-the-method",
        ),
        pytest.param([index(1, "a", method="gin"), index(2, "ab", method="gin")], {}, id="no-prefix-in-gin"),
        pytest.param(
            [index(1, "a", is_replica_identity=True, is_unique=True), index(2, "a")],
            {2: ("duplicate", 1)},
            id="replica-identity-stays",
        ),
        pytest.param([index(1, "a"), index(2, "a", is_valid=False)], {}, id="invalid-serves-nobody"),
        pytest.param([index(1, "a"), index(2, "a", is_readable=False)], {}, id="locked-is-not-judged"),
        pytest.param([index(1, "a"), index(2, "a", parent_oid=9)], {1: ("duplicate", 2)}, id="part-stays"),
        pytest.param(
            [index(1, "a", is_referenced=True, is_unique=True), index(2, "a", is_unique=True)],
            {2: ("duplicate", 1)},
            id="what-keys-refer-to-stays",
        ),
    ],
)
def test_only_what_another_index_does_as_well_could_go(
    indexes: list[Index], superfluous: dict[int, tuple[str, int]]
) -> None:
    found = find_superfluous(Inventory(tuple(indexes), ()))
    assert {each.index.oid: (each.kind, each.by.oid) for each in found} == superfluous


def test_what_somebody_asked_for_stays_and_its_copy_goes() -> None:
    inventory = Inventory((index(1, "a"), index(2, "a"), index(3, "ab")), ())
    assert {found.index.oid for found in find_superfluous(inventory, {2})} == {1}
    counted = [Observation("primary", NOW - MONTH, {2: Counter(0, 0)})]
    found = judge(inventory.indexes[1], inventory, counted, {2: NOW - MONTH}, NOW, MONTH, {2})
    assert (found.verdict, found.why) == ("needed", "required by the configuration")


def key(columns: str) -> ForeignKey:
    return ForeignKey(7, "fk", "app", 1, "t", "r", "app", "other", tuple(columns))


FINDS: Mapping[str, Any] = {"looks_up": frozenset({7})}
"""What an index has that finds the columns of `key`."""


@pytest.mark.parametrize(
    ("columns", "found", "supported"),
    [
        ("a", index(1, "a", **FINDS), True),
        ("a", index(1, "a"), False),
        ("a", index(1, "a", predicate="(a IS NOT NULL)", **FINDS), True),
        ("ab", index(1, "ab", predicate="(b IS NOT NULL)", **FINDS), True),
        ("ab", index(1, "ab", predicate="((b IS NOT NULL) AND (a IS NOT NULL))", **FINDS), True),
        ("aB", index(1, "aB", predicate='((a IS NOT NULL) AND ("B" IS NOT NULL))', **FINDS), True),
        ("a", index(1, "a", predicate="((a IS NOT NULL) AND (b IS NOT NULL))", **FINDS), False),
        ("ab", index(1, "ab", predicate="((a IS NOT NULL) OR (b IS NOT NULL))", **FINDS), False),
        ("a", index(1, "a", predicate="((a IS NOT NULL) AND (a > 1))", **FINDS), False),
        ("a", index(1, "a", predicate="(b > 1)", **FINDS), False),
    ],
)
def test_a_foreign_key_is_supported_by_an_index_with_all_rows_that_refer(
    columns: str, found: Index, supported: bool
) -> None:
    without, unknown = find_unsupported(Inventory((found,), (key(columns),)))
    assert (not without) is supported
    assert unknown == []


def test_a_locked_index_may_support_a_key() -> None:
    locked = index(1, "a", is_partial=True, is_readable=False, **FINDS)
    assert find_unsupported(Inventory((locked,), (key("a"),))) == ([], [key("a")])


def verdict(
    found: Index,
    *,
    scans: int = 0,
    last: datetime | None = None,
    since: datetime | None = NOW - MONTH,
    seen: datetime | None = NOW - 2 * MONTH,
    gap: str = "",
    replica: Observation | None = None,
    keys: tuple[ForeignKey, ...] = (),
    others: tuple[Index, ...] = (),
    enough: timedelta = MONTH,
) -> str:
    counted = Observation("primary", since, {found.oid: Counter(scans, scans, last)}, gap)
    observations = [counted, *([replica] if replica else [])]
    first_seen = {} if seen is None else {found.oid: seen}
    inventory = Inventory((found, *others), keys)
    return judge(found, inventory, observations, first_seen, NOW, enough).verdict


RECENT = NOW - timedelta(days=29)


@pytest.mark.parametrize(
    ("said", "found", "facts"),
    [
        pytest.param("unused", index(1, "a"), {}, id="exactly-long-enough"),
        pytest.param("not enough evidence", index(1, "a"), {"since": RECENT}, id="reset-or-crash-since"),
        pytest.param("not enough evidence", index(1, "a"), {"since": None}, id="nobody-knows-since-when"),
        pytest.param("not enough evidence", index(1, "a"), {"seen": RECENT}, id="a-young-index"),
        pytest.param("not enough evidence", index(1, "a"), {"seen": None}, id="never-seen-before"),
        pytest.param("not enough evidence", index(1, "a"), {"gap": "not asked"}, id="somebody-was-not-asked"),
        pytest.param("used", index(1, "a"), {"scans": 1}, id="scanned-once"),
        pytest.param(
            "used",
            index(1, "a"),
            {"scans": 1, "last": RECENT, "enough": timedelta()},
            id="any-time-is-enough",
        ),
        pytest.param("used", index(1, "a"), {"scans": 1, "last": RECENT, "since": None}, id="scanned-lately"),
        pytest.param("unused", index(1, "a"), {"scans": 9, "last": NOW - MONTH}, id="not-since-a-month"),
        pytest.param("used", index(1, "a"), {"scans": 1, "gap": "not asked"}, id="scans-need-no-evidence"),
        pytest.param("needed", primary(1, "a"), {}, id="primary-key"),
        pytest.param("needed", index(1, "a", is_unique=True), {}, id="unique"),
        pytest.param("needed", index(1, "a", is_exclusion=True), {}, id="exclusion"),
        pytest.param("needed", index(1, "a", is_replica_identity=True), {}, id="replica-identity"),
        pytest.param("needed", index(1, "a", is_clustered=True), {}, id="clustered"),
        pytest.param("needed", index(1, "a", has_expressions=True), {}, id="statistics-of-an-expression"),
        pytest.param("needed", index(1, "a", is_valid=False), {}, id="invalid-is-another-matter"),
        pytest.param("needed", index(1, "ab", **FINDS), {"keys": (key("a"),)}, id="supports-a-foreign-key"),
        pytest.param(
            "unused",
            index(1, "ab", **FINDS),
            {"keys": (key("a"),), "others": (index(2, "a", **FINDS),)},
            id="not-alone",
        ),
        pytest.param(
            "used",
            index(1, "a"),
            {"replica": Observation("replica 1", NOW - MONTH, {1: Counter(1, 1)})},
            id="scanned-on-a-replica",
        ),
        pytest.param(
            "not enough evidence",
            index(1, "a"),
            {"replica": Observation("replica 1", RECENT, {1: Counter(0, 0)})},
            id="a-young-replica",
        ),
    ],
)
def test_no_scan_is_evidence_only_where_somebody_has_counted_for_long(
    said: str, found: Index, facts: dict[str, Any]
) -> None:
    assert verdict(found, **facts) == said


@pytest.mark.parametrize(
    ("indexes", "keys", "scanned", "going"),
    [
        pytest.param([index(1, "a"), index(2, "a")], (), {2}, {2: "duplicate"}, id="its-twin-is-read"),
        pytest.param([index(1, "a"), index(2, "ab")], (), {1}, {1: "redundant"}, id="the-shorter-is-read"),
        pytest.param([index(1, "a"), index(2, "b")], (), {1}, {2: "unused"}, id="nobody-needs-it"),
        pytest.param(
            [
                index(1, "a"),
                index(2, "ab", parent_oid=3),
                index(3, "ab", kind="I", table_kind="p", table_oid=2),
            ],
            (),
            {1},
            {1: "redundant"},
            id="a-part-takes-over",
        ),
        pytest.param(
            [index(1, "ab", **FINDS), index(2, "ac", **FINDS)],
            (key("a"),),
            set(),
            {1: "unused"},
            id="the-key-keeps-one",
        ),
    ],
)
def test_what_goes_together_leaves_one_to_do_the_work(
    indexes: list[Index], keys: tuple[ForeignKey, ...], scanned: set[int], going: dict[int, str]
) -> None:
    inventory = Inventory(tuple(indexes), keys)
    seen = {each.oid: NOW - MONTH for each in indexes}
    counters = {each.oid: Counter(int(each.oid in scanned), 0) for each in indexes}
    used = judge_all(inventory, [Observation("primary", NOW - MONTH, counters)], seen, NOW, MONTH)
    found = choose_going(inventory, find_superfluous(inventory), used)
    assert {oid: kind for oid, (kind, _, _) in found.items()} == going


def test_a_partitioned_index_is_judged_by_all_its_parts() -> None:
    root, part = index(1, "a", kind="I", table_kind="p"), index(2, "a", parent_oid=1, table_oid=2)
    inventory = Inventory((root, part), ())
    seen = {2: NOW - MONTH}
    for scans, said in ((0, "unused"), (3, "used")):
        counted = Observation("primary", NOW - MONTH, {2: Counter(scans, 0)})
        assert judge(root, inventory, [counted], seen, NOW, MONTH).verdict == said


def test_required_indexes_are_found_by_name_in_any_schema() -> None:
    found = [index(1, "a", name="by kind"), index(2, "a", schema="other", name="by_day")]
    assert find_named('app."by kind"', found) == found[:1]
    assert find_named("BY_DAY", found) == found[1:]
    assert find_named("app.by_day", found) == []


def test_names_of_parts_fit_and_are_free() -> None:
    taken = {("app", "p_idx")}
    assert free_name("p", "idx", "app", taken) == "p_idx_1"
    assert free_name("p", "idx", "other", taken) == "p_idx"
    long = free_name("é" * 40, "x" * 30, "app", taken)
    assert len(long.encode()) <= 63
    assert free_name("é" * 40, "y" * 30, "app", taken) != long


def test_a_definition_is_read_behind_names_that_look_like_it() -> None:
    statement = 'CREATE INDEX "a USING b" ON ONLY "x"" USING (" USING gin (c) WHERE (d <> \' USING \'::text)'
    assert tail_of(statement) == "USING gin (c) WHERE (d <> ' USING '::text)"


def test_a_long_plan_is_cut_in_sentences_and_whole_in_json() -> None:
    ddl = tuple(f"CREATE {number};" for number in range(5))
    problem = Problem("missing", "x", "t", "gone", ddl, ("DROP;",))
    assert (
        problem.sentence
        == f"gone; run: {' '.join(ddl[:3])} ... and {plural(2, 'more', 'more')} -- undo: DROP;"
    )
    assert problem.as_json()["ddl"] == list(ddl)
