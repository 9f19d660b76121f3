"""The prompt formats that we ship, as the engine's own template code and tokenizer see them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from backends.tiny_llama import SPECIAL, piece, write_tiny_llama
from headrace.backends.local.llamacpp import LlamaCpp, LlamaCppSettings
from headrace.backends.local.templates import NAMES, read_template
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.messages import LLMMessage, ToolCall, ToolSpec
from headrace.contracts.record import Marks
from headrace.contracts.requests import LLMRequest
from headrace.net.clock import World
from headrace.net.pool import PooledTransport

# What Meta's description of the format opens every prompt with.
OPENING = [
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "system",
    "<|end_header_id|>",
    "\n\nCutting Knowledge Date: December 2023\nToday Date: {today}\n\n",
]
# The engine fills in the day, the way the format wants it written.
TODAY = re.compile(r"(?<=Today Date: )\d{1,2} [A-Z][a-z]{2} \d{4}(?=\n)")
ANSWER = ["<|start_header_id|>", "assistant", "<|end_header_id|>", "\n\n"]


def turn(role: str, text: str) -> list[str]:
    return ["<|start_header_id|>", role, "<|end_header_id|>", f"\n\n{text}", "<|eot_id|>"]


def said(role: str, text: str) -> LLMMessage:
    return LLMMessage(role=role, content=text)  # type: ignore[arg-type]


def pieces(tokens: Sequence[int]) -> list[str]:
    """Each special token by itself, the bytes between two of them as one text."""
    found: list[str] = []
    for token in tokens:
        text = piece(token)
        if text in SPECIAL or not found or found[-1] in SPECIAL:
            found.append(text)
        else:
            found[-1] += text
    return [TODAY.sub("{today}", text) for text in found]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llama(tmp_path_factory.mktemp("model") / "tiny.gguf")


def prompts_of(tiny: Path, template: str, requests: Sequence[LLMRequest]) -> list[list[str]]:
    async def run() -> list[list[str]]:
        transport = PooledTransport()
        settings = LlamaCppSettings(
            name="tiny", path=tiny, slots=1, kv_tokens=4096, template=read_template(template)
        )
        engine = LlamaCpp(settings, World(transport=transport))
        try:
            await engine.start()
            found = []
            for request in requests:
                tokens = await engine.prompt_tokens(request)
                found.append(pieces(tokens))
                # The engine computes exactly these: its own count of the prompt is the judge.
                marks, counted = Marks(), None
                async for delta in engine.stream(request, marks):
                    counted = delta.usage_delta or counted
                assert counted is not None
                assert counted.prompt_tokens == len(tokens)
                # Llama 3.3's template has a place for tools; ChatML's is asked for none here.
                assert not marks.dropped
            return found
        finally:
            await engine.aclose()
            await transport.aclose()

    return asyncio.run(run())


def test_llama_3_3_conversations_are_written_token_by_token_as_meta_describes(tiny: Path) -> None:
    alone = LLMRequest(messages=(said("user", " Hi! "),), max_tokens=1)
    conversation = LLMRequest(
        messages=(
            said("system", "Be brief."),
            said("user", "Hi!"),
            said("assistant", "Hello."),
            said("user", "What is 2 < 3?"),
        ),
        max_tokens=1,
    )
    first, second = prompts_of(tiny, "llama-3.3", [alone, conversation])
    assert first == [*OPENING, "<|eot_id|>", *turn("user", "Hi!"), *ANSWER]
    assert second == [
        *OPENING[:-1],
        OPENING[-1] + "Be brief.",
        "<|eot_id|>",
        *turn("user", "Hi!"),
        *turn("assistant", "Hello."),
        *turn("user", "What is 2 < 3?"),
        *ANSWER,
    ]


def test_llama_3_3_tools_are_offered_called_and_answered_in_its_own_roles(tiny: Path) -> None:
    request = LLMRequest(
        messages=(
            said("user", "Rain in Oslo?"),
            LLMMessage(
                role="assistant",
                content="",
                tool_calls=(
                    ToolCall(name="weather", arguments_json='{"city":"Oslo"}', call_id="call_1"),
                ),
            ),
            LLMMessage(role="tool", content="rain", tool_call_id="call_1"),
        ),
        tools=(
            ToolSpec(
                name="weather",
                description="Tell the weather.",
                input_schema={"type": "object", "properties": {"city": {"type": "string"}}},
            ),
        ),
        max_tokens=1,
    )
    (found,) = prompts_of(tiny, "llama-3.3", [request])
    assert found[:4] == OPENING[:4]
    assert found[4].startswith("\n\nEnvironment: ipython\nCutting Knowledge Date: December 2023\n")
    assert found[6:9] == ["<|start_header_id|>", "user", "<|end_header_id|>"]
    assert '"name": "weather"' in found[9]
    assert found[9].endswith("\n\nRain in Oslo?")
    called = found[11:16]
    assert called[1] == "assistant"
    assert called[3].replace(" ", "") == '\n\n{"name":"weather","parameters":{"city":"Oslo"}}'
    assert found[16:21] == turn("ipython", '"rain"')
    assert found[21:] == ANSWER


OFFER = (
    "\n\nGiven the following functions, please respond with a JSON for a function call with its "
    "proper arguments that best answers the given prompt.\n\nRespond in the format "
    '{"name": function name, "parameters": dictionary of argument name and its value}.'
    "Do not use variables.\n\n"
)
WEATHER = ToolSpec(
    name="weather",
    description="Tell the weather's <state>.",
    input_schema={"type": "object", "properties": {"city": {"type": "string"}}},
)
WEATHER_TEXT = """{
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tell the weather's <state>.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {
                    "type": "string"
                }
            }
        }
    }
}

"""


def test_llama_3_3_offers_tools_word_for_word_in_the_first_user_turn(tiny: Path) -> None:
    alone = LLMRequest(messages=(said("user", "Rain?"),), tools=(WEATHER,), max_tokens=1)
    later = LLMRequest(
        messages=(
            said("system", "Be brief."),
            said("user", "Rain?"),
            said("assistant", "Where?"),
            said("user", "In Oslo."),
        ),
        tools=(WEATHER, WEATHER),
        max_tokens=1,
    )
    first, second = prompts_of(tiny, "llama-3.3", [alone, later])
    opening = [*OPENING[:-1], "\n\nEnvironment: ipython" + OPENING[-1].removeprefix("\n")]
    asked = ["<|start_header_id|>", "user", "<|end_header_id|>"]
    assert first == [
        *opening,
        "<|eot_id|>",
        *asked,
        OFFER + WEATHER_TEXT + "Rain?",
        "<|eot_id|>",
        *ANSWER,
    ]
    assert second == [
        *opening[:-1],
        opening[-1] + "Be brief.",
        "<|eot_id|>",
        *asked,
        OFFER + WEATHER_TEXT * 2 + "Rain?",
        "<|eot_id|>",
        *turn("assistant", "Where?"),
        *turn("user", "In Oslo."),
        *ANSWER,
    ]


@pytest.mark.parametrize(
    ("messages", "tools", "what"),
    [
        ((said("system", "Be brief."),), (WEATHER,), "first user turn"),
        (
            (
                said("user", "Rain?"),
                LLMMessage(
                    role="assistant",
                    content="",
                    tool_calls=tuple(
                        ToolCall(name="weather", arguments_json="{}", call_id=f"call_{n}")
                        for n in range(2)
                    ),
                ),
                LLMMessage(role="tool", content="rain", tool_call_id="call_0"),
                LLMMessage(role="tool", content="rain", tool_call_id="call_1"),
            ),
            (),
            "several tool calls",
        ),
    ],
    ids=["tools without a user turn", "two calls at once"],
)
def test_what_llama_3_3_has_no_room_for_is_refused_and_not_left_out(
    tiny: Path, messages: tuple[LLMMessage, ...], tools: tuple[ToolSpec, ...], what: str
) -> None:
    with pytest.raises(LLMInvalidRequestError, match=what):
        prompts_of(tiny, "llama-3.3", [LLMRequest(messages=messages, tools=tools, max_tokens=1)])


def test_chatml_puts_each_turn_between_its_markers(tiny: Path) -> None:
    request = LLMRequest(messages=(said("system", "s"), said("user", "u")), max_tokens=1)
    (found,) = prompts_of(tiny, "chatml", [request])
    text = "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\n"
    assert found == ["<|begin_of_text|>", text]


def test_an_unknown_template_is_refused_with_the_known_names() -> None:
    with pytest.raises(LLMInvalidRequestError) as refused:
        read_template("llama-9")
    assert all(name in str(refused.value) for name in NAMES)
