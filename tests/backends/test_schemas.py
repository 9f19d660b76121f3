"""A schema as a grammar: what the grammar lets through meets the schema."""

from __future__ import annotations

import json
import re
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import validators

from backends.grammar_walk import takes, walked
from headrace.backends.local.schemas.bounds import Bounds, bounds_for, most_calls, short_name
from headrace.backends.local.schemas.formats import PATTERNS
from headrace.backends.local.schemas.grammar import MOST_SCHEMA_BYTES, Grammar, Grammars, Part
from headrace.backends.local.schemas.judge import Judge
from headrace.contracts.errors import LLMInvalidRequestError

SMALL = Bounds(text=6, list_tokens=60, names=2, depth=1)
OURS = {path.stem: json.loads(path.read_text()) for path in Path(__file__).parent.glob("schemas/*")}
HELD = sorted(name for name in OURS if not name.startswith("refused"))
NAMES = st.sampled_from(["a", "b", "kind", "é", 'q"'])
SCALARS = st.sampled_from([None, True, False, 0, 1, -2, 1.5, "", "x", "y"])


def grammar(schema: Any, bounds: Bounds = SMALL) -> Grammar:
    return Grammars().grammar(Part(schema=schema, param="response_format"), bounds)


def refused(schema: Any) -> LLMInvalidRequestError:
    with pytest.raises(LLMInvalidRequestError) as caught:
        grammar(schema)
    assert caught.value.param == "response_format"
    return caught.value


def second_opinion(schema: Any, text: str) -> str | None:
    kind = validators.validator_for(schema)
    found = next(
        kind(schema, format_checker=kind.FORMAT_CHECKER).iter_errors(json.loads(text)), None
    )
    return None if found is None else found.message


def check_walks(schema: Any, random: Random, times: int) -> int:
    text_of_it, judge, whole = grammar(schema).text, Judge(schema, "x"), 0
    for _ in range(times):
        text = walked(text_of_it, random)
        if text is None:
            continue
        if "Number out of range" in str(judge.fault(text)):
            continue  # an exponent beyond all doubles, where an open object is left as it is
        whole += 1
        assert judge.fault(text) is None, text
        assert second_opinion(schema, text) is None, text
    return whole


@st.composite
def numbers(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["number", "integer"]))
    low = draw(st.none() | st.integers(-50, 50) | st.sampled_from([-0.5, 2.25]))
    high = draw(st.none() | st.integers(51, 99))
    words = draw(
        st.sampled_from([("minimum", "maximum"), ("exclusiveMinimum", "exclusiveMaximum")])
    )
    found = {
        word: value for word, value in zip(words, (low, high), strict=True) if value is not None
    }
    return {"type": kind, **found}


@st.composite
def texts(draw: st.DrawFn) -> dict[str, Any]:
    least = draw(st.none() | st.integers(0, 8))
    beyond = draw(st.none() | st.integers(0, 4))
    made: dict[str, Any] = {"type": "string"}
    if least is not None:
        made["minLength"] = least
    if beyond is not None:
        made["maxLength"] = (least or 0) + beyond
    if draw(st.booleans()):
        return {
            "type": "string",
            "pattern": draw(st.sampled_from(["^[a-c]+$", "x", r"^\d{2}-\w$"])),
        }
    return made


def objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    @st.composite
    def made(draw: st.DrawFn) -> dict[str, Any]:
        properties = draw(st.dictionaries(NAMES, inner, max_size=3))
        node: dict[str, Any] = {"type": "object", "properties": properties}
        node["required"] = draw(st.lists(NAMES, unique=True, max_size=2))
        others = draw(st.sampled_from(["none", "false", "true", "some"]))
        if others != "none":
            node["additionalProperties"] = {"false": False, "true": True}.get(others) or (
                others != "false" and draw(inner)
            )
        if draw(st.booleans()):
            del node["type"]
        if draw(st.integers(0, 5)) == 0:
            node["not"] = {"required": [draw(NAMES)]}
        if draw(st.integers(0, 5)) == 0:
            node["dependentRequired"] = {draw(NAMES): [draw(NAMES)]}
        return node

    return made()


@st.composite
def lists(draw: st.DrawFn, inner: st.SearchStrategy[Any]) -> dict[str, Any]:
    node: dict[str, Any] = {"type": "array"}
    if draw(st.booleans()):
        node["items"] = draw(inner)
    if draw(st.booleans()):
        node["prefixItems"] = draw(st.lists(inner, min_size=1, max_size=2))
    if draw(st.booleans()):
        node["minItems"] = draw(st.integers(0, 3))
    return node


LEAVES = st.one_of(
    numbers(),
    texts(),
    st.just({"type": "boolean"}),
    st.just({}),
    st.just(True),
    st.just({"type": ["string", "null"], "maxLength": 3}),
    st.lists(SCALARS, min_size=1, max_size=3).map(lambda values: {"enum": values}),
    SCALARS.map(lambda value: {"const": value}),
    st.sampled_from(sorted(PATTERNS)).map(lambda name: {"type": "string", "format": name}),
    st.sampled_from(["string", "number", "object"]).map(lambda name: {"not": {"type": name}}),
    st.just({"$ref": "#/$defs/shared"}),
)
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        objects(inner),
        lists(inner),
        st.lists(inner, min_size=1, max_size=3).map(lambda each: {"anyOf": each}),
        st.lists(inner, min_size=1, max_size=2).map(lambda each: {"allOf": each}),
        st.lists(inner, min_size=1, max_size=3).map(lambda each: {"oneOf": each}),
        st.lists(objects(inner), min_size=2, max_size=3).map(
            lambda each: {"type": "object", "oneOf": each}
        ),
    ),
    max_leaves=6,
)


@settings(deadline=None, max_examples=60)
@given(root=SCHEMAS, shared=SCHEMAS, seed=st.integers(0, 10**9))
def test_whatever_a_grammar_lets_through_meets_its_schema(root, shared, seed):
    if not isinstance(root, dict):
        root = {"allOf": [root]}
    schema = {**root, "$defs": {"shared": shared}}
    try:
        grammar(schema)
    except LLMInvalidRequestError as refusal:
        assert "cannot be held" in refusal.message  # noqa: PT017  the other outcome goes on below
        return
    check_walks(schema, Random(seed), 2)


@pytest.mark.parametrize("name", HELD)
def test_our_own_schemas_are_held(name):
    assert check_walks(OURS[name], Random(name), 5) > 0


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (OURS["refused-unique"], "'uniqueItems' at /"),
        (OURS["refused-condition"], "'if' at /"),
        ({"properties": {"a": {"not": {"pattern": "x"}}}}, "'not' at /properties/a"),
        ({"items": {"contains": {"type": "null"}}}, "'contains' at /items"),
        ({"oneOf": [{"type": "string"}, {"minLength": 2}]}, "'oneOf' at /"),
        ({"type": "string", "pattern": "^(?=a)"}, "look-ahead"),
        ({"type": "integer", "minimum": 5, "maximum": 2}, "minimum"),
        ({"$ref": "https://example.invalid/schema.json"}, "example.invalid"),
        ({"properties": {"a": {"$ref": "#/properties/a"}}}, "'$ref' at /"),
        (
            {"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, {"const": 1}]}}},
            "'$ref' at /",
        ),
    ],
)
def test_what_cannot_be_held_is_refused_by_name_and_place(schema, said):
    assert said in refused(schema).message


def test_a_schema_that_is_too_large_is_refused():
    assert str(MOST_SCHEMA_BYTES) in refused({"enum": ["x" * MOST_SCHEMA_BYTES]}).message


def test_a_refusal_is_remembered_and_raised_anew():
    grammars, part = Grammars(), Part(schema=OURS["refused-unique"], param="response_format")
    errors = []
    for _ in range(2):
        with pytest.raises(LLMInvalidRequestError) as caught:
            grammars.grammar(part, SMALL)
        errors.append(caught.value)
    assert errors[0] is not errors[1]
    assert str(errors[0]) == str(errors[1])


def test_nothing_stands_between_the_parts_of_the_json():
    text = grammar(OURS["words"]).text
    assert takes(text, '["ab","cd","ef"]')
    assert not takes(text, '["ab", "cd", "ef"]')


def test_what_the_caller_left_open_comes_to_an_end():
    bounds = bounds_for(256, {"type": "string"})
    text = grammar({"type": "string"}, bounds).text
    assert takes(text, json.dumps("a" * bounds.text))
    assert not takes(text, json.dumps("a" * (bounds.text + 1)))
    assert not takes(grammar({"type": "array"}, bounds).text, json.dumps([1] * 100, indent=None))
    assert not takes(grammar({"type": "number"}).text, "1." + "1" * 50)
    assert not takes(grammar({"type": "integer"}).text, "1" * 50)


def test_a_bound_of_the_callers_own_is_kept():
    text = grammar({"type": "string", "minLength": 400, "maxLength": 500}).text
    assert takes(text, json.dumps("a" * 500))
    assert takes(
        grammar({"type": "array", "items": {"const": 1}, "maxItems": 99}).text,
        json.dumps([1] * 99, separators=(",", ":")),
    )


def test_a_bound_of_the_callers_own_that_the_answer_cannot_reach_is_none():
    schema = {"type": "string", "minLength": 10, "maxLength": 30_000}
    short, long = bounds_for(256, schema), bounds_for(16384, schema)
    assert takes(grammar(schema, short).text, json.dumps("a" * 200))
    assert not takes(grammar(schema, short).text, json.dumps("a" * 1000))
    assert takes(grammar(schema, long).text, json.dumps("a" * 9000))
    items = {"type": "array", "items": {"const": 1}, "maxItems": 5000}
    assert not takes(grammar(items, bounds_for(256, items)).text, "[" + "1," * 99 + "1]")


def test_several_calls_share_the_answer():
    schema = {"type": "object", "properties": {"story": {"type": "string"}}}
    assert most_calls(256) == 2
    assert most_calls(4096) == 8
    assert bounds_for(1024, schema, 4) == bounds_for(256, schema)
    parts = [("tell", Part(schema=schema, param="tools"))]
    text = Grammars().calls(parts, SMALL, most=2).text
    call = '{"name":"tell","arguments":{}}'
    assert takes(text, f"[{call},{call}]")
    assert not takes(text, f"[{call},{call},{call}]")


NAME_PATTERNS = [
    ".*",
    "^.{1,255}$",
    r"\w",
    r"^x-[a-z]+$",
    r"^[*+]\+{2,}",
    "a|^b$",
    r"^a{3}\$",
    r"(?:ab)+c$",
    "[]a]*",
    r"^[^\]]{40,}$",
]


@pytest.mark.parametrize("pattern", NAME_PATTERNS)
def test_names_of_the_callers_own_pattern_are_short_and_meet_it(pattern):
    schema = {"type": "object", "patternProperties": {pattern: {"type": "string"}}}
    check_walks(schema, Random(pattern), 20)
    if pattern != "a|^b$":
        found = re.fullmatch(short_name(pattern)[1:-1], "y" * 100)
        assert found is None


def test_texts_in_a_map_share_what_one_text_may_have():
    alone = {"type": "object", "properties": {"a": {"type": "string"}}}
    bounds = bounds_for(512, alone)
    mapped = {"type": "object", "patternProperties": {"^a$": {"type": "string"}}}
    text = json.dumps({"a": "x" * 300}, separators=(",", ":"))
    assert takes(grammar(alone, bounds).text, text)
    assert not takes(grammar(mapped, bounds).text, text)


def test_a_list_of_anything_is_shorter_than_one_of_numbers():
    bounds = bounds_for(256, {"type": "array"})
    numbers = grammar({"type": "array", "items": {"type": "integer"}}, bounds).text
    anything = grammar({"type": "array"}, bounds).text
    assert takes(numbers, "[1,1,1,1,1,1,1,1,1,1]")
    assert takes(anything, "[1,{}]")
    assert not takes(anything, "[1,1,1,1,1,1,1,1,1,1]")


def test_a_bound_of_ours_gives_way_to_what_the_caller_asks_for():
    schema = {"type": "string", "pattern": "^a{20}b*$"}
    assert takes(grammar(schema).text, json.dumps("a" * 20))


def test_longer_answers_may_have_longer_parts():
    schema = {"type": "object", "properties": {"story": {"type": "string"}}}
    assert bounds_for(4096, schema).text > bounds_for(256, schema).text


def test_alternatives_that_overlap_are_told_apart():
    schema = {
        "oneOf": [
            {"properties": {"a": {"type": "integer"}}, "required": ["a"]},
            {"properties": {"b": {"type": "integer"}}, "required": ["b"]},
        ]
    }
    text = grammar(schema).text
    assert takes(text, '{"a":1}')
    assert takes(text, '{"b":1}')
    assert not takes(text, '{"a":1,"b":1}')


def test_a_named_object_gets_no_other_names():
    text = grammar({"type": "object", "properties": {"a": {"const": 1}}}).text
    assert takes(text, '{"a":1}')
    assert not takes(text, '{"a":1,"b":2}')


@pytest.mark.parametrize("name", sorted(PATTERNS))
def test_our_pattern_of_a_format_lies_within_the_format(name):
    schema = {"type": "string", "format": name}
    assert check_walks(schema, Random(name), 20) > 0


def test_a_format_that_nobody_checks_is_a_remark():
    assert takes(grammar({"type": "string", "format": "colour"}).text, '"red"')


@pytest.mark.parametrize(
    ("text", "said"),
    [('{"a":', "not JSON"), ('{"a": "x"}', "/a"), ("{}", "required")],
)
def test_the_judge_says_what_is_wrong(text, said):
    judge = Judge({"properties": {"a": {"type": "integer"}}, "required": ["a"]}, "response_format")
    assert said in str(judge.fault(text))
    assert judge.fault('{"a": 1}') is None


def test_the_judge_refuses_what_is_no_schema():
    with pytest.raises(LLMInvalidRequestError, match="schema") as caught:
        Judge({"type": 5}, "json_schema")
    assert caught.value.param == "json_schema"
