"""JSON schemas within OpenAI's strict rules, and the answers to them read back.

https://platform.openai.com/docs/guides/structured-outputs#supported-schemas. A strict schema names
every property as required and allows no others, so what could be left out is asked for as itself or
null (``strict_schema``), and such a null is taken out of the answer again (``without_absent``). What
cannot be said within the rules without letting other answers through is not said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_MOST_PROPERTIES = 5000
_MOST_DEPTH = 10
_MOST_ENUMS = 1000
_MOST_NAME_CHARS = 120_000

_FORMATS = frozenset(
    ["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"]
)
# They say nothing of what is valid, and some are refused.
_IDLE = frozenset(
    ["title", "default", "examples", "$schema", "$id", "$comment", "deprecated", "readOnly"]
)
_KEPT = frozenset(
    [
        *("description", "pattern", "multipleOf", "minItems", "maxItems"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    ]
)
_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}
_KINDS: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "null": (type(None),),
    "object": (dict,),
    "array": (list,),
}
_DEFS = "#/$defs/"
_MOST_REFS = 32
"""References in a row before we say that they lead nowhere."""


def strict_schema(schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """``schema`` within the rules, or ``None`` where they have no words for it.

    What meets it meets ``schema`` too, once ``without_absent`` has gone over it.
    """
    writer = _Writer(schema)
    try:
        definitions = {name: writer.node(each, 0) for name, each in schema.get("$defs", {}).items()}
        root = writer.node({k: v for k, v in _root_of(schema).items() if k != "$defs"}, 0)
    except _Beyond:
        return None
    if root.get("type") != "object" or not writer.is_small:
        return None
    return {**root, "$defs": definitions} if definitions else root


def without_absent(value: Any, schema: Mapping[str, Any]) -> Any:
    """``value`` without the nulls that stand for a property left out.

    That is a null where ``schema`` does not require the property and has no place for a null.
    """
    return _pruned(value, schema, schema)


def takes_null(schema: Any, root: Mapping[str, Any]) -> bool:
    """Whether null meets ``schema``, a part of ``root``."""
    node = _resolved(schema, root)
    if not isinstance(node, Mapping):
        return node is not False
    kinds = node.get("type")
    if kinds is not None and "null" not in ([kinds] if isinstance(kinds, str) else kinds):
        return False
    if "enum" in node and None not in node["enum"]:
        return False
    if "const" in node and node["const"] is not None:
        return False
    for word in ("anyOf", "oneOf"):
        if word in node and not any(takes_null(each, root) for each in node[word]):
            return False
    return all(takes_null(each, root) for each in node.get("allOf", ()))


class _Beyond(Exception):
    """The rules have no words for this."""


class _Writer:
    """Writes the parts of one schema, and keeps count for the limits."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._properties = 0
        self._enums = 0
        self._name_chars = sum(len(name) for name in root.get("$defs", {}))

    @property
    def is_small(self) -> bool:
        return (
            self._properties <= _MOST_PROPERTIES
            and self._enums <= _MOST_ENUMS
            and self._name_chars <= _MOST_NAME_CHARS
        )

    def node(self, node: Any, depth: int) -> dict[str, Any]:
        if not isinstance(node, Mapping) or depth > _MOST_DEPTH:
            raise _Beyond
        left = {word: value for word, value in node.items() if word not in _IDLE}
        # Pydantic once wrote a reference with a description beside it in this way.
        if len(left.get("allOf", ())) == 1:
            (only,) = left.pop("allOf")
            left |= only if isinstance(only, Mapping) else {"not": {}}
        if "$ref" in left:
            return self._reference(left)
        told = {word: left.pop(word) for word in _KEPT & left.keys()}
        if left.get("format") in _FORMATS:
            told["format"] = left.pop("format")
        if "anyOf" in left or "oneOf" in left:
            return {**told, "anyOf": self._branches(left, depth)}
        if "enum" in left or "const" in left:
            return {**told, **self._values(left)}
        kinds = left.pop("type", None)
        listed = [kinds] if isinstance(kinds, str) else list(kinds or ())
        if not listed:
            raise _Beyond
        told["type"] = kinds
        if "object" in listed:
            told |= self._object(left, depth)
        if "array" in listed:
            told["items"] = self.node(left.pop("items", None), depth + 1)
        if left:
            raise _Beyond
        return told

    def _reference(self, node: dict[str, Any]) -> dict[str, Any]:
        target = node.pop("$ref")
        node.pop("description", None)  # nothing may stand beside a reference
        if node or not (target == "#" or _is_definition(target, self._root)):
            raise _Beyond
        return {"$ref": target}

    def _branches(self, node: dict[str, Any], depth: int) -> list[dict[str, Any]]:
        exclusive = "oneOf" in node
        branches = node.pop("oneOf" if exclusive else "anyOf")
        tag = node.pop("discriminator", None)
        if node or (exclusive and not self._told_apart(branches, tag)):
            raise _Beyond
        return [self.node(each, depth) for each in branches]

    def _told_apart(self, branches: Sequence[Any], tag: Any) -> bool:
        """Whether no value can meet two of ``branches``, because each has its own tag."""
        name = tag.get("propertyName") if isinstance(tag, Mapping) else None
        seen: list[object] = []
        for each in branches:
            node = _resolved(each, self._root)
            if not isinstance(node, Mapping) or name not in node.get("required", ()):
                return False
            mark = node.get("properties", {}).get(name, {})
            seen += mark["enum"] if "enum" in mark else [mark.get("const", seen)]
        return seen != [] and all(isinstance(m, str) for m in seen) and len({*seen}) == len(seen)

    def _values(self, node: dict[str, Any]) -> dict[str, Any]:
        values = node.pop("enum") if "enum" in node else [node["const"]]
        has_const = "const" in node
        constant = node.pop("const", None)
        said = node.pop("type", None)
        kinds = dict.fromkeys(_TYPES.get(type(each), "") for each in values)
        if node or "" in kinds or (has_const and constant not in values):
            raise _Beyond
        self._enums += len(values)
        self._name_chars += sum(len(each) for each in values if isinstance(each, str))
        listed = said if said is not None else (next(iter(kinds)) if len(kinds) == 1 else [*kinds])
        return {"type": listed, "enum": [constant] if has_const else list(values)}

    def _object(self, node: dict[str, Any], depth: int) -> dict[str, Any]:
        properties = node.pop("properties", {})
        required = node.pop("required", [])
        more = node.pop("additionalProperties", None)
        # More properties that are wanted; or any object at all, which would be held to the empty one.
        if more not in (None, False) or (more is None and not properties):
            raise _Beyond
        if not set(required) <= set(properties):
            raise _Beyond
        self._properties += len(properties)
        self._name_chars += sum(len(name) for name in properties)
        return {
            "properties": {
                name: self._property(each, depth, optional=name not in required)
                for name, each in properties.items()
            },
            "required": list(properties),
            "additionalProperties": False,
        }

    def _property(self, node: Any, depth: int, *, optional: bool) -> dict[str, Any]:
        written = self.node(node, depth + 1)
        if not optional or takes_null(node, self._root):
            return written
        return {"anyOf": [written, {"type": "null"}]}


def _root_of(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The root itself where it only refers to a definition: it must be an object, no reference."""
    resolved = _resolved(schema, schema)
    return resolved if isinstance(resolved, Mapping) else {}


def _is_definition(target: object, root: Mapping[str, Any]) -> bool:
    return (
        isinstance(target, str)
        and target.startswith(_DEFS)
        and target[len(_DEFS) :] in root.get("$defs", {})
    )


def _resolved(schema: Any, root: Mapping[str, Any]) -> Any:
    """``schema``, or what it refers to; ``True`` (anything) where that cannot be found here."""
    for _ in range(_MOST_REFS):
        if not isinstance(schema, Mapping):
            return schema
        if "$ref" not in schema:
            if len(schema.get("allOf", ())) != 1:
                return schema
            schema = schema["allOf"][0]
            continue
        target = schema["$ref"]
        if target == "#":
            schema = root
        elif isinstance(target, str) and target.startswith("#/"):
            schema = _at(root, target[2:].split("/"))
        else:
            return True
    return True


def _at(root: Any, steps: Sequence[str]) -> Any:
    for step in steps:
        key = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(root, Mapping) or key not in root:
            return True
        root = root[key]
    return root


def _pruned(value: Any, schema: Any, root: Mapping[str, Any]) -> Any:
    if not isinstance(value, dict | list):
        return value
    node = _resolved(schema, root)
    if not isinstance(node, Mapping):
        return value
    branches = _branches(node)
    if branches:
        fitting = (each for each in branches if _fits(value, each, root))
        return _pruned(value, next(fitting, None), root)
    if isinstance(value, list):
        return [_pruned(each, node.get("items"), root) for each in value]
    properties = node.get("properties", {})
    return {
        name: _pruned(each, properties.get(name), root)
        for name, each in value.items()
        if not (each is None and _is_absent(name, node, root))
    }


def _branches(node: Mapping[str, Any]) -> list[Any]:
    return [*node.get("anyOf", ()), *node.get("oneOf", ())]


def _is_absent(name: str, node: Mapping[str, Any], root: Mapping[str, Any]) -> bool:
    """Whether a null for property ``name`` stands for leaving it out."""
    properties = node.get("properties", {})
    return (
        name in properties
        and name not in node.get("required", ())
        and not takes_null(properties[name], root)
    )


def _fits(value: Any, schema: Any, root: Mapping[str, Any]) -> bool:
    """Whether ``value`` has the shape of ``schema``, a branch of several, and its tags."""
    node = _resolved(schema, root)
    if not isinstance(node, Mapping):
        return node is not False
    branches = _branches(node)
    if branches:
        return any(_fits(value, each, root) for each in branches)
    if "const" in node or "enum" in node:
        return value in (node["enum"] if "enum" in node else [node["const"]])
    kinds = node.get("type", ())
    if kinds and not any(
        _is_kind(value, each) for each in ([kinds] if isinstance(kinds, str) else kinds)
    ):
        return False
    if isinstance(value, list):
        return all(_fits(each, node.get("items", True), root) for each in value)
    return not isinstance(value, dict) or _fits_object(value, node, root)


def _fits_object(value: dict[str, Any], node: Mapping[str, Any], root: Mapping[str, Any]) -> bool:
    properties = node.get("properties", {})
    return set(node.get("required", ())) <= value.keys() <= properties.keys() and all(
        (each is None and _is_absent(name, node, root)) or _fits(each, properties[name], root)
        for name, each in value.items()
    )


def _is_kind(value: Any, kind: str) -> bool:
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, _KINDS.get(kind, ()))
