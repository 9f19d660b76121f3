"""Whether what one node gives can be what the next one takes: JSON Schemas against one another.

Only what is certain is told of. What a schema leaves open, or says in words that are not understood
here, may fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from attrs import frozen

from headrace.contracts.errors import LLMInvalidRequestError
from headrace.wire.schema_problems import checker

_DEEPEST = 6
"""How far into both is looked: types may contain themselves."""
_MOST_REFERENCES = 20
_KINDS: Mapping[type, str] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
    type(None): "null",
}
_EVERY_KIND = frozenset(_KINDS.values())
_OPEN = ("patternProperties", "unevaluatedProperties", "if", "dependentSchemas", "$dynamicRef")
_MERGED = ("properties", "required", "type", "additionalProperties", "items", "enum", "const")


@frozen
class Shape:
    """A place in a schema, with the document in which its references lead somewhere."""

    said: Mapping[str, Any]
    whole: Mapping[str, Any]

    @classmethod
    def of(cls, schema: Mapping[str, Any]) -> Shape:
        """The root of ``schema``."""
        return _resolved(schema, schema)

    @property
    def fields(self) -> Mapping[str, Any] | None:
        """Its properties by name; None, where it may have others or is no object at all."""
        said = self.said
        properties = said.get("properties")
        if not isinstance(properties, Mapping) or any(word in said for word in _OPEN):
            return None
        return None if said.get("additionalProperties", False) not in (False, None) else properties

    def inner(self, schema: Any) -> Shape:
        """What ``schema`` says, which is a part of this."""
        return _resolved(schema, self.whole)

    @property
    def required(self) -> frozenset[str]:
        """The names of those properties that are always there."""
        return frozenset(self.said.get("required", ()))

    @property
    def kinds(self) -> frozenset[str]:
        """The JSON types that a value of it may have."""
        said = self.said
        if "const" in said or "enum" in said:
            values = [said["const"]] if "const" in said else said["enum"]
            return frozenset(_KINDS.get(type(each), "object") for each in values)
        kinds = said.get("type")
        if isinstance(kinds, str):
            return frozenset((kinds,))
        if isinstance(kinds, list):
            return frozenset(kinds)
        return frozenset(("object",)) if "properties" in said else _EVERY_KIND

    @property
    def ways(self) -> tuple[Shape, ...]:
        """Itself, or what it may be one of."""
        for word in ("anyOf", "oneOf"):
            choice = self.said.get(word)
            if isinstance(choice, list) and choice:
                found = map(self.inner, choice)
                return tuple(way for each in found for way in each.ways)
        return (self,)


def misfit(given: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """Why no value of ``given`` can be one of ``wanted``; None, where one may."""
    return _misfit(Shape.of(given), Shape.of(wanted), "", 0)


def fields_of(schema: Mapping[str, Any]) -> frozenset[str] | None:
    """The names of all fields that its values have; None, where they may have others."""
    found: set[str] = set()
    for way in Shape.of(schema).ways:
        if "object" not in way.kinds:
            continue
        if way.fields is None:
            return None
        found.update(way.fields)
    return frozenset(found)


def shown(schema: Mapping[str, Any]) -> str:
    """A type in few words: its name, or what it is made of."""
    title, reference = schema.get("title"), schema.get("$ref")
    if isinstance(title, str) and title:
        return title
    if isinstance(reference, str) and "/$defs/part" not in reference:
        return reference.rpartition("/")[2]
    shape = Shape.of(schema)
    if isinstance(reference, str):
        return shown({"title": "", **shape.said})
    if len(shape.ways) > 1:
        return " or ".join(dict.fromkeys(shown(way.said) for way in shape.ways))
    return _made_of(shape)


def _made_of(shape: Shape) -> str:
    if shape.kinds == _EVERY_KIND:
        return "anything"
    if shape.kinds == {"object"} and shape.fields:
        names = [name if name in shape.required else f"{name}?" for name in shape.fields]
        return "{" + ", ".join(names) + "}"
    items = shape.said.get("items")
    if shape.kinds == {"array"} and isinstance(items, Mapping):
        return f"list of {shown(items)}"
    return _listed(shape.kinds)


def _misfit(given: Shape, wanted: Shape, place: str, depth: int) -> str | None:
    if depth > _DEEPEST:
        return None
    said: str | None = None
    for one in given.ways:
        for other in wanted.ways:
            why = _of_one(one, other, place, depth)
            if why is None:
                return None
            # Of several, the reason that comes from furthest within tells most.
            said = why if said is None or len(why) > len(said) else said
    return said


def _of_one(given: Shape, wanted: Shape, place: str, depth: int) -> str | None:
    at = f"its field {place!r}" if place else "it"
    if not _meet(given.kinds, wanted.kinds):
        return f"{at} is {_listed(given.kinds)}, where {_listed(wanted.kinds)} is wanted"
    why = _of_values(given, wanted, at)
    if why is None and given.kinds <= {"object"} and wanted.kinds <= {"object"}:
        why = _of_fields(given, wanted, place, depth)
    if why is None and given.kinds <= {"array"} and wanted.kinds <= {"array"}:
        mine, theirs = given.said.get("items"), wanted.said.get("items")
        if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
            why = _misfit(given.inner(mine), wanted.inner(theirs), f"{place}[]", depth + 1)
    return why


def _of_values(given: Shape, wanted: Shape, at: str) -> str | None:
    """Where ``given`` is one of few values."""
    said = given.said
    if "const" not in said and "enum" not in said:
        return None
    values = [said["const"]] if "const" in said else said["enum"]
    definitions = {
        key: wanted.whole[key] for key in ("$defs", "definitions") if key in wanted.whole
    }
    try:
        problems = checker({**wanted.said, **definitions})
    except LLMInvalidRequestError:  # it refers to what is elsewhere in its document
        return None
    if any(not problems(each) for each in values):
        return None
    return f"{at} is one of {', '.join(map(repr, values))}, and none of them is {_wish(wanted)}"


def _of_fields(given: Shape, wanted: Shape, place: str, depth: int) -> str | None:
    if given.fields is None:
        return None
    inside = f"{place}." if place else ""
    for name in sorted(wanted.required):
        if name not in given.fields:
            has = ", ".join(given.fields) or "none"
            return f"the field {inside + name!r} is required, and there is none; there: {has}"
    properties = wanted.said.get("properties")
    known = properties if isinstance(properties, Mapping) else {}
    if wanted.said.get("additionalProperties") is False:
        for name in sorted(given.required - known.keys()):
            has = ", ".join(known) or "none"
            return f"the field {inside + name!r} is not taken; known: {has}"
    for name, mine in given.fields.items():
        # One that neither has to have may be left out.
        if name in known and (name in given.required or name in wanted.required):
            why = _misfit(
                given.inner(mine), wanted.inner(known[name]), f"{inside}{name}", depth + 1
            )
            if why is not None:
                return why
    return None


def _meet(given: frozenset[str], wanted: frozenset[str]) -> bool:
    if "number" in wanted and "integer" in given:
        return True
    if "integer" in wanted and "number" in given:  # it may be a whole one
        return True
    return bool(given & wanted)


def _wish(wanted: Shape) -> str:
    if "const" in wanted.said:
        return repr(wanted.said["const"])
    if "enum" in wanted.said:
        return f"one of {', '.join(map(repr, wanted.said['enum']))}"
    return "what is wanted"


def _listed(kinds: frozenset[str]) -> str:
    return " or ".join(sorted(kinds))


def _resolved(said: Any, whole: Mapping[str, Any]) -> Shape:
    """``said`` without a reference at its root, and with what it is all of in one."""
    if not isinstance(said, Mapping):  # true or false
        return Shape({}, whole)
    for _ in range(_MOST_REFERENCES):
        target = said.get("$ref")
        if not isinstance(target, str):
            break
        found = _at(target, whole)
        if found is None:
            return Shape({}, whole)
        said = {**found, **{key: value for key, value in said.items() if key != "$ref"}}
    parts = said.get("allOf")
    if not isinstance(parts, list):
        return Shape(said, whole)
    merged = {key: value for key, value in said.items() if key != "allOf"}
    for part in _mappings(parts):
        inner = _resolved(part, whole).said
        if not inner.keys() <= {*_MERGED, "title", "description", "default"}:
            return Shape({}, whole)
        merged["properties"] = {**merged.get("properties", {}), **inner.get("properties", {})}
        merged["required"] = [*merged.get("required", ()), *inner.get("required", ())]
        for word in _MERGED[2:]:
            if word in inner:
                merged.setdefault(word, inner[word])
    if not merged["properties"]:
        del merged["properties"]
    return Shape(merged, whole)


def _mappings(values: list[Any]) -> Iterator[Mapping[str, Any]]:
    return (each for each in values if isinstance(each, Mapping))


def _at(target: str, whole: Mapping[str, Any]) -> Mapping[str, Any] | None:
    if not target.startswith("#"):
        return None
    found: Any = whole
    for step in filter(None, target.lstrip("#").split("/")):
        if not isinstance(found, Mapping):
            return None
        found = found.get(step.replace("~1", "/").replace("~0", "~"))
    return found if isinstance(found, Mapping) else None
