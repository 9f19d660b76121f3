"""A rich conversation, feature by feature: what the formats have to carry, for the tests of all pairs.

The key of a feature is what the formats' tables of losses call it.
"""

from __future__ import annotations

from typing import Any

from attrs import evolve

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
from headrace.contracts.requests import NamedTool
from headrace.contracts.responses import (
    LLMChoice,
    LLMResponse,
    TokenLogprob,
    TopLogprob,
    Usage,
)

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
    ("tools.strict.mixed", {"tools": (WEATHER, evolve(WEATHER, name="wind", strict=False))}),
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
