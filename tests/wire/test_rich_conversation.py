"""The same rich conversation through every face to every format.

What does not arrive must stand in the table of the codec that lost it (``LOSSES``), and what stands
there must be lost. A further codec is one more line in CODECS; a further field of the contracts
fails here until there is a feature that uses it.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from attrs import evolve, fields

from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.messages import (
    AudioPart,
    FilePart,
    ImagePart,
    LLMMessage,
    ReasoningPart,
    TextPart,
    ToolCall,
    ToolSpec,
)
from headrace.contracts.requests import LLMRequest, NamedTool
from headrace.contracts.responses import (
    LLMChoice,
    LLMResponse,
    TokenLogprob,
    TopLogprob,
    Usage,
)
from headrace.wire import (
    anthropic,
    gemini,
    kserve_generate,
    ollama,
    ollama_generate,
    opea,
    openai_chat,
    openai_completions,
    openai_responses,
    tgi,
)
from headrace.wire.assemble import assemble, deltas
from headrace.wire.losses import lost

CODECS = {
    "openai_chat": openai_chat,
    "openai_completions": openai_completions,
    "openai_responses": openai_responses,
    "anthropic": anthropic,
    "gemini": gemini,
    "ollama": ollama,
    "ollama_generate": ollama_generate,
    "tgi": tgi,
    "kserve_generate": kserve_generate,
    "opea": opea,
}
OF_PROMPTS = {openai_completions, ollama_generate, tgi, kserve_generate}
"""Those that take a prompt in the place of a conversation."""

PNG = b"\x89PNG\r\n\x1a\n"
WEATHER = ToolSpec(
    name="weather",
    description="The weather in a city",
    input_schema={"type": "object", "properties": {"city": {"type": "string"}}},
)
CALL = ToolCall(name="weather", arguments_json='{"city":"Zürich"}', call_id="call_1")


def user(*parts: Any) -> LLMMessage:
    return LLMMessage(role="user", content=(TextPart(text="Look:"), *parts))


def result(**more: Any) -> LLMMessage:
    said = {"role": "tool", "content": "12 °C", "tool_call_id": "call_1", **more}
    return LLMMessage(**said)


def answered(**more: Any) -> LLMMessage:
    return LLMMessage(**{"role": "assistant", "content": "Well.", **more})


TURNS: list[tuple[str, LLMMessage]] = [
    ("messages.role", LLMMessage(role="system", content="Be brief.")),
    ("messages.content", user(TextPart(text="Grüezi 👋"))),
    ("messages.content.image", user(ImagePart(data=PNG, media_type="image/png"))),
    ("messages.content.image", user(ImagePart(url="https://x.test/a.png"))),
    ("messages.content.detail", user(ImagePart(url="https://x.test/a.png", detail="low"))),
    ("messages.content.audio", user(AudioPart(data=b"RIFF", format="wav"))),
    ("messages.content.data", user(FilePart(data=b"%PDF", media_type="application/pdf"))),
    (
        "messages.content.filename",
        user(FilePart(data=b"%PDF", media_type="application/pdf", filename="a.pdf")),
    ),
    ("messages.content.media_type", user(FilePart(data=b"# A", media_type="text/markdown"))),
    ("messages.content.file_id", user(FilePart(file_id="file_1"))),
    ("messages.content.url", user(FilePart(url="https://x.test/a.pdf"))),
    ("messages.content.cache", user(TextPart(text="long", cache="1h"))),
    ("messages.content.cache", user(ImagePart(url="https://x.test/a.png", cache="5m"))),
    ("messages.name", LLMMessage(role="user", content="hi", name="ann")),
    ("messages.tool_calls", answered(tool_calls=(CALL, evolve(CALL, call_id="call_2")))),
    ("messages.tool_calls", answered(content="", tool_calls=(CALL,))),
    ("messages.tool_call_id", result()),
    ("messages.tool_error", result(tool_error=True)),
    ("messages.tool_name", result(tool_name="weather")),
    ("messages.reasoning", answered(reasoning="Hm.")),
    (
        "messages.reasoning_parts.signature",
        answered(
            reasoning="Hm.",
            reasoning_parts=(
                ReasoningPart(text="Hm.", signature="seal"),
                ReasoningPart(encrypted="hidden"),
            ),
        ),
    ),
    (
        "messages.reasoning_parts.part_id",
        answered(
            reasoning="Hm.",
            reasoning_parts=(ReasoningPart(text="Hm.", encrypted="e", part_id="rs_1"),),
        ),
    ),
    ("messages.refusal", answered(content="", refusal="No.")),
]
SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("model", {"model": "m"}),
    ("temperature", {"temperature": 0.5}),
    ("max_tokens", {"max_tokens": 7}),
    ("tools", {"tools": (WEATHER,)}),
    ("tools.strict", {"tools": (evolve(WEATHER, strict=True),)}),
    ("tools.strict", {"tools": (WEATHER, evolve(WEATHER, name="wind", strict=False))}),
    ("tools.cache", {"tools": (evolve(WEATHER, cache="5m"),)}),
    ("response_schema", {"response_schema": {"type": "object"}}),
    (
        "response_format",
        {
            "response_schema": {"type": "object"},
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "a", "strict": True, "schema": {"type": "object"}},
            },
        },
    ),
    ("provider_options", {"provider_options": {"x_own": [1]}}),
    ("prompt", {"prompt": "Once", "messages": ()}),
    ("suffix", {"suffix": "end"}),
    ("echo", {"echo": True}),
    ("tool_choice", {"tools": (WEATHER,), "tool_choice": "required"}),
    ("tool_choice", {"tools": (WEATHER,), "tool_choice": NamedTool(name="weather")}),
    ("parallel_tool_calls", {"tools": (WEATHER,), "parallel_tool_calls": False}),
    ("top_p", {"top_p": 0.5}),
    ("top_k", {"top_k": 5}),
    ("min_p", {"min_p": 0.1}),
    ("seed", {"seed": 1}),
    ("stop", {"stop": ("a", "b")}),
    ("frequency_penalty", {"frequency_penalty": 0.5}),
    ("presence_penalty", {"presence_penalty": 0.5}),
    ("repetition_penalty", {"repetition_penalty": 1.5}),
    ("logit_bias", {"logit_bias": {"1": 1.0}}),
    ("logprobs", {"logprobs": True}),
    ("top_logprobs", {"logprobs": True, "top_logprobs": 2}),
    ("n", {"n": 2}),
    ("reasoning_effort", {"reasoning_effort": "minimal"}),
    ("user", {"user": "ann"}),
]
STAY_WITH_US = {
    "metadata",
    "response_mode",
    "response_instruction",
    "task_profile",
    "request_id",
    "priority",
}

SAID = LLMResponse(
    text="12 °C",
    model="m",
    response_id="msg_1",
    finish_reason="stop",
    usage=Usage(prompt_tokens=9, completion_tokens=3, total_tokens=12),
)
LOGPROB = TokenLogprob(token="a", logprob=-0.5, top=(TopLogprob(token="b", logprob=-1.0),))
CHOICES = tuple(LLMChoice(index=i, text=f"{i}", finish_reason="stop") for i in range(2))
ANSWERS: list[tuple[str, dict[str, Any]]] = [
    ("answer.text", {"text": "Grüezi 👋"}),
    ("answer.model", {"model": "other"}),
    ("answer.response_id", {"response_id": "msg_2"}),
    ("answer.finish_reason", {"finish_reason": "length"}),
    ("answer.finish_reason", {"finish_reason": "content_filter"}),
    ("answer.raw_finish_reason", {"raw_finish_reason": "eos_token"}),
    ("answer.stop_sequence", {"stop_sequence": "###"}),
    ("answer.tool_calls", {"finish_reason": "tool_calls", "tool_calls": (CALL,)}),
    ("answer.reasoning", {"reasoning": "Hm."}),
    (
        "answer.reasoning_parts",
        {"reasoning": "Hm.", "reasoning_parts": (ReasoningPart(text="Hm.", signature="s"),)},
    ),
    ("answer.refusal", {"text": "", "refusal": "No.", "finish_reason": "content_filter"}),
    (
        "answer.usage",
        {
            "usage": Usage(
                prompt_tokens=9,
                completion_tokens=3,
                total_tokens=12,
                input_uncached_tokens=4,
                input_cache_read_tokens=3,
                input_cache_write_tokens=2,
                output_text_tokens=1,
                output_reasoning_tokens=2,
            )
        },
    ),
    ("answer.logprobs", {"logprobs": (LOGPROB,), "text": "a"}),
    ("answer.choices", {"text": "0", "choices": CHOICES}),
    ("answer.created", {"created": 1_700_000_000}),
    ("answer.system_fingerprint", {"system_fingerprint": "fp_1"}),
    ("answer.provider_fields", {"provider_fields": {"timings": {"n": 1}}}),
]
# What is asked for by name, where not every answer has it.
KEPT = ("timings", "logprobs")
# What we know of an answer by having asked, and what we make of it.
NOT_SAID = {
    *("provider", "latency_ms", "raw_output", "raw", "provenance", "request_id", "price_usd"),
    "dropped",
}

pairs = pytest.mark.parametrize(("face", "format_name"), list(product(CODECS, CODECS)))


def reason_of(codec: Any, key: str) -> str | None:
    """Why the codec loses what ``key`` names, by the longest part of it that stands in its table."""
    while key:
        if key in codec.LOSSES:
            return str(codec.LOSSES[key])
        key = key.rpartition(".")[0]
    return None


def base(codec: Any) -> LLMRequest:
    if codec in OF_PROMPTS:
        return LLMRequest(messages=(), prompt="Hello", model="m", max_tokens=5)
    return LLMRequest(messages=(LLMMessage(role="user", content="Hello"),), model="m", max_tokens=5)


def carried(codec: Any, request: LLMRequest) -> LLMRequest | None:
    """What arrives of ``request``, written and read in one format; ``None`` where it is refused."""
    try:
        body = codec.write_request(request, stream=False)
    except LLMInvalidRequestError:
        return None
    arrived: LLMRequest = codec.read_request(body).request
    return arrived


def routed(heard: LLMRequest, sent: LLMRequest) -> LLMRequest:
    """``heard`` under the model's name, which some formats have in the address and not in the body."""
    return evolve(heard, model=sent.model) if heard.model is None else heard


def asking(codec: Any, key: str, changes: Any) -> LLMRequest:
    """A request with one feature, in the smallest form that the format takes."""
    if isinstance(changes, LLMMessage):
        hello = LLMMessage(role="user", content="Hello")
        turns = (changes, hello) if changes.role == "system" else (changes,)
        return evolve(base(codec), messages=turns, prompt=None)
    return evolve(base(codec), **changes)


def arrives_whole(key: str, sent: LLMRequest, arrived: LLMRequest | None) -> bool:
    if arrived is None:
        return False
    name = key.partition(".")[0]
    if name == "messages":
        return arrived.messages == sent.messages
    return bool(getattr(arrived, name) == getattr(sent, name))


FEATURES: list[Any] = [
    pytest.param(key, changes, id=f"{key}-{i}")
    for i, (key, changes) in enumerate([*TURNS, *SETTINGS])
]


@pytest.mark.parametrize(("key", "changes"), FEATURES)
@pairs
def test_a_feature_arrives_or_its_loss_is_in_the_table(face, format_name, key, changes):
    asked = asking(CODECS[face], key, changes)
    heard = carried(CODECS[face], asked)
    if not arrives_whole(key, asked, heard):
        assert reason_of(CODECS[face], key), f"{face} loses {key}"
        return
    assert heard is not None
    heard = routed(heard, asked)
    to = CODECS[format_name]
    if (to in OF_PROMPTS) is not (heard.prompt is not None):
        assert reason_of(to, "prompt") or reason_of(to, "messages")
        return
    assert arrives_whole(key, heard, carried(to, heard)) or reason_of(to, key), (
        f"{format_name} loses {key}"
    )


@pytest.mark.parametrize("name", CODECS)
def test_what_the_table_calls_lost_is_lost(name):
    codec = CODECS[name]
    kept: dict[str, bool] = {}
    for key, changes in [*TURNS, *SETTINGS]:
        asked = asking(codec, key, changes)
        kept[key] = kept.get(key, True) and arrives_whole(key, asked, carried(codec, asked))
    for key, changes in ANSWERS:
        kept[key] = kept.get(key, True) and said_by(codec, changes)[1] == said_by(codec, changes)[0]
    stale = [key for key in codec.LOSSES if kept.get(key, False)]
    assert stale == []


@pairs
def test_the_whole_conversation_arrives_but_for_what_the_tables_say(face, format_name):
    here, there = CODECS[face], CODECS[format_name]
    if OF_PROMPTS & {here, there}:
        assert all(reason_of(codec, "messages") for codec in OF_PROMPTS)
        return
    fit = [
        (key, turn)
        for key, turn in TURNS
        if all(carried(codec, asking(codec, key, turn)) is not None for codec in (here, there))
    ]
    settings: dict[str, Any] = {}
    for _, changes in SETTINGS:
        settings |= {k: v for k, v in changes.items() if k not in ("prompt", "messages")}
    sent = LLMRequest(messages=tuple(turn for _, turn in fit), **settings)
    heard = carried(here, sent)
    assert heard is not None
    arrived = carried(there, routed(heard, sent))
    assert arrived is not None
    assert len(arrived.messages) == len(sent.messages)
    for (key, turn), got in zip(fit, arrived.messages, strict=True):
        if told_no_less(turn, got) != turn:
            assert reason_of(here, key) or reason_of(there, key), f"{key}: {got}"
    for each in fields(LLMRequest):
        if each.name == "messages" or each.name in STAY_WITH_US:
            continue
        if getattr(arrived, each.name) != getattr(sent, each.name):
            keys = ("tools.cache", "tools.strict") if each.name == "tools" else (each.name,)
            assert any(reason_of(c, key) for c in (here, there) for key in keys), each.name


def told_no_less(sent: LLMMessage, got: LLMMessage) -> LLMMessage:
    """``got`` without the tool's name where only the call's id was sent: that was added on the way,
    for those who know results by it."""
    return evolve(got, tool_name=None) if sent.tool_name is None else got


def without(codec: Any, sent: LLMResponse, changes: dict[str, Any]) -> LLMResponse:
    """``sent`` without what every answer of ours has and the format, by its table, has not."""
    names = [name for name in ("model", "response_id") if name not in changes]
    return evolve(sent, **{name: None for name in names if f"answer.{name}" in codec.LOSSES})


def said_by(codec: Any, changes: dict[str, Any]) -> tuple[LLMResponse, LLMResponse]:
    """An answer with one feature, and what arrives of it."""
    sent = evolve(SAID, **changes)
    keep = {"keep": KEPT} if sent.provider_fields or sent.logprobs else {}
    body = codec.write_response(sent)
    arrived: LLMResponse = codec.read_response(body, **keep)
    # The words in which a format says its reasons are its own, and its dates our clock's.
    if "raw_finish_reason" not in changes:
        plain = tuple(evolve(choice, raw_finish_reason=None) for choice in arrived.choices)
        arrived = evolve(arrived, raw_finish_reason=None, choices=plain)
    if "created" not in changes:
        arrived = evolve(arrived, created=None)
    return without(codec, sent, changes), arrived


@pytest.mark.parametrize(
    ("key", "changes"), [pytest.param(k, c, id=f"{k}-{i}") for i, (k, c) in enumerate(ANSWERS)]
)
@pytest.mark.parametrize("name", CODECS)
def test_an_answer_arrives_or_its_loss_is_in_the_table(name, key, changes):
    sent, arrived = said_by(CODECS[name], changes)
    assert arrived == sent or reason_of(CODECS[name], key), f"{name} loses {key}"


@pytest.mark.parametrize(
    ("key", "changes"), [pytest.param(k, c, id=f"{k}-{i}") for i, (k, c) in enumerate(ANSWERS)]
)
@pytest.mark.parametrize("name", CODECS)
def test_a_streamed_answer_loses_no_more_than_a_whole_one(name, key, changes):
    codec = CODECS[name]
    sent = evolve(SAID, **changes)
    writer = codec.stream_writer(
        response_id=sent.response_id,
        model=sent.model,
        created=1,
        include_usage=True,
        system_fingerprint=sent.system_fingerprint,
    )
    said = b"".join(writer.write(delta) for delta in deltas(sent)) + writer.finish()
    reader = codec.stream_reader(KEPT if sent.provider_fields or sent.logprobs else ())
    arrived = assemble([*reader.feed(said), *reader.close()])
    if "raw_finish_reason" not in changes:
        plain = tuple(evolve(choice, raw_finish_reason=None) for choice in arrived.choices)
        arrived = evolve(arrived, raw_finish_reason=None, choices=plain)
    # Streams have no date of their own.
    expected = evolve(without(codec, sent, changes), created=None)
    assert arrived == expected or reason_of(codec, key), f"{name} loses {key}"


def test_every_field_of_the_contracts_is_in_the_conversation():
    keys = {key for key, _ in [*TURNS, *SETTINGS]}
    settings = {each.name for each in fields(LLMRequest)} - STAY_WITH_US - {"messages"}
    assert settings - keys == set()
    turns = {f"messages.{each.name}" for each in fields(LLMMessage)}
    assert turns - {".".join(key.split(".")[:2]) for key in keys} == set()
    parts = {each.name for kind in (TextPart, ImagePart, FilePart) for each in fields(kind)}
    shown = {
        each.name
        for _, turn in TURNS
        if not isinstance(turn.content, str)
        for part in turn.content
        for each in fields(type(part))
        if getattr(part, each.name) is not None
    }
    assert parts - shown == set()
    answers = {f"answer.{each.name}" for each in fields(LLMResponse)}
    assert answers - {f"answer.{name}" for name in NOT_SAID} == {key for key, _ in ANSWERS}


@pytest.mark.parametrize(
    "name", ["openai_chat", "openai_responses", "anthropic", "gemini", "ollama"]
)
def test_what_a_backend_does_not_get_of_a_conversation_can_be_named(name):
    codec = CODECS[name]
    for key, turn in TURNS:
        request = asking(codec, key, turn)
        if carried(codec, request) is None or key not in codec.LOSSES:
            continue
        told = lost(request, codec.LOSSES)
        if key in ("messages.content", "messages.content.media_type"):
            continue  # said in the table alone: the text is there
        assert key in told
        assert set(told) <= codec.LOSSES.keys()
