"""``oneOf``, which a grammar cannot say, put in words that it can.

A grammar takes the union of its alternatives; ``oneOf`` wants exactly one. So each alternative is
narrowed until nothing that it lets through fits another one: a property that only the other
requires is forbidden here, one that the other does not know is required.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import define

Schema = Mapping[str, Any]
Resolve = Callable[[str], Any]

TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
OBJECT_WORDS = frozenset(
    [
        "properties",
        "required",
        "additionalProperties",
        "patternProperties",
        "minProperties",
        "maxProperties",
        "dependencies",
        "dependentRequired",
    ]
)
_REFS_DEEP = 8
_WORD = re.compile(r"\^?([A-Za-z0-9 _-]+)\$?")


def told_apart(
    branches: Sequence[Any], parent: Schema, resolve: Resolve
) -> list[dict[str, Any]] | int:
    """``branches`` narrowed so that no value meets two of them, or the place of one that will not.

    ``parent`` is the schema that they stand in.
    """
    facts = [_facts(branch, parent, resolve) for branch in branches]
    for i, one in enumerate(facts):
        for j, other in enumerate(facts):
            if i != j and not _kept_out(one, other, resolve):
                return i
    return [fact.branch for fact in facts]


def types_of(schema: Schema) -> frozenset[str]:
    """The JSON types that ``schema`` says; all where it says none. An integer is a number too."""
    said = schema.get("type", TYPES)
    types = frozenset([said] if isinstance(said, str) else said)
    types = types | {"integer"} if "number" in types else types
    values = values_of(schema)
    return types if values is None else types & {type_of(value) for value in values}


def values_of(schema: Any) -> list[Any] | None:
    """The values to which ``schema`` is confined, where it lists them."""
    if not isinstance(schema, dict):
        return None
    if "const" in schema:
        return [schema["const"]]
    found = schema.get("enum")
    return found if isinstance(found, list) else None


def type_of(value: Any) -> str:
    if value is None:
        return "null"
    for kind, name in ((bool, "boolean"), (int, "integer"), (str, "string"), (list, "array")):
        if isinstance(value, kind):
            return name
    if isinstance(value, float):
        return "integer" if value.is_integer() else "number"
    return "object"


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal: 1 is 1.0, but true is not 1."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


@define
class _Facts:
    branch: dict[str, Any]
    types: frozenset[str]
    original: Schema
    required: set[str]
    properties: dict[str, Any]


def _facts(branch: Any, parent: Schema, resolve: Resolve) -> _Facts:
    branch = looked_up(branch, resolve)
    if not isinstance(branch, dict):
        branch = {} if branch else {"not": {}}
    copy = dict(branch)
    types = types_of(branch) & types_of(parent)
    if "type" not in branch and OBJECT_WORDS & branch.keys() and "object" in types:
        types = frozenset(["object"])
        copy["type"] = "object"
    required = {*names_of(branch.get("required")), *names_of(parent.get("required"))}
    return _Facts(copy, types, branch, required, dict(branch.get("properties") or {}))


def _kept_out(one: _Facts, other: _Facts, resolve: Resolve) -> bool:
    """Whether ``one``, narrowed if need be, lets nothing through that ``other`` takes."""
    if not one.types & types_of(other.original):
        return True
    mine, theirs = values_of(one.branch), values_of(other.original)
    if mine is not None and theirs is not None:
        left = [value for value in mine if not any(same(value, their) for their in theirs)]
        if left:
            one.branch.pop("const", None)
            one.branch["enum"] = left
        return bool(left)
    if one.types == {"string"}:
        return _is_spelt_out(one, other)
    if one.types != {"object"}:
        return False
    return (
        any(_differs(one, other, name, resolve) for name in one.required)
        or _lacks_what_it_requires(one, other)
        or _has_what_it_shuts_out(one, other)
        or _has_what_differs(one, other, resolve)
    )


def _is_spelt_out(one: _Facts, other: _Facts) -> bool:
    """Both ask for a word within the text: it is that word alone, and the other's is not in it."""
    mine, theirs = (_WORD.fullmatch(str(each.original.get("pattern"))) for each in (one, other))
    if not mine or not theirs or one.original.keys() - {"pattern", "type"}:
        return False
    if re.search(theirs[0], mine[1]):
        return False
    one.branch.pop("pattern", None)
    one.branch["const"] = mine[1]
    return True


def _differs(one: _Facts, other: _Facts, name: str, resolve: Resolve) -> bool:
    """The property's values are none of the other's."""
    both = name in one.properties and name in other.properties
    return both and _are_apart(one.properties[name], other.properties[name], resolve, 0)


def _are_apart(mine: Any, theirs: Any, resolve: Resolve, depth: int) -> bool:
    """Whether no value that meets ``mine`` meets ``theirs``."""
    mine, theirs = looked_up(mine, resolve), looked_up(theirs, resolve)
    if not isinstance(mine, dict) or not isinstance(theirs, dict) or depth > _REFS_DEEP:
        return False
    types = types_of(mine)
    if not types & types_of(theirs):
        return True
    ours, others = values_of(mine), values_of(theirs)
    if ours is not None and others is not None:
        return not any(same(a, b) for a in ours for b in others)
    if types != {"object"}:
        return False
    inner, outer = mine.get("properties") or {}, theirs.get("properties") or {}
    return any(
        _are_apart(inner.get(name), outer.get(name), resolve, depth + 1)
        for name in names_of(mine.get("required"))
    )


def _lacks_what_it_requires(one: _Facts, other: _Facts) -> bool:
    wanted = [name for name in names_of(other.original.get("required")) if name not in one.required]
    if any(one.properties.get(name) is False for name in wanted):
        return True
    # Better one that the alternative does not speak of than one that it offers.
    wanted.sort(key=lambda name: name in one.properties)
    if not wanted:
        return False
    one.properties[wanted[0]] = False
    one.branch["properties"] = dict(one.properties)
    return True


def _has_what_it_shuts_out(one: _Facts, other: _Facts) -> bool:
    shut = other.original.get("additionalProperties") is False
    if not shut or other.original.get("patternProperties"):
        return False
    for name, schema in one.properties.items():
        if schema is not False and name not in other.properties:
            _require(one, name)
            return True
    return False


def _has_what_differs(one: _Facts, other: _Facts, resolve: Resolve) -> bool:
    """A property, required from now on, whose values are none of the other's."""
    for name, schema in one.properties.items():
        if schema is not False and _differs(one, other, name, resolve):
            _require(one, name)
            return True
    return False


def _require(one: _Facts, name: str) -> None:
    one.required.add(name)
    one.branch["required"] = list(dict.fromkeys([*names_of(one.branch.get("required")), name]))


def looked_up(schema: Any, resolve: Resolve) -> Any:
    """What ``schema`` refers to, where it is a reference and nothing else."""
    for _ in range(_REFS_DEEP):
        if not isinstance(schema, dict) or "$ref" not in schema:
            return schema
        found = resolve(schema["$ref"])
        if found is None:
            return schema
        schema = found
    return schema


def names_of(value: Any) -> list[str]:
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []
