"""Schemas within OpenAI's strict rules: held to them, and no other answers let through."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.wire.openai_strict import strict_schema, without_absent

PLAIN = st.sampled_from(
    [
        {"type": "string"},
        {"type": "integer", "minimum": 2, "default": 3},
        {"type": ["number", "null"]},
        {"type": "boolean", "title": "Yes or no"},
        {"enum": ["a", "b", None]},
        {"enum": [1, 2]},
        {"const": "x"},
        {"type": "null"},
        {"$ref": "#/$defs/Leaf", "description": "a leaf"},
        {"allOf": [{"$ref": "#/$defs/Leaf"}], "default": None},
        {"anyOf": [{"type": "string"}, {"type": "null"}]},
    ]
)
LEAF = {"type": "object", "properties": {"v": {"type": "integer"}, "w": {"type": "string"}}}


def objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    properties = st.dictionaries(st.sampled_from("abcd"), inner, min_size=1, max_size=3)
    return st.tuples(properties, st.sets(st.sampled_from("abcd")), st.booleans()).map(
        lambda drawn: {
            "type": "object",
            "properties": drawn[0],
            "required": sorted(drawn[1] & drawn[0].keys()),
            **({"additionalProperties": False} if drawn[2] else {}),
        }
    )


NODES = st.recursive(
    PLAIN,
    lambda inner: (
        objects(inner)
        | inner.map(lambda node: {"type": "array", "items": node, "maxItems": 2})
        | st.lists(inner, min_size=1, max_size=2).map(lambda nodes: {"anyOf": nodes})
    ),
    max_leaves=6,
)
SCHEMAS = objects(NODES).map(lambda node: {**node, "$defs": {"Leaf": LEAF}})


def answers(node: Any, root: Any) -> st.SearchStrategy[Any]:
    """Values that meet a strict schema, made from it alone."""
    if "$ref" in node:
        return answers(root["$defs"][node["$ref"].rpartition("/")[2]], root)
    if "anyOf" in node:
        return st.one_of([answers(each, root) for each in node["anyOf"]])
    if "enum" in node:
        return st.sampled_from(node["enum"])
    kinds = [node["type"]] if isinstance(node["type"], str) else node["type"]
    by_kind: dict[str, Any] = {
        "string": st.text(max_size=3),
        "integer": st.integers(node.get("minimum", -5), 9),
        "number": st.floats(-1, 1),
        "boolean": st.booleans(),
        "null": st.none(),
    }
    choices = []
    for kind in kinds:
        if kind == "array":
            choices.append(st.lists(answers(node["items"], root), max_size=2))
        elif kind == "object":
            parts = {name: answers(each, root) for name, each in node["properties"].items()}
            choices.append(st.fixed_dictionaries(parts))
        else:
            choices.append(by_kind[kind])
    return st.one_of(choices)


def nodes(node: Any) -> Iterator[dict[str, Any]]:
    yield node
    for each in [
        *node.get("anyOf", ()),
        *node.get("properties", {}).values(),
        *node.get("$defs", {}).values(),
        *([node["items"]] if "items" in node else []),
    ]:
        yield from nodes(each)


@given(schema=SCHEMAS)
def test_every_object_is_closed_and_all_of_it_is_required(schema: dict[str, Any]) -> None:
    strict = strict_schema(schema)
    assert strict is not None
    assert strict["type"] == "object"
    for node in nodes(strict):
        assert not {"default", "title", "oneOf", "allOf"} & node.keys()
        assert "$ref" not in node or node.keys() == {"$ref"}
        if node.get("type") == "object":
            assert node["required"] == list(node["properties"])
            assert node["additionalProperties"] is False


@given(data=st.data(), schema=SCHEMAS)
def test_what_meets_it_meets_what_was_asked_for(data: st.DataObject, schema: Any) -> None:
    strict = strict_schema(schema)
    assert strict is not None
    answer = data.draw(answers(strict, strict))
    assert jsonschema_rs.is_valid(strict, answer)
    assert jsonschema_rs.is_valid(schema, without_absent(answer, schema))


def test_what_is_valid_already_is_let_be() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": ["string", "null"]}, "b": {"type": "string"}},
        "required": ["b"],
    }
    for value in ({"a": None, "b": "x"}, {"b": "x"}, {"b": "x", "more": None}, {"b": None}):
        assert without_absent(value, schema) == value


def closed(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


CAT = closed(kind={"const": "cat"}, lives={"type": "integer"})
DOG = closed(kind={"const": "dog"}, name={"type": "string"})


def test_branches_that_a_tag_tells_apart_are_a_choice() -> None:
    pets = {"oneOf": [CAT, DOG], "discriminator": {"propertyName": "kind"}}
    strict = strict_schema(closed(pet=pets))
    assert strict is not None
    assert len(strict["properties"]["pet"]["anyOf"]) == 2
    same = {"oneOf": [CAT, CAT], "discriminator": {"propertyName": "kind"}}
    assert strict_schema(closed(pet=same)) is None


def test_a_type_that_holds_itself_can_be_said() -> None:
    schema = {
        "type": "object",
        "properties": {"children": {"type": "array", "items": {"$ref": "#"}}},
        "required": ["children"],
    }
    assert strict_schema(schema) is not None


@pytest.mark.parametrize(
    "part",
    [
        {"type": "object", "additionalProperties": {"type": "integer"}},
        {"type": "object"},
        {"type": "object", "properties": {"a": {"type": "null"}}, "additionalProperties": True},
        {"type": "object", "patternProperties": {"^a": {"type": "null"}}},
        {"type": "array"},
        {"type": "array", "prefixItems": [{"type": "string"}], "items": False},
        {"type": "string", "minLength": 3},
        {"type": "string", "format": "iri"},
        {"oneOf": [{"type": "string"}, {"type": "integer"}]},
        {"allOf": [CAT, DOG]},
        {"not": {"type": "string"}},
        {"$ref": "https://elsewhere.example/schema"},
        {"$ref": "#/$defs/NotThere"},
        {},
        True,
    ],
)
def test_what_the_rules_have_no_words_for_is_not_said(part: Any) -> None:
    assert strict_schema(closed(fine={"type": "string"})) is not None
    assert strict_schema(closed(part=part)) is None


def test_what_is_larger_than_the_limits_is_not_said() -> None:
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(12):
        deep = closed(inner=deep)
    assert strict_schema(deep) is None
    assert strict_schema(closed(choice={"enum": list(range(1001))})) is None
    wide = {f"p{i}": {"type": "string"} for i in range(5001)}
    assert strict_schema(closed(**wide)) is None
    assert strict_schema({"type": "array", "items": {"type": "string"}}) is None
