"""Contracts through JSON, YAML and plain values, and what is said of a wrong input."""

import json
import math
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Literal

import attrs
import pytest
from attrs import field, frozen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.contracts.convert import from_json, from_plain, from_yaml, to_json, to_plain
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.messages import (
    AudioPart,
    FilePart,
    ImagePart,
    LLMMessage,
    TextPart,
    ToolSpec,
)
from headrace.contracts.record import Marks
from headrace.contracts.requests import LLMRequest, NamedTool, TaskProfile
from headrace.contracts.responses import EmbeddingResult, LLMResponse, Usage

from .test_seed_table import CONTRACTS
from .values import contracts_of

USER = {"role": "user", "content": "hello"}
KEY = "sk-proj-4f8a1c"


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@frozen(kw_only=True)
class Remote:
    url: str
    api_key: str | None = field(default=None, repr=False)
    retries: int = field(default=3, validator=attrs.validators.ge(0))


@frozen(kw_only=True)
class Settings:
    port: int = 8000
    timeout_s: float = 30.0
    home: Path = Path()
    colour: Colour = Colour.RED
    level: Literal[0, 1] = 0
    size: tuple[int, int] = (1, 1)
    price: Decimal = Decimal(0)
    backends: dict[str, Remote] = field(factory=dict)
    fallback: list[Remote] = field(factory=list)


def complaint(read, *args):
    with pytest.raises(LLMInvalidRequestError) as caught:
        read(*args)
    return str(caught.value)


@pytest.mark.parametrize("cls", [c for c in CONTRACTS if c is not Marks])
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data())
def test_a_contract_comes_back_from_json_as_it_was(cls, data):
    value = data.draw(contracts_of(cls))
    written = to_json(value)
    assert from_json(written, cls) == value
    # A second judge: it is JSON to others too, and says the same as the plain form.
    assert json.loads(written) == json.loads(json.dumps(to_plain(value)))


def test_parts_of_content_are_told_apart_by_their_type():
    parts = (
        TextPart(text="a"),
        ImagePart(data=b"\x00\xff"),
        AudioPart(data=b"", format="wav"),
        FilePart(file_id="f1"),
    )
    message = LLMMessage(role="user", content=parts)
    plain = to_plain(message)
    assert [part["type"] for part in plain["content"]] == ["text", "image", "audio", "file"]
    assert plain["content"][1]["data"] == "AP8="
    assert from_plain(plain, LLMMessage) == message


def test_a_tool_choice_is_a_word_or_a_name():
    for choice, plain in (("required", "required"), (NamedTool(name="f"), {"name": "f"})):
        request = LLMRequest(messages=(), tool_choice=choice)
        assert to_plain(request)["tool_choice"] == plain
        assert from_plain(to_plain(request), LLMRequest) == request


def test_usage_as_counts_and_usage_as_a_class_stay_what_they_are():
    for usage in (Usage(prompt_tokens=3), {"prompt_tokens": 3}, None):
        response = LLMResponse(text="", usage=usage)
        assert from_plain(to_plain(response), LLMResponse) == response


def test_a_price_is_written_as_text_so_that_no_digit_is_lost():
    price = Decimal("0.1000000000000000000000001")
    response = LLMResponse(text="", price_usd=price)
    assert to_plain(response)["price_usd"] == str(price)
    assert from_json(to_json(response), LLMResponse).price_usd == price


def test_a_whole_number_is_fine_where_a_float_is_meant():
    request = from_plain({"messages": [], "temperature": 1}, LLMRequest)
    assert (request.temperature, type(request.temperature)) == (1.0, float)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"max_tokens": "3"}, "expected a whole number or null, got '3' @ $.max_tokens"),
        ({"max_tokens": True}, "expected a whole number or null, got true @ $.max_tokens"),
        ({"max_tokens": 3.0}, "expected a whole number or null, got 3.0 @ $.max_tokens"),
        ({"temperature": "1"}, "expected a number or null, got '1' @ $.temperature"),
        ({"temperature": False}, "expected a number or null, got false @ $.temperature"),
        ({"temperature": math.inf}, "expected a finite number, got inf @ $.temperature"),
        ({"echo": 1}, "expected true or false or null, got 1 @ $.echo"),
        ({"model": 4}, "expected text or null, got 4 @ $.model"),
        ({"messages": "hello"}, "expected a list, got 'hello' @ $.messages"),
        ({"messages": {}}, "expected a list, got an object @ $.messages"),
        ({"messages": [3]}, "expected an object, got 3 @ $.messages[0]"),
        ({"prompt": [1, None]}, "expected a whole number, got null @ $.prompt[1]"),
        ({"stop": ["a", 1]}, "expected text, got 1 @ $.stop[1]"),
        ({"logit_bias": {"7": "x"}}, "expected a number, got 'x' @ $.logit_bias['7']"),
        ({"metadata": []}, "expected an object, got a value not shown @ $.metadata"),
        (
            {"tool_choice": "maybe"},
            "expected one of 'auto', 'none', 'required', got 'maybe' @ $.tool_choice",
        ),
        (
            {"tool_choice": {"nam": "f"}},
            "required field missing @ $.tool_choice.name; "
            "unknown field 'nam' @ $.tool_choice (nearest: 'name')",
        ),
        (
            {"task_profile": {"priority": "speed"}},
            "expected one of 'latency', 'quality', 'cost', 'balanced', got 'speed' "
            "@ $.task_profile.priority",
        ),
        (
            {"messages": [USER, USER, {"content": "x"}]},
            "required field missing @ $.messages[2].role",
        ),
        (
            {"messages": [{**USER, "role": "robot"}]},
            "expected one of 'system', 'user', 'assistant', 'tool', got 'robot' "
            "@ $.messages[0].role",
        ),
        (
            {"messages": [{**USER, "content": [{"type": "txt"}]}]},
            "expected one of 'text', 'image', 'audio', 'file', got 'txt' "
            "@ $.messages[0].content[0].type",
        ),
        (
            {"messages": [{**USER, "content": [{"text": "x"}]}]},
            "required field missing @ $.messages[0].content[0].type",
        ),
        ({"temprature": 1}, "unknown field 'temprature' @ $ (nearest: 'temperature')"),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong_and_where(change, expected):
    assert complaint(from_plain, {"messages": [], **change}, LLMRequest) == expected


def test_a_wrong_request_is_told_everything_that_is_wrong_at_once():
    plain = {"messages": [{"role": "user"}], "max_tokens": "3", "sede": 1}
    said = complaint(from_plain, plain, LLMRequest).split("; ")
    assert [s.split(" @ ")[1].split(" ")[0] for s in said] == [
        "$.messages[0].content",
        "$.max_tokens",
        "$",
    ]


@pytest.mark.parametrize(
    ("plain", "param"),
    [
        ({"messages": [{"role": "x", "content": ""}]}, "messages[0].role"),
        ({"messages": [], "sede": 1}, "sede"),
        ({}, "messages"),
        ([], None),
    ],
)
def test_the_error_names_the_wrong_field_by_itself_too(plain, param):
    with pytest.raises(LLMInvalidRequestError) as caught:
        from_plain(plain, LLMRequest)
    assert caught.value.param == param


def test_an_unknown_field_that_resembles_none_is_told_the_known_ones():
    said = complaint(from_plain, {"zzz": 1}, TaskProfile)
    assert said == ("unknown field 'zzz' @ $ (known: priority, max_cost_usd, max_latency_ms, tags)")


def test_bytes_that_are_not_base64_are_refused_without_showing_them():
    plain = {"role": "user", "content": [{"type": "image", "data": "%%%"}]}
    said = complaint(from_plain, plain, LLMMessage)
    assert said == "expected base64 text, got a value not shown @ $.content[0].data"


def test_a_float_is_no_price():
    said = complaint(from_plain, {"text": "", "price_usd": 0.1}, LLMResponse)
    assert said.endswith("got 0.1 @ $.price_usd")


@pytest.mark.parametrize("text", [b"{", b"", b"{'a': 1}", b"NaN", b"[1,]", b"\xff", b"[" * 20000])
def test_what_is_not_json_is_refused(text):
    assert complaint(from_json, text, LLMRequest).startswith("not JSON: ")


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"a": [math.nan]}, "JSON has no nan; a finite number is expected @ $.metadata.a[0]"),
        ({"a": {1, 2}}, "JSON has no form for a set @ $.metadata.a"),
        ({"a": {1: 2}}, "JSON keys are text, not 1 @ $.metadata.a"),
    ],
)
def test_what_json_cannot_say_is_not_written(metadata, expected):
    assert complaint(to_json, LLMRequest(messages=(), metadata=metadata)) == expected


def test_text_beyond_unicode_is_refused_not_bent():
    said = complaint(to_json, LLMRequest(messages=(), metadata={"a": "\ud800"}))
    assert said.startswith("cannot be written as JSON: ")


def test_a_number_of_any_size_keeps_its_digits():
    request = LLMRequest(messages=(), seed=2**70)
    assert from_json(to_json(request), LLMRequest) == request


def test_vectors_come_back_as_floats():
    result = from_json(b'{"vectors": [[1, 2.5]]}', EmbeddingResult)
    assert result.vectors == ((1.0, 2.5),)
    assert type(result.vectors[0][0]) is float


def test_any_attrs_class_can_be_read_from_yaml():
    text = """
    port: 9000
    timeout_s: 1e1
    home: models/box
    colour: blue
    level: 1
    size: [2, 3]
    price: "0.15"
    backends:
      groq: {url: "https://api.groq.com", api_key: k}
    fallback:
      - {url: here, retries: 0}
    """
    assert from_yaml(text, Settings) == Settings(
        port=9000,
        timeout_s=10.0,
        home=Path("models/box"),
        colour=Colour.BLUE,
        level=1,
        size=(2, 3),
        price=Decimal("0.15"),
        backends={"groq": Remote(url="https://api.groq.com", api_key="k")},
        fallback=[Remote(url="here", retries=0)],
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("prot: 1", "unknown field 'prot' @ $ (nearest: 'port')"),
        ("port: 22:22", "expected a whole number, got '22:22' @ $.port"),
        ("port: null", "expected a whole number, got null @ $.port"),
        ("home: 3", "expected a path, got 3 @ $.home"),
        ("colour: green", "expected one of 'red', 'blue', got 'green' @ $.colour"),
        ("level: true", "expected one of 0, 1, got true @ $.level"),
        ("size: [1]", "expected a list of 2, got a list of 1 @ $.size"),
        ("size: [1, x]", "expected a whole number, got 'x' @ $.size[1]"),
        ("backends: {1: {url: x}}", "expected text, got 1 @ $.backends[1]"),
        (
            "backends: {a-b: {uri: x}}",
            "required field missing @ $.backends['a-b'].url; "
            "unknown field 'uri' @ $.backends['a-b'] (nearest: 'url')",
        ),
        (
            "fallback: [{url: x}, {url: y, retrys: 1}]",
            "unknown field 'retrys' @ $.fallback[1] (nearest: 'retries')",
        ),
        (
            "backends: {a: {url: x, retries: -1}}",
            "invalid value: 'retries' must be >= 0: -1 @ $.backends.a",
        ),
        ("", "expected an object, got null @ $"),
        ("port: 1\nport: 2", "not YAML: key 'port' is given twice at line 2, column 1"),
        ("port: [1", "not YAML: expected ',' or ']', but got '<stream end>' at line 1, column 9"),
    ],
)
def test_a_wrong_configuration_is_told_what_is_wrong_and_where(text, expected):
    assert complaint(from_yaml, text, Settings) == expected


def test_a_secret_of_the_wrong_type_is_not_shown():
    said = complaint(from_plain, {"backends": {"a": {"url": "x", "api_key": [KEY]}}}, Settings)
    assert KEY not in said
    assert "$.backends.a.api_key" in said


def test_a_secret_that_its_own_validator_refuses_is_not_shown():
    @frozen(kw_only=True)
    class Guarded:
        key: str = field(repr=False, validator=attrs.validators.matches_re("[0-9]+"))

    said = complaint(from_plain, {"key": KEY}, Guarded)
    assert said == "invalid value @ $.key"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("2024-01-01", "2024-01-01"),
        ("0x1F", 31),
        ("010", 10),
        ("-3", -3),
        ("1e-3", 0.001),
        (".5", 0.5),
        ("~", None),
        ("True", True),
        ("'1'", "1"),
        ("a: &x {b: 1}\nc: {<<: *x, d: 2}", {"a": {"b": 1}, "c": {"b": 1, "d": 2}}),
    ],
)
def test_yaml_is_read_by_the_rules_of_its_version_1_2(text, value):
    read = from_yaml(text, object)
    assert (read, type(read)) == (value, type(value))


def test_a_mistake_in_a_class_is_not_blamed_on_the_input():
    @frozen(kw_only=True)
    class Odd:
        inner: list[memoryview]

    with pytest.raises(Exception, match="memoryview") as caught:
        from_plain({"inner": [1]}, Odd)
    assert not isinstance(caught.value, LLMInvalidRequestError)


def test_a_repr_shows_neither_keys_nor_files():
    request = LLMRequest(
        messages=(
            LLMMessage(role="user", content=(ImagePart(data=KEY.encode()),)),
            LLMMessage(role="user", content=(AudioPart(data=KEY.encode(), format="wav"),)),
            LLMMessage(role="user", content=(FilePart(data=KEY.encode()),)),
        ),
        tools=(ToolSpec(name="f"),),
        metadata={"api_key": KEY},
    )
    response = LLMResponse(text="", raw={"key": KEY}, raw_output={"key": KEY})
    assert KEY not in repr(request) + repr(response)
    assert "ToolSpec(name='f'" in repr(request)
