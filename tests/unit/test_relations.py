"""Names, patterns and who is in the way."""

from __future__ import annotations

from typing import Any

import pytest

from pgsteward.postgres_names import split_qualified
from pgsteward.relations import is_excluded, name_holder, name_holders


@pytest.mark.parametrize(
    ("written", "parts"),
    [
        ("sessions", ("public", "sessions")),
        ("App.Sessions", ("app", "sessions")),
        ('"Order Lines"', ("public", "Order Lines")),
        ('app."log, old"', ("app", "log, old")),
        ('"My ""App"""."a.b"', ('My "App"', "a.b")),
    ],
)
def test_names_are_read_as_sql_does(written: str, parts: tuple[str, str]) -> None:
    assert split_qualified(written) == parts


@pytest.mark.parametrize("wrong", ["", "a b", "a.b.c", '"open', "a.", "1a"])
def test_what_is_no_name_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"schema\.table"):
        split_qualified(wrong)


@pytest.mark.parametrize(
    ("pattern", "excluded"),
    [
        ("by kind", True),
        ('app."by kind"', True),
        ("app.by kind", True),
        ("app.*", True),
        ("*kind", True),
        ("other.*", False),
        ("by", False),
    ],
)
def test_a_pattern_matches_the_name_in_any_way_of_writing(pattern: str, excluded: bool) -> None:
    assert is_excluded([pattern], "app", "by kind") is excluded


def holder(**facts: Any) -> dict[str, Any]:
    empty = {"pid": None, "gid": None, "role_name": None, "application_name": None, "since": None}
    return {**empty, **facts}


def test_holders_are_named_as_an_operator_looks_for_them() -> None:
    session = holder(pid=7, role_name="app", application_name="psql", since="2026-11-23")
    assert name_holder(session) == "pid 7 (app psql), since 2026-11-23"
    assert name_holder(holder(pid=8)) == "pid 8"
    assert name_holder(holder(gid="half, done")) == "prepared transaction 'half, done'"
    assert name_holders([session, session]) == name_holder(session)
    assert name_holders([holder(pid=pid) for pid in range(5)]).endswith("and 2 more")
    assert name_holders([]) == "nobody that could be named"
