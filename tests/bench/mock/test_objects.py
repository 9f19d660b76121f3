"""Requests with a schema are answered with an object that meets it."""

from __future__ import annotations

import enum
import json
from typing import Annotated, Literal

import jsonschema
import msgspec
import openai
import pytest
from pydantic import BaseModel, Field

from headrace import Client, LLMChatParams
from headrace.bench.mock.objects import object_for
from headrace.contracts.errors import LLMInvalidRequestError

from .asking import post

MESSAGES = [{"role": "user", "content": "Tell me of the mill."}]


class Mood(enum.Enum):
    calm = "calm"
    wild = "wild"


class Gear(BaseModel):
    teeth: int = Field(ge=8, le=200, multiple_of=4)
    of: Literal["oak", "elm"]


class Mill(BaseModel):
    name: str = Field(min_length=20, max_length=40)
    mood: Mood
    gears: list[Gear] = Field(min_length=2)
    price: float = Field(gt=0, lt=1)
    since: Annotated[str, Field(json_schema_extra={"format": "date"})]
    owner: str | None
    turns: bool
    next: Mill | None = None


class Tree(msgspec.Struct):
    name: str
    children: list[Tree] = []


SCHEMAS = [
    Mill.model_json_schema(),
    msgspec.json.schema(Tree),
    {"type": "object", "properties": {"a": {"allOf": [{"type": "integer"}, {"minimum": 7}]}}},
    {
        "type": "object",
        "properties": {"pair": {"type": "array", "prefixItems": [{}, {"const": 3}]}},
    },
    {"type": ["null", "object"], "properties": {"x": {"enum": [None, 1]}}, "required": ["x"]},
]


@pytest.fixture
def url(headrace_mock):
    return headrace_mock(tokens=7).url


@pytest.mark.parametrize("schema", SCHEMAS)
def test_the_object_meets_its_schema(schema):
    said = json.loads("".join(object_for(json.dumps(schema).encode())))
    jsonschema.Draft202012Validator(schema).validate(said)


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"$ref": "#/$defs/gone"}, "#/\\$defs/gone"),
        ({"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, "itself"),
        (
            {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
            "contains itself",
        ),
    ],
)
def test_a_schema_that_nothing_can_meet_is_refused_with_the_reason(schema, said):
    with pytest.raises(LLMInvalidRequestError, match=said):
        object_for(json.dumps(schema).encode())


def test_the_vendors_sdk_gets_its_type_whole_and_in_pieces(url):
    with openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as client:
        whole = client.chat.completions.parse(model="m", messages=MESSAGES, response_format=Gear)
        assert whole.choices[0].message.parsed == Gear(teeth=8, of="oak")
        with client.chat.completions.stream(
            model="m", messages=MESSAGES, response_format=Gear
        ) as stream:
            said = stream.get_final_completion()
        assert said.choices[0].message.parsed == Gear(teeth=8, of="oak")
        answer = client.responses.parse(model="m", input="Tell me.", text_format=Gear)
        assert answer.output_parsed == Gear(teeth=8, of="oak")


def test_our_own_client_gets_its_type(url):
    with Client("gpt-4o-mini", provider="openai", base_url=f"{url}/v1", api_key="any") as client:
        made = client.chat("Tell me.", output=Gear)
    assert made.output == Gear(teeth=8, of="oak")
    assert made.usage.completion_tokens == len(object_for(json.dumps(GEAR).encode()))


GEAR = {
    "type": "object",
    "properties": {
        "teeth": {"type": "integer", "minimum": 8, "maximum": 200, "multipleOf": 4},
        "of": {"type": "string", "enum": ["oak", "elm"]},
    },
    "required": ["teeth", "of"],
}


def test_an_object_is_cut_where_the_request_has_a_shorter_limit(url):
    with Client("gpt-4o-mini", provider="openai", base_url=f"{url}/v1", api_key="any") as client:
        said = client.chat("Tell me.", params=LLMChatParams(response_schema=GEAR, max_tokens=2))
    assert (said.finish_reason, said.usage.completion_tokens) == ("length", 2)
    assert '{"teeth":8,"of":"oak"}'.startswith(said.text)


def test_json_mode_without_a_schema_is_answered_as_ever(url):
    asked = {"model": "m", "messages": MESSAGES, "response_format": {"type": "json_object"}}
    said = post(url, asked)["choices"][0]["message"]["content"]
    assert said == "the water runs down a narrow race"
