"""The words of JSON Schema: what each is about, and what to say in place of those no grammar has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.backends.local.schemas.apart import OBJECT_WORDS, TYPES
from headrace.backends.local.schemas.negated import without

_STRING_WORDS = frozenset(["minLength", "maxLength", "pattern", "format"])
_NUMBER_WORDS = frozenset(
    ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"]
)
_ARRAY_WORDS = frozenset(["items", "prefixItems", "additionalItems", "minItems", "maxItems"])
JOINING = ("allOf", "anyOf", "oneOf", "$ref")
OWN = OBJECT_WORDS | _STRING_WORDS | _NUMBER_WORDS | _ARRAY_WORDS | {"type", "enum", "const"}
_REWRITTEN = frozenset(["not", "dependencies", "dependentRequired", "uniqueItems"])
HOLDERS = frozenset(
    ["items", "prefixItems", "additionalItems", "additionalProperties", "allOf", "anyOf", "oneOf"]
)
NAMED_PARTS = ("properties", "patternProperties", "$defs", "definitions")
ADVICE = {
    "not": "say what is allowed instead, by 'type', 'enum' or 'pattern'",
    "if": "say the cases as 'anyOf', each with a 'const' property that names it",
    "then": "say the cases as 'anyOf', each with a 'const' property that names it",
    "else": "say the cases as 'anyOf', each with a 'const' property that names it",
    "uniqueItems": "leave it out and remove repeated items afterwards",
    "contains": "make the item a property of its own, or 'prefixItems'",
    "minContains": "make the items properties of their own, or 'prefixItems'",
    "maxContains": "make the items properties of their own, or 'prefixItems'",
    "propertyNames": "give the names as 'patternProperties' with 'additionalProperties': false",
    "dependentSchemas": "say the cases as 'anyOf'",
    "dependencies": "name what is needed in 'required', or say the cases as 'anyOf'",
    "unevaluatedProperties": "use 'additionalProperties': false",
    "unevaluatedItems": "use 'items': false",
    "$dynamicRef": "use '$ref'",
    "$recursiveRef": "use '$ref'",
    "oneOf": "use 'anyOf', or give each alternative a required property with a 'const' of its own",
}


class Unheld(Exception):
    """``keyword`` at ``path`` (a JSON pointer) is beyond what can be held; ``advice`` says what is not."""

    def __init__(self, keyword: str, path: str, advice: str) -> None:
        super().__init__(f"'{keyword}' at {path or '/'} cannot be held by a grammar; {advice}")
        self.keyword, self.path, self.advice = keyword, path, advice


def in_other_words(node: dict[str, Any], path: str) -> dict[str, Any]:
    """``node`` without the keywords that a grammar lacks; Unheld where that cannot be."""
    for word, advice in ADVICE.items():
        if word not in node or word in _REWRITTEN or word == "oneOf":
            continue
        if word == "unevaluatedProperties" and not any(w in node for w in JOINING):
            node = {**node, "additionalProperties": node.get("additionalProperties", node[word])}
            del node[word]
            continue
        if word in ("then", "else") and "if" not in node:
            node = {k: v for k, v in node.items() if k != word}  # says nothing by itself
            continue
        raise Unheld(word, path, advice)
    if "not" in node:
        other = without(node)
        if other is None:
            raise Unheld("not", path, ADVICE["not"])
        node = other
    if node.get("uniqueItems") and (node.get("maxItems") or 2) > 1 and "enum" not in node:
        raise Unheld("uniqueItems", path, ADVICE["uniqueItems"])
    node = {k: v for k, v in node.items() if k != "uniqueItems"}
    for word in ("dependencies", "dependentRequired"):
        if isinstance(node.get(word), dict):
            node = _with_what_is_needed(node, word, path)
    return node


def _with_what_is_needed(node: dict[str, Any], word: str, path: str) -> dict[str, Any]:
    """What some property needs, required always: that meets the condition whatever comes."""
    required = list(node.get("required") or [])
    for needed in node[word].values():
        if not isinstance(needed, list):
            raise Unheld(word, path, ADVICE["dependencies"])
        required += [name for name in needed if name not in required]
    return {**{k: v for k, v in node.items() if k != word}, "required": required}


def kinds_of(node: Mapping[str, Any]) -> list[str]:
    """The types of ``node``; where it says none, the one that its other keywords are about."""
    said = node.get("type")
    if isinstance(said, str):
        return [said]
    if isinstance(said, list) and said:
        return [kind for kind in said if not (kind == "integer" and "number" in said)]
    for kind, words in (
        ("object", OBJECT_WORDS),
        ("array", _ARRAY_WORDS),
        ("string", _STRING_WORDS),
        ("number", _NUMBER_WORDS),
    ):
        if words & node.keys():
            return [kind]
    return [kind for kind in TYPES if kind != "integer"]


def only_about(node: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """What ``node`` says of values of one type."""
    about = {
        "object": OBJECT_WORDS,
        "array": _ARRAY_WORDS,
        "string": _STRING_WORDS,
        "number": _NUMBER_WORDS,
        "integer": _NUMBER_WORDS,
    }.get(kind, frozenset[str]())
    return {**{k: v for k, v in node.items() if k in about}, "type": kind}


def says_something(node: Mapping[str, Any]) -> bool:
    return any(word in node for word in (*OWN, *JOINING, *ADVICE))


def speaks_twice(node: Mapping[str, Any]) -> bool:
    """Whether two parts of ``node`` speak of the same value."""
    joining = sum(word in node for word in JOINING)
    if len(node.get("allOf") or []) > 1:
        joining += 1
    own = any(word in node for word in (OWN | {"not"}))
    return joining + own > 1


def joined(node: Mapping[str, Any]) -> list[Any]:
    return [
        child
        for word in ("allOf", "anyOf", "oneOf")
        if isinstance(node.get(word), list)
        for child in node[word]
    ]


def inner_of(node: Mapping[str, Any]) -> list[Any]:
    found = []
    for word in ("properties", "patternProperties"):
        if isinstance(node.get(word), dict):
            found += node[word].values()
    for word in ("items", "prefixItems", "additionalItems", "additionalProperties"):
        child = node.get(word)
        found += child if isinstance(child, list) else [child]
    return found
