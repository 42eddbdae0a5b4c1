"""What the query of a view is made of, read from the tree that PostgreSQL keeps of it in ``pg_rewrite``.

PostgreSQL records on which objects a view depends, but none of those it is born with: not that it calls
now(), nor that it reads pg_class. The tree has them all. Its notation: ``src/backend/nodes/outfuncs.c``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_TOKEN = re.compile(r"\\.|\{([A-Z_]+)|(\})|:(\w+) (\d+)")
_FUNCTIONS = frozenset({"funcid", "opfuncid", "aggfnoid", "winfnoid"})
_OPERATORS = frozenset({"opno", "eqop", "sortop"})
_TYPES = frozenset(
    {
        "vartype",
        "consttype",
        "paramtype",
        "aggtype",
        "wintype",
        "funcresulttype",
        "opresulttype",
        "resulttype",
        "casetype",
        "coalescetype",
        "minmaxtype",
        "array_typeid",
        "row_typeid",
        "refrestype",
        "type",
    }
)
"""The field of an expression's node that says of which type its value is."""
_NEVER_THE_SAME = {
    "SQLVALUEFUNCTION": "CURRENT_DATE, CURRENT_USER or the like",
    "NEXTVALUEEXPR": "a sequence",
    "TABLESAMPLECLAUSE": "TABLESAMPLE",
    "XMLEXPR": "an XML expression, which depends on settings",
    "JSONCONSTRUCTOREXPR": "a JSON expression, which depends on settings",
    "JSONEXPR": "a JSON expression, which depends on settings",
    "TABLEFUNC": "XMLTABLE or JSON_TABLE",
}


@dataclass(slots=True)
class Rule:
    """What a view's query uses, by OID.

    Attributes:
        inputs: Types whose values are made from text; the type of a cast's result.
        outputs: Types whose values become text; that of a cast's argument.
        never_the_same: What can give another result though nothing was changed.
    """

    relations: set[int] = field(default_factory=set)
    functions: set[int] = field(default_factory=set)
    operators: set[int] = field(default_factory=set)
    inputs: set[int] = field(default_factory=set)
    outputs: set[int] = field(default_factory=set)
    never_the_same: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Node:
    name: str
    type: int | None = None
    argument: int | None = None


def read_rule(action: str) -> Rule:
    """Return what the query of one view uses.

    Args:
        action: ``pg_rewrite.ev_action`` as text.
    """
    rule = Rule()
    path: list[_Node] = []
    for opened, closed, name, number in _TOKEN.findall(action):
        if opened:
            path.append(_Node(opened))
            if opened in _NEVER_THE_SAME:
                rule.never_the_same.append(_NEVER_THE_SAME[opened])
        elif closed:
            node = path.pop()
            if node.name == "COERCEVIAIO":
                _cast(rule, node)
            if path and path[-1].name == "COERCEVIAIO":
                path[-1].argument = node.type
        elif name:
            _field(rule, path[-1] if path else None, name, int(number))
    return rule


def _field(rule: Rule, node: _Node | None, name: str, number: int) -> None:
    if name == "relid":
        if number:  # a subquery has none
            rule.relations.add(number)
    elif name in _FUNCTIONS:
        rule.functions.add(number)
    elif name in _OPERATORS:
        rule.operators.add(number)
    elif node is not None and name in _TYPES and node.type is None:
        node.type = number


def _cast(rule: Rule, node: _Node) -> None:
    """A cast by way of text uses two functions that the tree does not name."""
    if node.argument is None or node.type is None:
        rule.never_the_same.append("a cast by way of text from an unknown type")
        return
    rule.outputs.add(node.argument)
    rule.inputs.add(node.type)
