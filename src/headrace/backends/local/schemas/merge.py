"""Objects that are said in several places, said in one.

Where an object's properties stand beside ``allOf``, ``anyOf`` or ``oneOf``, none of the parts can be
closed by itself: it would shut out what the others name. So they are put together first, as long
as that takes no more than putting lists of names together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from headrace.backends.local.schemas.apart import told_apart
from headrace.backends.local.schemas.negated import without

Resolve = Callable[[str], Any]

_REMARKS = frozenset(
    ["title", "description", "default", "examples", "$comment", "$schema", "$id", "id"]
)
_PARTS = frozenset(["$defs", "definitions"])
_PLAIN = _REMARKS | {"type", "properties", "required"}
_WAYS = ("allOf", "anyOf", "oneOf")


def put_together(node: dict[str, Any], resolve: Resolve) -> dict[str, Any]:
    """``node`` with what it says of one object in one place, where that is simple; else as it is."""
    ways = [word for word in _WAYS if word in node]
    if len(ways) != 1 or not isinstance(node[ways[0]], list) or "$ref" in node:
        return node
    (way,) = ways
    base = {key: value for key, value in node.items() if key != way}
    if not base.keys() - _PARTS <= _PLAIN:
        return node
    branches = _flat(node[way], resolve) if way == "anyOf" else node[way]
    if way == "oneOf":
        apart = told_apart(branches, node, resolve)
        if isinstance(apart, int):
            return node
        branches = apart
    looked = [_looked_up(branch, resolve) for branch in branches]
    if way == "allOf":
        whole: dict[str, Any] | None = base
        for branch in looked:
            whole = None if whole is None else _both(whole, branch)
        return node if whole is None else whole
    if not _speaks_of_objects(base):
        return node
    kept = {key: value for key, value in base.items() if key in _REMARKS | _PARTS}
    plain = {key: value for key, value in base.items() if key not in kept}
    merged = [_both(plain, branch) for branch in looked]
    return node if None in merged else {**kept, "anyOf": merged}


def _both(one: Mapping[str, Any], other: Any) -> dict[str, Any] | None:
    """The object that meets both, or ``None`` where that cannot be said plainly."""
    if not isinstance(other, dict) or not other.keys() - _PARTS <= _PLAIN:
        return None
    if not all(
        _speaks_of_objects(each) for each in (one, other) if each.keys() - _REMARKS - _PARTS
    ):
        return None
    mine, theirs = one.get("properties") or {}, other.get("properties") or {}
    properties = dict(mine)
    for name, schema in theirs.items():
        if name not in mine or mine[name] == schema:
            properties[name] = schema
        elif mine[name] is False or schema is False:
            properties[name] = False
        else:
            properties[name] = {"allOf": [mine[name], schema]}
    required = [*(one.get("required") or []), *(other.get("required") or [])]
    rest = {k: v for k, v in other.items() if k in _REMARKS and k not in ("$id", "id", "$schema")}
    return {
        **rest,
        **one,
        "type": "object",
        "properties": properties,
        "required": list(dict.fromkeys(required)),
    }


def _speaks_of_objects(node: Mapping[str, Any]) -> bool:
    if "type" in node:
        return bool(node["type"] == "object")
    return "properties" in node or "required" in node


def _flat(branches: list[Any], resolve: Resolve) -> list[Any]:
    """``branches`` with the alternatives of those that are nothing but alternatives."""
    flat = []
    for branch in branches:
        inner: Any = None
        if isinstance(branch, dict) and branch.keys() - _REMARKS == {"oneOf"}:
            inner = told_apart(branch["oneOf"], {}, resolve)
        elif isinstance(branch, dict) and branch.keys() - _REMARKS == {"anyOf"}:
            inner = branch["anyOf"]
        flat += inner if isinstance(inner, list) else [branch]
    return flat


def _looked_up(branch: Any, resolve: Resolve) -> Any:
    """A branch without ``not``, or what it refers to, where that refers to nothing more by itself."""
    if isinstance(branch, dict) and "not" in branch:
        return without(branch) or branch
    if isinstance(branch, dict) and branch.keys() - _REMARKS == {"$ref"}:
        found = resolve(branch["$ref"])
        return found if isinstance(found, dict) and not _ways_in(found) else None
    return branch


def _ways_in(node: Mapping[str, Any]) -> bool:
    return any(word in node for word in (*_WAYS, "$ref"))
