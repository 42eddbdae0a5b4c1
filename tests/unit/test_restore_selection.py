"""Which entries of a table of contents a part takes, and how names and patterns are read."""

from __future__ import annotations

import pytest

from pgsteward.errors import ConfigError, PreconditionError
from pgsteward.postgres_names import split_copy, split_names
from pgsteward.restore import side, toc
from pgsteward.restore.scope import Scope, matching
from pgsteward.restore.selection import choose

LISTING = """;
; Archive created at 2026-11-30 05:50:54 UTC
7; 2615 16385 SCHEMA - App X o w
901; 1247 16424 TYPE public mood o w
11; 1255 16432 FUNCTION public f() o w
222; 1259 16441 TABLE App X Order Lines o w
;\tdepends on: 901 11 7 901 5000
220; 1259 16439 SEQUENCE App X Order Lines_id_seq o w
;\tdepends on: 222 7
230; 1259 16500 TABLE public a o w
231; 1259 16501 TABLE public a b o w
;\tdepends on: 230
2683; 0 16441 TABLE DATA App X Order Lines o w
;\tdepends on: 222
2684; 0 16500 TABLE DATA public a o w
;\tdepends on: 230
2705; 0 0 SEQUENCE SET App X Order Lines_id_seq o w
;\tdepends on: 220
2509; 2606 16438 CONSTRAINT public a a_pkey o w
;\tdepends on: 230
2525; 2606 16449 FK CONSTRAINT App X Order Lines Order Lines_a_fkey o w
;\tdepends on: 222 2509 230
2526; 2606 16449 FK CONSTRAINT public a b b c o w
;\tdepends on: 230 231 2509
"""


def header(number: int, name: str, kind: str, schema: str, sql: str = "") -> str:
    return (
        f"--\n-- TOC entry {number} (class 1259 OID 1)\n-- Dependencies: 1\n"
        f"-- Name: {name}; Type: {kind}; Schema: {schema}; Owner: o w; Tablespace: t\n"
        f"-- Data Pos: 0\n--\n\n{sql}\n"
    )


SCRIPT = "".join(
    [
        header(7, "App X", "SCHEMA", "-"),
        header(901, "mood", "TYPE", "public"),
        header(
            11, "f()", "FUNCTION", "public", "AS 'select a\n" + header(7, "evil", "TABLE", "public") + "'"
        ),
        header(222, "Order Lines", "TABLE", "App X"),
        header(220, "Order Lines_id_seq", "SEQUENCE", "App X"),
        header(230, "a", "TABLE", "public"),
        header(231, "a b", "TABLE", "public", 'CREATE TABLE public."a b" (\n)\nINHERITS (public.a);'),
        header(2509, "a a_pkey", "CONSTRAINT", "public"),
        header(2525, "Order Lines Order Lines_a_fkey", "FK CONSTRAINT", "App X"),
        header(2526, "a b b c", "FK CONSTRAINT", "public"),
    ]
)
ENTRIES = toc.parse(LISTING, SCRIPT)
LINES = '"App X"."Order Lines"'


def test_names_are_kept_apart_whatever_blanks_they_have() -> None:
    by_number = {entry.number: entry for entry in ENTRIES}
    assert by_number[222].key == ("App X", "Order Lines")
    assert by_number[222].needs == (901, 11, 7)
    assert by_number[7].name == "App X"  # and not what a function's body says
    assert by_number[231].inherits == (("public", "a"),)
    assert (by_number[2683].kind, by_number[2683].needs) == ("TABLE DATA", (222,))


def test_a_table_takes_what_it_needs_and_what_belongs_to_it() -> None:
    part = choose(ENTRIES, Scope(tables=(LINES,)))
    assert part.numbers == {7, 901, 11, 222, 220, 2683, 2705}
    assert part.filled == {("App X", "Order Lines")}
    assert part.sequences == {("App X", "Order Lines_id_seq")}
    assert [note.object for note in part.left_out] == [
        f'{LINES}: foreign key "Order Lines_a_fkey"',
        "public.a",  # the function mentions it
    ]


def test_an_heir_comes_along_and_foreign_keys_belong_to_the_longer_name() -> None:
    part = choose(ENTRIES, Scope(tables=("public.a",)))
    assert part.numbers == {230, 231, 2684, 2509, 2526}
    assert [(note.object, note.reason) for note in part.along] == [
        ('public."a b"', "it inherits from public.a")
    ]
    empty = choose(ENTRIES, Scope(tables=('public."a b"',)))
    assert empty.filled == {("public", "a b")}
    assert empty.empty == {("public", "a")}
    assert [note.object for note in empty.left_out] == ['public."a b": foreign key "b c"']


def test_an_exclusion_constraint_brings_the_extensions_that_may_hold_its_operators() -> None:
    entries = (
        toc.Entry(1, "EXTENSION", None, "btree_gist"),
        toc.Entry(2, "TABLE", "public", "rooms"),
        toc.Entry(
            3, "CONSTRAINT", "public", "rooms e", (2,), "ADD CONSTRAINT e EXCLUDE USING gist (a WITH =);"
        ),
        toc.Entry(4, "TABLE", "public", "others"),
    )
    assert choose(entries, Scope(tables=("rooms",))).extensions == {"btree_gist"}
    assert choose(entries, Scope(tables=("others",))).numbers == {4}


def test_both_ends_of_a_foreign_key_bring_it() -> None:
    assert 2525 in choose(ENTRIES, Scope(tables=(LINES, "public.a"))).numbers
    assert 2525 in choose(ENTRIES, Scope(schema_only=True)).numbers


def test_rows_alone_are_the_entries_of_rows_and_definitions_all_others() -> None:
    rows = choose(ENTRIES, Scope(data_only=True)).numbers
    assert rows == {2683, 2684, 2705}
    assert choose(ENTRIES, Scope(schema_only=True)).numbers == {e.number for e in ENTRIES} - rows


NAMES = [("App X", "Order Lines"), ("public", "Users"), ("public", "users"), ("public", "user_log")]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("App X.Order Lines", NAMES[:1]),
        (LINES, NAMES[:1]),
        ("Order Lines", NAMES[:1]),
        ('"App X".*', NAMES[:1]),
        ('public."Users"', NAMES[1:2]),
        ("USERS", NAMES[2:3]),
        ("public.user*", NAMES[2:]),
        ("other_db.public.users", NAMES[2:3]),
    ],
)
def test_a_pattern_is_read_as_pg_dump_reads_it(pattern: str, found: list[tuple[str, str]]) -> None:
    assert matching("table", pattern, NAMES) == set(found)


def test_a_table_that_was_brought_beside_the_live_one_is_chosen_by_its_schema_alone() -> None:
    brought = (side.schema_name("users", "20261130101112", "0a1b2c3d"), "users")
    names = [*NAMES, brought, ("pgsteward_own", "shifts")]
    assert matching("table", "users", names) == {("public", "users")}
    assert matching("table", "shifts", names) == {("pgsteward_own", "shifts")}
    assert matching("table", ".".join(brought), names) == {brought}
    with pytest.raises(PreconditionError, match=f"near it are: {brought[0]}"):
        matching("table", "users", [brought])


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("public.Users", r'two ways: .* also chooses public.users; write public."Users"'),
        ("usres", "near it are: .*public.users"),
        ("App X.order lines", 'near it are: "App X"."Order Lines"'),
        ("nothing", 'there are: "App X"'),
    ],
)
def test_what_chooses_nothing_or_two_things_is_refused(pattern: str, says: str) -> None:
    with pytest.raises(PreconditionError, match=says):
        matching("table", pattern, NAMES)


def test_what_is_no_pattern_or_no_scope_is_refused() -> None:
    with pytest.raises(ConfigError, match="no pattern"):
        matching("table", "public.a(", NAMES)
    with pytest.raises(ConfigError, match="exclude each other"):
        Scope(schema_only=True, data_only=True)


def test_lists_of_names_are_split_outside_quotes() -> None:
    assert split_names('public.a, "App X"."b, ""c"') == (("public", "a"), ("App X", 'b, "c'))
    head = '"App (X)".t (id, "Total, net", "a)b")'
    assert split_copy(head) == (("App (X)", "t"), ("id", "Total, net", "a)b"))
    assert split_copy("public.t ") == (("public", "t"), ())
