"""What models can do, and what is said of a request that one of them cannot serve."""

from __future__ import annotations

from datetime import date

import pytest
from attrs import evolve, fields

from headrace.backends.capabilities import (
    MODELS,
    capabilities_of,
    describe_model,
    lacking,
    require,
)
from headrace.backends.providers import PROVIDERS
from headrace.contracts.capabilities import BackendCapabilities
from headrace.contracts.convert import to_json
from headrace.contracts.errors import LLMCapabilityError
from headrace.contracts.messages import AudioPart, ImagePart, LLMMessage, TextPart, ToolSpec
from headrace.contracts.requests import LLMRequest

ASK = LLMRequest(messages=(LLMMessage(role="user", content="hello"),), model="m")
ALL = BackendCapabilities(
    streaming=True,
    tool_calling="native",
    json_mode="native",
    vision=True,
    max_context_tokens=1000,
    audio=True,
    reasoning=True,
    logprobs=True,
)


def saying(*parts: object) -> tuple[LLMMessage, ...]:
    return (LLMMessage(role="user", content=(TextPart(text="see"), *parts)),)  # type: ignore[arg-type]


PICTURE = saying(ImagePart(data=b"x", media_type="image/png"))
SOUND = saying(AudioPart(data=b"x", format="wav"))
NEEDS = [
    ({"tools": (ToolSpec(name="look"),)}, {"tool_calling": "none"}, "tools", "tool calling"),
    ({"response_schema": {}}, {"json_mode": "none"}, "response_format", "JSON mode"),
    (
        {"response_format": {"type": "json_object"}},
        {"json_mode": "none"},
        "response_format",
        "JSON",
    ),
    ({"messages": PICTURE}, {"vision": False}, "messages", "vision"),
    ({"messages": SOUND}, {"audio": False}, "messages", "audio input"),
    ({"logprobs": True}, {"logprobs": False}, "logprobs", "log probabilities"),
    ({"reasoning_effort": "low"}, {"reasoning": False}, "reasoning_effort", "reasoning"),
    ({"max_tokens": 11}, {"max_context_tokens": 10}, "max_tokens", "11 tokens (it has 10)"),
    ({}, {"embeddings": True}, "messages", "chat"),
]


@pytest.mark.parametrize(("asked", "has", "param", "words"), NEEDS)
def test_what_is_lacking_is_named(asked, has, param, words):
    request = evolve(ASK, **asked)
    require(request, ALL)
    with pytest.raises(LLMCapabilityError, match="model 'm' lacks") as caught:
        require(request, evolve(ALL, **has))
    assert words in str(caught.value)
    assert caught.value.param == param


def test_all_that_is_lacking_is_named_at_once():
    asked = evolve(ASK, messages=PICTURE, logprobs=True, tools=(ToolSpec(name="look"),))
    poor = evolve(ALL, vision=False, logprobs=False, tool_calling="none")
    with pytest.raises(LLMCapabilityError) as caught:
        require(asked, poor)
    for words in ("vision", "log probabilities", "tool calling"):
        assert words in str(caught.value)


@pytest.mark.parametrize(("asked", "has", "param", "words"), NEEDS[:7])
def test_nothing_is_refused_on_account_of_a_guess(asked, has, param, words):
    require(evolve(ASK, **asked), evolve(ALL, known=False, **has))


def test_a_prompt_longer_than_the_window_is_lacking_one():
    assert lacking(ASK, ALL, prompt_tokens=1000) == ()
    (lack,) = lacking(ASK, ALL, prompt_tokens=1001)
    assert lack.param == "messages"
    assert "it has 1000" in lack.what


def test_reasoning_turned_off_needs_none():
    require(evolve(ASK, reasoning_effort="none"), evolve(ALL, reasoning=False))


def glob_names() -> list[tuple[int, str]]:
    return [(i, glob) for i, row in enumerate(MODELS) for glob in row.globs]


@pytest.mark.parametrize(("index", "glob"), glob_names())
def test_every_glob_of_the_table_is_reached(index, glob):
    from headrace.backends.capabilities import _row_of

    assert any(_row_of(glob.replace("*", filler)) is MODELS[index] for filler in ("", "7", "7b-9"))


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("gpt-4o-2024-08-06", {"vision": True, "json_mode": "native", "reasoning": False}),
        ("gpt-5-mini", {"vision": True, "reasoning": True}),
        ("openai/GPT-OSS-120B", {"vision": False, "reasoning": True}),
        ("o1-mini", {"tool_calling": "none"}),
        ("text-embedding-3-small", {"embeddings": True, "streaming": False, "json_mode": "none"}),
        ("meta-llama/Llama-3.1-8B-Instruct", {"vision": False, "tool_calling": "native"}),
        ("meta-llama/Llama-4-Scout-17B", {"vision": True}),
        ("Qwen/Qwen2.5-VL-7B-Instruct", {"vision": True}),
        ("deepseek/deepseek-r1:free", {"reasoning": True, "json_mode": "prompt+validate"}),
        ("anthropic/claude-sonnet-4.5", {"vision": True, "reasoning": True}),
        ("mistral-large-2411", {"vision": False, "tool_calling": "native"}),
        ("mistralai/Mistral-Large-3-675B-Instruct-2512", {"vision": True, "reasoning": False}),
        ("mistral-medium-latest", {"vision": True, "reasoning": True}),
        ("mistral-medium-2508", {"vision": True, "reasoning": False}),
        ("mistralai/Mistral-Small-24B-Instruct-2501", {"vision": False}),
        ("mistralai/Mistral-Small-3.2-24B-Instruct-2506", {"vision": True, "reasoning": False}),
        ("mistralai/Ministral-3-14B-Reasoning-2512", {"vision": True, "reasoning": True}),
        ("ministral-8b-2512", {"vision": True, "reasoning": False}),
        ("magistral-small-2506", {"vision": False, "reasoning": True}),
        ("mistral-embed", {"embeddings": True}),
        ("codestral-embed-2505", {"embeddings": True}),
        ("voxtral-mini-transcribe-3-0", {"audio": True, "tool_calling": "none"}),
        ("grok-4-fast-non-reasoning", {"vision": True, "reasoning": False}),
        ("grok-4-fast-reasoning", {"vision": True, "reasoning": True}),
        ("cohere/command-a-03-2025", {"tool_calling": "native", "json_mode": "native"}),
        ("command", {"tool_calling": "none"}),
        ("deepseek-v4-pro", {"reasoning": True, "json_mode": "prompt+validate"}),
    ],
)
def test_a_model_is_known_by_its_name_wherever_it_is_hosted(model, expected):
    found = capabilities_of(PROVIDERS["vllm"], model)
    assert found.known
    assert {name: getattr(found, name) for name in expected} == expected


@pytest.mark.parametrize("prices", ["mistral", "cohere"])
def test_every_model_in_the_price_data_is_known(prices):
    from headrace.numbers.price import listed_models

    guests = {"zai-glm-5-3", "zai-glm-5-3-flash"}  # others' models in that provider's house
    row = PROVIDERS["vllm"]
    unknown = [name for name in listed_models(prices) if not capabilities_of(row, name).known]
    assert set(unknown) <= guests


def test_an_unknown_model_is_said_to_be_unknown():
    found = capabilities_of(PROVIDERS["vllm"], "my-own-finetune")
    assert not found.known
    assert found.max_context_tokens is None


def test_what_the_provider_leaves_out_its_models_have_not():
    groq = capabilities_of(PROVIDERS["groq"], "llama-3.1-8b-instant")
    assert not groq.logprobs
    assert capabilities_of(PROVIDERS["together"], "llama-3.1-8b-instant").logprobs
    assert capabilities_of(PROVIDERS["deepseek"], "gpt-4o").json_mode == "prompt+validate"


def test_the_context_window_comes_from_the_price_data():
    assert capabilities_of(PROVIDERS["openai"], "gpt-4o").max_context_tokens == 128_000


def test_a_description_is_ready_for_json_with_exact_prices():
    described = describe_model(PROVIDERS["openai"], "gpt-4o", date(2026, 11, 1))
    assert b'"input_uncached":"2.5"' in to_json(described)
    assert {each.name for each in fields(type(described))} == {
        *("provider", "model", "capabilities", "rates"),
    }
