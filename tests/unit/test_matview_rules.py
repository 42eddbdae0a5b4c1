"""The tree of a view's query, as far as it has to be understood."""

from __future__ import annotations

from pgsteward.matview_rules import read_rule


def test_names_that_look_like_nodes_and_fields_are_passed_over() -> None:
    tree = (
        r"({QUERY :rtable ({RANGETBLENTRY :alias {ALIAS :aliasname \{NEXTVALUEEXPR\ :funcid\ 1299 :colnames"
        r' ("\}\:relid\ 7" "a\"b")} :rtekind 0 :relid 16400 :inh true}) :targetList ({TARGETENTRY :expr'
        r" {VAR :varno 1 :vartype 23} :resname \}})})"
    )
    rule = read_rule(tree)
    assert (rule.relations, rule.functions, rule.never_the_same) == ({16400}, set(), [])


def test_a_cast_by_way_of_text_uses_the_functions_of_both_types() -> None:
    call = "{FUNCEXPR :funcid 5 :funcresulttype 1184 :args ({VAR :vartype 23})}"
    inner = f"{{COERCEVIAIO :arg {call} :resulttype 25}}"
    rule = read_rule(f"{{COERCEVIAIO :arg {inner} :resulttype 1700}}")
    assert rule.functions == {5}
    assert rule.outputs == {1184, 25}
    assert rule.inputs == {25, 1700}


def test_a_cast_of_something_unknown_can_give_anything() -> None:
    rule = read_rule("{COERCEVIAIO :arg {NEWNODE :what 3} :resulttype 25}")
    assert rule.never_the_same == ["a cast by way of text from an unknown type"]
