"""``not`` and alternatives in a schema: what the grammar lets through is never barred."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.grammar_walk import takes
from backends.test_schemas import check_walks, grammar
from headrace.backends.local.schemas.negated import without
from headrace.contracts.errors import LLMInvalidRequestError

HELD: dict[str, tuple[Any, list[Any], list[Any]]] = {
    "one of two names": (
        {"type": "object", "not": {"required": ["a", "b"]}, "properties": {"b": {}}},
        [{"b": 1}],
        [{"a": 1, "b": 1}],
    ),
    "a name, whatever it holds": (
        {
            "type": "object",
            "properties": {"a": {"type": "integer"}},
            "not": {"properties": {"a": {"const": 1}}, "required": ["a"]},
        },
        [{"a": 2}],
        [{"a": 1}],
    ),
    "a type": ({"type": ["string", "null"], "not": {"type": "null"}}, ["x"], [None]),
    "a type that is said nowhere else": (
        {"not": {"type": ["object", "array"]}},
        [1, "x"],
        [[], {}],
    ),
    "a whole number": ({"not": {"type": "integer"}}, ["x"], [1, 2]),
    "words": (
        {"type": "string", "not": {"enum": ["admin", "adam", ""]}},
        ["a", "adm", "admin2", "root", "adax"],
        ["admin", "adam", ""],
    ),
    "a word beside a pattern": (
        {"type": "string", "pattern": "^[a-c]{1,3}$", "not": {"const": "abc"}},
        ["ab", "abb"],
        ["abc", "d"],
    ),
    "values of an enum": ({"enum": [1, 2, "x"], "not": {"enum": [2, "x"]}}, [1], [2, "x"]),
    "zero": ({"type": "integer", "not": {"const": 0}}, [1], [0]),
    "a number at the end of a range": (
        {"type": "integer", "minimum": 0, "maximum": 5, "not": {"enum": [4, 5]}},
        [0, 3],
        [4, 5],
    ),
    "nothing": ({"type": ["integer", "null"], "not": {"const": None}}, [1], [None]),
    "each of several": (
        {"type": ["string", "null"], "not": {"anyOf": [{"type": "null"}, {"const": "no"}]}},
        ["yes"],
        [None, "no"],
    ),
    "in one of the alternatives": (
        {
            "type": "object",
            "properties": {"age": {"type": "integer"}},
            "required": ["age"],
            "anyOf": [
                {"oneOf": [{"required": ["first"]}, {"required": ["last"]}]},
                {"not": {"required": ["first", "last"]}},
            ],
        },
        [{"age": 1, "last": 2}],
        [{"first": 1, "last": 2}],
    ),
    "alternatives by a property within a property": (
        {
            "type": "object",
            "oneOf": [
                {
                    "properties": {
                        "kind": {
                            "type": "object",
                            "properties": {"is": {"enum": [kind]}},
                            "required": ["is"],
                        }
                    }
                }
                for kind in ("rpm", "dpkg")
            ],
        },
        [{"kind": {"is": "rpm"}}, {"kind": {"is": "dpkg"}}],
        [{}, {"kind": {"is": "other"}}],
    ),
    "alternatives by a word in a text": (
        {"type": "string", "oneOf": [{"pattern": "maker"}, {"pattern": "^admin"}]},
        ["maker", "admin"],
        ["admin maker", "x"],
    ),
}


@pytest.mark.parametrize("name", HELD)
def test_what_is_barred_is_never_answered_and_others_are(name: str) -> None:
    schema, good, bad = HELD[name]
    text = grammar(schema).text
    for value in good:
        assert takes(text, json.dumps(value, separators=(",", ":"))), value
    for value in bad:
        assert not takes(text, json.dumps(value, separators=(",", ":"))), value
    check_walks(schema, Random(name), 5)


@pytest.mark.parametrize(
    "barred",
    [
        True,
        {},
        {"pattern": "x"},
        {"oneOf": [{"type": "null"}]},
        {"title": "all"},
        {"type": "string"},
    ],
)
def test_what_cannot_be_held_is_still_refused(barred: Any) -> None:
    with pytest.raises(LLMInvalidRequestError, match="'not' at /"):
        grammar({"type": "string", "not": barred})


def test_overlapping_words_are_still_refused() -> None:
    with pytest.raises(LLMInvalidRequestError, match="'oneOf' at /"):
        grammar({"type": "string", "oneOf": [{"pattern": "make"}, {"pattern": "maker"}]})


VALUES = st.sampled_from([None, True, 0, 3, -1, 1.5, "", "a", "ab", "b", [], {}])
TYPES = st.sampled_from(["null", "boolean", "integer", "number", "string", "array", "object"])
INNER = st.fixed_dictionaries(
    {},
    optional={
        "type": TYPES | st.lists(TYPES, min_size=1, max_size=3, unique=True),
        "enum": st.lists(VALUES, min_size=1, max_size=3),
        "const": VALUES,
        "minimum": st.integers(-2, 2),
        "required": st.lists(st.sampled_from(["a", "b"]), min_size=1, unique=True),
        "properties": st.fixed_dictionaries(
            {}, optional={"a": st.just({"const": 1}), "b": st.just({"type": "string"})}
        ),
    },
)


@settings(deadline=None, max_examples=150)
@given(
    schema=INNER.filter(lambda s: len({"const", "enum"} & s.keys()) < 2),
    barred=INNER,
    either=st.booleans(),
    seed=st.integers(0, 10**9),
)
def test_whatever_is_barred_what_comes_meets_the_schema(
    schema: dict[str, Any], barred: dict[str, Any], either: bool, seed: int
) -> None:
    schema = {**schema, "not": {"anyOf": [barred, {"const": "ab"}]} if either else barred}
    try:
        grammar(schema)
    except LLMInvalidRequestError as refusal:
        assert "cannot be held" in refusal.message  # noqa: PT017  the other outcome goes on below
        return
    assert without(schema) is not None
    check_walks(schema, Random(seed), 2)
