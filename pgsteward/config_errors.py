"""What is wrong with a configuration: each error names the file, the key and what to write instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

_INSTEAD: Mapping[str, str] = {
    "missing": "is required; add it",
    "string_type": 'write a text in quotes: {name} = "..."',
    "path_type": 'write a text in quotes: {name} = "/folder"',
    "int_type": "write a whole number, without quotes",
    "float_type": "write a number, without quotes",
    "finite_number": "write a finite number",
    "bool_type": "write true or false, without quotes",
    "greater_than": "write a number greater than {gt:g}",
    "greater_than_equal": "write a number of {ge:g} or more",
    "less_than": "write a number less than {lt:g}",
    "less_than_equal": "write a number of {le:.15g} or less",
    "string_too_short": "is empty; write something or take the key out",
    "too_short": "is empty; name at least one",
    "byte_size": 'write a number of bytes, or with a unit: "50MB"',
    "byte_size_unit": 'write a number of bytes, or with a unit: "50MB"',
}
_TABLE = ("model_type", "dict_type", "mapping_type", "model_attributes_type")


def explain(file: Path, errors: Iterable[ErrorDetails], root: type[BaseModel]) -> str:
    """Return one line per error; a misspelt key comes before the one that it leaves missing."""
    errors = list(errors)
    wrong_inside = {error["loc"][:-1] for error in errors}
    ordered = sorted(
        # what is refused is missing in its list
        (error for error in errors if error["type"] != "too_short" or error["loc"] not in wrong_inside),
        key=lambda error: error["type"] != "extra_forbidden",
    )
    return "\n".join(f"{file}: {_sentence(error, root)}" for error in ordered)


def _sentence(error: ErrorDetails, root: type[BaseModel]) -> str:
    path = [part for part in error["loc"] if not str(part).startswith("<")]  # a branch of a union
    key = ".".join(str(part) for part in path)
    return f"{key}: {_instead(error, path, root)}" if key else _instead(error, path, root)


def _instead(error: ErrorDetails, path: Sequence[str | int], root: type[BaseModel]) -> str:
    kind, name = error["type"], str(path[-1]) if path else ""
    if kind == "extra_forbidden":
        allowed = sorted(_keys_at(path[:-1], root))
        near = difflib.get_close_matches(name, allowed, n=1)
        return (
            f"unknown key; did you mean {near[0]!r}?"
            if near
            else f"unknown key; known keys here: {', '.join(allowed)}"
        )
    if kind in _TABLE:
        numbered = path and isinstance(path[-1], int)
        where = ".".join(str(part) for part in path if not isinstance(part, int))
        return (
            f"write a table: [[{where}]]" if numbered else f"write a table: [{where}] and its keys below it"
        )
    if kind == "tuple_type":
        where = ".".join(map(str, path))
        return (
            f"write [[{where}]], in double brackets"
            if name in ("sessions", "constraints")
            else f'write a list: {name} = ["..."]'
        )
    if kind == "literal_error":
        return f"write one of {error['ctx']['expected']}".replace("'", '"')
    if kind in ("string_type", "path_type") and path and isinstance(path[-1], int):
        return "write a text in quotes"
    if kind in _INSTEAD:
        return _INSTEAD[kind].format_map({"name": name, **error.get("ctx", {})})
    return error["msg"].removeprefix("Value error, ")


def _keys_at(path: Iterable[str | int], root: type[BaseModel]) -> Iterable[str]:
    model: Any = root
    for part in path:
        if isinstance(part, int) or not (isinstance(model, type) and issubclass(model, BaseModel)):
            continue
        info = model.model_fields.get(str(part))
        if info is not None:
            model = _model_inside(info.annotation)
    return model.model_fields if isinstance(model, type) and issubclass(model, BaseModel) else ()


def _model_inside(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _model_inside(inner)
        if found is not None:
            return found
    return None
